"""Compiles decoding steps for TPUs, and lists what their programs do to a whole cache.

    JAX_PLATFORMS=cpu python -m tests.kernels.compile_decode_for_tpu v5e:2x2 v6e:2x2

Needs libtpu (the extra `tpu`) and no TPU: the compiler is given a topology.
"""

import json
import math
import os
import re
import sys
from functools import partial
from typing import Any, NamedTuple

os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from sf_jax.kernels import tpu_decode
from sf_jax.kernels.visible import Visible

BATCH = 2


class Case(NamedTuple):
    """One program.

    Attributes:
      groups: query heads of a key head.
      heads_first, declared: whether the cache is heads first, and whether the kernel is called so.
      loop: the cache is the state of a loop, whose layout the compiler chooses, not an argument.
        As an argument a cache of narrow heads has its positions along the lanes, so is copied.
    """

    length: int
    groups: int
    size: int
    kv_heads: int
    width: int
    dtype: str
    heads_first: bool
    declared: bool
    loop: bool


CASES = {
    "as given": Case(1, 4, 16384, 8, 128, "bfloat16", False, False, False),
    "heads first": Case(1, 4, 16384, 8, 128, "bfloat16", True, True, False),
    "declared in the wrong order": Case(1, 4, 16384, 8, 128, "bfloat16", False, True, False),
    "float32": Case(16, 4, 9000, 8, 128, "float32", False, False, False),
    "most rows of one head": Case(16, 64, 9000, 1, 128, "bfloat16", False, False, False),
    "most rows of most heads": Case(16, 4, 9000, 16, 128, "float32", True, True, False),
    "width 64": Case(5, 4, 1024, 2, 64, "bfloat16", False, False, True),
    "width 72": Case(5, 4, 1024, 2, 72, "float32", True, True, True),
    "one short head": Case(1, 4, 100, 1, 72, "bfloat16", False, False, True),
}
# The operations inside a fusion are listed separately; the broadcast makes the empty cache.
MOVES_NOTHING = {
    "parameter", "bitcast", "get-tuple-element", "tuple", "while", "broadcast", "fusion",
}  # fmt: skip


def attend(case: Case, q: jax.Array, k: jax.Array, v: jax.Array, number: jax.Array) -> jax.Array:
    if case.heads_first:
        k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    seen = Visible(q_offset=jnp.broadcast_to(number, BATCH))
    scale = case.width**-0.5
    return tpu_decode.forward(q, k, v, seen, scale, heads_first=case.declared)[0]


def loop(case: Case, q: jax.Array, k: jax.Array, v: jax.Array, count: jax.Array) -> jax.Array:
    """Steps that each append to the cache, emptied first, and attend to it."""

    def step(number: Any, state: tuple) -> tuple:
        k, v, q = state
        new = q[:, :, :: case.groups]
        new, at = (
            (new.swapaxes(1, 2), (0, 0, number, 0))
            if case.heads_first
            else (new, (0, number, 0, 0))
        )
        k, v = (jax.lax.dynamic_update_slice(cache, new, at) for cache in (k, v))
        return k, v, attend(case, q, k, v, number)

    return jax.lax.fori_loop(0, count, step, (jnp.zeros_like(k), jnp.zeros_like(v), q))[2]


def operations(text: str, elements: int) -> list[str]:
    """Operations that result in as many elements or more, and the kernels."""
    found = set()
    for line in text.splitlines():
        parts = re.match(r"\s*(?:ROOT )?\S+ = (.*?)\s([a-z][a-z-]*)\(", line)
        if not parts:
            continue
        shapes = re.findall(r"\[([\d,]+)\]", parts[1])
        largest = max((math.prod(map(int, shape.split(","))) for shape in shapes), default=0)
        if 'custom_call_target="tpu_custom_call"' in line:
            found.add("kernel")
        elif parts[2] not in MOVES_NOTHING and largest >= elements:
            found.add(parts[2])
    return sorted(found)


def compiled(case: Case, topology: str) -> list[str]:
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    one = jax.sharding.SingleDeviceSharding(devices[0])
    order = (case.kv_heads, case.size) if case.heads_first else (case.size, case.kv_heads)
    heads = case.groups * case.kv_heads
    q = jax.ShapeDtypeStruct((BATCH, case.length, heads, case.width), case.dtype, sharding=one)
    cache = jax.ShapeDtypeStruct((BATCH, *order, case.width), case.dtype, sharding=one)
    number = jax.ShapeDtypeStruct((), "int32", sharding=one)
    program = jax.jit(partial(loop if case.loop else attend, case))
    return operations(program.lower(q, cache, cache, number).compile().as_text(), cache.size)


if __name__ == "__main__":
    print(
        json.dumps(
            {
                topology: {name: compiled(case, topology) for name, case in CASES.items()}
                for topology in sys.argv[1:]
            }
        )
    )
