"""Attention in plain JAX, blocked for the caches of a CPU.

Scores are computed for a few heads and queries at a time, so that they stay in the cache: a large
temporary is also fresh memory from the operating system at every call, and its page faults take
longer than the arithmetic. Under a causal mask, queries are multiplied only with the keys up to the
end of their block; with segments, only with a window of keys around those of their own segments,
the narrowest of a few widths that contains them. Every product is a plain batched matrix product
over contiguous memory that contracts the last axis of its left operand: contracting the other one
is two to three times slower. The backward pass recomputes the probabilities from the log-sum-exp
(Dao et al. 2022, arXiv:2205.14135). Operands in low precision are multiplied in that precision.

Axes beside the usual ones: Z batch and kv heads together, G query heads of a kv head.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from sf_jax.kernels.precision import wide
from sf_jax.kernels.types import Index
from sf_jax.kernels.visible import Visible

SCORES = 1 << 19  # computed at a time: 2 MiB in float32, which a core's second-level cache holds
ROWS = 128  # of scores of a kv head at least: a product of fewer is dominated by reading the keys
QUERIES = (
    256  # in a piece of a causal pass: fewer would skip more keys, but multiply less efficiently
)
BLOCKS = 4  # of a causal pass, at most, and a remainder: each is compiled separately
WINDOWS = (128, 192, 256, 384, 512, 1024, 2048, 4096)  # keys in a window
UNSEEN = -1e30  # the score of a key that is not visible; a row of -inf alone would yield NaN


class Block(NamedTuple):
    """Pieces of queries that share a bound on the keys they see."""

    start: int  # the first query
    piece: int  # queries in a piece
    pieces: int
    stop: int  # the first key that none of them sees, as far as causality goes
    first: int  # pieces before this block
    widths: tuple[int, ...]  # of the windows of keys that a piece may take; the last one is `stop`


def forward(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    visible: Visible,
    scale: float,
) -> tuple[Float[Array, "B T N H"], Float32[Array, "B T N"]]:
    """The reference's result, accumulated in float32 or float64; probabilities in q's type.

    Returns:
      The output in the type of q, and the log-sum-exp in float32 or float64.
    """
    blocks = _blocks(q_BTNH, k_BSKH, visible)
    operand = _operand(q_BTNH)

    def step(seen: _Seen, q_BTNH: Array, k_BSKH: Array, v_BSKH: Array) -> list[Array]:
        q_ZGTH = _of_queries(q_BTNH.astype(operand), k_BSKH)
        k_ZSH, v_ZSH = _of_keys(k_BSKH.astype(operand)), _of_keys(v_BSKH.astype(operand))

        def of_piece(block: Block, index: Array) -> tuple[Array, Array]:
            start = block.start + index * block.piece
            q = _sliced(q_ZGTH, start, block.piece, 2)

            def of_window(low: Index, width: int) -> tuple[Array, Array]:
                k, v = (_sliced(x, low, width, 1) for x in (k_ZSH, v_ZSH))
                part = _part(seen.visible, start, block.piece, low, width)
                return _attend(q, k, v, part, scale)

            return _on_window(of_window, seen, block, index)

        found = [
            jax.lax.map(partial(of_piece, block), jnp.arange(block.pieces)) for block in blocks
        ]
        return [_apart(_joined(x), q_BTNH) for x in zip(*found, strict=True)]

    results = [(q_BTNH.shape, q_BTNH.dtype), (q_BTNH.shape[:3], wide(q_BTNH.dtype))]
    seen = _Seen(visible, _near(visible, blocks))
    out, lse = _in_steps(step, seen, (q_BTNH, k_BSKH, v_BSKH), results, blocks)
    return out, lse


def backward(
    q: Array,
    k: Array,
    v: Array,
    visible: Visible,
    out: Array,
    lse: Array,
    d_out: Array,
    d_lse: Array,
    scale: float,
) -> tuple[Array, Array, Array]:
    """Gradients of q [B, T, N, H], k and v [B, S, K, H] given those of output and log-sum-exp."""
    blocks = _blocks(q, k, visible)
    unseeing = lse == -jnp.inf
    lse = jnp.where(unseeing, jnp.inf, lse)  # exp(score - inf) is 0
    delta = jnp.sum(d_out.astype(wide(q.dtype)) * out.astype(wide(q.dtype)), -1) - d_lse
    delta = jnp.where(unseeing, 0.0, delta)
    lse_B1NT, delta_B1NT = (jnp.swapaxes(x, 1, 2)[:, None] for x in (lse, delta))
    arrays = q, k, v, d_out, lse_B1NT, delta_B1NT

    def step(seen: _Seen, *arrays: Array) -> list[Array]:
        return _pull(blocks, seen, arrays, scale)

    results = [(x.shape, x.dtype) for x in (q, k, v)]
    seen = _Seen(visible, _near(visible, blocks))
    d_q, d_k, d_v = _in_steps(step, seen, arrays, results, blocks)
    return d_q, d_k, d_v


def _attend(
    q_ZGTH: Array, k_ZSH: Array, v_ZSH: Array, visible: Visible, scale: float
) -> tuple[Array, Array]:
    """Output [Z, G, T, H] and log-sum-exp [Z, G, T]."""
    heads, groups, length, width = q_ZGTH.shape
    allowed = _allowed(visible, length, k_ZSH.shape[1])[:, None, None]
    scores = _product(q_ZGTH.reshape(heads, -1, width), k_ZSH, 2) * scale
    scores = scores.reshape(len(allowed), -1, groups, length, k_ZSH.shape[1])
    scores = jnp.where(allowed, scores, UNSEEN)
    top = jnp.max(scores, -1, keepdims=True)
    weights = jnp.exp(scores - top)  # written so, XLA fuses this and the maximum into one pass
    total = weights.sum(-1, keepdims=True)
    flat = weights.astype(v_ZSH.dtype).reshape(heads, -1, v_ZSH.shape[1])
    out = _product(flat, v_ZSH, 1).reshape(*scores.shape[:-1], width)
    seeing = allowed.any(-1, keepdims=True)  # a query that sees no key has uniform weights
    out = jnp.where(seeing, out / total, 0.0)
    lse = jnp.where(seeing, jnp.log(total) + top, -jnp.inf)
    return out.reshape(q_ZGTH.shape), lse.reshape(q_ZGTH.shape[:3])


def _pull(
    blocks: list[Block], seen: "_Seen", arrays: tuple[Array, ...], scale: float
) -> list[Array]:
    """Gradients of the queries, keys and values of a few heads."""
    q, k, v, d_out, lse, delta = arrays
    low = _operand(q)
    of_queries = [_of_queries(x.astype(low), k) for x in (q, d_out)]
    of_queries += [x.reshape(*of_queries[0].shape[:3]) for x in (lse, delta)]
    k_ZSH, v_ZSH = _of_keys(k.astype(low)), _of_keys(v.astype(low))
    # Without the barrier XLA does not transpose the keys and contracts their first axis.
    k_ZHS = jax.lax.optimization_barrier(jnp.moveaxis(k_ZSH, 2, 1))

    def of_piece(block: Block, sums: Any, index: Array) -> tuple[Any, Array]:
        start = block.start + index * block.piece
        few = [_sliced(x, start, block.piece, 2) for x in of_queries]

        def of_window(low: Index, width: int) -> tuple[Any, Array]:
            of_keys = [_sliced(x, low, width, i) for x, i in ((k_ZSH, 1), (k_ZHS, 2), (v_ZSH, 1))]
            part = _part(seen.visible, start, block.piece, low, width)
            d_q, *found = _pull_piece(few, of_keys, part, scale)
            put = jax.lax.dynamic_update_slice_in_dim
            grown = [
                put(x, _sliced(x, low, width, 1) + d, low, 1)
                for x, d in zip(sums, found, strict=True)
            ]
            return grown, d_q

        return _on_window(of_window, seen, block, index)

    d_kv = [jnp.zeros(k_ZSH.shape, wide(k_ZSH.dtype))] * 2
    d_qs = []
    for block in blocks:
        d_kv, d_q = jax.lax.scan(partial(of_piece, block), d_kv, jnp.arange(block.pieces))
        d_qs.append(d_q)
    return [_apart(_joined(d_qs), q), *(_apart(x[:, None], k) for x in d_kv)]


def _pull_piece(
    of_queries: list[Array], of_keys: list[Array], visible: Visible, scale: float
) -> tuple[Array, Array, Array]:
    """Gradients of one piece, from transposed scores, keys by queries.

    So the products yield the gradients of keys and values in their own layout, and of the operands
    only the keys have to be transposed.
    """
    q_ZGTH, d_out_ZGTH, lse_ZGT, delta_ZGT = of_queries
    k_ZSH, k_ZHS, v_ZSH = of_keys
    heads, groups, length, width = q_ZGTH.shape
    q_ZRH, d_out_ZRH = (x.reshape(heads, -1, width) for x in (q_ZGTH, d_out_ZGTH))
    lse_ZR, delta_ZR = (x.reshape(heads, 1, -1) for x in (lse_ZGT, delta_ZGT))
    allowed_BST = jnp.swapaxes(_allowed(visible, length, k_ZSH.shape[1]), 1, 2)
    scores = _product(k_ZSH, q_ZRH, 2) * scale
    shape = len(allowed_BST), -1, k_ZSH.shape[1], groups, length
    scores = jnp.where(allowed_BST[:, None, :, None], scores.reshape(shape), UNSEEN)
    weights = jnp.exp(scores.reshape(heads, k_ZSH.shape[1], -1) - lse_ZR)
    d_scores = weights * (_product(v_ZSH, d_out_ZRH, 2) - delta_ZR)
    weights, d_scores = weights.astype(k_ZSH.dtype), d_scores.astype(k_ZSH.dtype)
    d_q_ZHR = _product(k_ZHS, d_scores, 1) * scale
    d_q = jnp.moveaxis(d_q_ZHR, 1, 2).reshape(q_ZGTH.shape)
    return d_q, _product(d_scores, q_ZRH, 1) * scale, _product(weights, d_out_ZRH, 1)


def _allowed(visible: Visible, length: int, size: int) -> Array:
    """The mask [B, T, S], with B = 1 where it is the same for all rows."""
    rows = max((len(x) for x in jax.tree.leaves(visible)), default=1)
    return visible.allowed(rows, length, size)


def _product(a: Array, b: Array, axis: int) -> Array:
    """Batched matrix product of the last axis of `a` with `axis` of `b`, accumulated in float32."""
    precision = None if a.dtype == jnp.bfloat16 else jax.lax.Precision.HIGHEST
    return jax.lax.dot_general(
        a, b, (((2,), (axis,)), ((0,), (0,))), precision, preferred_element_type=wide(a.dtype)
    )


def _operand(q: Array) -> Any:
    return q.dtype if q.dtype == jnp.bfloat16 else wide(q.dtype)


def _of_queries(x_BTN: Array, k_BSKH: Array) -> Array:
    """From [B, T, N, ...] to [Z, G, T, ...]."""
    heads = len(k_BSKH) * k_BSKH.shape[2]
    x_BNT = jnp.moveaxis(x_BTN, 1, 2)
    return x_BNT.reshape(heads, -1, *x_BNT.shape[2:])


def _of_keys(x_BSKH: Array) -> Array:
    """From [B, S, K, H] to [Z, S, H]."""
    x_BKSH = jnp.moveaxis(x_BSKH, 1, 2)
    return x_BKSH.reshape(-1, *x_BKSH.shape[2:])


def _apart(x_ZGT: Array, like_BTN: Array) -> Array:
    """From [Z, G, T, ...] to [B, T, N, ...]."""
    batch, length, heads = like_BTN.shape[:3]
    return jnp.moveaxis(x_ZGT.reshape(batch, heads, length, *x_ZGT.shape[3:]), 2, 1)


def _joined(blocks: Any) -> Array:
    """Concatenates the pieces of every block, [piece, Z, G, T, ...], to [Z, G, T, ...]."""
    whole = [jnp.moveaxis(x, 0, 2) for x in blocks]
    return jnp.concatenate([x.reshape(*x.shape[:2], -1, *x.shape[4:]) for x in whole], 2)


def _sliced(x: Array, start: Index, length: int, axis: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, start, length, axis)


def _blocks(q_BTNH: Array, k_BSKH: Array, visible: Visible) -> list[Block]:
    """The blocks of queries, from shapes alone."""
    length, size = q_BTNH.shape[1], k_BSKH.shape[1]
    groups = q_BTNH.shape[2] // k_BSKH.shape[2]
    cut = visible.causal and visible.q_offset is None
    windowed = (
        visible.q_segments is not None
        and visible.kv_length is None
        and visible.q_offset is None
        and visible.mask is None
        and size > WINDOWS[0]
    )
    piece = max(SCORES // max(size, 1), ROWS) // groups
    if cut or windowed:
        piece = min(piece, max(QUERIES // groups, 1))
    piece = -(-length // -(-length // max(piece, 1)))  # as even as possible
    whole = length // piece
    each = -(-whole // BLOCKS) if cut and not windowed else whole
    found = [(at * piece, piece, min(each, whole - at), at) for at in range(0, whole, each)]
    if length % piece:
        found.append((whole * piece, length % piece, 1, whole))
    blocks = []
    for start, piece, pieces, first in found:
        stop = min(start + piece * pieces, size) if cut else size
        widths = tuple(n for n in WINDOWS if windowed and n < stop)
        blocks.append(Block(start, piece, pieces, stop, first, (*widths, stop)))
    return blocks


class _Seen(NamedTuple):
    """The mask, and the range of keys that each piece of queries may see.

    Attributes:
      near: int32 [B, pieces, 2], first key and end; None where every piece takes all keys.
    """

    visible: Visible
    near: Int[Array, "B pieces 2"] | None


def _near(visible: Visible, blocks: list[Block]) -> Array | None:
    """The range of keys that each piece of queries may see, or None where windows are not used.

    It spans all keys whose segment is between the minimum and the maximum of a piece.
    """
    if all(len(block.widths) == 1 for block in blocks):
        return None
    assert visible.q_segments is not None and visible.kv_segments is not None
    kv = visible.kv_segments[:, None]
    size = kv.shape[-1]
    keys, found = jnp.arange(size), []
    for start, piece, pieces, *_ in blocks:
        q = visible.q_segments[:, start : start + piece * pieces].reshape(len(kv), pieces, piece)
        least = jnp.where(q == 0, jnp.iinfo(q.dtype).max, q).min(-1, keepdims=True)
        near = (kv != 0) & (kv >= least) & (kv <= q.max(-1, keepdims=True))
        if visible.causal:
            near &= keys < start + piece * (1 + jnp.arange(pieces))[:, None]
        found.append(
            jnp.stack(
                [jnp.where(near, keys, size).min(-1), jnp.where(near, keys + 1, 0).max(-1)], -1
            )
        )
    return jnp.concatenate(found, 1)


def _on_window(take: Callable, seen: _Seen, block: Block, index: Array) -> Any:
    """Calls `take(first key, width)` with the narrowest window of the keys that a piece sees."""
    if len(block.widths) == 1:
        return take(0, block.stop)
    assert seen.near is not None
    near = seen.near[:, block.first + index]
    low, high = near[:, 0].min(), near[:, 1].max()

    def branch(width: int) -> Callable:
        return lambda: take(jnp.minimum(low, block.stop - width), width)

    narrower = jnp.array(block.widths[:-1])
    return jax.lax.switch((high - low > narrower).sum(), [*map(branch, block.widths)])


def _part(visible: Visible, start: Index, piece: int, low: Index, width: int) -> Visible:
    """The mask of a piece of queries from `start` on and a window of keys from `low` on."""
    offset = jnp.zeros(1, jnp.int32) if visible.q_offset is None else visible.q_offset
    q, kv, mask = visible.q_segments, visible.kv_segments, visible.mask
    return dataclasses.replace(
        visible,
        q_segments=None if q is None else _sliced(q, start, piece, 1),
        kv_segments=None if kv is None else _sliced(kv, low, width, 1),
        q_offset=offset + start - low if visible.causal else None,
        mask=None if mask is None else _sliced(mask, start, piece, 1)[..., :width],
    )


def _in_steps(
    step: Callable,
    seen: _Seen,
    arrays: tuple[Array, ...],
    results: list[tuple[tuple[int, ...], Any]],
    blocks: list[Block],
) -> list[Array]:
    """Runs `step` on as many heads at a time as yield SCORES scores, and collects its results.

    The arrays and results are [B, T, N, ...] or [B, S, K, ...]. A step gets whole rows of the batch
    or some heads of one row, and its results are written to their final positions at once:
    collected first, they would be copied twice more.

    Args:
      results: shapes and dtypes of the results.
    """
    (batch, _, heads), kv_heads = arrays[0].shape[:3], arrays[1].shape[2]
    few = _heads_at_a_time(batch, kv_heads, heads // kv_heads, blocks)
    rows, part = max(1, few // kv_heads), min(few, kv_heads)

    def at(x: Any, index: Array) -> tuple[Array, ...]:
        row, head = index // (kv_heads // part) * rows, index % (kv_heads // part)
        return row, 0, head * (x.shape[2] * part // kv_heads), *(0,) * (x.ndim - 3)

    def of_heads(found: list[Array], index: Array) -> tuple[list[Array], None]:
        shown = jax.tree.map(lambda x: _sliced(x, at(arrays[0], index)[0], rows, 0), seen)
        given = [
            jax.lax.dynamic_slice(
                x, at(x, index), (rows, x.shape[1], x.shape[2] * part // kv_heads, *x.shape[3:])
            )
            for x in arrays
        ]
        made = zip(found, step(shown, *given), strict=True)
        put = jax.lax.dynamic_update_slice
        return [put(x, new.astype(x.dtype), at(x, index)) for x, new in made], None

    empty = [jnp.zeros(shape, dtype) for shape, dtype in results]
    return jax.lax.scan(of_heads, empty, jnp.arange(batch * kv_heads // few))[0]


def _heads_at_a_time(batch: int, kv_heads: int, groups: int, blocks: list[Block]) -> int:
    """The number of key heads, at least one, with which a step computes at most SCORES scores."""
    scores = groups * max(block.piece * block.stop for block in blocks)
    return max(
        n
        for n in range(1, batch * kv_heads + 1)
        if (n == 1 or n * scores <= SCORES)
        and batch * kv_heads % n == 0
        and (n % kv_heads == 0 or kv_heads % n == 0)
    )
