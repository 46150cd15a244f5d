"""Recorded performances → face records: a tracker's labels and the frames that they belong to.

A folder is made of each take:

| file | content |
|---|---|
| `SPLIT-00000.array_record`, … | records, up to 2,000 a file; see `records.py` |
| `import.json` | how the clocks were related, every fault found, what was left out, quality |
| `quality.png`, `contact.png` | plots of the labels, and images with their labels |

`source` of a record is `take`, or `pseudo` where another model labelled the images; `style` is the
tracker, `identity` the person, `origin` file and line of the labels, `seconds` their time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

import sf_jax
from data_pipelines import records, take_pairing, take_quality, take_sheets
from data_pipelines.held_out import Split
from data_pipelines.portraits import unknown
from data_pipelines.rendering import SHARD
from data_pipelines.sources import SIDE, identity_of
from data_pipelines.take_faults import GAP
from data_pipelines.take_frames import (
    FrameReader,
    Frames,
    Seen,
    Source,
    TakeError,
    source_of,
)
from data_pipelines.take_pairing import Pairing, Wish
from sf_jax.face import labels as label_files
from sf_jax.face.channels import BLENDSHAPES, INDEX, NAMES
from sf_jax.face.describe import describe
from sf_jax.face.labels import Labels
from sf_jax.media import files, kinds
from sf_jax.media.crop import cut_square
from sf_jax.reader.session import remove_neutral

ROOM = 1.6  # side of a record's image over that of the square the face was read in
STILL = 0.5  # seconds of the rest that is taken as neutral
REPORT = "import.json"


@dataclass(frozen=True)
class Import:
    """How a take is imported.

    Attributes:
      split: which split its records are for; a person belongs to one alone.
      person: a name of the person, the same for all of their takes; None: the file's name.
      offset, first_frame: see `take_pairing.pair`.
      fps: rows a second, and video_fps: frames a second, where known better than from the files.
      eye_pitch: see `livelink.read`.
      tracker: name of what made the labels; None: as the file shows.
      pseudo: they are another model's reading, whatever the file shows.
      neutral: "auto" subtracts the labels of the stillest half second, (start, end) the median of
        these seconds of the file; None subtracts nothing.
      masked: channels whose labels are not to be used.
      every: one of so many pairs becomes a record.
      side: of the images in pixels, at most, where a face is cut out; else of their shorter side.
    """

    split: Split = "train"
    person: str | None = None
    offset: Wish = "auto"
    first_frame: int | None = None
    fps: float | None = None
    video_fps: float | None = None
    eye_pitch: str = "down"
    tracker: str | None = None
    pseudo: bool = False
    neutral: tuple[float, float] | str | None = None
    masked: tuple[str, ...] = ()
    every: int = 1
    side: int = SIDE


@dataclass(frozen=True)
class Imported:
    """What became of a take.

    Attributes:
      records: how many were written.
      labels: with masks and neutral face applied.
      pairing: rows with their frames.
      quality: of the labels that became records.
      neutral: that was subtracted, or None.
    """

    out: Path
    records: int
    labels: Labels
    pairing: Pairing
    quality: take_quality.Quality
    neutral: Float[np.ndarray, "61"] | None = None
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """A summary for people, one sentence each."""
        pairing = self.pairing
        out = [f"{self.records} records in {self.out}, labels by {self.labels.tracker}"]
        if self.labels.pseudo:
            out[0] += " (pseudo-labels: another model's reading, no measurement)"
        if pairing.offset is not None:
            out.append(f"offset by {pairing.how}: {pairing.offset}")
        out += [f"fault: {fault.text}" for fault in pairing.faults]
        out += [f"left out: {count} {reason}" for reason, count in pairing.left_out.items()]
        return out + self.notes + self.quality.sentences()


def import_take(
    labels_file: Path,
    shown: Path,
    out: Path,
    reader: FrameReader,
    how: Import | None = None,
    sheets: bool = True,
) -> Imported:
    """Imports one take into a new folder, which appears once it is complete.

    Args:
      labels_file: of a kind that `face/labels.py` reads.
      shown: the video, or the folder of images.
      reader: reads the frames; see `take_frames.model_reader`.
      sheets: draw `quality.png` and `contact.png`.

    Raises:
      DataError: either cannot be read, they cannot be related, or `out` exists.
    """
    how = how or Import()
    labels = label_files.read(labels_file, how.fps, how.eye_pitch, how.tracker, how.pseudo)
    labels = _masked(labels, how.masked)
    source = source_of(shown, how.video_fps)
    with files.folder(out) as folder:
        frames = source.scan(reader)
        pairing = take_pairing.pair(labels, frames, how.offset, how.first_frame)
        neutral = _neutral(labels, how.neutral)
        if neutral is not None:
            labels = _calibrated(labels, neutral)
        chosen = slice(None, None, how.every)
        rows, numbers = pairing.rows[chosen], pairing.frames[chosen]
        if not len(rows):
            left = ", ".join(f"{count} {reason}" for reason, count in pairing.left_out.items())
            raise TakeError(f"no row and frame belong together: {left}", path=labels_file)
        quality = take_quality.measure(labels, rows)
        sheet = take_sheets.Contact(len(rows))
        made = _records(labels, frames, source, rows, numbers, how, sheet)
        count = _write(folder, how.split, made)
        if count < len(rows):
            raise TakeError(f"changed while it was read: {count} frames came again", path=shown)
        notes = [*labels.notes, *frames.notes, *pairing.notes]
        done = Imported(out, count, labels, pairing, quality, neutral, notes)
        files.write_json(folder / REPORT, _report(done, frames, how))
        if sheets:
            take_sheets.draw_quality(folder / "quality.png", done.labels, frames, pairing, quality)
            sheet.draw(folder / "contact.png")
    return done


def _masked(labels: Labels, masked: tuple[str, ...]) -> Labels:
    if not masked:
        return labels
    values = np.array(labels.coefficients)
    values[:, [INDEX[name] for name in masked]] = np.nan
    note = f"masked on request: {', '.join(masked)}"
    return label_files.replaced(labels, values, note)


def _neutral(
    labels: Labels, wish: tuple[float, float] | str | None
) -> Float[np.ndarray, "61"] | None:
    """The labels of the person at rest.

    Raises:
      TakeError: the file has no times, or no row in those given.
    """
    if wish is None:
        return None
    if labels.seconds is None:
        raise TakeError("has no times, which --neutral needs", path=labels.path)
    seconds = labels.seconds
    if isinstance(wish, str):
        start = _stillest(labels)
        wish = (start, start + STILL)
    rows = (seconds >= wish[0]) & (seconds <= wish[1]) & labels.known.any(1)
    if not rows.any():
        end = float(seconds[-1])
        problem = f"has no row from {wish[0]:g} to {wish[1]:g} s; its rows end at {end:.2f} s"
        raise TakeError(problem, path=labels.path)
    found = np.full(len(NAMES), np.nan)
    some = labels.known[rows].any(0)
    found[some] = np.nanmedian(labels.coefficients[rows][:, some], 0)
    return found


def _stillest(labels: Labels) -> float:
    """Where the half second with the least expression and movement begins.

    Raises:
      TakeError: no half second of rows with values is without a gap.
    """
    assert labels.seconds is not None
    valued = labels.known[:, BLENDSHAPES].any(1)
    seconds = labels.seconds[valued]
    values = np.nan_to_num(labels.coefficients[valued, BLENDSHAPES])
    steps = np.diff(seconds)
    usual = float(np.median(steps)) if len(steps) else 0.0
    gaps = np.r_[0, np.cumsum(steps > GAP * usual)]  # up to each row
    strength = values.sum(1)
    moved = np.r_[0.0, np.abs(np.diff(values, axis=0)).sum(1)]
    total = np.r_[0.0, np.cumsum(strength + 5 * moved)]
    starts = np.arange(len(seconds))
    ends = np.searchsorted(seconds, seconds + STILL)
    whole = ends < len(seconds)
    whole[whole] = gaps[ends[whole]] == gaps[starts[whole]]
    if not whole.any():
        problem = f"has no {STILL:g} s of values without a gap, which --neutral auto needs"
        raise TakeError(problem, path=labels.path)
    mean = (total[ends] - total[starts]) / np.maximum(ends - starts, 1)
    return float(seconds[int(np.argmin(np.where(whole, mean, np.inf)))])


def _calibrated(labels: Labels, neutral: Float[np.ndarray, "61"]) -> Labels:
    """Labels relative to the person's face at rest."""
    rest = neutral.astype(np.float32)
    values = np.stack([remove_neutral(row, rest) for row in labels.coefficients])
    return label_files.replaced(labels, values.astype(np.float64), "the neutral face is subtracted")


