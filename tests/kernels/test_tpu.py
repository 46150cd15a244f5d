"""Flash attention for TPUs: values and gradients in interpret mode, what is skipped, lowering."""

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
from jax.experimental.pallas import tpu as pltpu

from sf_jax.kernels import attention, block_map, tpu
from sf_jax.kernels.visible import Visible, per_row
from tests import for_tpu
from tests.kernels import cases

DTYPES = ["float32", "bfloat16"]
SMALL = tpu.Blocks(128, 256, 128)  # so that small operands have several of each
HALVED = tpu.Blocks(128, 512, 256)  # for float32, to the above


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> Iterator[None]:
    for name in ("FORWARD", "FORWARD_SKIPPING", "BACKWARD"):
        monkeypatch.setattr(tpu, name, SMALL)
        monkeypatch.setattr(tpu, f"LANES_{name}", HALVED)
    monkeypatch.setattr(tpu, "MOST_D_Q_BYTES", 8 * 256 * 128)  # 128 to 512 queries
    yield
    pltpu.reset_tpu_interpret_mode_state()  # an error inside a kernel does not free its memory


def found_each(
    several: list[cases.Tensors], how: dict, dtype: str = "float32", **of: Any
) -> list[cases.Tensors]:
    """Results of the kernels: memory is initialised with NaN, and races are reported."""
    interpreter = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
    with pltpu.force_tpu_interpret_mode(interpreter):
        return cases.run_each(several, dtype, implementation="tpu", **of, **how)


def found(given: cases.Tensors, how: dict, dtype: str = "float32", **of: Any) -> cases.Tensors:
    return found_each([given], how, dtype, **of)[0]


def packed(batch: int, length: int, *ends: int) -> jax.Array:
    """Segments 1, 2, … that end at these positions, then padding."""
    positions = np.arange(length)
    segments = np.zeros(length, int)
    for number, (start, end) in enumerate(zip((0, *ends), ends, strict=False), 1):
        segments[(positions >= start) & (positions < end)] = number
    return jnp.asarray(np.tile(segments, (batch, 1)), jnp.int32)


PACKED = packed(1, 400, 90, 310, 380)
CASES: dict[str, tuple[dict, dict]] = {
    "bidirectional": ({"length": 256, "heads": 2}, {"causal": False}),
    "bidirectional, several blocks of keys": ({"length": 512, "heads": 1}, {"causal": False}),
    "causal, two query heads a key head": (
        {"length": 300, "heads": 4, "kv_heads": 2, "width": 128}, {"causal": True},
    ),
    "causal, along the lanes, two query heads a key head": (
        {"length": 300, "heads": 4, "kv_heads": 2, "width": 64}, {"causal": True},
    ),
    "no whole tile of features, two query heads a key head": (
        {"length": 290, "size": 520, "heads": 2, "kv_heads": 1, "width": 72},
        {"causal": True, "q_offset": np.array([230])},
    ),
    "offsets and lengths": (
        {"batch": 3, "length": 100, "size": 300, "heads": 1, "width": 72},
        {"causal": True, "q_offset": np.array([200, 37, -20]),
         "kv_length": np.array([300, 0, 131])},
    ),
    "packed pictures": (
        {"length": 400, "heads": 2, "width": 64},
        {"causal": False, "q_segments": PACKED, "kv_segments": PACKED},
    ),
    "packed pictures of whole tiles": (
        {"length": 400, "heads": 1, "width": 128},
        {"causal": False, "q_segments": PACKED, "kv_segments": PACKED},
    ),
    "packed rows": (
        {"length": 400, "heads": 2, "kv_heads": 1, "width": 64},
        {"causal": True, "q_segments": PACKED, "kv_segments": PACKED},
    ),
}  # fmt: skip


def make(name: str, dtype: str = "float32") -> tuple[cases.Tensors, dict]:
    shapes, how = CASES[name]
    how = {key: jnp.asarray(x) if np.ndim(x) else x for key, x in how.items()}
    return cases.inputs(dtype=dtype, **shapes), how


@cache
def wanted(name: str, dtype: str = "float32") -> cases.Tensors:
    given, how = make(name, dtype)
    return cases.wanted(given, **how)


