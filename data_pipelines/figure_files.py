"""Figures stored as records: heads of all sources, drawn once, to be composed anew any number of
times."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from data_pipelines import records
from data_pipelines.figures import Figure
from data_pipelines.held_out import Split
from data_pipelines.loader import RecordSource
from data_pipelines.records import RecordError
from data_pipelines.sources import Mixture, number_of
from sf_jax.face.landmarks import COUNT

LEAST_SIDE, MOST_SIDE = 144, 288  # of a figure's window in pixels


@dataclass(frozen=True)
class Figures:
    """Makes figures of a mixture in windows of many sizes; a `rendering.Maker`."""

    mixture: Mixture

    @property
    def seed(self) -> int:
        return self.mixture.seed

    def check(self, split: Split) -> None:
        """Loads what is needed.

        Raises:
          DataError: a file is missing or damaged.
        """
        self.mixture.check(split)

    def settings(self) -> dict[str, Any]:
        return self.mixture.settings() | {"figures": [LEAST_SIDE, MOST_SIDE]}

    def packed(self, index: int, split: Split) -> bytes:
        """Figure `index` of a split as it is stored."""
        number = number_of(index, self.seed, split)
        source = self.mixture.source_of(number)
        g = np.random.default_rng([22, number])
        side = round(float(np.exp(g.uniform(np.log(LEAST_SIDE), np.log(MOST_SIDE)))))
        return encode(source.figure(number, split, side), number)


def encode(figure: Figure, number: int) -> bytes:
    """Packs a figure; `number` is what it was drawn from."""
    cover = np.rint(figure.cover * 255).astype(np.uint8)
    return records.packed(
        {
            "image": records.encode_image(figure.image, exact=False),
            "cover": cv2.imencode(".png", cover)[1].tobytes(),
            "landmarks": figure.landmarks.astype(np.float32),
            "source": figure.source,
            "style": figure.style,
            "identity": figure.identity,
            "stands": figure.stands,
            "seed": number,
        }
    )


def decode(data: bytes) -> Figure:
    """Unpacks a figure.

    Raises:
      RecordError: it is damaged or no figure; names the field.
    """
    record = records.unpacked(data, ("image", "cover", "landmarks", "seed"))
    image = records.decode_image(record["image"])
    try:
        cover = cv2.cvtColor(records.decode_image(record["cover"]), cv2.COLOR_RGB2GRAY)
    except RecordError:
        raise RecordError("field 'cover' is not a readable image", field="cover") from None
    if cover.shape != image.shape[:2]:
        raise RecordError("field 'cover' has another size than the image", field="cover")
    landmarks = record["landmarks"]
    whole = isinstance(landmarks, np.ndarray) and landmarks.shape == (COUNT, 2)
    if not whole or not np.isfinite(landmarks).all(1).any():
        raise RecordError("field 'landmarks' is not 70 points", field="landmarks")
    source, style = (records.text(record, name) for name in ("source", "style"))
    return Figure(
        image,
        cover.astype(np.float32) / np.float32(255),
        landmarks.astype(np.float32),
        source,
        style,
        int(record.get("identity", -1)),
        bool(record.get("stands", True)),
    )


class FigureFiles:
    """The figures of one or more folders."""

    def __init__(
        self, directories: Sequence[str | os.PathLike], weights: Sequence[float] | None = None
    ):
        """Args:
        weights: how often `random` gives a figure of each folder; by their numbers if None.

        Raises:
          RecordError: a folder has no record files, or a damaged one.
        """
        folders = [records.files(directory) for directory in directories]
        self._source = RecordSource([path for paths in folders for path in paths], decode)
        last = np.cumsum([len(paths) for paths in folders]) - 1
        self._starts = np.concatenate([[0], self._source.ends[last]])
        shares = np.asarray(np.diff(self._starts) if weights is None else weights, float)
        self._shares = shares / shares.sum()

    @property
    def paths(self) -> list[str]:
        """The files, folder by folder."""
        return self._source.paths

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Figure:
        """Raises RecordError, which names file and record, where a figure is damaged."""
        return self._source[index]

    def random(self, g: np.random.Generator) -> Figure:
        """Any figure, its folder chosen by weight."""
        folder = int(g.choice(len(self._shares), p=self._shares))
        return self[int(g.integers(self._starts[folder], self._starts[folder + 1]))]
