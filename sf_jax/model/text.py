"""The language model: Qwen3 layers with interleaved M-RoPE, a key/value cache and DeepStack input.

Source: the Qwen3-VL release (`Qwen3VLTextModel` in transformers) for every formula here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.kernels import attention
from sf_jax.kernels.precision import wide
from sf_jax.kernels.sharded import split
from sf_jax.model.linear import apply, linear, output_major
from sf_jax.model.norms import rms_norm
from sf_jax.model.remat import rematerialised
from sf_jax.model.towers import TextConfig
from sf_jax.model.vision import rotate_half
from sf_jax.model.weights import JoinedLayer, TextLayer, TextWeights


@struct.dataclass
class Cache:
    """Keys and values of the tokens seen so far.

    Attributes:
      k, v: [L, B, K, S, H], or tuples of L arrays [B, K, S, H] beside unstacked layers. A head's
        keys lie together, as a product over them wants it.
      length: int32 [B], tokens held; a chunk is written at this offset.
      segments: int32 [B, S], 1 where a slot holds a real token, 0 for padding and free slots.
    """

    k: Any
    v: Any
    length: Any
    segments: Any


def empty_cache(config: TextConfig, batch: int, size: int, dtype: Any, stacked: bool) -> Cache:
    """A cache of `size` slots for `batch` rows."""
    shape = (batch, config.num_key_value_heads, size, config.head_dim)
    layers = config.num_hidden_layers
    k: Any
    v: Any
    if stacked:
        k, v = jnp.zeros((layers, *shape), dtype), jnp.zeros((layers, *shape), dtype)
    else:
        k, v = (tuple(jnp.zeros(shape, dtype) for _ in range(layers)) for _ in range(2))
    return Cache(k, v, jnp.zeros(batch, jnp.int32), jnp.zeros((batch, size), jnp.int32))


def _rope(positions: Int[Array, "3 B T"], config: TextConfig) -> tuple[Array, Array]:
    """Cosine and sine [B, T, 1, H]: frequency i turns with time, height or width in turn."""
    half = config.head_dim // 2
    axis = np.zeros(half, np.int32)
    for offset in (1, 2):
        axis[offset : 3 * config.mrope_section[offset] : 3] = offset
    frequencies = config.rope_theta ** (-np.arange(half, dtype=np.float32) / half)
    chosen = jnp.moveaxis(positions, 0, -1)[..., axis].astype(jnp.float32)
    angles = (chosen * frequencies)[:, :, None]
    # Doubled last: a compiler for CPUs would compute what stands before anew for every head.
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([cos, cos], -1), jnp.concatenate([sin, sin], -1)


def _append(store: Array, new: Array, length: Int[Array, " B"]) -> Array:
    """Writes a chunk [B, T, K, H] at each row's offset."""
    put = jax.vmap(lambda s, n, at: jax.lax.dynamic_update_slice(s, n, (0, at, 0)))
    return put(store, new.astype(store.dtype).swapaxes(1, 2), length)


def _layer(
    x_BTD: Array,
    layer: TextLayer | JoinedLayer,
    kv: tuple[Array, Array] | None,
    context: "_Context",
) -> tuple[Array, tuple[Array, Array] | None]:
    config, dtype = context.config, context.dtype
    cos, sin = context.rope
    heads = (*x_BTD.shape[:2], -1, config.head_dim)
    normed = rms_norm(x_BTD, layer.input_norm, config.rms_norm_eps)
    q, k, v = (part.reshape(heads) for part in _projected(layer, normed, context))
    q = rms_norm(q, layer.q_norm, config.rms_norm_eps)
    k = rms_norm(k, layer.k_norm, config.rms_norm_eps)
    q = (q * cos + rotate_half(q) * sin).astype(x_BTD.dtype)
    k = (k * cos + rotate_half(k) * sin).astype(x_BTD.dtype)
    offset: Any = 0
    if kv is not None:
        kv = _append(kv[0], k, context.length), _append(kv[1], v, context.length)
        k, v = (x.swapaxes(1, 2) for x in kv)
        offset = context.length
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
    """Queries, keys and values, heads not yet apart."""
    if not isinstance(layer, JoinedLayer):
        return [apply(linear, normed, context.dtype) for linear in (layer.q, layer.k, layer.v)]
    queries = context.config.num_attention_heads * context.config.head_dim
    keys = context.config.num_key_value_heads * context.config.head_dim
    joined = apply(layer.qkv, normed, context.dtype)
    return jnp.split(joined, [queries, queries + keys], -1)


