"""The detector of centres: shapes, and that what it says of a cell moves with the image."""

import jax
import numpy as np
import pytest

from sf_jax.model import detector
from sf_jax.model.declared import initialise
from sf_jax.model.detector import COARSEST, STRIDE, Detections, DetectorConfig

TINY = DetectorConfig((4, 6, 8, 8), (1, 1, 1, 1), neck=8, head=8, points=5)


@pytest.fixture(scope="module")
def weights() -> detector.DetectorWeights:
    return initialise(detector.declare(TINY), 3)


def run(weights: detector.DetectorWeights, images: np.ndarray) -> Detections:
    return jax.device_get(jax.jit(detector.forward, static_argnums=2)(weights, images, TINY))


def test_one_answer_a_cell(weights: detector.DetectorWeights) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    found = run(weights, images)
    cells = (2, 64 // STRIDE, 96 // STRIDE)
    assert found.score.shape == found.side.shape == cells
    assert found.points.shape == (*cells, 6, 2)
    one = run(weights, images[1:])
    np.testing.assert_allclose(one.score[0], found.score[1], rtol=1e-4, atol=1e-5)


def test_answers_move_with_the_image(weights: detector.DetectorWeights) -> None:
    g = np.random.default_rng(1)
    wide = np.full((1, 96, 480, 3), 128, np.uint8)
    wide[:, :, 192:256] = g.integers(0, 256, (1, 96, 64, 3), np.uint8)
    moved = np.roll(wide, COARSEST, axis=2)
    found, after = run(weights, wide), run(weights, moved)
    cells = COARSEST // STRIDE
    inner = slice(16, 40)
    shifted = slice(16 + cells, 40 + cells)
    np.testing.assert_allclose(
        found.points[:, :, inner], after.points[:, :, shifted], rtol=1e-3, atol=1e-4
    )
    assert np.ptp(found.score) > 0.01


def test_rows_and_columns_are_not_exchanged(weights: detector.DetectorWeights) -> None:
    """A bright spot low on the left changes the cells there, and none high on the right."""
    plain = np.random.default_rng(2).integers(0, 256, (1, 192, 192, 3), np.uint8)
    spot = plain.copy()
    spot[:, 168:176, 16:24] = 255
    changed = np.abs(run(weights, spot).score - run(weights, plain).score)[0]
    assert np.unravel_index(changed.argmax(), changed.shape)[0] > 16
    assert np.unravel_index(changed.argmax(), changed.shape)[1] < 8
    assert changed[:4, 20:].max() < 0.1 * changed.max()
