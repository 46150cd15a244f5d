"""The skin of the built-in head: a modelled solid, and a mesh on it with eye and mouth openings.

The solid is a smooth union of ellipsoids and capsules given by a signed distance (cm). The mesh is
made for the left half and mirrored, so that the head is symmetric to the last bit: rings of
vertices follow the lid margins and the lips, and the rest is filled by points on the sphere of
directions, triangulated there by Delaunay.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import Delaunay, cKDTree

CENTRE = np.array([0.0, 0.6, 0.0])  # rays from here meet the skin once
EYE = np.array([3.15, 2.4, 7.05])  # centre of the left eyeball
EYE_RADIUS = 1.32
EYE_HALF_WIDTH = 1.36
LID_RADIUS = 1.5  # leaves room for the straight path of a closing lid
MOUTH_Y = -4.5
MOUTH_HALF_WIDTH = 2.45
LID_STEPS = np.array([0.0, 0.12, 0.3, 0.55, 0.8, 1.0])  # margin to the rim of the eye socket
LIP_STEPS = np.array([0.0, 0.3, 0.65, 1.0, 1.35, 1.8, 2.3])  # 0 the slit, 1 the lip's outer border


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, a cubic between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _ellipsoid(points: np.ndarray, centre: tuple, radii: tuple) -> np.ndarray:
    scaled = (points - centre) / radii
    k0 = np.linalg.norm(scaled, axis=-1)
    k1 = np.linalg.norm(scaled / radii, axis=-1)
    return k0 * (k0 - 1.0) / np.maximum(k1, 1e-9)


def _capsule(points: np.ndarray, start: tuple, end: tuple, radii: tuple) -> np.ndarray:
    axis = np.subtract(end, start)
    t = np.clip((points - start) @ axis / (axis @ axis), 0.0, 1.0)
    distance = np.linalg.norm(points - start - t[..., None] * axis, axis=-1)
    return distance - (radii[0] + t * (radii[1] - radii[0]))


def _union(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    h = np.clip(0.5 + 0.5 * (b - a) / blend, 0.0, 1.0)
    return b + (a - b) * h - blend * h * (1.0 - h)


def _carve(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    return -_union(-a, b, blend)


def solid(points: np.ndarray) -> np.ndarray:
    """Signed distance of points [..., 3] to the skin, cm, negative inside; the left half counts."""
    p = np.concatenate([np.abs(points[..., :1]), points[..., 1:]], axis=-1)
    d = _ellipsoid(p, (0, 4.4, -0.6), (7.3, 8.4, 9.2))  # cranium
    d = _union(d, _ellipsoid(p, (0, -1.2, 2.2), (6.5, 7.0, 6.9)), 1.2)  # face
    d = _union(d, _ellipsoid(p, (0, -4.6, 2.6), (5.5, 3.9, 6.0)), 1.2)  # jaw
    d = _union(d, _ellipsoid(p, (0, -7.1, 6.8), (2.0, 1.6, 1.8)), 1.9)  # chin
    d = _union(d, _ellipsoid(p, (3.9, 0.2, 5.3), (2.2, 1.5, 2.1)), 1.7)  # cheekbone
    d = _union(d, _ellipsoid(p, (0, -4.3, 5.5), (3.5, 2.7, 3.8)), 1.0)  # the teeth's bulge
    d = _union(d, _ellipsoid(p, (2.3, 4.3, 7.0), (2.5, 0.8, 1.3)), 1.5)  # brow ridge
    d = _carve(d, _ellipsoid(p, (3.15, 2.45, 9.9), (1.8, 1.2, 1.9)), 0.9)  # eye socket
    d = _union(d, _capsule(p, (0, 3.2, 8.3), (0, -0.6, 10.5), (0.6, 0.8)), 1.2)  # nose
    d = _union(d, _ellipsoid(p, (0, -0.9, 10.5), (0.95, 0.85, 1.0)), 0.5)  # tip
    d = _union(d, _ellipsoid(p, (1.0, -1.35, 9.4), (0.75, 0.62, 0.95)), 0.4)  # wing
    return _union(d, np.linalg.norm(p - EYE, axis=-1) - LID_RADIUS, 0.3)  # lids over the eyeball


def _outermost(origin: np.ndarray, direction: np.ndarray, far: float) -> np.ndarray:
    """Where rays leave the solid for the last time: points [N, 3] on the skin."""
    steps = np.linspace(far, 0.5, 60)
    inside = np.stack([solid(origin + t * direction) < 0 for t in steps])
    first = np.maximum(inside.argmax(axis=0), 1)
    low, high = steps[first], steps[first - 1]
    for _ in range(24):
        middle = 0.5 * (low + high)
        within = solid(origin + middle[:, None] * direction) < 0
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    return origin + low[:, None] * direction


def from_front(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Skin points [N, 3] seen from straight ahead at x, y (cm)."""
    origin = np.stack([x, y, np.zeros_like(x)], axis=-1)
    return _outermost(origin, np.broadcast_to([0.0, 0.0, 1.0], origin.shape), 14.0)


