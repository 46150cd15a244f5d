"""What a run says and does beside its steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from sf_jax.train import hooks, loop, step
from sf_jax.train import mesh as meshes
from sf_jax.train.logs import Lines


class Counted:
    """Batches that are numbers."""

    at = 0

    def __next__(self) -> dict[str, Any]:
        self.at += 1
        return {"number": jnp.full(4, self.at)}

    def get_state(self) -> dict[str, int]:
        return {"at": self.at}

    def set_state(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def taken(state: step.TrainState, batch: Any) -> tuple[step.TrainState, dict]:
    metrics = {"loss": jnp.float32(1), "skipped": jnp.float32(0)}
    return replace(state, step=state.step + 1), metrics


def run(directory: Path, evaluate: Any) -> step.TrainState:
    mesh = meshes.make({}, jax.devices()[:1])
    return loop.run(
        step.create({"a": jnp.ones(2)}, optax.sgd(1.0), mesh),
        taken,
        Counted(),
        mesh,
        loop.LoopConfig(4, 2),
        directory,
        hooks=hooks.standard(hooks.HookConfig(1), lambda batch: {"images": 1}, evaluate=evaluate),
    )


def test_a_last_evaluation_that_was_cut_off_is_made_by_the_next_start(tmp_path: Path) -> None:
    def cut_off(state: step.TrainState) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, cut_off)
    assert "evaluation" not in (tmp_path / "metrics.jsonl").read_text()
    run(tmp_path, lambda state: {"r": 0.5})
    assert '{"step": 4, "evaluation/r": 0.5}' in (tmp_path / "metrics.jsonl").read_text()


def test_rates_are_those_of_the_whole_batch() -> None:
    """Of which a process has a share, whatever the number of processes."""
    metrics = hooks.Metrics(1, lambda batch: {}, share=4.0)
    metrics.add({"images": 2, "tokens": 10})
    rates = metrics.rates(began=0.0, idle=0.0)
    assert rates["images/s"] == pytest.approx(8 * rates["steps/s"])
    assert rates["tokens/s"] == pytest.approx(40 * rates["steps/s"])


class Recorded(hooks.Hook):
    """Writes down what it is called for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self, run: loop.Run) -> None:
        self.calls.append(f"begin {run.step}")

    def after_step(self, run: loop.Run) -> None:
        self.calls.append(f"step {run.step} of {int(run.batch['number'][0])}")

    def before_save(self, run: loop.Run) -> None:
        self.calls.append(f"save {run.step}")

    def end(self, run: loop.Run) -> None:
        run.log({"x": 1.0})

    def log(self, run: loop.Run, values: dict[str, float]) -> None:
        self.calls.append(f"log {values} {run.step}")

    def close(self) -> None:
        self.calls.append("close")


def test_hooks_are_called_beside_the_steps_and_again_after_a_restart(tmp_path: Path) -> None:
    mesh = meshes.make({}, jax.devices()[:1])

    def recorded(steps: int) -> list[str]:
        hook = Recorded()
        start = step.create({"a": jnp.ones(2)}, optax.sgd(1.0), mesh)
        loop.run(start, taken, Counted(), mesh, loop.LoopConfig(steps, 2), tmp_path, hooks=[hook])
        return hook.calls

    assert recorded(2) == [
        "begin 0", "step 1 of 1", "step 2 of 2", "save 2", "log {'x': 1.0} 2", "close",
    ]  # fmt: skip
    assert recorded(3) == ["begin 2", "step 3 of 3", "save 3", "log {'x': 1.0} 3", "close"]


def test_a_log_with_broken_lines_does_not_stop_a_run(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\0\0\xff\n[3]\n{"step": 2}\n{"step": 3}\n{"step": 2')
    lines = Lines(path, 2)
    lines.write(3, {"loss": 1.0})
    lines.close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "loss": 1.0}\n'
