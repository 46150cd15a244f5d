"""Attention for NVIDIA GPUs in Pallas, compiled by Triton.

Forward and backward follow FlashAttention-2 (Dao, 2023, arXiv:2307.08691): a program owns a tile of
queries and walks over blocks of keys with a running softmax (Milakov and Gimelshein, 2018,
arXiv:1805.02867). The backward pass recomputes the probabilities from the log-sum-exp, once for
keys and values and once for queries: without atomic additions, results repeat bit for bit.
With few queries the cache is divided among programs (Flash-Decoding, Dao et al., 2023).

In kernels R are the queries of a tile and S the keys of a block, and scores and log-sum-exps are
in base 2, because the hardware has exp2. A grid is (tile or part, head, item of the batch).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pallas_triton
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sf_jax.kernels.types import Index, Ref
from sf_jax.kernels.visible import Visible, per_row

# Run kernels step by step in JAX instead of compiling them: for tests on machines without a GPU.
INTERPRET = False

LOG2_E = math.log2(math.e)
MAX_WIDTH = 128  # wider heads would need smaller tiles than those below
DECODE_LENGTH = 16  # up to this many queries, the cache, not the queries, is divided among programs
DECODE_ROWS = 64  # of one tile: queries times the heads that share a key head
PROGRAMS = (
    264  # target of a decode step: two for each of the 132 multiprocessors of an H100 or H200
)


class Tile(NamedTuple):
    """Block sizes of a kernel."""

    queries: int  # of a tile: a power of two, at least 16, as tensor cores require
    keys: int  # of a block, likewise
    warps: int  # groups of 32 threads that work on a tile
    stages: int  # blocks in flight from memory at a time


def tiles(kernel: str, dtype: DTypeLike, width: int) -> Tile:
    """Tiles that fit the registers and shared memory of an H100 or H200; never timed on one.

    Exact float32 products run outside the tensor cores, with operands in registers.
    """
    warps = 4 if width <= 64 else 8
    if dtype == jnp.float32:
        return Tile(32, 32 if width <= 64 or kernel == "backward" else 16, warps, 2)
    if kernel == "decode":
        return Tile(16, 64, 4, 3)
    return Tile(128, 64, 8, 3) if kernel == "forward" else Tile(64, 64, warps, 2)


@dataclass(frozen=True)
class Plan:
    """The static parameters of a kernel."""

    causal: bool
    scale: float
    length: int  # queries of a head
    size: int  # keys of a head
    groups: int  # query heads that share a key head
    width: int  # of a head
    padded: int  # the width of tiles: Triton requires powers of two
    tile: Tile
    parts: int  # of the cache, in a decode


class Limits(NamedTuple):
    """The attention mask: of the batch outside kernels, of one item of it inside them."""

    offset: Array  # keys before the first query
    end: Array  # keys in use
    q_segments: Any  # of every query, or None; a ref inside kernels, as is the next
    kv_segments: Any  # of every key, or None


# Queries of a tile: their positions among the keys, and their segments if there are any.
Rows = tuple[Array, Array | None]


def _product(a: Array, b: Array, contracted: tuple[int, int]) -> Array:
    """Matrix product in float32 over one axis of each; float32 operands are not rounded to TF32."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    axes = (((contracted[0],), (contracted[1],)), ((), ()))
    return jax.lax.dot_general(a, b, axes, precision, jnp.float32)


def _scores(a: Array, b: Array, scale: float) -> Array:
    """Scaled products of the rows of a with those of b, in base 2."""
    return _product(a, b, (1, 1)) * (scale * LOG2_E)


def _quotient(x: Array, divisor: int) -> Array:
    """Integer quotient of a number that is not negative."""
    return jax.lax.div(x, jnp.full_like(x, divisor))


def _kv_head(head: Array, groups: int) -> Array:
    return _quotient(head, groups)


def _query_head(kv_head: Array, groups: int, member: Array) -> Array:
    return kv_head * groups + member


def _range(start: Index, count: int) -> Array:
    return start + jax.lax.iota(jnp.int32, count)


def _load(ref: Ref, start: Index, count: int, end: Index, head: Index | None = None) -> Array:
    """Values from `start` on, of one head if given; zero from `end` on."""
    where = pl.ds(start, count) if head is None else (head, pl.ds(start, count))
    mask, zero = _range(start, count) < end, jnp.zeros((), ref.dtype)
    return pallas_triton.load(ref.at[where], mask=mask, other=zero)


