"""How much wider a model's distributions should be, from a file of the model directory.

A model is surer of the people it learnt from than it can be of others. `sf-jax calibrate` finds one
temperature T for each channel on labelled faces: a distribution p over values v becomes p^(1/T)
e^(l v), with l such that its mean stays what it was. So coefficients do not change, while spread,
entropy and probabilities do. The file holds for the weights that were measured alone, and is
ignored beside others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.optimize import minimize_scalar

from sf_jax.face.channels import NAMES
from sf_jax.media.errors import DataError
from sf_jax.reader import measured

FILE = "calibration.json"
RANGE = (0.5, 4.0)  # of temperatures
LEAST = 200  # labels, of which a tenth active: fewer say little of a channel
ACTIVE = 0.05  # a label this far from rest is active
STEEPEST, HALVINGS = 400.0, 32  # the search for l
SMALLEST = 1e-12  # probability of a value


class CalibrationError(DataError):
    """A file of temperatures that cannot be read, or labels that none can be found on."""


class Stored(measured.Measured):
    """The fields of the file: hash of the weights, faces measured, temperature of each channel."""

    faces: int
    temperatures: dict[str, float]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Attributes:
    temperature: of each channel in canonical order; 1 leaves a distribution as it is.
    """

    temperature: Float32[np.ndarray, "61"]

    def apply(
        self, probabilities: Float[np.ndarray, "61 V"], values: Float[np.ndarray, "61 V"]
    ) -> Float32[np.ndarray, "61 V"]:
        """Calibrated probabilities of the values of each channel.

        Args:
          probabilities: NaN where a channel is not read; values: NaN where there are no more.
        """
        changed = (self.temperature != 1) & np.isfinite(probabilities[:, 0])
        out = np.array(probabilities, np.float32)
        part = probabilities[changed], values[changed], self.temperature[changed, None]
        out[changed] = tempered(*part)
        return out


def tempered(
    probabilities: Float[np.ndarray, "*N V"],
    values: Float[np.ndarray, "*N V"],
    temperature: Float[np.ndarray, "*N 1"] | float,
) -> Float[np.ndarray, "*N V"]:
    """Distributions of another temperature and the same mean.

    Args:
      values: in rising order; NaN where there are no more, or broadcast to `probabilities`.
    """
    p = np.asarray(probabilities, np.float64)
    there = np.isfinite(values)
    v = np.where(there, values, 0.0)
    mean = (p * v).sum(-1, keepdims=True)
    logs = np.where(there, np.log(np.maximum(p, SMALLEST)) / temperature, -np.inf)

    def at(tilt: Float[np.ndarray, "*N 1"]) -> Float[np.ndarray, "*N V"]:
        tilted = logs + tilt * v
        found = np.exp(tilted - tilted.max(-1, keepdims=True))
        return found / found.sum(-1, keepdims=True)

    low, high = np.full_like(mean, -STEEPEST), np.full_like(mean, STEEPEST)
    for _ in range(HALVINGS):  # the mean rises with the tilt
        middle = (low + high) / 2
        below = (at(middle) * v).sum(-1, keepdims=True) < mean
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return at((low + high) / 2)


def moments(
    probabilities: Float[np.ndarray, "61 V"], values: Float[np.ndarray, "61 V"]
) -> tuple[Float32[np.ndarray, "61"], Float32[np.ndarray, "61"]]:
    """Standard deviation and entropy (nats) of each channel's distribution; NaN is kept."""
    v, p = np.nan_to_num(values), np.asarray(probabilities, np.float64)
    mean = (p * v).sum(-1)
    spread = np.sqrt(np.maximum((p * v**2).sum(-1) - mean**2, 0))
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(-1)
    return spread.astype(np.float32), entropy.astype(np.float32)


def fit(
    probabilities: Float[np.ndarray, "N 61 V"],
    values: Float[np.ndarray, "61 V"],
    labels: Float[np.ndarray, "N 61"],
    known: Bool[np.ndarray, "N 61"],
) -> Float32[np.ndarray, "61"]:
    """The temperature of each channel under which labels are likeliest.

    A label between two values is shared between them by nearness, as it is in training. Channels
    with few labels, or few active ones, keep temperature 1.

    Args:
      probabilities: as generated, NaN where there was no answer; values: see `Calibration.apply`.
    """
    temperatures = np.ones(len(NAMES), np.float32)
    for channel in range(len(NAMES)):
        counted = known[:, channel] & np.isfinite(probabilities[:, channel, 0])
        label = labels[counted, channel]
        if len(label) < LEAST or (np.abs(label) > ACTIVE).sum() < LEAST / 10:
            continue
        own = values[channel][np.isfinite(values[channel])]
        temperatures[channel] = _temperature(
            probabilities[counted, channel, : len(own)], own, label
        )
    return temperatures


def _temperature(
    probabilities: Float[np.ndarray, "N V"],
    values: Float[np.ndarray, " V"],
    labels: Float[np.ndarray, " N"],
) -> float:
    """The temperature of one channel."""
    step = values[1] - values[0]
    clipped = np.clip(labels, values[0], values[-1])
    target = np.maximum(1 - np.abs(clipped[:, None] - values) / step, 0)
    grid = np.broadcast_to(values, probabilities.shape)

    def loss(log_temperature: float) -> float:
        found = tempered(probabilities, grid, float(np.exp(log_temperature)))
        return float(-(target * np.log(np.maximum(found, SMALLEST))).sum(-1).mean())

    bounds = tuple(np.log(RANGE))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.02})
    return float(np.exp(found.x))


def stored(temperatures: Float32[np.ndarray, "61"], weights: str | None, faces: int) -> Stored:
    """The content of the file."""
    by_name = {name: round(float(t), 3) for name, t in zip(NAMES, temperatures, strict=True)}
    return Stored(weights=weights, faces=faces, temperatures=by_name)


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
    temperature = np.ones(len(NAMES), np.float32)
    for name, value in found.temperatures.items():
        if name not in NAMES:
            raise CalibrationError(f"{name!r} is no channel", path=path, field="temperatures")
        if not RANGE[0] <= value <= RANGE[1]:
            problem = f"{value:g} is not from {RANGE[0]:g} to {RANGE[1]:g}"
            raise CalibrationError(problem, path=path, field=f"temperatures.{name}")
        temperature[NAMES.index(name)] = value
    return Calibration(temperature)
