"""Whether probabilities of two outcomes are right as often as they say."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predicted probabilities beside how often the outcome came true; the data of a reliability
    diagram.

    Attributes:
      edges: [M + 1] of equally wide bins of predicted probability, from 0 to 1.
      predicted: mean probability within each bin; observed: share of the outcomes that came true.
        NaN where a bin is empty.
      weight: of the predictions in each bin.
      accuracy: share of the outcomes that the likelier side gave; a probability of 0.5 counts half,
        and outcomes of 0.5 are left out.
      log_loss: mean negative log-likelihood, in nats; 0.693 by chance.
      error: expected calibration error, the mean distance of predicted and observed over bins
        (Naeini et al., 2015, "Obtaining well calibrated probabilities using Bayesian binning").
    """

    edges: Float[np.ndarray, " M+1"]
    predicted: Float[np.ndarray, " M"]
    observed: Float[np.ndarray, " M"]
    weight: Float[np.ndarray, " M"]
    accuracy: float
    log_loss: float
    error: float


def reliability(
    probabilities: Float[np.ndarray, " N"],
    outcomes: Float[np.ndarray, " N"],
    weights: Float[np.ndarray, " N"] | None = None,
    bins: int = 10,
) -> Reliability:
    """How probabilities compare with outcomes.

    Args:
      probabilities: that an outcome is 1; outcomes: 0 to 1, 0.5 for a tie.
      weights: of the predictions, by default all alike.

    Raises:
      ValueError: there are none, or a probability is not from 0 to 1.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    w = np.ones_like(p) if weights is None else np.asarray(weights, np.float64)
    if not len(p) or not w.sum() > 0:
        raise ValueError("no predictions to compare with outcomes")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"a probability is {p[~((p >= 0) & (p <= 1))][0]}, expected 0 to 1")
    at = np.minimum((p * bins).astype(int), bins - 1)
    total, sum_p, sum_y = (np.bincount(at, each, bins) for each in (w, w * p, w * y))
    with np.errstate(invalid="ignore"):
        predicted, observed = sum_p / total, sum_y / total
    decided = w * (y != 0.5)
    right = 0.5 + 0.5 * np.sign(p - 0.5) * np.sign(y - 0.5)
    safe = np.clip(p, 1e-12, 1 - 1e-12)
    losses = -(y * np.log(safe) + (1 - y) * np.log(1 - safe))
    return Reliability(
        np.linspace(0, 1, bins + 1),
        predicted,
        observed,
        total,
        float((right * decided).sum() / decided.sum()) if decided.sum() else float("nan"),
        float((losses * w).sum() / w.sum()),
        float(np.abs(sum_p - sum_y).sum() / w.sum()),
    )
