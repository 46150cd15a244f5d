"""Live Link Face CSV: takes read by column name, with their real frame rate, and written back.

A file holds a timecode, a count that is 61 and the 61 channels; rows of a model that reads some
channels alone have that number for a count, and empty fields for the others. It holds no frame rate
and no source. The rate is inferred from the timecode: at what number its frame field wraps, and how
far it steps from row to row. The two differ in practice: a phone may label two frames at a time at
60 and drop some, so that the take runs at 29.98.

29.97 non-drop timecode looks exactly like 30; say `fps=29.97` to tell them apart. Drop-frame labels
(`;`) are read as 29.97 or 59.94 by themselves.

Where rows come from pictures or video frames, the writer keeps them in one further, last column
named `Source`. Without sources the file has the plain 63 columns and no more.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from sf_jax.face import timecode
from sf_jax.face.channels import (
    ANGLES,
    BLENDSHAPES,
    CHANNELS,
    HIGH,
    LOW,
    NAMES,
    UnknownChannel,
    eye_pitch_disagrees,
    eye_pitch_downward,
    lookup,
)
from sf_jax.face.timecode import Timecode, TimecodeError
from sf_jax.media import files
from sf_jax.media.errors import DataError

# Trackers overshoot: real takes hold 1.003. Values up to these limits are clamped into the range of
# their channel and reported; values beyond are another unit or a broken file, and are refused.
BLENDSHAPE_LIMITS = (-0.05, 1.2)
ANGLE_LIMITS = (-np.pi, np.pi)


class LiveLinkError(DataError):
    """A file or a table that is no Live Link Face take; says where and what was expected."""

    FIELD = "{}"


@dataclass(frozen=True)
class Take:
    """A recorded or written performance of N frames.

    Attributes:
      timecodes: N labels as the file spells them.
      seconds: float64 [N], from the first frame.
      coefficients: float64 [N, 61] in canonical order, each within its channel's range; NaN where
        a subset of channels was read.
      fps: frames a second, as given, or else as measured from the first frame to the last.
      timecode_rate: the rate at which the timecode counts, often a multiple of `fps`.
      source: the file read.
      sources: N pictures or frames the rows come from, or None where the file names none.
      notes: what was inferred, clamped or odd, one sentence each.
    """

    timecodes: list[str]
    seconds: np.ndarray
    coefficients: np.ndarray
    fps: float
    timecode_rate: Fraction
    source: Path
    sources: list[str] | None
    notes: list[str]


def read(
    path: str | Path,
    fps: float | Fraction | None = None,
    drop_frame: bool = False,
    eye_pitch: str = "down",
    subset: bool = False,
) -> Take:
    """Reads a take.

    Args:
      path: the CSV file.
      fps: the rate of its frames, where it is known better than the timecode tells.
      drop_frame: read the timecode as drop-frame although it is written with `:`.
      eye_pitch: which way of looking the file counts as positive eye pitch: "down", as Live Link
        Face and SemanticFace do, or "up", as KeyframeFace's example does; converted to "down".
      subset: accept rows that hold some channels and leave the fields of others empty, as models
        that read a part of the face write them; the others become NaN.

    Raises:
      LiveLinkError: a channel is missing, or a value is no number, NaN or far out of range, or the
        timecode cannot be read; names file, line and column.
      OSError: the file cannot be opened.
    """
    path = Path(path)
    header, lines, rows = _rows(path)
    columns, notes = _columns(path, header)
    values = np.array(
        [_values(path, line, row, columns, subset) for line, row in zip(lines, rows, strict=True)]
    )
    coefficients, clamped = _clamp(path, lines, values)
    coefficients = eye_pitch_downward(coefficients, eye_pitch)
    if eye_pitch_disagrees(coefficients):
        notes.append("eye pitch runs against EyeLookDown and EyeLookUp: is it of the other sign?")
    texts = [row[columns["Timecode"]].strip() for row in rows]
    seconds, rate, counting, timing = _timing(path, lines, texts, fps, drop_frame)
    sources = [row[columns["Source"]] for row in rows] if "Source" in columns else None
    notes += clamped + timing
    return Take(texts, seconds, coefficients, float(rate), counting, path, sources, notes)


def _rows(path: Path) -> tuple[list[str], list[int], list[list[str]]]:
    """The header, and the rows with their line numbers; empty lines at the end are no rows."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            numbered = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise LiveLinkError(f"not a CSV text file: {error}", path=path) from error
    while numbered and not any(field.strip() for field in numbered[-1][1]):
        numbered.pop()
    if len(numbered) < 2:
        raise LiveLinkError(
            "holds no frames; expected a header line and one line a frame", path=path
        )
    header = [name.strip() for name in numbered[0][1]]
    for line, row in numbered[1:]:
        if len(row) != len(header):
            raise LiveLinkError(
                f"{len(row)} fields, but the header has {len(header)} columns", path=path, line=line
            )
    return header, [line for line, _ in numbered[1:]], [row for _, row in numbered[1:]]