# In low precision, further masks than these are left to `make test-all`.
LOW_PRECISION = (
    "bidirectional", "causal, two query heads a key head",
    "causal, along the lanes, two query heads a key head", "packed rows",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(
            name, dtype,
            marks=() if dtype == "float32" or name in LOW_PRECISION else pytest.mark.slow,
        )
        for name in CASES for dtype in DTYPES
    ],
)  # fmt: skip
def test_values_and_gradients_are_the_references(name, dtype, capfd) -> None:
    given, how = make(name, dtype)
    cases.assert_close(found(given, how, dtype), wanted(name, dtype), dtype)
    assert "RACE" not in "".join(capfd.readouterr())


@settings(max_examples=cases.EXAMPLES, deadline=None, derandomize=True, database=None)
@drawn(st.data())
def test_values_and_gradients_at_any_shape(data) -> None:
    def number(least: int, most: int) -> int:
        return data.draw(st.integers(least, most))

    batch, length, size, kv_heads = number(1, 2), number(1, 300), number(1, 400), number(1, 2)
    width, dtype = data.draw(st.sampled_from([64, 72, 128])), data.draw(st.sampled_from(DTYPES))
    groups, seed = number(1, 2), number(0, 99)
    given = cases.inputs(batch, length, size, kv_heads * groups, kv_heads, width, dtype, seed)
    how: dict[str, Any] = {
        "causal": data.draw(st.booleans()),
        "q_offset": jnp.array([number(-length, size) for _ in range(batch)]),
        "kv_length": jnp.array([number(0, size) for _ in range(batch)]),
    }
    if data.draw(st.booleans()):
        generator = np.random.default_rng(seed)
        how["q_segments"], how["kv_segments"] = (
            jnp.asarray(generator.integers(0, 3, (batch, n)), jnp.int32) for n in (length, size)
        )
    cases.assert_close(found(given, how, dtype), cases.wanted(given, **how), dtype)


ORIGINAL = dict(vars(tpu))


def seen_one_key_more(call: Any, shape: Any, firsts: tuple, *rest: Any) -> jax.Array:
    return ORIGINAL["seen_keys"](call, shape, (firsts[0] + 1, firsts[1]), *rest)


def without_scale(*arguments: Any, **named: Any) -> Any:
    return ORIGINAL["_plan"](*arguments, **named)._replace(scale=1.0)


def masked_for_the_first_part(call: Any, shape: Any, firsts: tuple, part: slice, *rest: Any) -> Any:
    return ORIGINAL["seen_keys"](call, shape, firsts, slice(0, part.stop - part.start), *rest)


MUTANTS: dict[str, dict[str, Callable]] = {
    "no scale": {"_plan": without_scale},
    "one key more": {"seen_keys": seen_one_key_more},
    "heads of another group": {"kv_head": lambda head, groups: jax.lax.rem(head, groups)},
    "sums not rescaled to the new maximum": {"rescaling": lambda top, new, scale: 1.0 + 0 * top},
    "every part masked as the first": {"seen_keys": masked_for_the_first_part},
    "no mask": {"seen_keys": lambda call, shape, *_: jnp.ones(shape, bool)},
}


# Where the rows of one product are all queries, only the backward pass has several parts.
BACKWARD = ("every part masked as the first",)


@pytest.mark.parametrize("along", ["", ", along the lanes"])
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails(name, along, monkeypatch) -> None:
    case = f"causal{along}, two query heads a key head"
    for function, mutant in MUTANTS[name].items():
        monkeypatch.setattr(tpu, function, mutant)
    given, how = make(case)
    with pytest.raises(AssertionError, match="off by"):
        if name in BACKWARD:
            cases.assert_close(found(given, how), wanted(case), "float32")
        forward = cases.forward_only(wanted(case))
        cases.assert_close(found(given, how, gradients=False), forward, "float32")


@pytest.mark.parametrize("width", [64, 128])
def test_masked_keys_change_nothing(width) -> None:
    shapes, how = CASES["packed rows"]
    given = cases.inputs(**shapes | {"width": width})
    later, other = np.arange(400) > 200, np.asarray(PACKED[0]) != 2
    moved = {n: np.where((later | other)[:, None, None], 9.0, given[n]) for n in ("k", "v")}
    before, after = found_each([given, given | moved], how)
    here = ~later & ~other
    for name in ("out", "lse", "d_q"):
        np.testing.assert_array_equal(before[name][:, here], after[name][:, here])
    assert (before["out"][:, 201:310] != after["out"][:, 201:310]).any()


