"""Faults in names: files of the user's own where results would go, odd characters, links."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.faults import test_folders
from tests.faults.harness import Fault, Outcome, check_all
from tests.faults.predicting import FULL, ONCE, TWICE, clip, image, pick, rows, some

STEMS = ["a", "b", "pictures", "A", "pictures.index", "a.preview", "é"]
SUFFIXES = [".json", ".jsonl", ".csv", ".index.csv", ".preview.png", ".png.json", ".png-2.csv"]
ODD = [
    b"\xff\xfe",
    b"caf\xe9",
    b"new\nline",
    b"\x1b[31m",
    b"tab\there",
    b" spaces ",
    b"-dash",
    b"=1+1",
    b"quo'te\"",
    b"\xe2\x80\xae",
    b"\xed\xa0\xbd",
    "é".encode(),
    "e\u0301".encode(),
    b"%d",
    b"~",
    b"con",
    b"a:b",
    b"back\\slash",
    b"x" * 250,
    "ü".encode() * 125,
    b"..x",
    b"*?",
    b"trailing.",
]


def table_of(count: int, out: str = "out") -> "Check":
    """That the table of so many images is there."""

    def check(outcome: Outcome) -> str:
        found = [rows(path) for path in (outcome.folder / out).glob("pictures*.csv")]
        return "" if count in found else f"tables of {found} rows, expected {count}"

    return check


Check = type(table_of)


def own(draw: np.random.Generator, folder: Path, stems: list[str]) -> None:
    """Files of the user's own, at names of results."""
    for stem in some(draw, stems):
        for suffix in some(draw, SUFFIXES):
            path = folder / f"{stem}{suffix}"
            if not path.exists():
                how = int(draw.integers(4))
                path.write_bytes(draw.bytes(50) if how else b"")
                if how == 3:
                    path.unlink()
                    path.symlink_to(pick(draw, ["a.png", "nowhere", "/dev/null"]))


def own_files(draw: np.random.Generator, folder: Path) -> Fault:
    stems = some(draw, STEMS)
    for stem in stems:
        image(draw, folder / f"{stem}.png")
    for number in range(2):
        image(draw, folder / f"sure{number}.png")
    own(draw, folder, [*STEMS, "sure0"])
    given = sorted(path.name for path in folder.glob("*.png") if not path.name.endswith("w.png"))
    argv = (*given, "--out", ".", *some(draw, ["--no-preview", "--skip-existing", "--recursive"]))
    return Fault("own files", argv, TWICE, (0, 2), r"\.png")


def videos_of_one_name(draw: np.random.Generator, folder: Path) -> Fault:
    names = ["pictures.mp4", "Pictures.MP4", "a.mp4", "pictures.index.mp4", "pictures.csv.mp4"]
    for name in some(draw, names):
        clip(folder / "f" / name)
    for name in ("a.png", "b.png", *some(draw, ["pictures.png", "A.PNG", "a.jpg", "a.bmp"])):
        image(draw, folder / "f" / name)
    count = len([p for p in (folder / "f").iterdir() if p.suffix.lower() != ".mp4"])
    return Fault("one name", ("f", "--out", "out"), TWICE, (0,), check=table_of(count))


def seen(names: list[bytes]) -> int:
    """How many are no hidden files."""
    return sum(not name.startswith(b".") for name in names)


def odd_names(draw: np.random.Generator, folder: Path) -> Fault:
    names = some(draw, ODD)
    for name in names:
        image(draw, folder / "f" / os.fsdecode(name[:250] + b".png"))
        if draw.integers(3) == 0:
            clip(folder / "clip.mp4").rename(folder / "f" / os.fsdecode(name[:250] + b".mp4"))
    image(draw, folder / "f" / "plain.png")
    broken = bool(draw.integers(2))
    if broken:
        bad = folder / "f" / os.fsdecode(b"bad" + names[0][:200] + b".jpg")
        bad.write_bytes(b"no image")
    argv, check = ("f", "--out", "out"), table_of(seen(names) + 1)
    return Fault(
        f"names such as {names[0]!r}", argv, TWICE, (2 if broken else 0,), "bad", check=check
    )


def odd_names_in_place(draw: np.random.Generator, folder: Path) -> Fault:
    names = some(draw, ODD)
    for name in names:
        image(draw, folder / os.fsdecode(name[:250] + b".png"))
    image(draw, folder / "plain.png")
    return Fault(
        "odd, in place", (".", "--out", "."), TWICE, (0,), check=table_of(seen(names) + 1, ".")
    )


def trees(draw: np.random.Generator, folder: Path) -> Fault:
    """The same names in several folders, results among them, and what is in their way."""
    image(draw, folder / "f" / "x.png")
    for name in some(draw, ["a", "b", "A", "é", "out"]):
        image(draw, folder / "f" / name / pick(draw, ["x.png", "X.PNG", "x.jpg"]))
    out = folder / "f" / "out"
    out.mkdir(exist_ok=True)
    blocked = bool(draw.integers(2)) and (folder / "f" / "a").exists()
    if blocked:
        (out / "a").write_text("mine")
    argv = ("f", "--recursive", "--out", "f/out")
    return Fault("trees", argv, TWICE, (2 if blocked else 0,), "out/a")


