"""Faults in Live Link CSV files: counts, dialects, timecode, columns, cells, damage, odd names.

A take is written, spoiled and read in `read`, which knows what every row held: a row that is read
although it was not touched must hold its values, and times must never run back.
"""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sf_jax.face import livelink
from sf_jax.face.channels import NAMES
from sf_jax.face.timecode import Timecode
from sf_jax.reader import stills
from sf_jax.reader.reader import PredictOptions
from tests.faults.harness import Fault, check_all

READ, WRITE = "tests.faults.test_livelink:read", "tests.faults.test_livelink:write"
HEADER = ["Timecode", "BlendShapeCount", *NAMES]
FORMULAS = [
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "'",
    ";=",
    ",",
    '"',
    " =",
    "＝",
    "a",
    ".",
    "\udcff",
]


def read(name: str, expected: str = "", **options: object) -> str:
    """Reads a take; what is sound in it must have come through.

    Args:
      expected: JSON of the rate, the number of rows, gaps, and the coefficients of each line.
    """
    take = livelink.read(name, **options)  # type: ignore[arg-type]
    known = json.loads(expected) if expected else {}
    assert np.isfinite(take.seconds).all() and (np.diff(take.seconds) >= 0).all()
    assert len(take.seconds) == len(take.coefficients) == len(take.timecodes) == len(take.lines)
    found = take.coefficients[~np.isnan(take.coefficients)]
    assert found.min(initial=0) >= -1 and found.max(initial=0) <= 1
    for line, row in zip(take.lines, take.coefficients, strict=True):
        values = known.get("values", {}).get(str(line))
        assert values is None or row.tolist() == values, f"line {line} has other values"
    assert known.get("rows") in (None, len(take.lines)), f"{len(take.lines)} rows"
    assert known.get("rate") in (None, float(take.timecode_rate)), f"counts {take.timecode_rate}"
    assert known.get("fps") is None or abs(take.fps - known["fps"]) < 1e-6, f"runs at {take.fps}"
    missing = [note for note in take.notes if "missing" in note]
    assert known.get("gaps") in (None, len(missing)), f"{missing}"
    assert known.get("empty") in (None, take.empty_lines), f"empty lines {take.empty_lines}"
    return f"{len(take.lines)} rows"


def write(*names: str) -> str:
    """Writes stills of such names; what is read back must be the same, and harmless."""
    images = [json.loads(name) for name in names]
    rows = [stills.Still(image, np.zeros(61, np.float32)) for image in images]
    reader = SimpleNamespace(
        channels=NAMES, options=PredictOptions(source_column=True), frames=False
    )
    stills.write(reader, Path("s.csv"), Path("s.index.csv"), rows)  # type: ignore[arg-type]
    spelled = [image.encode("utf-8", "backslashreplace").decode() for image in images]
    assert livelink.read("s.csv").sources == spelled
    with open("s.index.csv", encoding="utf-8", newline="") as file:
        cells = [row["image"] for row in csv.DictReader(file)]
    assert [livelink.plain(cell) for cell in cells] == spelled
    assert not any(cell.strip(" ")[:1] in tuple("=+-@\t\r＝") for cell in cells)
    return f"{len(rows)} names"


def table(draw: np.random.Generator, count: int = 20) -> list[list[str]]:
    """Header and rows of a sound take at 30 frames a second."""
    values = draw.integers(0, 10001, (count, 61)) / 10000
    labels = livelink.labels(count, 30)
    rows = zip(labels, values.tolist(), strict=True)
    return [HEADER, *[[label, "61", *[f"{x:.4f}" for x in row]] for label, row in rows]]


def values_of(rows: list[list[str]], leave: tuple[int, ...] = ()) -> dict[str, list[float]]:
    """What lines hold, but for some."""
    return {
        str(line): [float(text) for text in row[2:]]
        for line, row in enumerate(rows[1:], 2)
        if line not in leave
    }


def joined(rows: list[list[str]], delimiter: str = ",", end: str = "\n") -> str:
    return "".join(delimiter.join(row) + end for row in rows)


