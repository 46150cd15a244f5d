"""Faults in folders of images and videos: odd kinds, hidden files, links, damaged results."""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.faults import predicting
from tests.faults.harness import Fault, Outcome, check_all
from tests.faults.predicting import ONCE, TWICE, clip, image, pick, rows, some

UNREAD = "HEIC heic hif cr2 NEF dng jp2 jxl psd tga ico svg exr hdr eps braw r3d".split()
HIDDEN = [".x.jpg", "._IMG.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", ".a.mp4", ".trash/b.png"]


def good(draw: np.random.Generator, folder: Path) -> int:
    """Between one and four sound images in a folder; how many."""
    count = int(draw.integers(1, 5))
    for number in range(count):
        image(draw, folder / f"face{number}.{pick(draw, ['jpg', 'png', 'PNG', 'bmp'])}")
    return count


def reads(count: int) -> "CheckReads":
    """That so many images have results in `out`, with as many rows in the table."""

    def check(outcome: Outcome) -> str:
        out = outcome.folder / "out"
        found = len([path for path in out.rglob("*.json") if not path.name.startswith(".")])
        tables = [rows(path) for path in out.rglob("*.csv") if ".index" not in path.name]
        right = found == count and (not count or tables == [count])
        return "" if right else f"{found} results and tables of {tables} rows, expected {count}"

    return check


CheckReads = type(reads)


def unread_kinds(draw: np.random.Generator, folder: Path) -> Fault:
    count = good(draw, folder / "f")
    endings = some(draw, UNREAD)
    for ending in endings:
        start = pick(
            draw, [b"", b"II*\0", b"\0\0\0\x18ftypheic\0\0\0\0", b"8BPS", b"%!PS", b"<svg>"]
        )
        (folder / "f" / f"IMG.{ending}").write_bytes(start + draw.bytes(200))
    named = "(?s)" + ".*".join(f"(?=.*IMG.{ending})" for ending in endings[:1])
    return Fault("kinds not read", ("f", "--out", "out"), ONCE, (2,), named, check=reads(count))


def damaged_files(draw: np.random.Generator, folder: Path) -> Fault:
    count = good(draw, folder / "f")
    ending = pick(draw, ["jpg", "png", "webp", "tif", "gif", "avif", "mp4", "mov", "avi", "mkv"])
    whole = image(draw, folder / "whole.png").read_bytes()
    content = pick(draw, [b"", whole[:40], draw.bytes(300), bytes(300), whole[:-80]])
    (folder / "f" / f"bad.{ending}").write_bytes(content)
    named = rf"bad\.{ending}"
    return Fault("damaged", ("f", "--out", "out"), ONCE, (2,), named, check=reads(count))


def hidden_files(draw: np.random.Generator, folder: Path) -> Fault:
    count = good(draw, folder / "f")
    for name in some(draw, HIDDEN):
        image(draw, folder / "f" / name)
    argv = ("f", "--recursive", "--out", "out")
    return Fault("hidden files", argv, ONCE, (0,), check=reads(count))


def renamed_kinds(draw: np.random.Generator, folder: Path) -> Fault:
    count = good(draw, folder / "f")
    ending = pick(draw, ["jpg", "heic", "tga", "webp", "gif", "jp2"])
    image(draw, folder / "f" / f"other.{ending}", pick(draw, ["PNG", "JPEG", "BMP", "WEBP"]))
    return Fault(f"renamed to {ending}", ("f", "--out", "out"), ONCE, (0,), check=reads(count + 1))


def links(draw: np.random.Generator, folder: Path) -> Fault:
    """Links that lead in circles, nowhere, to folders above, and to another image."""
    count, top = good(draw, folder / "f"), folder / "f"
    (top / "sub").mkdir()
    image(draw, top / "sub" / "deep.png")
    (top / "sub" / "up").symlink_to(pick(draw, ["..", "../..", str(top), "."]))
    (top / "circle").symlink_to("circle")
    broken = bool(draw.integers(2))
    if broken:
        (top / "broken.jpg").symlink_to(pick(draw, ["nowhere.jpg", "broken.jpg", "/none/x"]))
    image(draw, folder / "other" / "linked.png")
    (top / "linked.png").symlink_to("../other/linked.png")
    argv, check = ("f", "--recursive", "--out", "out"), reads(count + 2)
    return Fault("links", argv, ONCE, (2 if broken else 0,), r"broken\.jpg", check=check)


