"""Run with eight virtual devices: prints what the built-in model scores on one of them and on all.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.experiments.evaluated
"""

import json
from typing import Any

import jax

from data_pipelines.synthetic import face_record
from experiments import sft
from sf_jax import estimator
from sf_jax.train import mesh as meshes

SHARED = {"data": 2, "fsdp": 2, "sequence": 2}


def main() -> None:
    held_out: list[dict[str, Any]] = [face_record(i, 0, "evaluation") for i in range(3)]
    config, recipe = sft.config_of("builtin"), sft.RECIPES["builtin"]
    for mesh in (meshes.make({}, jax.devices()[:1]), meshes.make(SHARED)):
        run = recipe.sft(config, mesh)
        state = sft.initial(run, estimator.BUILTIN, mesh, scratch=False, seed=0)
        evaluation = sft.Evaluation(run, estimator.BUILTIN, held_out, mesh, batch=2)
        print(json.dumps(evaluation(state)))


if __name__ == "__main__":
    main()
