"""What a rig can show, found from the motion of its shapes."""

import numpy as np
from jaxtyping import Bool, Float

from sf_jax.face.channels import ANGLES, BLENDSHAPES, INDEX, NAMES

LEAST = 0.004  # of the height of the face, that the most moved vertices must move
VERTICES = 6  # that must move as far
GAZE = [i for name, i in INDEX.items() if "EyeLook" in name or name[:7] in ("LeftEye", "RightEy")]


def known_channels(
    blendshapes: Float[np.ndarray, "52 V 3"],
    drawn: Bool[np.ndarray, " V"],
    height: float,
    eyeballs: bool,
) -> Bool[np.ndarray, " 61"]:
    """Which channels move something that is drawn.

    Args:
      drawn: vertices of triangles that are drawn.
      height: of the face, brows to chin, in the unit of the displacements.
      eyeballs: whether the rig has eyeballs, which show the gaze channels by turning.
    """
    known = np.zeros(len(NAMES), bool)
    for i, shape in enumerate(blendshapes):
        squares = np.square(shape[drawn]).sum(-1)
        if len(squares) > VERTICES:
            reached = np.partition(squares, -VERTICES)[-VERTICES]
            known[BLENDSHAPES][i] = reached > (LEAST * height) ** 2
    known[ANGLES] = True
    known[GAZE] = eyeballs
    return known