def _tile_mask(plan: Plan, start: Index, count: int, end: Index | None) -> Array | None:
    """Which elements of a tile are inside the array; None if all are."""
    mask = None if end is None else (_range(start, count) < end)[:, None]
    if plan.width == plan.padded:
        return mask
    inside = (_range(0, plan.padded) < plan.width)[None]
    return inside if mask is None else mask & inside


def _load_tile(
    plan: Plan,
    ref: Ref,
    start: Index,
    count: int,
    end: Index | None = None,
    head: Index | None = None,
) -> Array:
    """Rows from `start` on, padded in width; zero from `end` on, whatever memory holds there."""
    mask = _tile_mask(plan, start, count, end)
    zero = None if mask is None else jnp.zeros((), ref.dtype)
    rows, columns = pl.ds(start, count), slice(None)
    where = (rows, columns) if head is None else (rows, head, columns)
    return pallas_triton.load(ref.at[where], mask=mask, other=zero)


def _store_tile(plan: Plan, ref: Ref, start: Index, tile: Array, end: Index | None = None) -> None:
    count = tile.shape[0]
    mask = _tile_mask(plan, start, count, end)
    pallas_triton.store(ref.at[pl.ds(start, count), :], tile.astype(ref.dtype), mask=mask)


def _rows(plan: Plan, limits: Limits, query_R: Array) -> Rows:
    """Positions and segments of the queries of these indices; those past the last are padding."""
    segments = limits.q_segments
    if segments is not None:
        segments = pallas_triton.load(segments.at[jnp.minimum(query_R, plan.length - 1)])
    return query_R + limits.offset, segments


def _before(key: Array, position: Array) -> Array:
    """Where a query at a position may see a key under a causal mask."""
    return key <= position


def _same_segment(q_segment: Array, kv_segment: Array) -> Array:
    return (q_segment == kv_segment) & (kv_segment != 0)


def _masked(
    plan: Plan, limits: Limits, rows: Rows, start: Array, scores: Array, axis: int = 0
) -> Array:
    """Scores, -inf where rows, along `axis`, do not see keys, which begin at `start`."""
    keys, end = plan.tile.keys, limits.end
    key = jnp.expand_dims(_range(start, keys), axis)
    seen = key < end
    if plan.causal:
        seen = seen & _before(key, jnp.expand_dims(rows[0], 1 - axis))
    if rows[1] is not None:
        own = jnp.expand_dims(_load(limits.kv_segments, start, keys, end), axis)
        seen = seen & _same_segment(jnp.expand_dims(rows[1], 1 - axis), own)
    return jnp.where(seen, scores, -jnp.inf)


def _key_blocks(plan: Plan, limits: Limits, first: Array, count: int) -> tuple[Array, Array]:
    """Ends of the blocks of keys wholly visible to all of `count` queries from position `first` on,
    and of those visible to any of them."""
    keys = plan.tile.keys
    whole = partly = limits.end
    if plan.causal:
        whole, partly = jnp.minimum(whole, first + 1), jnp.minimum(partly, first + count)
    if limits.kv_segments is not None:
        whole = jnp.zeros_like(whole)
    whole, partly = jnp.maximum(whole, 0), jnp.maximum(partly, 0)
    return _quotient(whole, keys), _quotient(partly + keys - 1, keys)


def _over_keys(body: Callable, carry: Any, first: Index, whole: Array, last: Array) -> Any:
    """Loops `body(block, carry, masked)` over blocks of keys; those past `whole` need a mask."""
    whole = jnp.minimum(jnp.maximum(whole, first), last)
    carry = jax.lax.fori_loop(first, whole, partial(body, masked=False), carry)
    return jax.lax.fori_loop(whole, last, partial(body, masked=True), carry)


def _rescale(old_R: Array, new_R: Array) -> Array:
    """The factor of sums under the old maximum when the new one replaces it."""
    return jnp.exp2(old_R - new_R)


