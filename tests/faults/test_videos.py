"""Faults of videos: damaged, mislabelled, absurd, or lists of other files."""

import os
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sf_jax.cli import loading, main
from sf_jax.face import livelink
from sf_jax.face.timecode import Timecode
from tests.cli.test_cli import FakeModel
from tests.faults.harness import Fault, Outcome, check_all
from tests.media.videos import counting, write_video

CALL = "tests.faults.test_videos:predict"
FRAMES = 24
KINDS_OF_FILE: tuple[tuple[str, dict], ...] = (
    ("a.mp4", {"codec": "libx264", "time_base": Fraction(1, 16000)}),
    ("a.mov", {"codec": "mpeg4", "container_options": {"movflags": "faststart"}}),
    ("a.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
    ("a.mp4", {"codec": "libx264", "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    ("a.mkv", {"codec": "libx264"}),
    ("a.mkv", {"codec": "libsvtav1"}),
    ("a.mkv", {"codec": "ffv1"}),
    ("a.webm", {"codec": "libvpx"}),
    ("a.webm", {"codec": "libvpx-vp9"}),
    ("a.avi", {"codec": "mjpeg"}),
    ("a.avi", {"codec": "mpeg4"}),
    ("a.ts", {"codec": "libx264", "time_base": Fraction(1, 90000)}),
    ("a.mpg", {"codec": "mpeg2video"}),
    ("a.wmv", {"codec": "msmpeg4v3", "time_base": Fraction(1, 1000)}),
    ("a.flv", {"codec": "libx264", "time_base": Fraction(1, 1000)}),
    ("a.mov", {"codec": "prores_ks", "pixels": "yuv422p10le"}),
    ("a.mov", {"codec": "png", "pixels": "rgb24"}),
    ("a.apng", {"codec": "apng", "pixels": "rgb24", "time_base": Fraction(1, 1000)}),
)


def predict(*argv: str) -> None:
    """`sf-jax predict` with a model that costs no time."""
    loading.load_model = lambda *_: FakeModel()
    raise SystemExit(main(["predict", *argv, "--out", "out", "--no-preview"]))


def made(draw: np.random.Generator, folder: Path, name: str | None = None) -> Path:
    """A sound video of a kind by chance, or of the first kind with this name."""
    kinds = [kind for kind in KINDS_OF_FILE if name in (None, kind[0])]
    chosen, how = kinds[0] if name else kinds[draw.integers(len(kinds))]
    frames = [np.kron(counting(i), np.ones((2, 1, 1), np.uint8)) for i in range(FRAMES)]
    return write_video(folder / chosen, 30, frames, **how)


def written(outcome: Outcome) -> str:
    """What is wrong with the CSV, where there is one."""
    for path in (outcome.folder / "out").glob("*.csv"):
        rows = path.read_text().splitlines()[1:]
        labels = [Timecode.parse(row.split(",")[0]) for row in rows]
        if len(set(labels)) < len(labels):
            return "two rows share a timecode"
        take = livelink.read(path)
        if not np.isfinite(take.coefficients).all() or len(take.seconds) != len(rows):
            return "rows are lost"
        if any(a >= b for a, b in pairwise(take.seconds)):
            return "times do not increase"
    if outcome.code == 0 and not list((outcome.folder / "out").glob("*.csv")):
        return "no CSV and no error"
    return ""


def fault(name: str, path: Path, *flags: str, **how) -> Fault:
    return Fault(name, (path.name, *flags), CALL, names=re.escape(path.name), check=written, **how)


def sound(draw: np.random.Generator, folder: Path) -> Fault:
    return fault("sound", made(draw, folder, "a.mp4"))


def truncated(draw: np.random.Generator, folder: Path) -> Fault:
    path = made(draw, folder)
    content = path.read_bytes()
    size = int(len(content) * draw.uniform())
    path.write_bytes(content[:size])
    return fault(f"the first {size} of {len(content)} bytes of {path.name}", path)


def flipped_bits(draw: np.random.Generator, folder: Path) -> Fault:
    path = made(draw, folder)
    content = bytearray(path.read_bytes())
    # Headers are a small share of the bytes and the greater part of what can go wrong.
    end = len(content) if draw.integers(2) else min(len(content), 1500)
    for at in draw.integers(0, end, 1 + int(draw.integers(30))):
        content[at] ^= 1 << int(draw.integers(8))
    path.write_bytes(content)
    return fault(f"flipped bits of the first {end} bytes of {path.name}", path)


def flipped_bits_of_the_index(draw: np.random.Generator, folder: Path) -> Fault:
    path = made(draw, folder, "a.mp4")
    if draw.integers(2):
        frames = [counting(i) for i in range(5)]
        path = write_video(folder / "a.mov", 30, frames, metadata={"timecode": "01:00:59:20"})
    content = bytearray(path.read_bytes())
    start = content.index(b"moov")
    for at in draw.integers(start, len(content), 1 + int(draw.integers(12))):
        content[at] ^= 1 << int(draw.integers(8))
    path.write_bytes(content)
    return fault(f"flipped bits of the index of {path.name}", path)


def emptied(draw: np.random.Generator, folder: Path) -> Fault:
    path = made(draw, folder)
    content = bytearray(path.read_bytes())
    start = int(draw.integers(len(content)))
    size = int(draw.integers(1, len(content)))
    content[start : start + size] = bytes(len(content[start : start + size]))
    path.write_bytes(content)
    return fault(f"{size} zeros from byte {start} of {path.name}", path)


def no_video(draw: np.random.Generator, folder: Path) -> Fault:
    contents = (
        b"",
        b"\0" * 4096,
        draw.bytes(3000),
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        b"ftypisom" * 100,
        b"\0\0\0\x18ftypisom\0\0\0\0isommp42\0\0\0\x08moov",
        b"RIFF\xff\xff\xff\xffAVI LIST\xff\xff\xff\xffhdrl",
        b"\x1aE\xdf\xa3" + b"\xff" * 60,
        b"G" + bytes(187),
        b"GIF89a\xff\xff\xff\xff\x80\0\0",
    )
    path = folder / f"a.{('mp4', 'mkv', 'avi', 'ts', 'webm')[draw.integers(5)]}"
    number = int(draw.integers(len(contents)))
    path.write_bytes(contents[number])
    return fault(f"content {number}", path, codes=(2,))


def other_ending(draw: np.random.Generator, folder: Path) -> Fault:
    path = made(draw, folder)
    ending = ("mp4", "avi", "mkv", "ts", "wmv", "mpg", "MOV")[draw.integers(7)]
    renamed = path.rename(folder / f"b.{ending}")
    return fault(f"{path.name} with the ending of {ending}", renamed, codes=(0,))


LISTS = (
    "ffconcat version 1.0\nfile other.mp4\n",
    "file other.mp4\nfile other.mp4\n",
    "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>other.mp4</BaseURL></MPD>',
    '<asx version="3.0"><entry><ref href="other.mp4"/></entry></asx>',
    "[Reference]\nRef1=http://127.0.0.1:9/other.mp4\n",
    "[playlist]\nFile1=other.mp4\n",
    "http://127.0.0.1:9/other.mp4",
    "concat:other.mp4|other.mp4",
    '<SmoothStreamingMedia MajorVersion="2"><StreamIndex Type="video"/></SmoothStreamingMedia>',
    '<?xml version="1.0"?><AssetMap xmlns="http://www.smpte-ra.org/schemas/429-9/2007/AM"/>',
    "RTSPtext\r\nrtsp://127.0.0.1:9/other.mp4",
)


def list_of_files(draw: np.random.Generator, folder: Path) -> Fault:
    made(draw, folder, "a.mp4").rename(folder / "other.mp4")
    path = folder / f"list.{('mp4', 'mkv', 'mov', 'avi')[draw.integers(4)]}"
    number = int(draw.integers(len(LISTS)))
    path.write_text(LISTS[number])
    return fault(f"list {number}", path, codes=(2,))


def odd_name(draw: np.random.Generator, folder: Path) -> Fault:
    names = (
        "a%03d.mp4",
        "a*.mp4",
        "a?[b].mp4",
        "concat:a.mp4",
        "-a.mp4",
        "a b\n.mp4",
        "é\u202e.mp4",
    )
    name = names[draw.integers(len(names))]
    for i in range(3):
        (folder / f"a{i:03}.mp4").write_bytes(b"not read")
    made(draw, folder, "a.mp4").rename(folder / name)
    given = f"./{name}" if name.startswith("-") else name
    return Fault(f"named {name!r}", (given,), CALL, codes=(0,), check=written)


def absurd_size(draw: np.random.Generator, folder: Path) -> Fault:
    """Sizes are declared twice, in the container and in the stream; either may be believed."""
    path = made(draw, folder, ("a.mp4", "a.avi", "a.mov")[draw.integers(3)])
    content = path.read_bytes()
    largest = (65535, 40000, 20000)[draw.integers(3)]
    for endian, size in (("big", 2), ("little", 4), ("little", 2)):
        for old in (144, 96):
            content = content.replace(old.to_bytes(size, endian), largest.to_bytes(size, endian))
    path.write_bytes(content)
    return fault(f"{path.name} of {largest} pixels", path)


def absurd_clock(draw: np.random.Generator, folder: Path) -> Fault:
    """The clock of an MP4's track, its frame durations, or the rate of an AVI."""
    numbers = (0, 1, 2**31 - 1, 2**32 - 1, int(draw.integers(2**32)))
    number = numbers[draw.integers(len(numbers))].to_bytes(4, "big")
    where = ("mdhd", "stts", "ctts", "elst", "strh")[draw.integers(5)]
    path = made(draw, folder, "a.avi" if where == "strh" else "a.mp4")
    content = bytearray(path.read_bytes())
    offset = {"mdhd": 16, "stts": 16, "ctts": 16, "elst": 16, "strh": 28 - 4 * draw.integers(2)}
    at = content.index(where.encode()) + int(offset[where])
    content[at : at + 4] = number[::-1] if where == "strh" else number
    path.write_bytes(content)
    return fault(f"{number.hex()} in {where}", path)


def uneven_times(draw: np.random.Generator, folder: Path) -> Fault:
    steps = draw.choice([0.001, 0.002, 0.03, 0.04, 1.0, 100.0, 2000.0], FRAMES)
    times = np.cumsum(np.round(steps, 3))
    frames = [counting(i) for i in range(FRAMES)]
    path = write_video(folder / "a.mkv", 30, frames, times=times.tolist(), codec="mjpeg")
    return fault("uneven times", path, codes=(0,))


def absurd_timecode(draw: np.random.Generator, folder: Path) -> Fault:
    texts = ("99:99:99:99", "-1:00:00:00", "00:01:00;00", "noon", "", "0" * 5000, "23:59:59:29")
    text = texts[draw.integers(len(texts))]
    path = write_video(
        folder / "a.mkv", 30, [counting(i) for i in range(5)], metadata={"timecode": text}
    )
    return fault(f"timecode {text[:20]!r}", path, codes=(0,))


def absurd_rate(draw: np.random.Generator, folder: Path) -> Fault:
    path = made(draw, folder, "a.mp4")
    rate = ("1e-300", "nan", "inf", "-1", "0", "1e9", "1e400", "1001", "fast", "")[
        draw.integers(10)
    ]
    return Fault(f"--fps={rate}", (path.name, f"--fps={rate}"), CALL, codes=(2,), names="--fps")


def joined(draw: np.random.Generator, folder: Path) -> Fault:
    path, other = made(draw, folder), made(draw, folder)
    content = path.read_bytes()
    path.write_bytes(content + (draw.bytes(500) if draw.integers(2) else other.read_bytes()))
    return fault(f"{path.name} and more after it", path)


def no_file(draw: np.random.Generator, folder: Path) -> Fault:
    path = folder / "a.mp4"
    kind = int(draw.integers(3))
    if kind == 0:
        path.symlink_to("none.mp4")
    elif kind == 1:
        os.mkfifo(path)
    return fault(("a link to nothing", "a pipe", "none")[kind], path, codes=(2,))


KINDS: list[Callable] = [
    truncated,
    flipped_bits,
    flipped_bits_of_the_index,
    emptied,
    no_video,
    other_ending,
    list_of_files,
    odd_name,
    absurd_size,
    absurd_clock,
    uneven_times,
    absurd_timecode,
    absurd_rate,
    joined,
    no_file,
]


def test_a_few() -> None:
    check_all("videos", KINDS, count=300, few=8, honest=sound)


@pytest.mark.slow
def test_many() -> None:
    check_all("videos", KINDS, count=300, honest=sound)
