"""Arrays whose axes are declared beside them, so that no code has to go by their names.

A class of arrays declares each with `array`: the names of its axes and its type. Abstract shapes,
empty arrays, sharding and micro-batches derive from the declaration.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from flax import struct
from jaxtyping import PyTree
from numpy.typing import DTypeLike

BATCH, SEQUENCE = "batch", "sequence"
UNDECLARED = (BATCH,)  # of an array outside such a class: rows first


class Dataclass(Protocol):
    """A class with fields, or an instance of one."""

    __dataclass_fields__: ClassVar[dict[str, Field]]


def array(*axes: str, dtype: DTypeLike = np.int32, default: object = MISSING) -> Any:
    """A field of a `flax.struct.dataclass` that holds an array with these axes.

    Args:
      dtype: of the array when it is made from its declaration.
      default: an array with one is made only where it is asked for.
    """
    return struct.field(metadata={"axes": axes, "dtype": dtype}, default=default)


def declared(kind: Dataclass | type[Dataclass]) -> dict[str, Field]:
    """The declared arrays of a class or of one of its instances, by name."""
    return {field.name: field for field in fields(kind) if "axes" in field.metadata}


def make(
    kind: type[Dataclass],
    sizes: Mapping[str, int],
    function: Callable[[tuple[int, ...], Any], Any],
    optional: Collection[str] = (),
) -> dict[str, Any]:
    """The declared arrays of a class, each by `function` (shape, dtype).

    Args:
      sizes: of the axes, by name.
      optional: names of arrays to make although they have a default.
    """
    return {
        name: function(
            tuple(sizes[axis] for axis in field.metadata["axes"]), field.metadata["dtype"]
        )
        for name, field in declared(kind).items()
        if field.default is MISSING or name in optional
    }


def map_arrays(function: Callable[[Any, tuple[str, ...]], Any], tree: PyTree) -> PyTree:
    """`function` (array, its axes) over all arrays of a tree; None stays.

    An array outside a class that declares it counts as having rows first.
    """
    if tree is None:
        return None
    if is_dataclass(tree) and not isinstance(tree, type):
        own = declared(tree)
        found = {
            field.name: getattr(tree, field.name)
            for field in fields(tree)
            if field.metadata.get("pytree_node", True)
        }
        return replace(
            tree,
            **{
                name: function(value, own[name].metadata["axes"])
                if name in own and value is not None
                else map_arrays(function, value)
                for name, value in found.items()
            },
        )
    if isinstance(tree, Mapping):
        return {name: map_arrays(function, value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map_arrays(function, value) for value in tree)
    return function(tree, UNDECLARED)
