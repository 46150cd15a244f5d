"""`sf-jax compile`: train steps compiled ahead of time for TPUs that need not be there.

    sf-jax compile 4b-lora 4b-full --topology v5e:4x4 v5p:4x4x4
    sf-jax compile 4b-full --topology v5p:4x4x4 --rows 1 2 4        packed rows a chip

Of each recipe of `sf-jax train sft` on each slice: whether it fits, the HBM of a chip by the
compiler and by our own arithmetic (sf_jax/train/footprint.py), the traffic between chips, and a
bound for the step from the products, the memory and the links. A bound is no measurement: nothing
has run.
Needs libtpu: pip install 'sf_jax[tpu]'.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sf_jax.cli import recipes
from sf_jax.cli.arguments import Parser, UsageError, whole
from sf_jax.media import files

TILE = 16  # rows of a bfloat16 tile: a TPU gathers smaller shards by sums, which move twice as much


def default_mesh(recipe: Any, width: int, topology: str) -> dict[str, int]:
    """The recipe's own mesh on its own slice; else as many chips on `fsdp` as leave whole tiles.

    `width` is that of the model's text layers.
    """
    if topology == recipe.topology:
        return recipe.mesh
    chips = 1
    for side in topology.partition(":")[2].split("x"):
        chips *= int(side)
    fsdp = 1
    while fsdp * 2 <= chips and width % (fsdp * 2 * TILE) == 0:
        fsdp *= 2
    return {"data": chips // fsdp, "fsdp": fsdp}


def compiled(recipe: str, topology: str, rows: int, axes: str) -> dict[str, Any]:
    """What `compile_cell` finds, in a process of its own, as the compiler may crash."""
    here = Path(__file__).parents[2]
    paths = [str(here), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "sf_jax.cli.compile_cell", recipe, topology, str(rows), axes],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"error": f"the compiler failed: {last[:300]}"}
    return json.loads(done.stdout.splitlines()[-1])


def build_parser(table: dict[str, Any]) -> argparse.ArgumentParser:
    parser = Parser(
        prog="sf-jax compile",
        description=__doc__,
    )
    from sf_jax.train import mesh as meshes

    add = parser.add_argument
    add("recipes", nargs="+", choices=table, metavar="RECIPE", help=", ".join(table))
    add("--topology", nargs="+", help="such as v5p:4x4x4 (default: the recipe's own)")
    add("--mesh", type=meshes.parse, help="as fsdp=32,tensor=2 (default: as it suits the slice)")
    add("--rows", nargs="+", type=whole(1, 4096), default=[1], help="packed rows a chip")
    add("--out", type=Path, help="folder for compile.json and compile.md")
    return parser


def main(argv: list[str]) -> None:
    # Asked before jax starts: the compiler then looks for no TPU on this machine.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu"}
    experiment = recipes.load("sft")
    from sf_jax.cli import compile_report
    from sf_jax.train.chips import chip_of

    options = build_parser(experiment.RECIPES).parse_args(argv)
    if find_spec("libtpu") is None:
        raise UsageError("compile needs libtpu, which is not installed: pip install 'sf_jax[tpu]'")
    cells = [
        (name, topology, rows)
        for name in options.recipes
        for topology in options.topology or [experiment.RECIPES[name].topology]
        for rows in options.rows
    ]
    for _, topology, _ in cells:
        chip_of(topology)
    lines, everything = [], []
    bar = tqdm(cells, desc="compile", unit="step")
    for name, topology, rows in bar:
        bar.set_postfix_str(f"{name} on {topology}")
        recipe = experiment.RECIPES[name]
        width = experiment.config_of(recipe.size).text.hidden_size
        sizes = options.mesh or default_mesh(recipe, width, topology)
        axes = ",".join(f"{axis}={size}" for axis, size in sizes.items() if size != 1)
        found = compiled(name, topology, rows, axes)
        everything.append(
            {"recipe": name, "topology": topology, "mesh": axes, "rows": rows, **found}
        )
        lines.append(compile_report.row(name, topology, rows, axes, found))
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            files.write_json(options.out / "compile.json", everything, indent=1)
            files.write_text(options.out / "compile.md", compile_report.table(lines) + "\n")
    print(compile_report.table(lines))
