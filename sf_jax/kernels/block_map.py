"""Block maps: which blocks of the attention matrix are empty, partly visible or wholly visible."""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Int

from sf_jax.kernels.visible import Visible

EMPTY, PARTLY, WHOLLY = 0, 1, 2  # how much of a block is visible


@flax.struct.dataclass
class Visits:
    """For each outer block, the inner blocks that it must visit, in order.

    Attributes:
      count: number of inner blocks to visit.
      order: their indices, padded after `count` with the last one, so that nothing new is fetched.
      kind: PARTLY or WHOLLY visible, of each.
    """

    count: Int[Array, "B outer"]
    order: Int[Array, "B outer inner"]
    kind: Int[Array, "B outer inner"]


def kinds(
    visible: Visible, batch: int, length: int, size: int, q_block: int, kv_block: int
) -> Int[Array, "B Q S"]:
    """EMPTY, PARTLY or WHOLLY for each pair of a query block and a key block.

    Blocks may extend past the end of queries or keys; keys there count as not in use. Segments are
    compared by the minimum and maximum of a block, which is exact where they are ascending, as in
    packed rows; otherwise some empty blocks count as PARTLY.

    Args:
      length, size: number of queries and of keys.
      q_block, kv_block: queries and keys of a block.
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
    """Minimum and maximum segment of each block, without padding; whether it is one segment."""
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
    """The blocks that are not empty, in ascending order."""
    count = (kind != EMPTY).sum(-1)
    order = jnp.argsort(kind == EMPTY, axis=-1, stable=True)
    last = jnp.maximum(count - 1, 0)[..., None]
    at = jnp.minimum(jnp.arange(kind.shape[-1]), last)
    order = jnp.take_along_axis(order, at, -1)
    kind = jnp.take_along_axis(kind, order, -1)
    return Visits(count.astype(jnp.int32), order.astype(jnp.int32), kind.astype(jnp.int32))
