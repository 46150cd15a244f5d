"""Statistics of arms: means over seeds, their spread, and bootstrap over people.

Two sources of chance are kept apart. The interval of a mean over seeds is by bootstrap over people:
a resample draws the same people for every seed and arm, and measures are averaged over the seeds of
each resample, so that differences between arms are paired. How much training itself varies is the
standard deviation over seeds, beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from sf_jax.face import metrics
from sf_jax.face.bootstrap import Interval, percentiles, resampled
from sf_jax.render import face_error
from sf_jax.render.head import builtin
from sf_jax.systems.semanticface.ablation_reading import EvaluationSet, Values


@dataclass(frozen=True)
class Measure:
    """One measure of one arm on one set.

    Attributes:
      mean: over seeds; seeds: of each.
      interval: of the mean, over people; None where it is not resampled, or all are one person.
      difference, difference_interval: from the reference arm, paired by seed and person; None for
        the reference itself and where there is no interval.
    """

    mean: float
    seeds: tuple[float, ...]
    interval: Interval | None = None
    difference: float | None = None
    difference_interval: Interval | None = None

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; NaN for one seed."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else float("nan")


@dataclass(frozen=True)
class ArmScores:
    """All measures of one arm on one set, by name."""

    measures: Mapping[str, Measure]
    agreement: Mapping[str, float] = field(default_factory=dict)


def scores(
    predicted: Mapping[str, Sequence[Values]],
    faces: EvaluationSet,
    reference: str,
    read: Mapping[str, Bool[np.ndarray, "61"]],
    agreement: Mapping[str, Sequence[Mapping[str, float]]],
) -> dict[str, ArmScores]:
    """Scores of all arms on one set.

    Args:
      predicted: by arm, values of each seed; all arms have the same seeds.
      read: by arm, the channels that it reads; of the others nothing counts.
      agreement: by arm, shares of each seed.
    """
    drawn = {
        name: [_resampled(values, faces, read[name]) for values in each]
        for name, each in predicted.items()
    }
    found = {
        name: [summary(values, faces, read[name]) for values in each]
        for name, each in predicted.items()
    }
    means = _averaged(found[reference])
    return {
        name: ArmScores(
            _measures(
                each,
                drawn[name],
                drawn[reference],
                None if name == reference else means,
            ),
            _averaged(agreement[name]),
        )
        for name, each in found.items()
    }


def _resampled(
    values: Values, faces: EvaluationSet, read: Bool[np.ndarray, "61"]
) -> dict[str, Float[np.ndarray, " R"]]:
    return resampled(values, faces.labels, faces.known & read, faces.person)


def _measures(
    found: Sequence[Mapping[str, float]],
    own: Sequence[Mapping[str, np.ndarray]],
    others: Sequence[Mapping[str, np.ndarray]],
    of_reference: Mapping[str, float] | None,
) -> dict[str, Measure]:
    measures = {}
    for name in found[0]:
        each = tuple(one[name] for one in found)
        measure = Measure(float(np.mean(each)), each)
        if name in own[0]:  # empty where all images are of one person
            mine, theirs = (np.mean([one[name] for one in of], 0) for of in (own, others))
            measure = Measure(measure.mean, each, percentiles(mine))
            if of_reference is not None:
                measure = Measure(
                    measure.mean,
                    each,
                    measure.interval,
                    measure.mean - of_reference[name],
                    percentiles(mine - theirs),
                )
        measures[name] = measure
    return measures


def summary(values: Values, faces: EvaluationSet, read: Bool[np.ndarray, "61"]) -> dict[str, float]:
    """Every measure of one seed: those of `metrics.Scores.summary`, and vertex errors in mm."""
    known = faces.known & read
    found = metrics.evaluate(values, faces.labels, known).summary()
    return dict(found) | face_error.summary(builtin(), values, faces.labels, known, renders=0)


def _averaged(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the seeds that have them."""
    names = dict.fromkeys(name for each in shares for name in each)
    return {name: float(np.mean([each[name] for each in shares if name in each])) for name in names}
