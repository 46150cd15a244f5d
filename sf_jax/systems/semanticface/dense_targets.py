"""Dense targets of rendered faces: what `train.losses.readout` learns from a face record."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from einops import rearrange

from sf_jax.face import channels, landmarks
from sf_jax.model.config import VisionConfig
from sf_jax.render.draw import BACKGROUND
from sf_jax.render.rig import MATERIALS
from sf_jax.train.losses.readout import DenseTargets, Readout, ReadoutConfig, initialise_readout

CELLS = 4  # a side of a patch, of the material map in a record


def readout_config(**weights: float) -> ReadoutConfig:
    """The read-out of the 70 landmarks and the materials, with these loss weights."""
    return ReadoutConfig(
        landmarks=landmarks.COUNT,
        part_classes=len(MATERIALS) + 1,  # and background
        part_cells=CELLS**2,
        **weights,  # type: ignore[arg-type]
    )


def dense_targets(records: Sequence[dict[str, Any]]) -> DenseTargets:
    """The targets of rendered records, in the order of the patches of their images."""
    parts = np.stack([record["parts"] for record in records])
    parts = np.where(parts == BACKGROUND, len(MATERIALS), parts).astype(np.int32)
    side = CELLS
    targets: dict[str, Any] = dict(
        coefficients=np.stack([record["coefficients"] for record in records]),
        landmarks=np.stack([record["landmarks"] for record in records]).astype(np.float32),
        parts=rearrange(parts, "n (h a c) (w b d) -> n (h w a b) (c d)", a=2, b=2, c=side, d=side),
        known=np.array([record["dense"] for record in records], np.float32),
    )
    return DenseTargets(**targets)


def initial_readout(vision: VisionConfig, config: ReadoutConfig, rare: float, seed: int) -> Readout:
    """A fresh read-out. Blendshapes start at the logit `rare`, as most faces show few of them;
    angles at zero, landmarks in the middle of the image."""
    bias = np.full((len(channels.NAMES) + config.landmarks, 2), 0.5)
    bias[channels.BLENDSHAPES] = rare
    bias[channels.ANGLES] = 0.0
    return initialise_readout(vision, config, bias, seed)
