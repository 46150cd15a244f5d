"""Which keys a query may attend to: causality, segments, offsets, lengths and explicit masks."""

from typing import overload

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


@flax.struct.dataclass
class Visible:
    """The attention mask by its parts; a key is visible where every part given allows it.

    Attributes:
      causal: query t sees keys up to t + `q_offset`.
      q_segments, kv_segments: queries see keys of their own segment only; keys of segment 0 are
        padding, which no query sees. Both or neither.
      q_offset: number of keys before the first query of a row.
      kv_length: number of keys in use in a row; later ones are not visible.
      mask: False where a key is not visible; for trees of drafts.
    """

    causal: bool = flax.struct.field(pytree_node=False, default=True)
    q_segments: Int[Array, "B T"] | None = None
    kv_segments: Int[Array, "B S"] | None = None
    q_offset: Int[Array, " B"] | None = None
    kv_length: Int[Array, " B"] | None = None
    mask: Bool[Array, "B T S"] | None = None

    def allowed(self, batch: int, length: int, size: int) -> Bool[Array, "B T S"]:
        """The materialised mask: True where a query may see a key."""
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


@overload
def per_row(value: Array | int, batch: int) -> Int[Array, " B"]: ...
@overload
def per_row(value: None, batch: int) -> None: ...


def per_row(value: Array | int | None, batch: int) -> Int[Array, " B"] | None:
    """Broadcasts a scalar or per-row value to int32 [B]; None stays None."""
    if value is None:
        return None
    return jnp.broadcast_to(jnp.asarray(value, jnp.int32), (batch,))
