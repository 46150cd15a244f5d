"""Flash attention for TPUs, of arrays in the interleaved layout [B, T, N, H].

In memory the heads of such an array are interleaved: the heads of a position are the rows of one
tile, and in bfloat16 two heads are packed into each 32-bit word. The kernels of `tpu` want the
heads-first layout, and for short rows, copies to that layout and back take longer than attention
itself. Here nothing is copied beforehand: blocks are fetched in their layout and deinterleaved on
the chip, by loads with a stride of one position. Shifts of the packed pairs of two positions give
the rows of two heads. Results are interleaved again, two heads a word, before they are written.

Keys and values of a row are held in VMEM, heads first, while blocks of queries go by, each fetched
while the one before is processed. The arithmetic is that of `tpu`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from sf_jax.kernels.block_map import PARTLY, WHOLLY, kinds
from sf_jax.kernels.tpu import (
    LANES,
    LOG2E,
    UNSEEN,
    Blocks,
    Call,
    kv_head,
    product,
    rescaling,
    seen_keys,
    spread,
)
from sf_jax.kernels.types import Index, Ref
from sf_jax.kernels.visible import Visible

CHUNK = 256  # positions fetched and deinterleaved at once; lengths are multiples of it
AHEAD = 4  # chunks in flight
Q_BLOCK, Q_PART = 512, 256  # queries held heads first, and those of one forward product
FEW_HEADS = 8  # with more, CHUNK queries are held heads first
KV_BLOCK = 512  # keys of one product, backward and under a mask
HEADS, MAX_POSITIONS = (8, 16, 32), 2048
VMEM_BYTES = 60 * 2**20  # a v5p has 64 MB, a v5e and a v6e 128, a v4 only 16
LOW, HIGH = np.uint32(0xFFFF), np.uint32(0xFFFF0000)


def supports(q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, visible: Visible) -> bool:
    """Whether these kernels support a call: bfloat16, 8, 16 or 32 heads of width 128, at most 2,048
    positions in whole chunks, no explicit mask, and a chip with enough VMEM. An unknown chip, as
    for a program compiled ahead of time outside a mesh, is assumed to have enough."""
    types = {x.dtype for x in (q_BTNH, k_BSKH, v_BSKH)}
    whole = all(
        x.shape[2] in HEADS
        and x.shape[3] == LANES
        and 0 < x.shape[1] <= MAX_POSITIONS
        and x.shape[1] % CHUNK == 0
        for x in (q_BTNH, k_BSKH)
    )
    return (
        types == {jnp.dtype("bfloat16")}
        and visible.mask is None
        and whole
        and _needed(q_BTNH, k_BSKH) <= _memory()
    )


def _needed(q: Array, k: Array) -> int:
    """Bytes of VMEM of the backward pass, which needs more than the forward pass."""
    (length, heads, width), (size, kv_heads, _) = q.shape[1:], k.shape[1:]
    q_block = _q_block(length, heads)
    keys = (
        size * kv_heads * width * (3 * 2 + 2 * 4)
    )  # in bfloat16, and accumulators of their gradients
    stages = 2 * AHEAD * CHUNK * kv_heads * width * 2 + 4 * 2 * q_block * heads * width * 2
    queries = q_block * heads * (2 * 2 * width + 4) + q_block * width * 4
    rows = 2 * 2 * heads * length * 4 + 2 * max(length, size) * LANES * 4  # and segments
    scores = 5 * q_block * KV_BLOCK * 4
    return keys + stages + queries + rows + scores


def _memory() -> int:
    """Bytes of VMEM to use; the chip type comes from the mesh, else from the local devices."""
    try:
        return min(VMEM_BYTES, pltpu.get_tpu_info().vmem_capacity_bytes)
    except ValueError:  # no TPU, or one of an unknown type
        return VMEM_BYTES


def forward(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    visible: Visible,
    scale: float,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T N"]]:
    """Output in q's type and log-sum-exp in float32, for operands that `supports` accepts."""
    batch, length, heads, width = q_BTNH.shape
    size, kv_heads = k_BSKH.shape[1:3]
    call = _plan(q_BTNH, k_BSKH, visible, scale, outer=0)
    scalars, segments, segment_specs = _operands(call, visible, batch, size)
    widths = (LANES, LANES, width) if call.mapped else ()  # else nothing is carried over
    state = [pltpu.VMEM((2, call.blocks.q, each), jnp.float32) for each in widths]
    blocks = pltpu.VMEM((2, call.blocks.q, heads, width), q_BTNH.dtype)
    out, lse = pl.pallas_call(
        partial(_forward_kernel, call),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(batch,),
            in_specs=[*[pl.BlockSpec(memory_space=pltpu.HBM)] * 3, *segment_specs],
            out_specs=[pl.BlockSpec(memory_space=pltpu.HBM), _per_query_spec(heads, length)],
            scratch_shapes=[
                *[pltpu.VMEM((kv_heads, size, width), k_BSKH.dtype)] * 2,
                pltpu.VMEM((heads, call.blocks.q, width), q_BTNH.dtype),
                pltpu.VMEM((2, AHEAD, CHUNK, kv_heads, width), k_BSKH.dtype),
                blocks,
                blocks,
                *[pltpu.SemaphoreType.DMA((2, AHEAD)), *[pltpu.SemaphoreType.DMA((2,))] * 2],
                *state,
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q_BTNH.shape, q_BTNH.dtype),
            jax.ShapeDtypeStruct((batch, heads, 1, length), jnp.float32),
        ],
        compiler_params=_parameters(),
        name="attention_forward_interleaved",
    )(*scalars, q_BTNH, k_BSKH, v_BSKH, *segments)
    return out, lse[:, :, 0].transpose(0, 2, 1)


