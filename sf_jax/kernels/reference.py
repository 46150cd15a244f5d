"""Attention written plainly: the meaning that every faster version must have."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def mask(
    q_shape: tuple[int, int],
    kv_size: int,
    causal: bool,
    q_segments: Int[Array, "B T"] | None,
    kv_segments: Int[Array, "B S"] | None,
    q_offset: Any,
    kv_length: Any,
) -> Bool[Array, "B T S"]:
    """Which keys each query may see; True where it may."""
    batch, length = q_shape
    keys = jnp.arange(kv_size)[None, None]
    allowed = jnp.ones((batch, length, kv_size), bool)
    if causal:
        offset = jnp.broadcast_to(jnp.asarray(q_offset), (batch,))[:, None, None]
        allowed &= keys <= jnp.arange(length)[None, :, None] + offset
    if kv_length is not None:
        allowed &= keys < jnp.broadcast_to(jnp.asarray(kv_length), (batch,))[:, None, None]
    if q_segments is not None and kv_segments is not None:
        allowed &= q_segments[:, :, None] == kv_segments[:, None, :]
        allowed &= kv_segments[:, None, :] != 0
    return allowed


def attend(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    allowed_BTS: Bool[Array, "B T S"],
    scale: float,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T N"]]:
    """Softmax attention in float32 with grouped key/value heads; output and log-sum-exp.

    A query that may see nothing gets zeros and a log-sum-exp of -inf.
    """
    batch, length, heads, width = q_BTNH.shape
    groups = heads // k_BSKH.shape[2]
    q = q_BTNH.reshape(batch, length, -1, groups, width).astype(jnp.float32)
    high = jax.lax.Precision.HIGHEST
    scores = jnp.einsum("btkgh,bskh->bkgts", q, k_BSKH.astype(jnp.float32), precision=high) * scale
    scores = jnp.where(allowed_BTS[:, None, None], scores, -jnp.inf)
    top = jnp.max(scores, -1, keepdims=True)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    weights = jnp.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    weights = weights / jnp.where(total == 0, 1.0, total)
    out = jnp.einsum("bkgts,bskh->btkgh", weights, v_BSKH.astype(jnp.float32), precision=high)
    lse = (jnp.log(total) + top)[..., 0]
    lse = lse.transpose(0, 3, 1, 2).reshape(batch, length, heads)
    return out.reshape(q_BTNH.shape).astype(q_BTNH.dtype), lse
