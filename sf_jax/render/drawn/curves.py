"""Curves as points: splines, ribbons of varying width, ellipses. Any plane, y down."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "N 2"]


@lru_cache(maxsize=64)
def _basis(per: int) -> np.ndarray:
    """Weights [per, 4] of the Catmull-Rom spline's four control points along one piece."""
    t = np.arange(per)[:, None] / per
    return np.concatenate(
        [
            -0.5 * t + t**2 - 0.5 * t**3,
            1 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        ],
        1,
    )


@lru_cache(maxsize=256)
def _windows(count: int, closed: bool) -> np.ndarray:
    pieces = count if closed else count - 1
    index = np.arange(pieces)[:, None] + np.arange(-1, 3)
    return index % count if closed else index + 1  # one point is added at either end


def spline(points: np.ndarray | Sequence, closed: bool = False, per: int = 6) -> Points:
    """A smooth curve through all points (Catmull-Rom), `per` points a piece."""
    p = np.asarray(points, np.float64)
    if len(p) < 3:
        return p
    if not closed:
        p = np.concatenate([[2 * p[0] - p[1]], p, [2 * p[-1] - p[-2]]])
    count = len(p) if closed else len(p) - 2
    pieces = _basis(per) @ p[_windows(count, closed)]
    curve = pieces.reshape(-1, p.shape[1])
    return curve if closed else np.concatenate([curve, p[-2:-1]])


def normals(points: Points) -> Points:
    """Unit normals of an open curve, to the right of its direction where y points down."""
    step = np.empty_like(points)
    step[1:-1] = points[2:] - points[:-2]
    step[0], step[-1] = points[1] - points[0], points[-1] - points[-2]
    length = np.sqrt((step**2).sum(1, keepdims=True)) + 1e-9
    return np.stack([-step[:, 1], step[:, 0]], 1) / length


def ribbon(points: Points, widths: np.ndarray) -> Points:
    """The outline of a stroke along an open curve whose full width varies, `widths` [N]."""
    offset = normals(points) * (np.asarray(widths)[:, None] / 2)
    return np.concatenate([points + offset, (points - offset)[::-1]])


@lru_cache(maxsize=64)
def taper(count: int, start: float, end: float) -> np.ndarray:
    """Widths [count] of a pen stroke: full in the middle, `start` and `end` of it at the ends."""
    t = np.linspace(0, 1, count)
    rise = start + (1 - start) * np.sin(np.pi / 2 * np.minimum(1, 2 * t))
    fall = end + (1 - end) * np.sin(np.pi / 2 * np.minimum(1, 2 - 2 * t))
    return np.minimum(rise, fall)


def shifted(points: Points, x: float, y: float) -> Points:
    """The points moved by (x, y)."""
    return points + np.array([x, y])


@lru_cache(maxsize=64)
def _circle(count: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0, count: int = 24) -> Points:
    """A closed ellipse, turned clockwise by `turn` radians."""
    p = _circle(count) * (rx, ry)
    if turn:
        cos, sin = np.cos(turn), np.sin(turn)
        p = p @ np.array([[cos, sin], [-sin, cos]])
    return shifted(p, x, y)


def arc(
    x: float, y: float, rx: float, ry: float, start: float, end: float, count: int = 10
) -> Points:
    """Part of an ellipse between two angles in radians, clockwise from +x as y points down."""
    angle = np.linspace(start, end, count)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def smoothstep(x: np.ndarray | float, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((np.asarray(x) - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
