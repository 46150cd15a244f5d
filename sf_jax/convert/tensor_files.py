"""safetensors files, read in place through memory maps and written tensor by tensor.

A file is eight bytes of header length, a JSON header that gives each tensor's type, shape and byte
range, then the bytes. Mapping the file instead of reading it keeps checkpoints larger than half of
the memory loadable: pages of a mapped file can be dropped at any time.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
TAGS = {dtype: tag for tag, dtype in DTYPES.items()}


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message names file, and tensor or field."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a mapped file; `array` reads from the file when it is used."""

    file: Path
    tag: str  # the type as safetensors spells it, a key of `DTYPES`
    array: np.ndarray


def read_json(file: Path) -> Any:
    """The content of a JSON file of a checkpoint directory."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: no such file; a checkpoint directory holds one") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not JSON: {error}") from error


def _header(file: Path, data: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """The tensors' entries and the bytes behind the header."""
    start = 8 + int(data[:8].view("<u8")[0]) if len(data) >= 8 else 9
    if start > len(data):
        raise CheckpointError(
            f"{file}: not a readable safetensors file: {len(data)} bytes end within the header"
        )
    try:
        entries = dict(json.loads(data[8:start].tobytes()))
    except ValueError as error:
        raise CheckpointError(f"{file}: not a readable safetensors file: {error}") from error
    entries.pop("__metadata__", None)
    return entries, data[start:]


def open_file(file: Path) -> dict[str, StoredTensor]:
    """Maps one file.

    Raises:
      CheckpointError: it is missing, truncated, malformed, or of an unsupported type.
    """
    try:
        entries, data = _header(file, np.memmap(file, np.uint8, "r"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: no such file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file}: not a readable safetensors file: {error}") from error
    return {name: _tensor(file, name, entry, data) for name, entry in entries.items()}


def _tensor(file: Path, name: str, entry: Any, data: np.ndarray) -> StoredTensor:
    try:
        tag, shape = entry["dtype"], tuple(int(n) for n in entry["shape"])
        start, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: not a readable safetensors file: malformed entry of tensor {name!r}"
        ) from error
    if tag not in DTYPES:
        raise CheckpointError(
            f"{file}: tensor {name!r} is of type {tag}, expected one of {', '.join(DTYPES)}"
        )
    if end > len(data):
        raise CheckpointError(
            f"{file}: not a readable safetensors file: truncated, tensor {name!r} ends at byte "
            f"{end} of the data, the file holds {len(data)}"
        )
    size = int(np.prod(shape, dtype=np.int64)) * DTYPES[tag].itemsize
    if start < 0 or end - start != size:
        raise CheckpointError(
            f"{file}: not a readable safetensors file: tensor {name!r} of shape {shape} and type "
            f"{tag} takes {size} bytes, its entry says {end - start}"
        )
    return StoredTensor(file, tag, data[start:end].view(DTYPES[tag]).reshape(shape))


def open_directory(directory: Path) -> tuple[Path, dict[str, StoredTensor]]:
    """Maps `model.safetensors`, or the shards that an index lists.

    Returns:
      The file that says which tensors there are, for messages, and every tensor by name.

    Raises:
      CheckpointError: as `open_file`; or the index and the shards disagree.
    """
    index = directory / INDEX
    if (directory / SINGLE).is_file() or not index.is_file():
        return directory / SINGLE, open_file(directory / SINGLE)
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict):
        raise CheckpointError(f"{index}: field 'weight_map' is missing")
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(places.values())):
        if not (directory / shard).is_file():
            raise CheckpointError(f"{directory / shard}: no such file, though {INDEX} lists it")
        tensors |= open_file(directory / shard)
    for name, shard in places.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise CheckpointError(
                f"{directory / shard}: tensor {name!r} is missing, though {INDEX} places it here"
            )
    return index, tensors


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor made when its turn comes, so that one at a time is in memory."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write_directory(directory: Path, tensors: list[TensorToWrite], max_shard_bytes: int) -> None:
    """Writes one file, or shards and their index where more than `max_shard_bytes` are to be held.

    Each file appears whole or not at all; weight files of an earlier save are removed at the end.
    """
    shards: list[list[TensorToWrite]] = [[]]
    held = 0
    # Wide types first keeps every tensor aligned to its own width.
    for tensor in sorted(tensors, key=lambda t: -t.dtype.itemsize):
        if shards[-1] and held + tensor.size > max_shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(tensor)
        held += tensor.size
    count = len(shards)
    names = [SINGLE]
    if count > 1:
        names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    for name, shard in zip(names, shards, strict=True):
        _write_file(directory / name, shard)
    if count > 1:
        places = {t.name: name for name, shard in zip(names, shards, strict=True) for t in shard}
        content = {
            "metadata": {"total_size": sum(tensor.size for tensor in tensors)},
            "weight_map": dict(sorted(places.items())),
        }
        write_text(directory / INDEX, json.dumps(content, indent=2) + "\n")
        names.append(INDEX)
    for file in directory.iterdir():
        ours = re.fullmatch(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?", file.name)
        if ours and file.name not in names:
            file.unlink()


def _write_file(file: Path, tensors: list[TensorToWrite]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": TAGS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.size],
        }
        at += tensor.size
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    partial = file.with_name(file.name + ".partial")
    with open(partial, "wb") as out:
        out.write(len(content).to_bytes(8, "little") + content)
        for tensor in tensors:
            array = np.ascontiguousarray(tensor.make().astype(tensor.dtype, copy=False))
            assert array.shape == tensor.shape, tensor
            out.write(array.reshape(-1).view(np.uint8).data)
    os.replace(partial, file)


def write_text(file: Path, content: str) -> None:
    """Writes a text file whole or not at all."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(content)
    os.replace(partial, file)
