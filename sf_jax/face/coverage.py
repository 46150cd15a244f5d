"""Whether distributions are as wide as they should be: coverage by the randomised PIT.

The probability integral transform (PIT) of a label is the probability of values below it. Values
are discrete here, so a share, drawn at random, of the label's own probability is added (randomised
PIT). It is uniform where distributions are calibrated: the central 80 % then hold 80 % of labels.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from sf_jax.face.channels import BLENDSHAPES, NAMES
from sf_jax.face.metrics import ACTIVE

CENTRAL = 0.8
SEED = 0


@dataclass(frozen=True)
class Coverage:
    """The share of labels within the central 80 % of the distributions.

    Attributes:
      all: over all known labels; active: over those of blendshapes above 0.2. NaN where there are
        none.
      by_channel: [61] over all known labels of a channel.
    """

    all: float
    active: float
    by_channel: Float[np.ndarray, "61"]


def pit(
    probabilities: Float[np.ndarray, "N 61 V"],
    values: Float[np.ndarray, "61 V"],
    labels: Float[np.ndarray, "N 61"],
    seed: int = SEED,
) -> Float[np.ndarray, "N 61"]:
    """The randomised PIT of each label, taken as the nearest value that a channel can have.

    Args:
      probabilities: of the values of each channel, 0 where there is no value.
      values: of each channel in rising order; NaN where there are no more.
    """
    distance = np.abs(np.where(np.isnan(values), np.inf, values)[None] - labels[..., None])
    nearest = distance.argmin(-1)[..., None]
    own = np.take_along_axis(probabilities, nearest, -1)[..., 0]
    upto = np.take_along_axis(np.cumsum(probabilities, -1, np.float64), nearest, -1)[..., 0]
    return upto - own * np.random.default_rng(seed).random(labels.shape)


def coverage(
    transformed: Float[np.ndarray, "N 61"],
    labels: Float[np.ndarray, "N 61"],
    known: Bool[np.ndarray, "N 61"],
) -> Coverage:
    """How many labels are within the central 80 %.

    Args:
      transformed: of `pit`; NaN where there was no distribution, which is not counted.
    """
    counted = known & np.isfinite(transformed)
    margin = (1 - CENTRAL) / 2
    within = counted & (transformed >= margin) & (transformed <= 1 - margin)
    active = counted & (labels > ACTIVE)
    active[:, BLENDSHAPES.stop :] = False

    def share(of: np.ndarray) -> float:
        return float(within[of].mean()) if of.any() else float("nan")

    each = np.array([share(counted & (np.arange(len(NAMES)) == i)) for i in range(len(NAMES))])
    return Coverage(share(counted), share(active), each)
