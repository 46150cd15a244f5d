"""The CPU's blocks: values and gradients at every edge, and that no large temporary is made."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sf_jax.kernels import attention, cpu
from sf_jax.kernels.visible import Visible, per_row
from tests.kernels import cases


def attend(
    q: Any,
    k: Any,
    v: Any,
    *,
    causal: bool = True,
    q_offset: Any = None,
    kv_length: Any = None,
    q_segments: Any = None,
    kv_segments: Any = None,
    mask: Any = None,
    return_lse: bool = True,
) -> Any:
    """The module itself, traced afresh at every call: a test may have changed its block sizes."""
    visible = Visible(
        causal, q_segments, kv_segments, per_row(q_offset, len(q)), per_row(kv_length, len(q)), mask
    )
    scale = q.shape[-1] ** -0.5

    @jax.custom_vjp
    def both(q: Any, k: Any, v: Any) -> Any:
        return cpu.forward(q, k, v, visible, scale)

    def forward(q: Any, k: Any, v: Any) -> Any:
        found = both(q, k, v)
        return found, (q, k, v, visible, *found)

    both.defvjp(forward, lambda saved, given: cpu.backward(*saved, *given, scale))
    return both(q, k, v)


def check(given: cases.Tensors, dtype: str, **how: Any) -> None:
    cases.assert_close(cases.run(given, dtype, attend, **how), cases.wanted(given, **how), dtype)


@st.composite
def calls(draw: st.DrawFn) -> tuple[cases.Tensors, str, dict[str, Any]]:
    """Operands of any small shape, and a mask.

    The first row has at most a causal mask: relative to results close to zero, such as the gradient
    of a query that sees one key, no error is small.
    """
    batch, kv_heads, groups = (
        draw(st.integers(2, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
    )
    length, size = draw(st.integers(6, 40)), draw(st.integers(6, 40))
    dtype = draw(st.sampled_from(["float32", "bfloat16"]))
    seed = draw(st.integers(0, 99))
    numbers = np.random.default_rng(seed)

    def rows(least: int, most: int, first: int, *shape: int) -> jax.Array:
        made = numbers.integers(least, most + 1, (batch, *shape))
        made[0] = first
        return jnp.asarray(made, jnp.int32)

    narrowing = {
        "q_offset": lambda: {"q_offset": rows(0, size, size)},
        "kv_length": lambda: {"kv_length": rows(0, size, size)},
        "mask": lambda: {"mask": rows(0, 3, 1, length, size) > 0},
        "segments": lambda: {
            "q_segments": rows(0, 2, 1, length), "kv_segments": rows(0, 2, 1, size)
        },
    }  # fmt: skip
    how: dict[str, Any] = {"causal": draw(st.booleans())}
    for name in sorted(draw(st.sets(st.sampled_from(sorted(narrowing))))):
        how |= narrowing[name]()
    given = cases.inputs(batch, length, size, kv_heads * groups, kv_heads, 8, dtype, seed)
    return given, dtype, how


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that inputs of a few dozen queries and keys cover every kind of edge."""
    small = {"SCORES": 256, "ROWS": 4, "QUERIES": 8, "BLOCKS": 2, "WINDOWS": (3, 8, 16)}
    for name, number in small.items():
        monkeypatch.setattr(cpu, name, number)


@settings(
    max_examples=15, deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # every smaller example is compiled anew
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(calls())
def test_values_and_gradients_do_not_depend_on_the_blocks(small_blocks: None, call: tuple) -> None:
    given, dtype, how = call
    check(given, dtype, **how)


SEGMENTS = jnp.asarray([
    np.repeat(np.arange(1, 8), 100), np.repeat([1, 2, 0], [90, 550, 60]),
    np.repeat([3, 1, 0, 7], [10, 390, 100, 200]),
])  # fmt: skip
PICTURES = {"causal": False, "q_segments": SEGMENTS, "kv_segments": SEGMENTS}
PACKED = {**PICTURES, "causal": True}
WHOLE: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "two blocks, two steps": ({"batch": 3, "length": 300, "heads": 4, "kv_heads": 2}, {}),
    "more pieces than blocks": ({"length": 1300, "heads": 1, "width": 16}, {}),
    "fewer keys than queries": ({"length": 700, "size": 300, "heads": 2, "width": 16}, {}),
    "more keys than queries": ({"length": 300, "size": 700, "heads": 2, "width": 16}, {}),
    "pieces that see all keys": ({"length": 800, "heads": 2, "width": 16}, {"causal": False}),
    "packed rows": ({"batch": 3, "length": 700, "heads": 4, "kv_heads": 2, "width": 16}, PACKED),
    "packed pictures": ({"batch": 3, "length": 700, "heads": 2, "width": 16}, PICTURES),
    "one query": ({"batch": 2, "length": 1, "size": 300}, {"q_offset": jnp.array([299, 9])}),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", WHOLE)
def test_blocks_as_they_are(name: str, dtype: str) -> None:
    shape, how = WHOLE[name]
    check(cases.inputs(dtype=dtype, **shape), dtype, **how)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (230, 230, 2), (2041, 2041, 1), (8192, 8192, 8), (64, 9000, 3)]
)
def test_blocks_hold_each_query_once_and_all_its_keys(shape: tuple, causal: bool) -> None:
    length, size, groups = shape
    q, k = jnp.zeros((1, length, groups, 1)), jnp.zeros((1, size, 1, 1))
    blocks = cpu._blocks(q, k, Visible(causal))
    assert len(blocks) <= cpu.BLOCKS + 1
    at = 0
    for start, piece, pieces, stop, *_ in blocks:
        assert start == at
        at = start + piece * pieces
        assert stop == (min(at, size) if causal else size)
        rows = max(cpu.SCORES, (cpu.ROWS + groups) * size) / size
        assert piece * groups <= rows
    assert at == length


