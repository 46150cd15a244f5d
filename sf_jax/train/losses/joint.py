"""The built-in model's objective: the supervised one, twins drawn together, and dense targets.

Twins are a picture and its mirror image: the means of their slots are to be mirrored too, whatever
rationale either was given. Dense targets (`losses.readout`) keep the vision tower from forgetting
what rationales and slots ask for rarely.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from sf_jax.model import vision
from sf_jax.model.config import Config
from sf_jax.model.inserts import Insert
from sf_jax.model.weights import Weights
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.forward import forward
from sf_jax.train.losses import readout, supervised
from sf_jax.train.losses.readout import DenseTargets, Readout, ReadoutConfig
from sf_jax.train.losses.supervised import Metrics, SlotValues, SupervisedConfig


@dataclass(frozen=True)
class JointConfig:
    """Attributes:
    twins: weight of the squared difference of a slot's mean and its twin's, beside the slot's
      cross-entropy.
    dense: weight of the dense targets' loss, beside the cross-entropy of an average slot.
    """

    readout: ReadoutConfig
    supervised: SupervisedConfig = SupervisedConfig()
    twins: float = 16.0
    dense: float = 0.5


@struct.dataclass
class JointWeights:
    """The model, and the read-out of dense targets that is trained beside it."""

    model: Weights
    readout: Readout


@struct.dataclass
class JointBatch:
    """Rows of one example each, the second half of them mirror images of the first.

    Attributes:
      rows: with slots; dense: of the images of these rows.
    """

    rows: Batch
    dense: DenseTargets


def joint_loss(
    weights: JointWeights,
    batch: JointBatch,
    architecture: Config,
    values: SlotValues,
    low: Float[Array, " C"],
    mirror: Callable[[Any], Any],
    config: JointConfig,
    dense_of: Sequence[int] | Int[np.ndarray, " S"] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """The objective as a sum; "weight" among the metrics is what to divide by.

    The dense loss is a mean over images, and counts once for each slot of a known channel.

    Args:
      low: lower end of the range of each of the C dense targets; mirror: numbers [B, C] → those of
        the mirrored images.
      dense_of: the dense target that each slot is; None: slots are all of them in their order.
    """
    dtype, model, rows = architecture.product_dtype, weights.model, batch.rows
    patches = rows.inputs["vision"]
    hidden = vision.hidden_states(
        model.vision, patches, architecture.vision, dtype, unrolled=architecture.unrolled
    )
    features, levels = vision.tokens(model.vision, hidden, architecture.vision, dtype)
    inserts = [Insert(features, patches.at, levels)]
    states, _ = forward(model, rows, architecture, inserts=inserts)
    total, metrics, means = supervised.summed_losses(
        model.text, states, rows, values, config.supervised, dtype
    )
    assert means is not None and rows.slots is not None, "rows of the built-in model have slots"
    of = np.arange(len(low)) if dense_of is None else np.asarray(dense_of)
    by_slot = jnp.take_along_axis(means, slot_positions(rows.slots, len(of)), 1)
    numbers = jnp.zeros((len(by_slot), len(low)), by_slot.dtype).at[:, of].set(by_slot)
    first, second = jnp.split(numbers, 2)
    known, _ = jnp.split(batch.dense.known, 2)  # targets without a slot are 0 on both sides
    # Each pair counts once for either of its slots.
    twins = 2 * (known * jnp.square(first - mirror(second))).sum()
    dense, parts = readout.readout_loss(
        weights.readout, hidden[-1], (features, levels), patches, batch.dense, low,
        architecture.vision, config.readout, dtype,
    )  # fmt: skip
    count = batch.dense.known.sum()
    total += config.twins * twins + config.dense * count * dense
    return total, {**metrics, "twins": twins, "bounded": parts["bounded"] * count}


def slot_positions(slots: Int[Array, "B T"], count: int) -> Int[Array, "B C"]:
    """The position whose state predicts each slot, in rows that have each slot once."""
    return jnp.argmax(slots[..., None] == jnp.arange(1, count + 1), 1)
