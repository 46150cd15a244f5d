"""Hugging Face checkpoint directories of Qwen3-VL, in and out, and the calls that compute.

A directory holds `config.json` and the weights; see `convert.weight_files` for those.
"""

import os
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
from jax.typing import DTypeLike

from sf_jax.convert import checksums, peft
from sf_jax.convert.hf_config import config_from_dict, config_text, config_to_dict
from sf_jax.convert.hf_forward import forward, generate
from sf_jax.convert.tensor_files import CheckpointError, read_json
from sf_jax.convert.weight_files import (
    Sharding,
    load_weights,
    save_random_weights,
    save_weights,
)
from sf_jax.media import files
from sf_jax.model import lora
from sf_jax.model.config import Config, Source
from sf_jax.model.weights import Weights

__all__ = [
    "CheckpointError",
    "config_from_dict",
    "config_to_dict",
    "forward",
    "generate",
    "load",
    "save",
    "save_random",
]


def load(
    directory: str | os.PathLike,
    adapter: str | os.PathLike | None = None,
    *,
    dtype: DTypeLike | None = jnp.float32,
    sharding: Sharding | None = None,
    progress: bool | None = None,
) -> tuple[Config, Weights]:
    """Reads a Qwen3-VL checkpoint, or a Qwen3 one, whose `vision` is then None.

    Args:
      adapter: directory of a LoRA adapter in PEFT's layout, attached to the weights; see
        `sf_jax.model.lora` for merging.
      dtype, sharding, progress: see `weight_files.load_weights`.

    Raises:
      CheckpointError: a file, field or tensor is missing, superfluous, misshapen or not finite, or
        the architecture is another.
    """
    file = Path(directory) / "config.json"
    config = config_from_dict(read_json(file), file)
    declared = config.declare()
    weights, stored = load_weights(
        directory, declared, dtype=dtype, sharding=sharding, progress=progress
    )
    config = replace(config, source=Source(file.read_bytes().decode("utf-8"), stored))
    if adapter is not None:
        weights = lora.attach(weights, peft.load(adapter, declared), declared)
    return config, weights


def save(
    directory: str | os.PathLike,
    config: Config,
    weights: Weights,
    dtype: DTypeLike | None = None,
    max_shard_bytes: int = 2_000_000_000,
) -> None:
    """Writes `config.json` and the weights; each file appears whole or not at all.

    What `load` has read comes back: every field of `config.json`, every tensor under its name.
    Checksums of before are removed; `checksums.seal` writes new ones once all files are there.

    Args:
      dtype: of the stored tensors. None: the type the tensor had in the checkpoint that was
        loaded, else the type it has; for float32 results of training a bfloat16 checkpoint, give
        float32.
      max_shard_bytes: see `weight_files.save_weights`.

    Raises:
      ValueError: the weights have an adapter, or layers are unstacked.
    """
    checksums.unseal(Path(directory))
    stored = config.source.dtypes if config.source else ()
    save_weights(directory, config.declare(), weights, dtype, stored, max_shard_bytes)
    files.write_text(Path(directory) / "config.json", config_text(config))


def save_random(
    directory: str | os.PathLike,
    config: Config,
    seed: int,
    dtype: DTypeLike = jnp.bfloat16,
    max_shard_bytes: int = 1_000_000_000,
) -> None:
    """Writes a checkpoint of random weights of any size; see `weight_files.save_random_weights`."""
    save_random_weights(directory, config.declare(), seed, dtype, max_shard_bytes)
    files.write_text(Path(directory) / "config.json", config_text(config))
