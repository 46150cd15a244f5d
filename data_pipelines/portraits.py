"""Portraits: real images of faces with landmarks. Nothing else about them is known."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float
from pydantic import Field

from data_pipelines import held_out
from data_pipelines.figures import Figure
from data_pipelines.held_out import Split
from data_pipelines.sources import CELLS, WIDE, Framing, SourceError, identity_of
from sf_jax.face.landmarks import COUNT, PUPILS, framing_square
from sf_jax.media import small_files
from sf_jax.media.crop import cut_square, to_square
from sf_jax.media.images import read_image
from sf_jax.render.draw import BACKGROUND

LIST = "portraits.jsonl"
Point = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Line(small_files.Settings):
    image: str
    landmarks68: Annotated[list[Point], Field(min_length=68, max_length=68)]


@dataclass(frozen=True)
class Portrait:
    """An image of a face.

    Attributes:
      name: as in `held_out`.
      path: of the image.
      landmarks: shares of width and height; the pupils are NaN.
    """

    name: str
    path: Path
    landmarks: Float[np.ndarray, "70 2"]


def read_portraits(folder: Path) -> list[Portrait]:
    """The portraits that a folder's `portraits.jsonl` lists.

    Raises:
      SourceError: the list is missing or damaged; names file, line and field.
    """
    path = folder / LIST
    if not path.is_file():
        raise SourceError("no such file", path=path)
    found = []
    for number, text in small_files.lines(path, SourceError):
        try:
            line = small_files.checked(
                _Line, small_files.parse_json(text, SourceError), SourceError
            )
        except SourceError as error:
            raise error.at(path=path, line=number) from None
        landmarks = np.full((COUNT, 2), np.nan, np.float32)
        landmarks[: PUPILS.start] = line.landmarks68
        found.append(Portrait(held_out.stem(line.image), folder / line.image, landmarks))
    if not found:
        raise SourceError("lists no portrait", path=path)
    return found


@dataclass(frozen=True)
class PortraitSource:
    """Portraits framed by their landmarks, with chance shifts, sizes and turns.

    The training split has the portraits that may be trained on, the evaluation split those that
    neither a skin was made of nor the finder is trained on.
    """

    folder: Path
    name: str = "portraits"

    def check(self, split: Split) -> None:
        """Raises SourceError where the list is damaged or no portrait is of the split."""
        self.portraits(split)

    def portraits(self, split: Split) -> list[Portrait]:
        """Those of a split, in the order of the list; see `check` about errors."""
        found = _of_split(self.folder, split)
        if not found:
            raise SourceError(f"no portrait is of split {split}", path=self.folder / LIST)
        return found

    def record(self, number: int, split: Split, framing: Framing = WIDE) -> dict[str, Any]:
        """One record. Where the portrait ends its edge is repeated."""
        portraits = self.portraits(split)
        g = np.random.default_rng([8, number])
        portrait = portraits[int(g.integers(len(portraits)))]
        image = read_image(portrait.path)
        height, width = image.shape[:2]
        points = portrait.landmarks * [width, height]
        side, shift = framing.side, g.uniform(-framing.shift, framing.shift, 2)
        square = framing_square(points, float(g.uniform(*framing.share)), turned=False)
        x, y = np.array([square.x, square.y]) + shift * square.side
        turned = float(g.normal(0, 0.06))
        matrix = to_square(x, y, square.side, turned, side)
        return unknown(cut_square(image, x, y, square.side, turned, side), number) | {
            "landmarks": ((points @ matrix[:, :2].T + matrix[:, 2]) / side).astype(np.float32),
            "source": self.name,
            "style": portrait.name,
            "identity": identity_of(self.name, portrait.name),
        }

    def figure(self, number: int, split: Split, side: int) -> Figure:
        """A part of a portrait, as a photograph among others; see `sources.Source`."""
        portraits = self.portraits(split)
        g = np.random.default_rng([13, number])
        portrait = portraits[int(g.integers(len(portraits)))]
        image = read_image(portrait.path)
        points = portrait.landmarks * image.shape[1::-1]
        square = framing_square(points, float(g.uniform(0.36, 0.6)), turned=False)
        turned = float(np.clip(g.normal(0, 0.12), -0.5, 0.5))
        matrix = to_square(square.x, square.y, square.side, turned, side)
        cover = np.zeros((side, side), np.float32)
        margin = (g.uniform(0, 0.12, 4) * side).astype(int)
        cover[margin[0] : side - margin[1], margin[2] : side - margin[3]] = 1
        return Figure(
            cut_square(image, square.x, square.y, square.side, turned, side),
            cover,
            (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32),
            self.name,
            portrait.name,
            identity_of(self.name, portrait.name),
            stands=False,
        )


def unknown(image: np.ndarray, number: int) -> dict[str, Any]:
    """The fields of a record of which nothing but the image is known."""
    return {
        "image": image,
        "coefficients": np.zeros(61, np.float32),
        "known": np.zeros(61, bool),
        "rationale": "",
        "landmarks": np.full((COUNT, 2), np.nan, np.float32),
        "parts": np.full((CELLS, CELLS), BACKGROUND, np.uint8),
        "dense": False,
        "seed": number,
    }


@lru_cache(4)
def _of_split(folder: Path, split: Split) -> list[Portrait]:
    def of_split(name: str) -> bool:
        if split == "train":
            return held_out.portrait_trainable(name)
        return held_out.portrait_split(name) == "tests"

    return [portrait for portrait in read_portraits(folder) if of_split(portrait.name)]
