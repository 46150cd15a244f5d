"""Which blocks of queries and keys have anything to do with each other."""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Int

from sf_jax.kernels.visible import Visible

EMPTY, PARTLY, WHOLLY = 0, 1, 2  # how much of a block is seen


@flax.struct.dataclass
class Visits:
    """For each block of one kind, the blocks of the other kind that it must meet, in order.

    Attributes:
      count: how many.
      order: which ones; behind `count` the last of them again, so that nothing new is loaded there.
      kind: how much of each is seen: PARTLY or WHOLLY.
    """

    count: Int[Array, "B outer"]
    order: Int[Array, "B outer inner"]
    kind: Int[Array, "B outer inner"]


def kinds(
    visible: Visible, batch: int, length: int, size: int, q_block: int, kv_block: int
) -> Int[Array, "B Q S"]:
    """EMPTY, PARTLY or WHOLLY for each block of queries and each of keys.

    Blocks may reach over the end of queries, and of keys, which are then as if not in use. Segments
    are compared by the least and the largest of a block: exact where they stand in rising order, as
    packed rows have them, and else some blocks count as PARTLY that are empty.
    """
    q_first = jnp.arange(0, length, q_block)[None, :, None]
    q_last = jnp.minimum(q_first + q_block, length) - 1
    kv_first = jnp.arange(0, size, kv_block)[None, None]
    kv_last = kv_first + kv_block - 1
    shape = (batch, q_first.shape[1], kv_first.shape[2])
    some, whole = jnp.ones(shape, bool), jnp.broadcast_to(kv_last < size, shape)
    if visible.causal:
        offset = 0 if visible.q_offset is None else visible.q_offset[:, None, None]
        some &= kv_first <= q_last + offset
        whole &= kv_last <= q_first + offset
    if visible.kv_length is not None:
        used = visible.kv_length[:, None, None]
        some &= kv_first < used
        whole &= kv_last < used
    if visible.q_segments is not None and visible.kv_segments is not None:
        q_least, q_most, q_whole = (x[:, :, None] for x in _range(visible.q_segments, q_block))
        kv_least, kv_most, kv_whole = (x[:, None] for x in _range(visible.kv_segments, kv_block))
        some &= (q_least <= kv_most) & (kv_least <= q_most)
        whole &= q_whole & kv_whole & (q_least == kv_least)
    return jnp.where(some, jnp.where(whole, WHOLLY, PARTLY), EMPTY)


def _range(segments: Array, block: int) -> tuple[Array, Array, Array]:
    """Least and largest segment of each block, padding left out, and whether it is one segment."""
    none = jnp.iinfo(jnp.int32).max
    least = _blocks(jnp.where(segments == 0, none, segments), block, none).min(-1)
    most = _blocks(segments, block, 0).max(-1)
    padding = (_blocks(segments, block, 1) == 0).any(-1)
    return least, most, (least == most) & ~padding


def _blocks(x: Array, block: int, filling: int) -> Array:
    """[B, n] as [B, blocks, block]."""
    padded = jnp.pad(x, ((0, 0), (0, -x.shape[1] % block)), constant_values=filling)
    return padded.reshape(x.shape[0], -1, block)


def visits(kind: Int[Array, "B outer inner"]) -> Visits:
    """The blocks that are not empty, first ones first."""
    count = (kind != EMPTY).sum(-1)
    order = jnp.argsort(kind == EMPTY, axis=-1, stable=True)
    last = jnp.maximum(count - 1, 0)[..., None]
    places = jnp.minimum(jnp.arange(kind.shape[-1]), last)
    order = jnp.take_along_axis(order, places, -1)
    kind = jnp.take_along_axis(kind, order, -1)
    return Visits(count.astype(jnp.int32), order.astype(jnp.int32), kind.astype(jnp.int32))
