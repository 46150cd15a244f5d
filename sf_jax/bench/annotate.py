"""`sf-jax bench annotate`: how soon the annotation page shows the next pair.

    sf-jax bench annotate --judgements 200
    sf-jax bench annotate --pairs 12000 --judgements 1000 --out annotate.json

Makes a folder of pairs with images of noise, which compress worst, opens the page in Chromium (apt
install chromium; pip install playwright) and judges by keys. Measured in the page: from a key to
the next pair being painted, with the judgement on the disk in between.
"""

import argparse
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sf_jax.cli.arguments import Parser, UsageError, number, whole
from sf_jax.face.regions import PARTS
from sf_jax.media import files
from sf_jax.serve import annotating, listening
from sf_jax.serve.annotation import Annotation, build_app
from sf_jax.systems.superface import folder, queues, store
from sf_jax.systems.superface.pairs import Candidate, Pair, image_hash, render_name

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
KEYS = ("ArrowLeft", "ArrowRight", "ArrowDown", "ArrowUp")
LIMIT = 150.0  # milliseconds within which the next pair is to be shown, of 95 in 100
IMAGES = 64  # different ones; more pairs share them
READY = '#stage[aria-busy="false"]'


def made(path: Path, count: int, size: int, image_size: int) -> folder.PairFolder:
    """A folder of pairs with images of noise.

    Args:
      size, image_size: of a side of the renders and of the images, pixels.
    """
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (IMAGES, image_size, image_size, 3), np.uint8)
    renders = rng.integers(0, 256, (2, size, size, 3), np.uint8)
    with folder.filling(path, folder.Header("none", "none", size)) as adding:
        for number in range(count):
            image, region = shown[number % IMAGES], PARTS[number % 2]
            values = np.zeros((2, 61), np.float32)
            values[:, number // IMAGES % 50] = 0.3, 0.7
            values[1, 51] = number / count
            first, second = (
                Candidate(each, "noise", render_name(each, "0" * 32, (0, 0, 0), size, region))
                for each in values
            )
            pair = Pair(image_hash(image), region, first, second, 1.0, "0" * 32, "0" * 32)
            adding.add(pair, image, *renders)
    return folder.read(path)


@contextmanager
def served(pairs: folder.PairFolder) -> Iterator[str]:
    """The address of the page, served in a thread."""
    with store.writing(pairs) as judgements, listening.listen("127.0.0.1", 0) as socket:
        annotation = Annotation(judgements, queues.Queues(judgements))
        server = annotating.Server(listening.configured(build_app(annotation), 1), lambda: None)
        thread = threading.Thread(target=lambda: server.run(sockets=[socket]))
        thread.start()
        try:
            yield listening.address(socket)
        finally:
            server.should_exit = True
            thread.join()


def times(url: str, count: int, pause: float) -> Float[np.ndarray, " N"]:
    """Milliseconds from each key to the next pair.

    Args:
      pause: seconds between a pair being shown and a key.

    Raises:
      UsageError: playwright or Chromium is not installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise UsageError("needs playwright: pip install playwright") from error
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise UsageError("needs Chromium: apt install chromium")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox refuses to run as root
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{url}/?annotator=bench")
        page.wait_for_selector(READY)
        for task in range(count):
            page.wait_for_timeout(1000 * pause)
            page.keyboard.press(KEYS[task % len(KEYS)])
            page.wait_for_selector(f'{READY}[data-task="{task + 1}"]')
        found = page.evaluate("performance.getEntriesByName('next pair').map(e => e.duration)")
        browser.close()
    return np.array(found, float)


def summary(found: Float[np.ndarray, " N"]) -> dict[str, float | int]:
    """Count, median, 95th percentile and longest, milliseconds."""
    p50, p95 = np.percentile(found, [50, 95])
    return {
        "judgements": len(found),
        "median_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "longest_ms": round(float(found.max()), 1),
    }


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax bench annotate", description=__doc__)
    add = parser.add_argument
    add("--judgements", type=whole(1, 10_000), default=200, help="how many are made")
    add("--pairs", type=whole(2, 100_000), default=1000, help="in the folder")
    add("--size", type=whole(16, 2048), default=256, help="of a side of the renders, pixels")
    add("--image-size", type=whole(16, 4096), default=512, help="of a side of the images, pixels")
    add(
        "--pause",
        type=number(0, False, "0 or more"),
        default=0.3,
        metavar="SECONDS",
        help="for which each pair is seen before a key; people take longer",
    )
    add("--out", type=Path, metavar="FILE", help="JSON of the figures")
    return parser


def main(argv: list[str]) -> None:
    options = build_parser().parse_args(argv)
    if options.judgements >= options.pairs:
        raise UsageError(f"--judgements is {options.judgements}, expected fewer than --pairs")
    with tempfile.TemporaryDirectory() as temporary:
        pairs = made(Path(temporary, "pairs"), options.pairs, options.size, options.image_size)
        with served(pairs) as url:
            found = summary(times(url, options.judgements, options.pause))
    print("  ".join(f"{name} {value}" for name, value in found.items()))
    print(f"p95 within {LIMIT:g} ms: {'yes' if found['p95_ms'] <= LIMIT else 'no'}")
    if options.out is not None:
        given = {name: getattr(options, name) for name in ("pairs", "size", "image_size", "pause")}
        files.write_json(options.out, given | found)