@pytest.mark.parametrize("width", [64, 128])
def test_masked_blocks_are_not_computed(width) -> None:
    """Their values get not even a weight of zero, which would turn NaN into NaN."""
    given = cases.inputs(length=512, heads=1, width=width)
    later = (np.arange(512) >= SMALL.kv)[:, None, None]
    moved = {n: np.where(later, np.nan, given[n]) for n in ("k", "v")}
    before, after = found_each([given, given | moved], {"causal": True})
    for name in ("out", "lse", "d_q"):
        np.testing.assert_array_equal(before[name][:, : SMALL.kv], after[name][:, : SMALL.kv])
    assert np.isnan(after["out"][:, SMALL.kv :]).all()


def needed(seen: Visible, length: int, size: int) -> np.ndarray:
    """Blocks of which a query sees a key, by testing every pair."""
    batch = 1 if seen.q_segments is None else len(seen.q_segments)
    allowed = np.asarray(seen.allowed(batch, length, size))
    blocks = -(-length // SMALL.q), -(-size // SMALL.kv)
    whole = np.zeros((batch, blocks[0] * SMALL.q, blocks[1] * SMALL.kv), bool)
    whole[:, :length, :size] = allowed
    return whole.reshape(batch, blocks[0], SMALL.q, blocks[1], SMALL.kv).any((2, 4))


ROW = packed(1, 1500, 90, 310, 800, 1410)
SKIPS = {
    "causal": (Visible(), 1500, 1500),
    "packed": (Visible(causal=False, q_segments=ROW, kv_segments=ROW), 1500, 1500),
    "causal and packed": (Visible(q_segments=ROW, kv_segments=ROW), 1500, 1500),
    "a chunk after others": (Visible(q_offset=per_row(700, 1)), 200, 2000),
    "a cache in use": (Visible(causal=False, kv_length=per_row(513, 1)), 200, 2000),
}


@pytest.mark.parametrize("outer", ["queries", "keys"])
@pytest.mark.parametrize("name", SKIPS)
def test_exactly_the_blocks_needed_are_visited(name, outer) -> None:
    seen, length, size = SKIPS[name]
    kind = block_map.kinds(seen, 1, length, size, SMALL.q, SMALL.kv)
    right = needed(seen, length, size)
    if outer == "keys":
        kind, right = kind.transpose(0, 2, 1), right.transpose(0, 2, 1)
    visits = block_map.visits(kind)
    visited = np.zeros_like(right)
    for block in range(right.shape[1]):
        count = int(visits.count[0, block])
        order = np.asarray(visits.order[0, block])
        visited[0, block, order[:count]] = True
        assert len(set(order[:count])) == count
        assert len(set(order[max(count - 1, 0) :])) == 1  # nothing is loaded after the last one
    np.testing.assert_array_equal(visited, right)
    assert visited.sum() / right.sum() == 1.0 and visited.sum() < visited.size


def test_blocks_marked_as_wholly_visible_are() -> None:
    seen = Visible(q_segments=ROW, kv_segments=ROW)
    kind = np.asarray(block_map.kinds(seen, 1, 1500, 1500, 128, 128))
    allowed = np.asarray(seen.allowed(1, 1500, 1500))
    for i, j in np.argwhere(kind[0] == block_map.WHOLLY):
        block = allowed[0, i * 128 : (i + 1) * 128, j * 128 : (j + 1) * 128]
        assert block.all() and block.shape[1] == 128
    assert (kind == block_map.WHOLLY).sum() > 5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [64, 72, 128])
def test_lowering_keeps_the_precision(width, dtype) -> None:
    def step(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
        return jax.grad(lambda *x: attention(*x).astype(jnp.float32).sum(), (0, 1, 2))(q, k, v)

    shapes = [(1, 200, 4, width), (1, 200, 2, width), (1, 200, 2, width)]
    abstract = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    program = jax.export.export(jax.jit(step), platforms=["tpu"])(*abstract).mlir_module()
    body = for_tpu.mosaic(program)
    assert body.count(b"attention_forward") and body.count(b"attention_backward")
    assert (b"contract_precision<fp32>" in body) == (dtype == "float32")


def test_compiles_for_every_tpu() -> None:
    topologies = ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"]
    found = for_tpu.compiled("tests.kernels.compile_attention_for_tpu", *topologies)
    for topology, kernels in found.items():
        assert kernels.pop("long rows, in pieces") == 1 + 8
        assert set(kernels.values()) == {2}, topology  # forward and backward
