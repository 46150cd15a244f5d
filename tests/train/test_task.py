"""A task of one's own: state, step, loop, companions, checkpoints."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from sf_jax.model import axes
from sf_jax.model.declared import Linear, Weight, initialise
from sf_jax.train import mesh as meshes
from sf_jax.train.hooks import HookConfig
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.task import Feed, RunConfig, Task, mean_loss, run
from sf_jax.train.trainable import Trainable


@struct.dataclass
class Points:
    """Inputs and wanted outputs."""

    inputs: Any = axes.array(axes.BATCH, "in", dtype=np.float32)
    outputs: Any = axes.array(axes.BATCH, "out", dtype=np.float32)


@dataclass(frozen=True)
class Regression(Task):
    """Two linears, drawn to what a frozen copy gives as well as to the data."""

    rows: int = 8
    pull: float = 0.0
    optimizer: OptimizerConfig = OptimizerConfig(0.05, 12, 0, kind="adamw")
    trainable: Trainable | None = None
    accumulate: int = 1
    exported: list = field(default_factory=list)

    def declare(self) -> dict[str, Linear]:
        first = Weight((4, 6), ("embed", "mlp"), "first.weight", scale=0.5)
        second = Weight((6, 2), ("mlp", "embed"), "second.weight", scale=0.5)
        return {"first": Linear(first), "second": Linear(second)}  # type: ignore[arg-type]

    def companions(self) -> dict[str, Any]:
        return {"reference": self.declare()} if self.pull else {}

    def batch_shapes(self) -> Points:
        return Points(
            jax.ShapeDtypeStruct((self.rows, 4), np.float32),
            jax.ShapeDtypeStruct((self.rows, 2), np.float32),
        )

    def loss(self, weights: Any, batch: Points) -> tuple[jax.Array, dict[str, jax.Array]]:
        total = jnp.float32(0)
        if self.pull:
            weights, companions = weights
            apart = predicted(weights, batch) - predicted(companions["reference"], batch)
            total += self.pull * jnp.square(apart).sum()
        total += jnp.square(predicted(weights, batch) - batch.outputs).sum()
        return total, {"weight": jnp.float32(len(batch.inputs))}

    def count(self, batch: Points) -> dict[str, int]:
        return {"points": len(batch.inputs)}

    def evaluate(self, state: Any, mesh: Any) -> dict[str, float]:
        return {"norm": float(optax_norm(state.weights))}

    def export(self, state: Any, directory: Path) -> None:
        self.exported.append(directory)


def optax_norm(tree: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.square(x).sum() for x in jax.tree.leaves(tree)))


def predicted(weights: dict[str, Linear], batch: Points) -> jax.Array:
    return jnp.tanh(batch.inputs @ weights["first"].weight) @ weights["second"].weight


class Drawn:
    """Points by number."""

    def __init__(self, rows: int = 8):
        self.number, self.rows = 0, rows

    def __next__(self) -> Points:
        self.number += 1
        return drawn(self.number, self.rows)

    def get_state(self) -> dict[str, int]:
        return {"number": self.number}

    def set_state(self, state: dict[str, int]) -> None:
        self.number = state["number"]


def drawn(number: int, rows: int = 8) -> Points:
    inputs = np.random.default_rng(number).normal(size=(rows, 4)).astype(np.float32)
    return Points(inputs, np.stack([inputs[:, 0] * 3, inputs[:, 1:].sum(1)], 1))


@pytest.fixture(scope="module")
def mesh() -> Any:
    return meshes.make({}, jax.devices()[:1])


def start(task: Regression, mesh: Any) -> Any:
    weights = initialise(task.declare(), 0)
    given = {"reference": weights} if task.pull else None
    return task.create(weights, mesh, companions=given)


def trained(task: Regression, mesh: Any, directory: Path, export: Path | None = None) -> Any:
    config = RunConfig(save_every=4, beside=HookConfig(log_every=1))
    return run(task, start(task, mesh), Feed(Drawn()), mesh, directory, config, export=export)


def test_a_task_is_trained_evaluated_and_exported(mesh: Any, tmp_path: Path) -> None:
    task = Regression()
    before = mean_loss(task, start(task, mesh), [drawn(99)], mesh, None)
    state = trained(task, mesh, tmp_path / "run", export=tmp_path / "out")
    after = mean_loss(task, state, [drawn(99)], mesh, None)
    assert int(state.step) == 12 and after["loss"] < 0.8 * before["loss"]
    assert task.exported == [tmp_path / "out"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 13 and '"evaluation/norm"' in lines[-1] and '"points/s"' in lines[0]


def test_a_frozen_reference_holds_the_model_back_and_stays_as_it_was(
    mesh: Any, tmp_path: Path
) -> None:
    free, held = Regression(), Regression(pull=30.0)
    first = jax.device_get(initialise(held.declare(), 0))
    state = trained(held, mesh, tmp_path / "held")
    jax.tree.map(np.testing.assert_array_equal, state.frozen.companions["reference"], first)
    moved = {}
    for name, found in (("held", state), ("free", trained(free, mesh, tmp_path / "free"))):
        moved[name] = float(optax_norm(jax.tree.map(lambda a, b: a - b, found.weights, first)))
    assert 0 < moved["held"] < 0.6 * moved["free"]


def test_companions_are_not_saved_and_a_stopped_run_resumes_to_the_bit(
    mesh: Any, tmp_path: Path
) -> None:
    task = Regression(pull=1.0)
    whole = trained(task, mesh, tmp_path / "whole")

    class Broken(Drawn):
        def __next__(self) -> Points:
            if self.number == 6:
                raise KeyboardInterrupt
            return super().__next__()

    config = RunConfig(save_every=4, beside=HookConfig())
    with pytest.raises(KeyboardInterrupt):
        run(task, start(task, mesh), Feed(Broken()), mesh, tmp_path / "stopped", config)
    resumed = trained(task, mesh, tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, whole.weights, resumed.weights)
    saved = [path.name for path in (tmp_path / "stopped" / "checkpoints").rglob("*reference*")]
    assert not saved


def test_companions_other_than_declared_are_refused(mesh: Any) -> None:
    task = Regression(pull=1.0)
    with pytest.raises(ValueError, match=r"companions \[\], expected \['reference'\]"):
        task.create(initialise(task.declare(), 0), mesh)


def test_microbatches_give_the_step_of_the_whole_batch(mesh: Any) -> None:
    states = []
    for accumulate in (1, 4):
        task = Regression(pull=1.0, accumulate=accumulate)
        state, _ = task.build_step(mesh)(start(task, mesh), meshes.put(drawn(1), mesh))
        states.append(state.weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *states)


def test_what_is_not_trained_has_no_optimiser_state_and_stays(mesh: Any) -> None:
    task = Regression(trainable=Trainable("second"))
    state = start(task, mesh)
    assert state.weights.weights["first"].weight is None
    first = np.asarray(state.frozen.weights["first"].weight)
    state, _ = task.build_step(mesh)(state, meshes.put(drawn(1), mesh))
    np.testing.assert_array_equal(state.frozen.weights["first"].weight, first)
    whole = task.assemble(state.weights, state.frozen)
    assert whole["first"].weight is not None and whole["second"].weight is not None


def test_abstract_state_and_batch_are_those_of_a_run(mesh: Any) -> None:
    task = Regression(pull=1.0)

    def form(tree: Any) -> Any:
        return jax.tree.map(lambda x: (x.shape, str(x.dtype), x.sharding), tree)

    assert form(task.abstract_state(mesh)) == form(start(task, mesh))
    assert form(task.abstract_batch(mesh)) == form(meshes.put(drawn(1), mesh))


def test_a_mesh_that_does_not_divide_the_rows_is_refused(mesh: Any) -> None:
    with pytest.raises(ValueError, match="7 rows of a batch cannot be shared among 2"):
        Regression(rows=7, accumulate=2).check(mesh)
