"""Compiles a train step of a small model for four TPU chips, and lists what it is made of.

    JAX_PLATFORMS=cpu python -m tests.train.compile_for_tpu

Needs libtpu (the extra `tpu`) and no TPU: the compiler is given a topology.
"""

import json
import os
import re
from functools import partial
from typing import Any

os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sf_jax.model.config import Config, TextConfig, VisionConfig
from sf_jax.model.weights import initialise
from sf_jax.train import objective, step
from tests.train.test_training import language_batch

TOPOLOGY = "v5e:2x2"
VISION = VisionConfig(
    depth=4, hidden_size=128, intermediate_size=96, num_heads=2, out_hidden_size=48,
    num_position_embeddings=49, deepstack_visual_indexes=(1, 2),
)  # fmt: skip
TEXT = TextConfig(
    vocab_size=200, hidden_size=48, intermediate_size=96, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2, head_dim=128, mrope_section=(24, 20, 20),
)  # fmt: skip


def main() -> None:
    config = Config(VISION, TEXT, 7, 8, 9)
    devices = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices
    mesh = Mesh(np.array(devices), ("data",))
    pictures = [np.full(shape, 90, np.uint8) for shape in ((64, 96, 3), (96, 64, 3))]
    batch = language_batch(config, pictures)  # of two rows
    rule = optax.adamw(1e-3)
    take = step.build_step(partial(objective.supervised_loss, config=config), rule, mesh)

    def create() -> Any:
        weights = initialise(config, 0)
        return step.TrainState(jax.numpy.int32(0), weights, rule.init(weights))

    def split(path: tuple, x: Any) -> Any:
        spec = step.batch_spec(path)
        shape = list(x.shape)
        shape[spec.index("data")] = len(devices)
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=NamedSharding(mesh, spec))

    everywhere = NamedSharding(mesh, PartitionSpec())
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
        jax.eval_shape(create),
    )
    given = jax.tree_util.tree_map_with_path(split, batch)
    text = take.lower(state, given).compile().as_text()
    print(json.dumps({
        "kernels": sorted(set(re.findall(r"%(attention_\w+?)[.\d]* = ", text))),
        "collectives": sorted(set(re.findall(
            r"(all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)", text
        ))),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
