"""Hashes of files: XXH3 of 128 bits, which reads as fast as memory does.

`xxh128sum FILE` prints the same digits. They find every flipped bit; they do not protect against
somebody who changes a file on purpose.
"""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import xxhash

NAME = "xxh128"
PIECE = 1 << 22  # bytes read at once
SAMPLE = 1 << 20  # bytes of one of several parts of a file


def of_file(path: str | os.PathLike) -> str:
    """The hash of a file's content, 32 hexadecimal digits.

    Raises:
      OSError: it cannot be read.
    """
    found = xxhash.xxh3_128()
    piece = memoryview(bytearray(PIECE))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(piece):
            found.update(piece[:size])
    return found.hexdigest()


def of_files(folder: str | os.PathLike, names: Iterable[str]) -> dict[str, str]:
    """The hashes of several files of a folder, by name, a few files at a time.

    Raises:
      OSError: one cannot be read.
    """
    names = sorted(names)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(of_file, (Path(folder, n) for n in names)), strict=True))


def of_samples(path: str | os.PathLike, budget: int) -> str:
    """The hash of a file's content, or where that is more than `budget` bytes, of parts of it.

    The parts are spread evenly from its beginning to its end, so that they cost about `budget`
    bytes of reading whatever the size.

    Raises:
      OSError: it cannot be read.
    """
    size = os.path.getsize(path)
    if size <= budget:
        return of_file(path)
    piece = min(SAMPLE, budget // 2)
    count = budget // piece
    found = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:
        for number in range(count):
            file.seek(number * (size - piece) // (count - 1))
            found.update(file.read(piece))
    return found.hexdigest()


def of_arrays(*arrays: np.ndarray) -> str:
    """The hash of arrays: of the type, shape and values of each, 32 hexadecimal digits."""
    found = xxhash.xxh3_128()
    for array in arrays:
        found.update(f"{array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def joint(hashes: Mapping[str, str]) -> str:
    """One hash of several files: of a single one its own, else that of the lines `HASH  NAME`."""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return xxhash.xxh3_128(lines.encode()).hexdigest()
