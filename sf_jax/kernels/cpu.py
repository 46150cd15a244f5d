"""Attention laid out for a CPU.

The five-dimensional einsums of the reference run as many tiny strided products there. Merging batch
and head into one leading axis first gives plain batched matrix products over contiguous memory.
Operands in low precision are multiplied as they are.
"""

from functools import partial

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
    """The reference's result; sums in float32, probabilities in the operands' precision."""
    batch, length, heads, width = q_BTNH.shape
    size, kv_heads = k_BSKH.shape[1:3]
    groups = heads // kv_heads

    low = q_BTNH.dtype == jnp.bfloat16
    operand = jnp.bfloat16 if low else jnp.float32
    product = partial(  # written with a transpose it would be done in float32
        jax.lax.dot_general, preferred_element_type=jnp.float32,
        precision=None if low else jax.lax.Precision.HIGHEST,
    )  # fmt: skip

    def merged(x: Array) -> Array:
        return x.astype(operand).transpose(0, 2, 1, 3).reshape(-1, x.shape[1], width)

    q = merged(q_BTNH * scale).reshape(batch * kv_heads, groups * length, width)
    k, v = merged(k_BSKH), merged(v_BSKH)
    scores = product(q, k, (((2,), (2,)), ((0,), (0,))))
    scores = scores.reshape(batch, kv_heads, groups, length, size)
    scores = jnp.where(allowed_BTS[:, None, None], scores, -1e30)
    top = jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True))
    weights = jnp.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    flat = weights.astype(operand).reshape(batch * kv_heads, groups * length, size)
    out = product(flat, v, (((2,), (1,)), ((0,), (0,))))
    out = out.reshape(batch, kv_heads, groups, length, width) / total
    # A query that sees nothing has weighed everything alike.
    seeing = allowed_BTS.any(-1)[:, None, None, :, None]
    out = jnp.where(seeing, out, 0.0).transpose(0, 3, 1, 2, 4).reshape(q_BTNH.shape)
    lse = jnp.where(seeing, jnp.log(total) + top, -jnp.inf)[..., 0]
    return out.astype(q_BTNH.dtype), lse.transpose(0, 3, 1, 2).reshape(batch, length, heads)
