"""The precision of sums."""

from typing import Any

import jax.numpy as jnp


def wide(dtype: Any) -> Any:
    """The type in which numbers of a type are summed: float32, or float64 where they are that."""
    return jnp.promote_types(dtype, jnp.float32)