def linked_results(draw: np.random.Generator, folder: Path) -> Fault:
    """Hard links and links at names of results, which lead to inputs."""
    first = image(draw, folder / "a.png")
    image(draw, folder / "b.png")
    (folder / "out").mkdir()
    for suffix in some(draw, SUFFIXES):
        path = folder / "out" / f"a{suffix}"
        how = int(draw.integers(3))
        os.link(first, path) if how == 0 else path.symlink_to(pick(draw, ["../a.png", "../b.png"]))
    argv = ("a.png", "b.png", "--out", pick(draw, ["out", "./out/", "out/../out"]))
    return Fault("links", argv, TWICE, (0,), check=table_of(2))


def bad_out(draw: np.random.Generator, folder: Path) -> Fault:
    image(draw, folder / "a.png")
    (folder / "file").write_text("mine")
    (folder / "dangling").symlink_to("nowhere/deeper")
    (folder / "circle").symlink_to("circle")
    options = ["file", "file/x", "a.png", "dangling", "circle", "/proc/x", "/dev/null", "x" * 300]
    out = pick(draw, [*options, "a.png/out", "/dev/full/x", "nul\0", "/sys/x"])
    return Fault(f"out is {out[:20]}", ("a.png", "--out", out), ONCE, (2,), ".")


def requests(draw: np.random.Generator, folder: Path) -> Fault:
    """Outputs that are an input or another output, however spelt."""
    image(draw, folder / "a.png")
    (folder / "sub").mkdir()
    (folder / "q.jsonl").write_text(request("a.png") + "\n" + request("a.png") + "\n")
    (folder / "link.jsonl").symlink_to("q.jsonl")
    os.link(folder / "q.jsonl", folder / "hard.jsonl")
    os.link(folder / "a.png", folder / "hard.png")
    (folder / "r.partial.jsonl").write_text("mine")
    (folder / "r.partial.csv").write_text("mine")
    inputs = ["q.jsonl", "./q.jsonl", "sub/../q.jsonl", "Q.JSONL", "link.jsonl", "hard.jsonl"]
    other = pick(draw, [*inputs, "a.png", "hard.png", "sub", "a.png/x", "r2.jsonl"])
    pair = ["--results", other, "--csv", "r.csv"]
    pair = pair if draw.integers(2) else ["--results", "r.jsonl", "--csv", other]
    right = 0 if other == "r2.jsonl" else 2
    return Fault(f"outputs {pair}", ("--requests", "q.jsonl", *pair), ONCE, (right,), r"\w")


def request(path: str, text: str = "<image>Read.") -> str:
    return json.dumps({"messages": [{"role": "user", "content": text}], "images": [path]})


def odd_requests(draw: np.random.Generator, folder: Path) -> Fault:
    """Half characters and odd paths cost one request, and nobody the CSV."""
    image(draw, folder / "a.png")
    half = pick(draw, ["\ud83d", "\udc00", "\udcff", "a\ud83db", "\udfff"])
    paths = [
        half,
        f"{half}.png",
        "\0",
        "a\0.png",
        "",
        ".",
        "/",
        "x" * 300,
        "../" * 60,
        "\x1b",
    ]
    odd = [request("a.png", f"<image>{half}"), *(request(path) for path in some(draw, paths))]
    lines = [request("a.png"), *some(draw, odd), request("a.png")]
    (folder / "q.jsonl").write_text("\n".join(lines))

    def check(outcome: Outcome) -> str:
        found = [json.loads(line) for line in (outcome.folder / "r.jsonl").read_text().splitlines()]
        answered = [record["response"] is not None for record in found]
        right = len(found) == len(lines) and answered[0] and answered[-1]
        whole = rows(outcome.folder / "r.csv") == len(lines)
        return (
            "" if right and whole else f"answered {answered}, {rows(outcome.folder / 'r.csv')} rows"
        )

    argv = ("--requests", "q.jsonl", "--results", "r.jsonl", "--csv", "r.csv")
    return Fault(f"half characters {half!r}", argv, ONCE, (2,), r"q\.jsonl, line \d", check=check)


def full_disk(draw: np.random.Generator, folder: Path) -> Fault:
    for number in range(int(draw.integers(1, 4))):
        image(draw, folder / f"{number}.png")
    clip(folder / "c.mp4")
    given = [path.name for path in folder.iterdir()]
    limit = pick(draw, ["0", "1", "100", "1000", "5000", "20000"])
    argv = (limit, *given, "--out", pick(draw, ["out", "."]))
    return Fault(f"files of {limit} bytes", argv, FULL, (0, 2), r"\w")


def honest(draw: np.random.Generator, folder: Path) -> Fault:
    image(draw, folder / "a.png")
    clip(folder / "c.mp4")
    return Fault("sound", (".", "--out", "out"), ONCE, (0,))


KINDS = [
    own_files,
    videos_of_one_name,
    odd_names,
    odd_names_in_place,
    trees,
    linked_results,
    bad_out,
    requests,
    odd_requests,
    full_disk,
]


def test_a_few_of_names_and_folders() -> None:
    check_all("names and folders", [*KINDS, *test_folders.KINDS], few=20)


@pytest.mark.slow
def test_many() -> None:
    check_all("names", KINDS, count=150, honest=honest)