def _softmax_step(carry: tuple, scores_RS: Array, v_SH: Array) -> tuple:
    """One block of the running softmax: sum of values, sum of weights, maximum."""
    sum_RH, total_R, top_R = carry
    new_R = jnp.maximum(top_R, jnp.max(scores_RS, 1))
    # A row without a visible key yet has no maximum to subtract.
    base_R = jnp.where(new_R == -jnp.inf, 0.0, new_R)
    weights_RS = jnp.exp2(scores_RS - base_R[:, None])
    rescale_R = _rescale(top_R, base_R)
    total_R = total_R * rescale_R + jnp.sum(weights_RS, 1)
    values_RH = _product(weights_RS.astype(v_SH.dtype), v_SH, (1, 0))
    return sum_RH * rescale_R[:, None] + values_RH, total_R, new_R


def _attend(
    plan: Plan,
    limits: Limits,
    q_RH: Array,
    k_ref: Ref,
    v_ref: Ref,
    rows: Rows,
    blocks: tuple[Any, Array, Array],
) -> tuple[Array, Array]:
    """Output and natural log-sum-exp of a tile over blocks of keys, as `_over_keys` takes them."""
    keys, count = plan.tile.keys, q_RH.shape[0]

    def step(block: Array, carry: tuple, masked: bool) -> tuple:
        start, end = block * keys, limits.end if masked else None
        k_SH, v_SH = (_load_tile(plan, ref, start, keys, end) for ref in (k_ref, v_ref))
        scores_RS = _scores(q_RH, k_SH, plan.scale)
        if masked:
            scores_RS = _masked(plan, limits, rows, start, scores_RS)
        return _softmax_step(carry, scores_RS, v_SH)

    nothing = (jnp.zeros(q_RH.shape, jnp.float32), jnp.zeros(count), jnp.full(count, -jnp.inf))
    sum_RH, total_R, top_R = _over_keys(step, nothing, *blocks)
    some_R, total_R = total_R > 0, jnp.where(total_R > 0, total_R, 1.0)
    lse_R = jnp.where(some_R, top_R / LOG2_E + jnp.log(total_R), -jnp.inf)
    return sum_RH / total_R[:, None], lse_R


def _query_tile(plan: Plan, limits: Limits) -> tuple[Array, Rows, tuple[Any, Array, Array]]:
    """Where the queries of this program start, their rows, and their blocks of keys."""
    count, block = plan.tile.queries, pl.program_id(0)
    if plan.causal:  # the last queries see most keys: the longest programs start first
        block = pl.cdiv(plan.length, count) - 1 - block
    start = block * count
    blocks = _key_blocks(plan, limits, start + limits.offset, count)
    return start, _rows(plan, limits, _range(start, count)), (0, *blocks)


def _forward_kernel(
    plan: Plan, limits: Limits, q_ref: Ref, k_ref: Ref, v_ref: Ref, out_ref: Ref, lse_ref: Ref
) -> None:
    """A tile of queries of one head: refs [T, H] and [S, H], log-sum-exp [T]."""
    start, rows, blocks = _query_tile(plan, limits)
    count, end = plan.tile.queries, plan.length
    q_RH = _load_tile(plan, q_ref, start, count, end)
    out_RH, lse_R = _attend(plan, limits, q_RH, k_ref, v_ref, rows, blocks)
    _store_tile(plan, out_ref, start, out_RH, end)
    pallas_triton.store(lse_ref.at[pl.ds(start, count)], lse_R, mask=_range(start, count) < end)


def _decode_kernel(
    plan: Plan, limits: Limits, q_ref: Ref, k_ref: Ref, v_ref: Ref, out_ref: Ref, lse_ref: Ref
) -> None:
    """All queries of the heads that share a key head, over one part of the keys in use."""
    count = q_ref.shape[0]
    q_RH = _load_tile(plan, q_ref, 0, count)
    rows = _rows(plan, limits, _quotient(_range(0, count), plan.groups))
    whole, last = _key_blocks(plan, limits, limits.offset, plan.length)
    # Parts of the keys in use, not of the capacity: else a short text would keep few programs busy.
    share = _quotient(last + plan.parts - 1, plan.parts)
    first = pl.program_id(0) * share
    blocks = (first, whole, jnp.minimum(first + share, last))
    out_RH, lse_R = _attend(plan, limits, q_RH, k_ref, v_ref, rows, blocks)
    _store_tile(plan, out_ref, 0, out_RH)
    lse_ref[...] = lse_R


def _d_scores(weights: Array, d_weights: Array, delta: Array) -> Array:
    """Gradient of scores through the softmax."""
    return weights * (d_weights - delta)


