"""Safetensors files, opened only once their header is known to describe what they contain.

The safetensors library reads the header too, but a file that is something else may be taken for one
whose header has 10^18 bytes, and its errors do not say which tensor is at fault.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open

from sf_jax.media import small_files
from sf_jax.media.errors import DataError
from sf_jax.media.small_files import Errors, Settings

MOST_HEADER_BYTES = 16 * 2**20
MOST_NAME = 1000  # characters
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "F4": 4,
}  # of a value, by the type's name


Count = Annotated[int, Field(ge=0, lt=2**63)]


class Entry(Settings):
    """A tensor in the header of a file."""

    dtype: str
    shape: list[Count] = Field(max_length=16)
    data_offsets: list[Count] = Field(min_length=2, max_length=2)


@dataclass(frozen=True)
class _Header:
    """The tensors that a file declares, and the bytes that it has for them."""

    entries: dict[str, Entry]
    data_bytes: int


def open_tensors(path: str | os.PathLike, error: Errors = DataError) -> Any:
    """The safetensors library's view of a file, whose tensors come as numpy arrays.

    Args:
      error: the class of what is raised.

    Raises:
      DataError, of the class asked for: the file is missing, truncated or no safetensors file; the
        tensors do not fill it without gap and overlap; or a tensor's type is unknown. Names the
        tensor.
    """
    try:
        _check(_header(Path(path), error), error)
        return safe_open(path, framework="np")
    except DataError as fault:
        fault.at(path=path)
        raise
    except (SafetensorError, OSError) as fault:
        raise error(f"not a readable safetensors file: {fault}", path=path) from fault


def read_tensors(path: str | os.PathLike, error: Errors = DataError) -> dict[str, np.ndarray]:
    """All tensors of a file; see `open_tensors`."""
    opened = open_tensors(path, error)
    try:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, AttributeError) as fault:  # a type that numpy lacks
        raise error(f"not readable as numpy arrays: {fault}", path=path) from fault


def _header(path: Path, error: Errors) -> _Header:
    if not path.exists():
        raise error("no such file")
    if not path.is_file():
        raise error("not a file")
    size = path.stat().st_size
    with path.open("rb") as file:
        beginning = file.read(64)
        what = small_files.recognised(beginning)
        if what is not None:
            raise error(f"not a safetensors file: {what}")
        length = int.from_bytes(beginning[:8], "little")
        if size < 8 or length > size - 8:
            raise error(
                f"not a readable safetensors file: its header is to have {length} bytes, the file "
                f"has {size}; truncated, or of another kind"
            )
        if length > MOST_HEADER_BYTES:
            raise error(f"not a readable safetensors file: a header of {length} bytes")
        file.seek(8)
        text = file.read(length)
    try:
        content = small_files.parse_json(text, error)
    except DataError as fault:
        if fault.field is not None:
            raise error(f"tensor {fault.field!r} is given twice", field=fault.field) from fault
        raise error(f"not a readable safetensors file: header: {fault.problem}") from fault
    if not isinstance(content, dict):
        raise error("not a readable safetensors file: the header is no object")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        raise error("metadata is no object of texts", field="__metadata__")
    entries = {name: _entry(name, value, error) for name, value in content.items()}
    return _Header(entries, size - 8 - length)


def _entry(name: str, value: Any, error: Errors) -> Entry:
    if len(name) > MOST_NAME:
        raise error(f"a tensor's name has {len(name)} characters: {small_files.shown(name)}")
    try:
        entry = small_files.checked(Entry, value, error)
    except DataError as fault:
        raise error(f"tensor {name!r}: {fault.field}: {fault.problem}", field=name) from fault
    if entry.dtype not in BITS:
        raise error(f"tensor {name!r} is of the unknown type {entry.dtype!r}", field=name)
    start, end = entry.data_offsets
    expected = math.prod(entry.shape) * BITS[entry.dtype]
    if (end - start) * 8 != expected:
        raise error(
            f"tensor {name!r} of type {entry.dtype} and shape {small_files.shown(entry.shape)} "
            f"takes {small_files.shown(expected // 8)} bytes, its data_offsets are "
            f"{entry.data_offsets}",
            field=name,
        )
    return entry


def _check(header: _Header, error: Errors) -> None:
    """The tensors fill the file, one after another."""
    at = 0
    for name, entry in sorted(header.entries.items(), key=lambda item: item[1].data_offsets):
        start, end = entry.data_offsets
        if start != at:
            problem = "overlaps the tensor before it" if start < at else "has a gap before it"
            raise error(f"tensor {name!r} {problem}", field=name)
        if end > header.data_bytes:
            raise error(
                f"not a readable safetensors file: truncated; it ends within tensor {name!r} of "
                f"shape {tuple(entry.shape)}",
                field=name,
            )
        at = end
    if at < header.data_bytes:
        raise error(
            f"not a readable safetensors file: {header.data_bytes - at} bytes after the last tensor"
        )
