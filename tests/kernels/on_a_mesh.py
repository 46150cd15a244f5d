"""Attention over eight virtual devices compared with one device; prints the errors as JSON.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.kernels.on_a_mesh
"""

import json
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sf_jax.kernels import attention
from tests.kernels import cases

SEGMENTS = jnp.asarray(np.repeat([[1, 2, 3, 0]] * 4, [20, 30, 10, 4], axis=1), jnp.int32)
HOW: dict[str, dict[str, Any]] = {
    "causal": {},
    "bidirectional, packed": {
        "causal": False, "q_segments": SEGMENTS, "kv_segments": SEGMENTS,
    },
    "causal, packed": {"q_segments": SEGMENTS, "kv_segments": SEGMENTS},
    "offsets and lengths": {
        "q_offset": jnp.array([0, 5, -3, 9]), "kv_length": jnp.array([64, 40, 7, 0]),
    },
}  # fmt: skip
MESHES: dict[str, dict[str, int]] = {
    "data and fsdp": {"data": 2, "fsdp": 2},
    "tensor": {"tensor": 2},
    "more devices than key heads": {"tensor": 8},
    "sequence": {"sequence": 8},
    "all": {"fsdp": 2, "tensor": 2, "sequence": 2},
}


def mesh_of(axes: dict[str, int]) -> Mesh:
    count = int(np.prod(list(axes.values())))
    return Mesh(np.array(jax.devices()[:count]).reshape(*axes.values()), tuple(axes))


def errors(axes: dict[str, int], how: dict[str, Any], ring: bool) -> dict[str, float]:
    """Of output and gradients, against the float64 reference."""
    given = cases.inputs(4, 64, heads=8, kv_heads=2, width=16)
    mesh = mesh_of(axes)

    found = cases.run(given, "float32", mesh=mesh, ring=ring, **how)
    return cases.errors(found, cases.wanted(given, **how))


def compiled_step(
    mesh: Mesh, ring: bool, length: int = 64, width: int = 16, dtype: str = "float32"
) -> str:
    """The compiled attention with its gradient; operands are sharded over the mesh."""
    rows = tuple(axis for axis in ("data", "fsdp") if axis in mesh.shape) or None
    names = [axis if axis in mesh.shape else None for axis in ("sequence", "tensor")]
    spec = PartitionSpec(rows, *names)
    kv_spec = PartitionSpec(rows, names[0], names[1] if mesh.shape.get("tensor", 1) <= 4 else None)
    q, k = (
        jax.ShapeDtypeStruct((4, length, heads, width), dtype, sharding=NamedSharding(mesh, spec))
        for heads, spec in ((8, spec), (4, kv_spec))
    )

    def loss(q: Any, k: Any, v: Any) -> Any:
        return (attention(q, k, v, ring=ring).astype(jnp.float32) ** 2).sum()

    with jax.set_mesh(mesh):
        text = jax.jit(jax.grad(loss, (0, 1, 2))).lower(q, k, k).compile().as_text()
    return text or ""


def collectives(text: str) -> dict[str, list[int]]:
    """Kinds of collectives in a program, and how many elements each yields."""
    found: dict[str, list[int]] = {}
    for shape, kind in re.findall(
        r"= \(?\w+\[([\d,]*)\]\S* .*?(all-gather|all-reduce|all-to-all|reduce-scatter|"
        r"collective-permute)(?:-start)?\(",
        text,
    ):
        found.setdefault(kind, []).append(int(np.prod([int(n) for n in shape.split(",") if n])))
    return {kind: sorted(set(sizes)) for kind, sizes in found.items()}


def main() -> None:
    found = {}
    for name, axes in MESHES.items():
        for ring in (True, False) if "sequence" in axes else (True,):
            label = f"{name}, {'ring' if ring else 'gathered'}"
            worst = partial(errors, axes, ring=ring)
            found[label] = {
                "errors": {case: worst(how=how) for case, how in HOW.items()},
                "collectives": collectives(compiled_step(mesh_of(axes), ring)),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
