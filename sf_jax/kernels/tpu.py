"""Flash attention for TPU, in Pallas (after Dao, FlashAttention-2, arXiv:2307.08691).

Forward, a block of queries meets as many keys as fit at once, a few rows at a time: the softmax of
some rows is then computed beside the products of others, and rescaling is rare. Where all keys fit
there is none. The maximum is taken of raw products, which saves a pass that scales them.

Backward, scores are kept transposed, keys down and queries across ([S, T]). What belongs to a
query, its log-sum-exp and its share of the gradient, is then a row along the lanes, stored as it
is; and none of the five products needs a large operand transposed: d_q is summed up transposed
instead, in memory on the chip, while blocks of keys go by.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from sf_jax.kernels.block_map import EMPTY, PARTLY, WHOLLY, kinds, visits
from sf_jax.kernels.visible import Visible

LANES = 128
LOG2E = 1.4426950408889634
UNSEEN = -1e30  # the score of a key that is not seen


class Blocks(NamedTuple):
    """How the work is cut.

    Attributes:
      q, kv: queries and keys of a step of the grid.
      part: of one product in it: queries forward, keys backward.
    """

    q: int
    kv: int
    part: int


# By the compiler's estimates, `sf-jax bench attention cycles --tune`. Where blocks may be skipped,
# smaller ones skip more.
FORWARD, FORWARD_SKIPPING = Blocks(1024, 2048, 512), Blocks(512, 1024, 512)
BACKWARD = Blocks(512, 512, 512)
MOST_D_Q_BYTES = 6 * 2**20  # kept on the chip, sums and results; longer rows go in pieces


class _Call(NamedTuple):
    """What a kernel is specialised for."""

    causal: bool
    segmented: bool
    mapped: bool  # whether some blocks may be empty or partly seen
    scale: float
    blocks: Blocks
    steps: tuple[int, int]  # blocks of queries and of keys


def supports(q: Array, k: Array, v: Array, visible: Visible) -> bool:
    """Whether these kernels can take a call: float32 or bfloat16, whole tiles of 8 a head, no mask
    written out."""
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
    """Output in q's type and log-sum-exp."""
    batch, length, heads, width = q_BTNH.shape
    size, kv_heads = k_BSKH.shape[1:3]
    groups = heads // kv_heads
    skipping = visible.causal or visible.q_segments is not None
    blocks = FORWARD_SKIPPING if skipping else FORWARD
    if q_BTNH.dtype == jnp.float32:  # whose scores and products need twice the room
        blocks = blocks._replace(part=max(blocks.part // 2, LANES))
    call = _plan(length, size, visible, scale, blocks, "q")
    q = _heads_first(q_BTNH, call.steps[0] * call.blocks.q)
    k, v = (_heads_first(x, call.steps[1] * call.blocks.kv) for x in (k_BSKH, v_BSKH))
    scalars, segments = _operands(call, visible, batch, length, size, "q")

    def kv_block(b: Any, i: Any, s: Any, *scalars: Any) -> Any:
        return scalars[1][(b * call.steps[0] + i) * call.steps[1] + s] if call.mapped else s

    def q_place(b: Any, n: Any, i: Any, s: Any, *_: Any) -> tuple:
        return b, n, i, 0

    def kv_place(b: Any, n: Any, i: Any, s: Any, *scalars: Any) -> tuple:
        return b, _kv_head(n, groups), kv_block(b, i, s, *scalars), 0

    def row_place(b: Any, n: Any, i: Any, s: Any, *_: Any) -> tuple:
        return b, n, 0, i

    def q_segment_place(b: Any, n: Any, i: Any, s: Any, *_: Any) -> tuple:
        return b, i, 0

    def kv_segment_place(b: Any, n: Any, i: Any, s: Any, *scalars: Any) -> tuple:
        return b, 0, kv_block(b, i, s, *scalars)

    of_q = pl.BlockSpec((1, 1, call.blocks.q, width), q_place)
    of_kv = pl.BlockSpec((1, 1, call.blocks.kv, width), kv_place)
    in_specs = [of_q, of_kv, of_kv]
    if call.segmented:
        in_specs += [
            pl.BlockSpec((1, call.blocks.q, 1), q_segment_place),
            pl.BlockSpec((1, 1, call.blocks.kv), kv_segment_place),
        ]
    out, lse = pl.pallas_call(
        partial(_forward_kernel, call),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(batch, heads, *call.steps),
            in_specs=in_specs,
            out_specs=[of_q, pl.BlockSpec((1, 1, 1, call.blocks.q), row_place)],
            scratch_shapes=[
                pltpu.VMEM((call.blocks.q, LANES), jnp.float32),
                pltpu.VMEM((call.blocks.q, LANES), jnp.float32),
                pltpu.VMEM((call.blocks.q, width), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((batch, heads, 1, q.shape[2]), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary"),
        ),
        name="attention_forward",
    )(*scalars, q, k, v, *segments)
    return out.transpose(0, 2, 1, 3)[:, :length], lse[:, :, 0, :length].transpose(0, 2, 1)


def _forward_kernel(call: _Call, *refs: Any) -> None:
    """A step of the grid (B, N, queries, keys): one block of keys for one block of queries."""
    scalars, refs = (refs[:5], refs[5:]) if call.mapped else ((), refs)
    q_ref, k_ref, v_ref, *segments, out_ref, lse_ref, top_ref, total_ref, sum_ref = refs
    b, i, step = pl.program_id(0), pl.program_id(2), pl.program_id(3)
    outer = b * call.steps[0] + i
    visit = outer * call.steps[1] + step
    only = call.steps[1] == 1 and not call.mapped  # nothing is carried from step to step

    def finish(queries: slice, top: Array, total: Array, sums: Array) -> None:
        seeing = top > UNSEEN / 2
        out = sums / _across(jnp.where(seeing, total, 1.0), sums.shape[1])
        out = jnp.where(_across(seeing, sums.shape[1]), out, 0.0)
        out_ref[0, 0, queries] = out.astype(out_ref.dtype)
        lse = jnp.where(seeing, top * call.scale + jnp.log(total), -jnp.inf)
        lse_ref[0, 0, :, queries] = jnp.broadcast_to(lse, (lse.shape[0], LANES)).T[:1]

    def meet(partly: bool) -> None:
        kv_first = (scalars[1][visit] if call.mapped else step) * call.blocks.kv
        for first in range(0, call.blocks.q, call.blocks.part):
            queries = slice(first, first + call.blocks.part)
            scores = _product(q_ref[0, 0, queries], k_ref[0, 0], (1, 1))
            if partly:
                places = i * call.blocks.q + first, kv_first
                shown = segments and (segments[0][0, queries], segments[1][0])
                seen = _seen(call, scores.shape, 0, places, scalars, shown)
                scores = jnp.where(seen, scores, UNSEEN)
            top = scores.max(1, keepdims=True)
            if not only:
                old_top = top_ref[queries]
                top = jnp.maximum(old_top, jnp.broadcast_to(top, old_top.shape))
            weights = jnp.exp2((scores - top[:, :1]) * (call.scale * LOG2E))
            total = weights.sum(1, keepdims=True)
            sums = _product(weights.astype(v_ref.dtype), v_ref[0, 0], (1, 0))
            if only:
                finish(queries, top, total, sums)
                continue
            rescale = _rescale(old_top, top, call.scale)
            top_ref[queries] = top
            total_ref[queries] = total_ref[queries] * rescale + total
            sum_ref[queries] = sum_ref[queries] * _across(rescale, sums.shape[1]) + sums

    if only:
        meet(False)
        return

    @pl.when(step == 0)
    def _start() -> None:
        top_ref[...] = jnp.full(top_ref.shape, UNSEEN, jnp.float32)
        total_ref[...] = jnp.zeros(total_ref.shape, jnp.float32)
        sum_ref[...] = jnp.zeros(sum_ref.shape, jnp.float32)

    _meet(call, scalars, outer, step, visit, meet)

    @pl.when(step == call.steps[1] - 1)
    def _finish() -> None:
        finish(slice(0, call.blocks.q), top_ref[...], total_ref[...], sum_ref[...])


def _across(x: Array, width: int) -> Array:
    """A number a row, alike in every lane or in one alone, for rows of another width."""
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
    """Gradients of q, k and v: scores are computed again, each product of a block once."""
    batch, length, heads, width = q_BTNH.shape
    groups = heads // k_BSKH.shape[2]
    delta_BTN = (d_out_BTNH.astype(jnp.float32) * out_BTNH.astype(jnp.float32)).sum(-1) - d_lse_BTN
    lse_BTN = jnp.where(jnp.isfinite(lse_BTN), lse_BTN, -UNSEEN) * LOG2E
    d_out_BTNH = d_out_BTNH.astype(q_BTNH.dtype)
    each = (4 + 2 * q_BTNH.dtype.itemsize) * groups * width  # what is written is held twice
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
    """What some of the queries see."""
    offset = visible.q_offset
    if queries.start > 0:
        offset = queries.start + (jnp.zeros(batch, jnp.int32) if offset is None else offset)
    segments = visible.q_segments
    segments = None if segments is None else segments[:, queries]
    return replace(visible, q_offset=offset, q_segments=segments)


def _backward_piece(
    q_BTNH: Array, d_out_BTNH: Array, lse_BTN: Array, delta_BTN: Array, *, k: Array, v: Array,
    visible: Visible, scale: float, kv_dtype: Any,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """d_q, d_k and d_v of some queries; the latter two in a type of their own."""
    batch, length, heads, width = q_BTNH.shape
    size, kv_heads = k.shape[1:3]
    groups = heads // kv_heads
    call = _plan(length, size, visible, scale, BACKWARD, "kv")
    q_size, kv_size = call.steps[0] * call.blocks.q, call.steps[1] * call.blocks.kv

    def rows(x: Array, filling: float) -> Array:
        return _padded(x.transpose(0, 2, 1)[:, :, None], 3, q_size, filling)

    q, d_out = (_heads_first(x, q_size) for x in (q_BTNH, d_out_BTNH))
    k, v = (_heads_first(x, kv_size) for x in (k, v))
    scalars, segments = _operands(call, visible, batch, length, size, "kv")

    def q_block(b: Any, j: Any, s: Any, *scalars: Any) -> Any:
        return scalars[1][(b * call.steps[1] + j) * call.steps[0] + s] if call.mapped else s

    def q_place(b: Any, kv: Any, j: Any, g: Any, s: Any, *scalars: Any) -> tuple:
        return b, kv * groups + g, q_block(b, j, s, *scalars), 0

    def row_place(b: Any, kv: Any, j: Any, g: Any, s: Any, *scalars: Any) -> tuple:
        return b, kv * groups + g, 0, q_block(b, j, s, *scalars)

    def kv_place(b: Any, kv: Any, j: Any, g: Any, s: Any, *_: Any) -> tuple:
        return b, kv, j, 0

    def d_q_place(b: Any, kv: Any, j: Any, g: Any, s: Any, *_: Any) -> tuple:
        return b, kv, 0, 0

    def q_segment_place(b: Any, kv: Any, j: Any, g: Any, s: Any, *scalars: Any) -> tuple:
        return b, 0, q_block(b, j, s, *scalars)

    def kv_segment_place(b: Any, kv: Any, j: Any, g: Any, s: Any, *_: Any) -> tuple:
        return b, j, 0

    of_q = pl.BlockSpec((1, 1, call.blocks.q, width), q_place)
    row = pl.BlockSpec((1, 1, 1, call.blocks.q), row_place)
    of_kv = pl.BlockSpec((1, 1, call.blocks.kv, width), kv_place)
    in_specs = [of_q, of_kv, of_kv, of_q, row, row]
    if call.segmented:
        in_specs += [
            pl.BlockSpec((1, 1, call.blocks.q), q_segment_place),
            pl.BlockSpec((1, call.blocks.kv, 1), kv_segment_place),
        ]
    d_q, d_k, d_v = pl.pallas_call(
        partial(_backward_kernel, call),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(batch, kv_heads, call.steps[1], groups, call.steps[0]),
            in_specs=in_specs,
            out_specs=[pl.BlockSpec((1, groups, width, q_size), d_q_place), of_kv, of_kv],
            scratch_shapes=[
                pltpu.VMEM((groups, width, q_size), jnp.float32),
                *[pltpu.VMEM((call.blocks.kv, width), jnp.float32)] * 2,
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
    d_k, d_v = (x.transpose(0, 2, 1, 3)[:, :size] for x in (d_k, d_v))
    return d_q.transpose(0, 3, 1, 2)[:, :length], d_k, d_v


def _backward_kernel(call: _Call, *refs: Any) -> None:
    """A step of the grid (B, K, keys, groups, queries): one block of queries for one of keys."""
    scalars, refs = (refs[:5], refs[5:]) if call.mapped else ((), refs)
    q_ref, k_ref, v_ref, d_out_ref, lse_ref, delta_ref, *segments = refs[:-6]
    d_q_ref, d_k_ref, d_v_ref, d_q_sum, d_k_sum, d_v_sum = refs[-6:]
    b, j, g, step = (pl.program_id(axis) for axis in (0, 2, 3, 4))
    outer = b * call.steps[1] + j
    visit = outer * call.steps[0] + step

    @pl.when((j == 0) & (g == 0) & (step == 0))
    def _start_q() -> None:
        d_q_sum[...] = jnp.zeros(d_q_sum.shape, jnp.float32)

    @pl.when((g == 0) & (step == 0))
    def _start_kv() -> None:
        d_k_sum[...] = jnp.zeros(d_k_sum.shape, jnp.float32)
        d_v_sum[...] = jnp.zeros(d_v_sum.shape, jnp.float32)

    def meet(partly: bool) -> None:
        q_first = (scalars[1][visit] if call.mapped else step) * call.blocks.q
        queries = pl.ds(pl.multiple_of(q_first, LANES), call.blocks.q)
        q, d_out = q_ref[0, 0], d_out_ref[0, 0]
        for first in range(0, call.blocks.kv, call.blocks.part):
            keys = slice(first, first + call.blocks.part)
            k = k_ref[0, 0, keys]
            scores = _product(k, q, (1, 1)) * (call.scale * LOG2E)
            weights = jnp.exp2(scores - lse_ref[0, 0])
            if partly:
                places = q_first, j * call.blocks.kv + first
                shown = segments and (segments[0][0], segments[1][0, keys])
                seen = _seen(call, scores.shape, 1, places, scalars, shown)
                weights = jnp.where(seen, weights, 0.0)
            d_weights = _product(v_ref[0, 0, keys], d_out, (1, 1))
            d_scores = (weights * (d_weights - delta_ref[0, 0])).astype(q.dtype)
            d_v_sum[keys] += _product(weights.astype(q.dtype), d_out, (1, 0))
            d_k_sum[keys] += _product(d_scores, q, (1, 0))
            d_q_sum[g, :, queries] += _product(k, d_scores, (0, 0))

    _meet(call, scalars, outer, step, visit, meet)
    last = step == call.steps[0] - 1

    @pl.when(last & (j == call.steps[1] - 1))
    def _finish_q() -> None:
        d_q_ref[0, g] = (d_q_sum[g] * call.scale).astype(d_q_ref.dtype)

    @pl.when(last & (g == pl.num_programs(3) - 1))
    def _finish_kv() -> None:
        d_k_ref[0, 0] = (d_k_sum[...] * call.scale).astype(d_k_ref.dtype)
        d_v_ref[0, 0] = d_v_sum[...].astype(d_v_ref.dtype)


def _product(a: Array, b: Array, contracted: tuple[int, int]) -> Array:
    """A matrix product with float32 sums; float32 operands are multiplied as such."""
    exact = a.dtype == jnp.float32
    return jax.lax.dot_general(
        a, b, ((contracted[:1], contracted[1:]), ((), ())),
        precision=jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )  # fmt: skip


def _kv_head(head: Any, groups: int) -> Any:
    """The key head of a query head."""
    return jax.lax.div(head, groups)


def _heads_first(x: Array, size: int) -> Array:
    """[B, T, N, H] as [B, N, T, H], with T padded to a size."""
    return _padded(x.transpose(0, 2, 1, 3), 2, size)


def _rescale(top: Array, new_top: Array, scale: float) -> Array:
    """What sums under an old maximum are multiplied with under a new one."""
    return jnp.exp2((top - new_top) * (scale * LOG2E))


def _meet(
    call: _Call, scalars: tuple, outer: Any, step: Any, visit: Any, meet: Callable[[bool], None]
) -> None:
    """Runs a step where its block is not empty, with a mask where it is partly seen."""
    if not call.mapped:
        meet(False)
        return
    count_ref, _, kind_ref, *_ = scalars
    kind = jnp.where(step < count_ref[outer], kind_ref[visit], EMPTY)
    pl.when(kind == PARTLY)(lambda: meet(True))
    pl.when(kind == WHOLLY)(lambda: meet(False))


def _seen(
    call: _Call, shape: tuple[int, ...], q_axis: int, places: tuple[Any, Any], scalars: tuple,
    segments: Any,
) -> Array:  # fmt: skip
    """Which keys are seen, in a block whose first query and key are at `places`."""
    q_first, kv_first = places
    offset_ref, used_ref = scalars[3:]
    b = pl.program_id(0)
    key = kv_first + jax.lax.broadcasted_iota(jnp.int32, shape, 1 - q_axis)
    seen = key < used_ref[b]
    if call.causal:
        query = q_first + jax.lax.broadcasted_iota(jnp.int32, shape, q_axis)
        seen &= key <= query + offset_ref[b]
    if call.segmented:
        q_segments, kv_segments = segments
        seen &= (kv_segments == q_segments) & (kv_segments != 0)
    return seen


def _plan(
    length: int, size: int, visible: Visible, scale: float, blocks: Blocks, parts_of: str
) -> _Call:
    """The call, with blocks fitted to the lengths; products take parts of "q" or of "kv"."""
    (q, q_steps), (kv, kv_steps) = _fitted(length, blocks.q), _fitted(size, blocks.kv)
    segmented = visible.q_segments is not None
    mapped = visible.causal or segmented or visible.kv_length is not None or kv * kv_steps > size
    whole = {"q": q, "kv": kv}[parts_of]
    part = next(n for n in (blocks.part, LANES) if whole % n == 0)
    return _Call(visible.causal, segmented, mapped, scale, Blocks(q, kv, part), (q_steps, kv_steps))


def _fitted(length: int, block: int) -> tuple[int, int]:
    """The block, in whole tiles and at most as wanted, that pads least, and how many of them."""
    count = -(-length // block)
    return -(-length // (count * LANES)) * LANES, count


def _padded(x: Array, axis: int, size: int, filling: float = 0) -> Array:
    if x.shape[axis] == size:
        return x
    widths = [(0, size - x.shape[axis] if at == axis else 0) for at in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=filling)


def _operands(
    call: _Call, visible: Visible, batch: int, length: int, size: int, outer: str
) -> tuple[tuple, tuple]:
    """Scalars of the block map (count, order, kind, offset, keys in use), and segments.

    `outer` says whose blocks do the visiting, "q" or "kv"; their segments are a column.
    """
    if not call.mapped:
        return (), ()
    kind = kinds(visible, batch, length, size, call.blocks.q, call.blocks.kv)
    found = visits(kind if outer == "q" else kind.transpose(0, 2, 1))
    zero = jnp.zeros((batch,), jnp.int32)
    offset = zero if visible.q_offset is None else visible.q_offset
    used = zero + size if visible.kv_length is None else jnp.minimum(visible.kv_length, size)
    flat = (x.reshape(-1) for x in (found.count, found.order, found.kind))
    scalars = (*flat, offset, used)
    if visible.q_segments is None or visible.kv_segments is None:
        return scalars, ()
    q_segments = _padded(visible.q_segments, 1, call.steps[0] * call.blocks.q)
    kv_segments = _padded(visible.kv_segments, 1, call.steps[1] * call.blocks.kv)
    if outer == "q":
        return scalars, (q_segments[:, :, None], kv_segments[:, None])
    return scalars, (q_segments[:, None], kv_segments[:, :, None])
