"""The supervised objective: cross-entropy over words, and over each slot's allowed values."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from sf_jax.decode.program import SlotProgram
from sf_jax.kernels.sharded import HEADS, constrain
from sf_jax.model import text, vision
from sf_jax.model.config import Config
from sf_jax.model.declared import Linear, Norm
from sf_jax.model.inserts import Insert
from sf_jax.model.linear import AdaptedLinear
from sf_jax.model.weights import TextWeights, Weights
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.forward import forward
from sf_jax.train.losses import readout as warmup
from sf_jax.train.losses.next_token import next_token_losses

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
    losses, _ = next_token_losses(weights, seen, targets, dtype)
    weight = loss_weights.at[:, 0].set(0.0)
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
    weights: Weights, batch: Batch, config: Config, chunks: int = 1, z_loss: float = 0.0
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Summed next-token losses of the whole model on a batch with targets.

    Rows may hold one example or several, packed. The metrics are sums too, and "weight" is what to
    divide by.

    Args:
      chunks: parts of a row whose scores are computed one after another.
      z_loss: weight of the squared log of the sum of the scores' exponentials, which keeps scores
        from drifting (Chowdhery et al., PaLM, arXiv:2204.02311).
    """
    weights = shared_tables(in_product_dtype(weights, config.product_dtype))
    seen, _ = forward(weights, batch, config)
    assert batch.targets is not None
    losses, log_sums = next_token_losses(
        weights.text, seen, batch.targets, config.product_dtype, chunks
    )
    weight = jnp.asarray(batch.loss_weights).at[:, 0].set(0.0)
    words = (losses * weight).sum()
    drift = z_loss * (jnp.square(log_sums) * weight).sum()
    return words + drift, {"weight": weight.sum(), "words": words, "z_loss": drift}


def in_product_dtype(weights: Any, dtype: str) -> Any:
    """Matrices and tables in the precision of products: what is gathered is then half as large.

    Norms and biases stay as they are.
    """

    def narrowed(node: Any) -> Any:
        if isinstance(node, Norm):
            return node
        if isinstance(node, Linear):
            return Linear(node.weight.astype(dtype), node.bias)
        if isinstance(node, AdaptedLinear):
            factors = node.a.astype(dtype), node.b.astype(dtype)
            return AdaptedLinear(narrowed(node.base), *factors, node.scale)
        return node.astype(dtype)

    def is_node(node: Any) -> bool:
        return isinstance(node, Norm | Linear | AdaptedLinear)

    if dtype == "float32":
        return weights
    return jax.tree.map(narrowed, weights, is_leaf=is_node)


def shared_tables(weights: Weights) -> Weights:
    """Embedding and output layer gathered once, for all tokens and all parts of a row."""
    head = None if weights.text.head is None else _gathered(weights.text.head, (None, HEADS))
    embed = _gathered(weights.text.embed, (HEADS, None))
    return replace(weights, text=replace(weights.text, embed=embed, head=head))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gathered(table: Array, axes: tuple) -> Array:
    """Shared along `tensor` alone; of its gradient each device gets the part it is to keep."""
    return constrain(table, *axes)


def _gathered_forward(table: Array, axes: tuple) -> tuple[Array, None]:
    return constrain(table, *axes), None


def _gathered_backward(axes: tuple, _: None, gradient: Array) -> tuple[Array]:
    rows, columns = axes
    return (constrain(gradient, (rows, "fsdp") if rows else "fsdp", columns),)


_gathered.defvjp(_gathered_forward, _gathered_backward)


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
      batch: that of `warmup.loss`, and in place of its patches a `Batch` under "rows", with slots
        and, unless rows are without words, targets. Its second half are the first half's images
        mirrored.
      mirror: [B, C] → the numbers of the mirrored faces.
      answer_length: tokens of the numbers; words lie at least that far from a row's end.
    """
    dtype, tower, model = config.product_dtype, weights.model.vision, weights.model
    rows: Batch = batch["rows"]
    patches = rows.inputs["vision"]
    hidden = vision.hidden_states(tower, patches, config.vision, dtype, unrolled=config.unrolled)
    tokens = vision.tokens(tower, hidden, config.vision, dtype)
    slots = rows.slots
    assert slots is not None
    inserts = [Insert(tokens[0], patches.at, tokens[1])]
    seen, _ = forward(model, rows, config, inserts=inserts)
    numbers = batch["coefficients"]
    entropy, squares, means = slot_loss(model.text, seen, slots, numbers, values, dtype)
    first, second = jnp.split(means, 2)
    twins = jnp.square(first - mirror(second)).mean()
    dense, parts = warmup.readout_loss(
        weights.readout,
        hidden[-1],
        tokens,
        {**batch, "patches": patches},
        low,
        config.vision,
        classes,
        dtype,
    )
    total = entropy + SQUARES * squares + TWINS * twins + share * dense
    metrics = {"slots": entropy, "squares": squares, "twins": twins, "bounded": parts["bounded"]}
    if rows.targets is not None:
        until = rows.input_ids.shape[1] - answer_length
        at = jnp.arange(len(slots))[:, None], slots + 1
        weight = rows.loss_weights.at[at].set(0.0)[:, :until]
        words = token_loss(model.text, seen[:, :until], rows.targets[:, :until], weight, dtype)
        total, metrics = total + words, {**metrics, "words": words}
    return total, {"loss": total, **metrics}
