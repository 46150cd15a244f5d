"""The supervised objective: next-token cross-entropy over words and free slots."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sf_jax.decode.prompt import Rows
from sf_jax.model import text, vision, vlm
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights


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
