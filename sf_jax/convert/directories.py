"""Model directories in other layouts: Hugging Face ↔ Orbax, and adapters merged into their base.

An imported directory holds `config.json`, the tokenizer's and processor's files, `stored.json`
(types and shapes), `weights/`, an Orbax tree, and checksums of all of these. What is read is
verified where it has checksums.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from pydantic import BeforeValidator

from sf_jax.convert import checksums, hf, orbax, peft
from sf_jax.convert.hf_config import config_from_dict
from sf_jax.convert.tensor_files import CheckpointError, read_json, read_settings
from sf_jax.media import files
from sf_jax.media.small_files import Settings
from sf_jax.model import lora
from sf_jax.model.config import Config, Source
from sf_jax.model.declared import abstract
from sf_jax.model.weights import Weights

Dtype = Literal["float32", "float16", "bfloat16"]
WEIGHTS, STORED = "weights", "stored.json"


def _pair(value: object) -> object:
    """A list as the tuple that is declared: in strict mode neither is taken for the other."""
    return tuple(value) if isinstance(value, list) else value


def _copy_side_files(source: Path, out: Path) -> None:
    for name in checksums.SIDE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def import_checkpoint(source: Path, out: Path, dtype: DTypeLike | None = None) -> int:
    """Hugging Face directory → imported directory. `dtype` None keeps each tensor's own.

    Returns:
      how many numbers the weights hold.
    """
    with files.folder(out) as folder:
        checksums.verify(source)
        config, weights = hf.load(source, dtype=dtype)
        assert config.source is not None
        _copy_side_files(source, folder)
        (folder / "config.json").write_bytes(config.source.config_json.encode("utf-8"))
        named = jax.tree.leaves_with_path(weights)
        stored = {
            "tensors": dict(config.source.dtypes),
            "weights": {jax.tree_util.keystr(k): [str(x.dtype), x.shape] for k, x in named},
        }
        (folder / STORED).write_text(json.dumps(stored))
        orbax.save(folder / WEIGHTS, weights)
        checksums.seal(folder, WEIGHTS)
    return sum(leaf.size for leaf in jax.tree.leaves(weights))


class Stored(Settings):
    """The fields of `stored.json`: type of each tensor, and type and shape of each weight."""

    tensors: dict[str, Literal["F32", "F16", "BF16"]]
    weights: dict[str, Annotated[tuple[Dtype, list[int]], BeforeValidator(_pair)]]


def load_imported(directory: Path, like: Weights | None = None) -> tuple[Config, Weights]:
    """An imported directory's configuration and weights.

    Args:
      like: see `convert.orbax.restore`; None restores each weight as it was saved.

    Raises:
      CheckpointError: a file is missing, cannot be read or differs from its checksum.
    """
    sealed = checksums.verify(directory) is not None
    file = directory / "config.json"
    config = config_from_dict(read_json(file), file)
    stored = read_settings(directory / STORED, Stored)
    if not (directory / WEIGHTS).is_dir():
        raise CheckpointError(
            "no such folder; an imported model holds one", path=directory / WEIGHTS
        )
    types = tuple(sorted(stored.tensors.items()))
    config = replace(config, source=Source(file.read_bytes().decode("utf-8"), types))
    like = _expected(config, stored.weights, directory / STORED) if like is None else like
    try:
        if not sealed:
            orbax.check_readable(directory / WEIGHTS)
        return config, orbax.restore(directory / WEIGHTS, like)
    except Exception as error:  # Orbax and its storage raise many kinds
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise CheckpointError(f"not readable: {first}", path=directory / WEIGHTS) from error


def _expected(config: Config, stored: dict[str, tuple[Dtype, list[int]]], file: Path) -> Weights:
    """The tree that was saved, checked against the configuration, to go to the first device."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def leaf(path: tuple, weight: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        name = jax.tree_util.keystr(path)
        if name not in stored:
            raise CheckpointError(f"weight {name!r} is missing", path=file, field=name)
        dtype, shape = stored[name]
        if tuple(shape) != weight.shape:
            raise CheckpointError(
                f"weight {name!r} has shape {tuple(shape)}, expected {weight.shape} by config.json",
                path=file,
                field=name,
            )
        return jax.ShapeDtypeStruct(weight.shape, jnp.dtype(dtype), sharding=here)

    expected = jax.tree_util.tree_map_with_path(leaf, abstract(config.declare()))
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(expected)}
    for name in sorted(stored.keys() - names):
        problem = f"weight {name!r} is none of the model's by config.json"
        raise CheckpointError(problem, path=file, field=name)
    return expected


def export_checkpoint(source: Path, out: Path, dtype: DTypeLike | None = None) -> int:
    """Imported directory → Hugging Face directory. `dtype` None: as the tensors were stored."""
    with files.folder(out) as folder:
        config, weights = load_imported(source)
        _copy_side_files(source, folder)
        hf.save(folder, config, weights, dtype)
        checksums.seal(folder)
    return sum(leaf.size for leaf in jax.tree.leaves(weights))


def merge_adapter(source: Path, adapter: Path, out: Path, dtype: DTypeLike | None = None) -> int:
    """Hugging Face directory and LoRA adapter → one Hugging Face directory.

    Sums are made in float32 and stored in the base's types, or in `dtype`. Base and sum are in
    memory together.
    """
    with files.folder(out) as folder:
        checksums.verify(source)
        checksums.verify(adapter)
        # To be rounded once, sums in another type start from all that is stored.
        config, weights = hf.load(source, dtype=None if dtype is None else jnp.float32)
        merged = lora.merge(weights, peft.load(adapter, config.declare()), config.declare())
        _copy_side_files(source, folder)
        hf.save(folder, config, merged, dtype)
        checksums.seal(folder)
    return sum(leaf.size for leaf in jax.tree.leaves(merged))
