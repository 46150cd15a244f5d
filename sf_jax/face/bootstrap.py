"""Intervals of the measures of `face/metrics.py`, by bootstrap over people.

Images of one person are alike, so people are drawn, with all their images, and not images (a
cluster bootstrap). Every measure is a function of sums over images: each person's sums are added
up once, and a resample is a weighted sum of them, which gives the same as measuring the resampled
images.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sf_jax.face.channels import BLENDSHAPES
from sf_jax.face.metrics import ACTIVE, CONSTANT

RESAMPLES = 1000
SEED = 0
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A percentile interval at `LEVEL`."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}"


def people(identities: Sequence[Hashable | None]) -> Int[np.ndarray, " N"]:
    """A number from 0 for each image's person; an image of nobody known is a person of its own."""
    numbers: dict[Hashable, int] = {}
    keys = [("image", i) if one is None else one for i, one in enumerate(identities)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def weights(groups: int, resamples: int = RESAMPLES, seed: int = SEED) -> Int[np.ndarray, "R G"]:
    """How often each of the groups is drawn in each resample, as many draws as groups."""
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), resamples)
    return drawn.astype(np.int64)


def intervals(
    predictions: Float[np.ndarray, "N 61"],
    labels: Float[np.ndarray, "N 61"],
    known: Bool[np.ndarray, "N 61"],
    person: Int[np.ndarray, " N"],
) -> dict[str, Interval]:
    """Intervals of "r_52", "mae_52" and "active_mae" as `metrics.evaluate` defines them.

    Args:
      person: of each image, from `people`. With one person alone there are no intervals: an empty
        result.
    """
    found = resampled(predictions, labels, known, person)
    return {name: percentiles(values) for name, values in found.items()}


def resampled(
    predictions: Float[np.ndarray, "N 61"],
    labels: Float[np.ndarray, "N 61"],
    known: Bool[np.ndarray, "N 61"],
    person: Int[np.ndarray, " N"],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Float[np.ndarray, " R"]]:
    """The measures of `intervals` on each resample.

    With the same people, count and seed the resamples are the same, whatever was predicted, so that
    the difference of two predictors can be taken resample by resample.
    """
    groups = int(person.max()) + 1
    if groups < 2:
        return {}
    drawn = weights(groups, resamples, seed).astype(np.float64)
    x, y, of = (np.asarray(a)[:, BLENDSHAPES] for a in (predictions, labels, known))
    x, y, of = x.astype(np.float64), y.astype(np.float64), of.astype(np.float64)
    error, active = np.abs(x - y), of * (y > ACTIVE)

    def total(values: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "R C"]:
        sums = np.zeros((groups, values.shape[1]))
        np.add.at(sums, person, values)
        return drawn @ sums

    # Sums of squares cancel less about the means of all images.
    x, y = ((z - (of * z).sum(0) / np.maximum(of.sum(0), 1)) * of for z in (x, y))
    count = total(of)
    return {
        "r_52": _row_means(_correlation(count, *map(total, (x, y, x * x, y * y, x * y)))),
        "mae_52": _row_means(_ratio(total(of * error), count)),
        "active_mae": _ratio(total(active * error).sum(1), total(active).sum(1)),
    }


def _correlation(
    n: np.ndarray, x: np.ndarray, y: np.ndarray, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray
) -> Float[np.ndarray, "R C"]:
    """Pearson's r from sums; 0 where a side is constant, NaN where no label is known."""
    safe = np.maximum(n, 1)
    across, down = xx - x * x / safe, yy - y * y / safe
    least = safe * (CONSTANT / 2) ** 2  # of a column that varies by less than CONSTANT
    varies = (across > least) & (down > least)
    r = (xy - x * y / safe) / np.sqrt(np.where(varies, across * down, 1.0))
    return np.where(n > 0, np.where(varies, np.clip(r, -1, 1), 0.0), np.nan)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _row_means(values: Float[np.ndarray, "R C"]) -> Float[np.ndarray, " R"]:
    real = ~np.isnan(values)
    return _ratio(np.where(real, values, 0.0).sum(1), real.sum(1))


def percentiles(values: Float[np.ndarray, " R"]) -> Interval:
    """The interval of resampled values; NaN where none is a number."""
    real = values[~np.isnan(values)]
    if not len(real):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(real, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
