"""Supervised fine-tuning on face records, and pretraining from scratch, on packed rows."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from data_pipelines.loader import ShuffledRecords
from data_pipelines.mixed_records import MixedRecords
from sf_jax.kernels.sharded import ROWS
from sf_jax.model.config import Config
from sf_jax.model.sizes import QWEN3_VL
from sf_jax.reader import estimator, loading, training
from sf_jax.reader.schema import require_all_channels
from sf_jax.sequence.example import Example
from sf_jax.sequence.packing import PackedBatches
from sf_jax.systems.semanticface.examples import ChatExamples, FaceExamples
from sf_jax.systems.semanticface.held_out import HeldOut
from sf_jax.systems.semanticface.sequences import SequenceConfig, Sequences
from sf_jax.train import mesh as meshes
from sf_jax.train import processes
from sf_jax.train.losses.supervised import SupervisedConfig
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.sft import Sft
from sf_jax.train.step import TrainState
from sf_jax.train.task import Feed
from sf_jax.train.trainable import Trainable


@dataclass(frozen=True)
class Recipe:
    """One fine-tuning.

    Attributes:
      size: of the model: a key of `model.sizes.QWEN3_VL`, or "builtin".
      topology: the slice of TPUs that it is sized for; mesh: how these chips are shared out.
      rows: of a global batch; length: tokens a row; patches: image patches a row.
      objective, sequences: the loss, and how examples of the built-in kind are made.
      accumulate: parts of a batch taken one after another; 0: as many as leave a device two rows.
      remat, product_dtype, unrolled: see `Config`.
      scratch: starts from fresh weights.
      pool: pending examples from which a row is packed.
    """

    size: str
    topology: str
    mesh: dict[str, int]
    rows: int
    trainable: Trainable = field(default_factory=Trainable)
    optimizer: OptimizerConfig = OptimizerConfig(1e-5, 2000, 100, kind="adamw")
    length: int = 2048
    patches: int = 4096
    objective: SupervisedConfig = SupervisedConfig(chunks=8)
    sequences: SequenceConfig = SequenceConfig()
    accumulate: int = 1
    remat: str = "full"
    product_dtype: str = "bfloat16"
    unrolled: bool = False
    scratch: bool = False
    pool: int = 32

    def sft(self, config: Config, mesh: Mesh, **options: Any) -> "FaceSft":
        """The task of this recipe on a mesh, for a model of this configuration."""
        config = replace(
            config,
            product_dtype=self.product_dtype,
            vision_remat=self.remat,
            text_remat=self.remat,
            unrolled=self.unrolled,
        )
        accumulate = self.accumulate
        if not accumulate:
            each = self.rows // math.prod(mesh.shape[axis] for axis in ROWS)
            accumulate = next(n for n in range(max(each // 2, 1), 0, -1) if each % n == 0)
        return FaceSft(
            config,
            self.rows,
            self.length,
            self.patches,
            self.trainable,
            self.optimizer,
            accumulate,
            self.objective,
            **options,
        )


@dataclass(frozen=True, eq=False)
class FaceSft(Sft):
    """Fine-tuning of a model that reads faces.

    Attributes:
      source: the model directory that it starts from.
      held_out: faces to evaluate on.
    """

    source: Path = loading.BUILTIN
    held_out: HeldOut | None = None

    def evaluate(self, state: TrainState, mesh: Mesh) -> dict[str, float]:
        """Scores on the held-out faces."""
        if self.held_out is None:
            return {}
        weights = self.join(state.weights, state.frozen)
        inputs = loading.load_inputs(self.source, self.config)
        model = partial(
            estimator.Model,
            tokenizer=inputs[0],
            processor=inputs[1],
            schema=loading.load_schema(self.source),
            instructed=loading.is_instructed(self.source),
        )
        return self.held_out.scores(self.config, weights, model, mesh)

    def export(self, state: TrainState, directory: Path) -> None:
        """Writes what was trained: an adapter in PEFT's layout, or a model directory, or both."""
        training.export(self, state, directory)


def config_of(size: str) -> Config:
    """The configuration of a size by name, without a checkpoint."""
    return training.config_in(loading.BUILTIN) if size == "builtin" else QWEN3_VL[size]


def check_size(recipe: Recipe, config: Config, directory: Path) -> None:
    """Raises ValueError where a model directory is not of the recipe's size."""

    def sides(config: Config) -> tuple[int, ...]:
        text = config.text
        return text.hidden_size, text.num_hidden_layers, text.intermediate_size, text.vocab_size

    if sides(config) != sides(config_of(recipe.size)):
        raise ValueError(
            f"{directory / 'config.json'}: the model is not of the recipe's size, {recipe.size}"
        )


def task_of(
    recipe: Recipe, directory: Path, mesh: Mesh, held_out: HeldOut | None = None
) -> FaceSft:
    """The task of a recipe for the model in a directory, slots over their allowed values.

    Raises:
      SchemaFileError: the model does not read all channels, which face records have.
    """
    require_all_channels(loading.load_schema(directory), directory, "training on face records")
    config = training.config_in(directory)
    return recipe.sft(
        config,
        mesh,
        values=training.values_of(directory, config),
        source=directory,
        held_out=held_out,
    )


def examples_of(
    sft: FaceSft, recipe: Recipe, records: ShuffledRecords | MixedRecords, seed: int
) -> Callable[[int], Example]:
    """Example number → example, for the tokenizer of the model.

    Slots are learnt over their allowed values where `sft.values` are given, else as tokens.
    """
    tokenizer, processor = loading.load_inputs(sft.source, sft.config)
    if loading.is_instructed(sft.source):
        decimals = loading.load_schema(sft.source).decimals
        return ChatExamples(records, sft.config, tokenizer, processor, decimals=decimals)
    limit = processor.max_pixels // processor.patch_size**2
    options = replace(recipe.sequences, slots=sft.values is not None)
    schema = loading.load_schema(sft.source)
    sequences = Sequences(sft.config, tokenizer, schema, options, limit)
    return FaceExamples(records, sequences, seed)


def _records(data: Path | Mapping[Path, float], seed: int) -> ShuffledRecords | MixedRecords:
    if isinstance(data, Mapping):
        return MixedRecords(data, seed)
    return ShuffledRecords(data, seed)


def feed_of(
    sft: FaceSft, recipe: Recipe, data: Path | Mapping[Path, float], mesh: Mesh, seed: int
) -> tuple[PackedBatches, Feed]:
    """Packed rows of the records in `data`, those that this process has devices for.

    Args:
      data: a folder of records, or several with their shares.

    Raises:
      DataError, OSError: files cannot be read by this process, or by another.
    """
    records = processes.together(lambda: _records(data, seed))
    batches = PackedBatches(
        examples_of(sft, recipe, records, seed),
        sft.capacity(),
        row_count=sft.rows,
        rows=meshes.own_rows(sft.rows, mesh),
        pool=recipe.pool,
    )
    fingerprint = processes.together(
        lambda: records.fingerprint(
            rows=sft.rows, length=sft.length, patches=sft.patches, pool=recipe.pool
        ).with_model(sft.source, training.model_files(sft.source, weights=not recipe.scratch))
    )
    return batches, Feed(
        batches, batches.rows, lambda: batches.examples, records.locations, fingerprint
    )
