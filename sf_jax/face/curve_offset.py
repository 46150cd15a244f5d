"""The offset between two recordings of one performance, by cross-correlation of their curves.

A curve is any quantity over time: how far the eyes are shut, how far the jaw is open, how loud the
voice is. The two recordings have clocks of their own and may be sampled at any times:

    seconds of the second = offset + ratio * seconds of the first

Both are resampled to an even grid, slow drifts are removed, and Pearson's correlation over what the
recordings have in common is computed for every offset by FFT, gaps masked. An offset counts as
found only if its correlation is far above chance and above that of every other offset: regular
movements, and recordings of two performances, give none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import fft

from sf_jax.media.errors import DataError

FINEST, COARSEST = 1 / 240, 1 / 50  # seconds between samples of the grid
BRIDGED = 0.25  # seconds: a longer gap between samples is not interpolated
DRIFT = 2.0  # seconds of the moving mean that is subtracted
LEAST_OVERLAP = 2.0  # seconds that the recordings must have in common
LEAST_SHARE = 0.3  # of the shorter recording that must be in common
NEAR = 0.3  # seconds: offsets closer than this to the best one are the same peak
STILL = 1e-3  # standard deviation of a curve that does not move
CHANCE = 4.0  # standard deviations of chance above which a correlation is one
APART = 1.5  # as many by which the best offset is ahead of any other
LEAST_CORRELATION = 0.2
MOST_SAMPLES = 2_000_000  # of a grid: about two hours


class OffsetError(DataError):
    """Curves of which no offset can be computed."""


@dataclass(frozen=True)
class Curves:
    """C curves over time.

    Attributes:
      seconds: times of the samples, increasing strictly.
      values: NaN where not known.
    """

    seconds: Float[np.ndarray, " N"]
    values: Float[np.ndarray, "N C"]

    def __post_init__(self) -> None:
        """Raises OffsetError where the shapes differ or times do not increase."""
        if self.values.ndim != 2 or len(self.values) != len(self.seconds):
            shapes = f"{self.values.shape} for {len(self.seconds)} times"
            raise OffsetError(f"curves of shape {shapes}, expected [N, C] for N times")
        if not np.isfinite(self.seconds).all() or np.any(np.diff(self.seconds) <= 0):
            raise OffsetError("times of curves that do not increase from sample to sample")

    @property
    def period(self) -> float:
        """The usual time between two samples, seconds."""
        return float(np.median(np.diff(self.seconds)))

    @property
    def duration(self) -> float:
        """Seconds from the first sample to the last."""
        return float(self.seconds[-1] - self.seconds[0])

    def at(self, seconds: Float[np.ndarray, " M"]) -> Float[np.ndarray, "M C"]:
        """Values at other times, by linear interpolation; NaN outside, and in long gaps."""
        out = np.full((len(seconds), self.values.shape[1]), np.nan)
        for column in range(self.values.shape[1]):
            known = np.isfinite(self.values[:, column])
            if known.sum() < 2:
                continue
            times = self.seconds[known]
            after = np.clip(np.searchsorted(times, seconds), 1, len(times) - 1)
            inside = (seconds >= times[0]) & (seconds <= times[-1])
            inside &= times[after] - times[after - 1] <= max(BRIDGED, 1.5 * self.period)
            found = np.interp(seconds, times, self.values[known, column])
            out[:, column] = np.where(inside, found, np.nan)
        return out


@dataclass(frozen=True)
class Offset:
    """How the clocks of two recordings relate, and how sure that is.

    Attributes:
      seconds: on the second recording's clock when the first's shows 0.
      ratio: seconds of the second clock in one of the first.
      correlation: Pearson's r of the curves at this offset.
      rival: the highest r at another offset, more than `NEAR` away, shorter overlaps counting less;
        -1 where there is none.
      overlap: seconds that the recordings have in common.
      samples: how many independent samples this overlap holds, from the curves' autocorrelation.
    """

    seconds: float
    ratio: float
    correlation: float
    rival: float
    overlap: float
    samples: float

    @property
    def clear(self) -> bool:
        """Whether the correlation is far above chance, and above every other offset's."""
        best, other = _fisher(self.correlation), _fisher(self.rival)
        room = math.sqrt(max(self.samples - 3, 0.0))
        ahead = (best - other) * room
        return self.correlation >= LEAST_CORRELATION and best * room >= CHANCE and ahead >= APART

    def __str__(self) -> str:
        rival = "" if self.rival <= -1 else f"; elsewhere at most {self.rival:.2f}"
        return f"{self.seconds:+.3f} s (r {self.correlation:.2f} over {self.overlap:.1f} s{rival})"


