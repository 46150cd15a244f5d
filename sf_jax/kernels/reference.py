"""Reference attention in plain JAX, which every faster implementation must reproduce."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sf_jax.kernels.visible import Visible


def attend(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    visible: Visible,
    scale: float,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T N"]]:
    """Softmax attention with grouped key/value heads; output and log-sum-exp.

    Computed in float32, or in float64 for float64 operands. A query that sees no key yields
    zeros and a log-sum-exp of -inf. Gradients come from automatic differentiation.

    Args:
      scale: of the products, above 0.

    Returns:
      The output in the type of q, and the log-sum-exp in float32 or float64.
    """
    batch, length, heads, width = q_BTNH.shape
    groups = heads // k_BSKH.shape[2]
    exact = jnp.promote_types(q_BTNH.dtype, jnp.float32)
    high = jax.lax.Precision.HIGHEST
    q = q_BTNH.reshape(batch, length, -1, groups, width).astype(exact)
    scores = jnp.einsum("btkgh,bskh->bkgts", q, k_BSKH.astype(exact), precision=high) * scale
    allowed = visible.allowed(batch, length, k_BSKH.shape[1])
    scores = jnp.where(allowed[:, None, None], scores, -jnp.inf)
    top = jnp.max(scores, -1, keepdims=True)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    weights = jnp.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    weights = weights / jnp.where(total == 0, 1.0, total)
    out = jnp.einsum("bkgts,bskh->btkgh", weights, v_BSKH.astype(exact), precision=high)
    lse = (jnp.log(total) + top)[..., 0]
    lse = lse.transpose(0, 3, 1, 2).reshape(batch, length, heads)
    return out.reshape(q_BTNH.shape).astype(q_BTNH.dtype), lse
