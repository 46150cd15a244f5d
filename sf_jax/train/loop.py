"""The training loop: takes steps, saves checkpoints, resumes and stops. Hooks do the rest."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from sf_jax.train.checkpoint import Checkpoints
from sf_jax.train.fingerprint import Fingerprint, changes
from sf_jax.train.mesh import put
from sf_jax.train.prefetch import Batches, ExampleNumbers, Prefetched
from sf_jax.train.processes import gathered, shared_problem
from sf_jax.train.step import TrainState

POSITION, FINGERPRINT = "position", "fingerprint"  # of the data, in a checkpoint


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


class Stopped(RuntimeError):
    """Training was asked to stop, and has saved the step it had reached."""


@dataclass(frozen=True)
class LoopConfig:
    """How long a run goes on and what it saves.

    Attributes:
      steps: the step to stop at, counted from the start of the first run.
      save_every: steps between checkpoints; keep: the newest checkpoints to keep, at least 2.
      accept_changed_data: resumes although data or model are not those of the checkpoint. The
        position then means other examples: some are repeated and others left out.
      ahead: batches that are copied to the devices beside the step in progress.
    """

    steps: int
    save_every: int = 500
    keep: int = 3
    accept_changed_data: bool = False
    ahead: int = 1


@dataclass
class Run:
    """A run as its hooks see it.

    Attributes:
      config: of the loop; logs: a local folder for what hooks write.
      hooks: all hooks, in the order in which they are called.
      state: after `step` steps; batch: host batch of the last step; metrics: its results, scalars
        on the devices, which may still be computing; examples: numbers of the examples in `batch`,
        row by row, where they are known.
      writes: whether this process writes what one process writes for all.
      began: `time.monotonic` at the start; idle: seconds since then not spent on steps.
    """

    config: LoopConfig
    logs: Path
    hooks: Sequence["Hook"]
    state: TrainState
    step: int = 0
    batch: Any = None
    examples: ExampleNumbers | None = None
    metrics: dict[str, jax.Array] = field(default_factory=dict)
    writes: bool = True
    began: float = field(default_factory=time.monotonic)
    idle: float = 0.0

    def log(self, values: dict[str, float]) -> None:
        """Hands values of the present step to every hook."""
        for hook in self.hooks:
            hook.log(self, values)

    @contextmanager
    def outside_steps(self) -> Iterator[None]:
        """Counts the time in the block as idle."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.idle += time.monotonic() - start


class Hook:
    """Something done beside the steps of a run; each method does nothing unless overridden."""

    def begin(self, run: Run) -> None:
        """Before the first step, once a checkpoint is restored."""

    def after_step(self, run: Run) -> None:
        """After each step has been handed to the devices."""

    def log(self, run: Run, values: dict[str, float]) -> None:
        """When some hook logs values."""

    def before_save(self, run: Run) -> None:
        """Before a checkpoint is saved; an exception prevents the save and ends the run."""

    def end(self, run: Run) -> None:
        """After the last step has been saved."""

    def close(self) -> None:
        """When the run ends, however it ends."""


