"""`sf-jax bench serve`: the service under load on loopback, with and without batching.

The service is started as anyone would start it, once with `--batch N` and once with `--batch 1`. So
many requests are sent, so many at a time, with rendered images of several sizes, and every answer
is held against `predict` on the same file. Then come requests that must be refused, and a SIGTERM
while requests are being answered.

    sf-jax bench serve --out experiments/results/serve.md
"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from tqdm import tqdm

from sf_jax.cli.arguments import Parser, former, whole
from sf_jax.media.files import write_text
from sf_jax.media.images import read_bytes
from sf_jax.serve.client import ServiceError, ask

if TYPE_CHECKING:
    from sf_jax.reader.action import FaceAction

SIZES = ((96, 96), (128, 64), (64, 128), (160, 120), (192, 192), (240, 320))  # rows, columns
STARTING = 600.0  # seconds that a service may take to compile
MAX_BYTES, MAX_PIXELS = 2**20, 10**6
CLOSE = 1e-4  # of coefficients: batches of another size round differently


def encoded_faces(count: int) -> list[bytes]:
    """PNG files of people whom training never met, of several sizes."""
    from data_pipelines.sampler import sample
    from sf_jax.render.draw import draw
    from sf_jax.render.head import builtin
    from sf_jax.render.scene import random_scene

    rig, files = builtin(), []
    for i in tqdm(range(count), desc="rendering", unit="image"):
        person = 1_000_000 + i
        scene = random_scene(person, person, len(rig.identity))
        drawn = draw(rig, sample(person), scene, *SIZES[i % len(SIZES)])
        file = BytesIO()
        Image.fromarray(drawn.image).save(file, "PNG")
        files.append(file.getvalue())
    return files


def offline(files: list[bytes]) -> "list[FaceAction]":
    """What `predict` says to each file."""
    from sf_jax.cli.loading import load_model

    model = load_model(None)
    shown = [read_bytes(file, MAX_PIXELS) for file in files]
    return [model.predict(image) for image in tqdm(shown, desc="offline", unit="image")]


@contextmanager
def service(*flags: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A running service that is ready, and its address."""
    command = [sys.executable, "-m", "sf_jax", "serve", "--port", "0", *flags]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        ends = time.monotonic() + STARTING
        while health(url)["status"] != "ready":
            if time.monotonic() > ends or process.poll() is not None:
                raise ValueError(f"the service was not ready after {STARTING:g} s")
            time.sleep(0.2)
        yield process, url
    finally:
        process.kill()
        process.wait()


def health(url: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request("GET", "/health")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@dataclass
class Tally:
    """What became of requests.

    Attributes:
      sent: how many; lost: the errors of those that got no answer.
      texts, numbers: answers whose text, or a coefficient by more than `CLOSE`, is another than
        `predict` gave; parted: the largest difference of a coefficient where the text is the same.
      seconds: of each answer, from the call to the `FaceAction`; wall: of all together.
      batches: that the service ran for them; cpu: seconds of processor time that it took.
    """

    sent: int = 0
    lost: list[str] = field(default_factory=list)
    texts: int = 0
    numbers: int = 0
    parted: float = 0.0
    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    batches: int = 0
    cpu: float = 0.0

    def add(self, found: "FaceAction | ServiceError", expected: "FaceAction") -> None:
        self.sent += 1
        if isinstance(found, ServiceError):
            self.lost.append(str(found))
            return
        apart = float(np.abs(found.coefficients - expected.coefficients).max())
        same = found.text == expected.text
        self.texts += not same
        self.numbers += apart > CLOSE
        self.parted = max(self.parted, apart) if same else self.parted

    def row(self) -> list[str]:
        p50, p99 = np.percentile(self.seconds or [np.nan], [50, 99]) * 1000
        answered = self.sent - len(self.lost)
        return [
            str(self.sent),
            str(len(self.lost)),
            str(self.texts),
            str(self.numbers),
            f"{self.parted:.1e}",
            f"{p50:.0f}",
            f"{p99:.0f}",
            f"{answered / self.wall:.1f}",
            f"{self.cpu / max(answered, 1) * 1000:.0f}",
            f"{answered / self.batches:.1f}" if self.batches else "-",
        ]


def put(url: str, file: bytes) -> "tuple[FaceAction | ServiceError, float]":
    """One answer, or why there is none, and the seconds it took."""
    start = time.perf_counter()
    found: FaceAction | ServiceError
    try:
        found = ask(url, file)
    except ServiceError as error:
        found = error
    return found, time.perf_counter() - start


def cpu_seconds(process: int) -> float:
    """Processor time that a process and its children have taken; unlike the clock, others do not
    disturb it much."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return own + sum(
        cpu_seconds(int(child)) for task in tasks for child in task.read_text().split()
    )


def load_test(
    url: str, files: list[bytes], expected: "list[FaceAction]", requests: int, concurrent: int
) -> Tally:
    """Sends requests, so many at a time, each file in turn, and holds the answers to `expected`."""
    tally, before = Tally(), health(url)["batches"]
    start = time.perf_counter()
    with ThreadPoolExecutor(concurrent) as pool:
        asked = pool.map(lambda i: put(url, files[i % len(files)]), range(requests))
        for i, (found, seconds) in enumerate(tqdm(asked, total=requests, unit="request")):
            tally.add(found, expected[i % len(files)])
            if not isinstance(found, ServiceError):
                tally.seconds.append(seconds)
    tally.wall = time.perf_counter() - start
    tally.batches = health(url)["batches"] - before
    return tally


def raw(
    url: str, body: bytes | Iterator[bytes] | None, query: str = "", chunked: bool = False
) -> tuple[int, str]:
    """Status and reason of a request that `ask` would not send."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request(
            "POST",
            f"/v1/predict{query}",
            body,
            encode_chunked=chunked,
            headers={"Transfer-Encoding": "chunked"} if chunked else {},
        )
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read()).get("error", "answered")
    finally:
        connection.close()


