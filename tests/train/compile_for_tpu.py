"""Compiles a train step of a small model for four TPU chips, and lists what it is made of.

    JAX_PLATFORMS=cpu python -m tests.train.compile_for_tpu

Needs libtpu (the extra `tpu`) and no TPU: the compiler is given a topology.
"""

import json
import os
from dataclasses import replace
from typing import Any

os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

from jax.experimental import topologies

from sf_jax.model.config import Config, TextConfig, VisionConfig
from sf_jax.train import mesh as meshes
from sf_jax.train.hlo import Program, analyse
from sf_jax.train.losses.supervised import SupervisedConfig
from sf_jax.train.sft import Sft

TOPOLOGY = "v5e:2x2"
VISION = VisionConfig(
    depth=4, hidden_size=1024, intermediate_size=2048, num_heads=8, out_hidden_size=512,
    num_position_embeddings=49, deepstack_visual_indexes=(1, 2),
)  # fmt: skip
TEXT = TextConfig(
    vocab_size=4096, hidden_size=512, intermediate_size=2048, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=4, head_dim=128, mrope_section=(24, 20, 20),
)  # fmt: skip
MESHES = ("data=4", "fsdp=4", "fsdp=2,tensor=2")


def compiled(axes: str, layers: int = 4) -> Program:
    text = replace(TEXT, num_hidden_layers=layers)
    config = Config(
        replace(VISION, depth=layers),
        text,
        7,
        8,
        9,
        product_dtype="bfloat16",
        vision_remat="full",
        text_remat="full",
    )
    devices = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices
    mesh = meshes.make(meshes.parse(axes), devices)
    sft = Sft(config, rows=4, length=512, patches=256, objective=SupervisedConfig(chunks=2))
    lowered = sft.build_step(mesh).lower(sft.abstract_state(mesh), sft.abstract_batch(mesh))
    return analyse(lowered.compile().as_text() or "")


def summary(program: Program) -> dict[str, Any]:
    largest: dict[str, int] = {}
    for found in program.collectives:
        largest[found.kind] = max(largest.get(found.kind, 0), found.payload_bytes)
    return {
        "kernels": sorted({k.name for k in program.kernels if k.name.startswith("attention")}),
        "largest": largest, "host_transfers": program.host_transfers,
        "unknown_loops": program.unknown_loops, "instructions": program.instructions,
    }  # fmt: skip


def main() -> None:
    found = {axes: summary(compiled(axes)) for axes in MESHES}
    found["deeper"] = summary(compiled("fsdp=4", layers=8))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
