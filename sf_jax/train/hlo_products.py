"""Floating-point operations of dot products and convolutions of a compiled XLA program."""

import math
import re
from functools import cache

import numpy as np

from sf_jax.train.hlo_text import Instruction, Shape, shapes_of


def dot_operations(it: Instruction, left: Shape, right: Shape) -> int:
    """Operations of a dot product, 2 for a product and the addition after it."""
    summed = [int(axis) for axis in it.attribute("lhs_contracting_dims").split(",") if axis]
    result = math.prod(shapes_of(it.type)[0].dimensions)
    return 2 * result * math.prod(left.dimensions[axis] for axis in summed)


def convolution_operations(it: Instruction, left: Shape, right: Shape) -> int:
    """As `dot_operations`; products with padding do not count.

    A TPU pads to write a product of batches as a window.
    """
    labels = re.split(r"_|->", it.attribute("dim_labels"))
    sizes = [
        dict(zip(axes, shape.dimensions, strict=True))
        for axes, shape in zip(labels, (left, right, shapes_of(it.type)[0]), strict=True)
    ]
    products = sizes[2]["b"] * sizes[2]["f"] * sizes[1]["i"]
    window = dict(part.split("=") for part in it.attribute("window").split())

    def each(key: str, default: str) -> list[str]:
        axes = len(labels[0]) - 2
        return window[key].split("x") if key in window else [default] * axes

    strides, spread, kernel_spread = (
        [int(x) for x in each(key, "1")] for key in ("stride", "lhs_dilate", "rhs_dilate")
    )
    for axis, padding in enumerate(each("pad", "0_0")):
        left_size, right_size, result_size = (size[str(axis)] for size in sizes)
        products *= _pairs(
            left_size,
            right_size,
            result_size,
            strides[axis],
            int(padding.split("_")[0]),
            spread[axis],
            kernel_spread[axis],
        )
    return 2 * products


@cache
def _pairs(
    size: int, window: int, results: int, stride: int, padding: int, spread: int, window_spread: int
) -> int:
    """Pairs of a result's and a window's position that meet an input which is not padding."""
    starts = np.arange(results) * stride - padding
    count = 0
    for offset in range(0, window * window_spread, window_spread):
        at = starts + offset
        count += int(((at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)).sum())
    return count
