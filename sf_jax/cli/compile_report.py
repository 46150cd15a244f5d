"""What `sf-jax compile` reports of a train step that `compile_cell` has compiled."""

import re
from typing import Any

from sf_jax.train.chips import chip_of

COLUMNS = (
    "recipe",
    "slice",
    "mesh",
    "rows a chip",
    "verdict",
    "HBM allocated, GB",
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
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute")


def row(name: str, topology: str, rows: int, axes: str, found: dict[str, Any]) -> list[str]:
    """One line of the table."""
    start = [name, topology, axes, str(rows)]
    if "program" not in found:
        return [*start, verdict(found, topology), *["-"] * (len(COLUMNS) - len(start) - 1)]
    chip, memory, program = chip_of(topology), found["memory"], found["program"]
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


def step_bounds(found: dict[str, Any], topology: str) -> dict[str, float]:
    """Seconds that products, memory and links need at least, were each alone.

    Products are those that the mathematics asks for and those done again. Of the memory only what
    is given and returned is counted, once each; the links are taken to be busy both ways.
    """
    chip, memory, expected = chip_of(topology), found["memory"], found["expected"]
    return {
        "products": (expected["model"] + expected["again"]) / found["chips"] / chip.flops,
        "memory": (memory["argument"] + memory["output"]) / chip.bandwidth,
        "links": sum(found["program"]["sent"].values()) / chip.links,
    }


def verdict(found: dict[str, Any], topology: str) -> str:
    """Whether a step fits a chip, and what to change where it does not."""
    available = chip_of(topology).memory
    if "memory" in found:
        needed = allocated(found["memory"])
        if needed <= available:
            return f"fits, {1 - needed / available:.0%} left"
        return f"does not fit: {needed / 1e9:.1f} of {available / 1e9:.0f} GB; {advice(found)}"
    refused = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) hbm", found["error"])
    if refused:
        return f"does not fit: {refused[1]} of {refused[2]}; {advice(found)}"
    return found["error"].splitlines()[0][:200]


def allocated(memory: dict[str, float]) -> float:
    """X: more than are held at the peak, since they do not move about."""
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
