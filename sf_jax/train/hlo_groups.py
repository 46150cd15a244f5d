"""Groups of devices among which a collective of a compiled XLA program runs."""

import math
import re

import numpy as np

from sf_jax.train.hlo_text import Instruction


def _numbers(text: str) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", text)]


def _counted(text: str) -> np.ndarray:
    """Device numbers written as `[4,2]T(1,0)`, the devices of a mesh in another order."""
    found = re.search(r"\[([\d,]*)\](?:T\(([\d,]*)\))?$", text)
    if not found:
        return np.array(_numbers(text))
    sizes = _numbers(found[1])
    order = _numbers(found[2]) if found[2] else range(len(sizes))
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(order).reshape(-1)


def group_of(it: Instruction, devices: int) -> tuple[int, ...]:
    """The devices of the first group, from any of the ways in which groups are written."""
    if it.opcode.startswith("collective-permute"):
        found = re.search(r"source_target_pairs=\{(\{[\d,{}\s]*\})?\}", it.line)
        pairs = re.findall(r"(\d+),\s*(\d+)", found[1] or "") if found else []
        return _connected([(int(source), int(target)) for source, target in pairs])
    mesh = re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?\)?)\))? \{([^}]*)\}", it.line
    )
    if mesh:
        axes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", mesh[1])}
        devices_of = _counted(mesh[2]) if mesh[2] else np.arange(math.prod(axes.values()))
        return _along(axes, devices_of, mesh[3])
    counted = re.search(r"replica_groups=\[([\d,]*)\](<=\S*?\](?:T\([\d,]*\))?)", it.line)
    if counted:
        return tuple(_counted(counted[2])[: _numbers(counted[1])[-1]].tolist())
    listed = re.search(r"replica_groups=\{\{([\d,\s]*)\}", it.line)
    return tuple(_numbers(listed[1])) if listed else tuple(range(devices))


def _along(axes: dict[str, int], devices: np.ndarray, named: str) -> tuple[int, ...]:
    """The devices along the named axes of a mesh, or along parts of them such as 'x':(2)4."""
    chosen = {name: [0] for name in axes}
    for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", named):
        count = int(size or axes[name])
        stride = axes[name] // (int(before or 1) * count)
        chosen[name] = [at + i * stride for at in chosen[name] for i in range(count)]
    grid = devices.reshape(tuple(axes.values()))
    return tuple(grid[np.ix_(*chosen.values())].reshape(-1).tolist())


def _connected(pairs: list[tuple[int, int]]) -> tuple[int, ...]:
    """All devices connected by pairs, beginning with the first pair."""
    group = dict.fromkeys(pairs[0] if pairs else ())
    size = -1
    while len(group) > size:
        size = len(group)
        for pair in pairs:
            if pair[0] in group or pair[1] in group:
                group |= dict.fromkeys(pair)
    return tuple(group)
