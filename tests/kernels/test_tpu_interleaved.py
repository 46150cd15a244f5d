"""Flash attention for TPUs in the interleaved layout: values, gradients, lowering."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sf_jax.kernels import attention, block_map, tpu_interleaved
from sf_jax.kernels.visible import Visible
from tests import for_tpu
from tests.kernels import cases

SMALL = {"CHUNK": 128, "AHEAD": 2, "Q_BLOCK": 256, "Q_PART": 128, "KV_BLOCK": 128}


class PackedPairs:
    """`tpu_interleaved._packed_pairs` by its definition; the interpreter lacks such a view."""

    def __init__(self, stage: Any) -> None:
        self.stage = stage

    def everything(self) -> jax.Array:
        positions, heads, width = self.stage.shape
        return pltpu.bitcast(self.stage[...], jnp.uint32).reshape(positions * heads // 2, width)

    def __getitem__(self, at: tuple) -> jax.Array:
        rows, _ = at
        return self.everything()[rows.start :: rows.stride][: rows.size]

    def __setitem__(self, at: tuple, value: jax.Array) -> None:
        (rows, _), (positions, heads, width) = at, self.stage.shape
        written = (
            jnp.arange(positions * heads // 2)[:, None] % rows.stride == rows.start % rows.stride
        )
        packed = jnp.where(written, jnp.repeat(value, rows.stride, 0), self.everything())
        assert rows.size * rows.stride == positions * heads // 2
        whole = packed.reshape(positions, heads // 2, width)
        self.stage[...] = pltpu.bitcast(whole, self.stage.dtype)


@pytest.fixture
def interpreted(monkeypatch) -> Iterator[None]:
    """Small blocks, so that small operands have several of each."""
    for name, value in SMALL.items():
        monkeypatch.setattr(tpu_interleaved, name, value)
    monkeypatch.setattr(tpu_interleaved, "_packed_pairs", PackedPairs)
    yield
    pltpu.reset_tpu_interpret_mode_state()


def found_each(several: list[cases.Tensors], how: dict, **of: Any) -> list[cases.Tensors]:
    """Results of the kernels: memory is initialised with NaN, and races are reported."""
    interpreter = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
    with pltpu.force_tpu_interpret_mode(interpreter):
        return cases.run_each(several, "bfloat16", implementation="tpu", **of, **how)


def found(given: cases.Tensors, how: dict, **of: Any) -> cases.Tensors:
    return found_each([given], how, **of)[0]


def packed(batch: int, *lengths: int) -> jax.Array:
    """Segments 1, 2, … of these lengths; the last is padding."""
    numbers = (np.arange(len(lengths)) + 1) % len(lengths)
    return jnp.asarray(np.tile(np.repeat(numbers, lengths), (batch, 1)), jnp.int32)


PACKED = packed(1, 90, 220, 70, 4)
CASES: dict[str, tuple[dict, dict]] = {
    "bidirectional": ({"length": 256}, {"causal": False}),
    "bidirectional, several blocks": ({"length": 384, "size": 512}, {"causal": False}),
    "causal, two query heads a key head": (
        {"length": 256, "heads": 16, "kv_heads": 8}, {"causal": True},
    ),
    "offsets and lengths": (
        {"batch": 3, "length": 128, "size": 384},
        {"causal": True, "q_offset": np.array([200, 37, -20]),
         "kv_length": np.array([384, 0, 131])},
    ),
    "packed pictures": (
        {"length": 384}, {"causal": False, "q_segments": PACKED, "kv_segments": PACKED},
    ),
    "packed rows": (
        {"length": 384}, {"causal": True, "q_segments": PACKED, "kv_segments": PACKED},
    ),
}  # fmt: skip


def make(name: str) -> tuple[cases.Tensors, dict]:
    shapes, how = CASES[name]
    how = {key: jnp.asarray(x) if np.ndim(x) else x for key, x in how.items()}
    return cases.inputs(dtype="bfloat16", **{"heads": 8, "width": 128} | shapes), how


@cache
def wanted(name: str) -> cases.Tensors:
    given, how = make(name)
    return cases.wanted(given, **how)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_the_references(name, interpreted, capfd) -> None:
    given, how = make(name)
    cases.assert_close(found(given, how), wanted(name), "bfloat16")
    assert "RACE" not in "".join(capfd.readouterr())


@settings(max_examples=cases.EXAMPLES, deadline=None, derandomize=True, database=None)
@drawn(st.data())
def test_values_and_gradients_at_any_shape(data) -> None:
    def number(least: int, most: int) -> int:
        return data.draw(st.integers(least, most))

    batch, length, size = number(1, 2), 128 * number(1, 3), 128 * number(1, 4)
    groups, seed = number(1, 2), number(0, 99)
    given = cases.inputs(batch, length, size, 8 * groups, 8, 128, "bfloat16", seed)
    how: dict[str, Any] = {"causal": data.draw(st.booleans())}
    if data.draw(st.booleans()):
        how["q_offset"] = jnp.array([number(-length, size) for _ in range(batch)])
        how["kv_length"] = jnp.array([number(0, size) for _ in range(batch)])
    if data.draw(st.booleans()):
        generator = np.random.default_rng(seed)
        how["q_segments"], how["kv_segments"] = (
            jnp.asarray(generator.integers(0, 3, (batch, n)), jnp.int32) for n in (length, size)
        )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (SMALL | {"_packed_pairs": PackedPairs}).items():
            patch.setattr(tpu_interleaved, name, value)
        cases.assert_close(found(given, how), cases.wanted(given, **how), "bfloat16")


ORIGINAL = dict(vars(tpu_interleaved))


def seen_one_key_more(call: Any, shape: Any, firsts: tuple, *rest: Any) -> jax.Array:
    return ORIGINAL["seen_keys"](call, shape, (firsts[0] + 1, firsts[1]), *rest)


def without_scale(*arguments: Any, **named: Any) -> Any:
    return ORIGINAL["_plan"](*arguments, **named)._replace(scale=1.0)


def heads_swapped(heads: Any, stage: Any) -> None:
    ORIGINAL["_interleave"](heads, stage)
    packed = tpu_interleaved._packed_pairs(stage)
    rows = pl.ds(0, stage.shape[0], stride=stage.shape[1] // 2), slice(None)
    packed[rows] = (packed[rows] << 16) | (packed[rows] >> 16)


MUTANTS: dict[str, dict[str, Callable]] = {
    "no scale": {"_plan": without_scale},
    "one key more": {"seen_keys": seen_one_key_more},
    "heads of another group": {"kv_head": lambda head, groups: jax.lax.rem(head, groups)},
    "sums not rescaled to the new maximum": {"rescaling": lambda top, new, scale: 1.0 + 0 * top},
    "no mask": {"seen_keys": lambda call, shape, *_: jnp.ones(shape, bool)},
    "two heads swapped": {"_interleave": heads_swapped},
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails(name, interpreted, monkeypatch) -> None:
    case = "causal, two query heads a key head"
    for function, mutant in MUTANTS[name].items():
        monkeypatch.setattr(tpu_interleaved, function, mutant)
    given, how = make(case)
    with pytest.raises(AssertionError, match="off by"):
        forward = cases.forward_only(wanted(case))
        cases.assert_close(found(given, how, gradients=False), forward, "bfloat16")


def test_masked_keys_change_nothing(interpreted) -> None:
    given, how = make("packed rows")
    later, other = np.arange(384) > 200, np.asarray(PACKED[0]) != 2
    moved = {n: np.where((later | other)[:, None, None], 9.0, given[n]) for n in ("k", "v")}
    before, after = found_each([given, given | moved], how)
    here = ~later & ~other
    for name in ("out", "lse", "d_q"):
        np.testing.assert_array_equal(before[name][:, here], after[name][:, here])
    assert (before["out"][:, 201:310] != after["out"][:, 201:310]).any()


def test_masked_blocks_are_not_computed(interpreted) -> None:
    """Their values get not even a weight of zero, which would turn NaN into NaN."""
    given = cases.inputs(length=512, heads=8, width=128, dtype="bfloat16")
    later = (np.arange(512) >= SMALL["Q_BLOCK"])[:, None, None]
    moved = {n: np.where(later, np.nan, given[n]) for n in ("k", "v")}
    before, after = found_each([given, given | moved], {"causal": True})
    for name in ("out", "lse", "d_q"):
        np.testing.assert_array_equal(before[name][:, :256], after[name][:, :256])
    assert np.isnan(after["out"][:, 256:]).all()


def test_exactly_the_blocks_needed_are_visited() -> None:
    row = packed(1, 90, 220, 490, 610, 126)
    for seen in (Visible(), Visible(causal=False, q_segments=row, kv_segments=row)):
        q = jnp.zeros((1, 1536, 8, 128), jnp.bfloat16)
        call = tpu_interleaved._plan(q, q, seen, 1.0, outer=0)
        (kind, *_), *_ = tpu_interleaved._operands(call, seen, 1, 1536)
        allowed = np.asarray(seen.allowed(1, 1536, 1536))
        blocks = allowed.reshape(call.steps[0], call.blocks.q, call.steps[1], call.blocks.kv)
        visited = np.asarray(kind).reshape(call.steps) != block_map.EMPTY
        np.testing.assert_array_equal(visited, blocks.any((1, 3)))
        assert visited.sum() < visited.size


def test_packed_pairs_of_heads() -> None:
    if jax.__version_info__ < (0, 12):
        pytest.skip("jax interprets such views of memory from 0.12 on")
    block = cases.inputs(length=16, heads=8, width=128, dtype="bfloat16")["q"][0]

    def kernel(block_ref: Any, heads_ref: Any, again_ref: Any) -> None:
        tpu_interleaved._deinterleave(block_ref, heads_ref, 0)
        tpu_interleaved._interleave(heads_ref, again_ref)

    shapes = [jax.ShapeDtypeStruct(shape, "bfloat16") for shape in ((8, 16, 128), (16, 8, 128))]
    call = pl.pallas_call(kernel, out_shape=shapes, interpret=True)
    heads, again = call(jnp.asarray(block, jnp.bfloat16))
    np.testing.assert_array_equal(np.asarray(heads, np.float32), block.transpose(1, 0, 2))
    np.testing.assert_array_equal(np.asarray(again, np.float32), block)


SHAPE = (1, 512, 8, 128)


def kernels(shape: tuple = SHAPE, dtype: str = "bfloat16", **how: Any) -> set[str]:
    """Names of the kernels in a program for a TPU."""

    def step(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
        def loss(*operands: jax.Array) -> jax.Array:
            return attention(*operands, **how).astype(jnp.float32).sum()

        return jax.grad(loss, (0, 1, 2))(q, k, v)

    abstract = [jax.ShapeDtypeStruct(shape, dtype)] * 3
    program = jax.export.export(jax.jit(step), platforms=["tpu"])(*abstract).mlir_module()
    body = for_tpu.mosaic(program)
    found = re.findall(rb"attention_(?:forward|backward)(?:_interleaved)?", body)
    return {name.decode() for name in found}


def test_the_interleaved_layout_is_used_where_supported() -> None:
    heads_first = {"attention_forward", "attention_backward"}
    interleaved = {name + "_interleaved" for name in heads_first}
    for how in ({"causal": False}, {"causal": True}):
        assert kernels(**how) == interleaved
    assert kernels(heads_first=True) == heads_first
    assert kernels(dtype="float32") == heads_first
    assert kernels((1, 500, 8, 128)) == kernels((1, 512, 4, 128)) == heads_first
    assert kernels((1, 512, 8, 64)) == kernels((1, 2304, 8, 128)) == heads_first
    assert kernels((1, 512, 24, 128)) == kernels((1, 1024, 32, 128)) == heads_first


def test_a_chip_with_little_memory_uses_other_kernels(monkeypatch) -> None:
    q = jnp.zeros(SHAPE, jnp.bfloat16)
    assert tpu_interleaved.supports(q, q, q, Visible())

    class Info:
        vmem_capacity_bytes = 16 * 2**20

    monkeypatch.setattr(pltpu, "get_tpu_info", Info)
    assert not tpu_interleaved.supports(q, q, q, Visible())
    few = q[:, :256]
    assert tpu_interleaved.supports(few, few, few, Visible())


def test_compiles_for_every_tpu() -> None:
    topologies = ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"]
    found = for_tpu.compiled("tests.kernels.compile_interleaved_for_tpu", *topologies)
    held = {name: 2 for name in found["v5e:2x2"]}  # forward and backward
    little = {name: 2 * ("256" in name) for name in held}  # a v4 takes other kernels for the rest
    assert found == dict(zip(topologies, (little, held, held, held), strict=True))