@struct.dataclass
class _Context:
    """What every layer of one pass shares."""

    rope: Any
    length: Any
    q_segments: Any
    kv_segments: Any
    mask: Any
    config: TextConfig = struct.field(pytree_node=False)
    dtype: str = struct.field(pytree_node=False)
    remat: str = struct.field(pytree_node=False)
    unrolled: bool = struct.field(pytree_node=False)


def _scan_layers(x, layers, cache, deepstack, context):  # type: ignore[no-untyped-def]
    """One scan over the layers; the first ones receive a DeepStack level each.

    Two scans, with and without levels, would slice the stacks and so hold every weight twice.
    """
    levels = deepstack.shape[0]
    kv = None if cache is None else (cache.k, cache.v)

    def step(x, inputs):  # type: ignore[no-untyped-def]
        layer, kv, number = inputs
        x, kv = _layer(split(x), layer, kv, context)
        if levels:
            level = deepstack[jnp.minimum(number, levels - 1)]
            x = x + jnp.where(number < levels, level, 0)
        return x, kv

    numbers = jnp.arange(context.config.num_hidden_layers)
    step = rematerialised(step, context.remat)
    return jax.lax.scan(step, x, (layers, kv, numbers), unroll=context.unrolled)


def _loop_layers(x, layers, cache, deepstack, context):  # type: ignore[no-untyped-def]
    """The same over a tuple of layers."""
    k, v = [], []
    for i, layer in enumerate(layers):
        kv = None if cache is None else (cache.k[i], cache.v[i])
        x, kv = _layer(x, layer, kv, context)
        if i < deepstack.shape[0]:
            x = x + deepstack[i]
        if kv is not None:
            k.append(kv[0])
            v.append(kv[1])
    return x, None if cache is None else (tuple(k), tuple(v))


def forward(
    weights: TextWeights,
    embeddings: Float[Array, "B T D"],
    positions: Int[Array, "3 B T"],
    config: TextConfig,
    *,
    segments: Int[Array, "B T"],
    cache: Cache | None = None,
    deepstack: Float[Array, "levels B T D"] | None = None,
    mask: Bool[Array, "B T S"] | None = None,
    dtype: str = "float32",
    remat: str = "none",
    unrolled: bool = False,
) -> tuple[Float[Array, "B T D"], Cache | None]:
    """One pass over a chunk of T tokens; returns final normalised states and the grown cache.

    Args:
      segments: which example of its row each token belongs to; 0 marks padding, seen by nobody.
        With a cache rows hold one example each, so real tokens carry segment 1.
      cache: tokens before the chunk; the chunk is written behind them.
      mask: further tokens, of cache and chunk, that a token may not see, where False.
      deepstack: features added to the output of the first layers, zero away from picture tokens.
      remat: what stacked layers keep for their gradients; see `model.remat`.
      unrolled: writes stacked layers out one by one.
    """
    if deepstack is None:
        deepstack = jnp.zeros((0, *embeddings.shape), embeddings.dtype)
    length: Any = None
    kv_segments = segments
    if cache is not None:
        length = cache.length
        put = jax.vmap(lambda s, n, at: jax.lax.dynamic_update_slice(s, n, (at,)))
        kv_segments = put(cache.segments, segments, length)
    context = _Context(
        _rope(positions, config),
        length,
        segments,
        kv_segments,
        mask,
        config=config,
        dtype=dtype,
        remat=remat,
        unrolled=unrolled,
    )
    run = _loop_layers if isinstance(weights.layers, tuple) else _scan_layers
    with jax.named_scope("text"):
        x, kv = run(embeddings, weights.layers, cache, deepstack, context)
    x = rms_norm(x, weights.norm, config.rms_norm_eps)
    if cache is None:
        return x, None
    grown = Cache(kv[0], kv[1], length + embeddings.shape[1], kv_segments)
    return x, grown


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
        if isinstance(weights.layers, tuple):  # decoding on a CPU
            return output_major(states, table, None, dtype)
        head = table.T
    else:
        head = weights.head if ids is None else weights.head[:, ids]
    return linear(states, head, None, dtype)
