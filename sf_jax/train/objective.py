"""The supervised objective: cross-entropy over words, and over each slot's allowed values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from sf_jax.decode.program import SlotProgram
from sf_jax.decode.prompt import Rows
from sf_jax.model import text, vision, vlm
from sf_jax.model.config import Config
from sf_jax.model.weights import TextWeights, Weights
from sf_jax.train import warmup

SQUARES = 8.0  # weight of the squared mistake of a slot's mean, beside its cross-entropy
TWINS = 16.0  # weight of the squared difference of the means of a picture and its mirrored twin


@struct.dataclass
class Values:
    """The values that slots may take, for the loss. C slots, U different value tokens in all.

    Attributes:
      ids: int32 [U]; numbers: float32 [U], ascending by id; allowed: bool [C, U].
      step: distance of neighbouring values.
    """

    ids: Any
    numbers: Any
    allowed: Any
    step: float = struct.field(pytree_node=False)

    @classmethod
    def of(cls, program: SlotProgram, decimals: int) -> "Values":
        symbols, real = program.value_symbols, program.valid[program.kind]
        ids, first = np.unique(symbols[real], return_index=True)
        allowed = np.stack([np.isin(ids, row[ok]) for row, ok in zip(symbols, real, strict=True)])
        return cls(ids, program.values[program.kind][real][first], allowed, 10.0**-decimals)


def states(
    weights: Weights, rows: Rows, features: Array, deepstack: Array, config: Config
) -> Float[Array, "B T D"]:
    """The text model's final states over rows of tokens and picture features."""
    embeddings, levels = vlm.embed(
        weights, rows.input_ids, features, deepstack, rows.image_places, config
    )
    return text.forward(
        weights.text, embeddings, rows.positions, config.text,
        segments=rows.segments, deepstack=levels, dtype=config.product_dtype,
    )[0]  # fmt: skip


def token_loss(
    weights: TextWeights,
    seen: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    loss_weights: Float[Array, "B T"],
    dtype: str,
) -> Float[Array, ""]:
    """Weighted mean of next-token losses over the whole vocabulary.

    `targets` are the tokens to predict. They equal the input tokens unless the inputs were
    corrupted on purpose, so that the model learns not to trust what it said before.
    """
    scores = text.logits(weights, seen[:, :-1], dtype=dtype)
    target = jnp.take_along_axis(scores, targets[:, 1:, None], -1)[..., 0]
    losses = jax.nn.logsumexp(scores, -1) - target
    weight = loss_weights[:, 1:]
    return (losses * weight).sum() / jnp.maximum(weight.sum(), 1e-6)


def slot_loss(
    weights: TextWeights,
    seen: Float[Array, "B T D"],
    slots: Int[Array, "B C"],
    numbers: Float[Array, "B C"],
    values: Values,
    dtype: str,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, "B C"]]:
    """Cross-entropy of each slot's distribution, the square of its mean's mistake, and the means.

    A number between two values is shared between them by nearness, so that the mean of a learnt
    distribution is the number, not its rounded form.

    Args:
      slots: the place whose state predicts each slot.
      numbers: the numbers to learn; beyond a slot's range they count as its end.
    """
    at = jnp.take_along_axis(seen, slots[..., None], 1)
    scores = jnp.where(values.allowed, text.logits(weights, at, values.ids, dtype), -1e9)
    low = jnp.where(values.allowed, values.numbers, jnp.inf).min(-1)
    high = jnp.where(values.allowed, values.numbers, -jnp.inf).max(-1)
    numbers = jnp.clip(numbers, low, high)
    distance = jnp.abs(numbers[..., None] - values.numbers) / values.step
    target = jnp.maximum(1 - distance, 0.0)
    log_probabilities = jax.nn.log_softmax(scores, -1)
    entropy = -(target * log_probabilities).sum(-1).mean()
    mean = (jnp.exp(log_probabilities) * values.numbers).sum(-1)
    return entropy, jnp.square(mean - numbers).mean(), mean


def supervised_loss(
    weights: Weights, batch: dict, config: Config
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Next-token loss of the whole model on a batch {"patches", "rows", "targets"}."""
    features, deepstack = vision.forward(
        weights.vision, batch["patches"], config.vision, config.product_dtype
    )
    rows = batch["rows"]
    seen = states(weights, rows, features, deepstack, config)
    loss = token_loss(weights.text, seen, batch["targets"], rows.loss_weights, config.product_dtype)
    return loss, {"loss": loss}


@struct.dataclass
class JointWeights:
    """The model and the warm-up's read-out, which goes on being trained beside it."""

    model: Weights
    readout: warmup.Readout


def joint_loss(
    weights: JointWeights,
    batch: dict,
    low: Array,
    values: Values,
    config: Config,
    classes: int,
    share: float,
    answer_length: int,
    mirror: Callable[[Any], Any],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Slots, words where there are some, and `share` of the warm-up's loss on the same tower pass.

    The dense targets keep the tower from forgetting what the words and numbers ask for rarely.
    A picture and its mirrored twin are to get mirrored numbers, whatever was said about either.

    Args:
      batch: that of `warmup.loss` with "rows", "slots" and, unless rows are without words,
        "targets". Its second half are the first half's pictures mirrored.
      mirror: [B, C] → the numbers of the mirrored faces.
      answer_length: tokens of the numbers; words lie at least that far from a row's end.
    """
    dtype, tower, model = config.product_dtype, weights.model.vision, weights.model
    hidden = vision.hidden_states(tower, batch["patches"], config.vision, dtype)
    tokens = vision.tokens(tower, hidden, config.vision, dtype)
    rows, slots = batch["rows"], batch["slots"]
    seen = states(model, rows, *tokens, config)
    numbers = batch["coefficients"]
    entropy, squares, means = slot_loss(model.text, seen, slots, numbers, values, dtype)
    first, second = jnp.split(means, 2)
    twins = jnp.square(first - mirror(second)).mean()
    dense, parts = warmup.readout_loss(
        weights.readout, hidden[-1], tokens, batch, low, config.vision, classes, dtype
    )
    total = entropy + SQUARES * squares + TWINS * twins + share * dense
    metrics = {"slots": entropy, "squares": squares, "twins": twins, "bounded": parts["bounded"]}
    if "targets" in batch:
        until = rows.input_ids.shape[1] - answer_length
        at = jnp.arange(len(slots))[:, None], slots + 1
        weight = rows.loss_weights.at[at].set(0.0)[:, :until]
        words = token_loss(model.text, seen[:, :until], batch["targets"][:, :until], weight, dtype)
        total, metrics = total + words, {**metrics, "words": words}
    return total, {"loss": total, **metrics}
