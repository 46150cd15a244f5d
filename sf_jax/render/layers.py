"""Drawings without a background, and how several of them make one image."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sf_jax.render.shading import BACKGROUND


@dataclass(frozen=True)
class Layer:
    """A head in a window of an image, without a background.

    Attributes:
      left, top: the window's first column and row in the image; it is inside the image.
      colour: float32 [h, w, 3], times cover; cover: float32 [h, w], 1 where nothing shines through.
      material: uint8 [h, w], indices into MATERIALS, BACKGROUND where nothing is drawn.
      landmarks: float32 [70, 2], x and y in pixels of the image, NaN where not known.
      distance: from the camera, cm; nearer layers cover those farther away.
    """

    left: int
    top: int
    colour: np.ndarray
    cover: np.ndarray
    material: np.ndarray
    landmarks: np.ndarray
    distance: float


def flatten(background: np.ndarray, layers: Iterable[Layer]) -> tuple[np.ndarray, np.ndarray]:
    """Composes layers over a background, the farthest first.

    Args:
      background: float32 [H, W, 3] in [0, 1].

    Returns:
      The picture float32 [H, W, 3], materials uint8 [H, W].
    """
    picture = np.array(background, np.float32)
    material = np.full(picture.shape[:2], BACKGROUND, np.uint8)
    for layer in sorted(layers, key=lambda layer: -layer.distance):
        height, width = layer.cover.shape
        window = slice(layer.top, layer.top + height), slice(layer.left, layer.left + width)
        picture[window] *= 1 - layer.cover[..., None]
        picture[window] += layer.colour
        drawn = layer.material != BACKGROUND
        material[window][drawn] = layer.material[drawn]
    return picture, material
