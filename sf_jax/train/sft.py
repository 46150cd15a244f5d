"""Training of whole models on packed rows, on any mesh; supervised fine-tuning and pretraining."""

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import PyTree

from sf_jax.kernels.sharded import HEADS, POSITIONS
from sf_jax.model.config import Config
from sf_jax.sequence import images
from sf_jax.sequence.batch import Batch, Capacity
from sf_jax.train.losses import supervised
from sf_jax.train.losses.supervised import SlotValues, SupervisedConfig
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.task import Task
from sf_jax.train.trainable import Trainable


@dataclass(frozen=True, eq=False)
class RowsTask(Task):
    """A task whose batches are packed rows of tokens and images.

    Attributes:
      rows: of a global batch; length: tokens a row; patches: image patches a row.
      accumulate: parts of a batch that are taken one after another.
    """

    config: Config
    rows: int
    length: int
    patches: int
    trainable: Trainable = field(default_factory=Trainable)  # type: ignore[assignment]
    optimizer: OptimizerConfig = OptimizerConfig(1e-4, 1000, kind="adamw")
    accumulate: int = 1

    @property
    def frozen_dtype(self) -> DTypeLike:  # type: ignore[override]
        return self.config.product_dtype

    @property
    def chunks(self) -> int:
        """Parts of a row whose vocabulary scores are computed one after another."""
        return 1

    @property
    def learns_slots(self) -> bool:
        """Whether slots are learnt over their allowed values."""
        return False

    def declare(self) -> Any:
        return self.config.declare()

    def capacity(self) -> Capacity:
        """Of a row; with slots where they are learnt over their allowed values."""
        return images.capacity(self.config, self.length, self.patches, self.learns_slots)

    def divisions(self, mesh: Mesh) -> list[tuple[int, int, str]]:
        text, vision = self.config.text, self.config.vision
        return [
            (mesh.shape[HEADS], text.num_attention_heads, "heads of the language model"),
            (mesh.shape[HEADS], vision.num_heads, "heads of the vision tower"),
            (mesh.shape[POSITIONS] * self.chunks, self.length, "tokens of a row"),
            (mesh.shape[POSITIONS], self.patches, "patches of a row"),
        ]

    def count(self, batch: Batch) -> dict[str, int]:
        """Images and tokens."""
        return {
            "images": int(batch.inputs[images.VISION].segments.max(1).sum()),
            "tokens": int(np.count_nonzero(batch.segments)),
        }


@dataclass(frozen=True, eq=False)
class Sft(RowsTask):
    """One run.

    Attributes:
      objective: see `losses.supervised`; values: that slots may take, where batches have slots.
    """

    objective: SupervisedConfig = SupervisedConfig()
    values: SlotValues | None = None

    @property
    def chunks(self) -> int:
        return self.objective.chunks

    @property
    def learns_slots(self) -> bool:
        return self.values is not None

    def batch_shapes(self) -> Batch:
        return self.capacity().abstract(self.rows)

    def loss(self, weights: PyTree, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        return supervised.supervised_loss(weights, batch, self.config, self.values, self.objective)
