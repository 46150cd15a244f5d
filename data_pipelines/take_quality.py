"""What the labels of a take are worth, channel by channel: dead, saturated, jittery, one-sided."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sf_jax.face.channels import BLENDSHAPES, NAMES, PAIRS
from sf_jax.face.labels import Labels

DEAD = 1e-3  # standard deviation of a channel that does not move
FULL = 0.99  # from which on a coefficient is at its end
SATURATED = 0.02  # share of rows at the end, from which on a channel is named
JITTER = 0.02  # mean |second difference| from which on a channel is named
MOVES = 0.02  # standard deviation of a channel whose sides are compared
AGREE = 0.5  # correlation of two sides, below which they are named
SHOWN = 12  # channels in a sentence

# Gaze, jaw and mouth move to one side as a whole, so that left and right are no sides there.
TURNED = ("EyeLookIn", "EyeLookOut", "JawLeft", "JawRight", "MouthLeft", "MouthRight")
SIDES = tuple(pair for pair in PAIRS if not NAMES[pair[0]].startswith(TURNED))


@dataclass(frozen=True)
class Quality:
    """Measures of R rows of labels; NaN where a channel is not known.

    Attributes:
      rows: R.
      known: share of rows in which each channel is known.
      low, middle, high: the 5th, 50th and 95th percentile of each channel.
      deviation: standard deviation. zeros: share of rows at 0. full: share of rows at the end.
      jitter: mean |second difference| of consecutive rows; all NaN without times.
      agreement: correlation of the sides, in the order of `SIDES`; NaN where either does not move.
      difference: mean of left minus right.
    """

    rows: int
    known: Float[np.ndarray, "61"]
    low: Float[np.ndarray, "61"]
    middle: Float[np.ndarray, "61"]
    high: Float[np.ndarray, "61"]
    deviation: Float[np.ndarray, "61"]
    zeros: Float[np.ndarray, "61"]
    full: Float[np.ndarray, "61"]
    jitter: Float[np.ndarray, "61"]
    agreement: Float[np.ndarray, " P"]
    difference: Float[np.ndarray, " P"]

    @property
    def dead(self) -> list[str]:
        """Channels that are known and never move."""
        return [NAMES[i] for i in np.flatnonzero((self.known > 0) & (self.deviation < DEAD))]

    @property
    def saturated(self) -> list[str]:
        """Blendshapes that are often at their end."""
        return [NAMES[i] for i in np.flatnonzero(self.full[BLENDSHAPES] > SATURATED)]

    @property
    def jittery(self) -> list[str]:
        """Blendshapes that tremble, the worst first."""
        worst = np.argsort(-np.nan_to_num(self.jitter[BLENDSHAPES]), kind="stable")
        return [NAMES[i] for i in worst if self.jitter[i] > JITTER]

    @property
    def one_sided(self) -> list[str]:
        """Pairs whose sides move, but not together, by the name of the left one."""
        return [NAMES[SIDES[i][0]] for i in np.flatnonzero(self.agreement < AGREE)]

    def sentences(self) -> list[str]:
        """What deserves a person's attention."""
        named = {
            "channels that never move (--mask leaves them out)": self.dead,
            f"channels at their end in more than {SATURATED:.0%} of the rows": self.saturated,
            f"channels whose mean |second difference| is above {JITTER}": self.jittery,
            f"channels whose left and right correlate below {AGREE}": self.one_sided,
        }
        return [f"{what}: {_listed(names)}" for what, names in named.items() if names]

    def as_json(self) -> dict[str, object]:
        """Measures by channel, those that are not known left out; and the channels named."""
        fields = ("known", "low", "middle", "high", "deviation", "zeros", "full", "jitter")
        by_channel = {
            name: {
                field: round(float(getattr(self, field)[i]), 6)
                for field in fields
                if np.isfinite(getattr(self, field)[i])
            }
            for i, name in enumerate(NAMES)
        }
        sides = {
            NAMES[left]: {"r": round(float(r), 4), "left_minus_right": round(float(apart), 6)}
            for (left, _), r, apart in zip(SIDES, self.agreement, self.difference, strict=True)
            if np.isfinite(r)
        }
        return {
            "rows": self.rows,
            "dead": self.dead,
            "saturated": self.saturated,
            "jittery": self.jittery,
            "one_sided": self.one_sided,
            "sides": sides,
            "channels": by_channel,
        }


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def measure(labels: Labels, rows: Int[np.ndarray, " R"]) -> Quality:
    """The quality of some rows of a file."""
    values, known = labels.coefficients[rows], labels.known[rows]
    some = np.asarray(known.any(0))
    low, middle, high, deviation = (np.full(len(NAMES), np.nan) for _ in range(4))
    zeros, full = np.full(len(NAMES), np.nan), np.full(len(NAMES), np.nan)
    if some.any():
        part = values[:, some]
        low[some], middle[some], high[some] = np.nanpercentile(part, (5, 50, 95), axis=0)
        deviation[some] = np.nanstd(part, axis=0)
        count = known[:, some].sum(0)
        zeros[some] = (part == 0).sum(0) / count
        full[some] = (part >= FULL).sum(0) / count
    agreement, difference = _sides(values, deviation)
    return Quality(
        len(rows),
        known.mean(0),
        low,
        middle,
        high,
        deviation,
        zeros,
        full,
        _jitter(labels, rows, some),
        agreement,
        difference,
    )


def _jitter(
    labels: Labels, rows: Int[np.ndarray, " R"], some: Bool[np.ndarray, "61"]
) -> Float[np.ndarray, "61"]:
    """Over rows that follow one another in the file, each with both neighbours known."""
    out = np.full(len(NAMES), np.nan)
    if labels.seconds is None and labels.numbers is None:
        return out
    inner = rows[(rows > 0) & (rows < len(labels.lines) - 1)]
    if not len(inner):
        return out
    values = labels.coefficients
    second = np.abs(values[inner - 1] - 2 * values[inner] + values[inner + 1])
    kept = some & np.isfinite(second).any(0)
    out[kept] = np.nanmean(second[:, kept], axis=0)
    return out


def _sides(
    values: Float[np.ndarray, "R 61"], deviation: Float[np.ndarray, "61"]
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    agreement, difference = np.full(len(SIDES), np.nan), np.full(len(SIDES), np.nan)
    for i, (left, right) in enumerate(SIDES):
        both = np.isfinite(values[:, left]) & np.isfinite(values[:, right])
        if both.sum() < 3 or not min(deviation[left], deviation[right]) > MOVES:
            continue
        x, y = values[both, left], values[both, right]
        difference[i] = float(np.mean(x - y))
        if min(x.std(), y.std()) > 0:
            agreement[i] = float(np.corrcoef(x, y)[0, 1])
    return agreement, difference
