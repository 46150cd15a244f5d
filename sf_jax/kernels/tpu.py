"""Flash attention for TPU, in Pallas (after Dao, FlashAttention-2, arXiv:2307.08691).

Scores are kept transposed, keys down and queries across ([S, T]), and so is the output ([H, T]).
Two things follow. What belongs to a query - its maximum, its sum, its log-sum-exp - is a row along
the lanes: maxima are taken over registers rather than across lanes, and the row is stored as it
is. And the head width is a number of rows, not of lanes: a width of 64 or 72 fills no 128-lane tile
by half, neither in the accumulator nor in the product with the values.
"""

from collections.abc import Callable
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
    """Queries and keys that a step of the grid takes, and keys that one product of it takes."""

    q: int
    kv: int
    step: int


FORWARD, BACKWARD = Blocks(512, 2048, 512), Blocks(512, 512, 512)


class _Call(NamedTuple):
    """What a kernel is specialised for."""

    causal: bool
    segmented: bool
    mapped: bool  # whether some blocks may be empty or partly seen
    scale: float
    blocks: Blocks


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
    blocks: Blocks | None = None,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T N"]]:
    """Output in q's type and log-sum-exp."""
    batch, length, heads, width = q_BTNH.shape
    size, kv_heads = k_BSKH.shape[1:3]
    groups = heads // kv_heads
    call, q_padding, kv_padding = _plan(length, size, visible, scale, blocks or FORWARD)
    q_BNHT = _padded(q_BTNH.transpose(0, 2, 3, 1), 3, q_padding)
    k_BKSH = _padded(k_BSKH.transpose(0, 2, 1, 3), 2, kv_padding)
    v_BKHS = _padded(v_BSKH.transpose(0, 2, 3, 1), 3, kv_padding)
    steps = (length + q_padding) // call.blocks.q, (size + kv_padding) // call.blocks.kv
    scalars, segments = _operands(call, visible, batch, length, size, q_padding, kv_padding, "q")

    def kv_block(b: Any, i: Any, s: Any, *scalars: Any) -> Any:
        return scalars[1][(b * steps[0] + i) * steps[1] + s] if call.mapped else s

    def q_place(b: Any, n: Any, i: Any, s: Any, *_: Any) -> tuple:
        return b, n, 0, i

    def k_place(b: Any, n: Any, i: Any, s: Any, *scalars: Any) -> tuple:
        return b, _kv_head(n, groups), kv_block(b, i, s, *scalars), 0

    def v_place(b: Any, n: Any, i: Any, s: Any, *scalars: Any) -> tuple:
        return b, _kv_head(n, groups), 0, kv_block(b, i, s, *scalars)

    def q_segment_place(b: Any, n: Any, i: Any, s: Any, *_: Any) -> tuple:
        return b, 0, i

    def kv_segment_place(b: Any, n: Any, i: Any, s: Any, *scalars: Any) -> tuple:
        return b, kv_block(b, i, s, *scalars), 0

    row = pl.BlockSpec((1, 1, 1, call.blocks.q), q_place)
    column = pl.BlockSpec((1, 1, width, call.blocks.q), q_place)
    in_specs = [
        column,
        pl.BlockSpec((1, 1, call.blocks.kv, width), k_place),
        pl.BlockSpec((1, 1, width, call.blocks.kv), v_place),
    ]
    if call.segmented:
        in_specs += [
            pl.BlockSpec((1, 1, call.blocks.q), q_segment_place),
            pl.BlockSpec((1, call.blocks.kv, 1), kv_segment_place),
        ]
    out, lse = pl.pallas_call(
        partial(_forward_kernel, call),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(batch, heads, *steps),
            in_specs=in_specs,
            out_specs=[column, row],
            scratch_shapes=[
                pltpu.VMEM((1, call.blocks.q), jnp.float32),
                pltpu.VMEM((1, call.blocks.q), jnp.float32),
                pltpu.VMEM((width, call.blocks.q), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q_BNHT.shape, q_BTNH.dtype),
            jax.ShapeDtypeStruct((batch, heads, 1, q_BNHT.shape[3]), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary"),
        ),
        name="attention_forward",
    )(*scalars, q_BNHT, k_BKSH, v_BKHS, *segments)
    return out.transpose(0, 3, 1, 2)[:, :length], lse[:, :, 0, :length].transpose(0, 2, 1)


def _forward_kernel(call: _Call, *refs: Any) -> None:
    """A step of the grid (B, N, queries, keys): one block of keys for one block of queries."""
    scalars, refs = (refs[:5], refs[5:]) if call.mapped else ((), refs)
    q_ref, k_ref, v_ref, *segments, out_ref, lse_ref, top_ref, total_ref, sum_ref = refs
    b, i, step = pl.program_id(0), pl.program_id(2), pl.program_id(3)
    visit = (b * pl.num_programs(2) + i) * pl.num_programs(3) + step

    @pl.when(step == 0)
    def _start() -> None:
        top_ref[...] = jnp.full(top_ref.shape, UNSEEN, jnp.float32)
        total_ref[...] = jnp.zeros(total_ref.shape, jnp.float32)
        sum_ref[...] = jnp.zeros(sum_ref.shape, jnp.float32)

    def meet(partly: bool) -> None:
        kv_first = (scalars[1][visit] if call.mapped else step) * call.blocks.kv
        top, total, sums = top_ref[...], total_ref[...], sum_ref[...]
        for first in range(0, call.blocks.kv, call.blocks.step):
            keys = slice(first, first + call.blocks.step)
            scores = _product(k_ref[0, 0, keys], q_ref[0, 0], (1, 0)) * (call.scale * LOG2E)
            if partly:
                places = i * call.blocks.q, kv_first + first
                seen = _seen(call, scores.shape, places, keys, scalars, segments)
                scores = jnp.where(seen, scores, UNSEEN)
            new_top = jnp.maximum(top, scores.max(0, keepdims=True))
            weights = jnp.exp2(scores - new_top)
            rescale = _rescale(top, new_top)
            total = total * rescale + weights.sum(0, keepdims=True)
            weights = weights.astype(v_ref.dtype)
            sums = sums * rescale + _product(v_ref[0, 0, :, keys], weights, (1, 0))
            top = new_top
        top_ref[...], total_ref[...], sum_ref[...] = top, total, sums

    _meet(call, scalars, b * pl.num_programs(2) + i, step, visit, meet)

    @pl.when(step == pl.num_programs(3) - 1)
    def _finish() -> None:
        top, total = top_ref[...], total_ref[...]
        seeing = top > UNSEEN / 2
        out = sum_ref[...] / jnp.where(seeing, total, 1.0)
        out_ref[0, 0] = jnp.where(seeing, out, 0.0).astype(out_ref.dtype)
        lse_ref[0, 0] = jnp.where(seeing, (top + jnp.log2(total)) / LOG2E, -jnp.inf)


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
    blocks: Blocks | None = None,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B S K H"], Float[Array, "B S K H"]]:
    """Gradients of q, k and v: scores are computed again, each product of a block once."""
    batch, length, heads, width = q_BTNH.shape
    size, kv_heads = k_BSKH.shape[1:3]
    groups = heads // kv_heads
    call, q_padding, kv_padding = _plan(length, size, visible, scale, blocks or BACKWARD)
    delta_BTN = (d_out_BTNH.astype(jnp.float32) * out_BTNH.astype(jnp.float32)).sum(-1) - d_lse_BTN
    lse_BTN = jnp.where(jnp.isfinite(lse_BTN), lse_BTN, -UNSEEN) * LOG2E

    def rows(x: Array, filling: float = 0.0) -> Array:
        return _padded(x.transpose(0, 2, 1)[:, :, None], 3, q_padding, filling)

    q = _padded(q_BTNH.transpose(0, 2, 1, 3), 2, q_padding)
    d_out = _padded(d_out_BTNH.astype(q.dtype).transpose(0, 2, 1, 3), 2, q_padding)
    k = _padded(k_BSKH.transpose(0, 2, 1, 3), 2, kv_padding)
    v = _padded(v_BSKH.transpose(0, 2, 1, 3), 2, kv_padding)
    steps = (length + q_padding) // call.blocks.q, (size + kv_padding) // call.blocks.kv
    scalars, segments = _operands(call, visible, batch, length, size, q_padding, kv_padding, "kv")

    def q_block(b: Any, j: Any, s: Any, *scalars: Any) -> Any:
        return scalars[1][(b * steps[1] + j) * steps[0] + s] if call.mapped else s

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
            grid=(batch, kv_heads, steps[1], groups, steps[0]),
            in_specs=in_specs,
            out_specs=[pl.BlockSpec((1, groups, width, q.shape[2]), d_q_place), of_kv, of_kv],
            scratch_shapes=[pltpu.VMEM((call.blocks.kv, width), jnp.float32)] * 2,
        ),
        out_shape=[
            jax.ShapeDtypeStruct((batch, heads, width, q.shape[2]), jnp.float32),
            jax.ShapeDtypeStruct(k.shape, k.dtype),
            jax.ShapeDtypeStruct(v.shape, v.dtype),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary", "arbitrary"),
            vmem_limit_bytes=64 * 2**20,
        ),
        name="attention_backward",
    )(*scalars, q, k, v, d_out, rows(lse_BTN, -UNSEEN), rows(delta_BTN), *segments)  # fmt: skip
    d_q = (d_q * scale).transpose(0, 3, 1, 2)[:, :length].astype(q.dtype)
    d_k, d_v = (x.transpose(0, 2, 1, 3)[:, :size] for x in (d_k, d_v))
    return d_q, d_k, d_v


