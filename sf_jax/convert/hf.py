"""Hugging Face checkpoint directories, in and out, and the calls that compute from them.

A directory holds `config.json` and `model.safetensors`, or shards of it under an index. Weights are
read tensor by tensor into arrays of their final size, so a checkpoint takes about the memory of
the weights it becomes.
"""

import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from sf_jax.convert import peft
from sf_jax.convert.hf_config import config_from_dict, config_text, config_to_dict
from sf_jax.convert.hf_forward import forward, generate
from sf_jax.convert.tensor_files import (
    DTYPES,
    CheckpointError,
    StoredTensor,
    TensorToWrite,
    open_directory,
    read_json,
    write_directory,
)
from sf_jax.media import files
from sf_jax.model import lora
from sf_jax.model.config import Config, Source
from sf_jax.model.linear import AdaptedLinear
from sf_jax.model.weights import Weight, Weights

__all__ = [
    "CheckpointError", "config_from_dict", "config_to_dict", "forward", "generate", "load", "save",
]  # fmt: skip

HEAD = "lm_head.weight"
BIG = 1_000_000_000  # bytes from which on loading shows its progress
ALIGNMENT = 64  # bytes; JAX on a CPU adopts an array aligned like this, and copies any other

Sharding = Callable[[Weight], jax.sharding.Sharding | None]


def _is_weight(leaf: Any) -> bool:
    return isinstance(leaf, Weight)


def _stacked(weight: Weight) -> bool:
    return "{}" in weight.name


def _names(weight: Weight) -> list[str]:
    """The tensors that make up a weight: one, or one a layer."""
    if not _stacked(weight):
        return [weight.name]
    return [weight.name.format(i) for i in range(weight.shape[0])]


def _source_shape(weight: Weight) -> tuple[int, ...]:
    shape = weight.shape[1:] if _stacked(weight) else weight.shape
    return weight.source_shape or (shape[::-1] if weight.transposed else shape)


def _fill(out: np.ndarray, tensor: StoredTensor, weight: Weight, index: tuple[slice, ...]) -> None:
    """Copies the part `index` of a stored tensor into `out`, a weight of one layer.

    It goes piece by piece, so that nothing of the tensor's size is needed beside `out`.
    """
    if weight.source_shape:  # the patch embedding: stored as a convolution, and small
        flat = tensor.array().reshape(tensor.shape[0], -1)
        pieces = iter([(0, (flat.T if weight.transposed else flat)[index])])
        rows = out
    else:
        pieces = tensor.pieces(index[::-1] if weight.transposed else index)
        rows = out.T if weight.transposed else out
    for start, piece in pieces:
        part = rows[start : start + len(piece)]
        np.copyto(part, piece, casting="unsafe")
        if not np.isfinite(part).all():
            raise CheckpointError(
                f"{tensor.file}: tensor {tensor.name!r} holds NaN or infinity as {out.dtype}"
            )


def _to_source(array: np.ndarray, weight: Weight) -> np.ndarray:
    array = array.T if weight.transposed else array
    return np.ascontiguousarray(array.reshape(_source_shape(weight)))


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    if (one.tag, one.shape) != (other.tag, other.shape):
        return False
    pairs = zip(one.pieces(), other.pieces(), strict=True)
    return all(np.array_equal(a, b) for (_, a), (_, b) in pairs)


