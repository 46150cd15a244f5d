"""How far two sets of coefficients are apart as faces: vertices in millimetres, and renders.

Both are measured on one rig at rest in its own identity, seen from the front: head and eyeball
angles have no part, and channels whose labels are not known are equal on both sides.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from skimage.metrics import structural_similarity

from sf_jax.face import landmarks
from sf_jax.face.channels import ANGLES, BLENDSHAPES
from sf_jax.render.draw import draw
from sf_jax.render.rig import MATERIALS, Rig, RigShapeError
from sf_jax.render.scene import Scene

REGIONS = {"lips": landmarks.LIPS, "lids": landmarks.EYELIDS, "brows": landmarks.BROWS}
NEAR = 0.06  # of the face's height: how far from a landmark the vertices of its region are
SURFACE = ("skin", "lips", "brow", "lash")
SIDE = 128  # of a render, pixels
MILLIMETRES = 10.0  # a centimetre

Values = Float[np.ndarray, "N 61"]


def regions(rig: Rig) -> dict[str, Int[np.ndarray, " M"]]:
    """The vertices of lips, lids and brows: those near their landmarks.

    Raises:
      RigShapeError: the rig has no landmarks there.
    """
    marks = rig.marks(rig.neutral)
    surface = np.isin(rig.material, [MATERIALS.index(name) for name in SURFACE])
    found = {}
    for name, of in REGIONS.items():
        known = marks[of][np.isfinite(marks[of]).all(1)]
        if not len(known):
            raise RigShapeError(f"{rig.name}: has no landmarks of the {name}")
        distance = np.linalg.norm(rig.neutral[:, None] - known[None], axis=-1).min(1)
        found[name] = np.flatnonzero(surface & (distance < NEAR * rig.height()))
    return found


def vertex_error(
    rig: Rig, predicted: Values, labels: Values, known: Bool[np.ndarray, "N 61"]
) -> Mapping[str, Float[np.ndarray, " N"]]:
    """Mean distance between vertices of the two faces, in millimetres, by region of `regions`.

    Raises:
      RigShapeError: the rig is a varied one, which coefficients do not deform linearly, or has no
        landmarks.
    """
    if rig.warp is not None or rig.style is not None:
        raise RigShapeError(f"{rig.name}: vertex errors are measured on a rig that is not varied")
    difference = np.where(known, np.asarray(predicted, np.float64) - labels, 0.0)[:, BLENDSHAPES]
    errors = {}
    for name, vertices in regions(rig).items():
        fields = rig.blendshapes[:, vertices].reshape(len(rig.blendshapes), -1)
        moved = (difference @ fields).reshape(len(difference), -1, 3)
        errors[name] = MILLIMETRES * np.linalg.norm(moved, axis=-1).mean(1)
    return errors


def render_similarity(
    rig: Rig, predicted: Values, labels: Values, known: Bool[np.ndarray, "N 61"]
) -> Float[np.ndarray, " N"]:
    """Structural similarity (SSIM, Wang et al. 2004) of renders of the two faces, 1 where equal.

    Values are limited to their channels' ranges, as an avatar would.
    """
    scene, pairs = Scene(), np.stack([np.where(known, predicted, labels), labels])
    pairs[..., ANGLES] = 0.0
    pairs[..., BLENDSHAPES] = np.clip(pairs[..., BLENDSHAPES], 0.0, 1.0)
    found = []
    for one in pairs.astype(np.float32).transpose(1, 0, 2):
        first, second = (draw(rig, face, scene, SIDE, SIDE).image for face in one)
        found.append(structural_similarity(first, second, channel_axis=-1))
    return np.array(found)


def summary(
    rig: Rig, predicted: Values, labels: Values, known: Bool[np.ndarray, "N 61"], renders: int
) -> dict[str, float]:
    """Means over faces: "lips_mm", "lids_mm", "brows_mm", and "ssim" over the first `renders`."""
    errors = vertex_error(rig, predicted, labels, known)
    found = {f"{name}_mm": float(each.mean()) for name, each in errors.items()}
    if renders:
        first = (part[:renders] for part in (predicted, labels, known))
        found["ssim"] = float(render_similarity(rig, *first).mean())
    return found
