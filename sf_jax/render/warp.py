"""Smooth warps of space that change whose head it is: any rig becomes other people and characters.

A warp displaces posed vertices, before the head turns. It is a map of space that keeps points which
touch together: lids close over eyeballs, lips meet, teeth stay in the mouth, and an iris moves over
a warped eyeball. So expressions keep their meaning however far a head is from its rig's own.
"""

from dataclasses import dataclass
from enum import IntEnum

import numba
import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator

ROWS = 192  # of the profile's table
POWER = 6  # (1 - x/6)⁶ is nearly exp(-x)


class Column(IntEnum):
    """Columns of a profile: what becomes of a point by its height."""

    HEIGHT = 0
    WIDTH = 1
    DEPTH = 2
    FORWARD = 3


@dataclass(frozen=True)
class Warp:
    """A smooth map of space.

    Attributes:
      stage: int32 [K], increasing; changes of one stage are added up, stages follow each other.
      centre: float32 [K, 3], of local changes; radius: float32 [K, 3], their reach, cm.
      matrix: float32 [K, 3, 3], shift: float32 [K, 3]: a point p moves by
        w (matrix (p - centre) + shift), where w = (1 - |(p - centre) / radius|² / 12)⁶, and nothing
        where that is below zero: nearly a Gaussian of deviation `radius`, and cheaper.
      lowest, step: heights of the rows of the profile, cm.
      profile: float32 [ROWS, 4], by height: the new height, a factor of the width, a factor of the
        depth, and cm by which the front of the face comes forward.
      middle: depth about which depths are scaled, cm; front: that of the front of the face.
      iris: how much larger the irises are.
    """

    stage: np.ndarray
    centre: np.ndarray
    radius: np.ndarray
    matrix: np.ndarray
    shift: np.ndarray
    lowest: float
    step: float
    profile: np.ndarray
    middle: float
    front: float
    iris: float = 1.0

    def __call__(self, vertices: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "V 3"]:
        """The warped points, float32."""
        rows = np.ascontiguousarray(vertices.T, np.float32)
        inverse = (1 / (np.sqrt(2 * POWER) * self.radius)).astype(np.float32)
        _local(rows, self.stage, self.centre, inverse, self.matrix, self.shift)
        _by_height(rows, self.profile, self.lowest, self.step, self.middle, self.front)
        return np.ascontiguousarray(rows.T)

    def scale_iris(
        self, ball: Float[np.ndarray, "n 3"], centre: Float[np.ndarray, "3"]
    ) -> Float[np.ndarray, "n 3"]:
        """The vertices of an eyeball that looks straight ahead, slid so that its iris is larger."""
        away = ball - centre
        across = np.hypot(away[:, 0], away[:, 1])
        angle = np.arctan2(across, away[:, 2])
        wider = np.pi * (1 - (1 - angle / np.pi) ** self.iris)
        length = np.hypot(across, away[:, 2])
        outward = length * np.sin(wider) / np.maximum(across, 1e-6)
        slid = np.column_stack([away[:, :2] * outward[:, None], length * np.cos(wider)])
        return (centre + slid).astype(np.float32)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _local(rows, stage, centre, inverse, matrix, shift):  # type: ignore[no-untyped-def]
    x, y, z = rows[0], rows[1], rows[2]
    moved = np.zeros_like(rows)
    mx, my, mz = moved[0], moved[1], moved[2]
    none, one = np.float32(0), np.float32(1)
    for k in range(stage.shape[0]):
        cx, cy, cz = centre[k, 0], centre[k, 1], centre[k, 2]
        ix, iy, iz = inverse[k, 0], inverse[k, 1], inverse[k, 2]
        m00, m01, m02, sx = matrix[k, 0, 0], matrix[k, 0, 1], matrix[k, 0, 2], shift[k, 0]
        m10, m11, m12, sy = matrix[k, 1, 0], matrix[k, 1, 1], matrix[k, 1, 2], shift[k, 1]
        m20, m21, m22, sz = matrix[k, 2, 0], matrix[k, 2, 1], matrix[k, 2, 2], shift[k, 2]
        for v in range(x.shape[0]):  # one arithmetic for all, without a branch: it is vectorised
            ax, ay, az = x[v] - cx, y[v] - cy, z[v] - cz
            bx, by, bz = ax * ix, ay * iy, az * iz
            w = max(one - (bx * bx + by * by + bz * bz), none)
            w = w * w * w
            w = w * w
            mx[v] += w * (m00 * ax + m01 * ay + m02 * az + sx)
            my[v] += w * (m10 * ax + m11 * ay + m12 * az + sy)
            mz[v] += w * (m20 * ax + m21 * ay + m22 * az + sz)
        if k + 1 == stage.shape[0] or stage[k + 1] != stage[k]:
            rows += moved
            moved[:] = none


@numba.njit(cache=True, nogil=True, fastmath=True)
def _by_height(rows, profile, lowest, step, middle, front):  # type: ignore[no-untyped-def]
    last = profile.shape[0] - 2
    for v in range(rows.shape[1]):
        at = (rows[1, v] - lowest) / step
        row = min(max(int(np.floor(at)), 0), last)
        t = at - row
        inside = min(max(t, 0.0), 1.0)
        ahead = min(max((rows[2, v] - middle) / (front - middle), 0.0), 1.0)
        ahead = ahead * ahead * (3 - 2 * ahead)
        low, high = profile[row], profile[row + 1]
        rows[0, v] *= low[1] + inside * (high[1] - low[1])
        rows[1, v] = low[0] + t * (high[0] - low[0])
        forward = ahead * (low[3] + inside * (high[3] - low[3]))
        deep = low[2] + inside * (high[2] - low[2])
        rows[2, v] = middle + deep * (rows[2, v] - middle) + forward


def profile_of(knots: np.ndarray, columns: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The table of a profile given at some heights: its lowest height, its step and its rows.

    Args:
      knots: increasing heights [n], cm; columns: [n, 4], see `Warp.profile`. Heights must increase.
    """
    heights = np.linspace(knots[0], knots[-1], ROWS)
    table = PchipInterpolator(knots, columns)(heights).astype(np.float32)
    return float(heights[0]), float(heights[1] - heights[0]), table