def _forward_kernel(call: Call, *refs: Ref) -> None:
    """One row of the batch."""
    scalars, refs = (refs[:3], refs[3:]) if call.mapped else ((), refs)
    (q_hbm, k_hbm, v_hbm), refs = refs[:3], refs[3:]
    segments, refs = (refs[:2], refs[2:]) if call.segmented else ((), refs)
    out_hbm, lse_ref, k_heads, v_heads, q_heads, kv_stage, q_stage, out_stage = refs[:8]
    kv_done, q_done, out_done, *state = refs[8:]
    kv_heads = k_heads, v_heads
    b, groups = pl.program_id(0), q_heads.shape[0] // k_heads.shape[0]

    def q_copy(i: int) -> Any:
        return _copy(q_hbm.at[b], q_stage, q_done, i, call.blocks.q)

    def out_copy(i: int) -> Any:
        return _copy(out_hbm.at[b], out_stage, out_done, i, call.blocks.q, out=True)

    def take(which: int, chunk: int, stage: Ref) -> None:
        _deinterleave(stage, kv_heads[which], chunk * CHUNK)

    q_copy(0).start()
    _fetch((k_hbm.at[b], v_hbm.at[b]), kv_stage, kv_done, take)

    def block_by_block(i: int, n: Index, which: int) -> None:
        """The same for a block of queries, accumulated in VMEM while blocks of keys go by."""
        top_ref, total_ref, sum_ref = (ref.at[which] for ref in state)
        top_ref[...] = jnp.full(top_ref.shape, UNSEEN, jnp.float32)
        total_ref[...] = jnp.zeros(total_ref.shape, jnp.float32)
        sum_ref[...] = jnp.zeros(sum_ref.shape, jnp.float32)
        kv = kv_head(n, groups)

        def attend_block(j: Index, partly: bool) -> None:
            keys = _positions(j, call.blocks.kv)
            for queries in call.parts():
                scores = product(q_heads[n, queries], k_heads[kv, keys], (1, 1))
                if partly:
                    seen = _seen(call, scores.shape, (i, j), queries, scalars, segments)
                    scores = jnp.where(seen, scores, UNSEEN)
                old_top = top_ref[queries]
                top = jnp.maximum(old_top, scores.max(1, keepdims=True))
                weights = jnp.exp2((scores - top[:, :1]) * (call.scale * LOG2E))
                rescale = rescaling(old_top, top, call.scale)
                sums = product(weights.astype(v_heads.dtype), v_heads[kv, keys], (1, 0))
                top_ref[queries] = top
                total_ref[queries] = total_ref[queries] * rescale + weights.sum(1, keepdims=True)
                sum_ref[queries] = sum_ref[queries] * spread(rescale, sums.shape[1]) + sums

        _run_blocks(call, scalars, b * call.steps[0] + i, attend_block)

    def block(i: int) -> None:
        if i + 1 < call.steps[0]:
            q_copy(i + 1).start()
        q_copy(i).wait()
        _deinterleave(q_stage.at[i % 2], q_heads, 0)
        if i >= 2:
            out_copy(i - 2).wait()

        def pair(p: Index, carry: None) -> None:
            for which in (0, 1) if state else ():
                block_by_block(i, 2 * p + which, which)
            for queries in call.parts():
                for which, n in enumerate((2 * p, 2 * p + 1)):
                    if state:
                        softmax = [ref[which, queries] for ref in state]
                    else:
                        softmax = [*_all_keys_at_once(call, q_heads, kv_heads, n, queries)]
                    out = _normalised(call, lse_ref, (i, n, queries), *softmax)
                    q_heads[n, queries] = out.astype(
                        q_heads.dtype
                    )  # these queries are no longer needed

        jax.lax.fori_loop(0, q_heads.shape[0] // 2, pair, None)
        _interleave(q_heads, out_stage.at[i % 2])
        out_copy(i).start()

    for i in range(call.steps[0]):
        block(i)
    for i in range(max(call.steps[0] - 2, 0), call.steps[0]):
        out_copy(i).wait()


def _all_keys_at_once(
    call: Call, q_heads: Ref, kv_heads: tuple[Ref, Ref], n: Index, queries: slice
) -> tuple[Array, Array, Array]:
    """Maximum, total and weighted sums of some queries over all keys at once."""
    k_heads, v_heads = kv_heads
    kv = kv_head(n, q_heads.shape[0] // k_heads.shape[0])
    scores = product(q_heads[n, queries], k_heads[kv], (1, 1))
    top = scores.max(1, keepdims=True)
    weights = jnp.exp2((scores - top) * (call.scale * LOG2E))
    sums = product(weights.astype(v_heads.dtype), v_heads[kv], (1, 0))
    return top, weights.sum(1, keepdims=True), sums


def _normalised(
    call: Call,
    lse_ref: Ref,
    at: tuple[int, Index, slice],
    top: Array,
    total: Array,
    sums: Array,
) -> Array:
    """The output of block, head and queries `at`, float32; stores their log-sum-exp."""
    i, n, queries = at
    seeing = top > UNSEEN / 2
    lse = jnp.where(seeing, top * call.scale + jnp.log(total), -jnp.inf)
    lse = jnp.broadcast_to(lse, (lse.shape[0], LANES)).T[:1]
    first = pl.multiple_of(i * call.blocks.q + queries.start, LANES)
    lse_ref[0, n, :, pl.ds(first, call.blocks.part)] = lse
    out = sums / spread(jnp.where(seeing, total, 1.0), sums.shape[1])
    return jnp.where(spread(seeing, sums.shape[1]), out, 0.0)


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
    size, kv_heads = k_BSKH.shape[1:3]
    call = _plan(q_BTNH, k_BSKH, visible, scale, outer=1)
    scalars, segments, segment_specs = _operands(call, visible, batch, size)
    lse_BTN = jnp.where(jnp.isfinite(lse_BTN), lse_BTN, -UNSEEN) * LOG2E
    rows = [x.transpose(0, 2, 1)[:, :, None] for x in (lse_BTN, d_lse_BTN)]
    anywhere = pl.BlockSpec(memory_space=pltpu.HBM)
    dtype = q_BTNH.dtype
    return pl.pallas_call(
        partial(_backward_kernel, call),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(batch,),
            in_specs=[*[anywhere] * 5, *[_per_query_spec(heads, length)] * 2, *segment_specs],
            out_specs=[anywhere] * 3,
            scratch_shapes=[
                *[pltpu.VMEM((kv_heads, size, width), dtype)] * 2,
                pltpu.VMEM((kv_heads, width, size), dtype),
                *[pltpu.VMEM((heads, call.blocks.q, width), dtype)] * 2,
                pltpu.VMEM((heads, 1, call.blocks.q), jnp.float32),
                *[pltpu.VMEM((kv_heads, size, width), jnp.float32)] * 2,
                pltpu.VMEM((width, call.blocks.q), jnp.float32),
                pltpu.VMEM((2, AHEAD, CHUNK, kv_heads, width), dtype),
                *[pltpu.VMEM((2, call.blocks.q, heads, width), dtype)] * 4,
                pltpu.SemaphoreType.DMA((2, AHEAD)),
                pltpu.SemaphoreType.DMA((3, 2)),
                pltpu.SemaphoreType.DMA((2,)),
            ],
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, dtype) for x in (q_BTNH, k_BSKH, v_BSKH)],
        compiler_params=_parameters(),
        name="attention_backward_interleaved",
    )(*scalars, q_BTNH, k_BSKH, v_BSKH, d_out_BTNH.astype(dtype), out_BTNH, *rows, *segments)


