"""What happens beside the steps of a run: logging, evaluation, profiling, checks.

Each hook is one idea; `standard` makes the list that most runs need. Files written in the run's
folder of logs: `metrics.jsonl`, TensorBoard's events in `tensorboard/`, the numbers of the examples
of each batch in `examples-PROCESS.jsonl`, profiles in `trace/`.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
from tqdm import tqdm

from sf_jax.train.logs import Lines, Scalars
from sf_jax.train.loop import Hook, Run, TrainingError
from sf_jax.train.prefetch import ExampleNumbers
from sf_jax.train.step import TrainState


class ProgressBar(Hook):
    """A bar over the steps, with the values logged last."""

    def __init__(self, label: str):
        self.label = label
        self._bar: tqdm | None = None

    def begin(self, run: Run) -> None:
        self._bar = tqdm(
            total=run.config.steps,
            initial=run.step,
            desc=self.label,
            unit="step",
            smoothing=0.05,
            disable=not run.writes,
        )

    def after_step(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.update()

    def log(self, run: Run, values: dict[str, float]) -> None:
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()})

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class JsonLog(Hook):
    """Logged values as lines of `metrics.jsonl`."""

    def __init__(self) -> None:
        self._lines: Lines | None = None

    def begin(self, run: Run) -> None:
        if run.writes:
            self._lines = Lines(run.logs / "metrics.jsonl", run.step)

    def log(self, run: Run, values: dict[str, float]) -> None:
        if self._lines is not None:
            self._lines.write(run.step, values)

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()


class TensorBoardLog(Hook):
    """Logged values as TensorBoard events."""

    def __init__(self) -> None:
        self._scalars: Scalars | None = None

    def begin(self, run: Run) -> None:
        if run.writes:
            self._scalars = Scalars(run.logs / "tensorboard", run.step)

    def log(self, run: Run, values: dict[str, float]) -> None:
        if self._scalars is not None:
            self._scalars.write(run.step, values)

    def close(self) -> None:
        if self._scalars is not None:
            self._scalars.close()


class ExampleLog(Hook):
    """The numbers of the examples in each batch, a file a process, where they are known."""

    def __init__(self) -> None:
        self._lines: Lines | None = None

    def after_step(self, run: Run) -> None:
        if run.examples is None:
            return
        if self._lines is None:
            before = run.step - 1
            self._lines = Lines(run.logs / f"examples-{jax.process_index()}.jsonl", before)
        self._lines.write(run.step, {"examples": run.examples})

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()


class FiniteWatch(Hook):
    """Ends a run whose gradients are not finite, and names the examples of the batch.

    A step is checked when the next one has been handed to the devices, so that they need not wait;
    a step that is not finite has changed nothing by then.
    """

    def __init__(
        self,
        allowed: int = 0,
        locate: Callable[[Iterable[int]], str] | None = None,
    ):
        """Args:
        allowed: steps in a row that may have a gradient that is not finite.
        locate: which records examples come from, as text.
        """
        self.allowed, self.locate = allowed, locate
        self.bad = 0
        self._unchecked: tuple[int, Any, ExampleNumbers | None] | None = None

    def after_step(self, run: Run) -> None:
        self._check()
        self._unchecked = run.step, run.metrics["skipped"], run.examples

    def before_save(self, run: Run) -> None:
        self._check()

    def end(self, run: Run) -> None:
        self._check()

    def _check(self) -> None:
        """Raises TrainingError if the last step is one bad step too many."""
        if self._unchecked is None:
            return
        number, skipped, numbers = self._unchecked
        self._unchecked = None
        self.bad = self.bad + 1 if float(skipped) else 0
        if self.bad <= self.allowed:
            return
        named = "" if numbers is None else f"; its batch was made of examples {numbers}"
        if numbers is not None and self.locate is not None:
            named += f", which are {self.locate(n for row in numbers for n in row)}"
        raise TrainingError(
            f"step {number}: loss or gradient is not finite ({self.bad} in a row){named}"
        )


class Profiler(Hook):
    """Traces some steps whenever a file named `profile` appears in the folder of logs."""

    def __init__(self, steps: int = 3):
        self.steps = steps
        self._until: int | None = None

    def after_step(self, run: Run) -> None:
        """A trace begins and ends when the devices have finished the steps they were given."""
        asked = run.logs / "profile"
        if self._until is None and asked.exists():
            asked.unlink(missing_ok=True)
            jax.block_until_ready(run.metrics)
            jax.profiler.start_trace(str(run.logs / "trace"))
            self._until = run.step + self.steps
        elif self._until is not None and run.step >= self._until:
            jax.block_until_ready(run.metrics)
            self.close()

    def close(self) -> None:
        if self._until is not None:
            jax.profiler.stop_trace()
            self._until = None


@dataclass(frozen=True)
class StepCost:
    """Of a step, by all devices together.

    Attributes:
      flops: floating-point operations; peak_flops: what the devices could do in a second, 0 where
        it is not known.
    """

    flops: float = 0.0
    peak_flops: float = 0.0


class Metrics(Hook):
    """Logs the metrics of a step, rates since the last log, and the share of time spent in steps.

    `goodput` is that share since the start; `mfu` the share of the devices' peak.
    """

    def __init__(
        self,
        every: int,
        count: Callable[[Any], dict[str, int]],
        share: float = 1.0,
        cost: StepCost | None = None,
    ):
        """Args:
        every: steps between logs.
        count: what a host batch holds, by name; "images" is logged as "images/s".
        share: a global batch is so many times what this process has of it.
        """
        self.every, self.count, self.share = every, count, share
        self.cost = cost or StepCost()
        self._restart(time.monotonic(), 0.0)

    def begin(self, run: Run) -> None:
        self._restart(time.monotonic(), run.idle)

    def after_step(self, run: Run) -> None:
        self.add(self.count(run.batch))
        if run.step % self.every == 0:
            values = {name: float(x) for name, x in jax.device_get(run.metrics).items()}
            run.log(values | self.rates(run.began, run.idle))

    def add(self, counts: dict[str, int]) -> None:
        """Counts one step."""
        self._steps += 1
        for name, number in counts.items():
            self._counts[name] = self._counts.get(name, 0) + number

    def rates(self, began: float, idle: float) -> dict[str, float]:
        """Since the last call; `began` and `idle` are those of `Run`."""
        now = time.monotonic()
        seconds = max(now - self._since - (idle - self._idle), 1e-9)
        found = {f"{name}/s": n * self.share / seconds for name, n in self._counts.items()}
        found["steps/s"] = self._steps / seconds
        found["goodput"] = 1 - idle / max(now - began, 1e-9)
        if self.cost.flops and self.cost.peak_flops:
            found["mfu"] = self.cost.flops * self._steps / seconds / self.cost.peak_flops
        self._restart(now, idle)
        return found

    def _restart(self, now: float, idle: float) -> None:
        self._since, self._idle, self._steps = now, idle, 0
        self._counts: dict[str, int] = {}


class Evaluation(Hook):
    """Evaluates every so many steps and at the end, and logs what it finds.

    A run that starts at its last step evaluates too: the last evaluation may have been cut off.
    """

    def __init__(self, evaluate: Callable[[TrainState], dict[str, float]], every: int = 0):
        """`every`: steps between evaluations, 0 for the one at the end alone."""
        self.evaluate, self.every, self._evaluated = evaluate, every, -1

    def begin(self, run: Run) -> None:
        self._evaluated = run.step if run.step < run.config.steps else -1

    def after_step(self, run: Run) -> None:
        if self.every and run.step % self.every == 0:
            self._evaluate(run)

    def end(self, run: Run) -> None:
        if self._evaluated < run.step:
            self._evaluate(run)

    def _evaluate(self, run: Run) -> None:
        self._evaluated = run.step
        with run.outside_steps():
            found = self.evaluate(run.state)
            if found:
                run.log({f"evaluation/{name}": value for name, value in found.items()})


class Export(Hook):
    """Writes what was trained after the last step."""

    def __init__(self, export: Callable[[TrainState], None]):
        self.export = export

    def end(self, run: Run) -> None:
        self.export(run.state)


@dataclass(frozen=True)
class HookConfig:
    """What the standard hooks do and how often.

    Attributes:
      log_every, evaluate_every: steps; 0 evaluates at the end alone.
      bad_steps: steps in a row that may have a gradient that is not finite; such steps change
        nothing. The run ends with the next one.
      profile_steps: steps traced whenever a file `profile` appears in the folder of logs.
      label: beside the progress bar.
    """

    log_every: int = 50
    evaluate_every: int = 0
    bad_steps: int = 0
    profile_steps: int = 3
    label: str = "train"


def standard(
    config: HookConfig,
    count: Callable[[Any], dict[str, int]],
    *,
    share: float = 1.0,
    cost: StepCost | None = None,
    locate: Callable[[Iterable[int]], str] | None = None,
    evaluate: Callable[[TrainState], dict[str, float]] | None = None,
    export: Callable[[TrainState], None] | None = None,
) -> list[Hook]:
    """The hooks of a run, in the order in which they are called.

    Args:
      count, share, cost: see `Metrics`.
      locate: see `FiniteWatch`.
      evaluate: state → values by name, logged as "evaluation/NAME".
      export: called with the trained state, before the last evaluation.
    """
    hooks: list[Hook] = [ProgressBar(config.label), JsonLog(), TensorBoardLog(), ExampleLog()]
    hooks.append(FiniteWatch(config.bad_steps, locate))
    hooks.append(Profiler(config.profile_steps))
    hooks.append(Metrics(config.log_every, count, share, cost))
    if export is not None:
        hooks.append(Export(export))
    if evaluate is not None:
        hooks.append(Evaluation(evaluate, config.evaluate_every))
    return hooks
