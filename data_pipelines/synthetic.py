"""Faces of the built-in head, closely framed: exact coefficients, deterministic from a seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import records, rendering
from data_pipelines.held_out import Split
from data_pipelines.sampler import sample
from data_pipelines.sources import number_of, person_of
from sf_jax.face.describe import describe
from sf_jax.media.errors import DataError
from sf_jax.render.draw import BACKGROUND, draw
from sf_jax.render.head import builtin
from sf_jax.render.rig import Rig
from sf_jax.render.scene import Scene, random_scene

SIDE = 96  # pixels
CELLS = 24  # a side of the coarse material map


@dataclass(frozen=True, eq=False)
class Sitting:
    """All that an image of the built-in head shows, before it is drawn.

    Attributes:
      rig, scene: as for `render.draw.draw`.
      coefficients: float32 [61].
      height, width: of the image, pixels.
      person: whose shape and colours; number: of the record over both splits.
    """

    rig: Rig
    scene: Scene
    coefficients: np.ndarray
    height: int
    width: int
    person: int
    number: int


def sitting(index: int, seed: int, split: Split, rig: Rig | None = None) -> Sitting:
    """What record `index` of a split shows; see `numbered`.

    Raises:
      ValueError: there is no such split, or `index` would reach into the other split.
    """
    return numbered(number_of(index, seed, split), split, rig)


def numbered(number: int, split: Split, rig: Rig | None = None) -> Sitting:
    """What the record of a number shows, which is in its field `seed`.

    People of the evaluation split are in no training image. One in sixteen images is not square.

    Args:
      number: of the split, see `sources.number_of`.
    """
    rig = rig or builtin()
    g = np.random.default_rng([3, number])
    person = person_of(g, split)
    scene = random_scene(number, person, len(rig.identity))
    height, width = SIDE, SIDE
    if g.random() < 0.0625:
        height, width = (64, 128) if g.random() < 0.5 else (128, 64)
    return Sitting(rig, scene, sample(number), height, width, person, number)


def face_record(index: int, seed: int, split: Split, rig: Rig | None = None) -> dict[str, Any]:
    """Record `index` of a split; see `numbered`.

    Raises:
      ValueError: there is no such split, or `index` would reach into the other split.
    """
    shown = sitting(index, seed, split, rig)
    height, width = shown.height, shown.width
    drawing = draw(shown.rig, shown.coefficients, shown.scene, height, width)
    dense = height == width
    step = SIDE // CELLS
    parts = np.full((CELLS, CELLS), BACKGROUND, np.uint8)
    if dense:
        parts = drawing.material[step // 2 :: step, step // 2 :: step]
    return {
        "image": drawing.image,
        "coefficients": shown.coefficients,
        "rationale": describe(shown.coefficients, shown.number).text,
        "landmarks": (drawing.landmarks / [width, height]).astype(np.float32),
        "parts": np.ascontiguousarray(parts),
        "dense": dense,
        "known": np.ones(61, bool),
        "source": "builtin",
        "style": shown.rig.name,
        "identity": shown.person,
        "seed": shown.number,
    }


@dataclass(frozen=True)
class Heads:
    """Makes the records of `face_record`, with images as they are."""

    seed: int = 0

    def check(self, split: Split) -> None:
        """Needs no file."""

    def packed(self, index: int, split: Split) -> bytes:
        return records.encode(face_record(index, self.seed, split))

    def settings(self) -> dict[str, Any]:
        return {}  # the seed is in each record


def check_unchanged(out: Path, count: int, split: str = "train") -> None:
    """Raises DataError where other than `count` faces are rendered already.

    Rendering would change them, and a run that has begun with them could not be resumed.
    """
    paths = sorted(out.glob(f"{split}-*.array_record"))
    found = sum(records.count(path) for path in paths)
    if paths and found != count:
        problem = f"the run began with {found:,} faces, {count:,} are asked for; give --images "
        raise DataError(f"{problem}{found}, or another --out", path=out)


def render(
    out: str | Path, count: int, *, split: Split = "train", seed: int = 0, workers: int = 2
) -> None:
    """Renders `count` faces of the built-in head; see `rendering.render`."""
    rendering.render(out, count, Heads(seed), split=split, workers=workers)
