"""A tree of weights by itself, as an Orbax checkpoint that any mesh can read."""

import os
from pathlib import Path

import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from jaxtyping import PyTree

from sf_jax.media import small_files


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


def check_readable(directory: Path) -> None:
    """Reads all that a local checkpoint stores, one file and one array's piece after another.

    Where one of several reads at once fails, as in `restore`, the others print tracebacks of an
    event loop that is closed.

    Raises:
      ValueError: a file is missing, truncated or damaged, or the checkpoint is empty.
    """
    for path in sorted((*directory.glob("_*"), *directory.glob("array_metadatas/*"))):
        try:
            small_files.parse_json(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path.relative_to(directory)}: {error}") from error
    base = {"driver": "file", "path": f"{_absolute(directory)}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    keys = store.list().result()
    if not keys:
        raise ValueError("it holds no arrays")
    for key in keys:
        if not store.read(key).result().value:  # what is in a missing file is read as no bytes
            raise ValueError(f"the file that holds {key.decode(errors='replace')} is missing")


def _absolute(directory: str | os.PathLike) -> epath.Path:
    text = os.fspath(directory)
    return epath.Path(text if "://" in text else os.path.abspath(text))