def _records(
    labels: Labels,
    frames: Frames,
    source: Source,
    rows: np.ndarray,
    numbers: np.ndarray,
    how: Import,
    sheet: take_sheets.Contact,
) -> Iterator[bytes]:
    """Packed records in the order of the frames."""
    row_of = dict(zip(numbers.tolist(), rows.tolist(), strict=True))
    last = int(numbers.max())
    for number, image in enumerate(source.images()):
        if number in row_of:
            row = row_of[number]
            fields = record(labels, row, image, frames.seen[number], how)
            sheet.add(fields, labels, row)
            yield records.encode(fields, exact=False)
        if number >= last:
            return


def record(labels: Labels, row: int, image: np.ndarray, seen: Seen, how: Import) -> dict:
    """The record of a row and its frame."""
    picture, landmarks = picture_of(image, seen, how.side)
    known = labels.known[row]
    coefficients = np.where(known, labels.coefficients[row], 0).astype(np.float32)
    person = how.person or labels.path.stem
    return unknown(picture, row) | {
        "coefficients": coefficients,
        "known": known,
        "rationale": describe(coefficients, row).text if known.any() else "",
        "landmarks": landmarks,
        "source": "pseudo" if labels.pseudo else "take",
        "style": labels.tracker,
        "identity": identity_of("take", person),
        "origin": f"{labels.path.name}:{labels.lines[row]}",
        "seconds": 0.0 if labels.seconds is None else float(labels.seconds[row]),
    }