class _Reader:
    """Turns stored tensors into weights, and remembers which tensors were asked for."""

    def __init__(self, listing: Path, tensors: dict[str, StoredTensor], dtype: Any):
        self.listing, self.tensors = listing, tensors
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.unread = set(tensors)

    def check(self, weight: Weight) -> None:
        """Every tensor of the weight is there and has its shape."""
        for name in _names(weight):
            if name not in self.tensors:
                raise CheckpointError(
                    f"{self.listing}: tensor {name!r} is missing, expected shape "
                    f"{_source_shape(weight)}"
                )
            self.unread.discard(name)
            tensor = self.tensors[name]
            if tensor.shape != _source_shape(weight):
                raise CheckpointError(
                    f"{tensor.file}: tensor {name!r} has shape {tensor.shape}, expected "
                    f"{_source_shape(weight)}"
                )

    def _target_dtype(self, weight: Weight) -> np.dtype:
        if self.dtype is not None:
            return self.dtype
        tags = {self.tensors[name].tag for name in _names(weight)}
        # float32 holds both half types exactly, so a stack of several types loses nothing.
        return DTYPES[tags.pop()] if len(tags) == 1 else DTYPES["F32"]

    def block(self, weight: Weight, index: tuple[slice, ...]) -> np.ndarray:
        """Part of a weight; only that part is read."""
        dtype = self._target_dtype(weight)
        shape = tuple(len(range(n)[part]) for n, part in zip(weight.shape, index, strict=True))
        out = _empty(shape, dtype)
        names, inner = _names(weight), index
        if _stacked(weight):
            names, inner = names[index[0]], index[1:]
        for i, name in enumerate(names):
            _fill(out[i] if _stacked(weight) else out, self.tensors[name], weight, inner)
        return out

    def read(self, weight: Weight, sharding: jax.sharding.Sharding | None) -> jax.Array:
        if sharding is not None:
            return jax.make_array_from_callback(
                weight.shape, sharding, lambda index: self.block(weight, index or ())
            )
        return jax.device_put(self.block(weight, (slice(None),) * len(weight.shape)))

    def check_rest(self, config: Config) -> None:
        """No tensor is left over, except a stored copy of a tied embedding."""
        if config.text.tie_word_embeddings and HEAD in self.unread:
            self.unread.discard(HEAD)
            embedding = self.tensors[config.declare().text.embed.name]
            head = self.tensors[HEAD]
            if not _equal(head, embedding):
                raise CheckpointError(
                    f"{head.file}: tensor {HEAD!r} differs from the embedding, though "
                    "config.json says that they are tied"
                )
        if self.unread:
            name = min(self.unread)
            raise CheckpointError(f"{self.tensors[name].file}: unexpected tensor {name!r}")


def load(
    directory: str | os.PathLike,
    adapter: str | os.PathLike | None = None,
    *,
    dtype: Any = jnp.float32,
    sharding: Sharding | None = None,
    progress: bool | None = None,
) -> tuple[Config, Weights]:
    """Reads a Qwen3-VL checkpoint, or a Qwen3 one, whose `vision` is then None.

    Args:
      adapter: directory of a LoRA adapter in PEFT's layout, kept beside the weights; see
        `sf_jax.model.lora` for merging.
      dtype: of the weights in memory; None keeps the type each tensor is stored in.
      sharding: where each declared weight goes; every device then reads its own part only. None,
        or None for a weight: the default device.
      progress: show a bar; None shows one for a gigabyte and more.

    Raises:
      CheckpointError: a file, field or tensor is missing, superfluous, misshapen or not finite, or
        the architecture is another.
    """
    directory = Path(directory)
    file = directory / "config.json"
    content = read_json(file)
    config = config_from_dict(content, file)
    listing, tensors = open_directory(directory)
    reader = _Reader(listing, tensors, dtype)
    declared, tree = jax.tree.flatten(config.declare(), is_leaf=_is_weight)
    for weight in declared:
        reader.check(weight)
    reader.check_rest(config)
    size = sum(tensor.nbytes for tensor in tensors.values())
    leaves = []
    with tqdm(
        total=size,
        unit="B",
        unit_scale=True,
        desc=directory.name,
        disable=not (size >= BIG if progress is None else progress),
    ) as bar:
        for weight in declared:
            leaves.append(reader.read(weight, sharding(weight) if sharding else None))
            bar.update(sum(tensors[name].nbytes for name in _names(weight)))
    stored = tuple(sorted((name, tensor.tag) for name, tensor in tensors.items()))
    config = replace(config, source=Source(file.read_bytes().decode("utf-8"), stored))
    weights = jax.tree.unflatten(tree, leaves)
    if adapter is not None:
        weights = lora.attach(weights, peft.load(adapter, config), config)
    return config, weights


