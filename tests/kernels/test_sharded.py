"""Attention over a mesh of virtual devices equals one device; only keys and values move."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh

from sf_jax.kernels import attention
from tests import compiling, for_tpu
from tests.kernels import cases

LABELS = [
    "data and fsdp, ring", "tensor, ring", "more devices than key heads, ring",
    "sequence, ring", "sequence, gathered", "all, ring", "all, gathered",
]  # fmt: skip
KEYS = 4 * 64 * 4 * 16  # elements of k or v; q has twice as many


@pytest.fixture(scope="module")
def found() -> dict:
    """A process of its own, because the number of devices is fixed when JAX starts."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.on_a_mesh"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env=compiling.environment(devices=8),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("label", LABELS)
def test_values_and_gradients_are_those_of_one_device(found, label) -> None:
    for case, errors in found[label]["errors"].items():
        for tensor, error in errors.items():
            limit = cases.GRADIENT if tensor.startswith("d_") else cases.FORWARD
            assert error <= limit["float32"], (case, tensor, error)


def assert_only_keys_move(label: str, moved: dict[str, list[int]], keys: int) -> None:
    """And along the sequence alone; `keys` is the number of elements of k."""
    sums = {kind: sizes for kind, sizes in moved.items() if kind != "all-reduce"}
    if label.startswith(("data", "tensor", "more")):
        assert not sums  # of any size: rows and heads are independent
    elif label.endswith("ring"):
        assert set(sums) == {"collective-permute"}
        assert max(sums["collective-permute"]) <= keys / 8
    else:
        devices = 1 if label.startswith("sequence") else 4  # that share rows and heads
        assert set(sums) <= {"all-gather", "reduce-scatter"}
        assert max(sums["all-gather"]) == keys / devices


@pytest.mark.parametrize("label", LABELS)
def test_only_keys_and_values_move_along_the_sequence(found, label) -> None:
    assert_only_keys_move(label, found[label]["collectives"], KEYS)


def test_kernels_on_eight_tpu_chips() -> None:
    found = for_tpu.compiled("tests.kernels.compile_on_a_mesh_for_tpu")
    for label in LABELS:
        assert found[label]["kernels"] == ["attention_backward", "attention_forward"]
        assert_only_keys_move(label, found[label]["collectives"], 4 * 1024 * 4 * 128)


def test_what_cannot_be_sharded_is_refused() -> None:
    mesh = Mesh(jax.devices()[:1], ("tensor",))
    q, k = jnp.zeros((3, 4, 6, 8)), jnp.zeros((3, 4, 3, 8))
    assert attention(q, k, k, mesh=mesh).shape == q.shape
    with pytest.raises(ValueError, match="6 query heads cannot be split among 4"):
        attention(q, k, k, mesh=jax.sharding.AbstractMesh((4,), ("tensor",)))
    with pytest.raises(ValueError, match="3 key heads and 2 devices"):
        attention(q, k, k, mesh=jax.sharding.AbstractMesh((2,), ("tensor",)))