def refusals(url: str, file: bytes) -> list[tuple[str, int, str]]:
    """Requests that must be refused: what was sent, the status and the reason."""
    vast = BytesIO()
    Image.new("L", (1001, 1000)).save(vast, "PNG")
    over = bytes(MAX_BYTES + 1)
    sent: list[tuple[str, Any, str, bool]] = [
        ("a body one byte too long", over, "", False),
        ("the same in chunks, of no declared length", iter([over[:65536]] * 17), "", True),
        ("a small file of too many pixels", vast.getvalue(), "", False),
        ("nothing", b"", "", False),
        ("text", b"not an image", "", False),
        ("half a PNG", file[: len(file) // 2], "", False),
        ("an unknown option", file, "?wrods=false", False),
        ("a temperature that is no number", file, "?temperature=nan", False),
        ("a cap that is not offered", file, "?max_rationale=7", False),
    ]
    return [(name, *raw(url, body, query, chunked)) for name, body, query, chunked in sent]


def drain(
    process: subprocess.Popen,
    url: str,
    files: list[bytes],
    expected: "list[FaceAction]",
    concurrent: int,
) -> str:
    """Sends SIGTERM while requests are held, and tells what became of them."""
    tally = Tally()
    with ThreadPoolExecutor(concurrent) as pool:
        asked = [pool.submit(put, url, files[i % len(files)]) for i in range(concurrent)]
        while (held := health(url)["held"]) + sum(map(Future.done, asked)) < concurrent:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        for i, future in enumerate(asked):
            tally.add(future.result()[0], expected[i % len(files)])
    return (
        f"SIGTERM with {held} requests held: {tally.sent - len(tally.lost)} of {tally.sent} "
        f"answered, {tally.texts} with another text; exit code {process.wait(60)}"
    )


@dataclass
class Found:
    """What one service, started with --batch `batch`, did."""

    batch: int
    tally: Tally
    refused: list[tuple[str, int, str]]
    drained: str


def try_service(
    batch: int, files: list[bytes], expected: "list[FaceAction]", options: argparse.Namespace
) -> Found:
    flags = [
        "--batch",
        str(batch),
        "--max-bytes",
        str(MAX_BYTES),
        "--max-pixels",
        str(MAX_PIXELS),
        "--queue",
        str(options.concurrent),
    ]
    with service(*flags) as (process, url):
        before = cpu_seconds(process.pid)
        tally = load_test(url, files, expected, options.requests, options.concurrent)
        tally.cpu = cpu_seconds(process.pid) - before
        refused = refusals(url, files[0])
        return Found(
            batch, tally, refused, drain(process, url, files, expected, options.concurrent)
        )


HEAD = (
    "service",
    "requests",
    "lost",
    "other text",
    "other numbers",
    "apart by",
    "p50 ms",
    "p99 ms",
    "images/s",
    "CPU ms an image",
    "a batch",
)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown, the first row being the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def report(options: argparse.Namespace, results: list[Found], cores: int) -> str:
    """Everything found, as Markdown."""
    speeds = [found.tally.sent / found.tally.wall for found in results]
    refused = [("sent", "status", "reason")]
    refused += [(name, str(status), reason) for name, status, reason in results[0].refused]
    lost = [f"lost: {reason}" for found in results for reason in found.tally.lost[:3]]
    return "\n\n".join(
        [
            f"`sf-jax bench serve --requests {options.requests} --concurrent {options.concurrent} "
            f"--batch {options.batch} --images {options.images}`, built-in model, {cores} "
            "cores shared with the client",
            table([HEAD, *([f"--batch {found.batch}", *found.tally.row()] for found in results)]),
            f"With batching to without: {speeds[0] / speeds[1]:.2f} in images/s, "
            f"{results[1].tally.cpu / results[0].tally.cpu:.2f} in images a CPU second. "
            f'"Other numbers": a coefficient more than {CLOSE:g} from that of `predict`; '
            '"apart by": the largest difference where the text is the same; "a batch": images '
            "in it, on average.",
            *(f"{found.drained} (--batch {found.batch})." for found in results),
            table(refused),
            *lost,
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(
        prog="sf-jax bench serve",
        description=__doc__,
    )
    add = parser.add_argument
    add("--requests", type=whole(1, 10**6), default=1000, help="sent to each service")
    add("--concurrent", type=whole(1, 1000), default=32, help="requests under way at once")
    add("--batch", type=whole(2, 1024), default=16, help="of the service with batching")
    add("--images", type=whole(1, 10**4), default=48, help="distinct ones (default 48)")
    former(parser, "--pictures", dest="images", type=whole(1, 10**4))
    add("--out", type=Path, help="also write the report here, as Markdown")
    options = parser.parse_args(argv)
    files = encoded_faces(options.images)
    expected = offline(files)
    results = [try_service(batch, files, expected, options) for batch in (options.batch, 1)]
    text = report(options, results, len(os.sched_getaffinity(0)))
    print(text)
    if options.out:
        write_text(options.out, text + "\n")


if __name__ == "__main__":
    main()
