"""Intervals by bootstrap over people."""

import numpy as np
import pytest

from sf_jax.face import bootstrap, metrics


def faces(people: int, each: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    g = np.random.default_rng(seed)
    labels = g.random((people * each, 61)) * (g.random((people * each, 61)) < 0.4)
    predictions = labels + g.normal(size=labels.shape) * 0.2
    known = g.random(labels.shape) < 0.8
    return predictions, labels, known, np.repeat(np.arange(people), each)


def test_resamples_measure_as_the_metrics_do() -> None:
    """Its measures, and the interval of one alone, are those of the resampled images."""
    predictions, labels, known, person = faces(8, 5)
    drawn = bootstrap.weights(8, 1, 3)[0]
    rows = np.concatenate([np.flatnonzero(person == p) for p in range(8) for _ in range(drawn[p])])
    expected = metrics.evaluate(predictions[rows], labels[rows], known[rows]).summary()
    found = bootstrap.resampled(predictions, labels, known, person, resamples=1, seed=3)
    for name, values in found.items():
        interval = bootstrap.percentiles(values)
        assert interval.low == interval.high == pytest.approx(expected[name], abs=1e-9)


def test_the_interval_holds_the_measure_and_is_the_same_again() -> None:
    given = faces(40, 4)
    found = bootstrap.intervals(*given)
    measured = metrics.evaluate(*given[:3]).summary()
    assert found == bootstrap.intervals(*given)
    for name, interval in found.items():
        assert interval.low < measured[name] < interval.high


def test_few_people_make_wide_intervals() -> None:
    """As many images of fewer people are less to go by, where people differ."""
    predictions, labels, known, person = faces(60, 1)
    few = np.repeat(np.arange(6), 10)
    predictions = predictions + np.repeat(np.linspace(0, 0.5, 6), 10)[:, None]
    wide, narrow = (
        bootstrap.intervals(predictions, labels, known, who)["mae_52"] for who in (few, person)
    )
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_constants_and_unknown_channels() -> None:
    _, labels, known, person = faces(10, 2)
    known[:, 5] = False
    found = bootstrap.intervals(np.zeros_like(labels), labels, known, person)
    assert (found["r_52"].low, found["r_52"].high) == (0.0, 0.0)
    nothing = bootstrap.intervals(labels, labels, np.zeros_like(known), person)
    assert np.isnan(nothing["r_52"].low)


def test_people_are_numbered() -> None:
    assert bootstrap.people([7, None, 7, "a", None]).tolist() == [0, 1, 0, 2, 3]
    one = faces(1, 4)
    assert bootstrap.intervals(*one) == {}
