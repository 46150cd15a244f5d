"""The two normalisations, always computed in float32, or float64 where that is given."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sf_jax.kernels.precision import wide
from sf_jax.model.declared import Norm


def layer_norm(x: Float[Array, "*rows D"], norm: Norm, eps: float = 1e-6) -> Array:
    """LayerNorm over the last axis."""
    summed = x.astype(wide(x.dtype))
    centred = summed - summed.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
    scaled = scaled * norm.scale
    return (scaled if norm.bias is None else scaled + norm.bias).astype(x.dtype)


def rms_norm(x: Float[Array, "*rows D"], norm: Norm, eps: float) -> Array:
    """Root-mean-square normalisation over the last axis; rounded before scaling, as in Qwen3."""
    summed = x.astype(wide(x.dtype))
    scaled = summed * jax.lax.rsqrt(jnp.square(summed).mean(-1, keepdims=True) + eps)
    return scaled.astype(x.dtype) * norm.scale.astype(x.dtype)
