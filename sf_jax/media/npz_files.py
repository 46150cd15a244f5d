"""NumPy archives (`.npz`) whose arrays are declared: names, kinds of values and shapes.

Nothing is unpickled, and an array is only read once its header has the declared kind and shape and
its size stays within a bound.
"""

import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sf_jax.media import small_files
from sf_jax.media.errors import DataError
from sf_jax.media.small_files import Errors

MOST_BYTES = 2**31  # of the arrays of a file, unpacked
KINDS = {"float": "f", "integer": "iu", "bool": "b", "text": "U", "uint8": "u"}


@dataclass(frozen=True)
class Declared:
    """What an array must be.

    Attributes:
      kind: one of KINDS; "uint8" is exact, the others take any width.
      shape: sizes of the axes; a name stands for a size that is the same wherever it occurs.
      optional: whether the array may be missing.
    """

    kind: str
    shape: tuple[int | str, ...]
    optional: bool = False


def read_arrays(
    path: str | os.PathLike,
    declared: Mapping[str, Declared],
    error: Errors = DataError,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """The declared arrays of a file; others are left alone, missing optional ones left out.

    Args:
      error: the class of what is raised.
      sizes: of named axes that are known beforehand.

    Raises:
      DataError, of the class asked for: the file is missing, no archive or damaged; an array is
        missing, of another kind or shape, too large, or holds NaN or infinity. Names the array.
    """
    path = Path(path)
    try:
        _check_file(path, error)
        with zipfile.ZipFile(path) as archive:
            return _arrays(archive, declared, error, dict(sizes or {}))
    except DataError as fault:
        fault.at(path=path)
        raise
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as fault:
        raise error(f"not a readable NumPy archive: {fault}", path=path) from fault


def _check_file(path: Path, error: Errors) -> None:
    if not path.exists():
        raise error("no such file")
    if not path.is_file():
        raise error("not a file")
    with path.open("rb") as file:
        what = small_files.recognised(file.read(64))
    if what is not None and what != "a ZIP archive":
        raise error(f"not a NumPy archive: {what}")


def _arrays(
    archive: zipfile.ZipFile, declared: Mapping[str, Declared], error: Errors, sizes: dict[str, int]
) -> dict[str, np.ndarray]:
    members = {info.filename: info for info in archive.infolist()}
    wanted = {name: members.get(f"{name}.npy") for name in declared}
    for name, found in wanted.items():
        if found is None and not declared[name].optional:
            raise error(f"array {name!r} is missing", field=name)
    if sum(info.file_size for info in wanted.values() if info) > MOST_BYTES:
        raise error(f"its arrays take more than {MOST_BYTES // 2**30} GiB")
    return {
        name: _array(archive, info, declared[name], name, error, sizes)
        for name, info in wanted.items()
        if info is not None
    }


def _array(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    wanted: Declared,
    name: str,
    error: Errors,
    sizes: dict[str, int],
) -> np.ndarray:
    try:
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
    except ValueError as fault:
        raise error(f"array {name!r} is damaged: {fault}", field=name) from fault
    _check_header(shape, dtype, wanted, name, error, sizes)
    if math.prod(shape) * dtype.itemsize > info.file_size:  # before room is made for it
        problem = f"array {name!r} is damaged: too few bytes for the shape {list(shape)}"
        raise error(problem, field=name)
    try:
        with archive.open(info) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as fault:
        raise error(f"array {name!r} is damaged: {fault}", field=name) from fault
    if wanted.kind == "float" and not np.isfinite(array).all():
        raise error(f"array {name!r} holds values that are not finite", field=name)
    return array


def _check_header(
    shape: tuple[int, ...],
    dtype: np.dtype,
    wanted: Declared,
    name: str,
    error: Errors,
    sizes: dict[str, int],
) -> None:
    exact = wanted.kind == "uint8"
    if dtype.kind not in KINDS[wanted.kind] or (exact and dtype != np.uint8):
        problem = f"array {name!r} holds {dtype}, expected {wanted.kind} values"
        raise error(problem, field=name)
    expected = [sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in wanted.shape]
    fits = len(shape) == len(expected) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(expected, shape, strict=True)
    )
    if not fits:
        text = ", ".join(str(axis) for axis in expected)
        raise error(f"array {name!r} has the shape {list(shape)}, expected [{text}]", field=name)
    for axis, size in zip(wanted.shape, shape, strict=True):
        if isinstance(axis, str):
            sizes[axis] = size
