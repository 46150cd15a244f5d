"""Rigs stored as NumPy archives (.npz)."""

import os
import zipfile

from sf_jax.media.errors import DataError


class RigError(DataError):
    """A rig that cannot be read or used."""


def names(path: str | os.PathLike) -> frozenset[str]:
    """The names of the arrays in a file, empty where it is no readable archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return frozenset()
