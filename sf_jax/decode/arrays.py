"""The type of arrays that may be in the host's memory (NumPy) or on a device (JAX)."""

from typing import Any, TypeAlias

HostOrDevice: TypeAlias = Any
