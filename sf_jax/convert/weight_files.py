"""Weights of any declared model, in and out of directories of safetensors in Hugging Face's names.

A directory holds `model.safetensors`, or shards of it under an index. Weights are read tensor by
tensor into arrays of their final size, so a checkpoint takes about the memory of the weights it
becomes.
"""

import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree
from tqdm import tqdm

from sf_jax.convert.tensor_files import (
    DTYPES,
    CheckpointError,
    StoredTensor,
    TensorToWrite,
    open_directory,
    write_directory,
)
from sf_jax.model.declared import T, Weight, is_weight, leaves, map_declared
from sf_jax.model.layers import require_stacked
from sf_jax.model.linear import AdaptedLinear

BIG = 1_000_000_000  # bytes from which on loading shows its progress
ALIGNMENT = 64  # bytes; JAX on a CPU adopts an array aligned like this, and copies any other

Sharding = Callable[[Weight], jax.sharding.Sharding | None]


def _source_shape(weight: Weight) -> tuple[int, ...]:
    """Shape of each of the checkpoint's tensors that a weight is made of."""
    shape = weight.shape[1:] if weight.stacked else weight.shape
    return weight.source_shape or (shape[::-1] if weight.transposed else shape)


def _fill(out: np.ndarray, tensor: StoredTensor, weight: Weight, index: tuple[slice, ...]) -> None:
    """Copies the part `index` of a stored tensor into `out`, a weight of one layer.

    It goes piece by piece, so that nothing of the tensor's size is needed beside `out`.
    """
    if weight.source_shape:  # stored as a convolution, and small
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
                f"tensor {tensor.name!r} holds NaN or infinity as {out.dtype}",
                path=tensor.file,
                field=tensor.name,
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
    """Turns stored tensors into weights, and remembers which tensors were used."""

    def __init__(self, listing: Path, tensors: dict[str, StoredTensor], dtype: DTypeLike | None):
        self.listing, self.tensors = listing, tensors
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.unread = set(tensors)

    def check(self, weight: Weight) -> None:
        """Every tensor of the weight is there and has its shape."""
        for name in weight.names:
            if name not in self.tensors:
                raise CheckpointError(
                    f"tensor {name!r} is missing, expected shape {_source_shape(weight)}",
                    path=self.listing,
                    field=name,
                )
            self.unread.discard(name)
            tensor = self.tensors[name]
            if tensor.shape != _source_shape(weight):
                raise CheckpointError(
                    f"tensor {name!r} has shape {tensor.shape}, expected {_source_shape(weight)}",
                    path=tensor.file,
                    field=name,
                )

    def _target_dtype(self, weight: Weight) -> np.dtype:
        if self.dtype is not None:
            return self.dtype
        tags = {self.tensors[name].tag for name in weight.names}
        # float32 holds both half types exactly, so a stack of several types loses nothing.
        return DTYPES[tags.pop()] if len(tags) == 1 else DTYPES["F32"]

    def block(self, weight: Weight, index: tuple[slice, ...]) -> np.ndarray:
        """Part of a weight; only that part is read."""
        dtype = self._target_dtype(weight)
        shape = tuple(len(range(n)[part]) for n, part in zip(weight.shape, index, strict=True))
        out = _empty(shape, dtype)
        names, inner = weight.names, index
        if weight.stacked:
            names, inner = names[index[0]], index[1:]
        for i, name in enumerate(names):
            _fill(out[i] if weight.stacked else out, self.tensors[name], weight, inner)
        return out

    def read(self, weight: Weight, sharding: jax.sharding.Sharding | None) -> jax.Array:
        """The whole weight, on the default device or as sharded."""
        if sharding is not None:
            return jax.make_array_from_callback(
                weight.shape, sharding, lambda index: self.block(weight, index or ())
            )
        return jax.device_put(self.block(weight, (slice(None),) * len(weight.shape)))

    def check_rest(self, declared: list[Weight]) -> None:
        """No tensor is left over, except stored copies of a weight."""
        for weight in declared:
            for name in self.unread.intersection(weight.copies):
                copy = self.tensors[name]
                if not _equal(copy, self.tensors[weight.name]):
                    raise CheckpointError(
                        f"tensor {name!r} differs from {weight.name!r}, the weight "
                        "that it is tied to according to the configuration",
                        path=copy.file,
                        field=name,
                    )
                self.unread.discard(name)
        if self.unread:
            name = min(self.unread)
            raise CheckpointError(
                f"unexpected tensor {name!r}", path=self.tensors[name].file, field=name
            )


