"""The training loop: batches in, a trained state out, with progress, metrics and checkpoints."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from sf_jax.train.checkpoint import Checkpoints
from sf_jax.train.step import TrainState, shard


class Batches(Protocol):
    """An iterator over host batches whose position can be saved and restored."""

    def __next__(self) -> Any: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


def run(
    state: TrainState,
    step: Callable[[TrainState, Any], tuple[TrainState, dict]],
    batches: Batches,
    mesh: Mesh,
    *,
    steps: int,
    directory: str | os.PathLike,
    save_every: int = 500,
    count_tokens: Callable[[Any], int] = lambda batch: 0,
    images: Callable[[Any], int],
    label: str = "train",
) -> TrainState:
    """Trains up to `steps`, resuming from the newest checkpoint in `directory` if there is one.

    Writes `metrics.jsonl` there, one line every 50 steps.

    Raises:
      TrainingError: ten steps in a row had gradients that are not finite.
    """
    checkpoints = Checkpoints(Path(directory) / "checkpoints")
    if checkpoints.latest() is not None:
        state, data_state = checkpoints.restore(state)
        batches.set_state(data_state)
    log = (Path(directory) / "metrics.jsonl").open("a")
    bar = tqdm(total=steps, initial=int(state.step), desc=label, unit="step", smoothing=0.05)
    seen, tokens, skipped, since = 0, 0, 0.0, time.monotonic()
    while int(state.step) < steps:
        batch = next(batches)
        seen, tokens = seen + images(batch), tokens + count_tokens(batch)
        state, metrics = step(state, shard(batch, mesh))
        bar.update()
        number = int(state.step)
        if number % 50 == 0:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            seconds = time.monotonic() - since
            values |= {"images/s": seen / seconds, "tokens/s": tokens / seconds}
            bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()})
            log.write(json.dumps({"step": number, **values}) + "\n")
            log.flush()
            skipped = skipped + 1 if values["skipped"] else 0
            if skipped >= 10:
                raise TrainingError(f"step {number}: gradients are not finite, again and again")
            seen, tokens, since = 0, 0, time.monotonic()
        if number % save_every == 0 or number == steps:
            checkpoints.save(state, batches.get_state())
    bar.close()
    log.close()
    checkpoints.close()
    return state
