"""How well held-out judgements are predicted: by a policy, or by a reward model."""

import numpy as np
from jaxtyping import Float, PyTree

from sf_jax.systems.superface.examples import PairGroups
from sf_jax.train.calibration import Reliability, reliability
from sf_jax.train.preference import PreferenceTask, answer_log_probabilities


def margins(task: PreferenceTask, weights: PyTree, groups: PairGroups) -> Float[np.ndarray, " N"]:
    """By how many nats a policy has raised the chosen answer of each pair over the rejected one.

    Args:
      weights: of the whole model.
      groups: with the log-probabilities of the reference.

    Raises:
      ValueError: the groups have no reference.
    """
    if groups.reference is None:
        raise ValueError("the pairs have no reference; see `reference.with_reference`")
    found = answer_log_probabilities(task, weights, map(groups.group, range(len(groups))))
    ratios = found - groups.reference
    return ratios[:, 0] - ratios[:, 1]


def scores(found: Float[np.ndarray, " N"], groups: PairGroups) -> dict[str, float]:
    """Agreement with judgements, a share, and the mean margin; ties count for neither.

    Args:
      found: by how much the chosen answer of each pair is ahead of the rejected one.
    """
    weights = np.array([one.weight * (1 - 2 * one.label_smoothing) for one in groups.judged])
    total = max(float(weights.sum()), 1e-9)
    agreed = (np.sign(found) + 1) / 2
    return {
        "agreement": float((agreed * weights).sum() / total),
        "margin": float((found * weights).sum() / total),
    }


def calibration(
    found: Float[np.ndarray, " N"], groups: PairGroups, scale: float = 1.0, bins: int = 10
) -> Reliability:
    """Whether judgements fall as often as is predicted, by the model of Bradley and Terry.

    The outcome is that the first of a pair is chosen, which is either one by chance.

    Args:
      found: as in `scores`; scale: factor that makes log-odds of them: 1 of a reward model's
        scores, beta of a policy's margins.
    """
    first = np.array([one.chosen == "first" for one in groups.judged])
    smoothing = np.array([one.label_smoothing for one in groups.judged])
    odds = scale * np.where(first, found, -found)
    outcomes = np.where(first, 1 - smoothing, smoothing)
    weights = np.array([one.weight for one in groups.judged])
    return reliability(0.5 * (1 + np.tanh(odds / 2)), outcomes, weights, bins)
