"""Views of a record: random squares cut out of its image, as the reader will cut them.

An image is rendered once, with room around the face, and serves in many framings. Most views are
framed as the reader frames a face, with the errors of its landmarks; the others as it first sees a
face that the finder has found, smaller, off centre and tilted.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import grain.python as grain
import numpy as np
from jaxtyping import Float, UInt8

from data_pipelines.loader import mirrored
from sf_jax.face import head_angles, landmarks
from sf_jax.face.landmarks import Square
from sf_jax.media.crop import between_centres, cut_square, to_square
from sf_jax.render.effects import compressed

UNKNOWN = 254  # in the map of materials: outside the rendered image


@dataclass(frozen=True)
class Framing:
    """Ranges of random squares around a face.

    Attributes:
      share: brows to chin over the side of the square, lowest and highest.
      shift: standard deviation of the centre's error, in sides of the framing square.
      roll: standard deviation of the turn's error, radians.
    """

    share: tuple[float, float]
    shift: float
    roll: float


@dataclass(frozen=True)
class Views:
    """How views are drawn.

    Attributes:
      size: side of a view in pixels; cells: side of its map of materials.
      framed: as the reader reads a face; found: as the finder found it.
      framed_share: share of views that are framed; mirrored: share that is mirrored.
      colours: strength of random contrast, brightness and white balance; 0 changes none.
    """

    size: int
    cells: int
    framed: Framing = Framing((0.70, 0.90), 0.025, 0.06)
    found: Framing = Framing((0.45, 0.90), 0.10, 0.35)
    framed_share: float = 0.7
    mirrored: float = 0.5
    colours: float = 1.0


def random_view(record: dict[str, Any], views: Views, g: np.random.Generator) -> dict[str, Any]:
    """A view of a record. The rationale is dropped where the view is mirrored."""
    height, width = record["image"].shape[:2]
    points = record["landmarks"] * [width, height]
    framing = views.framed if g.random() < views.framed_share else views.found
    square = random_square(points, framing, g)
    out = view(record, square, views)
    if views.colours:
        out["image"] = recoloured(out["image"], views.colours, g)
    return mirrored(out) if g.random() < views.mirrored else out


def random_square(
    points: Float[np.ndarray, "70 2"], framing: Framing, g: np.random.Generator
) -> Square:
    """A square around landmarks (in pixels), at random within a framing."""
    best = landmarks.framing_square(points, share=1.0)
    side = best.side / g.uniform(*framing.share)
    x, y = np.array([best.x, best.y]) + side * framing.shift * g.normal(size=2)
    return Square(float(x), float(y), side, best.roll + framing.roll * float(g.normal()))


def view(record: dict[str, Any], square: Square, views: Views) -> dict[str, Any]:
    """The record as seen in a square of its image.

    The head's angles are those in the turned image.

    Args:
      square: in pixels of the image.
    """
    place = (square.x, square.y, square.side, square.roll)
    height, width = record["image"].shape[:2]
    matrix = to_square(*place, size=1)
    points = record["landmarks"].astype(np.float64) * [width, height]
    out = {
        **{name: value for name, value in record.items() if name != "parts"},
        "image": cut_square(record["image"], *place, size=views.size),
        "coefficients": head_angles.turn_image(record["coefficients"], -square.roll),
        "landmarks": (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32),
    }
    if "parts" in record and record.get("dense", True):
        out["parts"] = _cut_parts(record["parts"], (height, width), place, views.cells)
    return out


def _cut_parts(
    parts: UInt8[np.ndarray, "h w"],
    sides: tuple[int, int],
    place: tuple[float, float, float, float],
    cells: int,
) -> UInt8[np.ndarray, "cells cells"]:
    """The nearest cell of a map of materials for each cell of a square of its image."""
    matrix = to_square(*place, size=cells)
    to_pixels = [sides[1] / parts.shape[1], sides[0] / parts.shape[0]]
    matrix[:, :2] = matrix[:, :2] * to_pixels
    return cv2.warpAffine(
        parts,
        between_centres(matrix),
        (cells, cells),
        flags=cv2.INTER_NEAREST,
        borderValue=(UNKNOWN,),
    )


def recoloured(
    image: UInt8[np.ndarray, "H W 3"], strength: float, g: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    """The image with other contrast, brightness, white balance, sharpness and compression."""
    gain = np.exp(strength * (0.15 * g.normal() + 0.05 * g.normal(size=3)))
    shift = 255 * strength * 0.05 * g.normal()
    table = np.arange(256.0)[:, None] - 128
    gamma = np.exp(strength * 0.15 * g.normal())
    table = 255 * (np.clip(table * gain + 128 + shift, 0, 255) / 255) ** gamma
    image = cv2.LUT(image, table.astype(np.uint8)[:, None])
    if g.random() < 0.06 * strength:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    if g.random() < 0.2 * strength:
        image = cv2.GaussianBlur(image, (0, 0), float(g.uniform(0.3, 1.2)) * len(image) / 96)
    if g.random() < 0.2 * strength:
        noise = g.normal(0, 255 * g.uniform(0, 0.04), image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if g.random() < 0.3 * strength:
        image = compressed(image, int(g.integers(30, 95)))
    return image


class RandomView(grain.RandomMapTransform):
    """A random view of each record."""

    def __init__(self, views: Views):
        self.views = views

    def random_map(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return random_view(record, self.views, rng)
