"""Cutting a square out of an image."""

import numpy as np

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
