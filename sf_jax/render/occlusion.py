"""Ambient occlusion of a rig: how much of the surroundings each vertex sees, computed once."""

import numpy as np

from sf_jax.face.channels import INDEX, NAMES
from sf_jax.render.raster import rasterise, vertex_normals
from sf_jax.render.rig import MATERIALS, Rig, pose

DIRECTIONS, SIDE, FAR, BIAS = 64, 128, 300.0, 0.35  # number, pixels, cm, cm
INSIDE = ("teeth", "gum", "tongue", "mouth")
LEAST = 0.55  # of eyes and of what is in the mouth, which have to be seen
OPENING = {
    "JawOpen": 0.6,
    **dict.fromkeys(("MouthLowerDownLeft", "MouthLowerDownRight"), 0.5),
    **dict.fromkeys(("MouthUpperUpLeft", "MouthUpperUpRight"), 0.5),
}


def along(direction: np.ndarray, centre: np.ndarray, reach: float, side: int) -> np.ndarray:
    """The transform [3, 4] of a parallel projection: to pixels x, y and the distance.

    Args:
      direction: [3], unit, towards where it is seen from; reach: cm from the centre to the border.
    """
    helper = np.array([0.0, 1.0, 0.0]) if abs(direction[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    across = np.cross(helper, direction)
    across /= np.linalg.norm(across)
    up = np.cross(direction, across)
    scale = side / (2 * reach)
    rows = np.stack([across * scale, -up * scale, -direction])
    shift = np.array([side / 2, side / 2, FAR]) - rows @ centre
    return np.column_stack([rows, shift]).astype(np.float32)


def depth_map(
    vertices: np.ndarray, triangles: np.ndarray, transform: np.ndarray, side: int, one_sided: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse depths float32 [side, side] along a direction, and the vertices' positions [V, 3]."""
    at = vertices @ transform[:, :3].T + transform[:, 3]
    points = np.ascontiguousarray(at[:, :2])
    _, depth = rasterise(points, np.ascontiguousarray(at[:, 2]), triangles, side, side, one_sided)
    return depth, at


def _sphere(count: int) -> np.ndarray:
    """Unit directions [count, 3] spread evenly, each with its mirror image."""
    i = np.arange(count // 2) + 0.5
    height, turn = 1 - 4 * i / count, i * np.pi * (3 - np.sqrt(5))
    across = np.sqrt(1 - height**2)
    half = np.stack([across * np.cos(turn), height, across * np.sin(turn)], 1)
    return np.concatenate([half, half * [-1, 1, 1]])


def _openness(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Share of the light of an even surrounding that reaches each vertex, [V] in [0, 1]."""
    normals = vertex_normals(vertices, triangles)
    centre = (vertices.min(0) + vertices.max(0)) / 2
    reach = float(np.linalg.norm(vertices - centre, axis=1).max()) + 0.5
    seen, possible = np.zeros((2, len(vertices)))
    for direction in _sphere(DIRECTIONS):
        facing = np.maximum(normals @ direction, 0)
        transform = along(direction, centre, reach, SIDE)
        depth, at = depth_map(vertices, triangles, transform, SIDE, len(triangles))
        x, y = np.clip(at[:, :2].astype(int), 0, SIDE - 1).T
        seen += facing * (1 / np.maximum(depth[y, x], 1e-9) > at[:, 2] - BIAS - (1 - facing))
        possible += facing
    return seen / np.maximum(possible, 1e-9)


def baked(rig: Rig) -> np.ndarray:
    """Ambient occlusion float32 [V] of a rig at rest, 1 where nothing is in the way.

    What is in the mouth is computed with the mouth open.
    """
    opened = np.zeros(len(NAMES), np.float32)
    for name, value in OPENING.items():
        opened[INDEX[name]] = value
    inside = np.isin(rig.material, [MATERIALS.index(name) for name in INSIDE])
    eyes = np.isin(rig.material, [MATERIALS.index(n) for n in ("sclera", "iris", "pupil")])
    out = _openness(rig.neutral, rig.triangles)
    if inside.any():
        out[inside] = _openness(pose(rig, opened), rig.triangles)[inside]
    seen = (inside | eyes) & (rig.material != MATERIALS.index("mouth"))
    out[seen] = LEAST + (1 - LEAST) * out[seen]
    return np.sqrt(out).astype(np.float32)  # light that is reflected once more