def _d_q_kernel(
    plan: Plan,
    limits: Limits,
    q_ref: Ref,
    k_ref: Ref,
    v_ref: Ref,
    d_out_ref: Ref,
    lse_ref: Ref,
    delta_ref: Ref,
    d_q_ref: Ref,
) -> None:
    """Gradient of a tile of queries of one head: refs [T, H] and [S, H], lse and delta [T]."""
    start, rows, blocks = _query_tile(plan, limits)
    count, keys = plan.tile[:2]
    q_RH, d_out_RH = (_load_tile(plan, x, start, count, plan.length) for x in (q_ref, d_out_ref))
    lse_R, delta_R = (_load(x, start, count, plan.length)[:, None] for x in (lse_ref, delta_ref))

    def step(block: Array, d_q_RH: Array, masked: bool) -> Array:
        begin, end = block * keys, limits.end if masked else None
        k_SH, v_SH = (_load_tile(plan, x, begin, keys, end) for x in (k_ref, v_ref))
        scores_RS = _scores(q_RH, k_SH, plan.scale)
        if masked:
            scores_RS = _masked(plan, limits, rows, begin, scores_RS)
        d_weights_RS = _product(d_out_RH, v_SH, (1, 1))
        d_scores_RS = _d_scores(jnp.exp2(scores_RS - lse_R), d_weights_RS, delta_R)
        return d_q_RH + _product(d_scores_RS.astype(k_SH.dtype), k_SH, (1, 0))

    d_q_RH = _over_keys(step, jnp.zeros(q_RH.shape, jnp.float32), *blocks)
    _store_tile(plan, d_q_ref, start, d_q_RH * plan.scale, plan.length)


