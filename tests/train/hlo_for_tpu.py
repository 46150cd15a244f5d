"""Compiles train steps of a scanned MLP for eight TPU chips, and lists what a chip does.

    JAX_PLATFORMS=cpu python -m tests.train.hlo_for_tpu

Needs libtpu (the extra `tpu`) and no TPU: the compiler is given a topology.
"""

import json
import os
from dataclasses import asdict
from typing import Any

os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sf_jax.train import hlo

TOPOLOGY = "v5e:2x4"
LAYERS, ROWS, LENGTH = 3, 8, 512
# Chips along "fsdp" and "tensor", and widths at which every gradient is scattered without padding.
CASES = {"fsdp": (8, 1, 2048, 8192), "fsdp and tensor": (4, 2, 1024, 4096)}


def compiled_step(mesh: Mesh, width: int, hidden: int) -> str:
    """A step of gradient descent: float32 weights, bfloat16 products and gradients."""

    def placed(*axes: Any) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*axes))

    def loss(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, weights: dict[str, jax.Array]) -> tuple[jax.Array, None]:
            half = {name: weight.astype(jnp.bfloat16) for name, weight in weights.items()}
            x = x + jax.nn.relu(x @ half["up"]) @ half["down"]
            return jax.lax.with_sharding_constraint(x, placed("fsdp")), None

        last, _ = jax.lax.scan(layer, x, weights)
        return (last.astype(jnp.float32) ** 2).mean()

    def step(weights: dict[str, jax.Array], x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        value, gradient = jax.value_and_grad(loss)(weights, x)
        return jax.tree.map(lambda w, g: w - 1e-3 * g, weights, gradient), value

    weights = {
        "up": jax.ShapeDtypeStruct(
            (LAYERS, width, hidden), "float32", sharding=placed(None, "fsdp", "tensor")
        ),
        "down": jax.ShapeDtypeStruct(
            (LAYERS, hidden, width), "float32", sharding=placed(None, "tensor", "fsdp")
        ),
    }
    x = jax.ShapeDtypeStruct((ROWS, LENGTH, width), "bfloat16", sharding=placed("fsdp"))
    results = jax.tree.map(lambda weight: weight.sharding, weights), placed()
    take = jax.jit(step, donate_argnums=0, out_shardings=results)
    return take.lower(weights, x).compile().as_text() or ""


def main() -> None:
    devices = np.array(topologies.get_topology_desc(TOPOLOGY, "tpu").devices)
    found = {}
    for name, (fsdp, tensor, width, hidden) in CASES.items():
        mesh = Mesh(devices.reshape(fsdp, tensor), ("fsdp", "tensor"))
        found[name] = {
            "fsdp": fsdp, "tensor": tensor, "layers": LAYERS, "positions": ROWS * LENGTH,
            "width": width, "hidden": hidden,
            "program": asdict(hlo.analyse(compiled_step(mesh, width, hidden))),
        }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
