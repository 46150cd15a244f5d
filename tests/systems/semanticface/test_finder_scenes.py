"""Composed scenes: what is drawn is where its landmarks are, to a fraction of a pixel."""

import numpy as np
import pytest

from sf_jax.systems.semanticface import finder_scenes

DOT = np.array([50.0, 60.0])  # the corner that four bright pixels share


def dotted() -> np.ndarray:
    image = np.zeros((100, 100, 3), np.uint8)
    image[58:62, 48:52] = 240
    return image


def middle(picture: np.ndarray) -> np.ndarray:
    """The centre of what is bright, x and y counted from the corner of the first pixel."""
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    weight = picture[..., 0].astype(float)
    return np.array([(weight * (x + 0.5)).sum() for x in (columns, rows)]) / weight.sum()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("scale", [0.4, 1.0, 2.0])
def test_images_go_where_landmarks_go(scale: float, mirrored: bool) -> None:
    side = -1.0 if mirrored else 1.0
    turn = scale * np.diag([side, 1.0])
    matrix = np.column_stack([turn, np.array([90.0, 80.0]) - turn @ DOT])
    picture = np.zeros((160, 180, 3), np.uint8)
    finder_scenes._draw(picture, dotted(), np.ones((100, 100), np.float32), matrix)
    assert middle(picture) == pytest.approx([90, 80], abs=0.1)
    finder_scenes._spread(picture, dotted(), matrix)
    assert middle(picture) == pytest.approx([90, 80], abs=0.1)
