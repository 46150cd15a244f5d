"""Dense targets: channels, landmarks and parts of an image, read off the vision tower.

A language model gives a fresh tower little to learn from. Here the tower is trained by direct
regression of named coefficients and of landmark positions, both read off the *merged tokens* by
queries that share one projection (so that what they read is stored the way attention can find it,
not by position), and patch by patch: what each shows, which landmarks are in it and where.
Landmarks carry most of what the coefficients need, and a small error in them matters: a perceptron
reads the 52 blendshapes off exact positions with r = 0.85, off positions a pixel wrong (of 96) with
0.65.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from sf_jax.kernels import attention
from sf_jax.model import axes, declared, vision
from sf_jax.model.config import VisionConfig
from sf_jax.model.declared import Linear, Weight
from sf_jax.model.linear import linear
from sf_jax.model.vision import Patches
from sf_jax.model.weights import VisionWeights
from sf_jax.train.losses.charbonnier import charbonnier


@dataclass(frozen=True)
class ReadoutConfig:
    """The read-out's size, and how much each of its targets counts.

    Attributes:
      landmarks: how many; part_classes: what a cell of a patch may show, background included.
      part_cells: cells of a patch; heads: of its attention.
      landmark_scale: image sides; an error beyond it counts in proportion, one below by its square.
      offset_scale: the same in patch sides.
      bounded, signed: weights of the loss of channels in [0, 1], and of those in [-1, 1].
      positions, parts, patch, offsets: of landmark positions, of what cells show, of the patch that
        holds a landmark, and of where it is as seen from the patches around it.
    """

    landmarks: int
    part_classes: int
    part_cells: int = 16
    heads: int = 4
    landmark_scale: float = 0.01
    offset_scale: float = 0.06
    bounded: float = 4.0
    signed: float = 20.0
    positions: float = 0.5
    parts: float = 0.3
    patch: float = 0.2
    offsets: float = 0.1


@struct.dataclass
class Readout:
    """Queries Q = channels + landmarks over the tower's tokens; D as the text model is wide.

    Attributes:
      key, value: D → D; hidden, out: a perceptron shared by all queries.
      per_query, bias: a channel uses the first of the two numbers.
      parts: patch width → cells × classes.
      local: patch width → landmarks × (score, x, y).
      heads: of the attention from queries to tokens.
    """

    queries: Float[Array, "Q D"]
    key: Linear
    value: Linear
    hidden: Linear
    out: Linear
    per_query: Float[Array, "Q D 2"]
    bias: Float[Array, "Q 2"]
    parts: Linear
    local: Linear
    heads: int = struct.field(pytree_node=False, default=4)


@struct.dataclass
class WarmupWeights:
    """A vision tower and the read-out of its dense targets."""

    vision: VisionWeights
    readout: Readout


@struct.dataclass
class DenseTargets:
    """What B images show, and what of it is known: the rest is left out of every loss.

    Attributes:
      coefficients: float32 [B, C]; known: float32 [B, C], 1 for channels that the image can show.
      landmarks: float32 [B, J, 2], x and y in image sides; located: float32 [B, J], 1 where known.
      parts: int32 [B, P, cells], class ids, -1 where not known.
    """

    coefficients: Float[Array, "B C"] = axes.array(axes.BATCH, "channel", dtype=np.float32)
    known: Float[Array, "B C"] = axes.array(axes.BATCH, "channel", dtype=np.float32)
    landmarks: Float[Array, "B J 2"] = axes.array(
        axes.BATCH, "landmark", "coordinate", dtype=np.float32
    )
    located: Float[Array, "B J"] = axes.array(axes.BATCH, "landmark", dtype=np.float32)
    parts: Int[Array, "B P cells"] = axes.array(axes.BATCH, "patch", "cell")


@struct.dataclass
class WarmupBatch:
    """Images, one a row, and their dense targets."""

    patches: Patches
    dense: DenseTargets


def declare_readout(vision: VisionConfig, channels: int, config: ReadoutConfig) -> Readout:
    """The read-out's weights, declared."""
    width, queries = vision.out_hidden_size, channels + config.landmarks

    def weight(name: str, shape: tuple[int, ...], axes: tuple[str, ...], scale: float) -> Any:
        init = "normal" if scale else "zeros"
        return Weight(shape, axes, f"readout.{name}", init=init, scale=scale)

    def perceptron(
        name: str, axes: tuple[str, str], sides: tuple[int, int], scale: float
    ) -> Linear:
        return Linear(
            weight(f"{name}.weight", sides, axes, scale),
            weight(f"{name}.bias", sides[1:], axes[1:], 0.0),
        )

    def square(name: str) -> Linear:
        return perceptron(name, ("embed", "readout"), (width, width), width**-0.5)

    def of_patches(name: str, outputs: int) -> Linear:
        return perceptron(name, ("vision", name), (vision.hidden_size, outputs), 0.02)

    return Readout(
        queries=weight("queries", (queries, width), ("query", "embed"), 1.0),
        key=square("key"),
        value=square("value"),
        hidden=square("hidden"),
        out=square("out"),
        per_query=weight(
            "per_query", (queries, width, 2), ("query", "embed", "output"), 0.1 * width**-0.5
        ),
        bias=weight("bias", (queries, 2), ("query", "output"), 0.0),
        parts=of_patches("parts", config.part_cells * config.part_classes),
        local=of_patches("local", 3 * config.landmarks),
        heads=config.heads,
    )


