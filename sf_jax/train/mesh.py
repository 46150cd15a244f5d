"""Meshes of devices, and the shardings of weights, train states and batches.

A mesh has four axes. `data` and `fsdp` shard the rows of a batch; `fsdp` shards the weights too,
which are gathered a layer at a time; `tensor` shards heads, hidden widths and the vocabulary;
`sequence` the positions of a row. One table maps the logical axes of declared weights to them.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from sf_jax.kernels.sharded import HEADS, POSITIONS, ROWS
from sf_jax.model import axes, lora
from sf_jax.model.declared import T, Weight, map_declared

AXES = (*ROWS, HEADS, POSITIONS)
# Logical axis of a weight → mesh axis. `fsdp` takes the rows of every matrix beside that.
RULES = dict.fromkeys(
    ("vocab", "heads", "kv_heads", "mlp", "vision_heads", "vision_mlp", "merged_hidden"), HEADS
)


def parse(text: str) -> dict[str, int]:
    """ "fsdp=4,tensor=2" → sizes; one may be -1 and takes the devices left.

    Raises:
      ValueError: something else.
    """
    sizes: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, size = part.partition("=")
        if name not in AXES or name in sizes or not size.removeprefix("-").isdigit():
            raise ValueError(f"mesh {text!r}: {part!r} is no AXIS=SIZE of {', '.join(AXES)}")
        sizes[name] = int(size)
    return sizes


def make(sizes: Mapping[str, int] | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with all four axes.

    Pod slices, which a slower network joins, shard the rows only: `data` is then across slices
    first.

    Args:
      sizes: of the axes, 1 where none is given; one may be -1. None: all devices on `fsdp`.
      devices: all of them by default.

    Raises:
      ValueError: the sizes do not fit the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    wanted = dict.fromkeys(AXES, 1) | dict({"fsdp": -1} if sizes is None else sizes)
    rest = [name for name, size in wanted.items() if size == -1]
    known = math.prod(size for size in wanted.values() if size != -1)
    if len(rest) == 1 and known and count % known == 0:
        wanted[rest[0]] = count // known
    shape = tuple(wanted[name] for name in AXES)
    if min(shape) < 1 or math.prod(shape) != count:
        sizes_text = ",".join(f"{name}={size}" for name, size in wanted.items())
        raise ValueError(f"mesh {sizes_text} does not fit {count} devices")
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices > 1:
        if shape[0] % slices:
            raise ValueError(f"data={shape[0]} is no multiple of {slices} slices")
        inner, outer = (shape[0] // slices, *shape[1:]), (slices, 1, 1, 1)
        grid = mesh_utils.create_hybrid_device_mesh(inner, outer, devices)
    elif devices[0].platform == "tpu":
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        grid = np.array(devices).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def spec(axes: Sequence[str], shape: Sequence[int], mesh: Mesh) -> P:
    """The sharding of an array with these logical axes.

    `fsdp` shards rows, and columns only where it does not divide rows: a TPU stores 128 columns
    together, and pads fewer. Vectors and learned positions are replicated: they are small, and
    gathering them costs a round trip.
    """
    first = int(bool(axes) and axes[0] == "layer")
    if len(axes) - first < 2 or "position" in axes:
        return P()
    names: list[tuple[str, ...]] = [()] * len(axes)
    for at, (axis, size) in enumerate(zip(axes, shape, strict=True)):
        if axis in RULES and size % mesh.shape[RULES[axis]] == 0:
            names[at] = (RULES[axis],)
    for at in range(first, len(axes)):
        wanted = (*names[at], "fsdp")
        if (
            axes[at] != lora.RANK
            and shape[at] % math.prod(mesh.shape[name] for name in wanted) == 0
        ):
            names[at] = wanted
            break
    return P(*(held or None for held in names))


def whole(mesh: Mesh) -> NamedSharding:
    """The sharding of what is replicated on every device."""
    return NamedSharding(mesh, P())


def of_weights(declared: T, mesh: Mesh) -> T:
    """The shardings of a tree of declared weights, as their tree."""
    return map_declared(partial(_of_weight, mesh=mesh), declared)


def _of_weight(weight: Weight, mesh: Mesh) -> Any:
    return NamedSharding(mesh, spec(weight.axes, weight.shape, mesh))


def of_adapter(chosen: lora.LoraConfig, declared: PyTree[Weight], mesh: Mesh) -> lora.Adapter:
    """The shardings of an adapter: its factors are sharded like the sides of their weight."""
    pairs = {
        family: lora.Pair(_of_weight(a, mesh), _of_weight(b, mesh))
        for family, (a, b) in lora.declare_factors(chosen, declared).items()
    }
    return lora.Adapter(pairs, chosen)


def of_optimizer(rule: optax.GradientTransformation, weights: PyTree, shardings: PyTree) -> PyTree:
    """The shardings of an optimiser's state, which is sharded like its parameter.

    Args:
      weights: the trained tree, arrays or shapes; shardings: of it.
    """
    mesh = jax.tree.leaves(shardings)[0].mesh

    def one(x: Any, sharding: NamedSharding) -> Any:
        return x if _is_masked(x) else sharding  # a part of the rule may skip some weights

    return optax.tree.map_params(
        rule,
        one,
        jax.eval_shape(rule.init, weights),
        shardings,
        transform_non_params=lambda _: whole(mesh),
        is_leaf=_is_masked,
    )


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


# Declared axis of an array of a batch → mesh axes that share it, where they divide it.
BATCH_RULES: dict[str, tuple[str, ...]] = {
    axes.BATCH: ROWS,
    axes.SEQUENCE: (POSITIONS,),
    "patch": (POSITIONS,),
    "feature": (POSITIONS,),
}


def batch_spec(declared: Sequence[str], shape: Sequence[int], mesh: Mesh) -> P:
    """The layout of an array of a batch with these declared axes.

    The batch's axis is always shared; others where the mesh divides them.
    """
    names: list[tuple[str, ...] | None] = []
    for axis, size in zip(declared, shape, strict=False):
        held = tuple(name for name in BATCH_RULES.get(axis, ()) if name in mesh.shape)
        parts = math.prod(mesh.shape[name] for name in held)
        shared = axis == axes.BATCH or (parts > 1 and size % parts == 0)
        names.append(held if shared else None)
    while names and names[-1] is None:
        names.pop()
    return P(*names)


def batch_shardings(batch: PyTree, mesh: Mesh) -> PyTree:
    """The shardings of a batch of arrays or shapes, by their declared axes."""
    return axes.map_arrays(
        lambda x, declared: NamedSharding(mesh, batch_spec(declared, x.shape, mesh)), batch
    )


def own_rows(count: int, mesh: Mesh) -> list[int]:
    """Which of a global batch's rows this process has devices for.

    Raises:
      ValueError: the mesh does not divide the rows.
    """
    rows = tuple(axis for axis in ROWS if axis in mesh.shape)
    parts = math.prod(mesh.shape[axis] for axis in rows)
    if count % parts:
        raise ValueError(f"{count} rows cannot be shared among {parts} parts of the mesh")
    held = NamedSharding(mesh, P(rows)).addressable_devices_indices_map((count,))
    return sorted({row for index in held.values() for row in range(count)[(index or ())[0]]})


def put(
    batch: PyTree, mesh: Mesh, rows: Sequence[int] | None = None, count: int | None = None
) -> PyTree:
    """Puts a host batch on the mesh.

    Args:
      rows: which rows of the global batch the host's are, where it holds some only.
      count: rows of the global batch.
    """

    def one(x: jax.Array | np.ndarray, declared: tuple[str, ...]) -> jax.Array:
        axis = declared.index(axes.BATCH)
        sharding = NamedSharding(mesh, batch_spec(declared, x.shape, mesh))
        if rows is None:
            return jax.device_put(x, sharding)
        shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
        first = {row: i for i, row in enumerate(rows)}

        def piece(index: Any) -> np.ndarray:
            wanted = [first[row] for row in range(shape[axis])[index[axis]]]
            taken = np.take(x, wanted, axis)
            return taken[tuple(slice(None) if i == axis else at for i, at in enumerate(index))]

        return jax.make_array_from_callback(shape, sharding, piece)

    return axes.map_arrays(one, batch)
