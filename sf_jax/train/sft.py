"""Supervised fine-tuning and pretraining of whole models: what one run is, on any mesh.

Weights that are trained are float32, with float32 AdamW moments; products are taken in the
precision of `Config.product_dtype`, frozen weights are stored in it.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sf_jax.kernels.sharded import HEADS, POSITIONS, ROWS
from sf_jax.model import lora
from sf_jax.model.config import Config
from sf_jax.sequence import images
from sf_jax.sequence.batch import Batch
from sf_jax.train import mesh as meshes
from sf_jax.train import step, trainable
from sf_jax.train.losses import supervised as objective
from sf_jax.train.optimizer import OptimizerConfig, build
from sf_jax.train.step import TrainState
from sf_jax.train.trainable import Trainable


@dataclass(frozen=True)
class Sft:
    """One run.

    Attributes:
      rows: of a global batch; length: tokens a row; patches: picture patches a row.
      accumulate: parts of a batch that are taken one after another.
      chunks: parts of a row whose vocabulary scores are computed one after another.
      z_loss: see `objective.supervised_loss`.
    """

    config: Config
    rows: int
    length: int
    patches: int
    trainable: Trainable = field(default_factory=Trainable)
    optimizer: OptimizerConfig = OptimizerConfig(1e-4, 1000, kind="adamw")
    accumulate: int = 1
    chunks: int = 1
    z_loss: float = 0.0

    def check(self, mesh: Mesh) -> None:
        """Raises ValueError where the mesh does not divide what it is to share."""
        text, vision = self.config.text, self.config.vision
        rows = math.prod(mesh.shape[axis] for axis in ROWS)
        for parts, count, what in (
            (rows * self.accumulate, self.rows, "rows of a batch"),
            (mesh.shape[HEADS], text.num_attention_heads, "heads of the language model"),
            (mesh.shape[HEADS], vision.num_heads, "heads of the vision tower"),
            (mesh.shape[POSITIONS] * self.chunks, self.length, "tokens of a row"),
            (mesh.shape[POSITIONS], self.patches, "patches of a row"),
        ):
            if count % parts:
                said = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1)
                raise ValueError(f"{count} {what} cannot be shared among {parts} ({said})")

    def shardings(self, mesh: Mesh) -> TrainState:
        """How the train state lies on a mesh."""
        trained, frozen = trainable.abstract(self.trainable, self.config.declare())
        of_trained, of_frozen = trainable.shardings(self.trainable, self.config.declare(), mesh)
        rule = build(self.optimizer)
        return step.shardings(trained, rule, mesh, of_trained, frozen, of_frozen)

    def abstract_state(self, mesh: Mesh) -> TrainState:
        """The train state as `jax.ShapeDtypeStruct`s that say how it lies; no memory."""
        trained, frozen = trainable.abstract(
            self.trainable, self.config.declare(), self.config.product_dtype
        )
        started = jax.eval_shape(build(self.optimizer).init, trained)
        state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), trained, started, frozen)
        return jax.tree.map(_lying, state, self.shardings(mesh))

    def abstract_batch(self, mesh: Mesh) -> Batch:
        """A batch as `jax.ShapeDtypeStruct`s with their shardings."""
        batch = images.capacity(self.config, self.length, self.patches).abstract(self.rows)
        return jax.tree.map(_lying, batch, meshes.batch_shardings(batch, mesh))

    def loss(self, weights: Any, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """`objective.supervised_loss` of a batch, as this run has it."""
        return objective.supervised_loss(weights, batch, self.config, self.chunks, self.z_loss)

    def build_step(self, mesh: Mesh) -> Any:
        """The jitted step of `step.build_step`."""
        return step.build_step(
            self.loss,
            build(self.optimizer),
            mesh,
            self.shardings(mesh),
            accumulate=self.accumulate,
            assemble=partial(trainable.join, declared=self.config.declare()),
        )

    def create(
        self, weights: Any, mesh: Mesh, seed: int = 0, dtype: Any = np.float32
    ) -> TrainState:
        """A fresh state from all weights of a model, arrays on the host or on the mesh.

        Trained ones become `dtype`, frozen ones take the precision of products. An adapter is drawn
        by `seed`.
        """
        adapter = None
        if self.trainable.adapter is not None:
            adapter = lora.initialise(self.trainable.adapter, self.config.declare(), seed)
        trained, frozen = trainable.split(weights, adapter, self.config.declare(), self.trainable)
        trained = jax.tree.map(lambda x: x.astype(dtype), trained)
        frozen = jax.tree.map(lambda x: x.astype(self.config.product_dtype), frozen)
        rule, lies = build(self.optimizer), self.shardings(mesh)
        return step.create(trained, rule, mesh, lies, frozen)


def _lying(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