def initialise_readout(
    vision: VisionConfig, config: ReadoutConfig, bias: Float[np.ndarray, "Q 2"], seed: int
) -> Readout:
    """`bias` is where the outputs start: for rare actions well below zero."""
    tree = declare_readout(vision, len(bias) - config.landmarks, config)
    return replace(declared.initialise(tree, seed), bias=jnp.asarray(bias, jnp.float32))


def _normalised(x: Array) -> Array:
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)


def read(
    readout: Readout,
    features: Float[Array, "B M D"],
    deepstack: Float[Array, "levels B M D"],
    segments: Int[Array, "B M"],
    dtype: str,
) -> Float[Array, "B Q 2"]:
    """Two numbers a query, from all token sets of the tower."""
    tokens = jnp.concatenate([features, *deepstack], 1)
    seen = jnp.tile(segments, (1, 1 + deepstack.shape[0]))
    tokens = _normalised(tokens)
    batch, _, width = tokens.shape
    split = (batch, -1, readout.heads, width // readout.heads)
    k = linear(tokens, readout.key.weight, readout.key.bias, dtype).reshape(split)
    v = linear(tokens, readout.value.weight, readout.value.bias, dtype).reshape(split)
    q = jnp.broadcast_to(readout.queries, (batch, *readout.queries.shape)).reshape(split)
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
    weights: WarmupWeights,
    patches: Patches,
    low: Float[Array, " C"],
    vision_config: VisionConfig,
    dtype: str,
) -> Float[Array, "B C"]:
    """The coefficients: sigmoid where `low` is 0, tanh where it is -1."""
    features, deepstack = vision.forward(weights.vision, patches, vision_config, dtype)
    segments = vision.merged_segments(patches.segments, vision_config)
    raw = read(weights.readout, features, deepstack, segments, dtype)
    scores = raw[:, : low.shape[0], 0]
    return jnp.where(low < 0, jnp.tanh(scores), jax.nn.sigmoid(scores))


