"""Fitting a picture to the patch grid, as Qwen's processor does ("smart resize")."""

import math

import numpy as np
from PIL import Image


def smart_size(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Nearest size whose sides are multiples of `factor` and whose area lies within the bounds.

    Pictures longer than 200 : 1 are treated as 200 : 1.
    """
    height, width = max(height, width / 200), max(width, height / 200)
    rows = max(factor, round(height / factor) * factor)
    columns = max(factor, round(width / factor) * factor)
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    # One side at its least may leave the other too long for the area.
    rows = min(rows, max_pixels // columns // factor * factor) if columns == factor else rows
    columns = min(columns, max_pixels // rows // factor * factor) if rows == factor else columns
    return int(rows), int(columns)


def fit(image: np.ndarray, factor: int, min_pixels: int, max_pixels: int) -> np.ndarray:
    """Resizes uint8 [H, W, 3] to its smart size (bicubic, antialiased)."""
    rows, columns = smart_size(*image.shape[:2], factor, min_pixels, max_pixels)
    if (rows, columns) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC))