def find_offset(
    first: Curves,
    second: Curves,
    ratio: float = 1.0,
    between: tuple[float, float] = (-math.inf, math.inf),
) -> Offset:
    """The offset at which the curves of two recordings correlate best.

    Args:
      first, second: the same C curves of both.
      ratio: seconds of the second clock in one of the first.
      between: the lowest and highest offset considered, seconds.

    Raises:
      OffsetError: the numbers of curves differ, none moves in both, or the recordings have less
        than `LEAST_OVERLAP` in common at every offset considered.
    """
    moving = _moving(first, second)
    stretched = Curves(first.seconds * ratio, first.values[:, moving])
    other = Curves(second.seconds, second.values[:, moving])
    step = float(np.clip(min(first.period, second.period) / 2, FINEST, COARSEST))
    one, two = _Grid(stretched, step), _Grid(other, step)
    lags, r, share = _correlations(one, two)
    offsets = lags * step + other.seconds[0] - stretched.seconds[0]
    # A moment of overlap correlates by chance: longer ones count more.
    score = np.where((offsets >= between[0]) & (offsets <= between[1]), r * np.sqrt(share), np.nan)
    if not np.isfinite(score).any():
        raise OffsetError(
            f"recordings of {first.duration:.1f} and {second.duration:.1f} s have less than "
            f"{LEAST_OVERLAP:g} s of movement in common at every offset considered"
        )
    best = int(np.nanargmax(score))
    away = np.abs(lags - lags[best]) * step > NEAR
    elsewhere = np.where(away, score, np.nan)
    rival = -1.0
    if np.isfinite(elsewhere).any():
        rival = min(float(np.nanmax(elsewhere) / np.sqrt(share[best])), 1.0)
    overlap = float(share[best]) * min(stretched.duration, other.duration)
    peak = offsets[best] + step * _vertex(r, best)
    samples = overlap / step / _memory(one, two)
    return Offset(float(peak), ratio, float(r[best]), rival, overlap, samples)


def best_ratio(
    first: Curves,
    second: Curves,
    ratios: Sequence[float],
    between: tuple[float, float] = (-math.inf, math.inf),
) -> Offset:
    """The offset at the first of `ratios`, or at another that fits significantly better.

    See `find_offset`. Ratios whose clocks drift apart by less than a sample over the recording
    cannot be distinguished; the first is then kept.

    Raises:
      OffsetError: as `find_offset`.
    """
    found = [find_offset(first, second, ratio, between) for ratio in ratios]
    best = found[0]
    for other in found[1:]:
        gain = math.log(_rest(best.correlation) / _rest(other.correlation))
        if other.samples / 2 * gain > 3.0 and other.correlation > best.correlation:
            best = other
    return best


def _rest(r: float) -> float:
    """The share of variance that a correlation leaves unexplained."""
    return max(1 - max(r, 0.0) ** 2, 1e-6)


def _fisher(r: float) -> float:
    return math.atanh(min(max(r, -0.999999), 0.999999))


def _moving(first: Curves, second: Curves) -> Bool[np.ndarray, " C"]:
    """Which curves move in both recordings."""
    counts = first.values.shape[1], second.values.shape[1]
    if counts[0] != counts[1]:
        raise OffsetError(f"{counts[0]} curves of one recording and {counts[1]} of the other")
    if min(len(first.seconds), len(second.seconds)) < 2:
        raise OffsetError("a recording of fewer than two samples")
    moves = [np.isfinite(one.values).sum(0) > 1 for one in (first, second)]
    for i, one in enumerate((first, second)):
        for column in np.flatnonzero(moves[i]):
            moves[i][column] = np.nanstd(one.values[:, column]) > STILL
    both = moves[0] & moves[1]
    if not both.any():
        raise OffsetError("none of the compared curves moves in both recordings")
    return np.asarray(both)


