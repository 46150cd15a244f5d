"""`sf-jax compile`: train steps compiled ahead of time for TPUs that need not be there.

    sf-jax compile 4b-lora 4b-full --topology v5e:4x4 v5p:4x4x4
    sf-jax compile 4b-full --topology v5p:4x4x4 --rows 1 2 4        packed rows a chip

Of each recipe of `sf-jax train sft` on each slice: whether it fits, the HBM of a chip by the
compiler and by our own arithmetic (sf_jax/train/footprint.py), what travels between chips, and a
bound for the step from the products, the memory and the links. A bound is no measurement: nothing
has run.
Needs libtpu: pip install 'sf_jax[tpu]'.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.sft import RECIPES, Recipe, config_of
from sf_jax.cli.arguments import Parser, UsageError, whole
from sf_jax.media import files
from sf_jax.train import footprint
from sf_jax.train import mesh as meshes

COLUMNS = (
    "recipe",
    "slice",
    "mesh",
    "rows a chip",
    "verdict",
    "HBM set aside, GB",
    "peak, GB",
    "peak by formula",
    "state and batch, GB",
    "state and batch by formula",
    "all-gather, GB",
    "all-reduce, GB",
    "reduce-scatter, GB",
    "permute, GB",
    "products, s",
    "memory, s",
    "links, s",
    "step bound, s",
    "MFU bound",
    "compiled in, s",
)
TILE = 16  # rows of a bfloat16 tile: a TPU gathers smaller shards by sums, which move twice as much


def default_mesh(recipe: Recipe, topology: str) -> dict[str, int]:
    """The recipe's own mesh on its own slice; else as many chips on `fsdp` as leave whole tiles."""
    if topology == recipe.topology:
        return recipe.mesh
    chips = 1
    for side in topology.partition(":")[2].split("x"):
        chips *= int(side)
    width, fsdp = config_of(recipe.size).text.hidden_size, 1
    while fsdp * 2 <= chips and width % (fsdp * 2 * TILE) == 0:
        fsdp *= 2
    return {"data": chips // fsdp, "fsdp": fsdp}


def compiled(recipe: str, topology: str, rows: int, axes: str) -> dict[str, Any]:
    """What a process of its own found, which the compiler may take down."""
    here = Path(__file__).parents[2]
    paths = [str(here), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "sf_jax.bench.compile_cell", recipe, topology, str(rows), axes],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"error": f"the compiler failed: {last[:300]}"}
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, topology: str, rows: int, axes: str, found: dict[str, Any]) -> list[str]:
    """One line of the table."""
    start = [name, topology, axes, str(rows)]
    if "program" not in found:
        return [*start, verdict(found, topology), *["-"] * (len(COLUMNS) - len(start) - 1)]
    chip, memory, program = footprint.chip_of(topology), found["memory"], found["program"]
    expected, chips = found["expected"], found["chips"]
    bounds = step_bounds(found, topology)
    longest = max(bounds.values())
    moved = {kind: size / 1e9 for kind, size in program["moved"].items()}
    return [
        *start,
        verdict(found, topology),
        f"{allocated(memory) / 1e9:.2f}",
        f"{memory['peak'] / 1e9:.2f}",
        f"{expected['peak'] / 1e9:.2f}",
        f"{memory['argument'] / 1e9:.3f}",
        f"{(expected['state'] + expected['batch']) / 1e9:.3f}",
        *(f"{moved.get(kind, 0):.1f}" for kind in KINDS),
        *(f"{seconds:.3f}" for seconds in bounds.values()),
        f"{longest:.3f}",
        f"{expected['model'] / chips / chip.flops / longest:.0%}",
        f"{found['seconds']:.0f}",
    ]


KINDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute")


def step_bounds(found: dict[str, Any], topology: str) -> dict[str, float]:
    """Seconds that products, memory and links need at least, were each alone.

    Products are those that the mathematics asks for and those done again. Of the memory only what
    is given and returned is counted, once each; the links are taken to be busy both ways.
    """
    chip, memory, expected = footprint.chip_of(topology), found["memory"], found["expected"]
    return {
        "products": (expected["model"] + expected["again"]) / found["chips"] / chip.flops,
        "memory": (memory["argument"] + memory["output"]) / chip.bandwidth,
        "links": sum(found["program"]["sent"].values()) / chip.links,
    }


def verdict(found: dict[str, Any], topology: str) -> str:
    """Whether a step fits a chip, and what to change where it does not."""
    available = footprint.chip_of(topology).memory
    if "memory" in found:
        needed = allocated(found["memory"])
        if needed <= available:
            return f"fits, {1 - needed / available:.0%} left"
        return f"does not fit: {needed / 1e9:.1f} of {available / 1e9:.0f} GB; {advice(found)}"
    said = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) hbm", found["error"])
    if said:
        return f"does not fit: {said[1]} of {said[2]}; {advice(found)}"
    return found["error"].splitlines()[0][:200]


def allocated(memory: dict[str, float]) -> float:
    """Bytes set aside on a chip: more than are held at the peak, since they do not move about."""
    kinds = ("argument", "temp", "generated_code", "output")
    return sum(memory[kind] for kind in kinds) - memory["alias"]


def advice(found: dict[str, Any]) -> str:
    """What takes the most, and what would make it less."""
    expected = found["expected"]
    passing = expected["peak"] - expected["state"] - expected["batch"]
    if expected["state"] > passing:
        return "more chips on fsdp or tensor, or adapters in place of full fine-tuning"
    return "fewer rows a chip, --accumulate, more parts of the loss, or more chips on tensor"


def table(lines: list[list[str]]) -> str:
    """Markdown."""
    rule = ["---"] * len(COLUMNS)
    return "\n".join("| " + " | ".join(line) + " |" for line in ([*COLUMNS], rule, *lines))


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sf-jax compile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipes", nargs="+", choices=RECIPES, metavar="RECIPE", help=", ".join(RECIPES))
    add("--topology", nargs="+", help="such as v5p:4x4x4 (default: the recipe's own)")
    add("--mesh", type=meshes.parse, help="as fsdp=32,tensor=2 (default: as it suits the slice)")
    add("--rows", nargs="+", type=whole(1, 4096), default=[1], help="packed rows a chip")
    add("--out", type=Path, help="folder for compile.json and compile.md")
    return parser


def main(argv: list[str]) -> None:
    options = build_parser().parse_args(argv)
    if find_spec("libtpu") is None:
        raise UsageError("compile needs libtpu, which is not installed: pip install 'sf_jax[tpu]'")
    cells = [
        (name, topology, rows)
        for name in options.recipes
        for topology in options.topology or [RECIPES[name].topology]
        for rows in options.rows
    ]
    for _, topology, _ in cells:
        footprint.chip_of(topology)
    lines, everything = [], []
    bar = tqdm(cells, desc="compile", unit="step")
    for name, topology, rows in bar:
        bar.set_postfix_str(f"{name} on {topology}")
        sizes = options.mesh or default_mesh(RECIPES[name], topology)
        axes = ",".join(f"{axis}={size}" for axis, size in sizes.items() if size != 1)
        found = compiled(name, topology, rows, axes)
        everything.append(
            {"recipe": name, "topology": topology, "mesh": axes, "rows": rows, **found}
        )
        lines.append(row(name, topology, rows, axes, found))
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            files.write_json(options.out / "compile.json", everything, indent=1)
            files.write_text(options.out / "compile.md", table(lines) + "\n")
    print(table(lines))
