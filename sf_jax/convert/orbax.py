"""A tree of weights by itself, as an Orbax checkpoint that any mesh can read."""

import os

import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree


def save(directory: str | os.PathLike, weights: PyTree) -> None:
    """Writes a tree of arrays; the directory may be at a `gs://` address."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(_absolute(directory), weights)


def restore(directory: str | os.PathLike, like: PyTree) -> PyTree:
    """Reads a tree of arrays.

    Args:
      like: the tree as arrays or `jax.ShapeDtypeStruct`s; a struct's sharding says where an array
        goes, and its dtype what it becomes.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(_absolute(directory), like)


def _absolute(directory: str | os.PathLike) -> epath.Path:
    text = os.fspath(directory)
    return epath.Path(text if "://" in text else os.path.abspath(text))
