"""Held-out faces, read inside a run by constrained decoding."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sf_jax.face import metrics
from sf_jax.kernels.sharded import ROWS
from sf_jax.model.config import Config
from sf_jax.reader import estimator
from sf_jax.reader.training import on_host
from sf_jax.train.forward_weights import in_product_dtype


class HeldOut:
    """Faces to read, rationale first; weights keep their sharding, in the precision of products."""

    def __init__(self, records: Sequence[dict[str, Any]], batch: int = 16):
        """`batch`: faces read at a time, rounded up to a multiple of what shares rows."""
        self.batch = batch
        self.images = [np.asarray(record["image"]) for record in records]
        self.labels = np.stack([record["coefficients"] for record in records])
        self.known = np.stack([record["known"] for record in records])

    def scores(
        self,
        config: Config,
        weights: Any,
        model_of: Callable[[Config, Any], estimator.Model],
        mesh: Mesh,
    ) -> dict[str, float]:
        """Mean absolute error and correlation of slot means over the 52 blendshapes.

        Args:
          model_of: (config, weights) → the model that reads with them.
        """
        shared = math.prod(mesh.shape[axis] for axis in ROWS)
        batch = -(-self.batch // shared) * shared
        weights = jax.jit(partial(in_product_dtype, dtype=config.product_dtype))(weights)
        means = []
        with jax.set_mesh(mesh):
            model = model_of(config, weights)
            for start in range(0, len(self.images), batch):
                part = self.images[start : start + batch]
                filled = part + part[-1:] * (batch - len(part))
                found = on_host(model.generate(*model.inputs(filled)))
                means += [a.coefficients for a in model.actions(found, True)][: len(part)]
        found = metrics.evaluate(np.stack(means), self.labels, self.known).summary()
        return {name: float(found[name]) for name in ("mae_52", "r_52")}
