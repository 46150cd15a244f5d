"""A model of another architecture gets everything that is made of declarations for its own tree."""

import json
import os
import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file

from sf_jax.convert import peft
from sf_jax.convert.weight_files import load_weights, save_weights
from sf_jax.model import lora
from sf_jax.model.declared import abstract, count, initialise, leaves
from sf_jax.model.lora import LoraConfig
from sf_jax.model.weights import unstack_layers
from sf_jax.train import footprint, step, trainable
from sf_jax.train import mesh as meshes
from sf_jax.train.trainable import Trainable
from tests.train.other_architectures import HIDDEN, LAYER_COUNT, MODELS, WIDTH

ADAPTER = LoraConfig(targets=r".*(q_proj|to_q|fc1|ff\.net\.0)", rank=3, alpha=6.0)


@pytest.fixture(params=MODELS, scope="module")
def model(request: pytest.FixtureRequest) -> Any:
    """Declarations, weights, the forward function and an input."""
    declared, forward, shape = MODELS[request.param]
    noise = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    return declared, initialise(declared, 7), jax.jit(forward), noise


def filled(declared: Any) -> lora.Adapter:
    """An adapter whose factors are both random."""
    adapter = lora.initialise(ADAPTER, declared, 0)
    return jax.tree.map(lambda x: x + 0.05 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), adapter)


def test_initial_values_and_shapes(model) -> None:
    declared, weights, forward, x = model
    assert jax.tree.structure(abstract(declared)) == jax.tree.structure(weights)
    shapes = [(w.shape, w.dtype) for w in jax.tree.leaves(abstract(declared))]
    assert shapes == [(w.shape, w.dtype) for w in jax.tree.leaves(weights)]
    assert count(declared) == sum(w.size for w in jax.tree.leaves(weights))
    again, other = initialise(declared, 7), initialise(declared, 8)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), weights, again)
    assert all(jax.tree.leaves(same))
    assert not np.allclose(forward(weights, x), forward(other, x))


def test_either_layout_gives_the_same(model) -> None:
    _, weights, forward, x = model
    separate = unstack_layers(weights)
    assert separate.layout == "separate" and weights.layout == "stacked"
    np.testing.assert_allclose(forward(separate, x), forward(weights, x), atol=1e-5)
    with pytest.raises(ValueError, match="are separate"):
        lora.attach(separate, filled(model[0]), model[0])


def test_sharded_as_the_axes_say() -> None:
    """Eight devices, `fsdp` of 4 and `tensor` of 2, in a process of their own."""
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.other_architectures"],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=True,
    )
    for name, found in json.loads(done.stdout.splitlines()[-1]).items():
        assert found["equal"] and 1 / 8 < found["share"] < 1 / 4, name


def test_matrices_are_sharded_and_vectors_are_whole() -> None:
    mesh = jax.sharding.AbstractMesh((1, 4, 2, 1), meshes.AXES)
    declared = MODELS["audio encoder"][0]
    sharded = meshes.of_weights(declared, mesh)
    assert sharded.blocks.q.weight.spec == P(None, "fsdp", "tensor")
    assert sharded.blocks.fc2.weight.spec == P(None, ("tensor", "fsdp"), None)
    assert sharded.position.spec == sharded.blocks.fc1.bias.spec == P()
    factors = meshes.of_adapter(LoraConfig(("fc1",), rank=4), declared, mesh)
    pair = factors.pairs["encoder.layers.{}.fc1"]
    assert pair.a.spec == P(None, "fsdp", None) and pair.b.spec == P(None, None, ("tensor", "fsdp"))


def test_adapters(model, tmp_path) -> None:
    declared, weights, forward, x = model
    base = forward(weights, x)
    fresh = lora.initialise(ADAPTER, declared, 0)
    assert np.array_equal(forward(lora.attach(weights, fresh, declared), x), base)
    adapter = filled(declared)
    attached = forward(lora.attach(weights, adapter, declared), x)
    assert np.abs(attached - base).max() > 1e-2
    merged = lora.merge(weights, adapter, declared)
    np.testing.assert_allclose(forward(merged, x), attached, atol=1e-5)
    np.testing.assert_allclose(forward(lora.unmerge(merged, adapter, declared), x), base, atol=1e-5)
    peft.save(tmp_path, adapter, declared)
    read = peft.load(tmp_path, declared)
    assert read.config == adapter.config and len(read.pairs) == 2
    np.testing.assert_allclose(forward(lora.merge(weights, read, declared), x), attached, atol=1e-5)


