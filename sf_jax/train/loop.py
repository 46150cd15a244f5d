"""The training loop: batches in, a trained state out, with progress, metrics and checkpoints."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from sf_jax.train.checkpoint import Checkpoints
from sf_jax.train.logs import Lines, Scalars
from sf_jax.train.mesh import put
from sf_jax.train.step import TrainState


class Batches(Protocol):
    """An iterator over host batches whose position can be saved and restored.

    A process's iterator may have part of a position, under keys of its own; those of all processes
    are saved together, and each is given the whole.
    """

    def __next__(self) -> Any: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


class Stopped(RuntimeError):
    """Training was asked to stop, and has saved where it was."""


@dataclass(frozen=True)
class Plan:
    """How long a run goes on, what it keeps and what it tells.

    Attributes:
      steps: until which step; save_every, log_every: steps.
      keep: checkpoints, at least 2.
      bad_steps: how many steps in a row may have a gradient that is not finite; such steps change
        nothing. The run ends with the next one.
      evaluate_every: steps between evaluations, beside one at the end; 0 for none.
      label: beside the progress bar.
      flops: floating-point operations of a step, by all devices together; peak_flops: what the
        devices could do in a second. With both, the share that is reached is told as "mfu".
      profile_steps: how many steps are traced, whenever a file `profile` appears in the directory.
    """

    steps: int
    save_every: int = 500
    log_every: int = 50
    keep: int = 3
    bad_steps: int = 0
    evaluate_every: int = 0
    label: str = "train"
    flops: float = 0.0
    peak_flops: float = 0.0
    profile_steps: int = 3


def run(
    state: TrainState,
    step: Callable[[TrainState, Any], tuple[TrainState, dict]],
    batches: Batches,
    mesh: Mesh,
    plan: Plan,
    directory: str | os.PathLike,
    *,
    images: Callable[[Any], int],
    tokens: Callable[[Any], int] = lambda batch: 0,
    examples: Callable[[], Sequence[Sequence[int]]] | None = None,
    places: Callable[[Iterable[int]], str] | None = None,
    rows: Sequence[int] | None = None,
    row_count: int | None = None,
    evaluate: Callable[[TrainState], dict[str, float]] | None = None,
    finish: Callable[[TrainState], None] | None = None,
    logs: str | os.PathLike | None = None,
) -> TrainState:
    """Trains, from the newest sound checkpoint in `directory` if there is one.

    Writes `metrics.jsonl`, TensorBoard's events in `tensorboard`, and `examples-P.jsonl` where
    `examples` tells what each batch of process P was made of. SIGTERM, or a notice that a machine
    is about to be taken away, saves the step that all processes have reached and ends the run.

    Args:
      directory: of the run, local or gs://; logs: where to write what it says, a local folder,
        by default `directory`.
      images, tokens: how many a host batch holds.
      examples: the numbers of the examples in the batch handed out last, row by row; places: where
        examples come from, for an error.
      rows, row_count: see `mesh.put`.
      evaluate: state → numbers, told and logged, at the end too.
      finish: called with the trained state, before the last evaluation.

    Raises:
      TrainingError: more steps in a row than allowed had a gradient that is not finite.
      CheckpointError: a checkpoint could not be saved, or none is sound.
      Stopped: the run was asked to stop.
    """
    told = Path(directory if logs is None else logs)
    first = jax.process_index() == 0
    say = partial(_say, first=first)
    checkpoints = Checkpoints(f"{os.fspath(directory)}/checkpoints", plan.keep, say)
    clock = _Clock(row_count / len(rows) if rows and row_count else 1.0)
    restored = checkpoints.restore(state)
    if restored is not None:
        state, data_state = restored
        batches.set_state(data_state)
        say(f"going on from step {int(state.step)}")
    number = saved = int(state.step)
    clock.resumed(number)
    lines = Lines(told / "metrics.jsonl", number) if first else None
    scalars = Scalars(told / "tensorboard", number) if first else None
    seen = Lines(told / f"examples-{jax.process_index()}.jsonl", number) if examples else None
    bar = tqdm(
        total=plan.steps,
        initial=number,
        desc=plan.label,
        unit="step",
        smoothing=0.05,
        disable=not first,
    )
    watch = _Watch(plan.bad_steps, places)
    profiler = _Profiler(told, plan.profile_steps)

    def tell(values: dict[str, float]) -> None:
        if lines is not None and scalars is not None:
            lines.write(number, values)
            scalars.write(number, values)
            bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()})

    # Nothing is new before the first step; but the last evaluation may have been cut off.
    assessed = number if number < plan.steps else -1

    def assess() -> None:
        nonlocal assessed
        if evaluate is not None and assessed < number:
            assessed = number
            with clock.beside():
                tell({f"evaluation/{name}": value for name, value in evaluate(state).items()})

    try:
        with _told_to_stop() as stop:
            while number < plan.steps:
                batch = next(batches)
                made_of = examples() if examples else None
                state, metrics = step(state, put(batch, mesh, rows, row_count))
                number += 1
                bar.update()
                clock.took(images(batch), tokens(batch))
                if seen is not None:
                    seen.write(number, {"examples": made_of})
                watch.look(number, metrics, made_of)
                profiler.look(number, metrics)
                if number % plan.log_every == 0:
                    values = {name: float(x) for name, x in jax.device_get(metrics).items()}
                    tell(values | clock.rates(plan))
                if plan.evaluate_every and number % plan.evaluate_every == 0:
                    assess()
                stopping = stop(number)
                if number % plan.save_every == 0 or number == plan.steps or stopping:
                    watch.settle()
                    with clock.beside():
                        checkpoints.save(state, gathered(batches.get_state()))
                    saved = number
                if stopping and number < plan.steps:
                    checkpoints.wait()
                    raise Stopped(f"stopped at step {saved}, which is saved")
            watch.settle()
            if finish is not None:
                finish(state)
            assess()
    finally:
        bar.close()
        for log in (lines, scalars, seen):
            if log is not None:
                log.close()
        profiler.close()
        checkpoints.close()
    return state


def _say(text: str, first: bool) -> None:
    if first:
        tqdm.write(f"sf-jax: {text}", file=sys.stderr)


class _Watch:
    """Ends a run whose gradients are not finite.

    A step is looked at when the next one has been handed to the devices, so that they need not
    wait; a step that is not finite has changed nothing by then.
    """

    def __init__(self, allowed: int, places: Callable[[Iterable[int]], str] | None):
        self.allowed, self.places, self.bad = allowed, places, 0
        self._before: tuple[int, dict, Any] | None = None

    def look(self, number: int, metrics: dict, made_of: Any) -> None:
        self.settle()
        self._before = number, metrics, made_of

    def settle(self) -> None:
        """Looks at the last step there was."""
        if self._before is None:
            return
        number, metrics, made_of = self._before
        self._before = None
        self.bad = self.bad + 1 if float(metrics["skipped"]) else 0
        if self.bad > self.allowed:
            named = "" if made_of is None else f"; its batch was made of examples {made_of}"
            if made_of is not None and self.places is not None:
                named += f", which are {self.places(n for row in made_of for n in row)}"
            raise TrainingError(
                f"step {number}: loss or gradient is not finite ({self.bad} in a row){named}"
            )


class _Clock:
    """Rates since the last time they were asked for, and the share of time spent in steps."""

    def __init__(self, share: float):
        """`share`: a global batch is so many times what this process has of it."""
        self.share = share
        self.began = self.since = time.monotonic()
        self.idle = self.idle_since = 0.0
        self.images = self.tokens = self.steps = 0

    def resumed(self, number: int) -> None:
        """What came before the first step was spent on starting."""
        self.idle += time.monotonic() - self.began
        self.since = time.monotonic()

    def took(self, images: int, tokens: int) -> None:
        self.images, self.tokens = self.images + images, self.tokens + tokens
        self.steps += 1

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Time that is spent on something else than steps."""
        start = time.monotonic()
        yield
        self.idle += time.monotonic() - start
        self.idle_since += time.monotonic() - start

    def rates(self, plan: Plan) -> dict[str, float]:
        now = time.monotonic()
        seconds = max(now - self.since - self.idle_since, 1e-9)
        found = {
            "images/s": self.images * self.share / seconds,
            "tokens/s": self.tokens * self.share / seconds,
            "steps/s": self.steps / seconds,
            "goodput": 1 - self.idle / (now - self.began),
        }
        if plan.flops and plan.peak_flops:
            found["mfu"] = plan.flops * self.steps / seconds / plan.peak_flops
        self.since, self.idle_since = now, 0.0
        self.images = self.tokens = self.steps = 0
        return found


