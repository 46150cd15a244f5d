"""Cutting a square out of an image."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Box = tuple[int, int, int, int]  # row, column, height, width in pixels

# The boxes of scikit-image's finder on 63 rendered faces are 1.01 landmark heights high (median);
# their middle is so much above the landmarks'. Those on photographs are alike.
LOWER = 0.21  # box heights


def to_square(x: float, y: float, side: float, roll: float, size: int) -> Float[np.ndarray, "2 3"]:
    """The affine map from an image's pixels to those of a turned square cut out of it.

    Args:
      x, y, side: of the square, in pixels of the image; positions count from the upper left corner
        of the first pixel.
      roll: radians by which the square is turned, counter-clockwise as the image is seen.
      size: side of the result in pixels.
    """
    scale = size / side
    cos, sin = scale * np.cos(roll), scale * np.sin(roll)
    turn = np.array([[cos, -sin], [sin, cos]])
    shift = size / 2 - turn @ np.array([x, y])
    return np.column_stack([turn, shift])


def between_centres(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """An affine map of positions that count from a pixel's corner, as OpenCV has it: from centres.

    To be given to `cv2.warpAffine`.
    """
    out = np.array(matrix, float)
    out[:, 2] += out[:, :2].sum(1) / 2 - 0.5
    return out


def cut_square(
    image: UInt8[np.ndarray, "H W 3"], x: float, y: float, side: float, roll: float, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """A square cut out of an image, turned upright and resized; see `to_square`.

    Where the image ends its edge is repeated. What is shrunk is averaged first, so that fine detail
    does not alias.
    """
    shrink = side / size
    if shrink > 1.5:  # of bilinear samples, some pixels would be in none
        whole = int(2 ** np.round(np.log2(shrink)))
        height, width = (max(1, length // whole) for length in image.shape[:2])
        across, down = image.shape[1] / width, image.shape[0] / height
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        # The two factors differ by less than a pixel over the image.
        x, y, side = x / across, y / down, side / np.sqrt(across * down)
    matrix = between_centres(to_square(x, y, side, roll, size))
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
