"""Decode attention for TPUs: values in interpret mode, what it reads, lowering and compilation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sf_jax.kernels import tpu_decode
from sf_jax.kernels.visible import Visible, per_row
from tests import for_tpu
from tests.kernels import cases

DTYPES = ["float32", "bfloat16"]
SIZE = 300  # three blocks of 128, the last one incomplete
LAYOUTS = {"as given": False, "heads first": True}


def interpreter() -> Any:
    return pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")


@pytest.fixture(autouse=True)
def fresh_interpreter() -> Iterator[None]:
    """An error inside a kernel does not free the interpreter's memory."""
    yield
    pltpu.reset_tpu_interpret_mode_state()


def visible(batch: int, *, q_offset: Any = 0, kv_length: Any = None, **rest: Any) -> Visible:
    return Visible(q_offset=per_row(q_offset, batch), kv_length=per_row(kv_length, batch), **rest)


@contextmanager
def changed(**attributes: Any) -> Iterator[None]:
    """The module with other attributes, and with blocks as small as they get."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ({"BLOCK_BYTES": 1} | attributes).items():
            patch.setattr(tpu_decode, name, value)
        yield


def kernel(width: int, heads_first: bool = False) -> Callable:
    """A new jitted function, which traces the module as patched."""
    return jax.jit(partial(tpu_decode.forward, scale=width**-0.5, heads_first=heads_first))


def decoded(
    given: cases.Tensors,
    how: dict,
    dtype: str = "float32",
    heads_first: bool = False,
    call: Callable | None = None,
    **attributes: Any,
) -> cases.Tensors:
    """Results of the kernel in interpret mode."""
    q, k, v = (jnp.asarray(given[name], dtype) for name in ("q", "k", "v"))
    seen = visible(len(q), **how)
    assert tpu_decode.supports(q, k, v, seen)
    with changed(**attributes), pltpu.force_tpu_interpret_mode(interpreter()):
        out, lse = (call or kernel(q.shape[-1], heads_first))(q, k, v, seen)
    assert out.dtype == q.dtype and lse.dtype == jnp.float32
    return {"out": np.asarray(out, np.float64), "lse": np.asarray(lse, np.float64)}


SEGMENTS = np.repeat([[1, 2, 0, 1], [2, 0, 1, 2]], 75, axis=1)
CASES: dict[str, tuple[dict, dict]] = {
    "one query, causal": (
        {"batch": 2, "length": 1, "heads": 4, "kv_heads": 2},
        {"causal": True, "q_offset": np.array([37, 280])},
    ),
    "tree of drafts": (
        {"batch": 2, "length": 5, "heads": 6, "kv_heads": 2, "width": 72},
        {"causal": True, "q_offset": np.array([200, 127]),
         "mask": np.random.default_rng(1).random((2, 5, SIZE)) < 0.7},
    ),
    "segments, one head": (
        {"batch": 2, "length": 3, "heads": 2, "kv_heads": 1, "width": 128},
        {"causal": False, "q_segments": np.array([[1, 2, 0], [2, 1, 3]]),
         "kv_segments": SEGMENTS},
    ),
    "lengths, an empty row between": (
        {"batch": 4, "length": 16, "heads": 4, "kv_heads": 4, "width": 64},
        {"causal": False, "kv_length": np.array([0, 129, 0, 128])},
    ),
    "odd heads": (
        {"batch": 1, "length": 2, "heads": 3, "kv_heads": 3},
        {"causal": True, "q_offset": 140, "kv_length": 141},
    ),
}  # fmt: skip


FORCED = ("odd heads", "as given")  # read heads first in any case


def make(name: str, dtype: str = "float32") -> tuple[cases.Tensors, dict]:
    shapes, how = CASES[name]
    given = cases.inputs(size=SIZE, dtype=dtype, **shapes)
    return given, {key: jnp.asarray(x) if np.ndim(x) else x for key, x in how.items()}


def wanted(given: cases.Tensors, how: dict) -> cases.Tensors:
    right = cases.wanted(given, **how)
    return {name: right[name] for name in ("out", "lse")}


@cache
def wanted_of(name: str, dtype: str = "float32") -> cases.Tensors:
    return wanted(*make(name, dtype))


@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, layout) for name in CASES for layout in LAYOUTS if (name, layout) != FORCED],
)
def test_values_are_the_references_without_a_race(name, layout, capfd) -> None:
    found = decoded(*make(name), heads_first=LAYOUTS[layout])
    cases.assert_close(found, wanted_of(name), "float32")
    assert "RACE" not in "".join(capfd.readouterr())


def test_a_race_would_be_reported(capfd) -> None:
    def racing(x_ref: Any, out_ref: Any, buffer: Any, semaphore: Any) -> None:
        copy = pltpu.make_async_copy(x_ref, buffer, semaphore)
        copy.start()
        buffer[...] = jnp.zeros_like(buffer)
        copy.wait()
        out_ref[...] = buffer[...]

    x, message = jnp.ones((8, 128)), ""
    call = pl.pallas_call(
        racing,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)],
        scratch_shapes=[pltpu.VMEM(x.shape, x.dtype), pltpu.SemaphoreType.DMA],
        interpret=interpreter(),
    )
    try:
        jax.block_until_ready(call(x))
    except Exception as error:  # newer versions of jax raise
        message = str(error)
    assert "RACE" in message + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "name", ["one query, causal", "tree of drafts", "lengths, an empty row between"]
)
def test_values_in_low_precision(name, capfd) -> None:
    heads_first = name == "one query, causal"
    found = decoded(*make(name, "bfloat16"), "bfloat16", heads_first)
    cases.assert_close(found, wanted_of(name, "bfloat16"), "bfloat16")
    assert "RACE" not in "".join(capfd.readouterr())


@settings(max_examples=cases.EXAMPLES, deadline=None, derandomize=True, database=None)
@drawn(st.data())
def test_values_at_any_shape(data) -> None:
    def number(least: int, most: int) -> int:
        return data.draw(st.integers(least, most))

    batch, length, size, kv_heads = number(1, 3), number(1, 16), number(1, 280), number(1, 4)
    width, dtype = data.draw(st.sampled_from([64, 72, 128])), data.draw(st.sampled_from(DTYPES))
    given = cases.inputs(
        batch, length, size, kv_heads * number(1, 3), kv_heads, width, dtype, seed=number(0, 99)
    )
    offsets = jnp.array([number(-length, size) for _ in range(batch)])
    lengths = jnp.array([number(0, size) for _ in range(batch)])
    how = {"causal": data.draw(st.booleans()), "q_offset": offsets, "kv_length": lengths}
    cases.assert_close(decoded(given, how, dtype), wanted(given, how), dtype)


def one_key_head_too_far(q_BTNH: jax.Array, kv_heads: int) -> jax.Array:
    return ORIGINAL["_folded"](jnp.roll(q_BTNH, 1, 2), kv_heads)


def one_key_more(seen: Visible, *shape: int) -> jax.Array:
    return ORIGINAL["seen_bits"](seen.replace(q_offset=seen.q_offset + 1), *shape)


ORIGINAL = dict(vars(tpu_decode))
MUTANTS: dict[str, dict[str, Callable]] = {
    "no scale": {"_scores": lambda q, k, scale: ORIGINAL["_product"](q, k, 1)},
    "one key more": {"seen_bits": one_key_more},
    "one key less in use": {"used_keys": lambda *of: ORIGINAL["used_keys"](*of) - 1},
    "heads of another group": {"_folded": one_key_head_too_far},
    "sums not rescaled to the new maximum": {"_shrinkage": lambda before, top: 1.0 + 0 * top},
    "always the first block": {"_block_index": lambda block, row, step, *_: (row, 0)},
    "block of another row": {"_sources": lambda used_B: jnp.zeros_like(used_B)},
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails(name) -> None:
    found = decoded(*make("tree of drafts"), **MUTANTS[name])
    with pytest.raises(AssertionError, match="off by"):
        cases.assert_close(found, wanted_of("tree of drafts"), "float32")


def test_masked_keys_change_nothing() -> None:
    shapes = {"batch": 2, "length": 3, "size": SIZE, "heads": 4, "kv_heads": 2}
    given, at = cases.inputs(**shapes), np.arange(SIZE)
    kv_segments = 1 + (at % 3 == 0)[None].repeat(2, 0)
    how = {
        "causal": True, "q_offset": jnp.array([9, 250]), "kv_length": jnp.array([200, 251]),
        "q_segments": jnp.ones((2, 3), int), "kv_segments": jnp.asarray(kv_segments),
    }  # fmt: skip
    used = np.array([12, 251])
    beyond, other = at >= used[:, None], kv_segments == 2
    call = kernel(64)
    before = decoded(given, how, call=call)

    def after(where: np.ndarray, value: float) -> cases.Tensors:
        moved = {n: np.where(where[..., None, None], value, given[n]) for n in ("k", "v")}
        return decoded(given | moved, how, call=call)

    for hidden in (after(beyond, np.nan), after(beyond | other, 50.0)):
        for name, x in before.items():
            np.testing.assert_array_equal(hidden[name], x)
    for row, last in enumerate([10, 250]):  # the last visible keys
        seen = np.zeros((2, SIZE), bool)
        seen[row, last] = True
        assert (after(seen, 5.0)["out"][row] != before["out"][row]).any()


class Reads:
    """In place of `pallas_call`: walks over the grid and counts what is fetched."""

    def __init__(self) -> None:
        self.fetched: list[list[tuple[int, ...]]] = []
        self.bytes = 0

    def __call__(self, body: Any, *, grid_spec: Any, out_shape: Any, **_: Any) -> Callable:
        def run(used: Any, source: Any, *operands: Any) -> list[jax.Array]:
            prefetched = np.asarray(used), np.asarray(source)
            for operand, spec in zip(operands[2:], grid_spec.in_specs[2:], strict=True):
                at = [
                    tuple(int(i) for i in spec.index_map(*point, *prefetched))
                    for point in np.ndindex(*grid_spec.grid)
                ]  # a block whose index is that of the step before is not fetched
                new = [i for i, before in zip(at, [None, *at], strict=False) if i != before]
                self.fetched.append(at)
                self.bytes += len(new) * np.prod(spec.block_shape) * operand.dtype.itemsize
            self.grid, self.used = grid_spec.grid, prefetched[0]
            return [jnp.zeros(x.shape, x.dtype) for x in out_shape]

        return run


def reads(how: dict, heads_first: bool, shape: tuple[int, ...]) -> Reads:
    """What a step over a bfloat16 cache [B, S, K, H] reads."""
    found, (batch, _, kv_heads, width) = Reads(), shape
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tpu_decode.pl, "pallas_call", found)
        q = jnp.zeros((batch, 2, 4 * kv_heads, width), jnp.bfloat16)
        cache_ = jnp.zeros(shape, jnp.bfloat16)
        tpu_decode.forward(q, cache_, cache_, visible(batch, **how), 1.0, heads_first=heads_first)
    return found


@settings(max_examples=4, deadline=None, derandomize=True, database=None)
@example([0, 700, 0, 0, 1200], True)
@example([513, 512, 0], False)
@drawn(st.lists(st.integers(0, 3000), min_size=1, max_size=4), st.booleans())
def test_no_more_is_read_than_is_in_use(used, heads_first) -> None:
    shape = (len(used), 3000, 8, 128)
    found = reads({"causal": False, "kv_length": jnp.array(used)}, heads_first, shape)
    block = 512  # of 1 MiB of keys
    rounded = sum(-(-n // block) for n in used) * block
    assert found.used.tolist() == used and found.grid == (len(used), -(-3000 // block))
    assert found.bytes <= 1.05 * max(rounded, block) * 2 * 8 * 128 * 2
    bits, keys, values = found.fetched
    assert keys == values
    for (row, step), of_bits, of_keys in zip(np.ndindex(*found.grid), bits, keys, strict=True):
        number = of_keys[2 if heads_first else 1]
        assert of_bits == (of_keys[0], 0, number)
        if step * block < used[row]:  # the block being processed
            assert (of_keys[0], number) == (row, step)


def test_causal_queries_bound_what_is_read() -> None:
    short = reads({"causal": True, "q_offset": 510}, False, (1, 4096, 8, 128))
    longer = reads({"causal": True, "q_offset": 511}, False, (1, 4096, 8, 128))
    block = 512 * (2 * 8 * 128 * 2 + 4)
    assert (short.bytes, longer.bytes) == (block, 2 * block)


def test_supported_calls() -> None:
    q, k = jnp.zeros((1, 16, 4, 64)), jnp.zeros((1, 9, 2, 64))
    assert tpu_decode.supports(q, k, k, Visible())
    assert not tpu_decode.supports(jnp.zeros((1, 17, 4, 64)), k, k, Visible())
    assert not tpu_decode.supports(q[..., :40], k[..., :40], k[..., :40], Visible())
    assert not tpu_decode.supports(jnp.zeros((1, 16, 66, 64)), k, k, Visible())
    assert not tpu_decode.supports(*[jnp.zeros((1, 1, 64, 128))] * 3, Visible())
    assert not tpu_decode.supports(q, k.astype(jnp.bfloat16), k, Visible())
    assert not tpu_decode.supports(*[x.astype(jnp.float16) for x in (q, k, k)], Visible())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", tpu_decode.WIDTHS)
def test_lowering_keeps_the_precision(width, dtype, layout) -> None:
    def step(q: jax.Array, k: jax.Array, v: jax.Array, offset: jax.Array) -> Any:
        seen = visible(2, causal=True, q_offset=offset)
        return tpu_decode.forward(q, k, v, seen, 1.0, heads_first=LAYOUTS[layout])

    shapes = [(2, 3, 4, width), (2, SIZE, 2, width), (2, SIZE, 2, width)]
    abstract = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    abstract.append(jax.ShapeDtypeStruct((2,), "int32"))
    program = jax.export.export(jax.jit(step), platforms=["tpu"])(*abstract).mlir_module()
    body = for_tpu.mosaic(program)
    assert b"matmul" in body
    assert (b"contract_precision<fp32>" in body) == (dtype == "float32")


def test_compiles_without_moving_the_cache() -> None:
    topologies = ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"]
    found = for_tpu.compiled("tests.kernels.compile_decode_for_tpu", *topologies)
    assert list(found) == topologies
    for programs in found.values():
        assert "copy" in programs.pop("declared in the wrong order")  # a copy would be detected
        for name in ("width 64", "width 72", "one short head"):
            assert set(programs.pop(name)) == {"kernel", "dynamic-update-slice"}
        assert len(programs) == 5
        assert all(operations == ["kernel"] for operations in programs.values())
