"""Compiles the whole answer of the built-in model for a TPU, and lists the compiled operations.

    JAX_PLATFORMS=cpu python -m tests.decode.compile_for_tpu

Needs libtpu (the extra `tpu`) and no TPU: the compiler is given a topology.
"""

import json
import os
import re
from dataclasses import replace

os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
import numpy as np
from jax.experimental import topologies

import sf_jax
from sf_jax.convert import hf
from sf_jax.decode import decoder
from sf_jax.decode.policy import policy_of
from sf_jax.reader import loading

TOPOLOGY = "v5e:2x2"


def main() -> None:
    given: list = []

    def record(*arguments: object) -> None:
        given.extend(arguments)

    generate, decoder.generate = decoder.generate, record  # type: ignore[assignment]
    model = sf_jax.load()
    config, weights = hf.load(loading.BUILTIN, None, dtype=jax.numpy.bfloat16)
    model.decoder = decoder.Decoder(
        replace(config, product_dtype="bfloat16"),
        weights,
        model.tokenizer,
        model.schema,
        model.decoder.draft_heads,
        policy_of("tpu", weights.text.layers, "bfloat16"),
    )
    model.generate(*model.inputs([np.full((96, 96, 3), 90, np.uint8)]))

    devices = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices
    one = jax.sharding.SingleDeviceSharding(devices[0])

    def abstract(leaf: object) -> object:
        if isinstance(leaf, np.ndarray | jax.Array):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one)
        return leaf

    text = generate.lower(*jax.tree.map(abstract, given)).compile().as_text()
    print(
        json.dumps(
            {
                "operations": sorted(set(re.findall(r"(?<=[\])}] )([a-z][a-z0-9-]*)\(", text))),
                "custom": sorted(set(re.findall(r'custom_call_target="([^"]*)"', text))),
            }
        )
    )


if __name__ == "__main__":
    main()
