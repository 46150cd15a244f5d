"""Figures: single heads cut out of what a source draws, to be composed into scenes."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from sf_jax.face.landmarks import bounding_square
from sf_jax.render.layers import Layer

FADE = 0.06  # of a window at its left and right, where figures end softly
LARGEST = 384  # pixels of a side that is drawn; larger figures are enlarged


@dataclass(frozen=True)
class Figure:
    """A head in a square window.

    Attributes:
      image: the colours, of which only those under `cover` count.
      cover: from 0 to 1, how much of each pixel the figure covers.
      landmarks: in pixels of the window, NaN where not known.
      source, style, identity: as in records.
      stands: whether the figure goes on below the window, so that it must not float.
    """

    image: UInt8[np.ndarray, "S S 3"]
    cover: Float[np.ndarray, "S S"]
    landmarks: Float[np.ndarray, "70 2"]
    source: str
    style: str
    identity: int
    stands: bool = True


def cut_out(layer: Layer, side: int, source: str, style: str, identity: int) -> Figure:
    """The figure of a drawing without background, which was made for an image of `side` pixels."""
    height, width = layer.cover.shape
    window = slice(layer.top, layer.top + height), slice(layer.left, layer.left + width)
    image, cover = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.float32)
    cover[window] = layer.cover
    edge = np.clip((np.arange(side) + 0.5) / (FADE * side), 0, 1)  # shoulders go on beyond a window
    cover *= np.minimum(edge, edge[::-1]).astype(np.float32)
    colour = layer.colour / np.maximum(layer.cover, 1 / 255)[..., None]
    image[window] = np.clip(colour * 255 + 0.5, 0, 255).astype(np.uint8)
    return Figure(image, cover, layer.landmarks, source, style, identity)


def resized(figure: Figure, face: float) -> Figure:
    """The figure with a face whose bounding square has a side of `face` pixels."""
    old = figure.image.shape[0]
    side = max(1, round(old * face / bounding_square(figure.landmarks).side))
    how = cv2.INTER_AREA if side < old else cv2.INTER_LINEAR
    return Figure(
        cv2.resize(figure.image, (side, side), interpolation=how),
        cv2.resize(figure.cover, (side, side), interpolation=how),
        figure.landmarks * np.float32(side / old),
        figure.source,
        figure.style,
        figure.identity,
        figure.stands,
    )


def paste(
    canvas: UInt8[np.ndarray, "H W 3"], figure: Figure, left: int, top: int
) -> Float[np.ndarray, "H W"]:
    """Draws a figure into an image with its window's corner there; returns what it covers.

    A figure that stands goes on below its window: its last row is repeated to the image's edge.
    """
    height, width = canvas.shape[:2]
    side = figure.image.shape[0]
    rows = np.arange(max(top, 0), height if figure.stands else min(top + side, height))
    columns = np.arange(max(left, 0), min(left + side, width))
    covered = np.zeros((height, width), np.float32)
    if not len(rows) or not len(columns):
        return covered
    index = np.ix_(np.minimum(rows - top, side - 1), columns - left)
    cover = figure.cover[index]
    part = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mixed = part + cover[..., None] * (figure.image[index].astype(np.float32) - part)
    part[:] = np.rint(mixed).astype(np.uint8)
    covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = cover
    return covered