def run(
    state: TrainState,
    step: Callable[[TrainState, Any], tuple[TrainState, dict]],
    batches: Batches,
    mesh: Mesh,
    config: LoopConfig,
    directory: str | os.PathLike,
    *,
    hooks: Sequence[Hook] = (),
    rows: Sequence[int] | None = None,
    row_count: int | None = None,
    fingerprint: Fingerprint | None = None,
    logs: str | os.PathLike | None = None,
    examples: Callable[[], ExampleNumbers] | None = None,
) -> TrainState:
    """Trains, from the newest sound checkpoint in `directory` if there is one.

    SIGTERM, or a notice of preemption, saves the step that all processes have reached and ends the
    run.

    Args:
      directory: of the run, local or gs://; logs: local folder for what hooks write, by default
        `directory`.
      hooks: called in this order (`sf_jax.train.hooks`).
      rows, row_count: see `mesh.put`.
      fingerprint: of data and model, saved with every checkpoint; None where it is not known.
      examples: the numbers of the examples in the batch that `batches` gave last.

    Raises:
      CheckpointError: a checkpoint could not be saved, or none is sound.
      BusyError: another run writes there.
      Stopped: the run was asked to stop.
      TrainingError: data, model or settings are not those of the checkpoint.
      and whatever a hook raises.
    """
    this = Run(config, Path(directory if logs is None else logs), hooks, state)
    this.writes = jax.process_index() == 0
    checkpoints = Checkpoints(f"{os.fspath(directory)}/checkpoints", config.keep, _report)
    with ExitStack() as closing:
        closing.callback(checkpoints.close)
        for hook in hooks:
            closing.callback(hook.close)
        fetched = Prefetched(
            batches, lambda batch: put(batch, mesh, rows, row_count), config.ahead, examples
        )
        _restore(this, checkpoints, fetched, fingerprint)
        for hook in hooks:
            hook.begin(this)
        with _stop_requested() as stop_after:
            while this.step < config.steps:
                batch = next(fetched)
                this.batch, this.examples = batch.host, batch.examples
                this.state, this.metrics = step(this.state, batch.placed)
                this.step += 1
                for hook in hooks:
                    hook.after_step(this)
                stopping = stop_after(this.step)
                if stopping or this.step == config.steps or this.step % config.save_every == 0:
                    _save(this, checkpoints, fetched, fingerprint)
                if stopping and this.step < config.steps:
                    checkpoints.wait()
                    raise Stopped(f"stopped at step {this.step}, which is saved")
        for hook in hooks:
            hook.end(this)
    return this.state


def _restore(
    this: Run, checkpoints: Checkpoints, batches: Prefetched, fingerprint: Fingerprint | None
) -> None:
    restored = checkpoints.restore(this.state)
    if restored is not None:
        this.state, data_state = restored
        saved = None
        if data_state.keys() == {POSITION, FINGERPRINT}:  # else written before fingerprints were
            data_state, saved = data_state[POSITION], data_state[FINGERPRINT]
        if int(this.state.step) < this.config.steps and fingerprint is not None:
            _compare(saved, fingerprint, int(this.state.step), this.config.accept_changed_data)
        batches.set_state(data_state)
        _report(f"resumed from step {int(this.state.step)}")
    this.step = int(this.state.step)
    this.idle = time.monotonic() - this.began


def _compare(saved: Any, now: Fingerprint, step: int, accept: bool) -> None:
    """Raises TrainingError, in every process, where one finds other data than was saved."""
    if saved is None:
        _report(f"checkpoint {step} has no fingerprint of its data, which must be the same as then")
        return
    found = shared_problem(changes(Fingerprint.from_json(saved), now))
    if found and not accept:
        raise TrainingError(
            f"data, model or settings are not those of checkpoint {step}: {found}. Give the same "
            "ones, or --accept-changed-data to resume with these"
        )
    if found:
        found = f"those of checkpoint {step}, which is accepted: {found}"
        _report(f"data, model or settings are not {found}")


def _save(
    this: Run, checkpoints: Checkpoints, batches: Prefetched, fingerprint: Fingerprint | None
) -> None:
    for hook in this.hooks:
        hook.before_save(this)
    position = gathered(batches.get_state())
    saved = None if fingerprint is None else fingerprint.as_json()
    with this.outside_steps():
        checkpoints.save(this.state, {POSITION: position, FINGERPRINT: saved})


def _report(text: str) -> None:
    """A line on standard error, of the first process only, above any progress bar."""
    if jax.process_index() == 0:
        tqdm.write(f"sf-jax: {text}", file=sys.stderr)


@contextmanager
def _stop_requested() -> Iterator[Callable[[int], bool]]:
    """step → whether to stop after it, the same answer in all processes.

    With several processes JAX's preemption service agrees on a step that all of them reach.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda number: False  # signals can only be handled in the main thread
        return
    requested = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: requested.set())
    try:
        yield lambda number: requested.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
