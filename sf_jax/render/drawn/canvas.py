"""A canvas of filled polygons and strokes, with a map of the material under each pixel.

Shapes are filled without anti-aliasing on a finer grid, material in a fourth plane beside the
colour, and the grid is reduced at the end. OpenCV fills such a polygon several times faster than
an anti-aliased one, and a clip or a blend is an operation on whole pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from jaxtyping import UInt8

from sf_jax.render.drawn.curves import Points, ribbon, taper
from sf_jax.render.shading import BACKGROUND

Colour = tuple[int, int, int]
_SHIFT = 4  # fractional bits of coordinates
_FAR = 1 << 17  # coordinates beyond this are cut, far outside any canvas


def mix(a: Colour, b: Colour, amount: float) -> Colour:
    """From `a` at 0 to `b` at 1."""
    return (
        round(a[0] + (b[0] - a[0]) * amount),
        round(a[1] + (b[1] - a[1]) * amount),
        round(a[2] + (b[2] - a[2]) * amount),
    )


def scaled(colour: Colour, factor: float) -> Colour:
    """A darker (below 1) or lighter (above 1) colour."""
    r, g, b = (min(255, max(0, round(c * factor))) for c in colour)
    return r, g, b


class Canvas:
    """Draws in pixels of the finished image; the first pixel's centre is (0.5, 0.5).

    Attributes:
      pixels: uint8 [H * samples, W * samples, 4], red, green, blue, material.
      samples: grid cells a pixel and axis.
      wobble: (amplitude in pixels, waves a pixel, phase): how an unsteady hand displaces lines.
    """

    def __init__(
        self,
        height: int,
        width: int,
        samples: int,
        wobble: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ):
        self.samples, self.wobble = samples, wobble
        self.pixels = np.full((height * samples, width * samples, 4), BACKGROUND, np.uint8)
        self._origin = np.zeros(2)

    def displaced(self, points: Points) -> Points:
        """Where an unsteady hand draws the points."""
        amplitude, waves, phase = self.wobble
        if not amplitude:
            return points
        angle = points[:, ::-1] * (waves * 2 * np.pi) + phase
        return points + amplitude * (np.sin(angle) + 0.5 * np.sin(2.3 * angle + 1))

    def _fixed(self, points: Points) -> np.ndarray:
        """Fixed-point grid coordinates, int32 [N, 1, 2]."""
        grid = (self.displaced(points) * self.samples - self._origin - 0.5) * (1 << _SHIFT)
        return np.minimum(np.maximum(np.rint(grid), -_FAR), _FAR).astype(np.int32)[:, None]

    def paper(self, colour: Colour) -> None:
        """Fills everything with the background's colour."""
        height, width = self.pixels.shape[:2]
        cv2.rectangle(self.pixels, (0, 0), (width, height), (*colour, BACKGROUND), cv2.FILLED)

    def fill(self, points: Points, colour: Colour, material: int) -> None:
        """Fills a polygon."""
        cv2.fillPoly(self.pixels, [self._fixed(points)], (*colour, material), cv2.LINE_8, _SHIFT)

    def line(
        self, points: Points, width: float, colour: Colour, material: int, closed: bool = False
    ) -> None:
        """Strokes a curve with one width in pixels and round ends."""
        thickness = round(width * self.samples)
        if thickness < 1:
            return
        fixed = self._fixed(points)
        cv2.polylines(
            self.pixels, [fixed], closed, (*colour, material), thickness, cv2.LINE_8, _SHIFT
        )

    def stroke(
        self,
        points: Points,
        width: float,
        colour: Colour,
        material: int,
        ends: tuple[float, float] = (0.25, 0.25),
    ) -> None:
        """Strokes an open curve as a pen does: thinner at its ends, `ends` of the width there."""
        if width * self.samples < 0.5 or len(points) < 2:
            return
        self.fill(ribbon(points, width * taper(len(points), *ends)), colour, material)

    def outlined(
        self, points: Points, colour: Colour, material: int, width: float, ink: Colour
    ) -> None:
        """Fills a polygon and strokes its outline."""
        self.fill(points, colour, material)
        self.line(points, width, ink, material, closed=True)

    def mask(self, *polygons: Points) -> UInt8[np.ndarray, "h w"]:
        """255 inside any of the polygons, 0 elsewhere, on the grid."""
        drawn = np.zeros(self.pixels.shape[:2], np.uint8)
        for polygon in polygons:
            cv2.fillPoly(drawn, [self._fixed(polygon)], 255, cv2.LINE_8, _SHIFT)
        return drawn

    @contextmanager
    def inside(self, polygon: Points) -> Iterator[None]:
        """What is drawn in the context is kept inside the polygon only."""
        fixed = self._fixed(polygon)[:, 0]
        low = np.maximum((fixed.min(0) >> _SHIFT) - 1, 0)
        high = np.minimum((fixed.max(0) >> _SHIFT) + 2, self.pixels.shape[1::-1])
        if (high - low < 1).any():
            low, high = np.zeros(2, np.int64), np.ones(2, np.int64)
        whole, origin = self.pixels, self._origin
        view = whole[low[1] : high[1], low[0] : high[0]]
        self.pixels, self._origin = np.ascontiguousarray(view), origin + low
        inside = self.mask(polygon)
        try:
            yield
        finally:
            cv2.copyTo(self.pixels, inside, view)
            self.pixels, self._origin = whole, origin

    def tint(self, mask: UInt8[np.ndarray, "h w"], colour: Colour) -> None:
        """Multiplies by a colour where the mask is not 0."""
        x, y, width, height = cv2.boundingRect(mask)
        view = self.pixels[y : y + height, x : x + width, :3]
        dark = (view * (np.array(colour) / 255)).astype(np.uint8)
        view[:] = np.where(mask[y : y + height, x : x + width, None] > 0, dark, view)

    def reduced(self) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
        """The image and the map of materials."""
        height, width = (n // self.samples for n in self.pixels.shape[:2])
        image = cv2.resize(self.pixels, (width, height), interpolation=cv2.INTER_AREA)[..., :3]
        middle = self.samples // 2
        material = self.pixels[middle :: self.samples, middle :: self.samples, 3]
        return np.ascontiguousarray(image), material.copy()
