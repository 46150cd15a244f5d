"""Simple meshes for what is worn or held: grids, tubes, balls, boxes; and pieces made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

OPAQUE = 15  # all four samples of a pixel


@dataclass(frozen=True)
class Piece:
    """A mesh with two sides, in the coordinates of the head at rest.

    Attributes:
      points: float32 [n, 3], cm; triangles: int32 [t, 3].
      colours: float32 [n, 3], RGB in [0, 1].
      material: a name of MATERIALS.
      samples: bits of the samples of a pixel that it covers, so that glass shows what is under it.
      strands: float32 [n, 2], of hair, across and along it in cm; None for other things.
    """

    points: np.ndarray
    triangles: np.ndarray
    colours: np.ndarray
    material: str = "object"
    samples: int = OPAQUE
    strands: np.ndarray | None = None


def piece(
    points: np.ndarray,
    triangles: np.ndarray,
    colour: Sequence[float] | np.ndarray,
    material: str = "object",
    samples: int = OPAQUE,
) -> Piece:
    """A piece of one colour [3], or of one a vertex [n, 3]."""
    points = np.ascontiguousarray(points.reshape(-1, 3), np.float32)
    colours = np.broadcast_to(np.asarray(colour, np.float32), points.shape)
    return Piece(points, triangles, np.clip(colours, 0, 1), material, samples)


@cache
def grid(rows: int, columns: int, closed: bool = False) -> np.ndarray:
    """Triangles int32 [t, 3] of a grid of vertices; `closed` joins the last column to the first."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns - (not closed)), indexing="ij")
    right = (j + 1) % columns
    a, b = i * columns + j, i * columns + right
    c, d = a + columns, b + columns
    return np.stack([a, c, b, b, c, d], axis=-1).reshape(-1, 3).astype(np.int32)


def tube(
    path: np.ndarray, radii: np.ndarray | float, sides: int = 7, closed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Points [n, sides, 3] and triangles of a tube along a path [n, 3].

    Args:
      radii: of the path's points, or of all; closed: the path is a loop.
    """
    path = np.asarray(path, np.float64)
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9
    mean = np.abs(ahead).mean(0)
    helper = np.eye(3)[np.argmin(mean)]
    across = np.cross(ahead, helper)
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
    up = np.cross(across, ahead)
    turn = np.arange(sides) / sides * 2 * np.pi
    ring = np.cos(turn)[:, None] * across[:, None] + np.sin(turn)[:, None] * up[:, None]
    points = path[:, None] + ring * np.broadcast_to(radii, len(path))[:, None, None]
    triangles = grid(len(path), sides, True)
    if closed:
        last = (len(path) - 1) * sides
        seam = grid(2, sides, True)
        seam = np.where(seam < sides, seam + last, seam - sides).astype(np.int32)
        triangles = np.concatenate([triangles, seam])
    return points, triangles


def ball(
    centre: np.ndarray,
    radii: Sequence[float] | np.ndarray | float,
    rows: int = 9,
    columns: int = 14,
) -> tuple[np.ndarray, np.ndarray]:
    """Points [rows, columns, 3] and triangles of an ellipsoid."""
    polar = np.linspace(0.03, np.pi - 0.03, rows)[:, None]
    turn = np.arange(columns) / columns * 2 * np.pi
    unit = np.stack(
        [
            np.sin(polar) * np.cos(turn),
            np.broadcast_to(np.cos(polar), (rows, columns)),
            np.sin(polar) * np.sin(turn),
        ],
        -1,
    )
    return np.asarray(centre) + unit * np.asarray(radii), grid(rows, columns, True)


def capsule(path: np.ndarray, radius: float, sides: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A tube [n + 4, sides, 3] with round ends, such as a finger."""
    path = np.asarray(path, np.float64)
    first, last = path[0] - path[1], path[-1] - path[-2]
    first *= radius / (np.linalg.norm(first) + 1e-9)
    last *= radius / (np.linalg.norm(last) + 1e-9)
    ends = [path[0] + 0.95 * first, path[0] + 0.6 * first]
    tips = [path[-1] + 0.6 * last, path[-1] + 0.95 * last]
    whole = np.concatenate([ends, path, tips])
    radii = np.full(len(whole), radius)
    radii[[0, -1]], radii[[1, -2]] = 0.25 * radius, 0.8 * radius
    return tube(whole, radii, sides)


def box(centre: np.ndarray, halves: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [24, 3] and triangles of a box; corners are not shared, so that its faces are flat."""
    points: list[np.ndarray] = []
    triangles: list[list[int]] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            first, second = (axis + 1) % 3, (axis + 2) % 3
            corners = np.zeros((4, 3))
            corners[:, axis] = sign
            corners[:, first], corners[:, second] = [-1, 1, 1, -1], [-1, -1, 1, 1]
            start = 4 * len(points)
            points.append(corners)
            triangles += [[start, start + 1, start + 2], [start, start + 2, start + 3]]
    corners = np.concatenate(points) * np.asarray(halves)
    return np.asarray(centre) + corners, np.array(triangles, np.int32)


def disc(centre: np.ndarray, outline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A fan of triangles from a centre [3] to a closed outline [n, 3]."""
    count = len(outline)
    following = (np.arange(count) + 1) % count
    triangles = np.stack([np.zeros(count, int), 1 + np.arange(count), 1 + following], 1)
    return np.concatenate([np.asarray(centre)[None], outline]), triangles.astype(np.int32)
