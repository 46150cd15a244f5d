"""Cutting a square out of an image."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Box = tuple[int, int, int, int]  # row, column, height, width in pixels

# Training images are framed on the landmarks, brows to chin, which fill 0.68 to 0.92 of a side.
# The finder's boxes on 63 rendered faces are 1.01 landmark heights high (median) and their middle
# is 0.21 box heights above the landmarks'; those on photographs are alike.
MARGIN = 1.27  # square side over the finder's box
LOWER = 0.21  # how far the square's centre is below the box's, in box heights


def crop_square(image: np.ndarray, box: Box) -> np.ndarray:
    """The square around a face box that holds the head; outside the image the edge is repeated.

    uint8 [H, W, 3] → uint8 [S, S, 3] with S about `MARGIN` times the box.
    """
    row, column, height, width = box
    half = max(1, round(max(height, width) * MARGIN / 2))
    middle = row + height // 2 + round(LOWER * height), column + width // 2
    # Positions beyond the image are those of its nearest edge.
    rows, columns = (
        np.clip(np.arange(centre - half, centre + half), 0, length - 1)
        for centre, length in zip(middle, image.shape[:2], strict=True)
    )
    return image[rows[:, None], columns]


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


def cut_square(
    image: UInt8[np.ndarray, "H W 3"], x: float, y: float, side: float, roll: float, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """A square cut out of an image, turned upright and resized; see `to_square`.

    Where the image ends its edge is repeated. What is shrunk is averaged first, so that fine detail
    does not alias.
    """
    shrink = side / size
    if shrink > 1.5:  # of bilinear samples, some pixels would be in none
        whole = int(2 ** np.floor(np.log2(shrink)))
        height, width = (max(1, length // whole) for length in image.shape[:2])
        across, down = image.shape[1] / width, image.shape[0] / height
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        # The two factors differ by less than a pixel over the image.
        x, y, side = x / across, y / down, side / np.sqrt(across * down)
    matrix = to_square(x, y, side, roll, size)
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5  # OpenCV counts from centres of pixels
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
