"""Finding the face in a picture and cutting a square around it."""

from functools import cache

import cv2
import numpy as np
from skimage import data
from skimage.feature import Cascade

SEARCH_SIDE = 320  # pictures are searched at this size
MARGIN = 1.35  # square side over the finder's box: about the framing of the training pictures


@cache
def _cascade() -> Cascade:
    return Cascade(data.lbp_frontal_face_cascade_filename())


def face_box(image: np.ndarray) -> tuple[int, int, int, int] | None:
    """The largest frontal face of uint8 [H, W, 3] as (row, column, height, width), or None.

    Uses the local-binary-pattern cascade that comes with scikit-image.
    """
    shrink = min(1.0, SEARCH_SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    if min(small.shape[:2]) < 24:
        return None
    side = min(small.shape[:2])
    found = _cascade().detect_multi_scale(
        img=small, scale_factor=1.15, step_ratio=1, min_size=(24, 24), max_size=(side, side)
    )
    if not found:
        return None
    best = max(found, key=lambda box: box["width"] * box["height"])
    row, column, height, width = (best[name] / shrink for name in ("r", "c", "height", "width"))
    return round(row), round(column), round(height), round(width)


def crop_square(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The square around a face box, enlarged by MARGIN; outside the picture the edge is repeated."""
    row, column, height, width = box
    half = round(max(height, width) * MARGIN / 2)
    middle_row, middle_column = row + height // 2, column + width // 2
    padded = cv2.copyMakeBorder(image, half, half, half, half, cv2.BORDER_REPLICATE)
    return padded[middle_row : middle_row + 2 * half, middle_column : middle_column + 2 * half]


class Cropper:
    """Crops the frames of a video steadily: searches now and then, moves the box smoothly.

    Args:
      every: frames between searches; 1 searches every picture anew, without smoothing.
    """

    def __init__(self, every: int = 1):
        self.every, self._count = every, 0
        self._box: np.ndarray | None = None
        self._target: np.ndarray | None = None

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, bool]:
        """The cropped picture and True, or the whole picture and False where no face was found."""
        if self._count % self.every == 0:
            box = face_box(image)
            if box is not None:
                self._target = np.array(box, float)
            elif self.every == 1:
                self._target = None
        self._count += 1
        if self._target is None:
            return image, False
        if self._box is None or self.every == 1:
            self._box = self._target
        self._box = self._box + 0.3 * (self._target - self._box)
        row, column, height, width = (round(x) for x in self._box)
        return crop_square(image, (row, column, height, width)), True