def _to_chart(points: np.ndarray) -> np.ndarray:
    """Directions from CENTRE as angle from straight ahead times heading, [N, 2] radians."""
    ray = points - CENTRE
    across = np.hypot(ray[:, 0], ray[:, 1])
    angle = np.arctan2(across, ray[:, 2])
    return ray[:, :2] * (angle / np.maximum(across, 1e-9))[:, None]


def _from_chart(chart: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(chart, axis=1)
    heading = chart / np.maximum(angle, 1e-9)[:, None]
    ray = np.concatenate([heading * np.sin(angle)[:, None], np.cos(angle)[:, None]], axis=1)
    return _outermost(CENTRE, ray, 18.0)


def lid_line(x: np.ndarray, upper: bool) -> np.ndarray:
    """Height of the left eye's open lid margin at x (cm)."""
    t = np.clip((x - EYE[0]) / EYE_HALF_WIDTH, -1.0, 1.0)
    tilt = EYE[1] - 0.02 + 0.1 * t
    if upper:
        return tilt + 0.53 * (1.0 - np.abs(t + 0.08 * (1 - t * t)) ** 2.3) ** 0.85
    return tilt - 0.40 * (1.0 - np.abs(t - 0.12 * (1 - t * t)) ** 2.2) ** 0.9


def lip_heights(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the lips reach above and below the mouth line at |x| (cm)."""
    t = np.clip(np.abs(x) / (MOUTH_HALF_WIDTH * 1.02), 0.0, 1.0)
    bow = 0.14 * np.exp(-((x / 0.38) ** 2))  # the dip under the nose
    return 0.72 * (1.0 - t**1.7) - bow, 0.92 * (1.0 - t**2.6) ** 0.9


def mouth_line(x: np.ndarray) -> np.ndarray:
    """Height of the closed mouth's slit at x (cm): a slight wave, corners a little up."""
    t = np.abs(x) / MOUTH_HALF_WIDTH
    dip, swell = np.exp(-((t / 0.25) ** 2)), np.exp(-(((t - 0.45) / 0.25) ** 2))
    return MOUTH_Y + 0.1 * t**3 - 0.08 * dip + 0.05 * swell


@dataclass(frozen=True)
class Skin:
    """The skin mesh.

    Attributes:
      points: float64 [V, 3].
      triangles: int [T, 3], counter-clockwise from outside.
      mirror: int [V].
      lip_side: [V] 1 from the upper lip's slit row up, -1 below, 0 at corners and elsewhere.
      lip_step: [V] 0 at the slit, 1 at the lips' border, rising outward; 9 away from the mouth.
      lid_side: [V] 1 upper lid, -1 lower, 0 elsewhere (either eye).
      lid_step: [V] 0 at the margin, 1 at the socket's rim; 9 elsewhere.
      slit: the mouth slit's vertices in a loop: from the middle of the upper lip by the left corner
        to the middle of the lower lip, and on by the right corner.
      margins: the lid margins' loops (left, right), from the inner corner over the upper lid.
    """

    points: np.ndarray
    triangles: np.ndarray
    mirror: np.ndarray
    lip_side: np.ndarray
    lip_step: np.ndarray
    lid_side: np.ndarray
    lid_step: np.ndarray
    slit: np.ndarray
    margins: tuple[np.ndarray, np.ndarray]


def _eye_rings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y [R*N] of the rings about the left eye from its inner corner, with side and step."""
    count = 28
    turn = np.arange(count) / count * 2 * np.pi
    x0 = EYE[0] - EYE_HALF_WIDTH * np.cos(turn)
    side = np.where(np.sin(turn) >= -1e-9, 1.0, -1.0)
    y0 = np.where(side > 0, lid_line(x0, True), lid_line(x0, False))
    x1 = EYE[0] + 0.1 - 2.3 * np.cos(turn)
    y1 = EYE[1] + np.where(side > 0, 1.75, 1.6) * np.sin(turn)
    s = LID_STEPS[:, None]
    xy = np.stack([x0 + s * (x1 - x0), y0 + s * (y1 - y0)], axis=-1).reshape(-1, 2)
    return xy, np.tile(side, len(LID_STEPS)), np.repeat(LID_STEPS, count)


def _mouth_rings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The left half of the rings about the mouth, from above the middle to below it."""
    turn = np.linspace(np.pi / 2, -np.pi / 2, 27)
    x0 = MOUTH_HALF_WIDTH * np.cos(turn)
    x0[[0, -1]] = 0.0
    side = np.sign(np.where(np.abs(np.sin(turn)) < 1e-9, 0.0, np.sin(turn)))
    above, below = lip_heights(x0)
    border = np.where(side > 0, above, -below) * (side != 0)
    outer_x, outer_y = 3.9 * np.cos(turn), np.where(side > 0, 2.05, 2.3) * np.sin(turn)
    outer_x[[0, -1]] = 0.0
    xy = []
    for step in LIP_STEPS:
        on_lip, beyond = min(step, 1.0), max(step - 1.0, 0.0) / 1.3
        x = x0 * (1 + 0.04 * on_lip)
        y = mouth_line(x0) + border * on_lip
        xy.append(np.stack([x + beyond * (outer_x - x), y + beyond * (MOUTH_Y + outer_y - y)], -1))
    return np.concatenate(xy), np.tile(side, len(LIP_STEPS)), np.repeat(LIP_STEPS, len(turn))


def _lip_relief(points: np.ndarray, step: np.ndarray, side: np.ndarray) -> np.ndarray:
    """How far the lips stand out (cm): two rolls meeting in a groove at the slit."""
    fade = np.clip(1.0 - (np.abs(points[:, 0]) / (MOUTH_HALF_WIDTH * 1.05)) ** 2.5, 0.0, 1.0)
    height = 0.34 + 0.1 * np.clip(step * 3, 0, 1) * (side < 0)  # alike where the lips meet
    roll = height * np.sin(np.pi * np.clip(step * 0.85 + 0.1, 0, 1)) ** 0.8
    under = -0.3 * np.exp(-(((step - 1.5) / 0.35) ** 2)) * (side < 0)  # hollow above the chin
    return fade * (roll * (step < 1.2) + under) - 0.12 * np.exp(-((step / 0.12) ** 2))


def _in_openings(points: np.ndarray) -> np.ndarray:
    x, y, front = points[:, 0], points[:, 1], points[:, 2] > 4
    eye = ((x - EYE[0] - 0.1) / 2.4) ** 2 + ((y - EYE[1]) / 1.75) ** 2 < 1.05
    mouth = (x / 4.0) ** 2 + ((y - MOUTH_Y + 0.1) / 2.25) ** 2 < 1.0
    return front & (eye | mouth)


def _filler(taken: np.ndarray) -> np.ndarray:
    """Chart points [N, 2] of the left half filling what the rings leave, fine near the nose."""

    def lattice(spacing: float, reach: float) -> np.ndarray:
        u, v = np.meshgrid(np.arange(0, reach, spacing), np.arange(-reach, reach, spacing * 0.87))
        u = u + np.where(np.arange(len(v)) % 2, spacing / 2, 0.0)[:, None]
        grid = np.stack([u, v], axis=-1).reshape(-1, 2)
        return grid[np.linalg.norm(grid, axis=1) < reach]

    def near_nose(chart: np.ndarray) -> np.ndarray:
        return (chart[:, 0] < 0.25) & (chart[:, 1] > -0.36) & (chart[:, 1] < 0.3)

    fine, middle, coarse = lattice(0.034, 0.6), lattice(0.065, 1.2), lattice(0.14, 2.95)
    edge = np.linspace(-np.pi / 2, np.pi / 2, 41)[:, None]
    rim = np.pi * np.concatenate([np.cos(edge), np.sin(edge)], axis=1) * (1 - 1e-6)
    rim[[0, -1], 0] = 0.0
    layers = ((rim, 0.0), (fine[near_nose(fine)], 0.027), (middle, 0.05), (coarse, 0.105))
    kept = taken
    added = []
    for chart, clearance in layers:
        new = chart[~_in_openings(_from_chart(chart))]
        new = new[cKDTree(kept).query(new)[0] > clearance]
        kept = np.concatenate([kept, new])
        added.append(new)
    return np.concatenate(added)


def _half() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Left-half points [N, 3], triangles, and [N, 4] lip side and step, lid side and step."""
    eye_xy, lid_side, lid_step = _eye_rings()
    mouth_xy, lip_side, lip_step = _mouth_rings()
    eye, mouth = from_front(*eye_xy.T), from_front(*mouth_xy.T)
    on_sphere = LID_RADIUS**2 - ((eye[:, :2] - EYE[:2]) ** 2).sum(axis=1)
    snug = EYE[2] + np.sqrt(np.maximum(on_sphere, 0.0))
    hold = (1 - smoothstep(0.0, 0.35, lid_step)) * (on_sphere > 0)
    eye[:, 2] += hold * (snug - eye[:, 2])
    ring_chart = np.concatenate([_to_chart(eye), _to_chart(mouth)])
    mouth[:, 2] += _lip_relief(mouth, lip_step, lip_side)
    chart = np.concatenate([ring_chart, _filler(ring_chart)])
    rings = len(eye) + len(mouth)
    points = np.concatenate([eye, mouth, _from_chart(chart[rings:])])
    tags = np.tile([0.0, 9.0, 0.0, 9.0], (len(points), 1))
    tags[: len(eye), 2:] = np.stack([lid_side, lid_step], axis=1)
    tags[len(eye) : rings, :2] = np.stack([lip_side, lip_step], axis=1)
    slit = tags[:, 1] == 0
    gap = 0.004 * np.sqrt(np.maximum(1 - (points[:, 0] / MOUTH_HALF_WIDTH) ** 2, 0.0))
    chart[:, 1] += np.where(slit, tags[:, 0] * gap, 0.0)  # a lens the triangulation can leave open
    triangles = Delaunay(chart).simplices
    opening = [(tags[:, 1] == 0)[triangles].all(axis=1), (tags[:, 3] == 0)[triangles].all(axis=1)]
    triangles = triangles[~opening[0] & ~opening[1]]
    a, b, c = (chart[triangles[:, i]] for i in range(3))
    turn = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    triangles = triangles[np.abs(turn) > 1e-7]
    flip = turn[np.abs(turn) > 1e-7] < 0
    triangles[flip] = triangles[flip][:, ::-1]
    return points, triangles, tags, chart


def _smoothed(points: np.ndarray, triangles: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Points [N, 3] moved half-way to their neighbours' mean, thrice, where `free` [N] is 1."""
    start, end = np.concatenate([triangles, triangles[:, [1, 2, 0]]]).T[:2]
    start, end = np.append(start, end), np.append(end, start)
    degree = np.bincount(start, minlength=len(points))[:, None]
    for _ in range(3):
        mean = np.zeros_like(points)
        np.add.at(mean, start, points[end])
        points = points + 0.5 * free[:, None] * (mean / degree - points)
    return points


def build_skin() -> Skin:
    """The skin of the neutral head, both halves."""
    points, triangles, tags, chart = _half()
    middle = np.abs(chart[:, 0]) < 1e-6
    points[middle, 0] = 0.0
    free = smoothstep(0.9, 2.0, tags[:, 1]) * smoothstep(0.4, 1.0, tags[:, 3])
    free = free * (np.linalg.norm(chart, axis=1) < 2.8)
    count = len(points)
    twin = np.where(middle, np.arange(count), count + np.cumsum(~middle) - 1)
    mirror = np.concatenate([twin, np.flatnonzero(~middle)])
    both = np.concatenate([points, points[~middle] * [-1, 1, 1]])
    tags = np.concatenate([tags, tags[~middle]])
    triangles = np.concatenate([triangles, twin[triangles][:, ::-1]])
    both = _smoothed(both, triangles, np.concatenate([free, free[~middle]]))
    eye_count = 28
    mouth_start = eye_count * len(LID_STEPS)
    left = np.arange(mouth_start, mouth_start + 27)
    slit = np.concatenate([left, twin[left[1:-1]][::-1]])
    margin = np.arange(eye_count)
    lip_side, lip_step, lid_side, lid_step = tags.T
    return Skin(
        both,
        triangles,
        mirror,
        lip_side,
        lip_step,
        lid_side,
        lid_step,
        slit=slit,
        margins=(margin, twin[margin]),
    )
