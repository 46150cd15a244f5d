"""Training on judged pairs: from a model directory to one whose faces are preferred."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sf_jax.convert import checksums, hf
from sf_jax.media import hashes, locks
from sf_jax.model.architecture import ModelWeights
from sf_jax.model.config import Config
from sf_jax.reader import training
from sf_jax.reader.training import MODEL
from sf_jax.sequence.packing import PackedBatches
from sf_jax.systems.superface import prediction, reference
from sf_jax.systems.superface.examples import PairGroups
from sf_jax.train import mesh as meshes
from sf_jax.train.fingerprint import FileFingerprint, Fingerprint
from sf_jax.train.groups import Group, GroupBatch, Room
from sf_jax.train.hooks import HookConfig
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.preference import (
    Dpo,
    Objective,
    PreferenceTask,
)
from sf_jax.train.step import TrainState
from sf_jax.train.task import Feed, RunConfig, Task, run
from sf_jax.train.trainable import Trainable

# Settings of a recipe that a run may change on its way: what is learnt stays the same.
FREE = ("accumulate", "chunks", "remat", "unrolled", "merged", "save_every", "accept_changed_data")


@dataclass(frozen=True)
class PairRecipe:
    """How a model is trained on judged pairs, whatever it learns of them.

    Attributes:
      trainable: full weights, or adapters beside frozen ones.
      learning_rate: at the peak; warmup: share of the steps in which it rises.
      epochs: how often each pair is seen.
      rows: of a global batch; groups: pairs in a row of the largest images; accumulate: parts of a
        batch that are taken one after another; chunks: of a row's vocabulary scores.
      product_dtype, remat, unrolled: see `Config`.
      seed: of the order of pairs, and of what is drawn at the start.
      accept_changed_data: resumes a run of other pairs, another model or another recipe, which is
        refused else.
    """

    trainable: Trainable = field(default_factory=Trainable)
    learning_rate: float = 1e-4
    warmup: float = 0.1
    epochs: float = 1.0
    rows: int = 8
    groups: int = 2
    accumulate: int = 1
    chunks: int = 1
    product_dtype: str = "float32"
    remat: str = "none"
    unrolled: bool = True
    seed: int = 0
    accept_changed_data: bool = False

    def config_in(self, source: Path) -> Config:
        """The configuration of the model in a directory, as it is trained."""
        return replace(
            training.config_in(source),
            product_dtype=self.product_dtype,
            vision_remat=self.remat,
            text_remat=self.remat,
            unrolled=self.unrolled,
        )

    @property
    def settings(self) -> dict[str, float | str]:
        """What decides what is learnt, by name; a run that is resumed must find it as it was."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: value if isinstance(value, int | float | str) else repr(value)
            for name, value in found.items()
            if name not in FREE
        }

    def optimizer(self, count: int) -> OptimizerConfig:
        """The optimiser for so many pairs."""
        steps = math.ceil(self.epochs * count / (self.rows * self.groups))
        warmup = math.ceil(self.warmup * steps)
        return OptimizerConfig(self.learning_rate, max(steps, 1), warmup, kind="adamw")

    def run_config(self, beside: HookConfig | None) -> RunConfig:
        """What a run saves and logs."""
        beside = beside or HookConfig()
        return RunConfig(beside=beside, accept_changed_data=self.accept_changed_data)

    def row(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int, int]:
        """Tokens, patches and the most groups of a row, for groups of these sizes."""
        tokens, patches = (np.array(each) for each in zip(*sizes, strict=True))
        step = 64 * self.chunks  # so that chunks, and a mesh, divide a row
        length = -(-self.groups * int(tokens.max()) // step) * step
        room = self.groups * int(patches.max())
        return length, room, min(length // int(tokens.min()), room // int(patches.min()))


@dataclass(frozen=True)
class Recipe(PairRecipe):
    """One preference training.

    Attributes:
      objective: of the judgements.
      merged: write a whole model although an adapter was trained.
    """

    objective: Objective = field(default_factory=Dpo)
    merged: bool = True


@dataclass(frozen=True, eq=False)
class FacePreferences(PreferenceTask):
    """Preference training of a model that reads faces.

    Attributes:
      source: the model directory that it starts from.
      held_out: judged pairs to evaluate on, with their reference.
      merged: see `Recipe`.
    """

    source: Path = Path()
    held_out: PairGroups | None = None
    merged: bool = True

    def evaluate(self, state: TrainState, mesh: Mesh) -> dict[str, float]:
        """How far the policy agrees with held-out judgements."""
        if self.held_out is None:
            return {}
        weights = self.join(state.weights, state.frozen)
        return prediction.scores(prediction.margins(self, weights, self.held_out), self.held_out)

    def export(self, state: TrainState, directory: Path) -> None:
        """Writes what was trained: see `reader.training.export`."""
        training.export(self, state, directory, self.merged)


def task_of(
    recipe: Recipe, source: Path, groups: PairGroups, held_out: PairGroups | None = None
) -> FacePreferences:
    """The task of a recipe for the model in a directory, with rows as long as the pairs need.

    Args:
      held_out: pairs that must fit the rows too.
    """
    sizes = [*groups.measured[0], *([] if held_out is None else held_out.measured[0])]
    length, patches, most = recipe.row(sizes)
    config = recipe.config_in(source)
    return FacePreferences(
        config,
        recipe.rows,
        length,
        patches,
        recipe.trainable,
        recipe.optimizer(len(groups)),
        recipe.accumulate,
        group_count=most,
        objective=recipe.objective,
        values=training.values_of(source, config),
        chunk_count=recipe.chunks,
        source=source,
        held_out=held_out,
        merged=recipe.merged,
    )


def train(
    recipe: Recipe,
    source: Path,
    groups: PairGroups,
    out: Path,
    held_out: PairGroups | None = None,
    mesh: Mesh | None = None,
    beside: HookConfig | None = None,
) -> Path:
    """Trains the model of a directory on judged pairs, in one process; interrupted runs resume.

    The folder `out` gets checkpoints, what the reference answered, `metrics.jsonl`, and the trained
    model in "model", or an adapter in "adapter".

    Args:
      held_out: judged pairs to evaluate on, at the end and as `beside` says.

    Returns:
      the folder of the trained model, or of the adapter where no whole model is written.

    Raises:
      GroupError, ExampleError: a pair cannot be trained on; names it.
      CheckpointError: a file of the model is missing, cannot be read or differs from its checksum.
      BusyError: another run writes to `out`.
    """
    mesh = meshes.make({"fsdp": -1}) if mesh is None else mesh
    with locks.held(out):
        task = task_of(recipe, source, groups, held_out)
        weights = starting_weights(task, source, mesh)
        groups = reference.with_reference(task, weights, groups, out)
        if held_out is not None:
            held_out = reference.with_reference(task, weights, held_out, out)
            task = replace(task, held_out=held_out)
        state = task.create(weights, mesh, recipe.seed)
        config = recipe.run_config(beside)
        run(task, state, feed_of(task, source, recipe, groups, mesh), mesh, out, config, export=out)
    whole = recipe.merged or recipe.trainable.whole is not None
    return out / (MODEL if whole else training.ADAPTER)


def starting_weights(task: Task, source: Path, mesh: Mesh) -> ModelWeights:
    """The weights that a training starts from, float32, once task and files are found sound.

    Raises:
      ValueError: the mesh does not divide what it is to share.
      CheckpointError: a file of the model is missing, cannot be read or differs from its checksum.
    """
    task.check(mesh)
    checksums.verify(source)
    return hf.load(source, dtype=jnp.float32)[1]


class PairTask(Protocol):
    """A task over judged pairs: packed rows and what they have room for."""

    @property
    def rows(self) -> int: ...
    @property
    def room(self) -> Room: ...
    def build(self, rows: Sequence[Sequence[Group]], _: object = None) -> GroupBatch: ...


def feed_of(
    task: PairTask, source: Path, recipe: PairRecipe, groups: PairGroups, mesh: Mesh
) -> Feed:
    """Packed rows of the pairs, those that this process has devices for.

    Args:
      source: the directory of the model that is trained.
    """
    room = task.room
    batches = PackedBatches(
        groups,
        room.capacity,
        row_count=task.rows,
        rows=meshes.own_rows(task.rows, mesh),
        pool=2 * recipe.groups,
        size=room.size,
        build=task.build,
    )
    labels = np.array([[one.label_smoothing, one.weight] for one in groups.judged])
    judgements = hashes.of_arrays(labels)
    pairs = FileFingerprint(labels.nbytes, len(groups), groups.measured[1] + judgements)
    capacity = {"length": room.capacity.length, "units": room.capacity.units}
    fingerprint = Fingerprint({"pairs": pairs}, {**recipe.settings, **capacity})

    def locate(numbers: Iterable[int]) -> str:
        return ", ".join(groups(number).where for number in numbers)

    return Feed(
        batches,
        batches.rows,
        lambda: batches.examples,
        locate,
        fingerprint.with_model(source, training.model_files(source, weights=True)),
    )