def load_weights(
    directory: str | os.PathLike,
    declared: T,
    *,
    dtype: DTypeLike | None = jnp.float32,
    sharding: Sharding | None = None,
    progress: bool | None = None,
) -> tuple[T, tuple[tuple[str, str], ...]]:
    """Reads the weights that a tree declares.

    Args:
      dtype: of the weights in memory; None keeps the type each tensor is stored in.
      sharding: of each declared weight; every device then reads its own part only. None, or None
        for a weight: the default device.
      progress: show a bar; None shows one for a gigabyte and more.

    Returns:
      the weights, and name and stored type of every tensor, for `save_weights`.

    Raises:
      CheckpointError: a file or tensor is missing, superfluous, misshapen or not finite.
    """
    listing, tensors = open_directory(Path(directory))
    reader = _Reader(listing, tensors, dtype)
    weights, tree = jax.tree.flatten(declared, is_leaf=is_weight)
    for weight in weights:
        reader.check(weight)
    reader.check_rest(weights)
    size = sum(tensor.nbytes for tensor in tensors.values())
    values = []
    with tqdm(
        total=size,
        unit="B",
        unit_scale=True,
        desc=Path(directory).name,
        disable=not (size >= BIG if progress is None else progress),
    ) as bar:
        for weight in weights:
            values.append(reader.read(weight, sharding(weight) if sharding else None))
            bar.update(sum(tensors[name].nbytes for name in weight.names))
    stored = tuple(sorted((name, tensor.tag) for name, tensor in tensors.items()))
    return jax.tree.unflatten(tree, values), stored


def _layer(value: Array | np.ndarray, number: int) -> np.ndarray:
    """One layer of a stack on the host, without a host copy of the whole stack."""
    on_host = isinstance(value, np.ndarray) or jax.default_backend() == "cpu"
    return np.asarray(value)[number] if on_host else np.asarray(value[number])


def _plan(
    name: str, weight: Weight, value: Array | np.ndarray, layer: int | None, dtype: np.dtype
) -> TensorToWrite:
    """One tensor of a weight's value; it is made when its file is written."""

    def make() -> np.ndarray:
        array = np.asarray(value) if layer is None else _layer(value, layer)
        return _to_source(array.astype(dtype, copy=False), weight)

    return TensorToWrite(name, _source_shape(weight), dtype, make)


def save_weights(
    directory: str | os.PathLike,
    declared: T,
    weights: T,
    dtype: DTypeLike | None = None,
    stored: Iterable[tuple[str, str]] = (),
    max_shard_bytes: int = 2_000_000_000,
) -> None:
    """Writes weights under their declared names; each file appears whole or not at all.

    Args:
      dtype: of the stored tensors. None: the type the tensor has in `stored`, else the type it has.
      stored: name and type of the tensors that were loaded; stored copies of tied weights among
        them are written again.
      max_shard_bytes: larger models are written as several files and an index; one file's tensors
        are in memory at a time.

    Raises:
      ValueError: the weights have an adapter, or layers are unstacked.
    """
    nodes = jax.tree.leaves(weights, is_leaf=lambda node: isinstance(node, AdaptedLinear))
    if any(isinstance(node, AdaptedLinear) for node in nodes):
        raise ValueError("the weights have an adapter; merge it, or save it by itself")
    require_stacked(weights, "save the weights as they were loaded")
    tags = dict(stored)
    tensors: list[TensorToWrite] = []
    copies: list[TensorToWrite] = []

    def type_of(name: str, value: Array | np.ndarray) -> np.dtype:
        return np.dtype(dtype or (DTYPES[tags[name]] if name in tags else value.dtype))

    def collect(weight: Weight, value: Array | np.ndarray) -> None:
        for i, name in enumerate(weight.names):
            layer = i if weight.stacked else None
            tensors.append(_plan(name, weight, value, layer, type_of(name, value)))
        for name in weight.copies:
            if name in tags:
                copies.append(_plan(name, weight, value, None, type_of(name, value)))

    map_declared(collect, declared, weights)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_directory(directory, tensors + copies, max_shard_bytes)


def save_random_weights(
    directory: str | os.PathLike,
    declared: PyTree[Weight],
    seed: int,
    dtype: DTypeLike = jnp.bfloat16,
    max_shard_bytes: int = 1_000_000_000,
) -> None:
    """Writes random weights of any size, one file at a time.

    Matrices are normal with a deviation of 1 / sqrt(inputs), norms are one and biases zero.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors: list[TensorToWrite] = []
    for weight in leaves(declared):
        for name in weight.names:
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
