"""Labels of the frames of a recording, from the files of several trackers, as one type.

| file | tracker | time |
|---|---|---|
| Live Link Face CSV, also as Express4D has it | `livelink` | timecode |
| the same as `sf-jax predict` writes it, with its JSON lines beside it | `sf_jax` | timecode |
| CSV with a column of image names and columns of channels | `labels` | none |
| JSON or JSON lines of MediaPipe's Face Landmarker | `mediapipe` | time stamps, or frame numbers |
| JSON lines of `sf-jax predict`, or of images with coefficients | `sf_jax`, `labels` | either |
| text of iFacialMocap: a packet a line, perhaps after its seconds | `ifacialmocap` | either |

Channels that a file lacks are not known: NaN, never zero. So are the head's and eyes' angles of
MediaPipe, which are in a matrix, and of iFacialMocap, whose signs are not documented.
"""

import contextlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from sf_jax.face import label_json, livelink
from sf_jax.face.channels import BLENDSHAPES, HIGH, LOW, NAMES, UnknownChannel, lookup
from sf_jax.face.take_times import timing
from sf_jax.face.timecode import Timecode
from sf_jax.media import small_files, table
from sf_jax.media.errors import DataError

LIVE_LINK, PLAIN, PREDICTED = "livelink", "labels", "sf_jax"
PACKET_FPS = 60.0  # of iFacialMocap's packets, which it sends at up to 60 a second

_CLOCK = re.compile(r"\s*(\d+(?:\.\d+)?)[\s,;]+(?=[A-Za-z_=])")
_MEMBER = re.compile(r"([A-Za-z_]+)[-&](-?\d+(?:\.\d+)?)", re.ASCII)


class LabelError(DataError):
    """A file of labels that cannot be read; names file, line and field."""


@dataclass(frozen=True)
class Labels:
    """What a tracker's file has of N frames.

    Attributes:
      path: the file. tracker: what made it, see the module.
      coefficients: float64 [N, 61] in canonical order, in range; NaN where not known.
      lines: the line, or for JSON that is no JSON lines the number from 1, of each row.
      seconds: times from the first row, never decreasing; None where the file has none.
      numbers: the number of the video frame of each row, from 0; None where the file has none.
      images: the image of each row; None where the file names none.
      clock: seconds since midnight of the first row, by timecode; None without.
      rate: rows a second as the file counts them; None without times.
      notes: what was inferred, clamped or odd, one sentence each.
      pseudo: whether they are another model's reading of the images, and no measurement.
    """

    path: Path
    tracker: str
    coefficients: Float[np.ndarray, "N 61"]
    lines: list[int]
    seconds: Float[np.ndarray, " N"] | None = None
    numbers: list[int] | None = None
    images: list[str] | None = None
    clock: float | None = None
    rate: float | None = None
    notes: list[str] = field(default_factory=list)
    pseudo: bool = False

    @property
    def known(self) -> Bool[np.ndarray, "N 61"]:
        """Which labels are known."""
        return np.isfinite(self.coefficients)


def read(
    path: Path,
    fps: float | None = None,
    eye_pitch: str = "down",
    tracker: str | None = None,
    pseudo: bool = False,
) -> Labels:
    """Reads a file of labels, whose kind shows in its content.

    Args:
      fps: rows a second, where it is known better than from the file.
      eye_pitch: which way a positive eye pitch looks in the file; see `livelink.read`.
      tracker: a name for what made the labels, in place of the one inferred.
      pseudo: they are another model's reading, whatever the file shows.

    Raises:
      DataError: the file is missing, of no known kind, or damaged; names file, line and field.
      OSError: it cannot be opened.
    """
    if not path.is_file():
        raise LabelError("not a file" if path.exists() else "no such file", path=path)
    ending = path.suffix.lower()
    if ending in (".json", ".jsonl", ".ndjson"):
        found = _read_json(path, fps)
    elif ending == ".txt" and _is_packet(path):
        found = _read_packets(path, fps or PACKET_FPS)
    else:
        found = _read_table(path, fps, eye_pitch)
    return replace(found, tracker=tracker or found.tracker, pseudo=pseudo or found.pseudo)


def replaced(labels: Labels, coefficients: Float[np.ndarray, "N 61"], note: str) -> Labels:
    """The same rows with other coefficients, and a note on why."""
    return replace(labels, coefficients=coefficients, notes=[*labels.notes, note])


