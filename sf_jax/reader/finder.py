"""Finding the face in a picture."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from sf_jax.face.landmarks import Square
from sf_jax.media.crop import LOWER, Box, crop_square

SEARCH_SIDE = 320  # pictures are searched at this size
LEAST_SIDE = 24  # of a face, in pixels there; the size the cascade was trained at
FOLLOW = 0.3  # share of the way to a newly found box that is gone in one frame


@dataclass(frozen=True)
class Found:
    """A face in an image.

    Attributes:
      box: in pixels, about the bounding square of its landmarks (`landmarks.bounding_square`); its
        roll is the head's where that is known, else 0.
      score: from 0 to 1, the estimated probability that it is a face.
      landmarks: of `face.landmarks`, in pixels, NaN where not known; None if none are.
    """

    box: Square
    score: float
    landmarks: Float[np.ndarray, "70 2"] | None = None


def find(image: UInt8[np.ndarray, "H W 3"]) -> list[Found]:
    """The faces in an image, the highest score first; an empty list if there are none."""
    box = face_box(image)
    if box is None:
        return []
    row, column, height, width = box
    side = float(max(height, width))
    centre = column + width / 2, row + height / 2 + LOWER * height
    return [Found(Square(*centre, side), 1.0)]


if TYPE_CHECKING:
    from skimage.feature import Cascade


@cache
def _cascade() -> "Cascade":
    from skimage import data  # slow to import, and needed for --crop alone
    from skimage.feature import Cascade

    return Cascade(data.lbp_frontal_face_cascade_filename())


def face_box(image: np.ndarray) -> Box | None:
    """The largest frontal face of uint8 [H, W, 3] as (row, column, height, width), or None.

    Uses the local-binary-pattern cascade that comes with scikit-image: brows to chin, no hair.
    """
    shrink = min(1.0, SEARCH_SIDE / max(image.shape[:2]))
    size = [max(1, round(side * shrink)) for side in image.shape[:2]]
    if min(size) < LEAST_SIDE:
        return None
    small = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    found = _cascade().detect_multi_scale(
        img=small,
        scale_factor=1.15,
        step_ratio=1,
        min_size=(LEAST_SIDE, LEAST_SIDE),
        max_size=(min(size), min(size)),
    )
    if not found:
        return None
    best = max(found, key=lambda box: box["width"] * box["height"])
    row, column, height, width = (best[name] / shrink for name in ("r", "c", "height", "width"))
    return round(row), round(column), round(height), round(width)


class Cropper:
    """Crops the frames of a video steadily: searches now and then, moves the box smoothly.

    Between searches, and where a later search finds nothing, the last box is kept: a head turned
    far aside is still there. Until the first face is found every frame is searched.

    Args:
      every: frames between searches; 1 searches every picture anew, keeping nothing.
    """

    def __init__(self, every: int = 1):
        self.every, self._since = every, 0
        self._box: np.ndarray | None = None
        self._target: np.ndarray | None = None

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, bool]:
        """The cropped picture and True, or the whole picture and False where no face was found."""
        if self.every == 1:
            self._box = self._target = None
        if self._target is None or self._since >= self.every:
            self._since = 0
            box = face_box(image)
            self._target = self._target if box is None else np.array(box, float)
        self._since += 1
        if self._target is None:
            return image, False
        start = self._target if self._box is None else self._box
        self._box = start + FOLLOW * (self._target - start)
        row, column, height, width = (round(x) for x in self._box)
        return crop_square(image, (row, column, height, width)), True
