"""The model's mechanisms, checked without a reference implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.model import text, vision
from sf_jax.model.declared import abstract, initialise
from sf_jax.model.inserts import embed
from sf_jax.model.weights import unstack_layers
from sf_jax.sequence import images
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.forward import forward


@pytest.fixture(scope="module")
def example(tiny_config, pictures):
    """One picture and some text a row."""
    prompt = [1, 2, 8] + [7] * 6 + [9]
    rows = [
        [Example.of(prompt, images.image_inserts(prompt, [picture], tiny_config), [11, 12, 13, 14])]
        for picture in pictures[:2]
    ]
    return assemble(rows, images.capacity(tiny_config, len(prompt) + 4, 32))


def run(config, weights, batch):
    return text.logits(weights.text, forward(weights, batch, config)[0])


def test_text_is_causal(tiny_config, tiny_weights, example) -> None:
    changed = example.input_ids.copy()
    changed[:, -1] = 42
    before = run(tiny_config, tiny_weights, example)
    after = run(tiny_config, tiny_weights, example.replace(input_ids=changed))
    np.testing.assert_allclose(before[:, :-1], after[:, :-1], atol=1e-6)
    assert np.abs(np.asarray(before[:, -1] - after[:, -1])).max() > 1e-3


def test_pictures_of_a_batch_and_padding_do_not_mix(tiny_config, tiny_weights, pictures) -> None:
    together = images.patches_of(pictures, tiny_config, 40)
    features, levels = vision.forward(tiny_weights.vision, together, tiny_config.vision)
    for i, picture in enumerate(pictures):
        count = picture.shape[0] * picture.shape[1] // 16**2
        alone = images.patches_of([picture], tiny_config, count)
        single, single_levels = vision.forward(tiny_weights.vision, alone, tiny_config.vision)
        np.testing.assert_allclose(features[i, : count // 4], single[0], atol=2e-5)
        np.testing.assert_allclose(levels[:, i, : count // 4], single_levels[:, 0], atol=2e-5)


def test_a_cache_changes_nothing_stacked_or_not(tiny_config, tiny_weights, example) -> None:
    whole, _ = forward(tiny_weights, example, tiny_config)
    ids, positions = example.input_ids, example.positions
    inserts = tiny_config.encode(tiny_weights, example.inputs)
    for weights in (tiny_weights, unstack_layers(tiny_weights)):
        layout = weights.text.layout
        embedded, placed = embed(weights.text, ids, inserts)
        cache = text.empty_cache(tiny_config.text, 2, 24, jnp.float32, layout)
        parts = []
        for chunk in (slice(0, 11), slice(11, ids.shape[1])):
            states, cache = text.forward(
                weights.text,
                embedded[:, chunk],
                positions[:, :, chunk],
                tiny_config.text,
                segments=jnp.ones((2, embedded[:, chunk].shape[1]), jnp.int32),
                cache=cache,
                levels=placed[:, :, chunk],
            )
            parts.append(states)
        np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, atol=2e-5)


@pytest.mark.parametrize("mutant", ["deepstack", "rows and columns", "position grid", "merger"])
def test_every_mechanism_of_vision_matters(tiny_config, tiny_weights, example, mutant) -> None:
    """Taking a mechanism out changes the answer by far more than rounding."""
    weights, batch = tiny_weights, example
    patches = example.inputs["vision"]
    if mutant == "deepstack":
        zeroed = jax.tree.map(jnp.zeros_like, weights.vision.deepstack)
        weights = weights.replace(vision=weights.vision.replace(deepstack=zeroed))
    elif mutant == "rows and columns":
        swapped = patches.replace(rows=patches.columns, columns=patches.rows)
        batch = batch.replace(inputs={"vision": swapped})
    elif mutant == "position grid":
        flipped = patches.replace(position_ids=patches.position_ids[:, ::-1])
        batch = batch.replace(inputs={"vision": flipped})
    else:
        batch = batch.replace(positions=batch.positions[[0, 2, 1]])
    normal = run(tiny_config, tiny_weights, example)
    changed = run(tiny_config, weights, batch)
    assert np.abs(np.asarray(normal - changed)).max() > 1e-3


def test_declaration_agrees_with_initial_values(tiny_config) -> None:
    shapes = jax.tree.map(lambda x: x.shape, abstract(tiny_config.declare()))
    assert shapes == jax.tree.map(lambda x: x.shape, initialise(tiny_config.declare(), 0))


def test_patchify_order() -> None:
    """The four patches of a merged token adjoin, and each patch is channel, time, row, column."""
    image = np.zeros((32, 64, 3), np.uint8)
    image[16:, 32:48, 1] = 255  # lower left patch of the second token, green
    patches = vision.patchify(image)
    bright = (patches > 0).any(-1)
    assert bright.tolist() == [False] * 6 + [True, False]
    by_channel = patches[6].reshape(3, 2, 16, 16)
    assert (by_channel[1] == 1).all() and (by_channel[[0, 2]] == -1).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_halves_are_exchanged_alike_on_every_platform(dtype):
    x = jax.random.normal(jax.random.key(0), (3, 5, 72)).astype(dtype)
    halves, product = vision._rotated(x), vision._rotated_by_product(x)
    np.testing.assert_array_equal(halves, jnp.concatenate([-x[..., 36:], x[..., :36]], -1))
    np.testing.assert_array_equal(product, halves)
    programs = {
        platform: jax.export.export(jax.jit(vision.rotate_half), platforms=[platform])(x)
        for platform in ("cpu", "tpu")
    }
    assert ["dot_general" in programs[p].mlir_module() for p in programs] == [False, True]
