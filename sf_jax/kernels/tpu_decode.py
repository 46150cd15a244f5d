"""Attention of a few queries over a long cache, for a TPU: the step of decoding.

Such a step is bound by reading the cache, so each key and value is read once: all query heads and
tokens of one key head are folded into the rows of one tile, and the softmax is accumulated block by
block along the cache (the online softmax of Milakov and Gimelshein, 2018, arXiv:1805.02867). Blocks
after the last key that a sequence may see are not read: the index of the block stops changing
there, and a block whose index repeats is not fetched again.

A cache of layout [B, S, K, H] is read without a copy: merged to rows [B, S K, H], a view of the
same memory, it yields the keys of one head by a load with stride K. A cache of layout [B, K, S, H]
needs no stride.

Masks arrive as bits: bit t of a key's 32-bit mask is set where query t sees the key. That is little
beside the key itself, and one form for every kind of mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from sf_jax.kernels.types import Index, Ref
from sf_jax.kernels.visible import Visible

MOST_QUERIES = 16
MOST_ROWS = 1024  # of all heads together: more accumulators do not fit a TPU v4's VMEM
WIDTHS = (64, 72, 128)
BLOCK_BYTES = 2**20  # of keys, and as many of values: large compared with the cost of a step
BLOCK_SCORES = 2**17  # of one head: several float32 arrays of this size are live at once
LANES, SUBLANES = 128, 8
UNSEEN = 31  # bit of padding rows: above those of MOST_QUERIES, so never set
LOWEST = -1e30  # finite, so that differences of such scores are numbers


def supports(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, visible: Visible) -> bool:
    """Whether `forward` supports these operands; any batch, cache length and mask is supported."""
    _, length, heads, width = q_BTNH.shape
    kv_heads = k_BSKH.shape[2]
    types = {x.dtype for x in (q_BTNH, k_BSKH, v_BSKH)}
    return (
        types in ({jnp.dtype("float32")}, {jnp.dtype("bfloat16")})
        and 1 <= length <= MOST_QUERIES
        and width in WIDTHS
        and kv_heads * _up(length * heads // kv_heads, SUBLANES) <= MOST_ROWS
        and LANES * _key_bytes(kv_heads, width, k_BSKH.dtype) <= BLOCK_BYTES
    )


def forward(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    visible: Visible,
    scale: float,
    *,
    heads_first: bool = True,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T N"]]:
    """The reference's result for operands that `supports` accepts; no gradient.

    Args:
      heads_first: whether the cache is [B, K, S, H] in memory, k and v being such arrays with two
        axes swapped. Results do not depend on it; the wrong value costs a copy of the cache.

    Returns:
      Output in the type of q, and the log-sum-exp in float32.
    """
    batch, length, heads, _ = q_BTNH.shape
    size, kv_heads = k_BSKH.shape[1:3]
    used_B = used_keys(visible, batch, length, size)
    q_BKRH = _folded(q_BTNH, kv_heads)
    layout = _layout(q_BKRH, size, heads_first)
    query_R = jnp.arange(q_BKRH.shape[2], dtype=jnp.int32) // (heads // kv_heads)
    query_R1 = jnp.where(query_R < length, query_R, UNSEEN)[:, None]
    out, lse = pl.pallas_call(
        partial(_kernel, scale=scale, layout=layout),
        grid_spec=_grid(q_BKRH, size, layout),
        out_shape=[
            jax.ShapeDtypeStruct(q_BKRH.shape, q_BTNH.dtype),
            jax.ShapeDtypeStruct((*q_BKRH.shape[:3], 1), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
    )(
        used_B,
        _sources(used_B),
        q_BKRH,
        query_R1,
        seen_bits(visible, batch, length, size),
        layout.arranged(k_BSKH),
        layout.arranged(v_BSKH),
    )
    return _unfolded(out, q_BTNH.shape), _unfolded(lse, (batch, length, heads, 1))[..., 0]


@dataclass(frozen=True)
class _Layout:
    """How a cache is read.

    Attributes:
      block: keys of a block.
      heads_first: as [B, K, S, H], not as [B, S K, H].
      packed: rows of two heads are loaded as packed pairs, as loads with a stride are 32-bit.
    """

    block: int
    kv_heads: int
    width: int
    heads_first: bool
    packed: bool

    def arranged(self, cache_BSKH: Array) -> Array:
        if self.heads_first:
            return cache_BSKH.swapaxes(1, 2)
        return cache_BSKH.reshape(cache_BSKH.shape[0], -1, self.width)

    def spec(self) -> pl.BlockSpec:
        if self.heads_first:
            shape: tuple = (1, self.kv_heads, self.block, self.width)
        else:
            shape = (1, self.block * self.kv_heads, self.width)
        return pl.BlockSpec(shape, partial(_cache_index, self.block, self.heads_first))

    def scratch(self) -> Any:
        rows = self.block * self.kv_heads // 2 if self.packed else SUBLANES
        return pltpu.VMEM((rows, self.width), jnp.uint32)


def _layout(q_BKRH: Array, size: int, heads_first: bool) -> _Layout:
    _, kv_heads, rows, width = q_BKRH.shape
    dtype = q_BKRH.dtype
    block = block_length(size, rows, kv_heads, width, dtype)
    # Other numbers of heads are padded in memory, so that merging them with the keys is a copy.
    heads_first = heads_first or (kv_heads not in (1, 2, 4) and kv_heads % SUBLANES != 0)
    packed = dtype == jnp.bfloat16 and kv_heads > 1 and not heads_first
    return _Layout(block, kv_heads, width, heads_first, packed)


def _grid(q_BKRH: Array, size: int, layout: _Layout) -> pltpu.PrefetchScalarGridSpec:
    batch, kv_heads, rows, width = q_BKRH.shape

    def whole_row(*shape: int) -> pl.BlockSpec:
        return pl.BlockSpec((1, *shape), lambda row, step, *_: (row, 0, 0, 0))

    return pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=2,
        grid=(batch, pl.cdiv(size, layout.block)),
        in_specs=[
            whole_row(kv_heads, rows, width),
            pl.BlockSpec((rows, 1), lambda row, step, *_: (0, 0)),
            pl.BlockSpec((1, 1, layout.block), partial(_bits_index, layout.block)),
            layout.spec(),
            layout.spec(),
        ],
        out_specs=[whole_row(kv_heads, rows, width), whole_row(kv_heads, rows, 1)],
        scratch_shapes=[
            pltpu.VMEM((kv_heads, rows, 1), jnp.float32),
            pltpu.VMEM((kv_heads, rows, 1), jnp.float32),
            pltpu.VMEM((kv_heads, rows, width), jnp.float32),
            layout.scratch(),
            layout.scratch(),
        ],
    )


def block_length(size: int, rows: int, kv_heads: int, width: int, dtype: jnp.dtype) -> int:
    """Keys of a block: a power of two times the lanes, or a whole cache shorter than the lanes."""
    if size <= LANES:
        return size
    most = min(BLOCK_BYTES // _key_bytes(kv_heads, width, dtype), BLOCK_SCORES // rows, size)
    block = LANES
    while 2 * block <= most:
        block *= 2
    return block


def _key_bytes(kv_heads: int, width: int, dtype: jnp.dtype) -> int:
    """Bytes of the keys of one position in VMEM, where widths are padded to whole lanes."""
    return kv_heads * _up(width, LANES) * dtype.itemsize


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def used_keys(visible: Visible, batch: int, length: int, size: int) -> Int[Array, " B"]:
    """The number of leading keys that contain all that any query of a row may see."""
    used = jnp.full(batch, size, jnp.int32)
    if visible.kv_length is not None:
        used = jnp.minimum(used, visible.kv_length)
    if visible.causal:
        used = jnp.minimum(used, length + (0 if visible.q_offset is None else visible.q_offset))
    return jnp.maximum(used, 0).astype(jnp.int32)


def seen_bits(visible: Visible, batch: int, length: int, size: int) -> Int[Array, "B 1 S"]:
    """For each key, an int32 whose bit t is set where query t sees it."""
    allowed_BTS = visible.allowed(batch, length, size)
    powers_T = jnp.left_shift(1, jnp.arange(length, dtype=jnp.int32))
    return jnp.where(allowed_BTS, powers_T[:, None], 0).sum(1, keepdims=True, dtype=jnp.int32)


def _sources(used_B: Array) -> Array:
    """The row whose blocks are in VMEM while a row is processed: itself, if it has any.

    A row without keys keeps the blocks of the row before it, or prefetches the first block of the
    row after it.
    """
    rows = jnp.arange(used_B.shape[0], dtype=jnp.int32)
    before = jax.lax.cummax(jnp.where(used_B > 0, rows, -1))
    return jnp.where(before < 0, jnp.argmax(used_B > 0).astype(jnp.int32), before)


def _block_index(block: int, row: Index, step: Index, used_ref: Ref, source_ref: Ref) -> tuple:
    """Row and block that are in VMEM at a step; after a row's last block, still that block."""
    source = source_ref[row]
    last = jnp.maximum(pl.cdiv(used_ref[source], block) - 1, 0)
    at = jnp.where(source == row, step, jnp.where(source < row, last, 0))
    return source, jnp.minimum(at, last)