def _backward_kernel(call: Call, *refs: Ref) -> None:
    """One row of the batch. Scores are transposed, keys by queries, as in `tpu`."""
    scalars, refs = (refs[:3], refs[3:]) if call.mapped else ((), refs)
    (q_hbm, k_hbm, v_hbm, d_out_hbm, out_hbm, lse_ref, d_lse_ref), refs = refs[:7], refs[7:]
    segments, refs = (refs[:2], refs[2:]) if call.segmented else ((), refs)
    (d_q_hbm, *d_kv_hbm), refs = refs[:3], refs[3:]
    k_heads, v_heads, k_transposed, q_heads, d_out_heads, delta_ref, *d_kv_sums, d_q_sum = refs[:9]
    kv_stage, q_stage, d_out_stage, out_stage, d_q_stage, kv_done, q_done, d_q_done = refs[9:]
    b, groups = pl.program_id(0), q_heads.shape[0] // k_heads.shape[0]

    def q_copies(i: int) -> list:
        of = (q_hbm, q_stage), (d_out_hbm, d_out_stage), (out_hbm, out_stage)
        at = enumerate(of)
        return [_copy(x.at[b], stage, q_done.at[n], i, call.blocks.q) for n, (x, stage) in at]

    def d_q_copy(i: int) -> Any:
        return _copy(d_q_hbm.at[b], d_q_stage, d_q_done, i, call.blocks.q, out=True)

    def take(which: int, chunk: int, stage: Ref) -> None:
        _deinterleave(stage, (k_heads, v_heads)[which], chunk * CHUNK)
        if which == 0:  # d_q needs keys transposed as well
            _store_transposed(stage, k_transposed, chunk)

    for copy in q_copies(0):
        copy.start()
    _fetch((k_hbm.at[b], v_hbm.at[b]), kv_stage, kv_done, take)
    _clear(*d_kv_sums)

    def head(i: int, n: Index) -> None:
        """Gradients that a block of queries of one head contributes."""
        kv = kv_head(n, groups)
        q, d_out = q_heads[n], d_out_heads[n]
        queries = _positions(i, call.blocks.q)
        lse, delta = lse_ref[0, n, :, queries], delta_ref[n] - d_lse_ref[0, n, :, queries]
        d_q_sum[...] = jnp.zeros(d_q_sum.shape, jnp.float32)
        d_k_sum, d_v_sum = (sums.at[kv] for sums in d_kv_sums)

        def attend_block(j: Index, partly: bool) -> None:
            keys = _positions(j, call.blocks.kv)
            scores = product(k_heads[kv, keys], q, (1, 1)) * (call.scale * LOG2E)
            weights = jnp.exp2(scores - lse)
            if partly:
                part = slice(0, call.blocks.kv)
                seen = _seen(call, scores.shape, (i, j), part, scalars, segments)
                weights = jnp.where(seen, weights, 0.0)
            d_weights = product(v_heads[kv, keys], d_out, (1, 1))
            d_scores = (weights * (d_weights - delta)).astype(q.dtype)
            d_v_sum[keys] += product(weights.astype(q.dtype), d_out, (1, 0))
            d_k_sum[keys] += product(d_scores, q, (1, 0))
            d_q_sum[...] += product(k_transposed[kv, :, keys], d_scores, (1, 0))

        _run_blocks(call, scalars, b * call.steps[0] + i, attend_block)
        q_heads[n] = (d_q_sum[...] * call.scale).T.astype(q_heads.dtype)

    def block(i: int) -> None:
        slot = i % 2
        for copy in q_copies(i + 1) if i + 1 < call.steps[0] else ():
            copy.start()
        for copy in q_copies(i):
            copy.wait()
        _deinterleave(q_stage.at[slot], q_heads, 0)
        _deinterleave(d_out_stage.at[slot], d_out_heads, 0)
        _store_delta(delta_ref, d_out_stage.at[slot], out_stage.at[slot])
        if i >= 2:
            d_q_copy(i - 2).wait()

        def pair(p: Index, carry: None) -> None:
            head(i, 2 * p)
            head(i, 2 * p + 1)

        jax.lax.fori_loop(0, q_heads.shape[0] // 2, pair, None)
        _interleave(q_heads, d_q_stage.at[slot])
        d_q_copy(i).start()

    for i in range(call.steps[0]):
        block(i)
    _store_kv_gradients(call, (k_heads, v_heads), d_kv_sums)
    _write_out((k_heads, v_heads), [x.at[b] for x in d_kv_hbm], kv_stage, kv_done)
    for i in range(max(call.steps[0] - 2, 0), call.steps[0]):
        d_q_copy(i).wait()


def _clear(*sums: Ref) -> None:
    """Sets accumulators to zero."""
    for each in sums:
        each[...] = jnp.zeros(each.shape, jnp.float32)


def _store_delta(delta_ref: Ref, d_out_stage: Ref, out_stage: Ref) -> None:
    """Row sums of d_out * out of every head, as rows along the lanes."""
    both = _each_head(d_out_stage), _each_head(out_stage)
    for n, (d_out, out) in enumerate(zip(*both, strict=True)):
        delta = (d_out * out).sum(1, keepdims=True)
        delta_ref[n] = jnp.broadcast_to(delta, (delta.shape[0], LANES)).T[:1]


def _store_kv_gradients(call: Call, kv_heads: tuple[Ref, Ref], sums: Sequence[Ref]) -> None:
    """Gradients of keys and values in place of these, which are no longer needed."""
    k_heads, v_heads = kv_heads
    k_heads[...] = (sums[0][...] * call.scale).astype(k_heads.dtype)
    v_heads[...] = sums[1][...].astype(v_heads.dtype)


def _store_transposed(stage: Ref, k_transposed: Ref, chunk: int) -> None:
    """A chunk [T, N, H] of keys into its positions of [N, H, T]."""
    for n, k in enumerate(_each_head(stage)):
        k_transposed[n, :, _positions(chunk, CHUNK)] = k.T.astype(k_transposed.dtype)


def _packed_pairs(stage: Any) -> Any:
    """A bfloat16 block [T, N, H] as 32-bit words, each a packed pair of heads: [T * N / 2, H]."""
    positions, heads, width = stage.shape
    return stage.reshape(positions * heads, width).bitcast(jnp.uint32)


def _deinterleave(stage: Ref, heads: Ref, first: int) -> None:
    """Deinterleaves a block [T, N, H] into rows of [N, ..., H], from position `first` on."""
    packed, positions, pairs = _packed_pairs(stage), stage.shape[0], stage.shape[1] // 2
    rows = pl.ds(first, positions)
    for p in range(pairs):
        even = packed[pl.ds(p, positions // 2, stride=2 * pairs), :]
        odd = packed[pl.ds(p + pairs, positions // 2, stride=2 * pairs), :]
        heads[2 * p, rows] = pltpu.bitcast((even & LOW) | (odd << 16), heads.dtype)
        heads[2 * p + 1, rows] = pltpu.bitcast((even >> 16) | (odd & HIGH), heads.dtype)


def _each_head(stage: Ref) -> Iterator[Array]:
    """The heads of a block [T, N, H], float32 [T, H] each."""
    packed, positions, pairs = _packed_pairs(stage), stage.shape[0], stage.shape[1] // 2
    for p in range(pairs):
        two = packed[pl.ds(p, positions, stride=pairs), :]
        yield jax.lax.bitcast_convert_type(two << 16, jnp.float32)
        yield jax.lax.bitcast_convert_type(two & HIGH, jnp.float32)


def _interleave(heads: Ref, stage: Ref) -> None:
    """Interleaves rows of [N, T, H] into a block [T, N, H]."""
    packed, positions, pairs = _packed_pairs(stage), stage.shape[0], stage.shape[1] // 2
    for p in range(pairs):
        low, high = (pltpu.bitcast(heads[n], jnp.uint32) for n in (2 * p, 2 * p + 1))
        packed[pl.ds(p, positions // 2, stride=2 * pairs), :] = (low & LOW) | (high << 16)
        packed[pl.ds(p + pairs, positions // 2, stride=2 * pairs), :] = (low >> 16) | (high & HIGH)


def _copy(hbm: Ref, stage: Ref, done: Ref, i: int, positions: int, out: bool = False) -> Any:
    """The copy of block i of a row into its slot of a staging buffer, or out of it."""
    slot = i % stage.shape[0]
    row, buffer = hbm.at[pl.ds(i * positions, positions)], stage.at[slot]
    source, target = (buffer, row) if out else (row, buffer)
    return pltpu.make_async_copy(source, target, done.at[slot])


def _chunk_copies(hbm: Sequence[Ref], stage: Ref, done: Ref, out: bool = False) -> list[list]:
    """The copies of the chunks of keys and of values."""
    return [
        [_copy(x, stage.at[at], done.at[at], c, CHUNK, out) for at, x in enumerate(hbm)]
        for c in range(hbm[0].shape[0] // CHUNK)
    ]


def _fetch(hbm: Sequence[Ref], stage: Ref, done: Ref, take: Callable) -> None:
    """Passes keys and values to `take(which, chunk, block)`, chunk by chunk, some in flight."""
    copies = _chunk_copies(hbm, stage, done)
    for copy in chain(*copies[:AHEAD]):
        copy.start()
    for c, these in enumerate(copies):
        for which, copy in enumerate(these):
            copy.wait()
            take(which, c, stage.at[which, c % AHEAD])
        for copy in chain(*copies[c + AHEAD : c + AHEAD + 1]):
            copy.start()


def _write_out(heads: Sequence[Ref], hbm: Sequence[Ref], stage: Ref, done: Ref) -> None:
    """Writes rows [N, T, H] of keys' and values' gradients, chunk by chunk, some in flight."""
    copies = _chunk_copies(hbm, stage, done, out=True)
    for c, these in enumerate(copies):
        for copy in copies[c - AHEAD] if c >= AHEAD else ():
            copy.wait()
        for which, copy in enumerate(these):
            _interleave(heads[which].at[:, pl.ds(c * CHUNK, CHUNK)], stage.at[which, c % AHEAD])
            copy.start()
    for copy in chain(*copies[-AHEAD:]):
        copy.wait()


def _run_blocks(call: Call, scalars: tuple, block: Index, attend_block: Callable) -> None:
    """Runs the nonempty blocks of keys for a block of queries, masked if partly visible."""

    def one(j: Index, carry: None) -> None:
        if not call.mapped:
            attend_block(j, False)
            return
        kind = scalars[0][block * call.steps[1] + j]
        pl.when(kind == PARTLY)(lambda: attend_block(j, True))
        pl.when(kind == WHOLLY)(lambda: attend_block(j, False))

    jax.lax.fori_loop(0, call.steps[1], one, None)


def _seen(
    call: Call, shape: tuple, blocks: tuple, part: slice, scalars: tuple, segments: Any
) -> Array:
    """The mask of a part of the scores of these blocks of queries and keys."""
    q, kv = (_positions(i, size) for i, size in zip(blocks, call.blocks[:2], strict=True))
    if segments and call.q_axis == 0:
        segments = segments[0].at[:, q], segments[1].at[:, :, kv]
    elif segments:
        segments = segments[0].at[:, :, q], segments[1].at[:, kv]
    return seen_keys(call, shape, (q.start, kv.start), part, (None, None, *scalars), segments)


def _positions(block: Any, positions: int) -> Any:
    """The positions of a block."""
    return pl.ds(pl.multiple_of(block * positions, LANES), positions)


def _plan(q: Array, k: Array, visible: Visible, scale: float, outer: int) -> Call:
    """The static parameters; forward without a mask, queries attend to all keys at once."""
    length, size = q.shape[1], k.shape[1]
    segmented = visible.q_segments is not None
    mapped = visible.causal or segmented or visible.kv_length is not None
    q_block = _q_block(length, q.shape[2])
    kv_block = _dividing(size, KV_BLOCK) if mapped or outer == 1 else size
    blocks, steps = Blocks(q_block, kv_block, Q_PART), (length // q_block, size // kv_block)
    return Call(visible.causal, segmented, mapped, scale, blocks, steps, outer, lanes=False)


def _q_block(length: int, heads: int) -> int:
    """Queries held heads first at once."""
    return _dividing(length, Q_BLOCK if heads <= FEW_HEADS else CHUNK)


def _dividing(length: int, most: int) -> int:
    """The largest block, a multiple of `CHUNK`, that divides a length."""
    return next(n for n in range(most, 0, -CHUNK) if length % n == 0)


def _operands(call: Call, visible: Visible, batch: int, size: int) -> tuple[tuple, tuple, list]:
    """Scalars (kinds of blocks, offset, keys in use), segments, as a column where they run
    along the rows of scores, and the block specs of the segments."""
    if not call.mapped:
        return (), (), []
    length = call.steps[0] * call.blocks.q
    zero = jnp.zeros((batch,), jnp.int32)
    kind = kinds(visible, batch, length, size, call.blocks.q, call.blocks.kv)
    offset = zero if visible.q_offset is None else visible.q_offset
    used = zero + size if visible.kv_length is None else jnp.minimum(visible.kv_length, size)
    scalars = (kind.reshape(-1).astype(jnp.int32), offset, used)
    if visible.q_segments is None or visible.kv_segments is None:
        return scalars, (), []
    given = enumerate((visible.q_segments, visible.kv_segments))
    segments = tuple(x[:, :, None] if at == call.q_axis else x[:, None] for at, x in given)
    return scalars, segments, [pl.BlockSpec((1, *x.shape[1:]), _first) for x in segments]


def _first(b: Index, *_: object) -> tuple:
    """The block index of a whole row."""
    return b, 0, 0


def _per_query_spec(heads: int, length: int) -> pl.BlockSpec:
    """The block spec of one value per head and position of a row."""
    return pl.BlockSpec((1, heads, 1, length), lambda b, *_: (b, 0, 0, 0))


def _parameters() -> Any:
    return pltpu.CompilerParams(dimension_semantics=("parallel",), vmem_limit_bytes=_memory())
