"""The file of a read-out, `readout.safetensors`: coefficients and landmarks off the vision encoder.

Its coefficients are the direct regression that `sf-jax evaluate` compares with; by its landmarks
faces are framed (`reader/landmarks.py`).
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from sf_jax.convert.tensor_files import CheckpointError
from sf_jax.media import files, safetensors_files
from sf_jax.model.weights import Linear
from sf_jax.train.losses.readout import Readout

FILE = "readout.safetensors"
LINEAR = ("key", "value", "hidden", "out", "parts", "local")


def save(path: Path, readout: Readout) -> None:
    """Writes a read-out in half precision, complete or not at all."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(readout)
    tensors = {jax.tree_util.keystr(name): np.asarray(leaf, np.float16) for name, leaf in leaves}
    with files.replacing(path) as file:
        save_file(tensors, file, {"heads": str(readout.heads)})


def landmarks_of(readout: Readout) -> int:
    """How many landmarks a read-out is of."""
    return readout.local.weight.shape[-1] // 3


def load(path: Path) -> Readout:
    """Reads what `save` wrote, as float32.

    Raises:
      CheckpointError: the file cannot be read, or a tensor is missing.
    """
    opened = safetensors_files.open_tensors(path, CheckpointError)
    tensors = safetensors_files.read_tensors(path, CheckpointError)
    stored = (opened.metadata() or {}).get("heads", "4")  # files of before had 4
    heads = int(stored) if stored.isascii() and stored.isdigit() and len(stored) < 4 else 0
    if not heads:
        raise CheckpointError(f"heads is {stored!r:.60}, expected a count", path=path)
    leaf: Any = 0
    fields = Readout.__dataclass_fields__
    named: dict[str, Any] = {
        name: Linear(leaf, leaf) if name in LINEAR else leaf for name in fields
    }

    def found(name: tuple, _: int) -> jax.Array:
        key = jax.tree_util.keystr(name)
        if key not in tensors:
            raise CheckpointError(f"tensor {key!r} is missing", path=path, field=key)
        return jnp.asarray(tensors[key], jnp.float32)

    return jax.tree_util.tree_map_with_path(found, Readout(**named | {"heads": heads}))
