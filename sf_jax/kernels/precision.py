"""The precision of accumulation."""

import jax.numpy as jnp
from jax.typing import DTypeLike


def wide(dtype: DTypeLike) -> jnp.dtype:
    """The accumulation dtype of an operand dtype: float32, or float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)
