"""Attention laid out for a CPU.

The five-dimensional einsums of the reference run as many tiny strided products there. Merging batch
and head into one leading axis first gives plain batched matrix products over contiguous memory.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attend(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    allowed_BTS: Bool[Array, "B T S"],
    scale: float,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T N"]]:
    """The reference's result; sums in float32."""
    batch, length, heads, width = q_BTNH.shape
    size, kv_heads = k_BSKH.shape[1:3]
    groups = heads // kv_heads

    def merged(x: Array) -> Array:
        return x.astype(jnp.float32).transpose(0, 2, 1, 3).reshape(-1, x.shape[1], width)

    q = merged(q_BTNH * scale).reshape(batch * kv_heads, groups * length, width)
    k, v = merged(k_BSKH), merged(v_BSKH)
    high = jax.lax.Precision.HIGHEST
    scores = jnp.matmul(q, k.transpose(0, 2, 1), precision=high)
    bias = jnp.where(allowed_BTS, 0.0, -1e30)[:, None, None]
    scores = scores.reshape(batch, kv_heads, groups, length, size) + bias
    top = jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True))
    weights = jnp.exp(scores - top) * (bias == 0)
    total = weights.sum(-1, keepdims=True)
    flat = weights.reshape(batch * kv_heads, groups * length, size)
    out = jnp.matmul(flat, v, precision=high).reshape(batch, kv_heads, groups, length, width)
    out = out / jnp.where(total == 0, 1.0, total)
    out = out.transpose(0, 3, 1, 2, 4).reshape(q_BTNH.shape).astype(q_BTNH.dtype)
    lse = jnp.where(total == 0, -jnp.inf, jnp.log(jnp.where(total == 0, 1.0, total)) + top)[..., 0]
    return out, lse.transpose(0, 3, 1, 2).reshape(batch, length, heads)
