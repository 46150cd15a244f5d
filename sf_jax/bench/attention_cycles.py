"""Estimated cycles of one way to attend, compiled for a TPU that need not be there.

    python sf_jax/bench/attention_cycles.py LAYOUT WAY TOPOLOGY CONTENDER LENGTH WIDTH B B B

Bidirectional and unmasked, 8 heads, bfloat16 arrays [1, T, 8, H] in and out: the estimator takes a
skipped block for an executed one. LAYOUT is how these arrays lie: "default", or "own", as suits the
contender. WAY is "forward", "both", with the gradient, "backward", the gradient alone, given what
the forward pass keeps, or "layer", a model's whole layer around it.
B are block sizes. Prints a line of JSON: cycles of the whole program and of its largest parts.

Needs libtpu (the extra `tpu`), whose profiler may abort, or take all memory where the grid is
large: this runs in a process of its own, which takes at most half of the machine's memory.
"""

import json
import os
import re
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ |= {
    "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_PLATFORMS": "cpu",
    "LIBTPU_INIT_ARGS": f"--xla_jf_dump_static_llo_profile_to={tempfile.mkdtemp()}",
}  # fmt: skip

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.experimental.layout import Format, Layout

HEADS = 8

Attend = Callable[[Any, Any, Any], Any]


def ours(length: int, width: int, blocks: list[int], heads_first: bool) -> Attend:
    from sf_jax.kernels import attention, tpu

    if blocks[0]:  # of the kernels that want heads in front
        heads_first = True
        tpu.FORWARD = tpu.LANES_FORWARD = tpu.Blocks(*blocks)
        tpu.BACKWARD = tpu.LANES_BACKWARD = tpu.Blocks(*blocks)
    return partial(attention, causal=False, implementation="tpu", heads_first=heads_first)


def flash(length: int, width: int, blocks: list[int], _: bool) -> Attend:
    from jax.experimental.pallas.ops.tpu import flash_attention as library

    q, major, minor = (min(block, length) for block in blocks)
    sizes = library.BlockSizes(
        block_q=q,
        block_k_major=major,
        block_k=minor,
        block_b=1,
        block_q_major_dkv=q,
        block_k_major_dkv=major,
        block_k_dkv=minor,
        block_q_dkv=q,
        block_k_major_dq=major,
        block_k_dq=minor,
        block_q_dq=q,
    )

    def call(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        out = library.flash_attention(q, k, v, sm_scale=width**-0.5, block_sizes=sizes)
        return out.swapaxes(1, 2)

    return call


def splash(length: int, width: int, blocks: list[int], _: bool) -> Attend:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as library
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    q, major, minor = (min(block, length) for block in blocks)
    sizes = library.BlockSizes(
        block_q=q,
        block_kv=major,
        block_kv_compute=minor,
        block_q_dkv=q,
        block_kv_dkv=major,
        block_kv_dkv_compute=minor,
        use_fused_bwd_kernel=True,
    )
    mask = masks.MultiHeadMask([masks.FullMask((length, length))] * HEADS)

    def call(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        kernel = library.make_splash_mha(mask, head_shards=1, q_seq_shards=1, block_sizes=sizes)
        q, k, v = (x.swapaxes(1, 2) for x in (q * jnp.bfloat16(width**-0.5), k, v))
        return jax.vmap(kernel)(q, k, v).swapaxes(1, 2)

    return call


def xla(length: int, width: int, blocks: list[int], _: bool) -> Attend:
    return lambda q, k, v: jax.nn.dot_product_attention(q, k, v, implementation="xla")


CONTENDERS = {"ours": ours, "flash": flash, "splash": splash, "xla": xla}


def layer(attend: Attend, x: jax.Array, *arrays: jax.Array) -> jax.Array:
    """Attention as a model has it: between its projections, after norms and rotary positions.

    Args:
      x: [B, T, N H]; arrays: weights of q, k, v and output [N H, N H], and cosines and sines.
    """
    *projections, o, cos, sin = arrays
    from sf_jax.model.norms import rms_norm
    from sf_jax.model.vision import rotate_half
    from sf_jax.model.weights import Norm

    def rotated(heads: jax.Array) -> jax.Array:
        heads = rms_norm(heads, Norm(jnp.ones(heads.shape[-1])), 1e-6)
        return (heads * cos + rotate_half(heads) * sin).astype(x.dtype)

    q, k, v = (jnp.matmul(x, to).reshape(*x.shape[:2], HEADS, -1) for to in projections)
    return x + jnp.matmul(attend(rotated(q), rotated(k), v).reshape(*x.shape[:2], -1), o)


def cycles(
    function: Callable, format: Format | jax.sharding.Sharding, *arguments: jax.ShapeDtypeStruct
) -> dict[str, Any]:
    """Of the whole program, and of its five largest parts."""
    compiled = jax.jit(function, in_shardings=format, out_shardings=format).lower(*arguments)
    text = compiled.compile().as_text() or ""
    kernels = [x for x in text.splitlines() if 'custom_call_target="tpu_custom_call"' in x]
    if any("estimated_cycles" not in line for line in kernels):
        return {"error": "a kernel without an estimate"}
    parts = re.findall(r'%?(\S+) = .*?estimated_cycles":"(\d+)', text)
    largest = sorted(((int(count), name) for name, count in parts), reverse=True)
    return {"cycles": sum(count for count, _ in largest), "parts": largest[:5]}


def main() -> None:
    layout, way, topology, contender, *numbers = sys.argv[1:]
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    resource.setrlimit(resource.RLIMIT_AS, (half, half))
    length, width, *blocks = map(int, numbers)
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    one = jax.sharding.SingleDeviceSharding(devices[0])
    format = Format(Layout.AUTO, one) if layout == "own" else one
    heads_first = layout == "own" or way == "layer"  # as a model asks for it
    attend = CONTENDERS[contender](length, width, blocks, heads_first)

    def both(q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array) -> tuple:
        out, pull = jax.vjp(attend, q, k, v)
        return out, pull(d_out)

    def shaped(*shape: int, dtype: str = "bfloat16") -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=one)

    x, inner = shaped(1, length, HEADS, width), HEADS * width
    turns = shaped(1, length, 1, width, dtype="float32")
    programs: dict[str, tuple] = {
        "forward": (attend, x, x, x),
        "both": (both, x, x, x, x),
        "layer": (
            partial(layer, attend),
            shaped(1, length, inner),
            *[shaped(inner, inner)] * 4,
            turns,
            turns,
        ),
    }
    try:
        if way == "backward":
            _, pull = jax.eval_shape(partial(jax.vjp, attend), x, x, x)
            kept = jax.tree.map(lambda a: shaped(*a.shape, dtype=a.dtype), pull)
            programs[way] = (lambda pull, d_out: pull(d_out), kept, x)
        function, *arguments = programs[way]
        found = cycles(function, format, *arguments)
    except Exception as error:  # a contender that cannot is a result too
        found = {"error": str(error).splitlines()[0][:200]}
    print(json.dumps(found), flush=True)
    shutil.rmtree(os.environ["LIBTPU_INIT_ARGS"].partition("=")[2])
    os._exit(0)  # the profiler's shutdown aborts


if __name__ == "__main__":
    main()
