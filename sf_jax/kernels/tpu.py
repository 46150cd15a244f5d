"""Flash attention for TPU, in Pallas (after Dao, FlashAttention-2, arXiv:2307.08691).

A head whose width H is a multiple of 128 lanes is read as [T, H]. Any other is read as [H, T], with
positions along the lanes: 64 or 72 features would fill half a tile of 128 lanes, which positions
fill completely; the softmax then runs along the sublanes, with no reduction across lanes; and no
copy is needed, because the compiler itself gives an array bf16[B, T, N, 64] the layout [B, N, H,
T].

Forward, a block of queries attends to as many keys as fit at once. Where one product covers all
keys, nothing is rescaled. [T, H]: a few queries at a time, so that the softmax of some overlaps
with the products of others. [H, T]: scores are kept transposed, keys along the rows and queries
along the columns ([S, T]), with many queries and few keys at a time: with 256 queries a product
took 1.7 times the cycles of 1,024. The maximum is taken of unscaled products, which saves a pass
that scales them.

Backward, scores are transposed in both layouts. Per-query values, the log-sum-exp and the row sums
of the gradient, are then rows along the lanes, stored as they are. d_q is accumulated as [H, T] in
VMEM while blocks of keys go by: no product needs a large operand transposed for it. d_k and d_v are
accumulated in their output layout; [H, S] took fewer cycles than [S, H] transposed at the end.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sf_jax.kernels.block_map import EMPTY, PARTLY, WHOLLY, kinds, visits
from sf_jax.kernels.types import Index, Ref
from sf_jax.kernels.visible import Visible

LANES = 128
LOG2E = 1.4426950408889634
UNSEEN = -1e30  # the score of a key that is not visible


class Blocks(NamedTuple):
    """Block sizes.

    Attributes:
      q, kv: queries and keys of a step of the grid.
      part: queries or keys of one product, whichever run along the rows of a block of scores.
    """

    q: int
    kv: int
    part: int


# By the compiler's estimates, `sf-jax bench attention cycles --tune`. Where blocks may be skipped,
# smaller ones skip more. First for [T, H], then for [H, T].
FORWARD, FORWARD_SKIPPING = Blocks(1024, 2048, 512), Blocks(512, 1024, 512)
BACKWARD = Blocks(512, 512, 512)
LANES_FORWARD, LANES_FORWARD_SKIPPING = Blocks(1024, 2048, 1024), Blocks(1024, 1024, 1024)
LANES_BACKWARD = Blocks(1024, 1024, 256)
MOST_D_Q_BYTES = 6 * 2**20  # in VMEM, accumulator and result; longer rows are processed in pieces


class Call(NamedTuple):
    """The static parameters of a kernel."""

    causal: bool
    segmented: bool
    mapped: bool  # whether some blocks may be empty or partly visible
    scale: float
    blocks: Blocks
    steps: tuple[int, int]  # blocks of queries and of keys
    outer: int  # which blocks are the outer loop: 0, of queries; 1, of keys
    lanes: bool  # whether positions are along the lanes, [H, T], or the sublanes, [T, H]

    @property
    def h(self) -> int:
        """The axis of a head's features."""
        return 0 if self.lanes else 1

    @property
    def q_axis(self) -> int:
        """The axis of queries in a block of scores."""
        return 1 if self.lanes or self.outer == 1 else 0

    def ordered(self, positions: Any, features: Any) -> tuple[Any, Any]:
        """Sizes, or indices, of positions and of a head's features, in the order of the layout."""
        return (features, positions) if self.lanes else (positions, features)

    def at(self, positions: slice) -> tuple:
        """The index of some positions of a head, in a block of one head."""
        return 0, 0, *self.ordered(positions, slice(None))

    def parts(self) -> list[slice]:
        """The queries or keys of each product, of those along the rows of its scores."""
        size, part = self.blocks[self.q_axis], self.blocks.part
        return [slice(first, first + part) for first in range(0, size, part)]


def supports(q: Array, k: Array, v: Array, visible: Visible) -> bool:
    """Whether these kernels support a call: float32 or bfloat16, widths a multiple of 8, and no
    explicit mask."""
    types = {x.dtype for x in (q, k, v)}
    usual = types in ({jnp.dtype("float32")}, {jnp.dtype("bfloat16")})
    return usual and visible.mask is None and q.shape[3] % 8 == 0 and min(*q.shape, *k.shape) > 0


