"""Rigs of other makers, read from files of several formats: each becomes a `Rig`."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sf_jax.media.npz_files import read_arrays
from sf_jax.render import occlusion
from sf_jax.render.rig import Rig
from sf_jax.render.rigs import arrays, gltf, ict, rocketbox
from sf_jax.render.rigs.arrays import RigError

__all__ = ["RigError", "load", "load_folder"]
GLTF = (".glb", ".gltf", ".vrm")
BY_ARRAY = {"expression_deltas": ict.load, "triangle_material": rocketbox.load}
EXPECTED = "a .glb, .gltf or .vrm file, an .npz of ICT-FaceKit or Rocketbox, or a folder FaceXModel"


def _reader(path: Path) -> Callable[[Path], Rig] | None:
    """What reads a file or folder, None where it is no rig."""
    if path.is_dir():
        return ict.load if (path / f"{ict.NEUTRAL}.obj").is_file() else None
    if path.suffix.lower() in GLTF:
        return gltf.load
    if path.suffix.lower() == ".npz":
        found = arrays.names(path)
        return next((load for name, load in BY_ARRAY.items() if name in found), None)
    return None


def load(path: str | os.PathLike) -> Rig:
    """The rig of a file or folder, whose format is found from its name and content.

    Read are glTF and VRM (.glb, .gltf, .vrm) with ARKit morph targets, ICT-FaceKit (.npz, or its
    folder FaceXModel) and Rocketbox heads (.npz).

    Raises:
      RigError: it is missing, of no such format, or cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise RigError("no such file or folder", path=path)
    reader = _reader(path)
    if reader is None:
        found = sorted(arrays.names(path)) if path.suffix.lower() == ".npz" else []
        if path.suffix.lower() == ".npz" and not found:
            read_arrays(path, {}, RigError)  # raises what is wrong with the archive
        what = f" (its arrays are {', '.join(found)})" if found else ""
        raise RigError(f"no rig{what}, expected {EXPECTED}", path=path)
    rig = reader(path)
    return replace(rig, occlusion=occlusion.baked(rig))


def load_folder(directory: str | os.PathLike) -> list[Rig]:
    """All rigs in a folder and its subfolders, in the order of their paths.

    Other files, and arrays that are no rig, are left alone.

    Raises:
      RigError: there is no such folder, it holds no rig, or one of them cannot be used.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise RigError("there is no such folder", path=directory)
    paths = sorted(path for path in (directory, *directory.rglob("*")) if _reader(path))
    if not paths:
        raise RigError(f"no rig in this folder, expected {EXPECTED}", path=directory)
    return [load(path) for path in paths]
