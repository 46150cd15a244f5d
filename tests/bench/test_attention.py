"""The attention benchmark counts and compares as it says."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.bench import attention as bench_attention
from sf_jax.cli import recipes
from sf_jax.cli.arguments import UsageError
from sf_jax.kernels import attention


def test_floors_are_whole_tiles() -> None:
    of_128 = bench_attention.floor("v5e", 2048, 128, 2)
    assert of_128 == 131_072  # 2 · 8 · 2048² · 128 products, 65,536 a cycle
    assert bench_attention.floor("v5e", 2048, 64, 2) == of_128
    assert bench_attention.floor("v6e", 2048, 128, 5) == 2.5 * of_128


def test_values_are_within_the_limits_of_the_tests() -> None:
    rows = re.findall(r"\| cpu \| (\w+) \| (.*) \|", bench_attention.values())
    assert [dtype for dtype, _ in rows] == ["float32", "bfloat16"]
    for dtype, errors in rows:
        limit = {"float32": 2e-6, "bfloat16": 8e-3}[dtype]
        assert all(0 < float(error) <= limit for error in errors.split(" | "))


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(UsageError, match="no part 'speed'"):
        bench_attention.main(["speed"])


def test_the_library_is_asked_for_the_same() -> None:
    generator = np.random.default_rng(0)
    q, k, v = (
        jnp.asarray(generator.normal(size=(2, n, heads, 8)), jnp.float32)
        for n, heads in ((5, 4), (9, 2), (9, 2))
    )
    seen = jnp.asarray(generator.integers(0, 2, (2, 9)), jnp.int32).at[:, 0].set(1)
    for how in (
        {"causal": False},
        {"q_offset": jnp.array([4, 2]), "q_segments": jnp.ones((2, 5), int), "kv_segments": seen},
        {"heads_first": True, "kv_segments": seen, "q_segments": jnp.ones((2, 5), int)},
        {"causal": False, "mask": jnp.arange(9) < jnp.full((2, 5, 1), 6)},
    ):
        np.testing.assert_allclose(
            bench_attention.library_attention(q, k, v, **how), attention(q, k, v, **how), atol=1e-6
        )


def test_the_tuner_weighs_cells_alike() -> None:
    first, second = bench_attention.TUNED[:2]
    cells = [
        {f"forward {first}": {"cycles": 10}, f"forward {second}": {"cycles": 15}},
        {f"forward {first}": {"cycles": 1400}, f"forward {second}": {"cycles": 1000}},
    ]
    for cell in cells:
        for sizes in (first, second):
            both = cell[f"forward {sizes}"]["cycles"] * (2 if sizes == first else 3)
            cell[f"both {sizes}"] = {"cycles": both}
    assert str(first) in bench_attention.tuned(cells, "forward")
    assert str(first) in bench_attention.tuned(cells, "backward")
    cells[0][f"forward {first}"] = {"error": "no room"}
    assert str(second) in bench_attention.tuned(cells, "forward")


@pytest.mark.slow
def test_the_model_is_timed_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the sizes of the recipe, whatever those of the shipped model are."""
    builtin_model = recipes.load("builtin_model")
    recipe = builtin_model.tiny(builtin_model.RECIPE)
    monkeypatch.setattr(bench_attention, "least_ms", called)
    lines = bench_attention.in_model(1, recipe).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["1 image", "4 rows"]


def called(calls: dict, rounds: int) -> dict[str, float]:
    return {name: float(call() is not None) for name, call in calls.items()}
