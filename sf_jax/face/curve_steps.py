"""Where the clocks of two recordings jump against each other: dropped and inserted frames.

A frame that was dropped or inserted without a trace in the times moves all later frames by one
period. The shift of each sample, in whole periods, is the cheapest path through all samples
(Viterbi): a path costs the squared differences of the curves, in units of their usual error, and a
fixed price for each jump. A sample is sure where every path that shifts it otherwise costs clearly
more: near a jump that happens while nothing moves, samples are not.

The first recording is the smooth one, such as a tracker's file; the second, such as what a model
reads off a video, may be noisy. Each noisy sample is explained exactly once by every path, so that
noise alone prefers none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from sf_jax.face.curve_offset import STILL, Curves, Offset

MOST = 12  # periods of shift to either side
JUMP = 15.0  # price of a jump, in units of log-likelihood
SURE = 5.0  # by how much dearer every other shift of a sure sample is
LEAST_ERROR = 0.01  # standard error of a curve, so that exact curves give no infinite certainty
OUTLIER = 8.0  # most that one curve of one sample costs
LONGEST_MEMORY = 30.0  # samples over which errors of reading may be correlated
GAIN = 10.0  # log-likelihood by which another ratio of the clocks must be better
ROUNDS = 3  # errors and offset are estimated again without the jumps
FINE = 21  # offsets tried within a period


@dataclass(frozen=True)
class Shifts:
    """By how much the samples of the second recording are shifted against an `Offset`.

    Attributes:
      offset: refined, without the samples that are shifted against it.
      periods: whole periods of the second recording by which each of its samples is late.
      sure: whether any other shift of the sample is clearly worse.
      error: mean absolute difference of the curves, in their standard deviations.
    """

    offset: Offset
    periods: Int[np.ndarray, " M"]
    sure: Bool[np.ndarray, " M"]
    error: float = 0.0

    @property
    def jumps(self) -> list[tuple[int, int]]:
        """The first sample after each jump, and by how many periods it jumps: more than 0 where
        samples were inserted into the second recording, less where they were dropped."""
        steps = np.diff(self.periods)
        return [(int(row) + 1, int(steps[row])) for row in np.flatnonzero(steps)]


def find_shifts(first: Curves, second: Curves, offset: Offset) -> Shifts:
    """The shift of every sample of `second`.

    Args:
      first, second: the same curves of both recordings.
      offset: of the greater part of them, from `curve_offset.find_offset`.
    """
    states = np.arange(-MOST, MOST + 1)
    path = np.full(len(second.seconds), MOST)
    for _ in range(ROUNDS):
        expected = _expected(first, second, offset, states)
        path, _ = viterbi(_costs(second.values, expected, path), JUMP)
        offset = _refined(first, second, offset, states[path])
    expected = _expected(first, second, offset, states)
    costs = _costs(second.values, expected, path)
    path, _ = viterbi(costs, JUMP)
    # The offset itself may be uncertain by a period; only where it jumps is asked here.
    used = np.unique(path)
    gaps = viterbi(costs[:, used], JUMP)[1] if len(used) > 1 else np.full(len(path), np.inf)
    late = states[path] * second.period
    error = _errors(
        second.values, first.at((second.seconds - offset.seconds - late) / offset.ratio)
    )
    return Shifts(offset, states[path], gaps >= SURE, error)


def best_shifts(first: Curves, second: Curves, offsets: Sequence[Offset]) -> Shifts:
    """The shifts at the first of several offsets, or at another that explains clearly more.

    Offsets may differ in the ratio of the clocks: a jump, and clocks that drift apart, look alike
    to a correlation. A jump counts against an offset as much as it costs a path.
    """
    found = [find_shifts(first, second, offset) for offset in offsets]

    def cost(one: Shifts) -> float:
        return one.offset.samples * float(np.log(max(one.error, 1e-6))) + JUMP * len(one.jumps)

    costs = [cost(one) - GAIN * (i == 0) for i, one in enumerate(found)]
    return found[int(np.argmin(costs))]


def _expected(
    first: Curves, second: Curves, offset: Offset, states: Int[np.ndarray, " K"]
) -> Float[np.ndarray, "M K C"]:
    """The first recording's values at the times of the second's samples, for each shift."""
    late = states * second.period
    times = [(second.seconds - offset.seconds - one) / offset.ratio for one in late]
    return np.stack([first.at(one) for one in times], 1)


def _refined(
    first: Curves, second: Curves, offset: Offset, periods: Int[np.ndarray, " M"]
) -> Offset:
    """The offset, within half a period, at which the shifted curves differ least."""
    tried = np.linspace(-0.5, 0.5, FINE)
    errors = []
    for part in tried:
        late = (periods + part) * second.period
        shown = first.at((second.seconds - offset.seconds - late) / offset.ratio)
        errors.append(_errors(second.values, shown))
    best = tried[int(np.argmin(errors))] * second.period
    return replace(offset, seconds=offset.seconds + float(best))


def _costs(
    values: Float[np.ndarray, "M C"],
    expected: Float[np.ndarray, "M K C"],
    current: Int[np.ndarray, " M"],
) -> Float[np.ndarray, "M K"]:
    """What each shift of each sample costs, the errors estimated at the current states."""
    total = np.zeros(expected.shape[:2])
    rows = np.arange(len(values))
    for column in range(values.shape[1]):
        y, x = values[:, column], expected[:, :, column]
        left = _left(y, x[rows, current], x)
        if left is None:
            continue
        here = left[rows, current]
        here = here[np.isfinite(here)]
        error = max(float(here.std()), LEAST_ERROR)
        cost = np.minimum((left / error) ** 2 / 2, OUTLIER)
        total += np.where(np.isfinite(cost), cost, 0.5) / _memory(here)
    return total


def _errors(values: Float[np.ndarray, "M C"], shown: Float[np.ndarray, "M C"]) -> float:
    """Mean absolute differences in units of each curve's deviation; few samples that are shifted
    otherwise hardly change where they are least."""
    errors = []
    for y, x in zip(values.T, shown.T, strict=True):
        left = _left(y, x, x[:, None])
        if left is not None:
            errors.append(float(np.nanmean(np.abs(left)) / np.nanstd(y)))
    return float(np.mean(errors)) if errors else 1.0


def _left(
    y: Float[np.ndarray, " M"], x: Float[np.ndarray, " M"], candidates: Float[np.ndarray, "M K"]
) -> Float[np.ndarray, "M K"] | None:
    """What is left of `y` after a line through `candidates`; None where either does not move.

    Readers under- and overshoot: the line, from `x` to `y`, takes one's values to the other's.
    """
    known = np.isfinite(y) & np.isfinite(x)
    if known.sum() < 8 or min(y[known].std(), x[known].std()) < STILL:
        return None
    slope, constant = np.polyfit(x[known], y[known], 1)
    return y[:, None] - slope * candidates - constant


def _memory(errors: Float[np.ndarray, " N"]) -> float:
    """How many consecutive errors count as one, by their autocorrelation up to its first zero."""
    errors = errors - errors.mean()
    scale = float(errors @ errors)
    total = 1.0
    for lag in range(1, min(len(errors) - 1, int(LONGEST_MEMORY))):
        r = float(errors[:-lag] @ errors[lag:]) / scale if scale > 0 else 0.0
        if r <= 0:
            break
        total += 2 * r
    return min(total, LONGEST_MEMORY)


def viterbi(
    costs: Float[np.ndarray, "N K"], jump: float
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """The cheapest path through states, and how much dearer the best other path is at each sample.

    Args:
      costs: of each state of each sample.
      jump: price of a change of state.
    """
    ahead = _accumulated(costs, jump)
    back = _accumulated(costs[::-1], jump)[::-1]
    through = ahead + back - costs  # the cheapest path through each state
    path = _traced(ahead, jump)
    rows = np.arange(len(costs))
    best = through[rows, path]
    others = np.array(through)
    others[rows, path] = np.inf
    return path, others.min(1) - best


def _accumulated(costs: Float[np.ndarray, "N K"], jump: float) -> Float[np.ndarray, "N K"]:
    out = np.array(costs, float)
    for row in range(1, len(out)):
        before = out[row - 1]
        out[row] += np.minimum(before, before.min() + jump)
    return out


def _traced(ahead: Float[np.ndarray, "N K"], jump: float) -> Int[np.ndarray, " N"]:
    path = np.empty(len(ahead), int)
    path[-1] = ahead[-1].argmin()
    for row in range(len(ahead) - 2, -1, -1):
        state, other = path[row + 1], int(ahead[row].argmin())
        path[row] = other if ahead[row, other] + jump < ahead[row, state] else state
    return path
