"""Photo skins on other rigs: each vertex takes the colours of the skin at the same landmarks.

The space around the landmarks of a rig is bent onto those of the rig that the skins were made for;
then each vertex of its skin takes the colours of the nearest vertices there. Identity coefficients
belong to a rig and are not carried over.
"""

from dataclasses import replace

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from sf_jax.render.rig import MATERIALS, Rig, RigShapeError
from sf_jax.render.skin_paint import blend
from sf_jax.render.skins import Skins

NEAREST = 4  # vertices that a colour is the mean of
SKIN = [MATERIALS.index(name) for name in ("skin", "lips", "brow", "hair")]
SMOOTHING = 1e-3  # of the bent space, whose landmarks differ a little in meaning


def transferred(skins: Skins, rig: Rig) -> Skins:
    """The same people on another rig, with its neutral shape.

    Raises:
      RigShapeError: either rig lacks one of the 68 iBUG landmarks.
    """
    for one in (skins.rig, rig):
        if len(one.landmarks) < 68 or (one.landmarks[:68] < 0).any():
            raise RigShapeError(f"{one.name}: skins need a rig with the 68 iBUG landmarks")
    own, theirs = (one.neutral[one.landmarks[:68]].astype(np.float64) for one in (rig, skins.rig))
    centre, size = own.mean(0), float(np.ptp(own[:, 0]))
    where = (own - centre) / size
    bend = RBFInterpolator(where, theirs, kernel="linear", degree=1, smoothing=SMOOTHING)
    source = np.flatnonzero(np.isin(skins.rig.material, SKIN))
    target = np.flatnonzero(np.isin(rig.material, SKIN))
    at = bend((rig.neutral[target] - centre) / size)
    away, near = cKDTree(skins.rig.neutral[source]).query(at, NEAREST)
    weights = 1 / (away + 0.02)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    colours = np.full((len(skins), len(rig.neutral), 3), 128, np.uint8)
    nostrils, bare = skins.regions.mask["nostrils"], skins.regions.plain_vertices
    for number, found in enumerate(skins.colours):
        plain = found.astype(np.float32)
        # The dark of nostrils belongs where a rig has them, which landmarks say only nearly.
        blend(plain, 0.85 * nostrils, np.median(plain[bare], axis=0))
        mean = np.einsum("vn,vnc->vc", weights, plain[source[near]])
        colours[number, target] = np.rint(mean).astype(np.uint8)
    identity = np.zeros((len(skins), len(rig.identity)), np.float32)
    moved = replace(skins, identity=identity, colours=colours, rig=rig)
    moved.__dict__.pop("regions", None)  # those of the other rig
    return moved
