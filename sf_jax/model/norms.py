"""The two normalisations, always computed in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sf_jax.model.weights import Norm


def layer_norm(x: Float[Array, "*rows D"], norm: Norm, eps: float = 1e-6) -> Array:
    """LayerNorm over the last axis."""
    x32 = x.astype(jnp.float32)
    centred = x32 - x32.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    return (scaled * norm.scale + norm.bias).astype(x.dtype)


def rms_norm(x: Float[Array, "*rows D"], norm: Norm, eps: float) -> Array:
    """Root-mean-square normalisation over the last axis; rounded before scaling, as in Qwen3."""
    x32 = x.astype(jnp.float32)
    scaled = x32 * jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + eps)
    return scaled.astype(x.dtype) * norm.scale.astype(x.dtype)
