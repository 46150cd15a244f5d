"""Sources of face records, and mixtures of them, deterministic from a number.

A source is a small value that says where its rigs or images are: it can be pickled, and loads what
it needs once in each process that makes records. `Mixture` chooses a source for each number by
weight. How records are stored is in `data_pipelines/rendering.py`.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash

from data_pipelines import records
from data_pipelines.figures import Figure
from data_pipelines.held_out import Split
from data_pipelines.shares import share_of
from sf_jax.face.describe import describe
from sf_jax.media import hashes
from sf_jax.media.errors import DataError
from sf_jax.render.draw import BACKGROUND, Drawing

SIDE = 160  # pixels of an image for the reader, of which the loader cuts a smaller square
CELLS = 40  # a side of the coarse material map
TRAIN_PEOPLE = 20_000  # of the training split
OFFSET = 1_000_000  # of the evaluation split's numbers and people, never reached by training
HASHED = 64 << 20  # bytes of a file
PER_SEED = 10_000_000  # numbers between two seeds


@dataclass(frozen=True)
class Framing:
    """How faces are framed.

    Attributes:
      side: of the images in pixels.
      share: least and most of the face's height, brows to chin, over the side.
      shift: the most that the face's centre is off the image's, in sides.
    """

    side: int = SIDE
    share: tuple[float, float] = (0.48, 0.64)
    shift: float = 0.04


WIDE = Framing()  # with room to cut


class SourceError(DataError):
    """A mixture that cannot be made: an unknown source, or one without its files."""


class Source(Protocol):
    """What makes records.

    Attributes:
      name: as in a mixture and in the field `source` of records.
    """

    @property
    def name(self) -> str: ...

    def check(self, split: Split) -> None:
        """Loads what the source needs.

        Raises:
          DataError: a file is missing or damaged, or nothing in it belongs to the split.
        """

    def record(self, number: int, split: Split, framing: Framing = WIDE) -> dict[str, Any]:
        """One record, the same for a number; see `data_pipelines/records.py` about fields."""

    def figure(self, number: int, split: Split, side: int) -> Figure:
        """A head in a window of about `side` pixels, its face about 0.4 of that high."""


def person_of(g: np.random.Generator, split: Split) -> int:
    """The seed of a person drawn at random; no person is in both splits."""
    return int(g.integers(TRAIN_PEOPLE)) + (OFFSET if split == "evaluation" else 0)


def number_of(index: int, seed: int, split: Split) -> int:
    """The number of a record, from which all of it is drawn; no two splits or seeds share any.

    Raises:
      ValueError: there is no such split, or `index` would reach into the other split.
    """
    if split not in ("train", "evaluation"):
        raise ValueError(f"the split is 'train' or 'evaluation', not {split!r}")
    if not 0 <= index < OFFSET:
        raise ValueError(f"record {index} of split {split}: expected 0 to {OFFSET - 1}")
    return seed * PER_SEED + index + (OFFSET if split == "evaluation" else 0)


def identity_of(*parts: str | int) -> int:
    """A number for a person that has a name, below 2^32, for bootstrap over people."""
    return zlib.crc32("/".join(map(str, parts)).encode())


def drawn_record(
    drawing: Drawing, coefficients: np.ndarray, known: np.ndarray, number: int
) -> dict[str, Any]:
    """The fields of a record that follow from a drawing: image, labels, rationale, material map.

    Args:
      known: bool [61]; coefficients of other channels are stored as 0.
    """
    height, width = drawing.image.shape[:2]
    coefficients = np.where(known, coefficients, 0).astype(np.float32)
    return {
        "image": drawing.image,
        "coefficients": coefficients,
        "known": known,
        "rationale": describe(coefficients, number).text if known.any() else "",
        "landmarks": (drawing.landmarks / [width, height]).astype(np.float32),
        "parts": coarse(drawing.material),
        "dense": bool((drawing.material != BACKGROUND).any()),
        "seed": number,
    }


def coarse(material: np.ndarray) -> np.ndarray:
    """The material at the centre of each of `CELLS` x `CELLS` cells."""
    rows, columns = (
        ((np.arange(CELLS) + 0.5) * length / CELLS).astype(int) for length in material.shape
    )
    return np.ascontiguousarray(material[rows[:, None], columns])


@dataclass(frozen=True)
class Mixture:
    """Sources with weights.

    Attributes:
      sources: each with a name of its own.
      weights: shares, by the name of the source; their sum may be any.
      seed: of everything.
    """

    sources: tuple[Source, ...]
    weights: Mapping[str, float]
    seed: int = 0
    framing: Framing = WIDE

    def check(self, split: Split) -> None:
        """Loads what each source needs; see `Source.check`."""
        for source in self.sources:
            source.check(split)

    def source_of(self, number: int) -> Source:
        """The source of a number, by weight."""
        shares = np.array([self.weights[source.name] for source in self.sources], float)
        chosen = np.random.default_rng([7, number]).choice(len(shares), p=shares / shares.sum())
        return self.sources[int(chosen)]

    def record(self, index: int, split: Split) -> dict[str, Any]:
        """Record `index` of a split.

        Raises:
          ValueError: there is no such split or index.
        """
        number = number_of(index, self.seed, split)
        return self.source_of(number).record(number, split, self.framing)

    def packed(self, index: int, split: Split) -> bytes:
        """Record `index` of a split as it is stored, with a JPEG image."""
        return records.encode(self.record(index, split), exact=False)

    def settings(self) -> dict[str, Any]:
        """Weights, sources with their files, seed and framing, as JSON."""
        sources = {source.name: described(source) for source in self.sources}
        weights = {name: float(weight) for name, weight in self.weights.items()}
        framing = dataclasses.asdict(self.framing)
        return {"weights": weights, "sources": sources, "seed": self.seed, "framing": framing}


def described(source: Source) -> dict[str, Any]:
    """The fields of a source as JSON; of a file also the hash, of a folder names and sizes."""
    fields = dataclasses.asdict(source)  # type: ignore[call-overload]
    return {name: noted(value) for name, value in fields.items() if name != "name"}


def noted(value: object) -> object:
    """A setting as JSON; of a file also the hash, of a folder the names and sizes of its files."""
    if isinstance(value, Path):
        return {"name": value.name, "content": _content(value)}
    return value if isinstance(value, int | float | str | None) else repr(value)


def _content(path: Path) -> str:
    """The hash of a file's content, or of the names and sizes of a folder's files."""
    if path.is_file():
        return hashes.of_samples(path, HASHED)
    found = sorted(file for file in path.rglob("*") if file.is_file())
    names = [f"{file.relative_to(path).as_posix()} {file.stat().st_size}" for file in found]
    return xxhash.xxh3_128_hexdigest("\n".join(names).encode())


def parse_weights(text: str) -> dict[str, float]:
    """Weights by the name of the source, of a text such as `builtin=3,skins=3,drawn=2`.

    Raises:
      SourceError: it is of another form, or names a source twice.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        weight = share_of(number)
        if not name or weight is None:
            raise SourceError(f"{part.strip()!r} is no NAME=WEIGHT with a weight above 0")
        if name in weights:
            raise SourceError(f"source {name!r} is given twice")
        weights[name] = weight
    return weights
