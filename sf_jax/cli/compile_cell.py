"""One recipe's train step, compiled for a slice of TPUs that need not be there.

    python -m sf_jax.cli.compile_cell RECIPE TOPOLOGY ROWS_A_CHIP MESH

MESH is as `sf-jax train sft --mesh` takes it. Prints a line of JSON. Needs libtpu (extra `tpu`).
"""

import json
import os
import resource
import sys
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

os.environ["TPU_SKIP_MDS_QUERY"] = os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from jax.experimental import topologies

from sf_jax.cli import recipes
from sf_jax.media import files
from sf_jax.train import chips, footprint
from sf_jax.train import mesh as meshes
from sf_jax.train.hlo import Program, analyse


def summary(program: Program) -> dict[str, Any]:
    """What a chip does in one step, as the compiled program has it."""
    moved: dict[str, float] = defaultdict(float)
    sent: dict[str, float] = defaultdict(float)
    for each in program.collectives:
        moved[each.kind] += each.total_bytes
        sent[each.kind] += each.total_bytes * chips.sent_share(each.kind, each.group_size)
    return {
        "products": program.floating_point_operations,
        "moved": moved,
        "sent": sent,
        "unknown_loops": program.unknown_loops,
        "host_transfers": program.host_transfers,
        "instructions": program.instructions,
        "kernels": sorted({k.name for k in program.kernels if k.target == "tpu_custom_call"}),
    }


def main() -> None:
    name, topology, rows, axes = sys.argv[1:]
    experiment = recipes.load("sft")
    recipe = experiment.RECIPES[name]
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = meshes.make(meshes.parse(axes), devices)
    sft = replace(recipe, rows=int(rows) * len(devices)).sft(
        experiment.config_of(recipe.size), mesh
    )
    found: dict[str, Any] = {"chips": len(devices), "expected": footprint.expected(sft, mesh)}
    start = time.monotonic()
    lowered = sft.build_step(mesh).lower(sft.abstract_state(mesh), sft.abstract_batch(mesh))
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        found["error"] = str(error)[:2000]
    else:
        memory = compiled.memory_analysis()
        text = compiled.as_text() or ""
        kinds = ("argument", "output", "alias", "temp", "generated_code")
        found["memory"] = {kind: getattr(memory, f"{kind}_size_in_bytes") for kind in kinds}
        found["memory"]["peak"] = memory.peak_memory_in_bytes
        found["program"] = summary(analyse(text))
        if "SF_JAX_KEEP_HLO" in os.environ:
            files.write_text(os.environ["SF_JAX_KEEP_HLO"], text)
    found["seconds"] = time.monotonic() - start
    found["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
