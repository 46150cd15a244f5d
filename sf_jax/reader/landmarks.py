"""Landmarks of a face by a model's own vision tower and the read-out that it was trained with."""

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from sf_jax.convert.processor import ImageProcessor
from sf_jax.face.landmarks import COUNT, Square
from sf_jax.media.crop import cut_square, to_square
from sf_jax.model import vision
from sf_jax.model.config import Config
from sf_jax.model.weights import VisionWeights
from sf_jax.sequence import images
from sf_jax.train.losses.readout import Readout, read


class Landmarks:
    """Landmarks in squares of images, by one compiled program for images of all sizes.

    One square is read at a time, so that its landmarks do not depend on what else is being read.

    Args:
      weights: the tower; head: the read-out learnt with it, of `face.landmarks`.
      processor: of the model.

    Attributes:
      side: of the squares that it reads, pixels: the largest that the model reads, as in training.
    """

    def __init__(
        self, config: Config, weights: VisionWeights, head: Readout, processor: ImageProcessor
    ):
        self._config, self._weights, self._readout = config, weights, head
        self.side = processor.largest_square
        self._program = jax.jit(self._positions)

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], square: Square
    ) -> Float[np.ndarray, "70 2"]:
        """Landmarks in pixels of the image, of the face that a square shows."""
        place = square.x, square.y, square.side, square.roll
        pixels = cut_square(image, *place, self.side)
        tokens = int(np.prod(images.token_grid(pixels, self._config.vision)))
        merged = self._config.vision.spatial_merge_size**2
        patches = images.patches_of([pixels], self._config, tokens * merged)
        found = np.asarray(self._program(self._weights, self._readout, patches)[0], np.float64)
        to_image = np.linalg.inv(np.vstack([to_square(*place, self.side), [0, 0, 1]]))
        return found * self.side @ to_image[:2, :2].T + to_image[:2, 2]

    def _positions(
        self, weights: VisionWeights, head: Readout, patches: vision.Patches
    ) -> Float[Array, "B 70 2"]:
        """In sides of the image."""
        config, dtype = self._config.vision, self._config.product_dtype
        features, deepstack = vision.forward(weights, patches, config, dtype)
        segments = vision.merged_segments(patches.segments, config)
        return read(head, features, deepstack, segments, dtype)[:, -COUNT:]
