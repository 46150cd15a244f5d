"""The eyeballs of a mesh: found by geometry, with the centres about which they turn."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sf_jax.face.channels import INDEX

RADII = (0.03, 0.6)  # of an eyeball, over the distance between the eyes' middles
ROUND = 0.16  # of the radius, that 9 of 10 vertices may be off the sphere: cartoon eyes are oval
WITHIN = 1.4  # radii from a ball's centre, all of a piece that belongs to it
NEAR = 0.25  # of the distance between the eyes, that a ball's middle may be off its lid's


def pieces(
    vertices: Float[np.ndarray, "V 3"], triangles: Int[np.ndarray, "T 3"]
) -> Int[np.ndarray, " V"]:
    """The number of the connected piece of each vertex; vertices at one position are one."""
    scale = np.ptp(vertices, axis=0).max() or 1.0
    _, joined = np.unique(np.round(vertices / scale, 6), axis=0, return_inverse=True)
    joined = joined.ravel()
    edges = joined[np.concatenate([triangles[:, :2], triangles[:, 1:]])]
    count = int(joined.max()) + 1 if len(joined) else 0
    graph = coo_matrix((np.ones(len(edges)), edges.T), (count, count))
    return connected_components(graph, directed=False)[1][joined]


def sphere(points: Float[np.ndarray, "n 3"]) -> tuple[np.ndarray, float, float]:
    """Centre and radius of the sphere nearest to points, and how far 9 of 10 are off it."""
    origin = points.mean(0)
    local = (points - origin).astype(np.float64)
    rows = np.column_stack([2 * local, np.ones(len(local))])
    solution = np.linalg.lstsq(rows, (local**2).sum(1), rcond=None)[0]
    radius = float(np.sqrt(max(solution[3] + (solution[:3] ** 2).sum(), 0.0)))
    off = np.abs(np.linalg.norm(local - solution[:3], axis=1) - radius)
    return (solution[:3] + origin).astype(np.float32), radius, float(np.quantile(off, 0.9))


def lid_middles(
    vertices: Float[np.ndarray, "V 3"], shapes: Float[np.ndarray, "52 V 3"]
) -> Float[np.ndarray, "2 3"] | None:
    """Where the left and the right lid shut, [2, 3]; None where one has no blink."""
    found = []
    for side in ("Left", "Right"):
        size = np.linalg.norm(shapes[INDEX[f"EyeBlink{side}"]], axis=1)
        if size.max() <= 0:
            return None
        weight = np.maximum(size - 0.5 * size.max(), 0)
        found.append((weight[:, None] * vertices).sum(0) / weight.sum())
    return np.array(found, np.float32)


def find(
    vertices: Float[np.ndarray, "V 3"],
    triangles: Int[np.ndarray, "T 3"],
    shapes: Float[np.ndarray, "52 V 3"],
) -> Bool[np.ndarray, "2 V"]:
    """The vertices of the left and the right eyeball, none where a rig has none that are round.

    A ball is a piece of the mesh near to a lid whose vertices are on a sphere, with the pieces
    within it: sclera, iris and cornea are often pieces of their own.
    """
    eyes = np.zeros((2, len(vertices)), bool)
    lids = lid_middles(vertices, shapes)
    if lids is None:
        return eyes
    apart = float(np.linalg.norm(lids[0] - lids[1]))
    piece = pieces(vertices, triangles)
    for i, (side, lid) in enumerate(zip(("Left", "Right"), lids, strict=True)):
        blink = np.linalg.norm(shapes[INDEX[f"EyeBlink{side}"]], axis=1)
        still = blink < 0.1 * blink.max()  # lashes and lids are round as well, but shut
        near = np.unique(piece[np.linalg.norm(vertices - lid, axis=1) < NEAR * apart])
        near = np.array([number for number in near if still[piece == number].all()])
        balls = []
        for number in near:
            points = vertices[piece == number]
            if len(points) < 12 or np.ptp(points, axis=0).max() > 2.2 * RADII[1] * apart:
                continue
            centre, radius, off = sphere(points)
            aside = np.linalg.norm((centre - lid)[:2])
            fits = RADII[0] * apart < radius < RADII[1] * apart and off < ROUND * radius
            fits &= bool((np.ptp(points, axis=0) > [radius, radius, 0.2 * radius]).all())
            if fits and aside < NEAR * apart:
                balls.append((off / radius, radius, centre))
        if not balls:
            continue
        _, radius, centre = min(balls, key=lambda ball: ball[0])
        for number in near:
            points = vertices[piece == number]
            if np.linalg.norm(points - centre, axis=1).max() < WITHIN * radius:
                eyes[i, piece == number] = True
    return eyes


def centre_of(ball: Float[np.ndarray, "n 3"]) -> np.ndarray:
    """About what an eyeball turns: the centre of its sphere, or one assumed for a flat eye."""
    centre, radius, off = sphere(ball)
    size = np.ptp(ball, axis=0)
    half = 0.5 * float(size[:2].max())
    if off < ROUND * radius and radius < 2.5 * half and centre[2] < ball[:, 2].max():
        return centre
    return (ball.mean(0) - [0, 0, 1.2 * half]).astype(np.float32)
