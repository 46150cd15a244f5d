"""Rigs of other makers, read from files of several formats: each becomes a `Rig`."""

import os
from pathlib import Path

from sf_jax.render.rig import Rig
from sf_jax.render.rigs import arrays, ict, rocketbox
from sf_jax.render.rigs.arrays import RigError

KEYS = {"expression_deltas", "triangle_material"}  # arrays by which a rig is known
__all__ = ["RigError", "load", "load_folder"]


def load(path: str | os.PathLike) -> Rig:
    """The rig of a file or folder, whose format is found from its content.

    Read are ICT-FaceKit (.npz, or its folder FaceXModel) and Rocketbox heads (.npz).

    Raises:
      RigError: it is missing, of no such format, or cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / f"{ict.NEUTRAL}.obj").is_file():
            raise RigError(f"no rig: a folder without {ict.NEUTRAL}.obj", path=path)
        return ict.load(path)
    if path.suffix.lower() == ".npz":
        found = arrays.names(path)
        if "triangle_material" in found:
            return rocketbox.load(path)
        if found and "expression_deltas" not in found:
            raise RigError(f"no rig: its arrays are {', '.join(sorted(found))}", path=path)
        return ict.load(path)
    expected = "an .npz or a folder FaceXModel"
    raise RigError(f"no rig: expected {expected}", path=path)


def _is_rig(path: Path) -> bool:
    """Whether a file claims to be a rig; other arrays may be beside rigs in a folder."""
    if path.is_dir():
        return (path / f"{ict.NEUTRAL}.obj").is_file()
    return path.suffix.lower() == ".npz" and not KEYS.isdisjoint(arrays.names(path))


def load_folder(directory: str | os.PathLike) -> list[Rig]:
    """All rigs in a folder and its subfolders, in the order of their paths.

    Other files, and arrays that are no rig, are left alone.

    Raises:
      RigError: there is no such folder, it holds no rig, or one of them cannot be used.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise RigError("there is no such folder", path=directory)
    paths = sorted(path for path in (directory, *directory.rglob("*")) if _is_rig(path))
    if not paths:
        raise RigError("no rig in this folder", path=directory)
    return [load(path) for path in paths]
