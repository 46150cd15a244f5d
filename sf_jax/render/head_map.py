"""Where things sit on a head of any rig: landmarks at rest, and how far the head reaches."""

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np

from sf_jax.face import landmarks as marks

TURNS, HEIGHTS = 48, 26  # azimuths; elevations from LOWEST to the crown
LOWEST = np.deg2rad(-55.0)
NEEDED = [1, 3, 8, 13, 15, 19, 24, 27, 28, 29, 30, 33, *range(36, 48), 48, 51, 54, 57]
EYE_DISTANCE = 6.3  # cm between the pupils of an adult, the unit of what is worn


@numba.njit(cache=True, nogil=True)
def _reach(points, turns, heights, lowest, out):  # type: ignore[no-untyped-def]
    """Largest distance of points [n, 3] from the origin, by direction, in `out`; 0 for none."""
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        across = np.sqrt(x * x + z * z)
        row = int((np.arctan2(y, across) - lowest) / (np.pi / 2 - lowest) * (heights - 1) + 0.5)
        if row < 0:
            continue
        column = int((np.arctan2(x, z) / (2 * np.pi) + 1) * turns + 0.5) % turns
        size = np.sqrt(across * across + y * y)
        out[row, column] = max(out[row, column], size)


@numba.njit(cache=True, nogil=True)
def _filled(reach):  # type: ignore[no-untyped-def]
    """Directions without points take their neighbours' mean, then all are smoothed a little."""
    rows, columns = reach.shape
    for _ in range(rows + columns):
        missing, before = 0, reach.copy()
        for y in range(rows):
            for x in range(columns):
                if before[y, x] > 0:
                    continue
                total, count = 0.0, 0
                for v in range(max(0, y - 1), min(rows, y + 2)):
                    for u in range(x - 1, x + 2):
                        near = before[v, u % columns]
                        total += near
                        count += near > 0
                missing += 1
                if count:
                    reach[y, x] = total / count
        if missing == 0:
            break
    smooth = np.empty_like(reach)
    for y in range(rows):
        for x in range(columns):
            total = 0.0
            for v in range(-1, 2):
                row = min(max(y + v, 0), rows - 1)
                for u in range(-1, 2):
                    total += (2 - abs(v)) * (2 - abs(u)) * reach[row, (x + u) % columns]
            smooth[y, x] = total / 16
    smooth[-1] = smooth[-1].mean()  # the crown is one direction
    return smooth


@numba.njit(cache=True, nogil=True)
def _on_surface(reach, centre, lowest, turn, height, above, out):  # type: ignore[no-untyped-def]
    """Points `out` [n, 3] on or above the head in the directions of `turn`, `height` [n]."""
    rows, columns = reach.shape
    for i in range(len(turn)):
        row = (min(max(height[i], lowest), np.pi / 2) - lowest) / (np.pi / 2 - lowest) * (rows - 1)
        column = (turn[i] / (2 * np.pi)) % 1.0 * columns
        r0, c0 = min(int(row), rows - 2), int(column) % columns
        fr, fc, c1 = row - r0, column - np.floor(column), (c0 + 1) % columns
        lower = reach[r0, c0] * (1 - fc) + reach[r0, c1] * fc
        upper = reach[r0 + 1, c0] * (1 - fc) + reach[r0 + 1, c1] * fc
        radius = lower + fr * (upper - lower) + above[i]
        across = np.cos(height[i]) * radius
        out[i, 0] = centre[0] + across * np.sin(turn[i])
        out[i, 1] = centre[1] + radius * np.sin(height[i])
        out[i, 2] = centre[2] + across * np.cos(turn[i])


@dataclass(frozen=True)
class HeadMap:
    """A head at rest: what accessories are fitted to.

    Attributes:
      landmarks: [70, 3], cm, NaN where not known; eyes, brows, nose, mouth and chin are.
      vertices: float32 [n, 3], of what turns with the head.
    """

    landmarks: np.ndarray
    vertices: np.ndarray

    @property
    def complete(self) -> bool:
        """Whether all landmarks that items are fitted to are known."""
        return bool(np.isfinite(self.landmarks[NEEDED]).all()) and len(self.vertices) > 0

    @cached_property
    def eyes(self) -> np.ndarray:
        """Centres [2, 3] of the right and the left eye's lids."""
        return np.stack([self.landmarks[marks.RIGHT_EYE], self.landmarks[marks.LEFT_EYE]]).mean(1)

    @cached_property
    def unit(self) -> float:
        """cm that what measures 1 cm on an adult's head measures on this one."""
        width = np.nanmax(self.landmarks[:, 0]) - np.nanmin(self.landmarks[:, 0])
        eyes = np.linalg.norm(self.eyes[1] - self.eyes[0])
        return float(0.5 * eyes / EYE_DISTANCE + 0.5 * width / 14.5)

    @cached_property
    def centre(self) -> np.ndarray:
        """[3], a point inside the head a little above the ears."""
        eyes = self.eyes.mean(0)
        above = self.vertices[:, 1] > eyes[1]
        low, high = self.vertices[above].min(0), self.vertices[above].max(0)
        return np.array([eyes[0], eyes[1] + 0.15 * (high[1] - eyes[1]), (low[2] + high[2]) / 2])

    @cached_property
    def crown(self) -> float:
        """Height of the top of the head."""
        return float(self.vertices[:, 1].max())

    @cached_property
    def reach(self) -> np.ndarray:
        """Distance [HEIGHTS, TURNS] from the centre to the head's surface, by direction."""
        out = np.zeros((HEIGHTS, TURNS), np.float64)
        _reach(self.vertices - self.centre, TURNS, HEIGHTS, LOWEST, out)
        return _filled(out)

    def surface(
        self, turn: np.ndarray, height: np.ndarray, above: np.ndarray | float = 0.0
    ) -> np.ndarray:
        """Points [..., 3] on the head, or `above` it (cm), in directions from its centre.

        Args:
          turn: radians from straight ahead to the subject's left; height: radians above level.
        """
        turn, height, above = np.broadcast_arrays(turn, height, above)
        t, h, a = (np.array(each, np.float64).ravel() for each in (turn, height, above))
        out = np.empty((turn.size, 3))
        _on_surface(self.reach, self.centre, LOWEST, t, h, a, out)
        return out.reshape(*turn.shape, 3)

    def mean(self, *numbers: int) -> np.ndarray:
        """The mean [3] of some landmarks."""
        return self.landmarks[list(numbers)].mean(0)