def _backward_kernel(call: _Call, *refs: Any) -> None:
    """A step of the grid (B, K, keys, groups, queries): one block of queries for one of keys."""
    scalars, refs = (refs[:5], refs[5:]) if call.mapped else ((), refs)
    q_ref, k_ref, v_ref, d_out_ref, lse_ref, delta_ref, *segments = refs[:-5]
    d_q_ref, d_k_ref, d_v_ref, d_k_sum, d_v_sum = refs[-5:]
    b, j, g, step = (pl.program_id(axis) for axis in (0, 2, 3, 4))
    outer = b * pl.num_programs(2) + j
    visit = outer * pl.num_programs(4) + step
    first_step = (g == 0) & (step == 0)

    @pl.when(first_step & (j == 0))
    def _start_q() -> None:
        d_q_ref[...] = jnp.zeros(d_q_ref.shape, jnp.float32)

    @pl.when(first_step)
    def _start() -> None:
        d_k_sum[...] = jnp.zeros(d_k_sum.shape, jnp.float32)
        d_v_sum[...] = jnp.zeros(d_v_sum.shape, jnp.float32)

    def meet(partly: bool) -> None:
        q_first = (scalars[1][visit] if call.mapped else step) * call.blocks.q
        queries = pl.ds(pl.multiple_of(q_first, LANES), call.blocks.q)
        q, d_out = q_ref[0, 0], d_out_ref[0, 0]
        for first in range(0, call.blocks.kv, call.blocks.step):
            keys = slice(first, first + call.blocks.step)
            k = k_ref[0, 0, keys]
            scores = _product(k, q, (1, 1)) * (call.scale * LOG2E)
            weights = jnp.exp2(scores - lse_ref[0, 0])
            if partly:
                places = q_first, j * call.blocks.kv + first
                seen = _seen(call, scores.shape, places, keys, scalars, segments)
                weights = jnp.where(seen, weights, 0.0)
            d_weights = _product(v_ref[0, 0, keys], d_out, (1, 1))
            d_scores = (weights * (d_weights - delta_ref[0, 0])).astype(q.dtype)
            d_v_sum[keys] += _product(weights.astype(q.dtype), d_out, (1, 0))
            d_k_sum[keys] += _product(d_scores, q, (1, 0))
            d_q_ref[0, g, :, queries] += _product(k, d_scores, (0, 0))

    _meet(call, scalars, outer, step, visit, meet)

    @pl.when((g == pl.num_programs(3) - 1) & (step == pl.num_programs(4) - 1))
    def _finish() -> None:
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


