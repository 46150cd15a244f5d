"""Vision warm-up: the tower learns from dense targets before a language model reads it.

A language model gives a fresh tower little to learn from. Here the tower is trained by direct
regression of named numbers and of landmark places, both read off the *merged tokens* by queries
that share one projection (so that what they read is stored the way attention can find it, not by
place), and patch by patch: what each shows, which landmarks lie in it and where. Landmarks carry
most of what the numbers need, and a small mistake in them matters: a perceptron reads the 52
blendshapes off exact places with r = 0.85, off places a pixel wrong (of 96) with 0.65.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from sf_jax.kernels import attention
from sf_jax.model import vision
from sf_jax.model.config import VisionConfig
from sf_jax.model.declared import Linear
from sf_jax.model.linear import linear
from sf_jax.model.weights import VisionWeights

HEADS = 4
PLACE = 0.01  # picture sides; a mistake beyond it counts in proportion, one below by its square
OFFSET = 0.06  # the same in patch sides


@struct.dataclass
class Readout:
    """Queries Q = channels + landmarks over the tower's tokens.

    Attributes:
      queries: [Q, D]; key, value: D → D; hidden, out: a perceptron shared by all queries.
      per_query: [Q, D, 2], bias: [Q, 2]; a channel uses the first of the two numbers.
      parts: patch width → sub-cells × classes.
      local: patch width → landmarks × (score, x, y).
    """

    queries: Any
    key: Linear
    value: Linear
    hidden: Linear
    out: Linear
    per_query: Any
    bias: Any
    parts: Linear
    local: Linear


@struct.dataclass
class WarmupWeights:
    vision: VisionWeights
    readout: Readout


def initialise_readout(
    config: VisionConfig, landmarks: int, part_outputs: int, bias: np.ndarray, seed: int
) -> Readout:
    """`bias` [Q, 2] is where the outputs start: for rare actions well below zero."""
    generator = np.random.default_rng(seed)
    width, queries = config.out_hidden_size, len(bias)

    def normal(*shape: int, scale: float) -> jax.Array:
        return jnp.asarray(generator.normal(0, scale, shape), jnp.float32)

    def square() -> Linear:
        return Linear(normal(width, width, scale=width**-0.5), jnp.zeros(width))

    return Readout(
        queries=normal(queries, width, scale=1.0),
        key=square(),
        value=square(),
        hidden=square(),
        out=square(),
        per_query=normal(queries, width, 2, scale=0.1 * width**-0.5),
        bias=jnp.asarray(bias, jnp.float32),
        parts=Linear(normal(config.hidden_size, part_outputs, scale=0.02), jnp.zeros(part_outputs)),
        local=Linear(
            normal(config.hidden_size, 3 * landmarks, scale=0.02), jnp.zeros(3 * landmarks)
        ),
    )


def _normalised(x: Array) -> Array:
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)


def read(
    readout: Readout,
    features: Float[Array, "B M D"],
    deepstack: Float[Array, "levels B M D"],
    segments: Array,
    dtype: str,
) -> Float[Array, "B Q 2"]:
    """Two numbers a query, from all token sets of the tower. `segments` int32 [B, M]."""
    tokens = jnp.concatenate([features, *deepstack], 1)
    seen = jnp.tile(segments, (1, 1 + deepstack.shape[0]))
    tokens = _normalised(tokens)
    batch, _, width = tokens.shape
    heads = (batch, -1, HEADS, width // HEADS)
    k = linear(tokens, readout.key.weight, readout.key.bias, dtype).reshape(heads)
    v = linear(tokens, readout.value.weight, readout.value.bias, dtype).reshape(heads)
    q = jnp.broadcast_to(readout.queries, (batch, *readout.queries.shape)).reshape(heads)
    mixed = attention(
        q,
        k,
        v,
        causal=False,
        q_segments=jnp.ones((batch, q.shape[1]), jnp.int32),
        kv_segments=seen,
    ).reshape(batch, -1, width)
    hidden = linear(_normalised(mixed), readout.hidden.weight, readout.hidden.bias, dtype)
    hidden = jax.nn.gelu(hidden + readout.queries)
    hidden = mixed + linear(hidden, readout.out.weight, readout.out.bias, dtype)
    return jnp.einsum("bqd,qdo->bqo", hidden, readout.per_query) + readout.bias


def predict(
    weights: WarmupWeights, patches: vision.Patches, low: Array, config: VisionConfig, dtype: str
) -> Float[Array, "B C"]:
    """The named numbers: sigmoid where `low` [C] is 0, tanh where it is -1."""
    features, deepstack = vision.forward(weights.vision, patches, config, dtype)
    segments = vision.merged_segments(patches.segments, config)
    raw = read(weights.readout, features, deepstack, segments, dtype)[:, : low.shape[0], 0]
    return jnp.where(low < 0, jnp.tanh(raw), jax.nn.sigmoid(raw))


def loss(
    weights: WarmupWeights, batch: dict, low: Array, config: VisionConfig, classes: int, dtype: str
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Cross-entropy for the bounded numbers, squares for the signed ones, places, part labels.

    `batch`: patches; coefficients [B, C]; landmarks [B, J, 2] in picture sides; parts int
    [B, P, cells], class ids; dense [B], whether `parts` holds.
    """
    states = vision.hidden_states(weights.vision, batch["patches"], config, dtype)
    tokens = vision.tokens(weights.vision, states, config, dtype)
    return readout_loss(weights.readout, states[-1], tokens, batch, low, config, classes, dtype)