def _slice(value: Any, layer: int) -> np.ndarray:
    """One layer of a stack on the host, without a host copy of the whole stack."""
    on_host = isinstance(value, np.ndarray) or jax.default_backend() == "cpu"
    return np.asarray(value)[layer] if on_host else np.asarray(value[layer])


def save(
    directory: str | os.PathLike,
    config: Config,
    weights: Weights,
    dtype: Any = None,
    max_shard_bytes: int = 2_000_000_000,
) -> None:
    """Writes `config.json` and the weights; each file appears whole or not at all.

    What `load` has read comes back: every field of `config.json`, every tensor under its name.

    Args:
      dtype: of the stored tensors. None: the type the tensor had in the checkpoint that was
        loaded, else the type it has; to keep float32 results of training a bfloat16 checkpoint,
        say float32.
      max_shard_bytes: larger models are written as several files and an index; one file's tensors
        are in memory at a time.

    Raises:
      ValueError: an adapter stands beside the weights, or the text layers are unstacked.
    """
    nodes = jax.tree.leaves(weights, is_leaf=lambda node: isinstance(node, AdaptedLinear))
    if any(isinstance(node, AdaptedLinear) for node in nodes):
        raise ValueError("an adapter stands beside the weights; merge it, or save it by itself")
    if isinstance(weights.text.layers, tuple):
        raise ValueError("the text layers are unstacked; save the weights as they were loaded")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    sources = dict(config.source.dtypes) if config.source else {}
    tensors: list[TensorToWrite] = []

    def plan(name: str, weight: Weight, value: Any, layer: int | None) -> None:
        stored = np.dtype(dtype or (DTYPES[sources[name]] if name in sources else value.dtype))

        def make() -> np.ndarray:
            array = np.asarray(value) if layer is None else _slice(value, layer)
            return _to_source(array.astype(stored, copy=False), weight)

        tensors.append(TensorToWrite(name, _source_shape(weight), stored, make))

    def collect(weight: Weight, value: Any) -> None:
        for i, name in enumerate(_names(weight)):
            plan(name, weight, value, i if _stacked(weight) else None)

    declared = config.declare()
    jax.tree.map(collect, declared, weights, is_leaf=_is_weight)
    if config.text.tie_word_embeddings and HEAD in sources:
        plan(HEAD, declared.text.embed, weights.text.embed, None)
    write_directory(directory, tensors, max_shard_bytes)
    files.write_text(directory / "config.json", config_text(config))


def save_random(
    directory: str | os.PathLike,
    config: Config,
    seed: int,
    dtype: Any = jnp.bfloat16,
    max_shard_bytes: int = 1_000_000_000,
) -> None:
    """Writes a checkpoint of random weights of any size, one file at a time.

    Matrices are normal with a deviation of 1 / sqrt(inputs), norms are one and biases zero.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors: list[TensorToWrite] = []
    for weight in jax.tree.leaves(config.declare(), is_leaf=_is_weight):
        for name in _names(weight):
            shape = _source_shape(weight)

            def make(name: str = name, shape: tuple[int, ...] = shape) -> np.ndarray:
                if len(shape) == 1:
                    kind = np.ones if "norm" in name and name.endswith("weight") else np.zeros
                    return kind(shape, dtype)
                generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
                numbers = generator.standard_normal(shape, np.float32)
                return (numbers * np.float32(shape[-1] ** -0.5)).astype(dtype)

            tensors.append(TensorToWrite(name, shape, np.dtype(dtype), make))
    write_directory(directory, tensors, max_shard_bytes)
    files.write_text(directory / "config.json", config_text(config))
