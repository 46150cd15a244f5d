"""A task: what is trained, on which batches, by which objective. Every run trains one.

A task of one's own defines `declare`, `batch_shapes` and `loss`, and says by which optimiser.
State, shardings, step and loop follow from these on any mesh:

    task = Tones(config, rows=8)
    mesh = meshes.make({"fsdp": -1})
    state = task.create(initialise(task.declare(), seed=0), mesh)
    state = run(task, state, Feed(batches), mesh, directory)

Weights that are trained are float32, with float32 moments; frozen ones are stored in the precision
of products. A task may have companions: further trees of weights that its loss reads and nothing
trains, such as a frozen reference policy.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike
from jaxtyping import PyTree

from sf_jax.kernels.sharded import ROWS
from sf_jax.model import declared, lora
from sf_jax.train import hooks, loop, step, trainable
from sf_jax.train import mesh as meshes
from sf_jax.train.fingerprint import Fingerprint
from sf_jax.train.optimizer import OptimizerConfig, build
from sf_jax.train.prefetch import Batches, ExampleNumbers
from sf_jax.train.step import TrainState
from sf_jax.train.trainable import Trainable


@struct.dataclass
class Frozen:
    """What a step reads and does not train; checkpoints leave it out.

    Attributes:
      weights: the model's tree with None in the position of each trained weight; None if all are.
      companions: by name, trees of weights.
    """

    weights: PyTree = None
    companions: dict[str, PyTree] = struct.field(default_factory=dict)


class Task(ABC):
    """One training job.

    Attributes:
      rows: of a global batch.
      optimizer: its rule, and the number of steps.
      trainable: which weights are trained; None trains all, and the train state then holds the
        declared tree itself in place of a `trainable.Trained`.
      accumulate: parts of a batch that are taken one after another.
      frozen_dtype: of frozen weights and companions.
    """

    rows: int
    optimizer: OptimizerConfig
    trainable: Trainable | None = None
    accumulate: int = 1
    frozen_dtype: DTypeLike = jnp.float32

    # What a task defines.

    @abstractmethod
    def declare(self) -> PyTree:
        """The tree of weight declarations."""

    @abstractmethod
    def batch_shapes(self) -> PyTree:
        """A global batch as `jax.ShapeDtypeStruct`s, in classes that declare their axes."""

    @abstractmethod
    def loss(self, weights: PyTree, batch: PyTree) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The objective, and metrics to log; `weights` is what `assemble` gives.

        Where metrics have a "weight", objective and metrics are sums over the batch and the step
        divides them by it, so that rows, microbatches and devices can be added up.
        """

    # What a task may define.

    def companions(self) -> dict[str, PyTree]:
        """By name, the declared trees of weights that the loss reads and nothing trains."""
        return {}

    def assemble(self, trained: PyTree, frozen: Frozen) -> PyTree:
        """What `loss` takes: all weights; with companions, (weights, companions)."""
        weights = self.join(trained, frozen)
        return (weights, frozen.companions) if frozen.companions else weights

    def divisions(self, mesh: Mesh) -> list[tuple[int, int, str]]:
        """What a mesh must divide beside rows: (number of parts, count, what is counted)."""
        return []

    def count(self, batch: PyTree) -> dict[str, int]:
        """What a host batch holds, by name, for rates: {"images": 3} is logged as "images/s"."""
        return {}

    def evaluate(self, state: TrainState, mesh: Mesh) -> dict[str, float]:
        """Scores by name, logged as "evaluation/NAME"."""
        return {}

    def export(self, state: TrainState, directory: Path) -> None:  # noqa: B027 (optional)
        """Writes what was trained into a local directory."""

    # What follows from it.

    def join(self, trained: PyTree, frozen: Frozen) -> PyTree:
        """All weights of the model, adapters beside those they add to."""
        if self.trainable is None:
            return trained
        return trainable.join(trained, frozen.weights, self.declare())

    def check(self, mesh: Mesh) -> None:
        """Raises ValueError where the mesh does not divide what it is to share."""
        parts = math.prod(mesh.shape[axis] for axis in ROWS) * self.accumulate
        for divisor, count, what in [
            (parts, self.rows, "rows of a batch"),
            *self.divisions(mesh),
        ]:
            if count % divisor:
                sizes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1)
                raise ValueError(f"{count} {what} cannot be shared among {divisor} ({sizes})")

    def rule(self) -> optax.GradientTransformation:
        """The optimiser."""
        return build(self.optimizer)

    def shardings(self, mesh: Mesh) -> TrainState:
        """The shardings of the train state."""
        trained, frozen = self._abstract()
        tree, chosen = self.declare(), self.trainable
        companions = {
            name: meshes.of_weights(each, mesh) for name, each in self.companions().items()
        }
        if chosen is None:
            of_trained, of_frozen = meshes.of_weights(tree, mesh), None
        else:
            of_trained, of_frozen = trainable.shardings(chosen, tree, mesh)
        return step.shardings(
            trained, self.rule(), mesh, of_trained, frozen, Frozen(of_frozen, companions)
        )

    def abstract_state(self, mesh: Mesh) -> TrainState:
        """The train state as `jax.ShapeDtypeStruct`s with their shardings; no memory."""
        trained, frozen = self._abstract()
        started = jax.eval_shape(self.rule().init, trained)
        state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), trained, started, frozen)
        return jax.tree.map(_sharded, state, self.shardings(mesh))

    def abstract_batch(self, mesh: Mesh) -> PyTree:
        """A batch as `jax.ShapeDtypeStruct`s with their shardings."""
        shapes = self.batch_shapes()
        return jax.tree.map(_sharded, shapes, meshes.batch_shardings(shapes, mesh))

    def create(
        self,
        weights: PyTree,
        mesh: Mesh,
        seed: int = 0,
        dtype: DTypeLike = jnp.float32,
        companions: Mapping[str, PyTree] | None = None,
    ) -> TrainState:
        """A fresh state from all weights of the model, arrays on the host or on the mesh.

        Args:
          seed: from which an adapter is drawn; dtype: of what is trained.
          companions: weights of each declared companion; they are copied, so that a model can be
            its own reference.

        Raises:
          ValueError: other companions are given than are declared.
        """
        given = companions or {}
        if given.keys() != self.companions().keys():
            raise ValueError(f"companions {list(given)}, expected {list(self.companions())}")
        trained, frozen, chosen = weights, None, self.trainable
        if chosen is not None:
            adapter = None
            if chosen.adapter is not None:
                adapter = lora.initialise(chosen.adapter, self.declare(), seed)
            trained, frozen = trainable.split(weights, adapter, self.declare(), chosen)
        trained = jax.tree.map(lambda x: x.astype(dtype), trained)
        frozen = jax.tree.map(lambda x: x.astype(self.frozen_dtype), frozen)
        copies = {
            name: jax.tree.map(lambda x: jnp.array(x, self.frozen_dtype), each)
            for name, each in given.items()
        }
        return step.create(trained, self.rule(), mesh, self.shardings(mesh), Frozen(frozen, copies))

    def build_step(self, mesh: Mesh) -> step.Step:
        """The jitted step of `step.build_step`."""
        return step.build_step(
            self.loss,
            self.rule(),
            mesh,
            self.shardings(mesh),
            accumulate=self.accumulate,
            assemble=self.assemble,
        )

    def _abstract(self) -> tuple[PyTree, Frozen]:
        """Trained and frozen parts as shapes."""
        tree = self.declare()
        if self.trainable is None:
            trained, frozen = declared.abstract(tree), None
        else:
            trained, frozen = trainable.abstract(self.trainable, tree, self.frozen_dtype)
        companions = {
            name: declared.abstract(each, self.frozen_dtype)
            for name, each in self.companions().items()
        }
        return trained, Frozen(frozen, companions)