def _rescale(top: Array, new_top: Array) -> Array:
    """What sums under an old maximum are multiplied with under a new one."""
    return jnp.exp2(top - new_top)


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
    call: _Call, shape: tuple[int, ...], places: tuple[Any, Any], keys: slice, scalars: tuple,
    segments: list,
) -> Array:  # fmt: skip
    """[S, T] of a block whose first query and key are at `places`: which keys are seen."""
    q_first, kv_first = places
    offset_ref, used_ref = scalars[3:]
    b = pl.program_id(0)
    key = kv_first + jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    seen = key < used_ref[b]
    if call.causal:
        query = q_first + jax.lax.broadcasted_iota(jnp.int32, shape, 1)
        seen &= key <= query + offset_ref[b]
    if call.segmented:
        q_segments, kv_segments = segments[0][0], segments[1][0, keys]
        seen &= (kv_segments == q_segments) & (kv_segments != 0)
    return seen


def _plan(
    length: int, size: int, visible: Visible, scale: float, blocks: Blocks
) -> tuple[_Call, int, int]:
    """The call with its blocks fitted to the lengths, and what pads queries and keys to them."""
    q, q_padding = _fitted(length, blocks.q)
    kv, kv_padding = _fitted(size, blocks.kv)
    segmented = visible.q_segments is not None
    mapped = visible.causal or segmented or visible.kv_length is not None or kv_padding > 0
    step = blocks.step if kv % blocks.step == 0 else kv
    call = _Call(visible.causal, segmented, mapped, scale, Blocks(q, kv, step))
    return call, q_padding, kv_padding


def _fitted(length: int, block: int) -> tuple[int, int]:
    """The block, in whole tiles and at most as wanted, that pads least, and the padding."""
    count = -(-length // block)
    fitted = -(-length // (count * LANES)) * LANES
    return fitted, fitted * count - length


def _padded(x: Array, axis: int, padding: int, filling: float = 0) -> Array:
    if not padding:
        return x
    widths = [(0, padding if at == axis else 0) for at in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=filling)


def _operands(
    call: _Call, visible: Visible, batch: int, length: int, size: int, q_padding: int,
    kv_padding: int, outer: str,
) -> tuple[tuple, tuple]:  # fmt: skip
    """Scalars for the block map (count, order, kind, offset, keys in use) and segments as a row and
    a column; `outer` says whose blocks do the visiting."""
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
    q_segments = _padded(visible.q_segments, 1, q_padding)[:, None]
    kv_segments = _padded(visible.kv_segments, 1, kv_padding)[:, :, None]
    return scalars, (q_segments, kv_segments)
