"""The 70 landmarks of a face as one table, and the square that frames them.

The first 68 are the iBUG 300-W points, numbered from 0: jaw line, brows, nose, eyelids, lips. Two
pupils follow. Within a group the numbers run from the subject's right, which is the left of an
image of an upright face. All rigs, drawings and annotated photographs share this table; a landmark
that is not known is NaN.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

COUNT = 70
JAW, BROWS, NOSE, EYELIDS = slice(0, 17), slice(17, 27), slice(27, 36), slice(36, 48)
LIPS, PUPILS = slice(48, 68), slice(68, 70)
CHIN, NOSE_TIP, MOUTH_RIGHT, MOUTH_LEFT = 8, 30, 48, 54
RIGHT_EYE, LEFT_EYE = slice(36, 42), slice(42, 48)  # outer corner first, and inner corner first

# The landmark opposite each one, iBUG's numbering read from the other side.
_JAW, _BROWS, _NOSE = [*range(16, -1, -1)], [*range(26, 16, -1)], [27, 28, 29, 30]
_NOSE += [35, 34, 33, 32, 31]
_EYELIDS = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
_LIPS = [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
MIRROR = np.array([*_JAW, *_BROWS, *_NOSE, *_EYELIDS, *_LIPS, 69, 68])

FRAMED = 0.8  # brows to chin over the side of the square that a face is read in


@dataclass(frozen=True)
class Square:
    """A square in an image, which may be turned and may reach beyond the image.

    Attributes:
      x, y: its centre in pixels, x to the right and y down.
      side: in pixels.
      roll: radians by which the square's upright is turned, with the sign of HeadRoll: positive is
        counter-clockwise as the image is seen, towards the subject's right shoulder.
    """

    x: float
    y: float
    side: float
    roll: float = 0.0

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Four points in pixels: the upper left, upper right, lower right and lower left corner of
        what is cut out, that is, of the square once it is turned upright."""
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        return [
            (self.x + self.side * (cos * a + sin * b), self.y + self.side * (cos * b - sin * a))
            for a, b in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
        ]


def overlap(one: Square, other: Square) -> float:
    """Intersection over union of two squares, taken as upright."""
    reach = (one.side + other.side) / 2
    wide = min(reach - abs(one.x - other.x), one.side, other.side)
    tall = min(reach - abs(one.y - other.y), one.side, other.side)
    shared = max(wide, 0.0) * max(tall, 0.0)
    return shared / (one.side**2 + other.side**2 - shared)


def bounding_square(landmarks: Float[np.ndarray, "70 2"]) -> Square:
    """The smallest upright square around all known landmarks, in the unit of the landmarks.

    Raises:
      ValueError: no landmark is known.
    """
    known = landmarks[np.isfinite(landmarks).all(1)]
    if not len(known):
        raise ValueError("no landmark is known")
    low, high = known.min(0), known.max(0)
    x, y = ((low + high) / 2).tolist()
    return Square(x, y, float((high - low).max()))


def framing_square(
    landmarks: Float[np.ndarray, "70 2"], share: float = FRAMED, turned: bool = True
) -> Square:
    """The square in which a face is read: centred on its landmarks, turned as the head is.

    The height of the landmarks, brows to chin, is `share` of the side.

    Args:
      landmarks: in pixels; NaN where not known. The eyes must be known for a turned square.
      turned: whether the square is turned so that the line of the eyes is level in it.

    Raises:
      ValueError: no landmark is known.
    """
    roll = _roll(landmarks) if turned else 0.0
    known = landmarks[np.isfinite(landmarks).all(1)]
    if not len(known):
        raise ValueError("no landmark is known")
    cos, sin = np.cos(roll), np.sin(roll)
    to_square = np.array([[cos, -sin], [sin, cos]])  # image axes, y down → axes of the square
    inside = known @ to_square.T
    low, high = inside.min(0), inside.max(0)
    x, y = to_square.T @ ((low + high) / 2)
    return Square(float(x), float(y), float((high[1] - low[1]) / share), roll)


def _roll(landmarks: Float[np.ndarray, "70 2"]) -> float:
    """The angle of the line through the eyes' centres, 0 where an eye is not known."""
    right, left = (landmarks[eye].mean(0) for eye in (RIGHT_EYE, LEFT_EYE))
    across = left - right
    if not np.isfinite(across).all() or not across.any():
        return 0.0
    return float(np.arctan2(-across[1], across[0]))
