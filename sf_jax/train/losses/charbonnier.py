"""A loss of errors between squares and absolute values."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def charbonnier(error: Float[Array, "..."], scale: float) -> Float[Array, "..."]:
    """Squares of errors well below `scale`, absolute values of errors well above it."""
    return jnp.sqrt(1 + jnp.square(error / scale)) - 1