@pytest.mark.parametrize("how", [PACKED, PICTURES], ids=["causal", "bidirectional"])
def test_keys_far_from_a_segment_are_not_multiplied(how: dict[str, Any]) -> None:
    """NaN would come through a product, whatever its weight."""
    given = cases.inputs(batch=1, length=700, heads=2, width=16)
    how = {name: x[:1] if name != "causal" else x for name, x in how.items()}
    wanted = cases.run(given, "float32", attend, **how)
    poisoned = {name: x.copy() for name, x in given.items()}
    for name in ("q", "k", "v"):
        poisoned[name][:, :100] = np.nan
    found = cases.run(poisoned, "float32", attend, **how)
    for name, x in wanted.items():
        np.testing.assert_array_equal(found[name][:, 500:], x[:, 500:])


@pytest.mark.parametrize("shape", [(4, 512, 8), (1, 2048, 8), (64, 230, 4), (1, 4096, 2)])
def test_temporaries_stay_small(shape: tuple) -> None:
    batch, length, heads = shape
    x = jax.ShapeDtypeStruct((batch, length, heads, 64), jnp.float32)
    lse = jax.ShapeDtypeStruct((batch, length, heads), jnp.float32)

    def gradients(q: Any, k: Any, v: Any, out: Any, lse: Any) -> Any:
        return cpu.backward(q, k, v, Visible(), out, lse, out, lse, 0.125)

    compiled = jax.jit(gradients).lower(x, x, x, x, lse).compile()
    # At 32 MiB glibc's malloc begins to ask the operating system for fresh pages at each call.
    assert compiled.memory_analysis().temp_size_in_bytes < 16 << 20


def test_keys_after_a_block_are_not_multiplied() -> None:
    """Half of the work of a causal pass, but for the blocks on the diagonal."""
    x = jax.ShapeDtypeStruct((1, 2048, 1, 64), jnp.float32)
    stops = [block.stop for block in cpu._blocks(x, x, Visible())]
    assert stops == [512, 1024, 1536, 2048]
    offset = Visible(q_offset=jnp.zeros(1, jnp.int32))
    assert [block.stop for block in cpu._blocks(x, x, offset)] == [2048]


def test_masked_keys_have_no_influence(small_blocks: None) -> None:
    given = cases.inputs(batch=2, length=24, heads=2, kv_heads=1, width=8)
    lengths = jnp.array([0, 13])
    other = dict(given)
    for name, factor in (("k", 1e4), ("v", 1e30)):
        other[name] = given[name].copy()
        other[name][0], other[name][1, 13:] = factor * given[name][0], factor * given[name][1, 13:]
    plain = cases.run(given, "float32", attend, kv_length=lengths)
    large = cases.run(other, "float32", attend, kv_length=lengths)
    for name, x in plain.items():
        np.testing.assert_array_equal(x, large[name], err_msg=name)


def test_gradients_of_a_query_that_sees_nothing_are_zero_whatever_is_pulled() -> None:
    given = cases.inputs(batch=2, length=6, heads=2, width=8)
    q, k, v, d_out = (jnp.asarray(given[name]) for name in ("q", "k", "v", "d_out"))
    visible = Visible(kv_length=jnp.array([0, 6]))
    out, lse = cpu.forward(q, k, v, visible, 1.0)
    d_lse = jnp.where(jnp.isfinite(lse), 1.0, jnp.nan)
    for x in cpu.backward(q, k, v, visible, out, lse, d_out, d_lse, 1.0):
        assert (x[0] == 0).all() and jnp.isfinite(x).all() and (x[1] != 0).any()


def test_checkpoint_scan_and_vmap_change_nothing() -> None:
    given = cases.inputs(batch=3, length=300, heads=2, kv_heads=1, width=16)
    q, k, v = (jnp.asarray(given[name]) for name in "qkv")

    def layer(q: Any, k: Any, v: Any) -> Any:
        return attention(q, k, v, implementation="cpu")

    def one_by_one(q: Any, k: Any, v: Any) -> Any:
        remade = jax.checkpoint(jax.vmap(lambda *x: layer(*(y[None] for y in x))[0]))
        return jnp.sin(jax.lax.scan(lambda x, _: (x + remade(x, k, v), None), q, None, 2)[0]).sum()

    def at_once(q: Any, k: Any, v: Any) -> Any:
        x = q + layer(q, k, v)
        return jnp.sin(x + layer(x, k, v)).sum()

    found, right = (jax.jit(jax.grad(f, (0, 1, 2)))(q, k, v) for f in (one_by_one, at_once))
    for a, b in zip(found, right, strict=True):
        assert jnp.linalg.norm(a - b) <= 2e-6 * jnp.linalg.norm(b)
