"""Run with eight virtual devices: prints what the built-in model scores on one of them and on all.

    export XLA_FLAGS=--xla_force_host_platform_device_count=8
    python -m tests.systems.semanticface.evaluated OUT

With --processes 2 --process P --port N, and four devices each, two processes do it together. OUT
receives what they export.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax

from data_pipelines.synthetic import face_record
from sf_jax.cli import recipes
from sf_jax.reader import loading, training
from sf_jax.systems.semanticface import fine_tuning
from sf_jax.systems.semanticface.held_out import HeldOut
from sf_jax.train import mesh as meshes

SHARED = {"data": 2, "fsdp": 2, "sequence": 2}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    alone = {"data": 1}, SHARED
    if options.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{options.port}", options.processes, options.process)
        alone = (SHARED,)
    held_out: list[dict[str, Any]] = [face_record(i, 0, "evaluation") for i in range(3)]
    recipe, held = recipes.load("sft").RECIPES["builtin"], HeldOut(held_out, batch=2)
    for axes in alone:
        mesh = meshes.make(axes, jax.devices()[:1] if axes == {"data": 1} else None)
        run = fine_tuning.task_of(recipe, loading.BUILTIN, mesh, held)
        state = training.initial_state(run, run.source, mesh, scratch=False, seed=0)
        print(json.dumps(run.evaluate(state, mesh)))
    run.export(state, options.out)


if __name__ == "__main__":
    main()
