"""The stable name of `sf_jax.serve.client`: `from sf_jax.client import ask`."""

from sf_jax.serve.client import RemoteFrame, ServiceError, Session, ask, ask_all, encoded

__all__ = ["RemoteFrame", "ServiceError", "Session", "ask", "ask_all", "encoded"]