def readout_loss(
    readout: Readout,
    last_state: Float[Array, "B P D"],
    tokens: tuple[Array, Array],
    batch: dict,
    low: Array,
    config: VisionConfig,
    classes: int,
    dtype: str,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss from the tower's last state and its tokens (`vision.tokens`)."""
    features, deepstack = tokens
    segments = vision.merged_segments(batch["patches"].segments, config)
    raw = read(readout, features, deepstack, segments, dtype)
    channels = low.shape[0]
    target, scores = batch["coefficients"], raw[:, :channels, 0]
    entropy = jnp.maximum(scores, 0) - scores * target + jnp.log1p(jnp.exp(-jnp.abs(scores)))
    squares = jnp.square(jnp.tanh(scores) - target)
    bounded = jnp.where(low < 0, 0.0, entropy).sum(-1).mean() / (low >= 0).sum()
    signed = jnp.where(low < 0, squares, 0.0).sum(-1).mean() / jnp.maximum((low < 0).sum(), 1)
    places = _robust(raw[:, channels:] - batch["landmarks"], PLACE).mean()
    parts = _part_loss(readout.parts, last_state, batch, classes, dtype)
    where, offsets = _local_loss(readout.local, last_state, batch, dtype)
    total = 4 * bounded + 20 * signed + 0.5 * places + 0.3 * parts + 0.2 * where + 0.1 * offsets
    return total, {
        "loss": total,
        "bounded": bounded,
        "signed": signed,
        "places": places,
        "parts": parts,
        "where": where,
        "offsets": offsets,
    }


def _robust(mistake: Array, scale: float) -> Array:
    """Squares near zero, absolute values far from it (Charbonnier)."""
    return jnp.sqrt(1 + jnp.square(mistake / scale)) - 1


def _part_loss(
    head: Linear, states: Float[Array, "B P D"], batch: dict, classes: int, dtype: str
) -> Array:
    """Cross-entropy of what each sub-cell of each patch shows."""
    scores = linear(_normalised(states), head.weight, head.bias, dtype)
    scores = scores.reshape(*scores.shape[:2], -1, classes)
    target = jnp.take_along_axis(scores, batch["parts"][..., None], -1)[..., 0]
    losses = (jax.nn.logsumexp(scores, -1) - target).mean((1, 2))
    return (losses * batch["dense"]).sum() / jnp.maximum(batch["dense"].sum(), 1.0)


def _local_loss(
    head: Linear, states: Float[Array, "B P D"], batch: dict, dtype: str
) -> tuple[Array, Array]:
    """Which patch holds each landmark, and where it lies seen from the patches around it."""
    patches = batch["patches"]
    real = patches.segments > 0
    out = linear(_normalised(states), head.weight, head.bias, dtype)
    out = out.reshape(*out.shape[:2], -1, 3)
    grid = jnp.stack([patches.columns, patches.rows], -1)
    sides = jnp.where(real[..., None], grid, 0).max(1) + 1
    offset = (batch["landmarks"] * sides[:, None])[:, None] - (grid[:, :, None] + 0.5)
    distance = jnp.where(real[:, :, None], jnp.abs(offset).max(-1), jnp.inf)
    holds, near = (distance <= 0.5).astype(jnp.float32), (distance <= 1.0).astype(jnp.float32)
    scores = jnp.where(real[..., None], out[..., 0], -1e9)
    where = -(jax.nn.log_softmax(scores, 1) * holds).sum() / jnp.maximum(holds.sum(), 1.0)
    missed = _robust(out[..., 1:] - offset, OFFSET).sum(-1)
    return where, (missed * near).sum() / jnp.maximum(near.sum(), 1.0)