def good(folder: Path, text: str | bytes, name: str, **known: object) -> Fault:
    """A file that must be read."""
    (folder / "take.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return Fault(name, ("take.csv", json.dumps(known)), READ, codes=(0,))


def pick(draw: np.random.Generator, options: list) -> str:
    """One of the options, as Python's own type."""
    return options[int(draw.integers(len(options)))]


def counts(draw: np.random.Generator, folder: Path) -> Fault:
    rows = table(draw)
    known = values_of(rows)
    count = pick(draw, ["51", "52", "63", "61.0", "0", "", "-1", "NaN", "sixty-one", "61,0", "1e9"])
    for row in rows[1:]:
        row[1] = count if "," not in count else f'"{count}"'
    rows[0] = [
        pick(draw, ["BlendshapeCount", "blendShapeCount"]) if x == HEADER[1] else x for x in HEADER
    ]
    return good(folder, joined(rows), f"count {count}", rows=20, rate=30, values=known)


def dialects(draw: np.random.Generator, folder: Path) -> Fault:
    rows = table(draw)
    known = values_of(rows)
    delimiter, end = pick(draw, [";", "\t", ",", "|"]), pick(draw, ["\n", "\r\n", "\r"])
    encoding = pick(draw, ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    if draw.integers(2) and delimiter != ",":
        rows = [[text.replace(".", ",") for text in row] for row in rows]
    text = joined(rows, delimiter, end)
    declared = pick(draw, ["", f"sep={delimiter}{end}", f'"SEP={delimiter}"{end}'])
    if encoding.startswith("utf-32"):
        declared = ""
    name = f"{delimiter!r} {encoding} {declared!r}"
    if draw.integers(2):
        text = text.replace(end, delimiter * 3 + end)
    line = 1 + bool(declared)
    known = {str(int(number) + line - 1): values for number, values in known.items()}
    return good(folder, (declared + text).encode(encoding), name, rows=20, rate=30, values=known)


def rounded_timecode(draw: np.random.Generator, folder: Path) -> Fault:
    rate = int(pick(draw, ["24", "25", "30", "50", "60", "120"]))
    count, gap = 8 * rate, int(draw.integers(0, 2))
    numbers = int(draw.integers(0, 3 * rate)) + 60 * rate + np.arange(count)
    numbers[count // 2 :] += 5 * gap
    numbers += draw.integers(-1, 1, count)
    rows = table(draw, count)
    for row, number in zip(rows[1:], numbers.tolist(), strict=True):
        row[0] = str(Timecode.at_frame(number, rate, decimals=int(pick(draw, [0, 0, 3]))))
    fps = None if gap else float(rate)
    return good(folder, joined(rows), f"rounded at {rate}", rate=float(rate), fps=fps, gaps=gap)


def odd_timecode(draw: np.random.Generator, folder: Path) -> Fault:
    """Any labels: read with times that never run back, or refused."""
    rows = table(draw, int(draw.integers(1, 30)))
    known = values_of(rows)
    for row in rows[1:]:
        if draw.random() < 0.5:
            a, b, c, d = (int(draw.integers(0, top)) for top in (25, 61, 61, 130))
            row[0] = f"{a:02}:{b:02}:{c:02}{pick(draw, [':', ';', '.'])}{d:02}"
    (folder / "take.csv").write_text(joined(rows))
    argv = ("take.csv", json.dumps({"values": known}))
    return Fault("odd timecode", argv, READ, names=r"take\.csv.*(line \d+|Timecode)")


def columns(draw: np.random.Generator, folder: Path) -> Fault:
    rows = table(draw)
    order = draw.permutation(63)
    change = pick(draw, ["order", "further", "missing", "twice", "unnamed"])
    known = values_of(rows)
    rows = [[row[i] for i in order] for row in rows]
    at = int(draw.integers(64))
    named = pick(draw, [name for name in NAMES])
    position = rows[0].index(named)
    if change == "order":
        return good(folder, joined(rows), change, rows=20, values=known)
    if change in ("further", "unnamed"):
        rows = [[*row[:at], "7", *row[at:]] for row in rows]
        rows[0][at] = "FrameNumber" if change == "further" else ""
        return good(folder, joined(rows), change, rows=20, values=known)
    if change == "missing":
        rows = [[text for i, text in enumerate(row) if i != position] for row in rows]
    else:
        rows = [[*row, row[position]] for row in rows]
    (folder / "take.csv").write_text(joined(rows))
    return Fault(change, ("take.csv",), READ, (2,), rf"take\.csv, line 1: .*{named}")


def cells(draw: np.random.Generator, folder: Path) -> Fault:
    rows = table(draw)
    line, name = int(draw.integers(2, 22)), pick(draw, list(NAMES))
    cell = pick(
        draw, "x nan inf -inf 1e400 1_0 0x1 1.5.2 ５ 1,2,3 -9 99 1e5 True =0.5 0..1".split()
    )
    rows[line - 1][rows[0].index(name)] = f'"{cell}"'
    (folder / "take.csv").write_text(joined(rows), encoding="utf-8")
    return Fault(cell, ("take.csv",), READ, (2,), rf"take\.csv, line {line}, {name}: found ")


def lines(draw: np.random.Generator, folder: Path) -> Fault:
    """Rows short, long, repeated, in another order, blank."""
    rows = table(draw)
    line = int(draw.integers(2, 22))
    change = pick(draw, ["short", "long", "repeated", "swapped", "blank", "header again"])
    known = {} if change in ("repeated", "swapped", "blank") else values_of(rows, (line,))
    row = rows[line - 1]
    if change == "short":
        del row[int(draw.integers(63)) :]
    elif change == "long":
        row += ["0.5"] * int(draw.integers(1, 80))
    elif change == "repeated":
        rows.insert(line, list(row))
    elif change == "swapped":
        other = int(draw.integers(1, 21))
        rows[line - 1], rows[other] = rows[other], rows[line - 1]
    elif change == "blank":
        rows.insert(line - 1, pick(draw, [[""], [""] * 63, [" "]]))
    else:
        rows[line - 1] = HEADER
    (folder / "take.csv").write_text(joined(rows))
    argv = ("take.csv", json.dumps({"values": known}))
    codes = (
        (0,)
        if change in ("repeated", "blank")
        else (0, 2)
        if change in ("short", "swapped")
        else (2,)
    )
    return Fault(change, argv, READ, codes, r"take\.csv, line \d+")


def damage(draw: np.random.Generator, folder: Path) -> Fault:
    """Bytes changed, lost or cut off."""
    rows = table(draw)
    whole = bytearray(joined(rows).encode())
    start = int(draw.integers(len(whole)))
    kind = pick(draw, ["flipped", "lost", "cut", "zeros"])
    if kind == "flipped":
        whole[start] ^= 1 << int(draw.integers(8))
    elif kind == "lost":
        del whole[start : start + int(draw.integers(1, 500))]
    elif kind == "zeros":
        whole[start : start + 50] = bytes(len(whole[start : start + 50]))
    else:
        del whole[start:]
    (folder / "take.csv").write_bytes(whole)
    sound = {line: str(number) for number, line in enumerate(joined(rows).splitlines(), 1)}
    known = values_of(rows)
    same = {}
    for number, line in enumerate(bytes(whole).split(b"\n"), 1):
        before = sound.get(line.decode("utf-8", "replace"))
        if before in known and number > 1:
            same[str(number)] = known[before]
    if not bytes(whole).startswith(",".join(HEADER).encode() + b"\n"):
        same = {}
    return Fault(kind, ("take.csv", json.dumps({"values": same})), READ, names=r"take\.csv")


def no_table(draw: np.random.Generator, folder: Path) -> Fault:
    contents = {
        "nothing": b"",
        "noise": draw.bytes(5000),
        "zeros": bytes(100_000),
        "one line": b"Timecode," * 300_000,
        "an open quote": joined(table(draw)).replace("61", '"61', 1).encode() * 20,
        "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "a page": b"<!DOCTYPE html>\n<html><body>404</body></html>\n",
        "a zip": b"PK\x03\x04" + draw.bytes(500),
        "JSON": b'{"Timecode": "00:00:00:00"}\n',
        "a header": (",".join(HEADER) + "\n").encode(),
        "separators": b"sep=;\nsep=;\nsep=;\n",
        "half of UTF-16": joined(table(draw)).encode("utf-16")[:-1],
    }
    name = pick(draw, list(contents))
    (folder / "take.csv").write_bytes(contents[name])
    return Fault(name, ("take.csv",), READ, (2,), r"take\.csv")


def without_answer(draw: np.random.Generator, folder: Path) -> Fault:
    """Rows without values: refused by line, since they were not asked for."""
    rows = table(draw)
    empty = sorted(set(draw.integers(2, 22, 4).tolist()))
    for line in empty:
        rows[line - 1] = [rows[line - 1][0], pick(draw, ["0", "61", ""]), *[""] * 61]
    (folder / "take.csv").write_text(joined(rows))
    if draw.integers(2):
        return Fault("refused", ("take.csv",), READ, (2,), rf"take\.csv, line {empty[0]}: ")
    known = {"values": values_of(table(draw), ()), "empty": empty}
    known["values"] = {
        str(line): [float(x) for x in rows[line - 1][2:]]
        for line in range(2, 22)
        if line not in empty
    }
    return Fault("kept", ("take.csv", json.dumps(known)), f"{READ}_kept", (0,))


def read_kept(name: str, expected: str) -> str:
    """As `read`, with rows without values kept."""
    return read(name, expected, keep_empty=True)


def names(draw: np.random.Generator, folder: Path) -> Fault:
    made = ["".join(draw.choice(FORMULAS, int(draw.integers(1, 8)))) for _ in range(20)]
    return Fault("names of images", tuple(json.dumps(name) for name in made), WRITE, (0,))


def honest(draw: np.random.Generator, folder: Path) -> Fault:
    rows = table(draw)
    return good(folder, joined(rows), "sound", rows=20, rate=30, fps=30, values=values_of(rows))


KINDS = [
    counts,
    dialects,
    rounded_timecode,
    odd_timecode,
    columns,
    cells,
    lines,
    damage,
    no_table,
    without_answer,
    names,
]


def test_a_few() -> None:
    check_all("livelink", KINDS, count=220, few=40, honest=honest)


@pytest.mark.slow
def test_many() -> None:
    check_all("livelink", KINDS, count=220, honest=honest)