_OTHERS = {"timecode": "Timecode", "blendshapecount": "BlendShapeCount", "source": "Source"}


def _columns(path: Path, header: list[str]) -> tuple[dict[str, int], list[str]]:
    """Position of every column by its canonical name, and a note for each that is not read."""
    columns: dict[str, int] = {}
    notes = []
    for position, spelling in enumerate(header):
        try:
            name = _OTHERS.get(spelling.lower()) or lookup(spelling).name
        except UnknownChannel:
            notes.append(f"column {position + 1}, {spelling!r}, is not known and was not read")
            continue
        if name in columns:
            raise LiveLinkError(f"the header names {name} twice", path=path, line=1)
        columns[name] = position
    missing = [name for name in ("Timecode", *NAMES) if name not in columns]
    if missing:
        raise LiveLinkError(f"the header lacks {', '.join(missing)}", path=path, line=1)
    return columns, notes


def _values(
    path: Path, line: int, row: list[str], columns: dict[str, int], subset: bool
) -> list[float]:
    """The 61 values of a row in canonical order, within the limits; NaN where a subset has none."""
    texts = [row[columns[channel.name]].strip() for channel in CHANNELS]
    _check_count(path, line, row, columns, sum(map(bool, texts)) if subset else len(CHANNELS))
    values = []
    for channel, text in zip(CHANNELS, texts, strict=True):
        if subset and not text:
            values.append(float("nan"))
            continue
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        low, high = BLENDSHAPE_LIMITS if channel.unit == "coefficient" else ANGLE_LIMITS
        if not low <= value <= high:  # false for NaN too
            raise LiveLinkError(
                f"found {text!r}, expected a number between "
                f"{channel.low:g} and {channel.high:g} (refused outside {low:.2f} to {high:.2f})",
                path=path,
                line=line,
                field=channel.name,
            )
        values.append(value)
    return values


def _check_count(
    path: Path, line: int, row: list[str], columns: dict[str, int], expected: int
) -> None:
    """Refuses a row whose BlendShapeCount is another, or which failed."""
    if "BlendShapeCount" not in columns:
        return
    found = row[columns["BlendShapeCount"]].strip()
    if found == str(expected) and expected:
        return
    reason = ""
    if found == "0":
        reason = ", as of a row that failed"
    elif found.isdigit() and int(found) < len(CHANNELS) == expected:
        reason = ", as of a model that reads some channels alone (subset=True takes it)"
    raise LiveLinkError(
        f"found {found!r}, expected {expected}{reason}",
        path=path,
        line=line,
        field="BlendShapeCount",
    )


