"""Steps learn, resume exactly, and survive a gradient that is not finite."""

import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.model.declared import Linear, initialise
from sf_jax.sequence import images
from sf_jax.sequence.example import Example, assemble
from sf_jax.train import hooks, loop, mesh, optimizer, step
from sf_jax.train.losses import readout as warmup
from sf_jax.train.losses import supervised as objective
from tests import for_tpu

CLASSES, CELLS, LANDMARKS = 5, 4, 3
LOW = jnp.array([0.0, 0.0, -1.0])


def language_batch(config, pictures, seed=0):
    g = np.random.default_rng(seed)
    answers = [g.integers(20, 200, 10).tolist() for _ in range(2)]
    prompt = [1, 8] + [7] * 6 + [9]
    rows = [
        [Example.of(prompt, images.image_inserts(prompt, [picture], config), answer)]
        for picture, answer in zip(pictures[:2], answers, strict=True)
    ]
    return assemble(rows, images.capacity(config, 24, 32))


def warmup_batch(config, pictures):
    g = np.random.default_rng(0)
    return {
        "patches": images.patches_of(pictures[:2], config, 32),
        "coefficients": np.array([[0.9, 0.0, 0.5], [0.1, 0.8, -0.5]], np.float32),
        "landmarks": g.random((2, LANDMARKS, 2)).astype(np.float32),
        "parts": g.integers(0, CLASSES, (2, 32, CELLS)),
        "dense": np.ones(2, np.float32),
    }


def build(loss, weights, steps=40, rate=3e-3):
    rule = optimizer.build(optimizer.OptimizerConfig(rate, steps, 2))
    devices = mesh.make({"data": -1})
    return step.create(weights, rule, devices), step.build_step(loss, rule, devices), devices


def test_warm_up_learns_and_tells_pictures_apart(tiny_config, pictures) -> None:
    vision_config = tiny_config.vision
    bias = np.zeros((3 + LANDMARKS, 2))
    readout = warmup.initialise_readout(vision_config, LANDMARKS, CELLS * CLASSES, bias, 0)
    weights = warmup.WarmupWeights(initialise(tiny_config.declare(), 0).vision, readout)
    loss = partial(warmup.loss, low=LOW, config=vision_config, classes=CLASSES, dtype="float32")
    state, take, devices = build(loss, weights)
    batch = mesh.put(warmup_batch(tiny_config, pictures), devices)
    losses = []
    for _ in range(40):
        state, metrics = take(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.6 * losses[0]
    read = warmup.predict(state.weights, batch["patches"], LOW, vision_config, "float32")
    assert read[0, 0] > read[1, 0] + 0.3 and read[1, 1] > read[0, 1] + 0.3
    assert read[0, 2] > read[1, 2] + 0.3


def test_language_loss_falls_and_looks_at_weights_only_where_asked(tiny_config, pictures) -> None:
    loss = partial(objective.supervised_loss, config=tiny_config)
    state, take, devices = build(loss, initialise(tiny_config.declare(), 0))
    batch = language_batch(tiny_config, pictures)
    losses = []
    for _ in range(30):
        state, metrics = take(state, mesh.put(batch, devices))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    # Targets without weight do not matter.
    changed = batch.replace(targets=np.where(batch.loss_weights == 0, 5, batch.targets))
    value = partial(objective.supervised_loss, state.weights, config=tiny_config)
    assert float(value(batch)[0]) == float(value(changed)[0])


VALUES = objective.Values(
    ids=np.array([3, 4, 5, 6, 7]), numbers=np.array([-0.5, 0.0, 0.5, 1.0, 1.5], np.float32),
    allowed=np.array([[True] * 4 + [False], [False] + [True] * 4]), step=0.5,
)  # fmt: skip


def scores_as_states(scores):
    """A text model whose head gives `scores` [B, C, U] for the values, and its states."""
    width = scores.shape[-1]
    head = np.zeros((width, 10), np.float32)
    head[np.arange(width), VALUES.ids] = 1.0
    weights = types.SimpleNamespace(head=jnp.asarray(head), embed=None)
    return weights, jnp.asarray(scores, jnp.float32)


def test_a_number_between_two_values_is_shared_between_them() -> None:
    numbers = jnp.array([[0.4, 1.0]])  # 0.2 · 0.0 + 0.8 · 0.5, and 1.0 itself
    shares = np.array([[[0, 0.2, 0.8, 0, 0.9], [0.9, 0, 0, 1, 0]]])  # 0.9 where it is not allowed
    weights, seen = scores_as_states(np.log(shares + 1e-12))
    slots = jnp.array([[0, 1]])
    entropy, squares, _ = objective.slot_loss(weights, seen, slots, numbers, VALUES, "float32")
    least = -(0.2 * np.log(0.2) + 0.8 * np.log(0.8)) / 2
    np.testing.assert_allclose(entropy, least, rtol=1e-4)
    np.testing.assert_allclose(squares, 0.0, atol=1e-9)
    worse, _, _ = objective.slot_loss(
        weights, seen, slots, jnp.array([[0.3, 1.0]]), VALUES, "float32"
    )
    assert worse > entropy


def test_numbers_beyond_a_slots_range_count_as_its_end() -> None:
    weights, seen = scores_as_states(np.zeros((1, 2, 5)))
    slots = jnp.array([[0, 1]])
    far, end = (
        objective.slot_loss(weights, seen, slots, jnp.array([x]), VALUES, "float32")[:2]
        for x in ([-3.0, 9.0], [-0.5, 1.5])
    )
    assert far == end and np.isfinite(far).all()


def test_local_loss_is_zero_for_exact_places(tiny_config, pictures) -> None:
    patches = images.patches_of(pictures[:2], tiny_config, 32)
    # The first picture is 4 x 6 patches; a landmark in its third row, second column.
    landmarks = np.array([[[1.25 / 6, 2.75 / 4]], [[5.0, 5.0]]], np.float32)
    target = np.zeros((2, 32, 3), np.float32)
    target[..., 0] = -30.0
    for row in range(2):
        sides = (6, 4) if row == 0 else (4, 6)
        for patch in range(24):
            x, y = patches.columns[row, patch], patches.rows[row, patch]
            target[row, patch, 1:] = landmarks[row, 0] * sides - [x + 0.5, y + 0.5]
            if (x, y) == (1, 2) and row == 0:
                target[row, patch, 0] = 30.0
    head = Linear(jnp.zeros((64, 3)), jnp.zeros(3))
    batch = {"patches": patches, "landmarks": jnp.asarray(landmarks)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warmup, "linear", lambda *_: jnp.asarray(target))
        where, offsets = warmup._local_loss(head, jnp.zeros((2, 32, 64)), batch, "float32")
    np.testing.assert_allclose([where, offsets], 0.0, atol=1e-5)
    where, offsets = warmup._local_loss(head, jnp.zeros((2, 32, 64)), batch, "float32")
    np.testing.assert_allclose(where, np.log(24), rtol=1e-5)  # one of the picture's 24 patches
    assert offsets > 1


def test_a_gradient_that_is_not_finite_changes_nothing(tiny_config, pictures) -> None:
    loss = partial(objective.supervised_loss, config=tiny_config)
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
    loss = partial(objective.supervised_loss, config=tiny_config)

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
