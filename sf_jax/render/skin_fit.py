"""Fits a rig to a portrait's landmarks: a weak-perspective camera, identity, and some expression.

Landmarks are the iBUG 68. The sum of squares of three parts is minimised: distances between the
landmarks and the rig's in units of LANDMARK_CM, identity coefficients, and coefficients of a few
expression shapes in units of EXPRESSION. The last are fitted so that a smile is not taken for a
wide mouth; they are no part of a skin. Camera and coefficients are solved in turns.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sf_jax.face import landmarks as table
from sf_jax.face.channels import INDEX
from sf_jax.render.rig import Rig, RigShapeError

LANDMARK_CM = 0.16  # standard deviation of a landmark about the rig's
EXPRESSION = 0.35  # standard deviation of an expression's coefficient
ROUNDS = 8
JAW_WEIGHT = 0.4  # the jaw line of a photograph is a silhouette, no points of the skin
_SIDED = "EyeBlink EyeWide BrowDown BrowOuterUp MouthSmile MouthFrown MouthStretch MouthPress"
EXPRESSIONS = tuple(
    ["JawOpen", "MouthClose", "BrowInnerUp", "MouthRollLower", "MouthRollUpper"]
    + [stem + side for stem in _SIDED.split() for side in ("Left", "Right")]
    + ["MouthUpperUpLeft", "MouthUpperUpRight", "MouthLowerDownLeft", "MouthLowerDownRight"]
)


@dataclass(frozen=True)
class Fit:
    """A rig seen as a portrait shows it.

    Attributes:
      scale: pixels a centimetre; rotation: [3, 3], from the rig's axes to those of the camera;
      shift: [2], image position of the rig's origin, x right and y down, pixels.
      identity: float32 [I]; expression: float32 [61], of the channels in EXPRESSIONS.
      error_cm: root of the mean squared distance of the landmarks but the jaw line, cm.
    """

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, "2"]
    identity: Float[np.ndarray, " I"]
    expression: Float[np.ndarray, " 61"]
    error_cm: float

    @property
    def yaw(self) -> float:
        """Radians by which the head is turned towards the subject's left."""
        return float(np.arctan2(self.rotation[0, 2], self.rotation[2, 2]))

    @property
    def pitch(self) -> float:
        """Radians by which the head is turned down."""
        return float(np.arcsin(np.clip(-self.rotation[1, 2], -1, 1)))

    def project(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Image position and depth of points of the rig: pixels, y down, and cm towards the eye."""
        seen = points @ self.rotation.T
        x, y = self.scale * seen[:, 0] + self.shift[0], self.shift[1] - self.scale * seen[:, 1]
        return np.stack([x, y, seen[:, 2]], 1)


def _camera(
    points: np.ndarray, image: np.ndarray, weights: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation and shift [2] of the weak-perspective camera, y up.

    The two rows of the affine camera that fits best are replaced by the nearest orthogonal ones of
    one length.
    """
    mean = np.average(points, axis=0, weights=weights), np.average(image, axis=0, weights=weights)
    root = np.sqrt(weights)[:, None]
    rows = np.linalg.lstsq(root * (points - mean[0]), root * (image - mean[1]), rcond=None)[0].T
    left, sizes, right = np.linalg.svd(rows, full_matrices=False)
    two = left @ right
    rotation = np.vstack([two, np.cross(two[0], two[1])])
    scale = float(sizes.mean())
    return scale, rotation, mean[1] - scale * two @ mean[0]


def _bases(rig: Rig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neutral landmarks [68, 3] and their displacements by identity and expression [K, 68, 3]."""
    marks = rig.landmarks[:68]
    if len(marks) < 68 or (marks < 0).any():
        raise RigShapeError(f"{rig.name}: a fit needs a rig with the 68 iBUG landmarks")
    expressions = [INDEX[name] for name in EXPRESSIONS]
    return (
        rig.neutral[marks].astype(np.float64),
        rig.identity[:, marks].astype(np.float64),
        rig.blendshapes[expressions][:, marks].astype(np.float64),
    )


def fit(rig: Rig, landmarks: Float[np.ndarray, "68 2"]) -> Fit:
    """Fits a rig to landmarks in pixels, x right and y down.

    Raises:
      RigShapeError: the rig lacks one of the 68 iBUG landmarks.
      ValueError: a landmark is not known, or all are one point.
    """
    image = np.asarray(landmarks[:68], np.float64) * [1, -1]
    if image.shape != (68, 2) or not np.isfinite(image).all() or np.ptp(image) == 0:
        raise ValueError("a fit needs 68 known landmarks")
    neutral, people, actions = _bases(rig)
    count = len(people)
    basis = np.concatenate([people, actions])
    deviation = np.concatenate([np.ones(count), np.full(len(actions), EXPRESSION)])
    weights = np.ones(68)
    weights[table.JAW] = JAW_WEIGHT
    values = np.zeros(len(basis))
    for _ in range(ROUNDS):
        points = neutral + np.tensordot(values, basis, 1)
        scale, rotation, shift = _camera(points, image, weights)
        target = (image - shift) / scale
        values = _coefficients(neutral, basis, deviation, weights, target, rotation, count)
    points = neutral + np.tensordot(values, basis, 1)
    away = points @ rotation[:2].T - (image - shift) / scale
    error = float(np.sqrt((away[table.JAW.stop :] ** 2).sum(1).mean()))
    expression = np.zeros(len(INDEX), np.float32)
    expression[[INDEX[name] for name in EXPRESSIONS]] = values[count:]
    return Fit(
        scale, rotation, shift * [1, -1], values[:count].astype(np.float32), expression, error
    )


def _coefficients(
    neutral: np.ndarray,
    basis: np.ndarray,
    deviation: np.ndarray,
    weights: np.ndarray,
    target: np.ndarray,
    rotation: np.ndarray,
    count: int,
) -> np.ndarray:
    """Identity and expression [K] that bring the landmarks nearest to target [68, 2], in cm.

    Expressions stay in [0, 1]: those that would leave it are held at the border, and the others
    are solved again.
    """
    root = np.sqrt(weights)[:, None] / LANDMARK_CM
    columns = ((basis @ rotation[:2].T) * root).reshape(len(basis), -1)
    wanted = ((target - neutral @ rotation[:2].T) * root).ravel()
    free = np.ones(len(basis), bool)
    out = np.zeros(len(basis))
    for _ in range(4):
        rest = wanted - out[~free] @ columns[~free]
        some = columns[free]
        normal = some @ some.T + np.diag(deviation[free] ** -2.0)
        out[free] = np.linalg.solve(normal, some @ rest)
        beyond = free & ((out < 0) | (out > 1))
        beyond[:count] = False
        out[count:] = np.clip(out[count:], 0, 1)
        if not beyond.any():
            break
        free &= ~beyond
    return out
