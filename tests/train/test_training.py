"""Steps learn, resume exactly, and survive a gradient that is not finite."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.model.declared import initialise
from sf_jax.sequence import images
from sf_jax.sequence.example import Example, assemble
from sf_jax.train import hooks, loop, mesh, optimizer, step
from sf_jax.train.losses.supervised import supervised_loss
from tests import for_tpu


def language_batch(config, pictures, seed=0):
    g = np.random.default_rng(seed)
    answers = [g.integers(20, 200, 10).tolist() for _ in range(2)]
    prompt = [1, 8] + [7] * 6 + [9]
    rows = [
        [Example.of(prompt, images.image_inserts(prompt, [picture], config), answer)]
        for picture, answer in zip(pictures[:2], answers, strict=True)
    ]
    return assemble(rows, images.capacity(config, 24, 32))


def build(loss, weights, steps=40, rate=3e-3):
    rule = optimizer.build(optimizer.OptimizerConfig(rate, steps, 2))
    devices = mesh.make({"data": -1})
    return step.create(weights, rule, devices), step.build_step(loss, rule, devices), devices


def test_language_loss_falls_and_looks_at_weights_only_where_asked(tiny_config, pictures) -> None:
    loss = partial(supervised_loss, architecture=tiny_config)
    state, take, devices = build(loss, initialise(tiny_config.declare(), 0))
    batch = language_batch(tiny_config, pictures)
    losses = []
    for _ in range(30):
        state, metrics = take(state, mesh.put(batch, devices))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    # Targets without weight do not matter.
    changed = batch.replace(targets=np.where(batch.loss_weights == 0, 5, batch.targets))
    value = partial(supervised_loss, state.weights, architecture=tiny_config)
    assert float(value(batch)[0]) == float(value(changed)[0])


def test_a_gradient_that_is_not_finite_changes_nothing(tiny_config, pictures) -> None:
    loss = partial(supervised_loss, architecture=tiny_config)
    state, take, devices = build(loss, initialise(tiny_config.declare(), 0))
    before = jax.device_get(state.weights)
    batch = language_batch(tiny_config, pictures)
    patches = batch.inputs["vision"]
    batch.inputs["vision"] = patches.replace(pixels=np.full_like(patches.pixels, np.nan))
    state, metrics = take(state, mesh.put(batch, devices))
    assert float(metrics["skipped"]) == 1 and int(state.step) == 1
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(state.weights))


class Counting:
    """Batches that depend on their number only."""

    def __init__(self, config, pictures, stop_at=None):
        self.number, self.stop_at = 0, stop_at
        self.make = partial(language_batch, config, pictures)

    def __next__(self):
        if self.number == self.stop_at:
            raise KeyboardInterrupt
        self.number += 1
        return self.make(seed=self.number)

    def get_state(self):
        return {"number": self.number}

    def set_state(self, state):
        self.number = state["number"]


def test_stopped_and_resumed_equals_uninterrupted(tiny_config, pictures, tmp_path) -> None:
    loss = partial(supervised_loss, architecture=tiny_config)

    def train(folder, stop_at=None):
        state, take, devices = build(loss, initialise(tiny_config.declare(), 0), steps=8)
        batches = Counting(tiny_config, pictures, stop_at)
        return loop.run(
            state,
            take,
            batches,
            devices,
            loop.LoopConfig(8, save_every=3),
            tmp_path / folder,
            hooks=hooks.standard(hooks.HookConfig(), lambda batch: {"images": 2}),
        )

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("stopped", stop_at=5)
    resumed = train("stopped")
    assert int(resumed.step) == 8
    jax.tree.map(np.testing.assert_array_equal, whole.weights, resumed.weights)


def test_matrices_go_to_muon_and_the_rest_to_adam(tiny_config) -> None:
    weights = initialise(tiny_config.declare(), 0)
    rule = optimizer.build(optimizer.OptimizerConfig(1.0, 10, 0, weight_decay=0.0, clip=1e9))
    g = np.random.default_rng(0)
    gradient = jax.tree.map(lambda x: jnp.asarray(g.normal(size=x.shape), jnp.float32), weights)
    updates, _ = rule.update(gradient, rule.init(weights), weights)
    # Muon's update of one layer is close to orthogonal: its singular values are all alike.
    layer = np.asarray(updates.text.layers.q.weight[0])
    values = np.linalg.svd(layer, compute_uv=False)
    assert values.max() / values.min() < 2.5
    # Adam's first update has one size everywhere.
    table = np.abs(np.asarray(updates.text.embed))
    np.testing.assert_allclose(table, table.mean(), rtol=1e-3)


@pytest.fixture(scope="module")
def on_four_chips() -> dict:
    return for_tpu.compiled("tests.train.compile_for_tpu")


def test_a_step_on_four_tpu_chips_attends_by_kernels_and_never_asks_the_host(on_four_chips) -> None:
    for axes, found in on_four_chips.items():
        assert found["kernels"] == ["attention_backward", "attention_forward"], axes
        assert found["host_transfers"] == 0 and not found["unknown_loops"], axes


def test_chips_share_only_gradients_along_data_and_gather_weights_along_fsdp(on_four_chips) -> None:
    assert set(on_four_chips["data=4"]["largest"]) == {"all-reduce"}
    moved = on_four_chips["fsdp=4"]["largest"]
    assert moved["reduce-scatter"] > 10 * moved["all-reduce"]  # gradients, each to its own part


def test_a_deeper_model_is_no_longer_a_program(on_four_chips) -> None:
    shallow, deep = (on_four_chips[name]["instructions"] for name in ("fsdp=4", "deeper"))
    assert abs(deep - shallow) < 0.02 * shallow
