"""The 61 coefficients as a cartoonist reads them: pairs of sides, gaze, the head's turn."""

from dataclasses import dataclass

import numpy as np

from sf_jax.face.channels import BLENDSHAPES, INDEX
from sf_jax.render.rig import LOOK_RADIANS, eye_angles

Pair = tuple[float, float]  # the subject's right, which is the image's left, then the left
SIDES = (-1, 1)  # of x: the subject's right and left


@dataclass(frozen=True)
class Action:
    """What a face does, exaggerated as its style does.

    Attributes:
      values: float [61], canonical order; coefficients may exceed 1 where a style exaggerates.
      gaze: [2, 2], right and left eye; x to the image's right and y down, 1 at LOOK_RADIANS.
      yaw, pitch, roll: of the head, radians, in the channel table's order of turns.
    """

    values: np.ndarray
    gaze: np.ndarray
    yaw: float
    pitch: float
    roll: float

    def one(self, name: str) -> float:
        """A channel's value."""
        return float(self.values[INDEX[name]])

    def pair(self, stem: str) -> Pair:
        """The values of a channel's two sides, right and left."""
        return float(self.values[INDEX[stem + "Right"]]), float(self.values[INDEX[stem + "Left"]])


def read(coefficients: np.ndarray, known: np.ndarray, strength: float, gamma: float) -> Action:
    """Coefficients as an action; channels that the style does not show count as 0.

    Args:
      coefficients: float [61] in canonical order.
      known: bool [61].
      strength: of the whole face's motion, 1 for what each part draws at a coefficient of 1.
      gamma: exponent of the coefficients; below 1 small ones are exaggerated.
    """
    values = np.where(known, coefficients, 0.0).astype(np.float64)
    values[BLENDSHAPES] = strength * np.clip(values[BLENDSHAPES], 0, 1) ** gamma
    angles = eye_angles(np.where(known, coefficients, 0.0))[::-1, :2] / LOOK_RADIANS
    return Action(
        values=values,
        gaze=angles.astype(np.float64),
        yaw=float(values[INDEX["HeadYaw"]]),
        pitch=float(values[INDEX["HeadPitch"]]),
        roll=float(values[INDEX["HeadRoll"]]),
    )
