"""The stable name of `sf_jax.serve.client`: `from sf_jax.client import ask`."""

from sf_jax.serve.client import ServiceError, ask, encoded

__all__ = ["ServiceError", "ask", "encoded"]
