"""Wavefront OBJ files of one mesh: vertices in the order of the file, which morph targets share."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from sf_jax.render.rigs.arrays import RigError

MOST_BYTES = 2**28


def _lines(path: str | os.PathLike) -> list[bytes]:
    try:
        if os.path.getsize(path) > MOST_BYTES:
            raise RigError(f"larger than {MOST_BYTES >> 20} MiB", path=path)
        return Path(path).read_bytes().splitlines()
    except OSError as error:
        raise RigError(f"cannot be read: {error.strerror}", path=path) from error


def _positions(lines: list[bytes], path: str | os.PathLike) -> np.ndarray:
    rows = [line.split()[1:4] for line in lines if line.startswith(b"v ")]
    try:
        vertices = np.array(rows, np.float32).reshape(len(rows), 3)
    except ValueError as error:
        raise RigError(f"a vertex that is no three numbers: {error}", path=path) from error
    if not np.isfinite(vertices).all():
        raise RigError("a vertex is not finite", path=path)
    return vertices


def positions(path: str | os.PathLike, count: int) -> Float[np.ndarray, "V 3"]:
    """The vertices of a file of `count`, float32.

    Raises:
      RigError: the file cannot be read, or has another number of vertices.
    """
    vertices = _positions(_lines(path), path)
    if len(vertices) != count:
        raise RigError(f"{len(vertices)} vertices, expected {count}", path=path)
    return vertices


def read(path: str | os.PathLike) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "T 3"]]:
    """Vertices, float32, and triangles, int32, of a file; polygons are divided into triangles.

    Raises:
      RigError: the file cannot be read or names vertices that it does not have.
    """
    lines = _lines(path)
    vertices = _positions(lines, path)
    triangles = []
    for number, line in enumerate(lines, 1):
        if not line.startswith(b"f "):
            continue
        try:
            corners = [int(corner.split(b"/")[0]) for corner in line.split()[1:]]
        except ValueError:
            raise RigError("a face of other than numbers", path=path, line=number) from None
        triangles += [[corners[0], b, c] for b, c in pairwise(corners[1:])]
    ids = np.array(triangles, np.int32).reshape(-1, 3) - 1
    if len(ids) and (ids.min() < 0 or ids.max() >= len(vertices)):
        raise RigError("a face names a vertex that does not exist", path=path)
    return vertices, ids
