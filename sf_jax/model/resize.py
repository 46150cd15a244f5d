"""Fitting a picture to the patch grid, as Qwen's processor does ("smart resize").

Two rules share one rounding. `smart_size` is the released one, number for number, for models that
take any picture. `bounded_size` never exceeds its bound, which models with rows of one fixed patch
count need: the released rule rounds small pictures up, and may overshoot when it does.
Source: `smart_resize` of the Qwen2-VL release, as Qwen3-VL uses it.
"""

import math

import numpy as np
from PIL import Image

LONGEST = 200  # times the shorter side; longer pictures are no photographs


class ResizeError(ValueError):
    """A picture whose shape no model was made for."""


def smart_size(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Nearest size whose sides are multiples of `factor` and whose area lies within the bounds.

    The lower bound goes before the upper one: a small or long picture that is enlarged may end up
    to one row and one column of `factor` above `max_pixels` where the two bounds are close.

    Raises:
      ResizeError: a side is 0, or one side is more than 200 times the other.
    """
    if height < 1 or width < 1:
        raise ResizeError(f"a picture of {height} x {width} pixels has nothing to show")
    if max(height, width) / min(height, width) > LONGEST:
        raise ResizeError(
            f"a picture of {height} x {width} pixels (height x width): one side is more than "
            f"{LONGEST} times the other; cut it to the face"
        )
    return _rounded(height, width, factor, min_pixels, max_pixels)


def _rounded(
    height: float, width: float, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < min_pixels:
        # A side that was rounded to nothing leads here too, and is never nothing afterwards.
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


def bounded_size(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """As `smart_size`, but never above `max_pixels`, and any picture is taken.

    Pictures longer than 200 : 1 are treated as 200 : 1.
    """
    high, wide = max(height, width / LONGEST), max(width, height / LONGEST)
    rows, columns = _rounded(high, wide, factor, min_pixels, max_pixels)
    # Rounding up may overshoot: long pictures give up length until they fit.
    while rows * columns > max_pixels and max(rows, columns) > factor:
        if rows > columns:
            rows -= factor
        else:
            columns -= factor
    return rows, columns


def resized(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """uint8 [H, W, 3] → uint8 [rows, columns, 3] (bicubic, antialiased)."""
    if (rows, columns) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC))


def fit(image: np.ndarray, factor: int, min_pixels: int, max_pixels: int) -> np.ndarray:
    """Resizes uint8 [H, W, 3] to its bounded size."""
    height, width = image.shape[:2]
    return resized(image, *bounded_size(height, width, factor, min_pixels, max_pixels))
