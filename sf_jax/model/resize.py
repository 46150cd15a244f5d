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
    high, wide = max(height, width / 200), max(width, height / 200)
    rows = max(factor, round(high / factor) * factor)
    columns = max(factor, round(wide / factor) * factor)
    if rows * columns > max_pixels:
        shrink = math.sqrt(high * wide / max_pixels)
        rows = max(factor, math.floor(high / shrink / factor) * factor)
        columns = max(factor, math.floor(wide / shrink / factor) * factor)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (high * wide))
        rows = math.ceil(high * grow / factor) * factor
        columns = math.ceil(wide * grow / factor) * factor
    # Rounding up may overshoot: long pictures give up length until they fit.
    while rows * columns > max_pixels and max(rows, columns) > factor:
        if rows > columns:
            rows -= factor
        else:
            columns -= factor
    return int(rows), int(columns)


def fit(image: np.ndarray, factor: int, min_pixels: int, max_pixels: int) -> np.ndarray:
    """Resizes uint8 [H, W, 3] to its smart size (bicubic, antialiased)."""
    height, width = image.shape[:2]
    rows, columns = smart_size(height, width, factor, min_pixels, max_pixels)
    if (rows, columns) == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC))
