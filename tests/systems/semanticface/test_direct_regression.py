"""Images in batches of one size give what each gives alone."""

import numpy as np

from sf_jax.reader import loading, readout
from sf_jax.systems.semanticface.direct_regression import BATCH, Regression
from sf_jax.train.losses.readout import WarmupWeights


def test_the_last_batch_is_filled_up() -> None:
    model = loading.load()
    weights = WarmupWeights(
        model.weights.vision, readout.load(loading.BUILTIN / "readout.safetensors")
    )
    generator = np.random.default_rng(0)
    images = list(generator.integers(0, 256, (BATCH + 2, 64, 64, 3), np.uint8))
    read = Regression(model.config, 16)
    found = read(weights, images)
    assert found.shape == (BATCH + 2, 61)
    for i in (0, BATCH - 1, BATCH, BATCH + 1):
        np.testing.assert_allclose(found[i], read(weights, images[i : i + 1])[0], atol=2e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert read(weights, []).shape == (0, 61)
