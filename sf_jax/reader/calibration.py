"""How much wider a model's distributions should be, from a file of the model directory.

A model is surer than it should be, most of all of actions that it takes for rest. `sf-jax
calibrate` finds a share w for each channel on labelled faces: a distribution p over n values
becomes (1 - w) p + w / n, in which no value is impossible. Coefficients stay the means of p, while
spread, entropy and probabilities change. The file holds for the weights that were measured alone,
and is ignored beside others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32

from sf_jax.face.channels import BLENDSHAPES, NAMES
from sf_jax.face.coverage import CENTRAL, pit
from sf_jax.face.metrics import ACTIVE
from sf_jax.media.errors import DataError
from sf_jax.reader import measured

FILE = "calibration.json"
SHARES = np.arange(51) / 100  # that are tried
LEAST, LEAST_ACTIVE = 200, 20  # labels: fewer say little of a channel


class CalibrationError(DataError):
    """A file of shares that cannot be read, or labels that none can be found on."""


class Stored(measured.Measured):
    """The fields of the file: hash of the weights, faces measured, share of each channel."""

    faces: int
    shares: dict[str, float]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Attributes:
    share: of a uniform distribution in each channel, in canonical order; 0 changes nothing.
    """

    share: Float32[np.ndarray, "61"]

    def apply(
        self,
        probabilities: Float[np.ndarray, "*N 61 V"],
        values: Float[np.ndarray, "61 V"],
    ) -> Float32[np.ndarray, "*N 61 V"]:
        """Calibrated probabilities of the values of each channel.

        Args:
          probabilities: NaN where a channel is not read; values: NaN where there are no more.
        """
        share = self.share[:, None]
        return ((1 - share) * probabilities + share * uniform(values)).astype(np.float32)


def uniform(values: Float[np.ndarray, "61 V"]) -> Float[np.ndarray, "61 V"]:
    """The distribution in which all values of a channel are alike; 0 where there are no more."""
    there = np.isfinite(values)
    return there / np.maximum(there.sum(-1, keepdims=True), 1)


def moments(
    probabilities: Float[np.ndarray, "61 V"],
    values: Float[np.ndarray, "61 V"],
    mean: Float[np.ndarray, "61"],
) -> tuple[Float32[np.ndarray, "61"], Float32[np.ndarray, "61"]]:
    """Root mean square distance from `mean`, and entropy (nats), of each channel's distribution.

    NaN is kept.
    """
    p = np.asarray(probabilities, np.float64)
    spread = np.sqrt((p * np.nan_to_num(values - mean[:, None]) ** 2).sum(-1))
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(-1)
    return spread.astype(np.float32), entropy.astype(np.float32)


def fit(
    probabilities: Float[np.ndarray, "N 61 V"],
    values: Float[np.ndarray, "61 V"],
    labels: Float[np.ndarray, "N 61"],
    known: Bool[np.ndarray, "N 61"],
) -> Float32[np.ndarray, "61"]:
    """The share of each channel with which the central 80 % hold as near 80 % as they can, both of
    all labels and of active ones: the larger of the two distances is the least.

    Channels with few labels keep share 0; those with few active ones are widened until the central
    80 % hold 80 % of all. Angles keep share 0 too: their errors are a small part of the range from
    -1 to 1, over which a uniform share would spread them.

    Args:
      probabilities: as generated, NaN where there was no answer; values: see `Calibration.apply`.
    """
    flat = np.where(np.isfinite(probabilities), uniform(values), np.nan)
    own, other = (pit(each, values, labels) for each in (probabilities, flat))
    margin = (1 - CENTRAL) / 2
    shares = np.zeros(len(NAMES), np.float32)
    for channel in range(BLENDSHAPES.stop):
        counted = known[:, channel] & np.isfinite(own[:, channel])
        if counted.sum() < LEAST:
            continue
        first, second = own[counted, channel], other[counted, channel]
        mixed = (1 - SHARES[:, None]) * first + SHARES[:, None] * second
        within = (mixed >= margin) & (mixed <= 1 - margin)
        covered = within.mean(1)
        away = np.maximum(0, CENTRAL - covered)
        active = labels[counted, channel] > ACTIVE
        if active.sum() >= LEAST_ACTIVE:
            away = np.maximum(
                np.abs(CENTRAL - covered), np.abs(CENTRAL - within[:, active].mean(1))
            )
        shares[channel] = SHARES[away.argmin()]
    return shares


def stored(shares: Float32[np.ndarray, "61"], weights: str | None, faces: int) -> Stored:
    """The content of the file."""
    by_name = {name: round(float(each), 3) for name, each in zip(NAMES, shares, strict=True)}
    return Stored(weights=weights, faces=faces, shares=by_name)


def load(folder: Path, weights: Callable[[], str | None] = lambda: None) -> Calibration | None:
    """The calibration of a model directory.

    Args:
      weights: gives the hash of the weights that were loaded, where it is known; it may take long,
        so it is asked for only where there is a file.

    Returns:
      None where the directory has no such file, or one of other weights.

    Raises:
      CalibrationError: the file is damaged; names the field.
    """
    path = folder / FILE
    found = measured.read(path, Stored, CalibrationError, weights)
    if found is None:
        return None
    share = np.zeros(len(NAMES), np.float32)
    for name, value in found.shares.items():
        if name not in NAMES:
            raise CalibrationError(f"{name!r} is no channel", path=path, field="shares")
        if not 0 <= value <= SHARES[-1]:
            problem = f"{value:g} is not from 0 to {SHARES[-1]:g}"
            raise CalibrationError(problem, path=path, field=f"shares.{name}")
        share[NAMES.index(name)] = value
    return Calibration(share)
