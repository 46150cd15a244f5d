"""A whole run of a tiny model on packed rows, to be killed, damaged and gone on with.

    python -m tests.train.tiny_run DIRECTORY --steps 30 --mesh fsdp=4
    … --file-size 20000      as on a full disk: no file may grow beyond so many bytes

Prints a digest of the trained weights. Compiled programs are kept in DIRECTORY/../compiled.
"""

import argparse
import hashlib
import json
import os
import resource
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sf_jax.media.locks import BusyError
from sf_jax.model.declared import initialise
from sf_jax.sequence.packing import PackedBatches
from sf_jax.train import hooks, loop
from sf_jax.train import mesh as meshes
from sf_jax.train.checkpoint import CheckpointError
from sf_jax.train.losses.supervised import SupervisedConfig
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.sft import Sft
from tests.train.on_meshes import LENGTH, PATCHES, ROWS, VALUES, example, tiny


def digest(tree: Any) -> str:
    """Of all bits of a tree."""
    if jax.process_count() > 1:
        tree = multihost_utils.process_allgather(tree, tiled=True)
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
    return found.hexdigest()


class Poisoned(PackedBatches):
    """Batches whose loss is not finite where they hold example `nan_at`."""

    nan_at: int | None = None

    def __next__(self) -> Any:
        batch = super().__next__()
        if any(self.nan_at in row for row in self.examples):
            batch = batch.replace(loss_weights=batch.loss_weights * np.nan)
        return batch


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--save-every", type=int, default=3)
    parser.add_argument("--mesh", type=meshes.parse, default={})
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before a step")
    parser.add_argument("--file-size", type=int)
    parser.add_argument("--nan-at", type=int, help="number of an example with broken pixels")
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    options = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(options.directory.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if options.coordinator:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(options.coordinator, options.processes, options.process)
    config = tiny()
    rule = OptimizerConfig(1e-2, options.steps, 2, kind="adamw")
    chosen = SupervisedConfig(chunks=4)
    sft = Sft(config, ROWS, LENGTH, PATCHES, optimizer=rule, objective=chosen, values=VALUES)
    mesh = meshes.make(options.mesh)
    rows = meshes.own_rows(ROWS, mesh)
    batches = Poisoned(
        partial(example, config),
        sft.capacity(),
        row_count=ROWS,
        rows=rows,
        pool=8,
    )
    batches.nan_at = options.nan_at
    step = sft.build_step(mesh)

    def paused(state: Any, batch: Any) -> Any:
        time.sleep(options.pause)
        return step(state, batch)

    if options.file_size:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_size, options.file_size))
    state = sft.create(jax.tree.map(np.asarray, initialise(config.declare(), 0)), mesh)
    beside = hooks.standard(
        hooks.HookConfig(log_every=1),
        lambda batch: {"images": 1},
        share=ROWS / len(rows),
        locate=lambda numbers: f"those numbered {list(numbers)}",
    )
    try:
        state = loop.run(
            state,
            paused,
            batches,
            mesh,
            loop.LoopConfig(options.steps, options.save_every),
            options.directory,
            hooks=beside,
            rows=rows,
            row_count=ROWS,
            examples=lambda: batches.examples,
        )
    except (BusyError, CheckpointError, loop.Stopped, loop.TrainingError) as error:
        print(error, file=sys.stderr)
        return 143 if isinstance(error, loop.Stopped) else 2
    print(json.dumps({"weights": digest(state.weights)}))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of a save that failed need not be waited for