def special_files(draw: np.random.Generator, folder: Path) -> Fault:
    count = good(draw, folder / "f")
    name = f"odd.{pick(draw, ['png', 'mp4', 'ts', 'jpg', *UNREAD])}"
    os.mkfifo(folder / "f" / name)
    (folder / "f" / "album.jpg").mkdir()
    return Fault("a pipe", ("f", "--out", "out"), ONCE, (2,), r"odd\.", check=reads(count))


def deep_folders(draw: np.random.Generator, folder: Path) -> Fault:
    depth, top = int(draw.integers(2, 60)), folder / "f"
    for number in range(depth):
        top = top / pick(draw, ["a", "b.jpg", "é", "x" * 20])
        if number % 9 == 0:
            image(draw, top / "same.png")
    argv = ("f", "--recursive", "--out", "out")
    return Fault(f"{depth} folders", argv, TWICE, (0,), check=reads(-(-depth // 9)))


def folders_of_nothing(draw: np.random.Generator, folder: Path) -> Fault:
    (folder / "f").mkdir()
    for name in some(draw, ["notes.txt", ".x.jpg", "sub/a.png", "README"]):
        image(draw, folder / "f" / name)
    kind = pick(draw, ["f", "none", "f/none.jpg", "x" * 300, "a\0b"])
    argv = (kind, "--out", "out")
    return Fault("nothing to read", argv, ONCE, (2,), "f|none|x|a")


def damaged_results(draw: np.random.Generator, folder: Path) -> Fault:
    """Results of before that were emptied or removed are made again."""
    count = good(draw, folder / "f")
    clip(folder / "f" / "clip.mp4")
    argv = ("f", "--out", "out", "--skip-existing")
    with contextlib.chdir(folder), pytest.raises(SystemExit, match="0"):
        predicting.once(*argv)
    results = [p for p in (folder / "out").iterdir() if not p.name.startswith(".")]
    sound = {path.name: path.read_bytes() for path in results}
    touched = some(draw, [path for path in results if path.suffix in (".json", ".png", ".jsonl")])
    for path in touched:
        path.unlink() if draw.integers(2) else path.write_bytes(b"")

    def check(outcome: Outcome) -> str:
        now = {name: (outcome.folder / "out" / name) for name in sound}
        lost = [name for name, path in now.items() if not path.exists()]
        if lost or len(list((outcome.folder / "out").glob("*.json"))) != count:
            return f"not made again: {lost}"
        different = [
            n for n, path in now.items() if path.read_bytes() != sound[n] and "sf" not in n
        ]
        return f"differ: {different}" if different else ""

    replaced = tuple(f"out/{path.name}" for path in [*touched, folder / ".sf-jax-results.jsonl"])
    argv = ("f", "--out", "out", "--skip-existing")
    return Fault("damaged results", argv, ONCE, (0,), replaced=replaced, check=check)


def records(draw: np.random.Generator, folder: Path) -> Fault:
    """A record of results that is damaged, or none."""
    good(draw, folder / "f")
    (folder / "out").mkdir()
    header = json.dumps({"record": "results of sf-jax predict", "version": 1})
    line = {"source": "../f/face0.png", "stem": "face0", "files": {"face0.json": "xxh128:0"}}
    odd = [
        [],
        1,
        "x",
        {"source": 3},
        line | {"files": [1]},
        line | {"older": {"a": 3}},
        {"stem": "a"},
        line | {"stamp": "now"},
        line | {"stem": "../../up"},
        line | {"files": {"/etc/hosts": "a"}},
        line | {"made": None},
        line | {"source": "\ud83d"},
        line | {"complete": 7, "more": 1},
    ]
    texts = [json.dumps(entry) for entry in some(draw, odd)] + ["[" * 5000, '{"source": "', "\0"]
    record = folder / "out" / ".sf-jax-results.jsonl"
    whole = bool(draw.integers(3))
    content = "\n".join([header, *some(draw, texts)]) if whole else pick(draw, [*texts, "", "\n"])
    record.write_text(content)
    replaced = ("out/.sf-jax-results.jsonl",) if whole else ()
    argv, named = ("f", "--out", "out", "--skip-existing"), r"\.sf-jax-results\.jsonl"
    return Fault("records", argv, TWICE, (0 if whole else 2,), named, replaced)


def honest(draw: np.random.Generator, folder: Path) -> Fault:
    good(draw, folder / "f")
    clip(folder / "f" / "clip.mp4")
    return Fault("sound", ("f", "--out", "out"), ONCE, (0,))


KINDS = [
    unread_kinds,
    damaged_files,
    hidden_files,
    renamed_kinds,
    links,
    special_files,
    deep_folders,
    folders_of_nothing,
    damaged_results,
    records,
]


@pytest.mark.slow
def test_many() -> None:
    check_all("folders", KINDS, count=120, honest=honest)
