"""Checkpoint directories of safetensors: one file, or shards that an index lists.

Tensors are read lazily, in pieces.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from sf_jax.media import files, safetensors_files, small_files
from sf_jax.media.errors import DataError
from sf_jax.media.small_files import Kind

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
PIECE = 4_000_000  # values read at once
MOST_BYTES = 16 * 2**20  # of a JSON file; the index of a large model has some megabytes


class CheckpointError(DataError):
    """A checkpoint that cannot be read; the message names file, and tensor or field."""


class Content(Protocol):
    """Values of a tensor in a file; only what the slices select is read."""

    def __getitem__(self, index: Any, /) -> np.ndarray: ...


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of an open file."""

    file: Path
    name: str
    tag: str  # the type as safetensors spells it, a key of `DTYPES`
    shape: tuple[int, ...]
    content: Content

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.tag].itemsize

    def pieces(self, index: tuple[slice, ...] = ()) -> Iterator[tuple[int, np.ndarray]]:
        """What the slices select, in runs of rows, each with the number of its first row."""
        rows, *rest = index or (slice(None),) * len(self.shape)
        first, end, _ = rows.indices(self.shape[0])
        step = max(1, PIECE // max(1, math.prod(self.shape[1:])))
        for start in range(first, end, step):
            found = self.content[(slice(start, min(start + step, end)), *rest)]
            yield start - first, found

    def array(self) -> np.ndarray:
        """The whole tensor."""
        return self.content[...]


def read_json(file: Path) -> Any:
    """The content of a JSON file of a checkpoint directory."""
    if not file.exists():
        raise CheckpointError("no such file; a checkpoint directory holds one", path=file)
    return small_files.read_json(file, CheckpointError, MOST_BYTES)


def read_settings(file: Path, kind: type[Kind]) -> Kind:
    """The declared fields of a JSON file of a checkpoint directory."""
    try:
        return small_files.checked(kind, read_json(file), CheckpointError)
    except CheckpointError as error:
        error.at(path=file)
        raise


def open_file(file: Path) -> dict[str, StoredTensor]:
    """Opens one file.

    Raises:
      CheckpointError: it is missing, truncated, malformed, or of an unsupported type.
    """
    opened = safetensors_files.open_tensors(file, CheckpointError)
    tensors = {}
    for name in opened.keys():  # noqa: SIM118
        content = opened.get_slice(name)
        tag = content.get_dtype()
        if tag not in DTYPES:
            raise CheckpointError(
                f"tensor {name!r} is of type {tag}, expected one of {', '.join(DTYPES)}",
                path=file,
                field=name,
            )
        tensors[name] = StoredTensor(file, name, tag, tuple(content.get_shape()), content)
    return tensors


def open_directory(directory: Path) -> tuple[Path, dict[str, StoredTensor]]:
    """Opens `model.safetensors`, or the shards that an index lists.

    Returns:
      The file that lists the tensors, for messages, and every tensor by name.

    Raises:
      CheckpointError: as `open_file`; or the index and the shards disagree.
    """
    index = directory / INDEX
    if (directory / SINGLE).is_file() or not index.is_file():
        return directory / SINGLE, open_file(directory / SINGLE)
    files_of = read_index(index)
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(files_of.values())):
        if not (directory / shard).is_file():
            raise CheckpointError(f"no such file, though {INDEX} lists it", path=directory / shard)
        tensors |= open_file(directory / shard)
    for name, shard in files_of.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise CheckpointError(
                f"tensor {name!r} is missing, though {INDEX} lists it here",
                path=directory / shard,
                field=name,
            )
    return index, tensors


class _Index(small_files.Settings):
    """The index of a checkpoint's shards."""

    weight_map: dict[str, str]


def read_index(index: Path) -> dict[str, str]:
    """Name of each tensor → file beside the index.

    Raises:
      CheckpointError: the index cannot be read, or names what is no file beside it.
    """
    found = read_settings(index, _Index).weight_map
    for name, shard in found.items():
        if not _names_a_file(shard):
            problem = f"found {small_files.shown(shard)}, expected the name of a file beside it"
            field = f"weight_map.{small_files.shown(name)}"
            raise CheckpointError(problem, path=index, field=field)
    return found


def _names_a_file(text: str) -> bool:
    """Whether a text can name a file of a directory on its own."""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:  # half a character
        return False
    alone = text != ".." and Path(text).name == text
    return 0 < size <= 255 and "\0" not in text and alone


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor made when its file's turn comes, so that one file at a time is in memory."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_directory(directory: Path, tensors: list[TensorToWrite], max_shard_bytes: int) -> None:
    """Writes one file, or shards and their index where more than `max_shard_bytes` are to be held.

    Each file appears whole or not at all; weight files of an earlier save are removed at the end.
    """
    shards: list[list[TensorToWrite]] = [[]]
    held = 0
    for tensor in tensors:
        if shards[-1] and held + tensor.nbytes > max_shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(tensor)
        held += tensor.nbytes
    count = len(shards)
    names = [SINGLE]
    if count > 1:
        names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    for name, shard in zip(names, shards, strict=True):
        with files.replacing(directory / name) as file:
            save_file({tensor.name: tensor.make() for tensor in shard}, file, {"format": "pt"})
    if count > 1:
        file_of = {t.name: name for name, shard in zip(names, shards, strict=True) for t in shard}
        content = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors)},
            "weight_map": dict(sorted(file_of.items())),
        }
        files.write_json(directory / INDEX, content)
        names.append(INDEX)
    for found in directory.iterdir():
        ours = re.fullmatch(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?", found.name)
        if ours and found.name not in names:
            found.unlink()