def test_a_step_trains_the_adapter_and_what_is_named(model) -> None:
    declared, weights, forward, x = model
    chosen = Trainable(r"conv1|proj_out", ADAPTER)
    mesh = meshes.make(devices=jax.devices()[:1])
    trained, frozen = trainable.split(weights, filled(declared), declared, chosen)
    rule = optax.sgd(0.02)
    shardings = trainable.shardings(chosen, declared, mesh)
    sharding = step.shardings(trained, rule, mesh, shardings[0], frozen, shardings[1])

    def loss(weights: Any, x: jax.Array) -> tuple[jax.Array, dict]:
        out = forward(weights, x)
        return jnp.square(out - jnp.cos(jnp.arange(out.shape[-1]))).mean(), {}

    take = step.build_step(
        loss, rule, mesh, sharding, assemble=partial(trainable.join, declared=declared)
    )
    before = jax.tree.map(np.asarray, trained)
    trained, frozen = jax.tree.map(jnp.copy, (trained, frozen))  # a step reuses the memory
    state = step.create(trained, rule, mesh, sharding, frozen)
    losses = []
    for _ in range(3):
        state, metrics = take(state, jnp.asarray(x))
        losses.append(float(metrics["loss"]))
    assert losses[2] < losses[1] < losses[0]
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, state.weights)
    assert all(change > 0 for change in jax.tree.leaves(moved))
    assert len(jax.tree.leaves(before.adapter)) == 4


def test_footprint(model) -> None:
    declared, _, _, x = model
    mesh = meshes.make(devices=jax.devices()[:1])
    shapes = jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        abstract(declared, jnp.bfloat16),
        meshes.of_weights(declared, mesh),
    )
    held = footprint.bytes_per_device(shapes)
    assert 2 * count(declared) <= held < 6 * 2 * count(declared)  # small arrays are padded
    vectors = x.shape[0] * x.shape[1]
    products = sum(np.prod(w.shape) for w in leaves(declared) if w.transposed)
    stage = footprint.ForwardStage((footprint.Part(declared, vectors, "full", ("fc2.weight",)),))
    full = footprint.operations([stage], Trainable())
    assert full.products == 6 * products * vectors and full.again > 0
    adapted = footprint.operations([stage], Trainable(None, ADAPTER))
    assert adapted.products == 4 * products * vectors
    assert footprint.operations([stage], Trainable("nothing")).products == 2 * products * vectors


@pytest.mark.parametrize("max_shard_bytes", [10**9, 20_000])
def test_files_in_hugging_face_names(model, tmp_path, max_shard_bytes) -> None:
    declared, weights, forward, x = model
    save_weights(tmp_path, declared, weights, max_shard_bytes=max_shard_bytes)
    tensors: dict[str, np.ndarray] = {}
    for file in tmp_path.glob("*.safetensors"):
        tensors |= load_file(file)
    assert sorted(tensors) == sorted(name for weight in leaves(declared) for name in weight.names)
    inputs_last = next(
        name for name in tensors if name.endswith(("1.fc1.weight", "1.ff.net.0.weight"))
    )
    assert tensors[inputs_last].shape == (HIDDEN, WIDTH)
    if "encoder.conv1.weight" in tensors:
        assert tensors["encoder.conv1.weight"].shape == (WIDTH, 8, 3)
        assert f"encoder.layers.{LAYER_COUNT - 1}.self_attn.k_proj.bias" not in tensors
    read, stored = load_weights(tmp_path, declared)
    assert dict(stored) == dict.fromkeys(tensors, "F32")
    assert np.array_equal(forward(read, x), forward(weights, x))
