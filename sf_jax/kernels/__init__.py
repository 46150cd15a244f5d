"""The attention core. Knows arrays only."""

from sf_jax.kernels.dispatch import attention

__all__ = ["attention"]
