"""The built-in model from nothing: render, warm the tower up, read, speak, export.

Each stage but the first and the last two is a task of its own, resumed where it stopped:

  render       faces of made-up people, rigs, skins and drawings
  warm-up      the vision tower alone, on dense targets (train/losses/readout.py)
  reading      the whole model on the keys of the slots alone: all slots at once, from the image
  language     the whole model on rationales and slots (train/losses/joint.py)
  export       a model directory: safetensors, tokenizer, processor settings, read-out
  draft-heads  what drafts the exported model's rationales (train/draft_heads.py)
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data_pipelines import loader, records, rendering, synthetic
from data_pipelines.views import RandomView
from sf_jax.convert import checksums, hf
from sf_jax.decode.program import compile_program
from sf_jax.decode.schema import RATIONALE_FIRST
from sf_jax.face import channels
from sf_jax.media import files, locks
from sf_jax.model.config import Config
from sf_jax.model.declared import initialise
from sf_jax.model.lora import LoraConfig
from sf_jax.model.weights import Weights
from sf_jax.reader import finder, loading
from sf_jax.reader import readout as readout_file
from sf_jax.reader.schema import channel_indices
from sf_jax.sequence import images as image_inputs
from sf_jax.sequence.tokenizer import (
    SentencePieceTokenizer,
    Tokenizer,
)
from sf_jax.systems.semanticface.answer_states import learn_draft_heads
from sf_jax.systems.semanticface.dense_targets import (
    dense_targets,
    initial_readout,
)
from sf_jax.systems.semanticface.direct_regression import Regression
from sf_jax.systems.semanticface.held_out_views import HeldOutViews
from sf_jax.systems.semanticface.recipe import Recipe, Stage, make_tokenizer
from sf_jax.systems.semanticface.sequences import (
    Sequences,
    mirrored_text,
)
from sf_jax.train import checkpoint, hooks, task
from sf_jax.train.fingerprint import Fingerprint
from sf_jax.train.losses.joint import JointBatch, JointWeights, joint_loss
from sf_jax.train.losses.readout import (
    WarmupBatch,
    WarmupWeights,
    declare_readout,
    warmup_loss,
)
from sf_jax.train.losses.supervised import SlotValues
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.step import TrainState
from sf_jax.train.trainable import Trainable

STAGES = ("render", "warm-up", "reading", "language", "export", "draft-heads")


@dataclass(frozen=True, eq=False)
class WarmupTask(task.Task):
    """The vision tower alone, on dense targets.

    Attributes:
      held_out: faces that it is measured on, None for none.
    """

    recipe: Recipe
    tokenizer: Tokenizer
    held_out: HeldOutViews | None = None

    @property
    def rows(self) -> int:  # type: ignore[override]
        return self.recipe.warmup.batch

    @property
    def optimizer(self) -> OptimizerConfig:  # type: ignore[override]
        return self.recipe.warmup.optimizer

    @cached_property
    def config(self) -> Config:
        return self.recipe.config(self.tokenizer, self.recipe.product_dtype)

    def declare(self) -> WarmupWeights:
        readout, channel_count = self.recipe.objective.readout, len(channels.NAMES)
        return WarmupWeights(
            self.config.declare().vision,
            declare_readout(self.recipe.vision, channel_count, readout),
        )

    def batch_shapes(self) -> WarmupBatch:
        return jax.eval_shape(lambda: self.batch([self.recipe.example_view()] * self.rows))

    def batch(self, records: Sequence[dict[str, Any]]) -> WarmupBatch:
        """Records → a batch."""
        images = [record["image"] for record in records]
        patches = image_inputs.patches_of(images, self.config, self.recipe.patches)
        return WarmupBatch(patches, dense_targets(records, self.recipe.views.cells))

    def loss(self, weights: WarmupWeights, batch: WarmupBatch) -> tuple[jax.Array, dict]:
        low, objective, config = jnp.asarray(channels.LOW), self.recipe.objective, self.config
        how = config.product_dtype, config.unrolled
        return warmup_loss(weights, batch, low, config.vision, objective.readout, *how)

    def count(self, batch: WarmupBatch) -> dict[str, int]:
        return {"images": len(batch.dense.known)}

    @cached_property
    def _regression(self) -> Regression:
        return Regression(self.config, self.recipe.patches, self.recipe.product_dtype)

    def evaluate(self, state: TrainState, mesh: Mesh) -> dict[str, float]:
        """Mean r of the read-out on held-out faces, by source."""
        if self.held_out is None:
            return {}
        return self.held_out.scores(partial(self._regression, state.weights))

    def initial(self) -> WarmupWeights:
        """Fresh tower and read-out; rare actions start at about their frequency."""
        recipe, seed = self.recipe, self.recipe.seed
        readout = initial_readout(recipe.vision, recipe.objective.readout, recipe.rare, seed)
        return WarmupWeights(initialise(self.config.declare(), seed).vision, readout)


@dataclass(frozen=True, eq=False)
class JointTask(task.Task):
    """The whole model with the read-out beside it, on the keys of slots alone or on whole answers.

    Attributes:
      reading: on the keys of slots alone.
      adapter: of the only weights that are trained; None trains all.
    """

    recipe: Recipe
    tokenizer: Tokenizer
    reading: bool = False
    adapter: LoraConfig | None = None

    @property
    def trainable(self) -> Trainable | None:  # type: ignore[override]
        return None if self.adapter is None else Trainable(None, self.adapter)

    @property
    def stage(self) -> Stage:
        return self.recipe.reading if self.reading else self.recipe.language

    @property
    def rows(self) -> int:  # type: ignore[override]
        return self.stage.batch

    @property
    def optimizer(self) -> OptimizerConfig:  # type: ignore[override]
        return self.stage.optimizer

    @cached_property
    def config(self) -> Config:
        return self.recipe.config(self.tokenizer, self.recipe.product_dtype)

    @cached_property
    def sequences(self) -> Sequences:
        recipe = self.recipe
        schema = replace(recipe.schema, order=RATIONALE_FIRST)  # `sequences` say which come first
        options = recipe.sequences
        if self.reading:  # for either order, so that language models of both can start from it
            options = replace(options, values_first=0.5)
        return Sequences(self.config, self.tokenizer, schema, options, recipe.patches)

    @cached_property
    def values(self) -> SlotValues:
        schema = self.recipe.schema
        return SlotValues.of(compile_program(schema, self.tokenizer), schema.decimals)

    def declare(self) -> JointWeights:
        readout, channel_count = self.recipe.objective.readout, len(channels.NAMES)
        return JointWeights(
            self.config.declare(), declare_readout(self.recipe.vision, channel_count, readout)
        )

    def batch(self, records: Sequence[dict[str, Any]]) -> JointBatch:
        """Records → a batch, each image with its mirrored twin in the second half.

        The generator of a batch is seeded by its coefficients, so that a resumed run corrupts the
        same values.
        """
        texts = None
        if self.recipe.sequences.recorded:
            recorded = [record["rationale"] for record in records]
            texts = [*recorded, *map(mirrored_text, recorded)]
        records = [*records, *map(loader.mirrored, records)]
        dense = dense_targets(records, self.recipe.views.cells)
        coefficients = np.asarray(dense.coefficients)
        checksum = int(np.abs(coefficients).sum(dtype=np.float64) * 1e6)
        generator = np.random.default_rng([self.recipe.seed, checksum])
        images = [record["image"] for record in records]
        known = np.asarray(dense.known) > 0
        if self.reading:
            return JointBatch(self.sequences.reading(images, coefficients, generator, known), dense)
        return JointBatch(
            self.sequences.batch(images, coefficients, generator, known, texts), dense
        )

    def batch_shapes(self) -> JointBatch:
        record = self.recipe.example_view()
        return jax.eval_shape(lambda: self.batch([record] * (self.rows // 2)))

    def loss(self, weights: JointWeights, batch: JointBatch) -> tuple[jax.Array, dict]:
        low = jnp.asarray(channels.LOW)
        return joint_loss(
            weights,
            batch,
            self.config,
            self.values,
            low,
            channels.mirror,
            self.recipe.objective,
            channel_indices(self.recipe.schema),
        )

    def count(self, batch: JointBatch) -> dict[str, int]:
        tokens = int(np.count_nonzero(batch.rows.segments))
        return {"images": len(batch.dense.known), "tokens": tokens}

    def initial(self, warm: WarmupWeights) -> JointWeights:
        """A fresh language model over a warm tower. Values near each other start alike."""
        recipe, seed = self.recipe, self.recipe.seed + 1
        model = initialise(self.config.declare(), seed)
        schema = recipe.schema
        slots = range(len(schema.names))
        texts = sorted({text for slot in slots for text in schema.values(slot)})
        numbers = np.array([float(text) for text in texts])
        generator = np.random.default_rng(seed)
        phases = np.pi * numbers[:, None] * np.array(recipe.value_frequencies)
        waves = np.concatenate([np.cos(phases), np.sin(phases)], 1) / np.sqrt(phases.shape[1])
        width = recipe.text.hidden_size
        table = recipe.value_scale * waves @ generator.normal(size=(waves.shape[1], width))
        ids = np.array([self.tokenizer.symbol(text) for text in texts])
        embed = model.text.embed.at[ids].set(table.astype(np.float32))
        return JointWeights(Weights(warm.vision, replace(model.text, embed=embed)), warm.readout)

    def export(self, state: TrainState, directory: Path) -> None:
        """A model directory, in half precision to stay small, with the read-out beside it and a
        finder of faces: that which is there, else the built-in one."""
        self.write(state.weights, directory)

    def write(self, weights: JointWeights, directory: Path) -> None:
        """Exports these weights; see `export`."""
        checksums.unseal(directory)
        (directory / loading.DRAFT_HEADS_FILE).unlink(missing_ok=True)  # of another model
        weights = jax.device_get(weights)
        config = self.recipe.config(self.tokenizer)
        loading.save(
            directory,
            config,
            weights.model,
            self.tokenizer,
            self.recipe.processor,
            dtype=np.float16,
            schema=self.recipe.schema,
        )
        readout_file.save(directory / readout_file.FILE, weights.readout)
        if not (directory / finder.FILE).is_file():
            files.write_bytes(directory / finder.FILE, finder.OWN.read_bytes())
        checksums.seal(directory)


def batches_of(
    each: WarmupTask | JointTask, data: Path, order: int | None = None
) -> tuple[grain.DatasetIterator, Fingerprint]:
    """The batches of a stage, and the fingerprint of the records in `data`.

    Args:
      order: seed of the order and the views of records; None: it follows from the recipe's.
    """
    recipe = each.recipe
    if isinstance(each, WarmupTask):
        count, views, seed = each.rows, recipe.views, recipe.seed
    else:  # twins are made of the records
        count, views = each.rows // 2, replace(recipe.views, mirrored=0.0)
        seed = recipe.seed + (1 if each.reading else 2)
    seed = seed if order is None else order
    return loader.faces(data, count, each.batch, seed=seed, transform=RandomView(views))


def train_stage(
    each: WarmupTask | JointTask,
    weights: Any,
    data: Path,
    mesh: Mesh,
    directory: Path,
    label: str,
    tokenizer: Path | None = None,
    order: int | None = None,
) -> TrainState:
    """One stage from the given weights, or from its newest checkpoint in `directory`.

    Args:
      tokenizer: the folder of the tokenizer's file; None: the run's, in which `data` is.
      order: see `batches_of`.
    """
    recipe = each.recipe
    stage = recipe.warmup if isinstance(each, WarmupTask) else each.stage
    batches, fingerprint = batches_of(each, data, order)
    if isinstance(each, JointTask):
        folder = tokenizer or data.parents[1]
        fingerprint = fingerprint.with_model(folder, [SentencePieceTokenizer.file])
    every = recipe.evaluate_every
    beside = hooks.HookConfig(bad_steps=stage.bad_steps, evaluate_every=every, label=label)
    each.check(mesh)
    return task.run(
        each,
        each.create(weights, mesh),
        task.Feed(batches, fingerprint=fingerprint),
        mesh,
        directory,
        task.RunConfig(beside=beside, accept_changed_data=recipe.accept_changed_data),
    )


def last_state(each: task.Task, mesh: Mesh, directory: Path) -> TrainState:
    """The state in the newest checkpoint of a stage.

    Raises:
      CheckpointError: it has none, or none is sound.
    """
    with contextlib.closing(checkpoint.Checkpoints(directory / "checkpoints")) as checkpoints:
        restored = checkpoints.restore(each.abstract_state(mesh))
    if restored is None:
        raise checkpoint.CheckpointError(f"{directory}: this stage has no checkpoint yet")
    return restored[0]


def warm_weights(recipe: Recipe, tokenizer: Tokenizer, start: Path | None) -> WarmupWeights:
    """What the warm-up starts from: fresh weights, or tower and read-out of an exported model."""
    if start is None:
        return WarmupTask(recipe, tokenizer).initial()
    checksums.verify(start)
    tower = hf.load(start)[1].vision
    return WarmupWeights(tower, readout_file.load(start / readout_file.FILE))


def run(
    recipe: Recipe,
    out: Path,
    stages: Sequence[str],
    export: Path,
    mesh: Mesh,
    start: Path | None = None,
) -> None:
    """Runs stages of a recipe in the run's folder `out`, and exports to `export`.

    Args:
      start: an exported model whose tower to start from.

    Raises:
      BusyError: another run writes to `out`, or exports to `export`.
    """
    with locks.held(out), locks.held(export.parent, f".{export.name}.lock"):
        _run(recipe, out, stages, export, mesh, start)


def _run(
    recipe: Recipe,
    out: Path,
    stages: Sequence[str],
    export: Path,
    mesh: Mesh,
    start: Path | None,
) -> None:
    data, aside = out / "data" / "train", out / "data" / "evaluation"
    begun = any(checkpoint.begun(out / stage) for stage in ("warmup", "reading", "language"))
    if "render" in stages and begun and not recipe.accept_changed_data:
        synthetic.check_unchanged(data, recipe.images)
    if "render" in stages:
        sources = recipe.sources()
        sources.check("train")
        print("sources: " + ", ".join(f"{name} {x:g}" for name, x in sources.weights.items()))
        rendering.render(data, recipe.images, sources)
        if recipe.held_out:
            rendering.render(aside, recipe.held_out, sources, split="evaluation")
    tokenizer = make_tokenizer(recipe, out)
    views = None
    if recipe.held_out and "warm-up" in stages:
        views = HeldOutViews(records.first(aside, recipe.held_out), recipe.views)
    warmup = WarmupTask(recipe, tokenizer, views)
    reading, language = (JointTask(recipe, tokenizer, first) for first in (True, False))
    if "warm-up" in stages:
        first = warm_weights(recipe, tokenizer, start)
        train_stage(warmup, first, data, mesh, out / "warmup", "warm-up")
    if "reading" in stages:
        warm = last_state(warmup, mesh, out / "warmup").weights
        train_stage(reading, reading.initial(warm), data, mesh, out / "reading", "reading")
    if "language" in stages:
        joint = last_state(reading, mesh, out / "reading").weights
        train_stage(language, joint, data, mesh, out / "language", "language")
    if "export" in stages:
        language.export(last_state(language, mesh, out / "language"), export)
    if "draft-heads" in stages:
        learn_draft_heads(data, recipe.draft_answers, recipe.views, recipe.draft_heads, export)
