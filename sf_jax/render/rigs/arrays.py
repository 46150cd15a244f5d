"""Reads rigs stored as NumPy archives (.npz): bounded, typed, with the fields that are needed."""

import os
import zipfile
from collections.abc import Mapping

import numpy as np

from sf_jax.media import small_files
from sf_jax.media.errors import DataError

MOST_BYTES = 2**31  # of all arrays of a file together, unpacked


class RigError(DataError):
    """A rig that cannot be read or used."""


def fields(path: str | os.PathLike) -> frozenset[str]:
    """The names of the arrays in a file.

    Raises:
      RigError: the file is no archive of arrays.
    """
    return frozenset(_sizes(path))


def _sizes(path: str | os.PathLike) -> dict[str, int]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()
            }
    except FileNotFoundError:
        raise RigError("there is no such file", path=path) from None
    except OSError as error:
        raise RigError(f"cannot be read: {error.strerror}", path=path) from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        with open(path, "rb") as file:
            found = small_files.recognised(file.read(64)) or "another kind of file"
        raise RigError(f"{found}, expected arrays (.npz)", path=path) from error


def read(path: str | os.PathLike, wanted: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Arrays of an .npz file.

    Args:
      wanted: for each array its kinds, as in `numpy.dtype.kind` ("f", "iu", "U"), and its number
        of axes: "f3" is a floating-point array of three axes.

    Raises:
      RigError: the file cannot be read, or an array is missing, of another kind or not finite.
    """
    sizes = _sizes(path)
    if missing := [name for name in wanted if name not in sizes]:
        problem = f"array {missing[0]!r} is missing; it holds {', '.join(sorted(sizes)) or 'none'}"
        raise RigError(problem, path=path, field=missing[0])
    if sum(sizes[name] for name in wanted) > MOST_BYTES:
        raise RigError(f"its arrays take more than {MOST_BYTES >> 20} MiB", path=path)
    found = {}
    for name, kind in wanted.items():
        try:
            with np.load(path, allow_pickle=False) as file:
                array = file[name]
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            problem = f"array {name!r} cannot be read: {error}"
            raise RigError(problem, path=path, field=name) from error
        if array.dtype.kind not in kind[:-1] or array.ndim != int(kind[-1]):
            problem = f"array {name!r} is {array.dtype} of {array.ndim} axes, expected {kind[-1]} "
            raise RigError(f"{problem}axes of kind {kind[:-1]}", path=path, field=name)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RigError(f"array {name!r} holds NaN or infinity", path=path, field=name)
        found[name] = array
    return found
