"""The head's three angles as a rotation, and what turning the image does to them.

The rotation of a head is roll about z first, then pitch about x, then yaw about y:
R = Ry(yaw) Rx(pitch) Rz(roll), with the axes and signs of the channel table.
"""

import numpy as np
from jaxtyping import Float

from sf_jax.face.channels import HIGH, INDEX, LOW

STEP = 1e-3  # radians, of derivatives
HEAD = [INDEX["HeadYaw"], INDEX["HeadPitch"], INDEX["HeadRoll"]]


def rotation_of(angles: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3 3"]:
    """Rotation matrices of yaw, pitch and roll in radians."""
    (sy, sp, sr), (cy, cp, cr) = np.sin(angles).T, np.cos(angles).T
    rows = [
        [cy * cr + sy * sp * sr, sy * sp * cr - cy * sr, sy * cp],
        [cp * sr, cp * cr, -sp],
        [cy * sp * sr - sy * cr, sy * sr + cy * sp * cr, cy * cp],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def angles_of(rotations: Float[np.ndarray, "N 3 3"]) -> Float[np.ndarray, "N 3"]:
    """Yaw, pitch and roll in radians, pitch within a quarter turn."""
    pitch = np.arcsin(np.clip(-rotations[:, 1, 2], -1.0, 1.0))
    yaw = np.arctan2(rotations[:, 0, 2], rotations[:, 2, 2])
    roll = np.arctan2(rotations[:, 1, 0], rotations[:, 1, 1])
    return np.stack([yaw, pitch, roll], 1)


def turn_image(coefficients: Float[np.ndarray, "61"], roll: float) -> Float[np.ndarray, "61"]:
    """The coefficients of the same face in an image turned counter-clockwise by `roll` radians.

    The head turns about the axis to the camera; what moves with the head does not change. Angles
    are clipped to their channels' ranges. NaN stays NaN.
    """
    if not roll:
        return coefficients
    angles = _turned(np.asarray(coefficients, np.float64)[None, HEAD], roll)[0]
    out = np.array(coefficients, np.float32)
    out[HEAD] = np.clip(angles, LOW[HEAD], HIGH[HEAD])
    return out


def turn_spread(
    coefficients: Float[np.ndarray, "61"], spread: Float[np.ndarray, "61"], roll: float
) -> Float[np.ndarray, "61"]:
    """Standard deviations of what `turn_image` gives, to first order.

    Args:
      coefficients: before the turn, where the angles' deviations are independent.
    """
    if not roll:
        return spread
    angles, steps = np.asarray(coefficients, np.float64)[HEAD], STEP * np.eye(3)
    derivatives = (_turned(angles + steps, roll) - _turned(angles - steps, roll)) / (2 * STEP)
    out = np.array(spread, np.float32)
    out[HEAD] = np.sqrt(np.square(spread[HEAD]) @ np.square(derivatives))
    return out


def _turned(angles: Float[np.ndarray, "N 3"], roll: float) -> Float[np.ndarray, "N 3"]:
    cos, sin = np.cos(roll), np.sin(roll)
    about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return angles_of(about_z @ rotation_of(angles))