def _clamp(path: Path, lines: list[int], values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Values within their channels' ranges, and a note for coefficients and for angles clamped."""
    clamped = np.clip(values, LOW, HIGH)
    notes = []
    for kind, part in (("coefficients", BLENDSHAPES), ("angles", ANGLES)):
        excess = np.nan_to_num(np.abs(values - clamped)[:, part])
        if not excess.any():
            continue
        row, column = np.unravel_index(excess.argmax(), excess.shape)
        worst = part.start + column
        notes.append(
            f"{np.count_nonzero(excess)} of {excess.size} {kind} clamped into "
            f"[{LOW[worst]:g}, {HIGH[worst]:g}], the farthest {NAMES[worst]} "
            f"{values[row, worst]:.4f} on line {lines[row]}"
        )
    return clamped + 0.0, notes  # -0.0 becomes 0.0


def _timing(
    path: Path, lines: list[int], texts: list[str], fps: float | Fraction | None, drop_frame: bool
) -> tuple[np.ndarray, Fraction, Fraction, list[str]]:
    """Seconds from the first frame, frame rate, timecode rate, notes."""
    labels = []
    drop_frame = drop_frame or any(";" in text for text in texts)
    for line, text in zip(lines, texts, strict=True):
        try:
            labels.append(Timecode.parse(text, drop_frame))
        except TimecodeError as error:
            raise LiveLinkError.of(error, path=path, line=line, field="Timecode") from error
    seen = _label_seconds(labels)
    if fps is not None:
        return _given_timing(labels, timecode.exact_rate(fps), seen)
    nominal = seen or next(n for n in (30, 60, 120, 240, 1000) if n > max(x.frames for x in labels))
    counting = Fraction(nominal * 1000, 1001) if drop_frame else Fraction(nominal)
    try:
        frames = _unwrapped(labels, counting)
    except TimecodeError as error:
        raise LiveLinkError.of(error, path=path, field="Timecode") from error
    back = next((i for i in range(1, len(frames)) if frames[i] < frames[i - 1]), None)
    if back is not None:
        raise LiveLinkError(
            f"{texts[back]} comes before the line above, {texts[back - 1]}; give the frame rate "
            "(fps) to space the lines evenly instead",
            path=path,
            line=lines[back],
            field="Timecode",
        )
    rate = _measured_rate(path, frames, counting)
    how = "counts" if seen else "is too short to show its rate and is taken to count"
    note = (
        f"timecode {how} {nominal} frames a second; the take runs at {float(rate):.4g} "
        "frames a second (give fps if that is wrong)"
    )
    return _seconds(frames, counting), rate, counting, [note, *_gap_notes(frames)]


def _label_seconds(labels: list[Timecode]) -> int | None:
    """How many labels a second of timecode holds, seen where the seconds field steps by one.

    There the frame field jumps from F to F' and would have reached F + step, so the second holds
    F + step - F' labels. None where no second is filled, so that nothing can be seen.
    """
    clock = np.array([(x.hours * 60 + x.minutes) * 60 + x.seconds for x in labels])
    field = np.array([float(x.frames + x.subframe) for x in labels])
    clock_step, field_step = np.diff(clock), np.diff(field)
    within, across = clock_step == 0, clock_step == 1
    if not within.any() or not across.any():
        return None
    step = np.median(field_step[within])
    held = round(float(np.median(step - field_step[across])))
    return held if held > field.astype(int).max() else None


def _unwrapped(labels: list[Timecode], counting: Fraction) -> list[Fraction]:
    """Frame numbers from the first label, running on over midnight."""
    drop_frame = labels[0].drop_frame
    day = timecode.frames_per_day(counting, drop_frame)
    numbers = [label.frame(counting) for label in labels]
    frames = [Fraction(0)]
    for earlier, later in pairwise(numbers):
        step = later - earlier
        frames.append(frames[-1] + (step + day if step < -day / 2 else step))
    return frames


def _seconds(frames: list[Fraction], counting: Fraction) -> np.ndarray:
    return np.array([float(frame / counting) for frame in frames])


def _measured_rate(path: Path, frames: list[Fraction], counting: Fraction) -> Fraction:
    """Frames a second from the first frame to the last."""
    if len(frames) == 1:
        return counting
    if frames[-1] == 0:
        raise LiveLinkError(
            "every line has the same timecode; give the frame rate (fps)", path=path
        )
    return counting * (len(frames) - 1) / frames[-1]


def _gap_notes(frames: list[Fraction]) -> list[str]:
    steps = np.diff(np.array([float(frame) for frame in frames]))
    gaps = int(np.sum(steps > 1.5 * np.median(steps))) if len(steps) > 1 else 0
    repeats = int(np.sum(steps == 0))
    notes = [f"frames are missing at {gaps} positions"] if gaps else []
    if repeats:
        notes.append(f"{repeats} lines repeat the timecode of the line above")
    return notes


def _given_timing(
    labels: list[Timecode], fps: Fraction, seen: int | None
) -> tuple[np.ndarray, Fraction, Fraction, list[str]]:
    """As `_timing`, at a given frame rate.

    The labels keep telling the time, gaps included, where they step by some whole number k of
    frames at k times the rate; otherwise the frames are spaced evenly.
    """
    top = max(label.frames for label in labels)
    for step in range(1, 241):
        counting = fps * step
        nominal = timecode.frames_per_label_second(counting)
        if nominal <= top or (nominal != seen if seen else counting not in timecode.STANDARD_RATES):
            continue
        try:
            frames = _unwrapped(labels, counting)
        except TimecodeError:
            continue
        steps = np.diff(np.array([float(frame) for frame in frames]))
        if not len(steps) or (steps.min() > 0 and round(float(np.median(steps))) == step):
            note = f"frame rate {float(fps):.4g} as given; timecode counts {nominal} to its second"
            return _seconds(frames, counting), fps, counting, [note, *_gap_notes(frames)]
    seconds = np.arange(len(labels)) / float(fps)
    note = f"frame rate {float(fps):.4g} as given; the timecode does not fit: lines spaced evenly"
    return seconds, fps, timecode.counting_rate(fps), [note]


def write(
    path: str | Path,
    coefficients: np.ndarray,
    *,
    fps: float | Fraction | None = None,
    seconds: Sequence[float] | np.ndarray | None = None,
    timecodes: Sequence[str] | None = None,
    start: str = "00:00:00:00.000",
    drop_frame: bool = False,
    decimals: int = 10,
    sources: Sequence[str] | None = None,
    failed: Sequence[bool] | None = None,
    channels: Sequence[str] = NAMES,
) -> None:
    """Writes a take under a temporary name, then renames it, so that no half file is ever seen.

    Args:
      path: the CSV file.
      coefficients: [N, 61] in canonical order, each within its channel's range.
      fps: the frame rate; says how timecode counts (29.98 and 15 count at 30).
      seconds: [N] times of the frames, see `timecode.labels_at`; without them the frames are
        `1 / fps` apart.
      timecodes: N labels to write as they are, instead of `fps`.
      start: the label of the first frame.
      drop_frame: write drop-frame timecode, at 29.97 and 59.94 only.
      decimals: of the values; Live Link Face writes ten.
      sources: N pictures or frames, for a last column `Source`.
      failed: N flags; such a row stays, with empty values and a BlendShapeCount of 0, which
        `read` refuses by its line.
      channels: those that were read off the images. The fields of all others stay empty, and
        BlendShapeCount is how many were read; `read` takes such rows with `subset=True`.

    Raises:
      LiveLinkError: shapes or counts differ, or a value is NaN or out of range; names the frame.
      TimecodeError: a label is none, or the rate does not go with `drop_frame`.
    """
    known = np.zeros(len(NAMES), bool)
    known[[lookup(name).index for name in channels]] = True
    rows = _checked(path, coefficients, known)
    if (fps is None) == (timecodes is None):
        raise LiveLinkError("give either fps or timecodes", path=path)
    if timecodes is None:
        assert fps is not None  # one of the two is given
        timecodes = labels(len(rows), fps, seconds, start, drop_frame)
    for what, given in (("timecodes", timecodes), ("sources", sources), ("flags", failed)):
        if given is not None and len(given) != len(rows):
            raise LiveLinkError(f"{len(given)} {what} for {len(rows)} frames", path=path)
    for label in timecodes:
        Timecode.parse(label)
    with files.stream(path, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        extra = [] if sources is None else ["Source"]
        writer.writerow(["Timecode", "BlendShapeCount", *NAMES, *extra])
        for i, row in enumerate(rows):
            extra = [] if sources is None else [sources[i]]
            if failed is not None and failed[i]:
                writer.writerow([timecodes[i], "0", *[""] * len(NAMES), *extra])
                continue
            # "z" writes -0.00 as 0.00
            texts = [f"{x:z.{decimals}f}" if ok else "" for x, ok in zip(row, known, strict=True)]
            writer.writerow([timecodes[i], str(known.sum()), *texts, *extra])


def labels(
    count: int,
    fps: float | Fraction,
    seconds: Sequence[float] | np.ndarray | None = None,
    start: str = "00:00:00:00.000",
    drop_frame: bool = False,
) -> list[str]:
    """Timecodes of `count` frames from `start`, to three decimals of a frame; see `write`."""
    rate = timecode.exact_rate(fps)
    if seconds is not None:
        if len(seconds) != count:
            raise LiveLinkError(f"{len(seconds)} times for {count} frames")
        return timecode.labels_at(seconds, rate, start, drop_frame)
    counting = timecode.counting_rate(rate)
    first = Timecode.parse(start, drop_frame).frame(counting)
    offsets = [i * counting / rate for i in range(count)]
    return [str(Timecode.at_frame(first + offset, counting, drop_frame)) for offset in offsets]


def _checked(path: str | Path, coefficients: np.ndarray, known: np.ndarray) -> list[list[float]]:
    values = np.asarray(coefficients, np.float64)
    if values.ndim != 2 or values.shape[1] != len(NAMES) or not len(values):
        raise LiveLinkError(f"coefficients of shape {values.shape}, expected [N, 61]", path=path)
    outside = ~((values >= LOW) & (values <= HIGH)) & known
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise LiveLinkError(
            f"frame {row}, {NAMES[column]} is {values[row, column]:g}, expected "
            f"{LOW[column]:g} to {HIGH[column]:g}",
            path=path,
        )
    return values.tolist()
