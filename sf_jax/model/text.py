"""The language model: Qwen3 layers with interleaved M-RoPE, a key/value cache and DeepStack levels.

Source: the Qwen3-VL release (`Qwen3VLTextModel` in transformers) for every formula here.
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from sf_jax.kernels import attention
from sf_jax.kernels.precision import wide
from sf_jax.model.layers import Layout, run_layers
from sf_jax.model.linear import apply, linear, output_major
from sf_jax.model.norms import rms_norm
from sf_jax.model.towers import TextConfig
from sf_jax.model.vision import rotate_half
from sf_jax.model.weights import JoinedLayer, TextLayer, TextWeights


@struct.dataclass
class Cache:
    """Keys and values of the tokens processed so far, for S positions.

    Attributes:
      k, v: in the layout of the text layers: one array, or a tuple of arrays [B, K, S, H]. A head's
        keys are contiguous, as a product over them wants it.
      length: int32, tokens held; a chunk is written at this offset.
      segments: int32, 1 where a position holds a real token, 0 for padding and free positions.
    """

    k: Float[Array, "L B K S H"] | tuple[Float[Array, "B K S H"], ...]
    v: Float[Array, "L B K S H"] | tuple[Float[Array, "B K S H"], ...]
    length: Int[Array, " B"]
    segments: Int[Array, "B S"]


def empty_cache(
    config: TextConfig, batch: int, size: int, dtype: DTypeLike, layout: Layout
) -> Cache:
    """A cache of `size` positions for `batch` rows, beside layers in this layout."""
    shape = (batch, config.num_key_value_heads, size, config.head_dim)
    layers = config.num_hidden_layers

    def zeros() -> Array | tuple[Array, ...]:
        if layout == "stacked":
            return jnp.zeros((layers, *shape), dtype)
        return tuple(jnp.zeros(shape, dtype) for _ in range(layers))

    segments = jnp.zeros((batch, size), jnp.int32)
    return Cache(zeros(), zeros(), jnp.zeros(batch, jnp.int32), segments)


def _rope(positions: Int[Array, "3 B T"], config: TextConfig) -> tuple[Array, Array]:
    """Cosine and sine [B, T, 1, H]: frequency i turns with time, height or width in turn."""
    half = config.head_dim // 2
    axis = np.zeros(half, np.int32)
    for offset in (1, 2):
        axis[offset : 3 * config.mrope_section[offset] : 3] = offset
    frequencies = config.rope_theta ** (-np.arange(half, dtype=np.float32) / half)
    chosen = jnp.moveaxis(positions, 0, -1)[..., axis].astype(jnp.float32)
    angles = (chosen * frequencies)[:, :, None]
    # Doubled last: a compiler for CPUs would compute all that precedes anew for every head.
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([cos, cos], -1), jnp.concatenate([sin, sin], -1)


def _append(store: Array, new: Array, length: Int[Array, " B"]) -> Array:
    """Writes a chunk [B, T, K, H] at each row's offset."""
    write = jax.vmap(lambda s, n, at: jax.lax.dynamic_update_slice(s, n, (0, at, 0)))
    return write(store, new.astype(store.dtype).swapaxes(1, 2), length)


def _layer(
    x_BTD: Array,
    layer: TextLayer | JoinedLayer,
    kv: tuple,
    context: "_Context",
) -> tuple[Array, tuple]:
    """One layer; `kv` are its keys and values [B, K, S, H] of a cache, or empty without one."""
    config, dtype = context.config, context.dtype
    cos, sin = context.rope
    heads = (*x_BTD.shape[:2], -1, config.head_dim)
    normed = rms_norm(x_BTD, layer.input_norm, config.rms_norm_eps)
    q, k, v = (part.reshape(heads) for part in _projected(layer, normed, context))
    q = rms_norm(q, layer.q_norm, config.rms_norm_eps)
    k = rms_norm(k, layer.k_norm, config.rms_norm_eps)
    q = (q * cos + rotate_half(q) * sin).astype(x_BTD.dtype)
    k = (k * cos + rotate_half(k) * sin).astype(x_BTD.dtype)
    offset: Int[Array, " B"] | int = 0
    if kv:
        assert context.length is not None
        offset = context.length
        kv = _append(kv[0], k, offset), _append(kv[1], v, offset)
        k, v = (x.swapaxes(1, 2) for x in kv)
        if context.dtype != "float32":  # training, which has no cache, attends in float32
            q, k, v = (part.astype(context.dtype) for part in (q, k, v))
    mixed = attention(
        q,
        k,
        v,
        causal=True,
        q_offset=offset,
        q_segments=context.q_segments,
        kv_segments=context.kv_segments,
        mask=context.mask,
        heads_first=True,
    )
    mixed = rearrange(mixed, "b t n h -> b t (n h)").astype(x_BTD.dtype)
    x_BTD = x_BTD + apply(layer.o, mixed, dtype)
    normed = rms_norm(x_BTD, layer.post_norm, config.rms_norm_eps)
    if isinstance(layer, JoinedLayer):
        gate, up = jnp.split(apply(layer.gate_up, normed, dtype), 2, -1)
    else:
        gate, up = apply(layer.gate, normed, dtype), apply(layer.up, normed, dtype)
    return x_BTD + apply(layer.down, jax.nn.silu(gate) * up, dtype), kv