def _read_table(path: Path, fps: float | None, eye_pitch: str) -> Labels:
    with table.reading(path, _is_known, LabelError) as opened:
        timed = any(name.lower() == "timecode" for name in opened.header)
        if not timed:
            return _read_image_table(opened)
    how = {"subset": True, "keep_empty": True, "lacking": True}
    take = livelink.read(path, fps, eye_pitch=eye_pitch, **how)  # type: ignore[arg-type]
    take = _timed_once(take, fps)
    first = Timecode.parse(take.timecodes[0])
    try:
        clock = float(first.frame(take.timecode_rate) / take.timecode_rate)
    except DataError:  # a label that its rate does not have
        clock = None
    predicted = take.sources is not None or _predicted(path)
    return Labels(
        path,
        PREDICTED if predicted else LIVE_LINK,
        np.array(take.coefficients),
        take.lines,
        take.seconds,
        None,
        take.sources,
        clock,
        take.fps,
        take.notes,
        predicted,
    )


def _predicted(path: Path) -> bool:
    """Whether `sf-jax predict` wrote a CSV: its JSON lines are beside it.

    That of single images has a column `Source`, which Live Link Face has not.
    """
    lines = path.with_suffix(".jsonl")
    if not lines.is_file():
        return False
    with contextlib.suppress(DataError, OSError):
        for _, text in small_files.lines(lines, LabelError):
            content = small_files.parse_json(text, LabelError)
            return isinstance(content, dict) and "sf_jax" in content
    return False


def _timed_once(take: livelink.Take, fps: float | None) -> livelink.Take:
    """The take, timed without rows that repeat label and values of the row above.

    Beside gaps they would pass for labels whose frame numbers are rounded.
    """
    values = np.nan_to_num(take.coefficients)
    texts = np.array(take.timecodes)
    again = np.r_[False, (texts[1:] == texts[:-1]) & (values[1:] == values[:-1]).all(1)]
    if not again.any():
        return take
    kept = np.flatnonzero(~again)
    lines, labels = [take.lines[i] for i in kept], [take.timecodes[i] for i in kept]
    timed = timing(take.source, lines, labels, fps)
    seconds = timed.seconds[np.cumsum(~again) - 1]
    notes = [note for note in take.notes if "timecode" not in note and "frame" not in note]
    rate, counting = float(timed.fps), timed.counting
    notes += timed.notes
    return replace(take, seconds=seconds, fps=rate, timecode_rate=counting, notes=notes)


def _is_known(spelling: str) -> bool:
    if spelling.strip().lower() in (*label_json.IMAGES, "timecode", "blendshapecount"):
        return True
    try:
        lookup(spelling)
    except UnknownChannel:
        return False
    return True


def _read_image_table(opened: table.Table) -> Labels:
    """A table with a column of image names and columns of channels."""
    image = [i for i, name in enumerate(opened.header) if name.lower() in label_json.IMAGES]
    if not image:
        wanted = "a Timecode column, as Live Link Face has, or a column of image names"
        problem = f"expected {wanted} ({', '.join(label_json.IMAGES[:4])})"
        raise LabelError(problem, path=opened.path, line=opened.header_line)
    columns = _channel_columns(opened)
    lines, images, rows = [], [], []
    for line, row in opened.rows:
        if len(row) < len(opened.header):
            row = row + [""] * (len(opened.header) - len(row))
        values = np.full(len(NAMES), np.nan)
        for index, column in columns.items():
            text = row[column].strip()
            values[index] = table.number(text) if text else np.nan
            if text and not np.isfinite(values[index]):
                problem = f"found {text[:40]!r}, expected a number"
                raise LabelError(problem, path=opened.path, line=line, field=NAMES[index])
        lines.append(line)
        images.append(livelink.plain(row[image[0]].strip()))
        rows.append(values)
    return _checked(Labels(opened.path, PLAIN, _stacked(opened.path, rows), lines, images=images))


def _channel_columns(opened: table.Table) -> dict[int, int]:
    """Column of each channel that the header names."""
    columns: dict[int, int] = {}
    for column, spelling in enumerate(opened.header):
        try:
            index = lookup(spelling).index
        except UnknownChannel:
            continue
        if index in columns:
            problem = f"the header names {NAMES[index]} twice"
            raise LabelError(problem, path=opened.path, line=opened.header_line)
        columns[index] = column
    if not columns:
        problem = "the header names none of the 61 channels"
        raise LabelError(problem, path=opened.path, line=opened.header_line)
    return columns