def _cache_index(block: int, heads_first: bool, *at: Any) -> tuple:
    row, number = _block_index(block, *at)
    return (row, 0, number, 0) if heads_first else (row, number, 0)


def _bits_index(block: int, *at: Any) -> tuple:
    row, number = _block_index(block, *at)
    return row, 0, number


def _folded(q_BTNH: Array, kv_heads: int) -> Array:
    """Queries that share a key head as rows [B, K, R, H], tokens outside, R a multiple of 8."""
    batch, length, _, width = q_BTNH.shape
    q = q_BTNH.reshape(batch, length, kv_heads, -1, width).swapaxes(1, 2)
    q = q.reshape(batch, kv_heads, -1, width)
    return jnp.pad(q, ((0, 0), (0, 0), (0, -q.shape[2] % SUBLANES), (0, 0)))


def _unfolded(x_BKRH: Array, shape: tuple[int, ...]) -> Array:
    """Rows as tokens and heads again."""
    batch, length, heads, width = shape
    kv_heads = x_BKRH.shape[1]
    x = x_BKRH[:, :, : length * heads // kv_heads]
    return x.reshape(batch, kv_heads, length, -1, width).swapaxes(1, 2).reshape(shape)


def _kernel(
    used_ref: Ref,
    source_ref: Ref,
    q_ref: Ref,
    query_ref: Ref,
    bits_ref: Ref,
    k_ref: Ref,
    v_ref: Ref,
    out_ref: Ref,
    lse_ref: Ref,
    top_ref: Ref,
    total_ref: Ref,
    sum_ref: Ref,
    k_packed_ref: Ref,
    v_packed_ref: Ref,
    *,
    scale: float,
    layout: _Layout,
) -> None:
    """One block of one row's cache, all heads: running maximum, total and weighted sum."""
    step = pl.program_id(1)
    left = used_ref[pl.program_id(0)] - step * layout.block

    @pl.when(step == 0)
    def _start() -> None:
        top_ref[...] = jnp.full_like(top_ref, LOWEST)
        total_ref[...] = jnp.zeros_like(total_ref)
        sum_ref[...] = jnp.zeros_like(sum_ref)

    @pl.when(left > 0)
    def _add() -> None:
        seen_RS = _seen(query_ref[...], bits_ref[0], left)
        held_S1 = jax.lax.broadcasted_iota(jnp.int32, (layout.block, 1), 0) < left
        k_of, v_of = _heads(k_ref, k_packed_ref, layout), _heads(v_ref, v_packed_ref, layout)
        for head in range(layout.kv_heads):
            scores_RS = _scores(q_ref[0, head], k_of(head), scale)
            # Values after the keys in use may be NaN, and zero times NaN is NaN.
            v_SH = jnp.where(held_S1, v_of(head), jnp.zeros((), v_ref.dtype))
            _add_block(scores_RS, seen_RS, v_SH, top_ref, total_ref, sum_ref, head)

    @pl.when(step == pl.num_programs(1) - 1)
    def _finish() -> None:
        total = total_ref[...]
        seeing = total > 0
        out_ref[0] = (sum_ref[...] / jnp.where(seeing, total, 1.0)).astype(out_ref.dtype)
        lse_ref[0] = jnp.where(seeing, jnp.log(total) + top_ref[...], -jnp.inf)


def _heads(ref: Ref, packed_ref: Ref, layout: _Layout) -> Callable[[int], Array]:
    """Loads the keys or values [S, H] of a head of this block."""
    if layout.heads_first:
        return lambda head: ref[0, head]
    if not layout.packed:
        return lambda head: ref[0, pl.ds(head, layout.block, stride=layout.kv_heads), :]
    packed_ref[...] = pltpu.bitcast(ref[0], jnp.uint32)

    def load(head: int) -> Array:
        pair = packed_ref[pl.ds(head // 2, layout.block, stride=layout.kv_heads // 2), :]
        # A bfloat16 is the upper half of a float32; the even head is in the lower half of a pair.
        upper = pair & jnp.uint32(0xFFFF0000) if head % 2 else pair << 16
        return pltpu.bitcast(upper, jnp.float32).astype(jnp.bfloat16)

    return load


def _seen(query_R1: Array, bits_1S: Array, left: Array) -> Array:
    """Which rows see which keys of a block with `left` keys in use; later bits are undefined."""
    shape = (query_R1.shape[0], bits_1S.shape[1])
    bits_RS, query_RS = jnp.broadcast_to(bits_1S, shape), jnp.broadcast_to(query_R1, shape)
    own_RS = jax.lax.shift_right_logical(bits_RS, query_RS) & 1
    return (own_RS != 0) & (jax.lax.broadcasted_iota(jnp.int32, shape, 1) < left)


def _scores(q_RH: Array, k_SH: Array, scale: float) -> Array:
    return _product(q_RH, k_SH, 1) * scale


def _add_block(
    scores_RS: Array,
    seen_RS: Array,
    v_SH: Array,
    top_ref: Ref,
    total_ref: Ref,
    sum_ref: Ref,
    head: int,
) -> None:
    """Adds a block to the accumulators of a head, relative to its largest score so far."""
    before = top_ref[head]
    top = jnp.maximum(before, jnp.where(seen_RS, scores_RS, LOWEST).max(1, keepdims=True))
    weights = jnp.where(seen_RS, jnp.exp(scores_RS - top), 0.0)
    shrink = _shrinkage(before, top)
    top_ref[head] = top
    total_ref[head] = total_ref[head] * shrink + weights.sum(1, keepdims=True)
    sum_ref[head] = sum_ref[head] * shrink + _product(weights.astype(v_SH.dtype), v_SH, 0)


def _shrinkage(before: Array, top: Array) -> Array:
    """The factor of earlier sums under the new maximum."""
    return jnp.exp(before - top)


def _product(x: Array, y: Array, axis: int) -> Array:
    """Rows of x times y over `axis` of y, summed in float32."""
    exact = x.dtype == jnp.float32
    return jax.lax.dot_general(
        x,
        y,
        (((1,), (axis,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )
