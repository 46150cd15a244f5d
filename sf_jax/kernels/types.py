"""Types of kernel code."""

import jax
from jaxtyping import Array

Index = int | Array  # a position, static or traced
Ref = jax.Ref  # memory inside a Pallas kernel
