"""Dense targets of rendered faces: what `train.losses.readout` learns from a face record."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Int

from sf_jax.face import channels, landmarks
from sf_jax.model.config import VisionConfig
from sf_jax.render.draw import BACKGROUND
from sf_jax.render.rig import MATERIALS
from sf_jax.train.losses.readout import DenseTargets, Readout, ReadoutConfig, initialise_readout

CELLS = 4  # a side of a patch


def readout_config(**weights: float) -> ReadoutConfig:
    """The read-out of the 70 landmarks and the materials, with these loss weights."""
    return ReadoutConfig(
        landmarks=landmarks.COUNT,
        part_classes=len(MATERIALS) + 1,  # and background
        part_cells=CELLS**2,
        **weights,  # type: ignore[arg-type]
    )


_ALL = np.ones(len(channels.NAMES), bool)


def _parts(record: dict[str, Any], cells: int) -> Int[np.ndarray, "cells cells"]:
    """The class of each cell of a record's image, -1 where it is not known."""
    if "parts" not in record:
        return np.full((cells, cells), -1, np.int32)
    parts = record["parts"].astype(np.int32)
    parts[parts == BACKGROUND] = len(MATERIALS)
    return np.where(parts > len(MATERIALS), -1, parts)


def dense_targets(records: Sequence[dict[str, Any]], cells: int) -> DenseTargets:
    """The targets of face records with square images, in the order of the images' patches.

    Args:
      cells: a side of the maps of materials; where a record has none, nothing of it is known.
    """
    parts = np.stack([_parts(record, cells) for record in records])
    a = CELLS
    positions: Float[np.ndarray, "B J 2"] = np.stack([record["landmarks"] for record in records])
    located: Bool[np.ndarray, "B J"] = np.isfinite(positions).all(-1)
    targets: dict[str, Any] = dict(
        coefficients=np.stack([record["coefficients"] for record in records]),
        known=np.stack([record.get("known", _ALL) for record in records]).astype(np.float32),
        landmarks=np.where(located[..., None], positions, 0.0).astype(np.float32),
        located=located.astype(np.float32),
        parts=rearrange(parts, "n (h a c) (w b d) -> n (h w a b) (c d)", a=2, b=2, c=a, d=a),
    )
    return DenseTargets(**targets)


def initial_readout(vision: VisionConfig, config: ReadoutConfig, rare: float, seed: int) -> Readout:
    """A fresh read-out. Blendshapes start at the logit `rare`, as most faces show few of them;
    angles at zero, landmarks in the middle of the image."""
    bias = np.full((len(channels.NAMES) + config.landmarks, 2), 0.5)
    bias[channels.BLENDSHAPES] = rare
    bias[channels.ANGLES] = 0.0
    return initialise_readout(vision, config, bias, seed)
