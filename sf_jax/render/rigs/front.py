"""A head seen straight from the front: which triangle each pixel shows, and how its shapes move it.

Rigs of any topology are compared in such views: positions are in [0, 1] of a square that spans the
part of the head that expressions move, so that scale and units cancel out.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sf_jax.render.raster import rasterise

SIDE = 192  # pixels
MARGIN = 0.25  # of the moved part, around it


@dataclass(frozen=True)
class Front:
    """A front view.

    Attributes:
      triangle: int32 [SIDE, SIDE], the triangle seen, -1 for none.
      corners: int32 [n, 3] and weights: float32 [n, 3] of the n pixels that show one.
      rows, columns: int [n], those pixels.
      low: [2] x and y of the square's lower corner, side: its length, in the rig's unit.
    """

    triangle: Int[np.ndarray, "H W"]
    corners: Int[np.ndarray, "n 3"]
    weights: Float[np.ndarray, "n 3"]
    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " n"]
    low: np.ndarray
    side: float

    def at(self, values: Float[np.ndarray, "V ..."]) -> Float[np.ndarray, "n ..."]:
        """Values of vertices interpolated at the pixels."""
        weights = self.weights.reshape(*self.weights.shape, *[1] * (values.ndim - 1))
        return (values[self.corners] * weights).sum(1)

    def image(self, values: Float[np.ndarray, "V ..."], empty: float = np.nan) -> np.ndarray:
        """Values of vertices as an image [H, W, ...]."""
        out = np.full((SIDE, SIDE, *values.shape[1:]), empty, np.float32)
        out[self.rows, self.columns] = self.at(values)
        return out

    def pixels(self) -> Float[np.ndarray, "n 2"]:
        """x to the left of the subject and y up of the pixels, in [0, 1] of the square."""
        return np.stack([self.columns + 0.5, SIDE - self.rows - 0.5], 1) / SIDE

    def to_square(self, points: Float[np.ndarray, "m D"]) -> Float[np.ndarray, "m 2"]:
        """Points in the rig's unit as positions in the square."""
        return (points[:, :2] - self.low) / self.side


def moved_box(
    vertices: Float[np.ndarray, "V 3"], shapes: Float[np.ndarray, "S V 3"]
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner [3] of the vertices that a shape moves by a fifth of its most."""
    moved = np.zeros(len(vertices), bool)
    for shape in shapes:
        size = np.linalg.norm(shape, axis=1)
        if size.max() > 0:
            moved |= size > 0.2 * size.max()
    return vertices[moved].min(0), vertices[moved].max(0)


def view(
    vertices: Float[np.ndarray, "V 3"],
    triangles: Int[np.ndarray, "T 3"],
    shapes: Float[np.ndarray, "S V 3"],
    drawn: Bool[np.ndarray, " T"] | None = None,
) -> Front:
    """The front view of a head with +y up and +z out of the face.

    Args:
      drawn: triangles to draw; None for all.
    """
    low, high = moved_box(vertices, shapes)
    side = float((high - low)[:2].max()) * (1 + 2 * MARGIN)
    corner = 0.5 * (low + high)[:2] - 0.5 * side
    ids = np.arange(len(triangles)) if drawn is None else np.flatnonzero(drawn)
    shown = np.ascontiguousarray(triangles[ids], np.int32)
    points = (vertices[:, :2] - corner) / side * SIDE
    points[:, 1] = SIDE - points[:, 1]
    points = points.astype(np.float32)
    depths = (10 + (vertices[:, 2].max() - vertices[:, 2]) / side * 10).astype(np.float32)
    index, _ = rasterise(points, depths, shown, SIDE, SIDE, one_sided=0)
    rows, columns = np.nonzero(index >= 0)
    corners = shown[index[rows, columns]]
    weights = _weights(points[corners], np.stack([columns, rows], 1) + 0.5)
    triangle = np.where(index >= 0, ids[np.maximum(index, 0)], -1)
    return Front(triangle, corners, weights, rows, columns, corner, side)


def _weights(corners: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Barycentric weights [n, 3] of pixels [n, 2] in triangles [n, 3, 2]."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]

    def cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]

    area = cross(b - a, c - a)
    area = np.where(np.abs(area) < 1e-9, 1e-9, area)
    wa = cross(b - pixels, c - pixels) / area
    wb = cross(c - pixels, a - pixels) / area
    return np.stack([wa, wb, 1 - wa - wb], 1).clip(0, 1).astype(np.float32)
