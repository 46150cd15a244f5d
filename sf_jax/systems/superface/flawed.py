"""Face records whose labels are faulty, and the truth in a file of its own.

What trains is given the folder of records, and nothing in it leads to the truth: a record keeps the
image, the faulty labels, a rationale that is written of these, and whom it shows. The number that
everything was drawn from, landmarks and material maps are left out, since they follow from the true
coefficients. The truth is written to a file that must be elsewhere. It is read by `truth.py`, which
no module of `sf_jax` or `data_pipelines` imports; a test holds both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from tqdm import tqdm

from data_pipelines import records
from data_pipelines.records import RecordError
from sf_jax.face.channels import HIGH, LOW, NAMES
from sf_jax.face.describe import describe
from sf_jax.face.labels import Labels
from sf_jax.media import files
from sf_jax.media.errors import DataError
from sf_jax.media.npz_files import Declared
from sf_jax.systems.superface.corruption import Corruption, corrupt
from sf_jax.systems.superface.pairs import image_hash

TAKE = 40  # consecutive records that lack the same channels
KEPT = ("style", "identity")  # of a record, besides image, labels, rationale, known and source
CORRUPTED = "corrupted"  # the source of records with corrupted labels
ARRAYS = {
    "image": Declared("text", ("N",)),
    "coefficients": Declared("float", ("N", len(NAMES))),
    "known": Declared("bool", ("N", len(NAMES))),
    "dropped": Declared("bool", ("N", len(NAMES))),
    "number": Declared("integer", ("N",)),
}  # of the file with the truth


class FlawedError(DataError):
    """Records or labels of which no set with faulty labels can be made."""


@dataclass(frozen=True, eq=False)
class Faulty:
    """The labels of one record; NaN where not known, and what was dropped."""

    labels: Float32[np.ndarray, "61"]
    dropped: Bool[np.ndarray, "61"]


@dataclass
class Written:
    """What was written: records, and names of images that had no label."""

    records: int = 0
    without: list[str] = field(default_factory=list)


Label = Callable[[int, str, dict[str, Any]], Faulty | None]  # of record number, image hash, record


def corrupted(
    folder: Path,
    out: Path,
    truth: Path,
    seed: int,
    how: Corruption | None = None,
    take: int = TAKE,
) -> Written:
    """Records of a folder with corrupted labels; see `corruption`.

    Args:
      folder: of face records with exact coefficients.
      out: folder to make; truth: .npz file to make, not within it.
      take: consecutive records that count as one take.

    Raises:
      FlawedError: `truth` is within `out`, or an image is there twice.
      RecordError: a record is damaged.
      DataError: `out` or `truth` exists.
      OSError: a file cannot be written.
    """

    def label(number: int, image: str, record: dict[str, Any]) -> Faulty:
        found = corrupt(record["coefficients"][None], [number // take], seed, how)
        known = record["known"]
        labels = np.where(known, found.labels[0], np.nan).astype(np.float32)
        return Faulty(labels, found.dropped[0] & known)

    return _write(folder, out, truth, CORRUPTED, label)


def labelled(folder: Path, out: Path, truth: Path, labels: Labels) -> Written:
    """Records of a folder with the labels that another tracker gave their images.

    Images are found by their hash, `pairs.image_hash`, or by the number that they were rendered
    from, as `sf-jax bench mediapipe_labels` names them. Those without a label, as no face was
    found, are left out.

    Raises:
      FlawedError: the file names no image of the folder; and as `corrupted`.
    """
    if labels.images is None:
        raise FlawedError("names no images, by which labels are found", path=labels.path)
    names = {name: row for row, name in enumerate(labels.images)}
    nothing = np.zeros(len(NAMES), bool)

    def label(number: int, image: str, record: dict[str, Any]) -> Faulty | None:
        row = names.get(image, names.get(str(_number(record))))
        if row is None or not labels.known[row].any():
            return None
        found = np.where(record["known"], labels.coefficients[row], np.nan)
        return Faulty(np.clip(found, LOW, HIGH).astype(np.float32), nothing)

    return _write(folder, out, truth, labels.tracker, label)


def _write(folder: Path, out: Path, truth: Path, source: str, label: Label) -> Written:
    if truth.resolve().is_relative_to(out.resolve()):
        problem = "is in the folder that the trainer is given; name a file elsewhere"
        raise FlawedError(problem, path=truth)
    if truth.suffix.lower() != ".npz":
        raise FlawedError("a file with the truth ends in .npz", path=truth)
    if truth.exists():
        raise FlawedError("exists already; name another file", path=truth)
    paths = [Path(path) for path in records.files(folder)]
    written, rows = Written(), _Rows()
    number = 0
    with files.folder(out) as made:
        for path in tqdm(paths, desc="label", unit="file", disable=None):
            stored = _faulty(path, number, source, label, written, rows)
            written.records += records.write_encoded(made / path.name, stored)
            number += records.count(path)
        if not written.records:
            raise FlawedError("none of its images has a label", path=folder)
        with files.replacing(truth) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **rows.arrays())
    return written


def _faulty(
    path: Path, first: int, source: str, label: Label, written: Written, rows: "_Rows"
) -> Iterator[bytes]:
    """The records of a file with faulty labels; images are copied as they are stored."""
    stored = records.read_as(path, _stored)
    for number, (record, image) in enumerate(stored, first):
        name = image_hash(record["image"])
        found = label(number, name, record)
        if found is None:
            written.without.append(name)
            continue
        try:
            rows.add(name, record, found.dropped)
        except FlawedError as error:
            raise error.at(path=path, record=number - first) from None
        known = np.isfinite(found.labels)
        labels = np.where(known, found.labels, 0).astype(np.float32)
        fields = {name: record[name] for name in KEPT if name in record}
        fields |= {"image": image, "coefficients": labels, "known": known, "source": source}
        yield records.packed(fields | {"rationale": describe(labels, number).text})


def _stored(data: bytes) -> tuple[dict[str, Any], bytes]:
    """A record, and its image as it is stored."""
    found = records.decode(data)
    if not found["known"].any():
        raise RecordError("no coefficient is known", field="known")
    return found, records.unpacked(data, ("image",))["image"]


def _number(record: dict[str, Any]) -> int:
    """What a record was rendered from; -1 where that is not known."""
    number = record.get("seed", -1)
    return int(number) if isinstance(number, int | np.integer) else -1


class _Rows:
    """The truth, row by row."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, int]] = {}

    def add(self, image: str, record: dict[str, Any], dropped: np.ndarray) -> None:
        """Raises FlawedError where the image is there already, by which the truth is found."""
        if image in self._rows:
            raise FlawedError("the same image as an earlier record's")
        self._rows[image] = (record["coefficients"], record["known"], dropped, _number(record))

    def arrays(self) -> dict[str, Any]:
        """The arrays of `ARRAYS`."""
        coefficients, known, dropped, number = zip(*self._rows.values(), strict=True)
        return {
            "image": np.array(list(self._rows)),
            "coefficients": np.array(coefficients, np.float32),
            "known": np.array(known, bool),
            "dropped": np.array(dropped, bool),
            "number": np.array(number, np.int64),
        }
