"""Direct regression: coefficients by a read-out on the vision tower, without a language model."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from sf_jax.face import channels
from sf_jax.model.config import Config
from sf_jax.sequence import images as image_inputs
from sf_jax.train.losses import readout
from sf_jax.train.losses.readout import WarmupWeights

BATCH = 50  # images read at a time


class Regression:
    """Reads images with the weights of a tower and its read-out.

    Args:
      patches: of the largest image.
      dtype: of products.
    """

    def __init__(self, config: Config, patches: int, dtype: str = "float32"):
        low = jnp.asarray(channels.LOW)
        self._config, self._patches = config, patches
        self._predict = jax.jit(
            lambda weights, given: readout.predict(weights, given, low, config.vision, dtype)
        )

    def __call__(
        self, weights: WarmupWeights, images: Sequence[UInt8[np.ndarray, "H W 3"]]
    ) -> Float32[np.ndarray, "N 61"]:
        """The coefficients of images, each as large as the model reads it."""
        found = np.zeros((len(images), len(channels.NAMES)), np.float32)
        batch = min(BATCH, len(images))  # one shape, one program
        for start in range(0, len(images), BATCH):
            part = list(images[start : start + BATCH])
            filled = part + part[-1:] * (batch - len(part))
            given = image_inputs.patches_of(filled, self._config, self._patches)
            found[start : start + BATCH] = np.asarray(self._predict(weights, given))[: len(part)]
        return found
