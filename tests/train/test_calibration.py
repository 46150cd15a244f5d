"""Predicted probabilities beside outcomes."""

import numpy as np
import pytest

from sf_jax.train.calibration import reliability


def test_probabilities_that_are_right_have_no_error() -> None:
    g = np.random.default_rng(0)
    p = g.random(200_000)
    y = (g.random(200_000) < p) * 1.0
    found = reliability(p, y)
    assert found.error < 0.01 and found.accuracy == pytest.approx(0.75, abs=0.01)
    np.testing.assert_allclose(found.predicted, found.observed, atol=0.02)
    assert found.log_loss == pytest.approx(0.5, abs=0.01)  # the mean entropy of a uniform p, nats
    certain = reliability(np.clip(np.round(p), 0.01, 0.99), y)
    assert certain.error > 0.2 and certain.accuracy == pytest.approx(found.accuracy, abs=0.01)


def test_by_hand() -> None:
    """Two bins are used; a tie and a probability of a half count half, or not at all."""
    found = reliability(
        np.array([0.9, 0.95, 0.5, 0.5, 1.0]), np.array([1, 0, 1, 0.5, 1]), np.array([1, 1, 2, 4, 1])
    )
    np.testing.assert_allclose(found.weight, [0, 0, 0, 0, 0, 6, 0, 0, 0, 3])
    np.testing.assert_allclose(found.predicted[[5, 9]], [0.5, 2.85 / 3])
    np.testing.assert_allclose(found.observed[[5, 9]], [4 / 6, 2 / 3])
    assert np.isnan(found.observed[0])
    assert found.accuracy == pytest.approx((1 + 0 + 2 * 0.5 + 1) / 5)
    assert found.error == pytest.approx((6 * (4 / 6 - 0.5) + 3 * (2.85 / 3 - 2 / 3)) / 9)


def test_nothing_and_no_probability_are_refused() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        reliability(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match=r"a probability is 1\.5"):
        reliability(np.array([0.2, 1.5]), np.zeros(2))
