"""The supervised objective: slots over their allowed values, all other tokens over the vocabulary.

A batch says of each position what its state is to predict. Where it predicts a slot, the loss is
the cross-entropy over the values that the slot may take, with a number between two values shared
between them, and the squared error of the distribution's mean. Where it predicts a token (of the
rationale, or of an answer whose values take several tokens) it is the next-token loss. Everything
is a weighted sum; the sum of the weights is what to divide by.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.program import SlotProgram
from sf_jax.model import text
from sf_jax.model.config import Config
from sf_jax.model.weights import TextWeights
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.forward import forward
from sf_jax.train.forward_weights import in_product_dtype, shared_tables
from sf_jax.train.losses.next_token import next_token_losses

Metrics = dict[str, Array]


@dataclass(frozen=True)
class SupervisedConfig:
    """Attributes:
    squares: weight of the squared error of a slot's mean, beside its cross-entropy.
    z_loss: weight of the squared log of the sum of the vocabulary scores' exponentials, which keeps
      scores from drifting (Chowdhery et al., PaLM, arXiv:2204.02311).
    chunks: parts of a row whose vocabulary scores are computed one after another.
    """

    squares: float = 8.0
    z_loss: float = 0.0
    chunks: int = 1


@struct.dataclass
class SlotValues:
    """The values that slots may take, for the loss. C slots, U different value tokens in all.

    Attributes:
      ids: int32 [U]; numbers: float32 [U], ascending by id; allowed: bool [C, U].
      step: distance of neighbouring values.
    """

    ids: Int[Array, " U"]
    numbers: Float[Array, " U"]
    allowed: Bool[Array, "C U"]
    step: float = struct.field(pytree_node=False)

    @classmethod
    def of(cls, program: SlotProgram, decimals: int) -> "SlotValues":
        """Those of a program whose values are one token each.

        Raises:
          TokenizerError: a value takes several tokens.
        """
        symbols, real = program.value_symbols, program.valid[program.kind]
        ids, first = np.unique(symbols[real], return_index=True)
        allowed = np.stack([np.isin(ids, row[ok]) for row, ok in zip(symbols, real, strict=True)])
        numbers = program.values[program.kind][real][first]
        return cls(ids, numbers, allowed, 10.0**-decimals)  # type: ignore[arg-type]


def slot_distributions(
    weights: TextWeights,
    states: Float[Array, "B T D"],
    slots: Int[Array, "B T"],
    values: SlotValues,
    dtype: str,
) -> tuple[Bool[Array, "B T U"], Float[Array, "B T U"]]:
    """Which values the slot that each state predicts may take, and their log-probabilities.

    Args:
      slots: the slot that each state predicts, from 1; of the others the results mean nothing.
    """
    allowed = jnp.asarray(values.allowed)[jnp.maximum(slots - 1, 0)]
    scores = jnp.where(allowed, text.logits(weights, states, values.ids, dtype), -1e9)
    return allowed, jax.nn.log_softmax(scores, -1)


def slot_log_probabilities(
    weights: TextWeights,
    states: Float[Array, "B T D"],
    slots: Int[Array, "B T"],
    numbers: Float[Array, "B T"],
    values: SlotValues,
    dtype: str,
) -> Float[Array, "B T"]:
    """Log-probability, in nats, of the value nearest to a number, among those of its slot.

    Args:
      slots: as in `slot_distributions`.
    """
    allowed, found = slot_distributions(weights, states, slots, values, dtype)
    distance = jnp.where(allowed, jnp.abs(numbers[..., None] - values.numbers), jnp.inf)
    return jnp.take_along_axis(found, distance.argmin(-1)[..., None], -1)[..., 0]


def slot_losses(
    weights: TextWeights,
    states: Float[Array, "B T D"],
    slots: Int[Array, "B T"],
    numbers: Float[Array, "B T"],
    values: SlotValues,
    dtype: str,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"], Float[Array, "B T"]]:
    """Cross-entropy of each slot's distribution, the squared error of its mean, and the mean.

    A number between two values is shared between them by nearness, so that the mean of a learnt
    distribution is the number, not its rounded form.

    Args:
      slots: the slot that each state predicts, from 1; of the others the results mean nothing.
      numbers: to learn; one out of a slot's range counts as the end of the range.
    """
    allowed, log_probabilities = slot_distributions(weights, states, slots, values, dtype)
    low = jnp.where(allowed, values.numbers, jnp.inf).min(-1)
    high = jnp.where(allowed, values.numbers, -jnp.inf).max(-1)
    numbers = jnp.clip(numbers, low, high)
    distance = jnp.abs(numbers[..., None] - values.numbers) / values.step
    target = jnp.where(allowed, jnp.maximum(1 - distance, 0.0), 0.0)
    entropy = -(target * log_probabilities).sum(-1)
    mean = (jnp.exp(log_probabilities) * values.numbers).sum(-1)
    return entropy, jnp.square(mean - numbers), mean


def summed_losses(
    weights: TextWeights,
    states: Float[Array, "B T D"],
    batch: Batch,
    values: SlotValues | None,
    config: SupervisedConfig,
    dtype: str,
) -> tuple[Float[Array, ""], Metrics, Float[Array, "B T"] | None]:
    """The objective from final states: sum, metrics as sums, and the means of slots.

    Metrics are "weight", what to divide by; "next_token", the next-token losses; "slots" and
    "squares", cross-entropies and squared errors of the slots; "z_loss".

    Raises:
      ValueError: the batch has slots, and `values` is None.
    """
    total, metrics, means = jnp.float32(0), {"weight": jnp.float32(0)}, None
    if batch.targets is not None:
        losses, log_sums = next_token_losses(weights, states, batch.targets, dtype, config.chunks)
        weight = jnp.asarray(batch.loss_weights).at[:, 0].set(0.0)
        metrics["next_token"] = (losses * weight).sum()
        metrics["z_loss"] = config.z_loss * (jnp.square(log_sums) * weight).sum()
        metrics["weight"] += weight.sum()
        total += metrics["next_token"] + metrics["z_loss"]
    if batch.slots is not None:
        if values is None:
            raise ValueError("the batch has slots; give the values that they may take")
        assert batch.numbers is not None and batch.slot_weights is not None
        entropy, squares, means = slot_losses(
            weights, states, batch.slots, batch.numbers, values, dtype
        )
        weight = jnp.where(batch.slots > 0, batch.slot_weights, 0.0)
        metrics["slots"], metrics["squares"] = (entropy * weight).sum(), (squares * weight).sum()
        metrics["weight"] += weight.sum()
        total += metrics["slots"] + config.squares * metrics["squares"]
    return total, metrics, means


def supervised_loss(
    weights: Any,
    batch: Batch,
    architecture: Config,
    values: SlotValues | None = None,
    config: SupervisedConfig | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """The objective of a whole model, as a sum; see `summed_losses` for the metrics.

    Rows may hold one example or several, packed.

    Args:
      values: of the slots, where the batch has slots.
    """
    dtype = architecture.product_dtype
    weights = shared_tables(in_product_dtype(weights, dtype))
    final, _ = forward(weights, batch, architecture)
    total, metrics, _ = summed_losses(
        weights.text, final, batch, values, config or SupervisedConfig(), dtype
    )
    return total, metrics