def _read_json(path: Path, fps: float | None) -> Labels:
    found = label_json.read(path, LabelError)
    rows = _stacked(path, [one.values for one in found.rows])
    seconds = label_json.times(found.rows, path, LabelError)
    rate = None
    if fps is not None:
        seconds = np.arange(len(rows)) / fps
    if seconds is not None and len(seconds) > 1 and seconds[-1] > 0:
        rate = fps or (len(seconds) - 1) / float(seconds[-1])
    numbers = [one.number for one in found.rows]
    images = [one.image for one in found.rows]
    return _checked(
        Labels(
            path,
            found.tracker,
            rows,
            [one.line for one in found.rows],
            seconds,
            None if None in numbers else [n for n in numbers if n is not None],
            None if None in images else [name for name in images if name is not None],
            None,
            rate,
            found.notes,
            found.tracker != PLAIN,
        )
    )


def _is_packet(path: Path) -> bool:
    """Whether a text file holds iFacialMocap's packets, `jawOpen-0|mouthSmile_L-12|…`."""
    with path.open("rb") as file:
        start = file.read(4096).decode("utf-8", "replace")
    return "|" in start and _MEMBER.search(start) is not None


def _read_packets(path: Path, fps: float) -> Labels:
    lines, clocks, rows = [], [], []
    unknown: set[str] = set()
    for line, content in small_files.lines(path, LabelError):
        text = content.decode("utf-8", "replace")
        clock = _CLOCK.match(text)
        clocks.append(float(clock[1]) if clock else None)
        rows.append(_packet(text[clock.end() :] if clock else text, path, line, unknown))
        lines.append(line)
    times = [clock for clock in clocks if clock is not None]
    seconds = np.arange(len(rows)) / fps
    notes = ["angles of head and eyes have signs that are not documented: not known"]
    if len(times) == len(rows) and rows:
        seconds = np.array(times) - times[0]
        if np.any(np.diff(seconds) < 0):
            row = int(np.flatnonzero(np.diff(seconds) < 0)[0]) + 1
            raise LabelError("comes before the line above", path=path, line=lines[row])
    else:
        notes.append(f"packets without times: taken to be evenly spaced at {fps:g} a second")
    if unknown:
        notes.append(f"not read, as no channel has the name: {', '.join(sorted(unknown)[:8])}")
    rate = (len(rows) - 1) / float(seconds[-1]) if len(rows) > 1 and seconds[-1] > 0 else fps
    values = _stacked(path, rows)
    return _checked(
        Labels(path, "ifacialmocap", values, lines, seconds, rate=rate, notes=notes, pseudo=True)
    )


def _packet(text: str, path: Path, line: int, unknown: set[str]) -> Float[np.ndarray, "61"]:
    """The blendshapes of a packet, whose values go from 0 to 100."""
    values = np.full(len(NAMES), np.nan)
    for member in filter(None, re.split(r"[|\r\n]", text)):
        if "#" in member:  # head and eyes
            continue
        match = _MEMBER.fullmatch(member.strip())
        if match is None:
            problem = f"found {member[:40]!r}, expected a blendshape such as jawOpen-12"
            raise LabelError(problem, path=path, line=line)
        try:
            values[lookup(match[1]).index] = float(match[2]) / 100
        except UnknownChannel:
            unknown.add(match[1])
    return values


def _stacked(path: Path, rows: list[np.ndarray]) -> Float[np.ndarray, "N 61"]:
    if not rows:
        raise LabelError("holds no labels", path=path)
    return np.stack(rows)


def _checked(labels: Labels) -> Labels:
    """Values within their channels' ranges; a little beyond is clamped, more is refused."""
    values = labels.coefficients
    low, high = livelink.BLENDSHAPE_LIMITS
    bounds = np.full(len(NAMES), livelink.ANGLE_LIMITS[0]), np.full(len(NAMES), np.pi)
    bounds[0][BLENDSHAPES], bounds[1][BLENDSHAPES] = low, high
    wrong = (values < bounds[0]) | (values > bounds[1])
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        problem = (
            f"found {values[row, column]:g}, expected a number between "
            f"{LOW[column]:g} and {HIGH[column]:g}"
        )
        line = labels.lines[row]
        raise LabelError(problem, path=labels.path, line=line, field=NAMES[column])
    clamped = np.clip(values, LOW, HIGH)
    moved = int(np.count_nonzero(np.nan_to_num(np.abs(clamped - values))))
    lacks = [NAMES[i] for i in np.flatnonzero(~np.isfinite(values).any(0))]
    notes = list(labels.notes)
    notes += [f"{moved} values clamped into the ranges of their channels"] if moved else []
    notes += [f"channels without labels: {', '.join(lacks)}: not known"] if lacks else []
    return replace(labels, coefficients=clamped + 0.0, notes=notes)