class _Profiler:
    """Traces some steps whenever a file named `profile` appears in a run's directory."""

    def __init__(self, directory: Path, steps: int):
        self.asked, self.directory, self.steps = directory / "profile", directory, steps
        self.until: int | None = None

    def look(self, number: int, metrics: Any) -> None:
        """Behind each step; a trace begins and ends when devices have done what they were given."""
        if self.until is None and self.asked.exists():
            self.asked.unlink(missing_ok=True)
            jax.block_until_ready(metrics)
            jax.profiler.start_trace(str(self.directory / "trace"))
            self.until = number + self.steps
        elif self.until is not None and number >= self.until:
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        if self.until is not None:
            jax.profiler.stop_trace()
            self.until = None


@contextmanager
def _told_to_stop() -> Iterator[Callable[[int], bool]]:
    """step → whether to stop behind it; all processes are told the same.

    Several processes are told by JAX's preemption service, which agrees on a step they all reach.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda number: False  # only there can signals be handled
        return
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield lambda number: told.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


def gathered(state: Any) -> Any:
    """The parts of a position that each process has, put together."""
    if jax.process_count() == 1:
        return state
    encoded = np.frombuffer(json.dumps(state).encode(), np.uint8)
    longest = int(multihost_utils.process_allgather(np.int32(len(encoded))).max())
    padded = np.pad(encoded, (0, longest - len(encoded)), constant_values=ord(" "))
    parts = multihost_utils.process_allgather(padded)
    return joined([json.loads(part.tobytes()) for part in parts])


def joined(parts: Sequence[Any]) -> Any:
    """One tree of dictionaries that has everything the parts have.

    Raises:
      ValueError: two parts differ in what both have.
    """
    if all(isinstance(part, dict) for part in parts):
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: joined([p[name] for p in parts if name in p]) for name in names}
    if any(part != parts[0] for part in parts):
        raise ValueError(f"processes disagree on where the data stands: {parts}")
    return parts[0]