def _projected(layer: TextLayer | JoinedLayer, normed: Array, context: "_Context") -> list[Array]:
    """Queries, keys and values, heads not yet split."""
    if not isinstance(layer, JoinedLayer):
        return [apply(linear, normed, context.dtype) for linear in (layer.q, layer.k, layer.v)]
    queries = context.config.num_attention_heads * context.config.head_dim
    keys = context.config.num_key_value_heads * context.config.head_dim
    joined = apply(layer.qkv, normed, context.dtype)
    return jnp.split(joined, [queries, queries + keys], -1)


@struct.dataclass
class _Context:
    """What every layer of one pass shares."""

    rope: tuple[Float[Array, "B T 1 H"], Float[Array, "B T 1 H"]]
    length: Int[Array, " B"] | None
    q_segments: Int[Array, "B T"]
    kv_segments: Int[Array, "B S"]
    mask: Bool[Array, "B T S"] | None
    config: TextConfig = struct.field(pytree_node=False)
    dtype: str = struct.field(pytree_node=False)


def _add_level(x: Array, levels: Array, number: Int[Array, ""] | int, layout: Layout) -> Array:
    """The output of a layer with its level added, which the first layers have.

    In a scan the level is chosen by number: two scans, with and without levels, would slice the
    stacks and so hold every weight twice.
    """
    count = levels.shape[0]
    if layout == "separate":
        return x + levels[number] if number < count else x
    if not count:
        return x
    return x + jnp.where(number < count, levels[jnp.minimum(number, count - 1)], 0)


def forward(
    weights: TextWeights,
    embeddings: Float[Array, "B T D"],
    positions: Int[Array, "3 B T"],
    config: TextConfig,
    *,
    segments: Int[Array, "B T"],
    cache: Cache | None = None,
    levels: Float[Array, "levels B T D"] | None = None,
    mask: Bool[Array, "B T S"] | None = None,
    dtype: str = "float32",
    remat: str = "none",
    unrolled: bool = False,
) -> tuple[Float[Array, "B T D"], Cache | None]:
    """One pass over a chunk of T tokens; returns final normalised states and the grown cache.

    Args:
      segments: which example of its row each token belongs to; 0 marks padding, which
        no token attends to.
        With a cache rows hold one example each, so real tokens carry segment 1.
      cache: tokens before the chunk; the chunk is written after them.
      mask: further tokens, of cache and chunk, that a token may not attend to, where False.
      levels: added to the output of the first layers, one each; zero away from inserts.
      remat: what stacked layers keep for their gradients; see `model.remat`.
      unrolled: writes stacked layers out one by one.
    """
    if levels is None:
        levels = jnp.zeros((0, *embeddings.shape), embeddings.dtype)
    length: Int[Array, " B"] | None = None
    kv_segments = segments
    beside: tuple = ()
    if cache is not None:
        length, beside = cache.length, (cache.k, cache.v)
        write = jax.vmap(lambda s, n, at: jax.lax.dynamic_update_slice(s, n, (at,)))
        kv_segments = write(cache.segments, segments, length)
    context = _Context(
        _rope(positions, config), length, segments, kv_segments, mask, config=config, dtype=dtype
    )

    def layer(
        x: Array, layer: TextLayer | JoinedLayer, kv: tuple, number: int | Array
    ) -> tuple[Array, tuple]:
        x, kv = _layer(x, layer, kv, context)
        return _add_level(x, levels, number, weights.layout), kv

    with jax.named_scope("text"):
        x, kv = run_layers(
            layer, embeddings, weights.layers, weights.layout, beside, remat, unrolled
        )
    x = rms_norm(x, weights.norm, config.rms_norm_eps)
    if cache is None:
        return x, None
    k, v = kv
    return x, Cache(k, v, cache.length + embeddings.shape[1], kv_segments)


def logits(
    weights: TextWeights,
    states: Float[Array, "*rows D"],
    ids: Int[Array, " A"] | None = None,
    dtype: str = "float32",
) -> Float[Array, "*rows A"]:
    """Output scores in float32, over the whole vocabulary or only the token ids asked for."""
    states = states.astype(wide(states.dtype))
    if weights.head is None:
        table = weights.embed if ids is None else weights.embed[ids]
        if weights.layout == "separate":  # decoding on a CPU
            return output_major(states, table, None, dtype)
        head = table.T
    else:
        head = weights.head if ids is None else weights.head[:, ids]
    return linear(states, head, None, dtype)


def rotated(
    keys: Float[Array, "B K S H"], by: Int[Array, " B"], config: TextConfig
) -> Float[Array, "B K S H"]:
    """Cached keys as they would be at positions larger by so many, along all three axes."""
    cos, sin = _rope(jnp.broadcast_to(by[:, None], (3, len(by), 1)), config)
    return (keys * cos + rotate_half(keys) * sin).astype(keys.dtype)
