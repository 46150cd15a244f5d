"""Turned squares cut out of images."""

import numpy as np
import pytest

from sf_jax.media.crop import cut_square, to_square


def gradients(height: int, width: int) -> np.ndarray:
    """Red is the column, green the row, of pixel centres; blue is constant."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([columns, rows, np.full_like(rows, 9)], 2).astype(np.uint8)


@pytest.mark.parametrize("roll", [0.0, 0.5, -1.2])
@pytest.mark.parametrize(("side", "size"), [(40, 40), (40, 64), (120, 32), (150, 16)])
def test_pixels_come_from_where_the_map_says(roll: float, side: float, size: int) -> None:
    image = gradients(220, 240)
    cut = cut_square(image, 118, 105, side, roll, size)
    inverse = np.linalg.inv(np.vstack([to_square(118, 105, side, roll, size), [0, 0, 1]]))
    for row, column in [(0, 0), (0, size - 1), (size // 3, size // 2), (size - 1, size - 1)]:
        x, y, _ = inverse @ [column + 0.5, row + 0.5, 1]
        assert cut[row, column, :2] == pytest.approx([x - 0.5, y - 0.5], abs=1.5)
    assert (cut[..., 2] == 9).all()


def test_a_positive_roll_makes_a_head_tilted_counter_clockwise_upright() -> None:
    """The top of a head that leans to the left of the image is to the left of its middle."""
    x, y = 100 - 50 * np.sin(0.4), 100 - 50 * np.cos(0.4)
    assert to_square(100, 100, 200, 0.4, 200) @ [x, y, 1] == pytest.approx([100, 50], abs=1e-9)


def test_outside_the_image_its_edge_is_repeated() -> None:
    cut = cut_square(gradients(100, 100), 0, 0, 40, 0.0, 40)
    assert (cut[:20, :20] == cut[20, 20]).all()


def test_the_whole_image_at_its_own_size_is_itself() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    assert (cut_square(image, 25, 25, 50, 0.0, 50) == image).all()


@pytest.mark.parametrize("shrink", [1.6, 1.9, 2.1, 3.0, 3.8, 8.0])
def test_fine_detail_does_not_alias(shrink: float) -> None:
    """Stripes of a pixel become grey, whatever their phase."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 254
    cut = cut_square(stripes, 128, 128, 32 * shrink, 0.0, 32)
    assert cut.min() > 120 and cut.max() < 135
