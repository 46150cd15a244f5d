"""Dense targets: the warm-up learns, exact predictions cost nothing."""

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.model.declared import Linear, initialise
from sf_jax.sequence import images
from sf_jax.train import mesh, optimizer, step
from sf_jax.train.losses import readout
from sf_jax.train.losses.readout import DenseTargets, ReadoutConfig, WarmupBatch, WarmupWeights

CONFIG = ReadoutConfig(landmarks=3, part_classes=5, part_cells=4)
LOW = jnp.array([0.0, 0.0, -1.0])


def warmup_batch(config, pictures):
    g = np.random.default_rng(0)
    dense = DenseTargets(
        coefficients=np.array([[0.9, 0.0, 0.5], [0.1, 0.8, -0.5]], np.float32),
        known=np.ones((2, 3), np.float32),
        landmarks=g.random((2, CONFIG.landmarks, 2)).astype(np.float32),
        located=np.ones((2, CONFIG.landmarks), np.float32),
        parts=g.integers(0, CONFIG.part_classes, (2, 32, CONFIG.part_cells)),
    )
    return WarmupBatch(images.patches_of(pictures[:2], config, 32), dense)


def test_warm_up_learns_and_tells_pictures_apart(tiny_config, pictures) -> None:
    vision_config = tiny_config.vision
    bias = np.zeros((3 + CONFIG.landmarks, 2))
    head = readout.initialise_readout(vision_config, CONFIG, bias, 0)
    weights = WarmupWeights(initialise(tiny_config.declare(), 0).vision, head)
    loss = partial(
        readout.warmup_loss, low=LOW, vision_config=vision_config, config=CONFIG, dtype="float32"
    )
    rule = optimizer.build(optimizer.OptimizerConfig(3e-3, 40, 2))
    devices = mesh.make({"data": -1})
    state, take = step.create(weights, rule, devices), step.build_step(loss, rule, devices)
    batch = mesh.put(warmup_batch(tiny_config, pictures), devices)
    losses = []
    for _ in range(40):
        state, metrics = take(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.6 * losses[0]
    read = readout.predict(state.weights, batch.patches, LOW, vision_config, "float32")
    assert read[0, 0] > read[1, 0] + 0.3 and read[1, 1] > read[0, 1] + 0.3
    assert read[0, 2] > read[1, 2] + 0.3


def test_what_is_not_known_has_no_part_in_the_loss(tiny_config, pictures) -> None:
    """Neither its value nor how much there is of it."""
    batch = warmup_batch(tiny_config, pictures)
    head = readout.initialise_readout(tiny_config.vision, CONFIG, np.zeros((6, 2)), 0)
    weights = WarmupWeights(initialise(tiny_config.declare(), 0).vision, head)
    dense = batch.dense
    known, located = dense.known.copy(), dense.located.copy()
    known[0, 1] = known[1] = located[1] = 0
    parts = np.where(np.arange(32)[:, None] < 9, -1, dense.parts)
    first = replace(dense, known=known, located=located, parts=parts)
    other = replace(
        first,
        coefficients=np.where(known > 0, dense.coefficients, 0.7),
        landmarks=np.where(located[..., None] > 0, dense.landmarks, 0.1),
    )

    def loss(dense: DenseTargets) -> dict[str, float]:
        _, metrics = readout.warmup_loss(
            weights, replace(batch, dense=dense), LOW, tiny_config.vision, CONFIG, "float32"
        )
        return {name: float(value) for name, value in metrics.items()}

    assert loss(first) == loss(other)
    assert all(value > 0 for value in loss(first).values())
    whole, masked = loss(dense), loss(first)
    for name in ("bounded", "signed", "positions", "parts", "patch", "offsets"):
        assert masked[name] != whole[name]
        assert 0.3 < masked[name] / whole[name] < 3  # means, not sums
    nothing = replace(dense, known=0 * known, located=0 * located, parts=parts * 0 - 1)
    assert set(loss(nothing).values()) == {0.0}


def test_local_loss_is_zero_for_exact_positions(tiny_config, pictures) -> None:
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
    located = np.ones((2, 1), np.float32)
    targets = DenseTargets(np.zeros((2, 3)), None, jnp.asarray(landmarks), located, None)
    found = partial(
        readout._local_loss, head, jnp.zeros((2, 32, 64)), patches, targets, CONFIG, "float32"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readout, "linear", lambda *_: jnp.asarray(target))
        where, offsets = found()
    np.testing.assert_allclose([where, offsets], 0.0, atol=1e-5)
    where, offsets = found()
    np.testing.assert_allclose(where, np.log(24), rtol=1e-5)  # one of the picture's 24 patches
    assert offsets > 1
