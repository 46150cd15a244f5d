"""Compiles attention in the interleaved layout, as `compile_attention_for_tpu` does.

JAX_PLATFORMS=cpu python -m tests.kernels.compile_interleaved_for_tpu v5e:2x2 v6e:2x2
"""

import json
import os
import sys

os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from sf_jax.kernels import attention

# Batch, queries, keys, query and key heads; whether causal and with segments.
CASES = {
    "many heads": (2, 2048, 2048, 32, 8, True, True),
    "many key heads": (1, 1024, 1024, 16, 16, True, True),
    "few positions": (1, 512, 512, 32, 16, True, True),
    "bidirectional": (1, 2048, 2048, 8, 8, False, False),
    "packed": (1, 768, 768, 16, 8, True, True),
    "256 positions": (2, 256, 256, 8, 8, True, True),
    "256 positions, bidirectional": (2, 256, 256, 8, 8, False, False),
    "a chunk": (1, 256, 768, 16, 16, True, False),
}


def compiled(case: tuple, topology: str) -> int:
    batch, length, size, heads, kv_heads, causal, segmented = case
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = jax.sharding.Mesh(np.array(devices[:1]), ("data",))  # which gives the chip type
    one = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    q, k, v = (
        jax.ShapeDtypeStruct((batch, *shape, 128), "bfloat16", sharding=one)
        for shape in ((length, heads), (size, kv_heads), (size, kv_heads))
    )
    most = max(length, size)
    numbers = jax.ShapeDtypeStruct((batch, most), "int32", sharding=one)

    def loss(q: jax.Array, k: jax.Array, v: jax.Array, numbers: jax.Array) -> jax.Array:
        segments = {"q_segments": numbers[:, :length], "kv_segments": numbers[:, :size]}
        how = {"q_offset": numbers[:, 0]} if length < size else {}
        out = attention(q, k, v, causal=causal, mesh=mesh, **(segments if segmented else how))
        return out.astype(jnp.float32).sum()

    program = jax.jit(jax.grad(loss, (0, 1, 2))).lower(q, k, v, numbers).compile()
    kernels = [x for x in (program.as_text() or "").splitlines() if "tpu_custom_call" in x]
    return sum("_interleaved" in line for line in kernels)


if __name__ == "__main__":
    print(
        json.dumps(
            {
                topology: {name: compiled(case, topology) for name, case in CASES.items()}
                for topology in sys.argv[1:]
            }
        )
    )
