"""The objective of a detector of centres: a focal loss of the scores, robust errors of the boxes.

Source: Objects as Points (Zhou et al., arXiv:1904.07850) for the scores. Sides, centres and points
are learnt by all cells near a centre, each object counting the same however many cells it has.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, UInt8

from sf_jax.model import axes
from sf_jax.model.detector import STRIDE, TYPICAL_SIDE, Detections
from sf_jax.train.losses.charbonnier import charbonnier


@dataclass(frozen=True)
class DetectionConfig:
    """Attributes:
    spread: deviation of the peak around a centre, in sides of the box; least_spread: in cells.
    near: cells learn boxes where the peak is higher than this.
    scale: of robust errors, in sides of the box (of the side: its logarithm).
    side, centre, points: weights of the losses of these, beside that of the scores.
    """

    spread: float = 0.07
    least_spread: float = 0.6
    near: float = 0.2
    scale: float = 0.1
    side: float = 0.5
    centre: float = 0.5
    points: float = 0.25


@struct.dataclass
class DetectionBatch:
    """Images and up to N objects in each.

    Attributes:
      boxes: x, y and side in pixels. points: in pixels, NaN where not known.
      kinds: 0 for padding, 1 for an object, -1 for one that may be found or not: cells near it have
        no loss.
    """

    images: UInt8[Array, "B H W 3"] = axes.array(
        axes.BATCH, "row", "column", "colour", dtype=np.uint8
    )
    boxes: Float[Array, "B N 3"] = axes.array(axes.BATCH, "object", "box", dtype=np.float32)
    points: Float[Array, "B N P 2"] = axes.array(
        axes.BATCH, "object", "point", "coordinate", dtype=np.float32
    )
    kinds: Float[Array, "B N"] = axes.array(axes.BATCH, "object", dtype=np.float32)


def detection_loss(
    found: Detections, batch: DetectionBatch, config: DetectionConfig
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The objective as a sum over objects, and its parts; "weight" is what to divide by.

    An image without objects counts as one object.
    """
    rows, columns = found.score.shape[1:]
    y, x = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
    cells = (jnp.stack([x, y], -1) + 0.5) * STRIDE  # [H, W, 2] pixels
    side = jnp.maximum(batch.boxes[..., 2], 1.0)[:, None, None]
    middle = (jnp.floor(batch.boxes[..., :2] / STRIDE) + 0.5) * STRIDE  # of the centre's cell
    away = cells[None, :, :, None] - middle[:, None, None]
    spread = jnp.maximum(config.spread * side, config.least_spread * STRIDE)
    peaks = jnp.exp(-0.5 * jnp.square(away).sum(-1) / jnp.square(spread))  # [B, H, W, N]
    kinds = batch.kinds[:, None, None]
    target = jnp.where(kinds > 0, peaks, 0.0).max(-1)
    ignored = ((kinds < 0) & (jnp.abs(away).max(-1) < 0.5 * side)).any(-1)
    scores = _focal(found.score, target, ignored & (target < 0.5)).sum()

    near = jnp.where((kinds > 0) & (peaks > config.near), peaks, 0.0)
    near = jnp.where(near == near.max(-1, keepdims=True), near, 0.0)  # each cell's nearest object
    near = near / jnp.maximum(near.sum((1, 2), keepdims=True), 1e-6)  # [B, H, W, N]
    of_side = charbonnier(found.side[..., None] - jnp.log(side / TYPICAL_SIDE), config.scale)
    points = jnp.concatenate([batch.boxes[:, :, None, :2], batch.points], 2)
    known = jnp.isfinite(points).all(-1)[:, None, None]
    wanted = (points[:, None, None] - cells[None, :, :, None, None]) / side[..., None, None]
    error = found.points[:, :, :, None] - jnp.where(known[..., None], wanted, 0.0)
    of_points = jnp.where(known, charbonnier(error, config.scale).sum(-1), 0.0)  # [B, H, W, N, P]
    parts = {
        "scores": scores,
        "side": (near * of_side).sum(),
        "centre": (near * of_points[..., 0]).sum(),
        "points": (near * of_points[..., 1:].mean(-1)).sum(),
    }
    total = parts["scores"]
    for name in ("side", "centre", "points"):
        total += getattr(config, name) * parts[name]
    weight = jnp.maximum((batch.kinds > 0).sum(-1), 1).sum().astype(jnp.float32)
    return total, {**parts, "weight": weight}


def _focal(logits: Array, target: Array, ignored: Array) -> Array:
    """The focal loss of each cell, less on cells near a centre; 0 where ignored."""
    chance = jax.nn.sigmoid(logits)
    found = -jnp.square(1 - chance) * jax.nn.log_sigmoid(logits)
    missed = -jnp.square(chance) * jax.nn.log_sigmoid(-logits) * (1 - target) ** 4
    return jnp.where(ignored, 0.0, jnp.where(target > 0.999, found, missed))
