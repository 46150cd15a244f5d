"""Losses and gradients of preference training on meshes beside those of one device, as JSON.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.train.groups_on_meshes

In float64, on packed pairs of different lengths with images of different sizes; full and with
adapters, with a reference that is a companion and one that was asked before.
"""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from sf_jax.model.declared import initialise
from sf_jax.train import groups
from sf_jax.train import mesh as meshes
from sf_jax.train.groups import Group
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.preference import REFERENCE, Dpo, Kto, PreferenceTask
from tests.train.on_meshes import MESHES, TRAINED, VALUES, apart, example, on_host, tiny, wide

ROWS = 8
TASKS = {
    "slots, companion": ("full", Dpo(supervised=0.1), True, VALUES),
    "tokens, adapters": ("adapters", Kto(), False, None),
}


def group(config: Any, answers: int, slots: bool, number: int) -> Group:
    """Answers to one prompt, which here are examples of their own."""
    made = [example(config, answers * number + i) for i in range(answers)]
    if not slots:
        made = [replace(one, slots=None, numbers=None, slot_weights=None) for one in made]
    else:
        known = [np.maximum(one.slot_weights, one.slots == 1) for one in made]
        zeros = [np.zeros_like(one.loss_weights) for one in made]
        made = [
            replace(one, slot_weights=own.astype(np.float32), loss_weights=none)
            for one, own, none in zip(made, known, zeros, strict=True)
        ]
    g = np.random.default_rng(number)
    reference = g.normal(-20, 3, answers)
    return Group(number, "pair", tuple(made), 1.0 + number % 2, 0.1, reference)


def run(name: str, mesh: Mesh) -> tuple[float, Any]:
    """The loss of the first step, and its gradient."""
    trained, objective, companion, values = TASKS[name]
    config = tiny()
    task = PreferenceTask(
        config,
        ROWS,
        256,
        128,
        TRAINED[trained],
        OptimizerConfig(1e-2, 4, 0, kind="adamw"),
        group_count=3,
        objective=objective,
        values=values,
        companion=companion,
        chunk_count=2,
    )
    made = map(partial(group, config, objective.answers, values is not None), range(100))
    rows = [row for row, _ in zip(groups.in_rows(made, task.room), range(ROWS), strict=False)]
    weights = jax.tree.map(np.asarray, initialise(config.declare(), 0))
    beside = {REFERENCE: jax.tree.map(lambda x: x * 1.1, weights)} if companion else None
    state = task.create(weights, mesh, dtype=config.product_dtype, companions=beside)
    if task.trainable is not None and task.trainable.adapter is not None:
        state = state.replace(weights=jax.tree.map(lambda x: x + 0.01, state.weights))
    batch = jax.tree.map(partial(wide, dtype=config.product_dtype), task.build(rows))
    state, metrics = task.build_step(mesh)(state, meshes.put(batch, mesh))
    return float(metrics["loss"]), on_host(optax.tree.get(state.optimizer_state, "mu"), mesh)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    found = {}
    for name in TASKS:
        loss, gradient = run(name, meshes.make(devices=jax.local_devices()[:1]))
        for label in ("fsdp", "mixed"):
            other = run(name, meshes.make(MESHES[label]))
            distance = apart(gradient, other[1])
            found[f"{name}, {label}"] = {"loss": [loss, other[0]], "gradients": distance}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
