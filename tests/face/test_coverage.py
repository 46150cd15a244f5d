"""Coverage by the randomised PIT."""

import numpy as np
import pytest

from sf_jax.face import coverage

VALUES = np.tile(np.linspace(0, 1, 11), (61, 1))


def distributions(spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from normal distributions on the grid, and such distributions of `spread`."""
    g = np.random.default_rng(seed)
    centre = g.uniform(0.2, 0.8, (300, 61, 1))

    def of(width: float) -> np.ndarray:
        p = np.exp(-0.5 * np.square((VALUES - centre) / width))
        return p / p.sum(-1, keepdims=True)

    drawn = (of(0.15).cumsum(-1) < g.random((300, 61, 1))).sum(-1)
    return VALUES[0][drawn], of(spread)


@pytest.mark.parametrize(("spread", "low", "high"), [(0.15, 0.78, 0.82), (0.05, 0.3, 0.6)])
def test_true_distributions_cover_what_they_should(spread, low, high) -> None:
    labels, probabilities = distributions(spread)
    transformed = coverage.pit(probabilities, VALUES, labels)
    found = coverage.coverage(transformed, labels, np.ones(labels.shape, bool))
    assert low < found.all < high
    assert found.by_channel.shape == (61,) and low - 0.1 < found.by_channel.min()


def test_a_certain_answer_is_uniform_where_it_is_right() -> None:
    """Without the random share, a certain and right answer would never be covered."""
    labels = np.full((500, 61), 0.3)
    probabilities = np.zeros((500, 61, 11))
    probabilities[..., 3] = 1
    found = coverage.coverage(
        coverage.pit(probabilities, VALUES, labels), labels, np.ones(labels.shape, bool)
    )
    assert found.all == pytest.approx(0.8, abs=0.01)


def test_only_what_is_known_and_read_counts() -> None:
    labels, probabilities = distributions(0.15)
    transformed = coverage.pit(probabilities, VALUES, labels)
    known = np.zeros(labels.shape, bool)
    known[:, 4] = True
    transformed[:100] = np.nan  # no face
    transformed[100:, 4] = 0.99
    found = coverage.coverage(transformed, labels, known)
    assert found.all == 0.0 and found.by_channel[4] == 0.0 and np.isnan(found.by_channel[5])
    assert np.isnan(coverage.coverage(transformed, labels, known & False).active)