def picture_of(
    image: UInt8[np.ndarray, "H W 3"], seen: Seen, side: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "70 2"]]:
    """The image of a record, with its landmarks as shares of its sides.

    It is a square around the face with room for cutting, upright; the whole frame where no face was
    framed. It is never enlarged.
    """
    points = unknown(image, 0)["landmarks"]
    square = seen.square
    if square is None:
        scale = side / min(image.shape[:2])
        if scale < 1:
            size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return image, points
    wide = square.side * ROOM
    pixels = max(32, min(side, round(wide)))
    if seen.landmarks is not None:
        corner = np.array([square.x, square.y]) - wide / 2
        points = ((seen.landmarks - corner) / wide).astype(np.float32)
    return cut_square(image, square.x, square.y, wide, 0.0, pixels), points


def _write(folder: Path, split: Split, made: Iterator[bytes]) -> int:
    """Writes records into files of `SHARD`; returns their number."""
    total, number = 0, 0
    following = next(made, None)
    while following is not None:
        shard = [following]
        while len(shard) < SHARD and (one := next(made, None)) is not None:
            shard.append(one)
        path = folder / f"{split}-{number:05d}.array_record"
        total += records.write_encoded(path, shard)
        number, following = number + 1, next(made, None)
    return total


def _report(done: Imported, frames: Frames, how: Import) -> dict[str, object]:
    """What `import.json` holds."""
    labels, pairing = done.labels, done.pairing
    offset = None if pairing.offset is None else vars(pairing.offset)
    neutral = None
    if done.neutral is not None:
        known = zip(NAMES, done.neutral.tolist(), strict=True)
        neutral = {name: round(value, 6) for name, value in known if np.isfinite(value)}
    return {
        "sf_jax": sf_jax.__version__,
        "labels": labels.path.name,
        "frames": frames.path.name,
        "tracker": labels.tracker,
        "pseudo": labels.pseudo,
        "person": how.person or labels.path.stem,
        "split": how.split,
        "related_by": pairing.how,
        "offset": offset,
        "counts": {
            "rows": len(labels.lines),
            "frames": len(frames.seconds),
            "pairs": len(pairing.rows),
            "records": done.records,
        },
        "left_out": pairing.left_out,
        "faults": [fault.as_json() for fault in pairing.faults],
        "neutral": neutral,
        "masked": [*how.masked],
        "notes": done.notes,
        "quality": done.quality.as_json(),
    }