@dataclass(frozen=True)
class Feed:
    """Where a run's batches come from.

    Attributes:
      batches: of host arrays.
      rows: which rows of the global batch they hold, None for all.
      examples: the numbers of the examples in the batch handed out last, row by row; locate: which
        records examples come from, as text for an error.
      fingerprint: of the data; a resumed run must find the one that it saved.
    """

    batches: Batches
    rows: Sequence[int] | None = None
    examples: Callable[[], ExampleNumbers] | None = None
    locate: Callable[[Iterable[int]], str] | None = None
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True)
class RunConfig:
    """What a run saves and logs, and how often.

    Attributes:
      save_every: steps between checkpoints; keep: the newest ones to keep.
      beside: what the standard hooks do.
      accept_changed_data: see `loop.LoopConfig`.
    """

    save_every: int = 500
    keep: int = 3
    beside: hooks.HookConfig = field(default_factory=hooks.HookConfig)
    accept_changed_data: bool = False


def run(
    task: Task,
    state: TrainState,
    feed: Feed,
    mesh: Mesh,
    directory: str | os.PathLike,
    config: RunConfig | None = None,
    *,
    logs: str | os.PathLike | None = None,
    export: Path | None = None,
    cost: hooks.StepCost | None = None,
    extra: Sequence[loop.Hook] = (),
) -> TrainState:
    """Trains a task to its last step, then exports and evaluates it.

    Args:
      state: to start from, where `directory` has no checkpoint.
      directory: of the run, local or gs://; logs: a local folder for what hooks write, by default
        `directory`.
      export: the local folder to export to, None to export nothing.
      extra: hooks called after the standard ones.

    Raises what `loop.run` raises.
    """
    config = config or RunConfig()
    beside = hooks.standard(
        config.beside,
        task.count,
        share=task.rows / len(feed.rows) if feed.rows else 1.0,
        cost=cost,
        locate=feed.locate,
        evaluate=lambda state: task.evaluate(state, mesh),
        export=None if export is None else lambda state: task.export(state, export),
    )
    return loop.run(
        state,
        task.build_step(mesh),
        feed.batches,
        mesh,
        loop.LoopConfig(
            task.optimizer.steps, config.save_every, config.keep, config.accept_changed_data
        ),
        directory,
        hooks=[*beside, *extra],
        rows=feed.rows,
        row_count=task.rows,
        fingerprint=feed.fingerprint,
        logs=logs,
        examples=feed.examples,
    )


def _sharded(x: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def mean_loss(
    task: Task, state: TrainState, batches: Iterable[PyTree], mesh: Mesh, rows: Sequence[int] | None
) -> dict[str, float]:
    """The objective and its metrics over several batches, without training.

    Args:
      rows: those of each global batch that this process has, None for all.
    """

    @jax.jit
    def of_batch(trained: PyTree, frozen: Frozen, batch: PyTree) -> dict[str, jax.Array]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            total, metrics = task.loss(task.assemble(trained, frozen), batch)
        return {"weight": jnp.float32(1), "loss": total, **metrics}

    sums: dict[str, float] = {}
    for batch in batches:
        on_mesh = meshes.put(batch, mesh, rows, task.rows if rows else None)
        for name, value in of_batch(state.weights, state.frozen, on_mesh).items():
            sums[name] = sums.get(name, 0.0) + float(value)
    weight = sums.pop("weight")
    return {name: value / weight for name, value in sums.items()} | {"weight": weight}
