"""Compiles attention with its gradient for eight TPU chips, and lists what each program is made of.

    JAX_PLATFORMS=cpu python -m tests.kernels.compile_on_a_mesh_for_tpu

Needs libtpu (the extra `tpu`) and no TPU: the compiler is given a topology.
"""

import json
import os
import re

os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from tests.kernels.on_a_mesh import MESHES, collectives, compiled_step

TOPOLOGY = "v5e:2x4"


def main() -> None:
    devices = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices
    found = {}
    for name, axes in MESHES.items():
        chips = np.array(devices[: int(np.prod(list(axes.values())))])
        mesh = Mesh(chips.reshape(*axes.values()), tuple(axes))
        for ring in (True, False) if "sequence" in axes else (True,):
            text = compiled_step(mesh, ring, length=1024, width=128, dtype="bfloat16")
            found[f"{name}, {'ring' if ring else 'gathered'}"] = {
                "kernels": sorted(set(re.findall(r"%(attention_\w+?)[.\d]* = ", text))),
                "collectives": collectives(text),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
