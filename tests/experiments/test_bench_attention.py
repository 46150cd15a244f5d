"""The attention benchmark counts and compares as it says."""

import re

import pytest

from experiments import bench_attention
from sf_jax.shell import UsageError


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
