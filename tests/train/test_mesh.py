"""One device and many take the same steps; how arrays lie on a mesh."""

import json
import socket
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from sf_jax.sequence.batch import Batch
from sf_jax.train import mesh as meshes
from tests import compiling

LOSSES, GRADIENTS = 5e-6, 1e-5  # float32
LOSSES_DOUBLE = 1e-10


def start(*options: str, devices: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train.on_meshes", *options],
        env=compiling.environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> dict[str, Any]:
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]
    found = json.loads(out.splitlines()[-1])
    for name, each in found.items():
        print(f"{name}: losses {each['losses']:.1e}, gradients {each['gradients']:.1e}")
        assert each["fell"] > 0.01
    return found


@pytest.mark.parametrize(
    ("trained", "names"),
    [("full", ("fsdp", "mixed")), ("full", ("tensor", "sequence")), ("both", ("all",))],
)  # fmt: skip
def test_eight_devices_take_the_steps_of_one(trained: str, names: tuple[str, ...]) -> None:
    found = finish(start("--trained", trained, "--meshes", *names, devices=8))
    assert len(found) == len(names) + (
        "mixed" in names
    )  # once more with the gradients of two parts
    for name, each in found.items():
        assert each["losses"] <= LOSSES and each["gradients"] <= GRADIENTS, name


def test_in_double_precision_they_agree_to_ten_digits() -> None:
    found = finish(start("--double", "--trained", "full", "--meshes", "all", devices=8))
    for name, each in found.items():
        assert each["losses"] <= LOSSES_DOUBLE and each["gradients"] <= LOSSES_DOUBLE, name


def test_two_processes_take_the_steps_of_one_device() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = ["--processes", "2", "--port", port, "--trained", "adapters", "--meshes", "all"]
    other = start(*shared, "--process", "1", devices=4)
    found = finish(start(*shared, "--process", "0", devices=4))
    other.communicate(timeout=60)
    for name, each in found.items():
        assert each["losses"] <= LOSSES and each["gradients"] <= GRADIENTS, name


def mesh_of(**sizes: int) -> Any:
    shape = tuple(sizes.get(axis, 1) for axis in meshes.AXES)
    return AbstractMesh(shape, meshes.AXES, axis_types=(AxisType.Auto,) * 4)


def test_rows_are_shared_by_fsdp_and_hidden_widths_by_tensor() -> None:
    mesh = mesh_of(fsdp=4, tensor=2)
    assert meshes.spec(("layer", "embed", "mlp"), (36, 64, 96), mesh) == P(None, "fsdp", "tensor")
    assert meshes.spec(("layer", "mlp", "embed"), (36, 96, 64), mesh) == P(
        None, ("tensor", "fsdp"), None
    )
    assert meshes.spec(("vocab", "embed"), (200, 64), mesh) == P(("tensor", "fsdp"), None)


def test_what_does_not_divide_rows_is_given_columns_and_else_left_whole() -> None:
    assert meshes.spec(("vocab", "embed"), (202, 64), mesh_of(fsdp=4)) == P("tensor", "fsdp")
    assert meshes.spec(("vocab", "embed"), (202, 66), mesh_of(fsdp=4)) == P("tensor", None)
    assert meshes.spec(("layer", "embed", "kv_heads"), (2, 64, 6), mesh_of(tensor=4)) == P(
        None, "fsdp", None
    )


def test_vectors_and_positions_are_whole() -> None:
    mesh = mesh_of(fsdp=4)
    assert meshes.spec(("layer", "embed"), (36, 64), mesh) == P()
    assert meshes.spec(("position", "vision"), (64, 64), mesh) == P()


@pytest.mark.parametrize(
    ("text", "sizes"),
    [("fsdp=4,tensor=2", {"fsdp": 4, "tensor": 2}), ("data=-1", {"data": -1}), ("", {})],
)
def test_meshes_are_read_from_text(text: str, sizes: dict[str, int]) -> None:
    assert meshes.parse(text) == sizes


@pytest.mark.parametrize("text", ["fsdp", "fsdp=x", "rows=2", "fsdp=2,fsdp=4", "fsdp=1.5"])
def test_other_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="AXIS=SIZE"):
        meshes.parse(text)


def test_a_mesh_that_does_not_fit_says_so() -> None:
    with pytest.raises(ValueError, match="data=1,fsdp=3,tensor=1,sequence=1 does not fit 1 device"):
        meshes.make({"fsdp": 3}, jax.devices()[:1])
    with pytest.raises(ValueError, match="does not fit"):
        meshes.make({"fsdp": -1, "data": -1}, jax.devices()[:1])


def test_rows_that_cannot_be_shared_are_refused() -> None:
    mesh = meshes.make(devices=jax.devices()[:1])
    assert meshes.own_rows(3, mesh) == [0, 1, 2]
    with pytest.raises(ValueError, match="3 rows cannot be shared among 2"):
        meshes.own_rows(3, mesh_of(data=2))


def test_a_batch_is_put_by_its_declared_axes_whichever_rows_the_host_holds() -> None:
    mesh = meshes.make(devices=jax.devices()[:1])
    ids = np.arange(8).reshape(2, 4)
    batch = Batch(ids, np.arange(24).reshape(3, 2, 4), ids, np.eye(2, 4), ids / 2)
    whole = meshes.put(batch, mesh)
    jax.tree.map(np.testing.assert_array_equal, whole, batch)
    flipped = batch.replace(
        input_ids=ids[::-1],
        positions=batch.positions[:, ::-1],
        segments=ids[::-1],
        targets=batch.targets[::-1],
        loss_weights=batch.loss_weights[::-1],
    )
    put = meshes.put(flipped, mesh, rows=[1, 0], count=2)
    jax.tree.map(np.testing.assert_array_equal, put, batch)
    # An array that nobody declares has rows first.
    held = meshes.put({"more": np.eye(2, 4)[::-1]}, mesh, rows=[1, 0], count=2)
    np.testing.assert_array_equal(held["more"], np.eye(2, 4))


def test_rows_are_shared_and_positions_along_them_where_the_mesh_divides_them() -> None:
    mesh = mesh_of(data=2, fsdp=2, sequence=4)
    rows = ("data", "fsdp")
    tokens, coordinates = ("batch", "sequence"), ("coordinate", "batch", "sequence")
    assert meshes.batch_spec(tokens, (8, 64), mesh) == P(rows, "sequence")
    assert meshes.batch_spec(tokens, (8, 63), mesh) == P(rows)
    assert meshes.batch_spec(coordinates, (3, 8, 64), mesh) == P(None, rows, "sequence")
    assert meshes.batch_spec(("batch", "patch", "corner"), (8, 64, 4), mesh) == P(rows, "sequence")
    assert meshes.batch_spec(("batch", "slot"), (8, 64), mesh) == P(rows)
