"""Trains a tiny model on several meshes and prints how far each is from one device, as JSON.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.train.on_meshes
    … python -m tests.train.on_meshes --processes 2 --process 0 --port 12345

Rows are packed, with pictures of different sizes and different numbers of tokens that count;
20 steps of AdamW, fully and with adapters. Of several processes the first prints.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from sf_jax.model.config import Config, TextConfig, VisionConfig
from sf_jax.model.declared import initialise
from sf_jax.model.lora import LoraConfig
from sf_jax.sequence import images
from sf_jax.sequence.example import Example
from sf_jax.sequence.packing import PackedBatches
from sf_jax.train import mesh as meshes
from sf_jax.train import optimizer
from sf_jax.train.losses.supervised import SlotValues, SupervisedConfig
from sf_jax.train.sft import Sft
from sf_jax.train.trainable import Trainable

MESHES = {
    "data": {"data": 8}, "fsdp": {"fsdp": 8}, "tensor": {"tensor": 8}, "sequence": {"sequence": 8},
    "mixed": {"data": 2, "fsdp": 2, "tensor": 2}, "all": {"fsdp": 2, "tensor": 2, "sequence": 2},
}  # fmt: skip
TRAINED = {
    "full": Trainable(),
    "adapters": Trainable(None, LoraConfig(rank=2, alpha=4.0)),
    "both": Trainable("merger", LoraConfig(rank=2, alpha=4.0, targets=r".*language_model.*_proj")),
}
STEPS, ROWS, LENGTH, PATCHES = 20, 8, 64, 64
VALUES = SlotValues(
    np.arange(30, 34), np.linspace(0, 1, 4, dtype=np.float32), np.ones((2, 4)) > 0, 1 / 3
)


def tiny() -> Config:
    vision = VisionConfig(
        depth=3,
        hidden_size=64,
        intermediate_size=96,
        num_heads=8,
        out_hidden_size=64,
        num_position_embeddings=49,
        deepstack_visual_indexes=(0, 1),
    )
    text = TextConfig(
        vocab_size=200,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=16,
        mrope_section=(4, 2, 2),
    )
    dtype = "float64" if jax.config.jax_enable_x64 else "float32"
    return Config(vision, text, 7, 8, 9, product_dtype=dtype)


def example(config: Config, number: int) -> Example:
    """Tokens and two slots about an image or two; how many of them count differs widely."""
    g = np.random.default_rng(number)
    pictures = [
        g.integers(0, 256, (32 * int(g.integers(1, 3)), 32 * int(g.integers(1, 3)), 3), np.uint8)
        for _ in range(int(g.integers(1, 3)))
    ]
    tokens = [1]
    for picture in pictures:
        tokens += [8, *[7] * (picture.size // 3 // 32**2), 9]
    answer = g.integers(20, 200, int(g.integers(2, 24))).tolist()
    weights = [0.0] * len(tokens) + [float(g.integers(1, 4))] * len(answer)
    ids = np.array([*tokens, *answer], np.int32)
    inserts = images.image_inserts(ids, pictures, config)
    example = Example(number, f"example {number}", ids, ids, np.array(weights, np.float32), inserts)
    slots, (numbers, known) = np.zeros(len(ids), np.int32), np.zeros((2, len(ids)), np.float32)
    slots[-2:], numbers[-2:], known[-2:] = [2, 1], [0.3, 0.7], g.integers(0, 3, 2)
    return replace(example, slots=slots, numbers=numbers, slot_weights=known)


def run(mesh: Mesh, trained: Trainable, accumulate: int = 1) -> tuple[list[float], Any]:
    """Losses of all steps, at last of the first batch again, and the first step's gradient."""
    config = tiny()
    rule = optimizer.OptimizerConfig(1e-2, STEPS, 2, kind="adamw")
    chosen = SupervisedConfig(chunks=4, z_loss=1e-3)
    sft = Sft(config, ROWS, LENGTH, PATCHES, trained, rule, accumulate, chosen, VALUES)
    rows = meshes.own_rows(ROWS, mesh)
    batches = PackedBatches(
        partial(example, config),
        sft.capacity(),
        row_count=ROWS,
        rows=rows,
        pool=8,
    )
    weights = jax.tree.map(np.asarray, initialise(config.declare(), 0))
    state = sft.create(weights, mesh, dtype=config.product_dtype)
    if trained.adapter is not None:  # beside zeros half of it would have no gradient
        state = state.replace(weights=jax.tree.map(lambda x: x + 0.01, state.weights))
    take, gradient, losses = sft.build_step(mesh), None, []
    taken = [next(batches) for _ in range(STEPS)]
    for batch in (*taken, taken[0]):
        host = jax.tree.map(partial(wide, dtype=config.product_dtype), batch)
        state, metrics = take(state, meshes.put(host, mesh, rows, ROWS))
        losses.append(float(metrics["loss"]))
        if gradient is None:  # Adam's first mean is the gradient, but for a factor
            gradient = on_host(optax.tree.get(state.optimizer_state, "mu"), mesh)
    return losses, gradient


def on_host(tree: Any, mesh: Mesh) -> Any:
    gathered = jax.jit(lambda tree: tree, out_shardings=meshes.whole(mesh))(tree)
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), gathered)


def wide(x: np.ndarray, dtype: str) -> np.ndarray:
    return x.astype(dtype) if x.dtype == np.float32 else x


def apart(one: Any, other: Any) -> float:
    """The largest relative distance of a weight's two gradients."""
    distances = jax.tree.map(
        lambda a, b: float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-30)), one, other
    )
    return max(jax.tree.leaves(distances))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--meshes", nargs="+", default=list(MESHES))
    parser.add_argument("--trained", nargs="+", default=list(TRAINED))
    options = parser.parse_args()
    if options.double:
        jax.config.update("jax_enable_x64", True)
    if options.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{options.port}", options.processes, options.process)
    found: dict[str, Any] = {}
    for name in options.trained:
        one = run(meshes.make(devices=jax.local_devices()[:1]), TRAINED[name])
        for label in options.meshes:
            for accumulate in (1, 2) if label == "mixed" else (1,):
                losses, gradient = run(meshes.make(MESHES[label]), TRAINED[name], accumulate)
                pairs = zip(one[0], losses, strict=True)
                found[f"{name}, {label}, {accumulate}"] = {
                    "losses": max(abs(a - b) / abs(a) for a, b in pairs),
                    "gradients": apart(one[1], gradient),
                    "fell": one[0][0] - one[0][-1],
                }
    if options.process == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