def warmup_loss(
    weights: WarmupWeights,
    batch: WarmupBatch,
    low: Float[Array, " C"],
    vision_config: VisionConfig,
    config: ReadoutConfig,
    dtype: str,
    unrolled: bool = False,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss of a tower and a read-out alone; see `readout_loss`, and `Config` for `unrolled`."""
    states = vision.hidden_states(
        weights.vision, batch.patches, vision_config, dtype, unrolled=unrolled
    )
    tokens = vision.tokens(weights.vision, states, vision_config, dtype)
    return readout_loss(
        weights.readout, states[-1], tokens, batch.patches, batch.dense, low, vision_config,
        config, dtype,
    )  # fmt: skip


def readout_loss(
    readout: Readout,
    last_state: Float[Array, "B P D"],
    tokens: tuple[Float[Array, "B M D"], Float[Array, "L B M D"]],
    patches: Patches,
    targets: DenseTargets,
    low: Float[Array, " C"],
    vision_config: VisionConfig,
    config: ReadoutConfig,
    dtype: str,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The weighted sum of the targets' losses, each a mean over what is known in the batch.

    Cross-entropy of channels in [0, 1], squared errors of those in [-1, 1], robust errors of
    positions and offsets, cross-entropy of cells and of the patches that hold landmarks.

    Args:
      last_state: of the tower; tokens: see `vision.tokens`.
      low: lower end of each channel's range.
    """
    segments = vision.merged_segments(patches.segments, vision_config)
    raw = read(readout, *tokens, segments, dtype)
    channels = low.shape[0]
    target, scores = targets.coefficients, raw[:, :channels, 0]
    entropy = jnp.maximum(scores, 0) - scores * target + jnp.log1p(jnp.exp(-jnp.abs(scores)))
    squares = jnp.square(jnp.tanh(scores) - target)
    patch, offsets = _local_loss(readout.local, last_state, patches, targets, config, dtype)
    errors = charbonnier(raw[:, channels:] - targets.landmarks, config.landmark_scale).mean(-1)
    found = {
        "bounded": _mean(entropy, targets.known * (low >= 0)),
        "signed": _mean(squares, targets.known * (low < 0)),
        "positions": _mean(errors, targets.located),
        "parts": _part_loss(readout.parts, last_state, targets, config, dtype),
        "patch": patch,
        "offsets": offsets,
    }
    total = sum(getattr(config, name) * value for name, value in found.items())
    return total, {"loss": total, **found}


def _mean(values: Array, weights: Array) -> Array:
    """The weighted mean, 0 where all weights are."""
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1.0)


def _part_loss(
    head: Linear,
    states: Float[Array, "B P D"],
    targets: DenseTargets,
    config: ReadoutConfig,
    dtype: str,
) -> Array:
    """Cross-entropy of what each cell of each patch shows."""
    scores = linear(_normalised(states), head.weight, head.bias, dtype)
    scores = scores.reshape(*scores.shape[:2], -1, config.part_classes)
    target = jnp.take_along_axis(scores, jnp.maximum(targets.parts, 0)[..., None], -1)[..., 0]
    return _mean(jax.nn.logsumexp(scores, -1) - target, targets.parts >= 0)


def _local_loss(
    head: Linear,
    states: Float[Array, "B P D"],
    patches: Patches,
    targets: DenseTargets,
    config: ReadoutConfig,
    dtype: str,
) -> tuple[Array, Array]:
    """Which patch holds each landmark, and where it is as seen from the patches around it."""
    real = patches.segments > 0
    out = linear(_normalised(states), head.weight, head.bias, dtype)
    out = out.reshape(*out.shape[:2], -1, 3)
    grid = jnp.stack([patches.columns, patches.rows], -1)
    sides = jnp.where(real[..., None], grid, 0).max(1) + 1
    offset = (targets.landmarks * sides[:, None])[:, None] - (grid[:, :, None] + 0.5)
    located = real[:, :, None] & (targets.located[:, None] > 0)
    distance = jnp.where(located, jnp.abs(offset).max(-1), jnp.inf)
    holds, near = (distance <= 0.5).astype(jnp.float32), (distance <= 1.0).astype(jnp.float32)
    scores = jnp.where(real[..., None], out[..., 0], -1e9)
    patch = -(jax.nn.log_softmax(scores, 1) * holds).sum() / jnp.maximum(holds.sum(), 1.0)
    missed = charbonnier(out[..., 1:] - offset, config.offset_scale).sum(-1)
    return patch, (missed * near).sum() / jnp.maximum(near.sum(), 1.0)
