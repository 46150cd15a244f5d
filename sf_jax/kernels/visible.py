"""Which keys a query may see."""

from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


@flax.struct.dataclass
class Visible:
    """What narrows the view of queries on keys; each field narrows it further.

    Attributes:
      causal: query t sees keys up to t + `q_offset`.
      q_segments, kv_segments: queries see keys of their own segment only; keys of segment 0 are
        padding and seen by nobody. Both or neither.
      q_offset: keys before the first query.
      kv_length: keys in use; later ones are not seen.
      mask: further keys that are not seen, where False: for trees of drafts.
    """

    causal: bool = flax.struct.field(pytree_node=False, default=True)
    q_segments: Int[Array, "B T"] | None = None
    kv_segments: Int[Array, "B S"] | None = None
    q_offset: Int[Array, " B"] | None = None
    kv_length: Int[Array, " B"] | None = None
    mask: Bool[Array, "B T S"] | None = None

    def allowed(self, batch: int, length: int, size: int) -> Bool[Array, "B T S"]:
        """True where a query may see a key, written out."""
        keys = jnp.arange(size)[None, None]
        allowed = jnp.ones((batch, length, size), bool)
        if self.causal:
            offset = 0 if self.q_offset is None else self.q_offset[:, None, None]
            allowed &= keys <= jnp.arange(length)[None, :, None] + offset
        if self.kv_length is not None:
            allowed &= keys < self.kv_length[:, None, None]
        if self.q_segments is not None and self.kv_segments is not None:
            allowed &= self.q_segments[:, :, None] == self.kv_segments[:, None, :]
            allowed &= self.kv_segments[:, None, :] != 0
        return allowed if self.mask is None else allowed & self.mask


def a_row(number: Any, batch: int) -> Int[Array, " B"] | None:
    """A number, or one a row, as one a row."""
    if number is None:
        return None
    return jnp.broadcast_to(jnp.asarray(number, jnp.int32), (batch,))