def forward(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    visible: Visible,
    scale: float,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T N"]]:
    """Output in q's type and log-sum-exp in float32, for operands that `supports` accepts."""
    batch, length, heads, width = q_BTNH.shape
    groups = heads // k_BSKH.shape[2]
    call = _plan(q_BTNH, k_BSKH, visible, scale, outer=0)
    q = _heads_first(call, q_BTNH, call.steps[0] * call.blocks.q)
    k, v = (_heads_first(call, x, call.steps[1] * call.blocks.kv) for x in (k_BSKH, v_BSKH))
    scalars, segments = _operands(call, visible, batch, length, k_BSKH.shape[1])

    def at(b: Index, n: Index, i: Index, s: Index, *scalars: Ref) -> tuple:
        return b, n, kv_head(n, groups), i, _visited(call, scalars, b, i, s)

    of_q, of_kv, row, of_segments = _specs(call, width, at)
    row_shape = call.ordered(call.blocks.q, 1 if call.lanes else LANES)
    out, lse = pl.pallas_call(
        partial(_forward_kernel, call),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(batch, heads, *call.steps),
            in_specs=[of_q, of_kv, of_kv, *of_segments],
            out_specs=[of_q, row],
            scratch_shapes=[
                *[pltpu.VMEM(row_shape, jnp.float32)] * 2,
                pltpu.VMEM(call.ordered(call.blocks.q, width), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((batch, heads, 1, call.steps[0] * call.blocks.q), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary"),
        ),
        name="attention_forward",
    )(*scalars, q, k, v, *segments)
    return _heads_last(call, out, length), lse[:, :, 0, :length].transpose(0, 2, 1)


def _forward_kernel(call: Call, *refs: Ref) -> None:
    """A step of the grid (B, N, queries, keys): one block of keys for one block of queries."""
    scalars, refs = (refs[:5], refs[5:]) if call.mapped else ((), refs)
    q_ref, k_ref, v_ref, *segments, out_ref, lse_ref, top_ref, total_ref, sum_ref = refs
    b, i = pl.program_id(0), pl.program_id(2)
    step = pl.program_id(3) if call.steps[1] > 1 else 0
    every_query, every_key = slice(0, call.blocks.q), slice(0, call.blocks.kv)
    parts_of_keys = call.lanes and len(call.parts()) > 1
    only = call.steps[1] == 1 and not call.mapped and not parts_of_keys  # nothing is carried over

    def finish(queries: slice, top: Array, total: Array, sums: Array) -> None:
        seeing = top > UNSEEN / 2
        out = sums / spread(jnp.where(seeing, total, 1.0), sums.shape[1])
        out = jnp.where(spread(seeing, sums.shape[1]), out, 0.0)
        out_ref[call.at(queries)] = out.astype(out_ref.dtype)
        lse = jnp.where(seeing, top * call.scale + jnp.log(total), -jnp.inf)
        if not call.lanes:
            lse = jnp.broadcast_to(lse, (lse.shape[0], LANES)).T[:1]
        lse_ref[0, 0, :, queries] = lse

    def attend_block(partly: bool) -> None:
        firsts = i * call.blocks.q, _visited(call, scalars, b, i, step) * call.blocks.kv
        for part in call.parts():
            queries, keys = (every_query, part) if call.lanes else (part, every_key)
            q, k, v = q_ref[call.at(queries)], k_ref[call.at(keys)], v_ref[call.at(keys)]
            down, across = (k, q) if call.lanes else (q, k)
            scores = product(down, across, (call.h, call.h))
            if partly:
                seen = seen_keys(call, scores.shape, firsts, part, scalars, segments)
                scores = jnp.where(seen, scores, UNSEEN)
            top = scores.max(1 - call.q_axis, keepdims=True)
            state = call.ordered(queries, slice(None))
            if not only:
                old_top = top_ref[state]
                top = jnp.maximum(old_top, jnp.broadcast_to(top, old_top.shape))
            weights = jnp.exp2((scores - spread(top, scores.shape[1])) * (call.scale * LOG2E))
            total = weights.sum(1 - call.q_axis, keepdims=True)
            sums = _weighed(call, weights.astype(v.dtype), v)
            if only:
                finish(queries, top, total, sums)
                continue
            rescale = rescaling(old_top, top, call.scale)
            top_ref[state] = top
            total_ref[state] = total_ref[state] * rescale + total
            sum_ref[state] = sum_ref[state] * spread(rescale, sums.shape[1]) + sums

    if only:
        attend_block(False)
        return

    @pl.when(step == 0)
    def _start() -> None:
        top_ref[...] = jnp.full(top_ref.shape, UNSEEN, jnp.float32)
        total_ref[...] = jnp.zeros(total_ref.shape, jnp.float32)
        sum_ref[...] = jnp.zeros(sum_ref.shape, jnp.float32)

    _run_block(call, scalars, b, i, step, attend_block)

    @pl.when(step == call.steps[1] - 1)
    def _finish() -> None:
        finish(every_query, top_ref[...], total_ref[...], sum_ref[...])


def spread(x: Array, width: int) -> Array:
    """Broadcasts per-row values, held in all lanes or in one, to rows of another width.

    Values along the lanes already have that width.
    """
    return x[:, :width] if 1 < x.shape[1] >= width else x[:, :1]


def backward(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    visible: Visible,
    out_BTNH: Float[Array, "B T N H"],
    lse_BTN: Float[Array, "B T N"],
    d_out_BTNH: Float[Array, "B T N H"],
    d_lse_BTN: Float[Array, "B T N"],
    scale: float,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B S K H"], Float[Array, "B S K H"]]:
    """Gradients of q, k and v: scores are recomputed, each product of a block once."""
    batch, length, heads, width = q_BTNH.shape
    groups = heads // k_BSKH.shape[2]
    delta_BTN = (d_out_BTNH.astype(jnp.float32) * out_BTNH.astype(jnp.float32)).sum(-1) - d_lse_BTN
    lse_BTN = jnp.where(jnp.isfinite(lse_BTN), lse_BTN, -UNSEEN) * LOG2E
    d_out_BTNH = d_out_BTNH.astype(q_BTNH.dtype)
    each = (4 + 2 * q_BTNH.dtype.itemsize) * groups * width  # outputs are double-buffered
    piece = max(MOST_D_Q_BYTES // each // LANES * LANES, LANES)
    kv_dtype = k_BSKH.dtype if piece >= length else jnp.dtype("float32")
    found = []
    for start in range(0, length, piece):
        queries = slice(start, min(start + piece, length))
        of_q = (x[:, queries] for x in (q_BTNH, d_out_BTNH, lse_BTN, delta_BTN))
        seen = _from_query(visible, queries, batch)
        found.append(
            _backward_piece(*of_q, k=k_BSKH, v=v_BSKH, visible=seen, scale=scale, kv_dtype=kv_dtype)
        )
    d_q, d_k, d_v = zip(*found, strict=True)
    d_k, d_v = (sum(x).astype(k_BSKH.dtype) for x in (d_k, d_v))
    return jnp.concatenate(d_q, 1), d_k, d_v


def _from_query(visible: Visible, queries: slice, batch: int) -> Visible:
    """The mask of a range of queries."""
    offset = visible.q_offset
    if queries.start > 0:
        offset = queries.start + (jnp.zeros(batch, jnp.int32) if offset is None else offset)
    segments = visible.q_segments
    segments = None if segments is None else segments[:, queries]
    return replace(visible, q_offset=offset, q_segments=segments)


def _backward_piece(
    q_BTNH: Array,
    d_out_BTNH: Array,
    lse_BTN: Array,
    delta_BTN: Array,
    *,
    k: Array,
    v: Array,
    visible: Visible,
    scale: float,
    kv_dtype: DTypeLike,
) -> tuple[Array, Array, Array]:
    """d_q, d_k and d_v of some queries; the latter two in `kv_dtype`."""
    batch, length, heads, width = q_BTNH.shape
    size, kv_heads = k.shape[1:3]
    groups = heads // kv_heads
    call = _plan(q_BTNH, k, visible, scale, outer=1)
    q_size, kv_size = call.steps[0] * call.blocks.q, call.steps[1] * call.blocks.kv

    def rows(x: Array, filling: float) -> Array:
        return _padded(x.transpose(0, 2, 1)[:, :, None], 3, q_size, filling)

    q, d_out = (_heads_first(call, x, q_size) for x in (q_BTNH, d_out_BTNH))
    k, v = (_heads_first(call, x, kv_size) for x in (k, v))
    scalars, segments = _operands(call, visible, batch, length, size)

    def at(b: Index, kv: Index, j: Index, g: Index, s: Index, *scalars: Ref) -> tuple:
        return b, kv * groups + g, kv, _visited(call, scalars, b, j, s), j

    def d_q_index(b: Index, kv: Index, *_: object) -> tuple:
        return b, kv, 0, 0

    of_q, of_kv, row, of_segments = _specs(call, width, at)
    d_q, d_k, d_v = pl.pallas_call(
        partial(_backward_kernel, call),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(batch, kv_heads, call.steps[1], groups, call.steps[0]),
            in_specs=[of_q, of_kv, of_kv, of_q, row, row, *of_segments],
            out_specs=[pl.BlockSpec((1, groups, width, q_size), d_q_index), of_kv, of_kv],
            scratch_shapes=[
                pltpu.VMEM((groups, width, q_size), jnp.float32),
                *[pltpu.VMEM((1, 1, *call.ordered(call.blocks.kv, width)), jnp.float32)] * 2,
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((batch, heads, width, q_size), q.dtype),
            *[jax.ShapeDtypeStruct(k.shape, kv_dtype)] * 2,
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary", "arbitrary"),
        ),
        name="attention_backward",
    )(*scalars, q, k, v, d_out, rows(lse_BTN, -UNSEEN), rows(delta_BTN, 0.0), *segments)
    d_k, d_v = (_heads_last(call, x, size) for x in (d_k, d_v))
    return d_q.transpose(0, 3, 1, 2)[:, :length], d_k, d_v


def _backward_kernel(call: Call, *refs: Ref) -> None:
    """A step of the grid (B, K, keys, groups, queries): one block of queries for one of keys."""
    scalars, refs = (refs[:5], refs[5:]) if call.mapped else ((), refs)
    q_ref, k_ref, v_ref, d_out_ref, lse_ref, delta_ref, *segments = refs[:-6]
    d_q_ref, d_k_ref, d_v_ref, d_q_sum, d_k_sum, d_v_sum = refs[-6:]
    b, j, g, step = (pl.program_id(axis) for axis in (0, 2, 3, 4))
    h, t = call.h, 1 - call.h  # axes of a head's features and of positions

    @pl.when((j == 0) & (g == 0) & (step == 0))
    def _start_q() -> None:
        d_q_sum[...] = jnp.zeros(d_q_sum.shape, jnp.float32)

    @pl.when((g == 0) & (step == 0))
    def _start_kv() -> None:
        d_k_sum[...] = jnp.zeros(d_k_sum.shape, jnp.float32)
        d_v_sum[...] = jnp.zeros(d_v_sum.shape, jnp.float32)

    def attend_block(partly: bool) -> None:
        q_first = _visited(call, scalars, b, j, step) * call.blocks.q
        queries = pl.ds(pl.multiple_of(q_first, LANES), call.blocks.q)
        q, d_out = q_ref[0, 0], d_out_ref[0, 0]
        for keys in call.parts():
            k, v = k_ref[call.at(keys)], v_ref[call.at(keys)]
            scores = product(k, q, (h, h)) * (call.scale * LOG2E)
            weights = jnp.exp2(scores - lse_ref[0, 0])
            if partly:
                firsts = q_first, j * call.blocks.kv
                seen = seen_keys(call, scores.shape, firsts, keys, scalars, segments)
                weights = jnp.where(seen, weights, 0.0)
            d_weights = product(v, d_out, (h, h))
            d_scores = (weights * (d_weights - delta_ref[0, 0])).astype(q.dtype)
            d_v_sum[call.at(keys)] += _weighed(call, weights.astype(q.dtype), d_out)
            d_k_sum[call.at(keys)] += _weighed(call, d_scores, q)
            d_q_sum[g, :, queries] += product(k, d_scores, (t, 0))

    _run_block(call, scalars, b, j, step, attend_block)
    last = step == call.steps[0] - 1

    @pl.when(last & (j == call.steps[1] - 1))
    def _finish_q() -> None:
        d_q_ref[0, g] = (d_q_sum[g] * call.scale).astype(d_q_ref.dtype)

    @pl.when(last & (g == pl.num_programs(3) - 1))
    def _finish_kv() -> None:
        d_k_ref[...] = (d_k_sum[...] * call.scale).astype(d_k_ref.dtype)
        d_v_ref[...] = d_v_sum[...].astype(d_v_ref.dtype)


def product(a: Array, b: Array, contracted: tuple[int, int]) -> Array:
    """A matrix product accumulated in float32; float32 operands keep full precision."""
    exact = a.dtype == jnp.float32
    return jax.lax.dot_general(
        a,
        b,
        ((contracted[:1], contracted[1:]), ((), ())),
        precision=jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )


def _weighed(call: Call, weights: Array, x: Array) -> Array:
    """Weighted sums over the blocks visited, in the layout of x."""
    axis = call.q_axis if call.outer == 1 else 1 - call.q_axis
    if call.lanes:
        return product(x, weights, (1, axis))
    return product(weights, x, (axis, 0))


def kv_head(head: Index, groups: int) -> Any:
    """The key head of a query head."""
    return jax.lax.div(head, groups)


def _heads_first(call: Call, x: Array, size: int) -> Array:
    """[B, T, N, H] as [B, N, T, H] or [B, N, H, T], with T padded to a size."""
    return _padded(x.transpose(0, 2, *call.ordered(1, 3)), 3 - call.h, size)


def _heads_last(call: Call, x: Array, length: int) -> Array:
    """The inverse of `_heads_first`, without the padding."""
    return x.transpose((0, 3, 1, 2) if call.lanes else (0, 2, 1, 3))[:, :length]


def rescaling(top: Array, new_top: Array, scale: float) -> Array:
    """The factor of sums under an old maximum when a new one replaces it."""
    return jnp.exp2((top - new_top) * (scale * LOG2E))


def _visit(call: Call, b: Index, outer: Index, step: Index) -> Any:
    """The index of a step in the flattened block map."""
    return (b * call.steps[call.outer] + outer) * call.steps[1 - call.outer] + step


def _visited(call: Call, scalars: tuple, b: Index, outer: Index, step: Index) -> Any:
    """The inner block of a step: of keys, where blocks of queries are the outer loop."""
    return scalars[1][_visit(call, b, outer, step)] if call.mapped else step


def _run_block(
    call: Call,
    scalars: tuple,
    b: Index,
    outer: Index,
    step: Index,
    attend_block: Callable[[bool], None],
) -> None:
    """Runs a step where its block is not empty, with a mask where it is partly visible."""
    if not call.mapped:
        attend_block(False)
        return
    count_ref, _, kind_ref, *_ = scalars
    count = count_ref[b * call.steps[call.outer] + outer]
    kind = jnp.where(step < count, kind_ref[_visit(call, b, outer, step)], EMPTY)
    pl.when(kind == PARTLY)(lambda: attend_block(True))
    pl.when(kind == WHOLLY)(lambda: attend_block(False))


def seen_keys(
    call: Call,
    shape: tuple[int, ...],
    firsts: tuple[Any, Any],
    part: slice,
    scalars: tuple,
    segments: Any,
) -> Array:
    """The mask of a part of a block of scores whose first query and key are `firsts`."""
    offset_ref, used_ref = scalars[3:]
    b = pl.program_id(0)
    query, key = (
        first + (part.start if axis == 0 else 0) + jax.lax.broadcasted_iota(jnp.int32, shape, axis)
        for first, axis in zip(firsts, (call.q_axis, 1 - call.q_axis), strict=True)
    )
    seen = key < used_ref[b]
    if call.causal:
        seen &= key <= query + offset_ref[b]
    if call.segmented:
        down, across = segments if call.q_axis == 0 else segments[::-1]
        seen &= (down[0, part] == across[0]) & (across[0] != 0)
    return seen


def _specs(
    call: Call, width: int, at: Callable[..., tuple]
) -> tuple[pl.BlockSpec, pl.BlockSpec, pl.BlockSpec, list[pl.BlockSpec]]:
    """Block specs of queries, of keys, of per-query rows, and of segments.

    `at` maps a step of the grid to batch, head, key head, and blocks of queries and of keys.
    """

    def spec(shape: tuple[int, ...], index: Callable[..., tuple]) -> pl.BlockSpec:
        return pl.BlockSpec(shape, lambda *step: index(*at(*step)))

    q, kv, _ = call.blocks
    if not call.segmented:
        segments = []
    elif call.q_axis == 0:
        segments = [
            spec((1, q, 1), lambda b, n, k, i, j: (b, i, 0)),
            spec((1, 1, kv), lambda b, n, k, i, j: (b, 0, j)),
        ]
    else:
        segments = [
            spec((1, 1, q), lambda b, n, k, i, j: (b, 0, i)),
            spec((1, kv, 1), lambda b, n, k, i, j: (b, j, 0)),
        ]
    return (
        spec((1, 1, *call.ordered(q, width)), lambda b, n, k, i, j: (b, n, *call.ordered(i, 0))),
        spec((1, 1, *call.ordered(kv, width)), lambda b, n, k, i, j: (b, k, *call.ordered(j, 0))),
        spec((1, 1, 1, q), lambda b, n, k, i, j: (b, n, 0, i)),
        segments,
    )


def _plan(q: Array, k: Array, visible: Visible, scale: float, outer: int) -> Call:
    """The static parameters, with blocks fitted to the lengths."""
    length, size, lanes = q.shape[1], k.shape[1], q.shape[3] % LANES > 0
    segmented = visible.q_segments is not None
    if outer == 1:
        blocks = LANES_BACKWARD if lanes else BACKWARD
    elif visible.causal or segmented:
        blocks = LANES_FORWARD_SKIPPING if lanes else FORWARD_SKIPPING
    else:
        blocks = LANES_FORWARD if lanes else FORWARD
    if q.dtype == jnp.float32:  # scores and products need twice the memory
        half = Blocks(*(max(size // 2, LANES) for size in blocks))
        if lanes:
            blocks = half
        elif outer == 0:
            blocks = blocks._replace(part=half.part)
    (q_block, q_steps), (kv, kv_steps) = _fitted(length, blocks.q), _fitted(size, blocks.kv)
    mapped = visible.causal or segmented or visible.kv_length is not None or kv * kv_steps > size
    down = kv if lanes or outer == 1 else q_block
    part = next(n for n in range(min(blocks.part, down), 0, -LANES) if down % n == 0)
    return Call(
        visible.causal,
        segmented,
        mapped,
        scale,
        Blocks(q_block, kv, part),
        (q_steps, kv_steps),
        outer,
        lanes,
    )


def _fitted(length: int, block: int) -> tuple[int, int]:
    """The largest block, in whole tiles and at most `block`, that pads least, and their number."""
    count = -(-length // block)
    return -(-length // (count * LANES)) * LANES, count


def _padded(x: Array, axis: int, size: int, filling: float = 0) -> Array:
    if x.shape[axis] == size:
        return x
    widths = [(0, size - x.shape[axis] if at == axis else 0) for at in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=filling)


def _operands(
    call: Call, visible: Visible, batch: int, length: int, size: int
) -> tuple[tuple, tuple]:
    """Scalars of the block map (count, order, kind, offset, keys in use), and segments, as a column
    where they run along the rows of scores."""
    if not call.mapped:
        return (), ()
    kind = kinds(visible, batch, length, size, call.blocks.q, call.blocks.kv)
    found = visits(kind if call.outer == 0 else kind.transpose(0, 2, 1))
    zero = jnp.zeros((batch,), jnp.int32)
    offset = zero if visible.q_offset is None else visible.q_offset
    used = zero + size if visible.kv_length is None else jnp.minimum(visible.kv_length, size)
    flat = (x.reshape(-1) for x in (found.count, found.order, found.kind))
    scalars = (*flat, offset, used)
    if visible.q_segments is None or visible.kv_segments is None:
        return scalars, ()
    q_segments = _padded(visible.q_segments, 1, call.steps[0] * call.blocks.q)
    kv_segments = _padded(visible.kv_segments, 1, call.steps[1] * call.blocks.kv)
    if call.q_axis == 0:
        return scalars, (q_segments[:, :, None], kv_segments[:, None])
    return scalars, (q_segments[:, None], kv_segments[:, :, None])