class _Grid:
    """Curves resampled evenly, without slow drifts, at unit variance.

    Attributes:
      step: seconds between samples.
      values: [N, C], 0 where not known.
      known: [N, C], 1 where known, else 0.
    """

    def __init__(self, curves: Curves, step: float):
        self.step = step
        count = int(curves.duration / step) + 1
        if count > MOST_SAMPLES:
            raise OffsetError(f"a recording of {curves.duration:.0f} s, longer than can be aligned")
        values = curves.at(curves.seconds[0] + step * np.arange(count))
        self.known = np.isfinite(values).astype(float)
        # Interpolated samples are less noisy than others, by their phase: smoothing evens that out.
        short = 2 * round(curves.period / step) + 1
        values = _moving_sum(np.nan_to_num(values), short) / np.maximum(
            _moving_sum(self.known, short), 1e-9
        )
        values *= self.known
        window = max(3, 2 * int(DRIFT / 2 / step) + 1)
        weight = np.maximum(_moving_sum(self.known, window), 1e-9)
        values = (values - _moving_sum(values, window) / weight) * self.known
        total = np.maximum(self.known.sum(0), 1)
        scale = np.sqrt((values**2).sum(0) / total)
        self.values = values / np.where(scale > 0, scale, 1)


def _moving_sum(values: Float[np.ndarray, "N C"], window: int) -> Float[np.ndarray, "N C"]:
    """Sums over a centred window."""
    total = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(values, 0)])
    rows = np.arange(len(values))
    low = np.clip(rows - window // 2, 0, len(values))
    high = np.clip(rows + window // 2 + 1, 0, len(values))
    return total[high] - total[low]


def _correlations(
    one: _Grid, two: _Grid
) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
    """Lags in samples, r at each, and the share of the shorter recording in common.

    The r of several curves is pooled: summed covariance over summed variances. It is NaN where too
    little is in common.
    """
    x, y, a, b = one.values, two.values, one.known, two.known
    count = _cross_correlation(a, b)
    count = np.maximum(count, 1e-9)
    sums = _cross_correlation(x, b), _cross_correlation(a, y)
    covariance = _cross_correlation(x, y) - sums[0] * sums[1] / count
    variances = (
        _cross_correlation(x**2, b) - sums[0] ** 2 / count,
        _cross_correlation(a, y**2) - sums[1] ** 2 / count,
    )
    product = np.prod([np.maximum(v, 0).sum(1) for v in variances], axis=0)
    common = count.max(1)
    shorter = min(a.sum(0).max(), b.sum(0).max())
    share = np.clip(common / max(shorter, 1), 0, 1)
    r = np.clip(covariance.sum(1) / np.sqrt(np.maximum(product, 1e-12)), -1, 1)
    r = np.where((common >= _least_samples(one, two)) & (product > 1e-6), r, np.nan)
    return np.arange(-(len(x) - 1), len(y)).astype(float), r, share


def _least_samples(one: _Grid, two: _Grid) -> float:
    shorter = min(len(one.values), len(two.values))
    return max(LEAST_SHARE * shorter, LEAST_OVERLAP / one.step)


def _cross_correlation(
    x: Float[np.ndarray, "N C"], y: Float[np.ndarray, "M C"]
) -> Float[np.ndarray, "L C"]:
    """sum_i x[i] y[i + lag] for lags from -(N - 1) to M - 1."""
    length = fft.next_fast_len(len(x) + len(y) - 1)
    spectrum = np.conj(fft.rfft(x, length, axis=0)) * fft.rfft(y, length, axis=0)
    found = fft.irfft(spectrum, length, axis=0)
    return np.concatenate([found[length - (len(x) - 1) :], found[: len(y)]])


def _vertex(r: Float[np.ndarray, " L"], best: int) -> float:
    """How far the peak is from its highest sample, in samples, by a parabola through three."""
    if not 0 < best < len(r) - 1 or not np.isfinite(r[best - 1 : best + 2]).all():
        return 0.0
    before, here, after = r[best - 1 : best + 2]
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else float(np.clip((before - after) / (2 * bend), -0.5, 0.5))


def _memory(one: _Grid, two: _Grid) -> float:
    """Samples of the grid that count as one: the sum of the product of both autocorrelations."""
    products = []
    for column in range(one.values.shape[1]):
        autos = []
        for grid in (one, two):
            x = grid.values[:, [column]]
            auto = _cross_correlation(x, x)[len(x) - 1 :, 0]
            autos.append(auto / max(auto[0], 1e-9))
        length = min(map(len, autos))
        products.append(1 + 2 * float((autos[0][1:length] * autos[1][1:length]).sum()))
    return max(1.0, float(np.mean(products)))
