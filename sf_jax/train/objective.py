"""The supervised objective: next-token cross-entropy over words and free slots."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from sf_jax.decode.prompt import Rows
from sf_jax.model import text, vision, vlm
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights
from sf_jax.train import warmup


def language_loss(
    weights: Weights, rows: Rows, targets: Array, features: Array, deepstack: Array, config: Config
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Weighted mean of the token losses.

    `targets` int32 [B, T] are the tokens to predict. They equal `rows.input_ids` unless the inputs
    were corrupted on purpose, so that the model learns not to trust what it said before.
    """
    dtype = config.product_dtype
    embeddings, levels = vlm.embed(
        weights, rows.input_ids, features, deepstack, rows.image_places, config
    )
    states, _ = text.forward(
        weights.text, embeddings, rows.positions, config.text,
        segments=rows.segments, deepstack=levels, dtype=dtype,
    )  # fmt: skip
    scores = text.logits(weights.text, states[:, :-1], dtype=dtype)
    target = jnp.take_along_axis(scores, targets[:, 1:, None], -1)[..., 0]
    losses = jax.nn.logsumexp(scores, -1) - target
    weight = rows.loss_weights[:, 1:]
    loss = (losses * weight).sum() / jnp.maximum(weight.sum(), 1e-6)
    return loss, {"loss": loss}


def supervised_loss(
    weights: Weights, batch: dict, config: Config
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The whole model on a batch {"patches", "rows", "targets"}."""
    features, deepstack = vision.forward(
        weights.vision, batch["patches"], config.vision, config.product_dtype
    )
    return language_loss(weights, batch["rows"], batch["targets"], features, deepstack, config)


@struct.dataclass
class JointWeights:
    """The model and the warm-up's read-out, which goes on being trained beside it."""

    model: Weights
    readout: warmup.Readout


def joint_loss(
    weights: JointWeights, batch: dict, low: Array, config: Config, classes: int, share: float
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The supervised loss plus `share` of the warm-up's loss on the same tower pass.

    The dense targets keep the tower from forgetting what the words and numbers ask for rarely.
    """
    dtype, tower = config.product_dtype, weights.model.vision
    states = vision.hidden_states(tower, batch["patches"], config.vision, dtype)
    tokens = vision.tokens(tower, states, config.vision, dtype)
    language, metrics = language_loss(
        weights.model, batch["rows"], batch["targets"], *tokens, config
    )
    dense, parts = warmup.readout_loss(
        weights.readout, states[-1], tokens, batch, low, config.vision, classes, dtype
    )
    return language + share * dense, {**metrics, "bounded": parts["bounded"]}