@dataclass(frozen=True)
class Named:
    """The files of one take, and a name for its folder."""

    name: str
    labels: Path
    shown: Path


@dataclass(frozen=True)
class Found:
    """The takes of a folder, or the only one.

    Attributes:
      takes: one a video.
      lacking: CSVs without a video, as errors.
      notes: which CSVs were left out in favour of others, one sentence a video.
    """

    takes: list[Named]
    lacking: list[TakeError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def takes_of(labels: Path, shown: Path | None) -> Found:
    """The takes that two paths name.

    Args:
      labels: a file of labels, or a folder of CSVs: of Live Link Face, where the video is beside
        it, or of Express4D, whose `data` holds them. Of several CSVs of a video the calibrated one
        is taken.
      shown: a video or a folder of images; of a folder of CSVs the folder of their videos.

    Raises:
      TakeError: there is no take; names the first CSV without a video.
    """
    if not labels.is_dir():
        if shown is None:
            raise TakeError("needs its video, or the folder of its images", path=labels)
        return Found([Named(labels.stem, labels, shown)])
    inner = labels / "data"
    tables = sorted(inner.glob("*.csv") if inner.is_dir() else labels.glob("*.csv"))
    if not tables:
        raise TakeError("holds no CSV", path=labels)
    folder = labels if shown is None else shown
    if not folder.is_dir():
        raise TakeError("expected a folder of videos, for a folder of CSVs", path=folder)
    videos = {file.stem: file for file in sorted(folder.iterdir()) if _is_video(file)}
    of_video: dict[str, list[Path]] = {}
    lacking = []
    for csv in tables:
        stem = next((s for s in (csv.stem, _plain(csv.stem)) if s in videos), None)
        if stem is None:
            problem = f"no video {csv.stem}.mp4, .mov or the like in {folder}"
            lacking.append(TakeError(problem, path=csv))
        else:
            of_video.setdefault(stem, []).append(csv)
    if not of_video:
        raise lacking[0]
    takes, notes = [], []
    for stem, files_of_it in of_video.items():
        first, *others = sorted(files_of_it, key=lambda csv: _rank(csv, stem))
        takes.append(Named(stem, first, videos[stem]))
        if others:
            left = ", ".join(csv.name for csv in others)
            notes.append(f"{videos[stem].name}: labels of {first.name}; left out: {left}")
    return Found(takes, lacking, notes)


def _is_video(file: Path) -> bool:
    return kinds.kind_of(file) == "video"


# What Live Link Face adds to the names of CSVs, by which is taken; the last is of the face at rest.
_SUFFIXES = ("_cal", "", "_raw", "_neutral")


def _plain(stem: str) -> str:
    """The name of a take without what Live Link Face adds."""
    return stem.removesuffix("_cal").removesuffix("_raw").removesuffix("_neutral")


def _rank(csv: Path, stem: str) -> int:
    added = csv.stem.removeprefix(stem)
    return _SUFFIXES.index(added) if added in _SUFFIXES else len(_SUFFIXES)
