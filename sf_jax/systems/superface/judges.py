"""Simulated judges: they see pictures, and prefer the render that is nearer to the image.

A judge is given an image, two renders and the mask of a region, and nothing else: no coefficients,
and no word of where the pictures are from. How sure it is of its choice follows Bradley and Terry:
the log-odds of the first are the difference of the two distances, in units of the judge's noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import brentq

from sf_jax.media import hashes
from sf_jax.systems.superface.seen import Image, Mask, distance


@dataclass(frozen=True)
class Verdict:
    """A judge's choice and the probability that it had of choosing the first."""

    choice: Literal["first", "second", "tie"]
    first: float


@dataclass(frozen=True)
class Judge:
    """A simulated judge, whose choices are the same for the same seed.

    Attributes:
      noise: difference of two distances at which the nearer one is chosen with odds of e to 1.
      lapse: share of judgements that are made at random.
      left_bias: added to the log-odds of the render at the left.
      fatigue: how much the share of lapses grows over a hundred judgements.
      tie: difference of the distances, in units of the noise, below which a tie is called.
      seed: of all that is drawn; judges of other seeds are other persons.
    """

    noise: float
    lapse: float = 0.0
    left_bias: float = 0.0
    fatigue: float = 0.0
    tie: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.noise > 0:
            raise ValueError(f"noise is {self.noise}, expected more than 0")
        if not 0 <= self.lapse <= 1 or self.fatigue < 0 or self.tie < 0:
            raise ValueError("lapse is from 0 to 1, fatigue and tie are 0 or more")

    def choose(
        self,
        image: Image,
        first: Image,
        second: Image,
        region: Mask,
        *,
        first_at_left: bool = True,
        number: int = 0,
    ) -> Verdict:
        """Judges a pair.

        Args:
          region: the pixels that are compared.
          number: of the judgement in the judge's session, from 0: fatigue grows with it, and a
            repeat of a pair under another number may turn out otherwise.
        """
        farther = gap(image, first, second, region)
        g = np.random.default_rng([31, self.seed, number, _seed_of(image, first, second, region)])
        chance = self.probability(farther, first_at_left, number)
        drawn, lapse = g.random(2)
        if lapse >= self.lapses(number) and abs(farther) < self.tie * self.noise:
            return Verdict("tie", chance)
        if lapse < self.lapses(number):
            return Verdict("first" if drawn < 0.5 else "second", chance)
        return Verdict("first" if drawn < self._sure(farther, first_at_left) else "second", chance)

    def lapses(self, number: int) -> float:
        """Share of random choices at a judgement of the session."""
        return min(1.0, self.lapse + self.fatigue * number / 100)

    def probability(self, gap: float, first_at_left: bool = True, number: int = 0) -> float:
        """Of choosing the first where no tie is called.

        Args:
          gap: distance of the second to the image minus that of the first.
        """
        lapse = self.lapses(number)
        return lapse / 2 + (1 - lapse) * self._sure(gap, first_at_left)

    def _sure(self, gap: float, first_at_left: bool) -> float:
        bias = self.left_bias if first_at_left else -self.left_bias
        return float(1 / (1 + math.exp(-np.clip(gap / self.noise + bias, -60, 60))))

    def with_agreement(self, gaps: Sequence[float], share: float) -> "Judge":
        """This judge with the noise at which it chooses the nearer render in a share of pairs.

        Args:
          gaps: of pairs as they are judged, see `gap`.
          share: above a half and below 1; lapses lower what can be reached.

        Raises:
          ValueError: the share cannot be reached.
        """
        sizes = np.abs(np.asarray(gaps, np.float64))
        sizes = sizes[sizes > 0]
        if not len(sizes):
            raise ValueError("no two renders of the pairs differ in their distance to the image")

        def missing(log_noise: float) -> float:
            judge = replace(self, noise=math.exp(log_noise), left_bias=0.0, fatigue=0.0)
            return float(np.mean([judge.probability(size) for size in sizes])) - share

        low, high = math.log(sizes.min()) - 5, math.log(sizes.max()) + 8
        if not missing(low) > 0 > missing(high):
            most = missing(low) + share
            raise ValueError(f"agreement is {share}, expected above 0.5 and below {most:.3f}")
        return replace(self, noise=math.exp(brentq(missing, low, high)))


def gap(image: Image, first: Image, second: Image, region: Mask) -> float:
    """How much farther the second render is from the image than the first."""
    return distance(image, second, region) - distance(image, first, region)


def _seed_of(*pictures: np.ndarray) -> int:
    return int(hashes.of_arrays(*pictures)[:12], 16)
