"""Fitting an image to the patch grid, as Qwen's processor does ("smart resize").

Two resamplers, both bicubic and antialiased: Pillow's, which Qwen's slow processor uses, and in
`resized_fixed_point` that of its fast one, torch's for bytes: the same weights, rounded to 16 bits.
On photographs the two differ in about 1 % of the values, by one or two levels of 255; on tiny
images enlarged many times in more.
Source: `smart_resize` of the Qwen2-VL release, as Qwen3-VL uses it; the cubic is Keys', a = -1/2.
"""

import math

import numpy as np
from PIL import Image
from scipy.sparse import csr_array

from sf_jax.media.errors import DataError

LONGEST = 200  # times the shorter side; longer images are no photographs
SPREAD = 16  # times the smallest bucket, the largest one
REACH = 2  # pixels to either side that the cubic weighs


class ResizeError(DataError):
    """An image whose shape no model was made for."""


def smart_size(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Nearest size whose sides are multiples of `factor` and whose area is within the bounds.

    The lower bound goes before the upper one: a small or long image that is enlarged may end up
    to one row and one column of `factor` above `max_pixels` where the two bounds are close.

    Raises:
      ResizeError: a side is 0, or one side is more than 200 times the other.
    """
    if height < 1 or width < 1:
        raise ResizeError(f"an image of {height} x {width} pixels has nothing to show")
    if max(height, width) / min(height, width) > LONGEST:
        raise ResizeError(
            f"an image of {height} x {width} pixels (height x width): one side is more than "
            f"{LONGEST} times the other; cut it to the face"
        )
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


def bucket(count: int) -> int:
    """The smallest bucket that holds `count`: at most a quarter larger, from 64 on."""
    step = max(16, 2 ** (count.bit_length() - 3))
    return -(-count // step) * step


def coarse_bucket(count: int, most: int) -> int:
    """The smallest of six sizes that holds `count`, at most `most`, which is the largest of them.

    Each is 1.74 times the one before, rounded up to 16, so that images of whatever sizes compile
    six programs.
    """
    sizes = [-(-round(most / SPREAD ** (k / 5)) // 16) * 16 for k in range(5, 0, -1)]
    return next(size for size in (*sizes, most) if count <= size <= most)


def resized(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """uint8 [H, W, 3] → uint8 [rows, columns, 3], by Pillow."""
    if (rows, columns) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC))


def resized_fixed_point(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """As `resized`, bit for bit as torch does it on a CPU: first each row, then each column."""
    wide = _resampled(image.swapaxes(0, 1), columns).swapaxes(0, 1)
    return _resampled(wide, rows)


def _resampled(image: np.ndarray, length: int) -> np.ndarray:
    """uint8 [N, …] → uint8 [length, …]."""
    if len(image) == length:
        return image
    weights, bits = _fixed_point_weights(len(image), length)
    sums = weights @ image.reshape(len(image), -1).astype(np.int32)
    rounded = (sums + (1 << (bits - 1))) >> bits
    return np.clip(rounded, 0, 255).astype(np.uint8).reshape(length, *image.shape[1:])


def _fixed_point_weights(size: int, length: int) -> tuple[csr_array, int]:
    """Whole-number weights int32 [length, size], and the bits they are shifted left by."""
    scale = size / length
    stretch = max(scale, 1.0)  # antialiasing: when shrinking, the cubic spans more pixels
    centres = scale * (np.arange(length) + 0.5)
    first = np.maximum((centres - REACH * stretch + 0.5).astype(int), 0)
    end = np.minimum((centres + REACH * stretch + 0.5).astype(int), size)
    at = first[:, None] + np.arange((end - first).max())
    weights = _cubic((at + 0.5 - centres[:, None]) / stretch) * (at < end[:, None])
    weights /= weights.sum(1, keepdims=True)
    bits = 0  # as many as keep the largest weight within 16 bits, sign included
    while bits < 22 and int(weights.max() * 2 ** (bits + 1) + 0.5) < 2**15:
        bits += 1
    whole = np.trunc(weights * 2**bits + np.copysign(0.5, weights)).astype(np.int32)
    starts = np.arange(length + 1) * at.shape[1]
    columns = np.minimum(at, size - 1).ravel()  # beyond the image the weight is 0
    return csr_array((whole.ravel(), columns, starts), shape=(length, size)), bits


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -1/2: 1 at 0, 0 at the other whole numbers and beyond 2."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
