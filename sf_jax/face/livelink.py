"""Live Link Face CSV: takes read by column name, with their real frame rate, and written back.

A file holds a timecode, a count that is 61 and the 61 channels: plain 63 columns. It holds no
frame rate and no source; `timing` infers the rate. The count is never needed, since columns are
read by name. Rows of a model that reads some channels alone have their number for a count and
empty fields for the others; rows of frames without an answer are empty, with a count of 0.

29.97 non-drop timecode looks exactly like 30; `fps=29.97` distinguishes them. Drop-frame
labels (`;`) are read as 29.97 or 59.94 by themselves.

On request the writer adds a last column `Source` that names the picture of each row. Unreal
Engine's importer takes all columns after the second for channels, counts timecode at 30 or, where
a frame number is above 30, at 60, knows no drop-frame labels, and stops at a row with empty fields.
"""

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
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
    Channel,
    UnknownChannel,
    eye_pitch_disagrees,
    eye_pitch_downward,
    lookup,
)
from sf_jax.face.take_times import timing
from sf_jax.face.timecode import ZERO, Timecode, TimecodeError
from sf_jax.media import files, table
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
        a subset of channels was read, and in empty rows that were kept.
      fps: frames a second, as given, or else as measured from the first frame to the last.
      timecode_rate: the rate at which the timecode counts, often a multiple of `fps`.
      source: the file read.
      sources: N pictures or frames the rows come from, or None where the file names none.
      notes: what was inferred, clamped or odd, one sentence each.
      lines: the line number of each row in the file.
    """

    timecodes: list[str]
    seconds: np.ndarray
    coefficients: np.ndarray
    fps: float
    timecode_rate: Fraction
    source: Path
    sources: list[str] | None
    notes: list[str]
    lines: list[int]

    @property
    def empty(self) -> np.ndarray:
        """bool [N]: rows without any value, of frames without an answer."""
        return np.isnan(self.coefficients).all(axis=1)

    @property
    def empty_lines(self) -> list[int]:
        """Line numbers of these rows."""
        return [line for line, empty in zip(self.lines, self.empty, strict=True) if empty]


def read(
    path: str | Path,
    fps: float | Fraction | None = None,
    drop_frame: bool = False,
    eye_pitch: str = "down",
    subset: bool = False,
    keep_empty: bool = False,
    lacking: bool = False,
) -> Take:
    """Reads a take.

    The file may be a spreadsheet's: `;` or tab between fields, decimal commas, UTF-16, a first
    line `sep=;` (see `media/table.py`).

    Args:
      path: the CSV file.
      fps: the rate of its frames, where it is known better than from the timecode.
      drop_frame: read the timecode as drop-frame although it is written with `:`.
      eye_pitch: which way of looking the file counts as positive eye pitch: "down", as Live Link
        Face and SemanticFace do, or "up", as KeyframeFace's example does; converted to "down".
      subset: accept rows that hold some channels and leave the fields of others empty, as models
        that read a part of the face write them; the others become NaN.
      keep_empty: keep rows without any value, as `write` makes them of frames without an answer:
        NaN in every channel, and named by `Take.empty_lines`. Else they are refused.
      lacking: accept a header without columns of some channels: NaN, and a note names them.

    Raises:
      LiveLinkError: a channel is missing, or a value is no number, NaN or far out of range, or the
        timecode cannot be read; names file, line and column.
      OSError: the file cannot be opened.
    """
    path = Path(path)
    with table.reading(path, _is_column, LiveLinkError) as opened:
        columns, notes = _columns(opened, lacking)
        rows = _Rows(opened, columns, subset, keep_empty)
    coefficients, clamped = _clamp(path, rows.lines, rows.values())
    coefficients = eye_pitch_downward(coefficients, eye_pitch)
    if eye_pitch_disagrees(np.nan_to_num(coefficients)):
        notes.append("eye pitch runs against EyeLookDown and EyeLookUp: is it of the other sign?")
    try:
        timed = timing(path, rows.lines, rows.timecodes, fps, drop_frame)
    except TimecodeError as error:
        raise LiveLinkError.of(error, path=path, field="Timecode") from error
    return Take(
        rows.timecodes,
        timed.seconds,
        coefficients,
        float(timed.fps),
        timed.counting,
        path,
        rows.sources if "Source" in columns else None,
        [*notes, *rows.notes(), *clamped, *timed.notes],
        rows.lines,
    )


_OTHERS = {"timecode": "Timecode", "blendshapecount": "BlendShapeCount", "source": "Source"}


def _column(spelling: str) -> str | None:
    """The canonical name of a column, or None."""
    other = _OTHERS.get(re.sub(r"[\s_-]", "", spelling).lower())
    if other:
        return other
    try:
        return lookup(spelling).name
    except UnknownChannel:
        return None


def _is_column(spelling: str) -> bool:
    return _column(spelling) is not None


def _columns(opened: table.Table, lacking: bool) -> tuple[dict[str, int], list[str]]:
    """Position of every column by its canonical name, and a note for each that is not read."""
    columns: dict[str, int] = {}
    notes = []

    def error(problem: str) -> LiveLinkError:
        return LiveLinkError(problem, path=opened.path, line=opened.header_line)

    for position, spelling in enumerate(opened.header):
        name = _column(spelling)
        if name is None:
            if spelling:
                notes.append(f"column {position + 1}, {spelling!r}, is not known and was not read")
            continue
        if name in columns:
            raise error(
                f"the header names {name} twice, in columns {columns[name] + 1} and {position + 1}"
            )
        columns[name] = position
    if not columns:
        found = ", ".join(opened.header)
        raise error(
            "no header of a Live Link Face file, which is Timecode, BlendShapeCount and 61 "
            f"channels; found {found[:60]!r}"
        )
    missing = [name for name in ("Timecode", *NAMES) if name not in columns]
    if lacking and "Timecode" in columns and len(missing) < len(NAMES):
        notes += [f"the header lacks {', '.join(missing)}: not known"] if missing else []
    elif missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 12 else ""
        raise error(f"the header lacks {', '.join(missing[:10] if more else missing)}{more}")
    order = [columns[name] for name in NAMES if name in columns]
    if order != sorted(order):
        notes.append("columns are in another order than Live Link Face has; read by name")
    return columns, notes


class _Rows:
    """The rows of a take, read and checked one by one."""

    def __init__(
        self, opened: table.Table, columns: dict[str, int], subset: bool, keep_empty: bool
    ):
        self.opened, self.columns = opened, columns
        self.subset, self.keep_empty = subset, keep_empty
        self.lines: list[int] = []
        self.timecodes: list[str] = []
        self.sources: list[str] = []
        self._numbers = array("d")
        self._counts: list[tuple[int, str, int]] = []  # line, found and expected where they differ
        self._empty: list[int] = []
        self._decimal_commas = 0
        for line, row in opened.rows:
            self._add(line, self._fitted(line, row))
        if not self.lines:
            raise LiveLinkError("holds no frames after its header", path=opened.path)

    def values(self) -> np.ndarray:
        """float64 [N, 61]"""
        return np.array(self._numbers).reshape(-1, len(NAMES))

    def error(self, problem: str, line: int, field: str | None = None) -> LiveLinkError:
        return LiveLinkError(problem, path=self.opened.path, line=line, field=field)

    def _fitted(self, line: int, row: list[str]) -> list[str]:
        """A row of as many fields as the header: spreadsheets add empty ones or leave them out."""
        width = len(self.opened.header)
        if len(row) > width and not any(map(str.strip, row[width:])):
            return row[:width]
        lacking = [name for name, column in self.columns.items() if column >= len(row)]
        if len(row) > width or lacking:
            hint = f"; {lacking[0]} is the first that is missing" if lacking else ""
            if len(row) > width and self.opened.delimiter == ",":
                hint = "; are there decimal commas? they need ';' or tab between fields"
            raise self.error(f"{len(row)} fields, but the header has {width} columns{hint}", line)
        return row + [""] * (width - len(row))

    def _add(self, line: int, row: list[str]) -> None:
        there = [self.columns.get(name) for name in NAMES]
        texts = ["" if column is None else row[column].strip() for column in there]
        filled = sum(map(bool, texts))
        if not filled:
            self._check_empty(line)
        if "BlendShapeCount" in self.columns:
            found = row[self.columns["BlendShapeCount"]].strip()
            if table.number(found) != filled:
                self._counts.append((line, found, filled))
        numbers = [
            np.nan if column is None else self._number(line, channel, text, filled)
            for channel, text, column in zip(CHANNELS, texts, there, strict=True)
        ]
        self._decimal_commas += any("," in text for text in texts)
        self._numbers.extend(numbers)
        self.lines.append(line)
        self.timecodes.append(row[self.columns["Timecode"]].strip())
        if "Source" in self.columns:
            self.sources.append(plain(row[self.columns["Source"]]))

    def _check_empty(self, line: int) -> None:
        if not self.keep_empty:
            raise self.error(
                "holds no values: a frame without an answer, which keep_empty=True keeps as NaN",
                line,
            )
        self._empty.append(line)

    def _number(self, line: int, channel: Channel, text: str, filled: int) -> float:
        """A value within the limits; NaN where there may be none."""
        if not text and (self.subset or not filled):
            return float("nan")
        value = table.number(text)
        low, high = BLENDSHAPE_LIMITS if channel.unit == "coefficient" else ANGLE_LIMITS
        if low <= value <= high:  # false for NaN too
            return value
        reason = ""
        if not text:
            reason = (
                f"; {filled} of {len(NAMES)} channels hold a value, as of a model that reads some "
                "channels alone (subset=True takes it)"
            )
        raise self.error(
            f"found {text[:40]!r}, expected a number between "
            f"{channel.low:g} and {channel.high:g} (refused outside {low:.2f} to {high:.2f})"
            f"{reason}",
            line,
            channel.name,
        )

    def notes(self) -> list[str]:
        notes = []
        if self._counts:
            line, found, filled = self._counts[0]
            notes.append(
                f"BlendShapeCount differs from the number of values in {len(self._counts)} rows, "
                f"first on line {line}: {found[:40]!r} for {filled}; columns are read by name"
            )
        if self._empty:
            notes.append(
                f"{len(self._empty)} rows hold no values, the first on line {self._empty[0]}"
            )
        if self._decimal_commas:
            notes.append(f"{self._decimal_commas} rows have decimal commas")
        if self.opened.blank:
            notes.append(
                f"{len(self.opened.blank)} blank lines between rows were skipped, the first is "
                f"line {self.opened.blank[0]}"
            )
        return notes


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


# A spreadsheet runs a cell as a formula that starts so, also after what it takes for a delimiter.
_START = r"(^|[;,|\t\r\n])( *)"
_FORMULA = "[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]"
_TO_ESCAPE = re.compile(f"{_START}(?='*{_FORMULA})")
_ESCAPED = re.compile(f"{_START}'(?='*{_FORMULA})")


def harmless(text: str) -> str:
    """A text for a cell that no spreadsheet takes for a formula: an apostrophe before `=`, `+`,
    `-`, `@`, tab and line ends at its start or after a delimiter; `plain` takes it out again."""
    return _TO_ESCAPE.sub(r"\1\2'", text)


def plain(cell: str) -> str:
    """The text of which `harmless` made a cell."""
    return _ESCAPED.sub(r"\1\2", cell)


def write(
    path: str | Path,
    coefficients: np.ndarray,
    *,
    timecodes: Sequence[str],
    decimals: int = 10,
    sources: Sequence[str] | None = None,
    failed: Sequence[bool] | None = None,
    channels: Sequence[str] = NAMES,
) -> None:
    """Writes a take under a temporary name, then renames it, so that no half file is ever seen.

    Args:
      path: the CSV file.
      coefficients: [N, 61] in canonical order, each within its channel's range.
      timecodes: N labels, as of `labels` or, for frames at any times, `timecode.labels_at`.
      decimals: of the values; Live Link Face writes ten.
      sources: N pictures or frames, for a last column `Source`; made `harmless`.
      failed: N flags; such a row stays, with empty values and a BlendShapeCount of 0, which
        `read` refuses by its line, or keeps with `keep_empty=True`.
      channels: those that were read off the images. The fields of all others stay empty, and
        BlendShapeCount is how many were read; `read` takes such rows with `subset=True`.

    Raises:
      LiveLinkError: shapes or counts differ, or a value is NaN or out of range; names the frame.
      TimecodeError: a label is none.
    """
    known = np.zeros(len(NAMES), bool)
    known[[lookup(name).index for name in channels]] = True
    rows = _checked(path, coefficients, known)
    for what, given in (("timecodes", timecodes), ("sources", sources), ("flags", failed)):
        if given is not None and len(given) != len(rows):
            raise LiveLinkError(f"{len(given)} {what} for {len(rows)} frames", path=path)
    for label in timecodes:
        Timecode.parse(label)
    extra = [""] * len(rows) if sources is None else ["," + cell(text) for text in sources]
    with files.stream(path, newline="") as file:
        names = ["Timecode", "BlendShapeCount", *NAMES, *([] if sources is None else ["Source"])]
        file.write(",".join(names) + "\n")
        for i, row in enumerate(rows):
            if failed is not None and failed[i]:
                file.write(",".join([timecodes[i], "0", *[""] * len(NAMES)]) + extra[i] + "\n")
                continue
            # "z" writes -0.00 as 0.00
            texts = [f"{x:z.{decimals}f}" if ok else "" for x, ok in zip(row, known, strict=True)]
            file.write(",".join([timecodes[i], str(known.sum()), *texts]) + extra[i] + "\n")


def cell(text: str) -> str:
    """A text as a harmless CSV field; bytes of a file name that are no UTF-8 are spelled out."""
    text = harmless(text.encode("utf-8", "backslashreplace").decode())
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if re.search(r'["\s,;|]', text) else text


def labels(
    count: int, fps: float | Fraction, start: str = ZERO, drop_frame: bool = False
) -> list[str]:
    """Timecodes of `count` frames that are evenly spaced, to three decimals of a frame.

    Args:
      fps: the frame rate; says how timecode counts (29.98 and 15 count at 30).
      start: the label of the first frame.
      drop_frame: count drop-frame, at 29.97 and 59.94 only.

    Raises:
      TimecodeError: `start` or `drop_frame` does not go with the rate.
    """
    rate = timecode.exact_rate(fps)
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
