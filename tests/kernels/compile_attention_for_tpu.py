"""Compiles attention with its gradient for TPUs, and counts the kernels in each program.

    JAX_PLATFORMS=cpu python -m tests.kernels.compile_attention_for_tpu v5e:2x2 v6e:2x2

Needs libtpu (the extra `tpu`) and no TPU: the compiler is given a topology.
"""

import json
import os
import sys

os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from sf_jax.kernels import attention

# Length, query and key heads, width, type.
CASES = {
    "text": (600, 4, 2, 128, "bfloat16"),
    "vision of 2B and 4B": (600, 2, 2, 64, "bfloat16"),
    "vision of 8B and 32B": (600, 2, 2, 72, "bfloat16"),
    "float32": (300, 2, 1, 128, "float32"),
    "narrow, in whole blocks": (2048, 8, 2, 72, "bfloat16"),
    "narrow, in whole blocks, float32": (2048, 8, 2, 64, "float32"),
    "long rows, in pieces": (8192, 8, 2, 128, "float32"),
}


def compiled(case: tuple, topology: str) -> int:
    length, heads, kv_heads, width, dtype = case
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    one = jax.sharding.SingleDeviceSharding(devices[0])
    q = jax.ShapeDtypeStruct((1, length, heads, width), dtype, sharding=one)
    k = jax.ShapeDtypeStruct((1, length, kv_heads, width), dtype, sharding=one)
    segments = jax.ShapeDtypeStruct((1, length), "int32", sharding=one)

    def loss(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        out = attention(q, k, v, q_segments=segments, kv_segments=segments)
        return out.astype(jnp.float32).sum()

    program = jax.jit(jax.grad(loss, (0, 1, 2))).lower(q, k, k, segments).compile()
    return program.as_text().count('custom_call_target="tpu_custom_call"')


if __name__ == "__main__":
    print(
        json.dumps(
            {
                topology: {name: compiled(case, topology) for name, case in CASES.items()}
                for topology in sys.argv[1:]
            }
        )
    )