def _d_kv_kernel(
    plan: Plan,
    limits: Limits,
    q_ref: Ref,
    k_ref: Ref,
    v_ref: Ref,
    d_out_ref: Ref,
    lse_ref: Ref,
    delta_ref: Ref,
    d_k_ref: Ref,
    d_v_ref: Ref,
) -> None:
    """Gradients of a block of keys and values: refs [T, N, H] and [S, H], lse and delta [N, T]."""
    count, keys = plan.tile[:2]
    start, kv_head = pl.program_id(0) * keys, pl.program_id(1)
    k_SH, v_SH = (_load_tile(plan, x, start, keys, limits.end) for x in (k_ref, v_ref))
    # Queries before the block see none of it; nor does any query once no keys are in use.
    first = start - limits.offset if plan.causal else jnp.zeros_like(start)
    first = _quotient(jnp.maximum(first, 0), count)
    last = (start < limits.end).astype(jnp.int32) * pl.cdiv(plan.length, count)

    def step(block: Array, carry: tuple[Array, Array], head: Array) -> tuple[Array, Array]:
        at = (block * count, count, plan.length, head)
        q_RH, d_out_RH = (_load_tile(plan, x, *at) for x in (q_ref, d_out_ref))
        lse_R, delta_R = (_load(x, *at)[None] for x in (lse_ref, delta_ref))
        rows = _rows(plan, limits, _range(at[0], count))
        scores_SR = _scores(k_SH, q_RH, plan.scale)
        weights_SR = jnp.exp2(_masked(plan, limits, rows, start, scores_SR, axis=1) - lse_R)
        d_scores_SR = _d_scores(weights_SR, _product(v_SH, d_out_RH, (1, 1)), delta_R)
        d_k_SH = carry[0] + _product(d_scores_SR.astype(q_RH.dtype), q_RH, (1, 0))
        return d_k_SH, carry[1] + _product(weights_SR.astype(q_RH.dtype), d_out_RH, (1, 0))

    def one_head(member: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        head = _query_head(kv_head, plan.groups, member)
        return jax.lax.fori_loop(first, last, partial(step, head=head), carry)

    nothing = jnp.zeros(k_SH.shape, jnp.float32)
    d_k_SH, d_v_SH = jax.lax.fori_loop(0, plan.groups, one_head, (nothing, nothing))
    _store_tile(plan, d_k_ref, start, d_k_SH * plan.scale, plan.size)
    _store_tile(plan, d_v_ref, start, d_v_SH, plan.size)


def supports(q: Array, k: Array, v: Array, visible: Visible) -> bool:
    """Whether these kernels support a call: one dtype, no explicit mask, widths up to MAX_WIDTH."""
    usual = {q.dtype, k.dtype, v.dtype} in ({jnp.dtype("float32")}, {jnp.dtype("bfloat16")})
    return usual and visible.mask is None and q.shape[3] <= MAX_WIDTH and min(q.shape + k.shape) > 0


def forward(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    visible: Visible,
    scale: float,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T N"]]:
    """Attention, and its natural log-sum-exp in float32, for operands that `supports` accepts.

    A query that sees no key gets zeros and -inf.
    """
    length, heads = q_BTNH.shape[1:3]
    rows = length * (heads // k_BSKH.shape[2])
    few = length <= DECODE_LENGTH and rows <= DECODE_ROWS
    return (_decode if few else _prefill)(q_BTNH, k_BSKH, v_BSKH, visible, scale)


def backward(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    visible: Visible,
    out: Float[Array, "B T N H"],
    lse: Float[Array, "B T N"],
    d_out: Float[Array, "B T N H"],
    d_lse: Float[Array, "B T N"],
    scale: float,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B S K H"], Float[Array, "B S K H"]]:
    """Gradients of q, k and v from those of the output and of the log-sum-exp."""
    plan = _plan("backward", q, k, visible.causal, scale)
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), -1) - d_lse
    # Of a query that sees no key all weights are exp2(-inf - lse), which has to be zero. Rows are
    # the last axis: those of a tile are then contiguous in memory.
    delta_BNT, lse_BNT = (
        jnp.where(jnp.isfinite(lse), x, 0.0).transpose(0, 2, 1) for x in (delta, lse * LOG2_E)
    )
    given = (q, k, v, d_out.astype(q.dtype), lse_BNT, delta_BNT)
    call = partial(_call, plan, _limits(visible, *k.shape[:2]), given)
    blocks = pl.cdiv(plan.length, plan.tile.queries), pl.cdiv(plan.size, plan.tile.keys)
    (d_q,) = call("b.nH b.kH b.kH b.nH bn. bn.", _d_q_kernel, (blocks[0], q.shape[2]), (q,), "b.nH")
    d_k, d_v = call(
        "b..H b.nH b.nH b..H b.. b..", _d_kv_kernel, (blocks[1], k.shape[2]), (k, v), "b.nH b.nH"
    )
    return d_q, d_k, d_v


def _prefill(q: Array, k: Array, v: Array, visible: Visible, scale: float) -> tuple[Array, Array]:
    """A program for every tile of queries of every head."""
    plan = _plan("forward", q, k, visible.causal, scale)
    batch, length, heads, _ = q.shape
    lse_BNT = jax.ShapeDtypeStruct((batch, heads, length), jnp.float32)
    out, lse = _call(
        plan,
        _limits(visible, *k.shape[:2]),
        (q, k, v),
        "b.nH b.kH b.kH",
        _forward_kernel,
        (pl.cdiv(length, plan.tile.queries), heads),
        (q, lse_BNT),
        "b.nH bn.",
    )
    return out, lse.transpose(0, 2, 1)


def _decode(q: Array, k: Array, v: Array, visible: Visible, scale: float) -> tuple[Array, Array]:
    """A program for every part of the cache and every key head, and their results combined."""
    plan, kv_heads = _plan("decode", q, k, visible.causal, scale), k.shape[2]
    q_BKRH = _fold(q, kv_heads)
    out_PBKRH = jax.ShapeDtypeStruct((plan.parts, *q_BKRH.shape), jnp.float32)
    lse_PBKR = jax.ShapeDtypeStruct(out_PBKRH.shape[:-1], jnp.float32)
    parts = _call(
        plan,
        _limits(visible, *k.shape[:2]),
        (q_BKRH, k, v),
        "bn.H b.nH b.nH",
        _decode_kernel,
        (plan.parts, kv_heads),
        (out_PBKRH, lse_PBKR),
        "ibn.H ibn.",
    )
    out, lse = (_unfold(x, plan.length, plan.groups) for x in _combine(*parts))
    return out.astype(q.dtype), lse


def _fold(q_BTNH: Array, kv_heads: int) -> Array:
    """Queries and the heads that share a key head as the rows of one tile, padded: [B, K, R, H]."""
    batch, length, heads, width = q_BTNH.shape
    q = q_BTNH.reshape(batch, length, kv_heads, heads // kv_heads, width)
    q = q.transpose(0, 2, 1, 3, 4).reshape(batch, kv_heads, -1, width)
    return jnp.pad(q, ((0, 0), (0, 0), (0, _power_of_two(q.shape[2]) - q.shape[2]), (0, 0)))


def _unfold(x: Array, length: int, groups: int) -> Array:
    """From [B, K, R, ...] back to [B, T, N, ...]."""
    batch, kv_heads = x.shape[:2]
    x = x[:, :, : length * groups].reshape(batch, kv_heads, length, groups, *x.shape[3:])
    return jnp.moveaxis(x, 1, 2).reshape(batch, length, kv_heads * groups, *x.shape[4:])


def _combine(out_PBKRH: Array, lse_PBKR: Array) -> tuple[Array, Array]:
    """Results over P parts of the keys as the result over all of them."""
    top = jnp.max(lse_PBKR, 0)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    shares = jnp.exp(lse_PBKR - top)
    total = shares.sum(0)
    safe = jnp.where(total == 0, 1.0, total)
    out = (out_PBKRH * shares[..., None]).sum(0) / safe[..., None]
    return out, jnp.where(total == 0, -jnp.inf, top + jnp.log(safe))


def _power_of_two(number: int) -> int:
    """The next power of two, at least 16, the smallest side of a product on tensor cores."""
    return max(16, pl.next_power_of_2(number))


def _plan(kernel: str, q: Array, k: Array, causal: bool, scale: float) -> Plan:
    (batch, length, heads, width), (size, kv_heads) = q.shape, k.shape[1:3]
    padded = _power_of_two(width)
    tile = tiles(kernel, q.dtype, padded)
    queries, keys = min(tile.queries, _power_of_two(length)), min(tile.keys, _power_of_two(size))
    parts = min(pl.cdiv(PROGRAMS, batch * kv_heads), pl.cdiv(size, keys))
    tile = tile._replace(queries=queries, keys=keys)
    return Plan(causal, scale, length, size, heads // kv_heads, width, padded, tile, parts)


def _limits(visible: Visible, batch: int, size: int) -> Limits:
    """The mask as the kernels' inputs."""
    offset = 0 if visible.q_offset is None else visible.q_offset
    end = size if visible.kv_length is None else jnp.minimum(visible.kv_length, size)
    segments = (visible.q_segments, visible.kv_segments)
    limits = Limits(per_row(offset, batch), per_row(end, batch), *segments)
    return jax.tree.map(lambda x: x.astype(jnp.int32), limits)


def _spec(plan: Plan, x: Any, axes: str) -> pl.BlockSpec:
    """The block spec of x in program (i, n, b): for every axis one of its indices, or all of it.

    The letters: i, n, b, and k for the key head of n; "." all; H all of a width and its padding.
    """
    sizes = {"i": None, "n": None, "b": None, "k": None, "H": plan.padded}
    shape = tuple(sizes.get(axis, size) for axis, size in zip(axes, x.shape, strict=True))

    def index(i: Array, n: Array, b: Array) -> tuple:
        at = {"i": i, "n": n, "b": b, "k": _kv_head(n, plan.groups)}
        return tuple(at.get(axis, 0) for axis in axes)

    return pl.BlockSpec(shape, index)


def _call(
    plan: Plan,
    limits: Limits,
    given: tuple,
    axes: str,
    kernel: Callable,
    grid: tuple[int, int],
    wanted: tuple,
    wanted_axes: str,
) -> tuple:
    """Runs a kernel for every item of the batch; axes as in `_spec`, separated by spaces."""

    def specs(arrays: tuple, axes: str) -> tuple:
        return tuple(_spec(plan, *one) for one in zip(arrays, axes.split(), strict=True))

    @wraps(kernel)
    def run(limits: Limits, *refs: Ref) -> None:
        kernel(plan, limits._replace(offset=limits.offset[...], end=limits.end[...]), *refs)

    view = jax.tree.map(lambda x: _spec(plan, x, "b" + "." * (x.ndim - 1)), limits)
    warps, stages = plan.tile[2:]
    return pl.pallas_call(
        run,
        name=kernel.__name__.strip("_"),
        interpret=INTERPRET,
        grid=(*grid, given[0].shape[0]),
        in_specs=(view, *specs(given, axes)),
        out_specs=specs(wanted, wanted_axes),
        out_shape=tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in wanted),
        compiler_params=pallas_triton.CompilerParams(num_warps=warps, num_stages=stages),
    )(limits, *given)
