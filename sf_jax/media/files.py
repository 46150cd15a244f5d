"""The one way to write a file or a folder: under a temporary name beside it, renamed once complete.

Nobody who reads meets half a file, and a failure leaves what stood there before. Temporary names
are hidden, end in `.partial` and hold the process id; a name that exists is never taken, whoever
made it. Files may also be at `gs://` addresses.
"""

import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from sf_jax.media import locks
from sf_jax.media.errors import DataError

NAME_BYTES = 100  # of a target's name in its temporary name: file systems allow 143 to 255 in all

SUFFIX_BYTES = 20  # a longer one is no suffix


@contextmanager
def replacing(path: str | os.PathLike, *, keep: bool = False) -> Iterator[Path]:
    """A temporary path to write to, which becomes `path` at the end of the block.

    Args:
      keep: gives it the first of the names of `partials` that is free, and leaves it there if the
        block fails or is interrupted; else it is removed then.

    Raises:
      OSError: the file cannot be written; names `path`.
    """
    target = _path(path)
    try:
        temporary = _reserved(target, keep)
    except OSError as error:
        error.filename = os.fspath(target)
        raise
    mode = temporary.stat().st_mode if isinstance(temporary, Path) else None
    try:
        yield temporary
        # Some libraries make a file of their own in its place, which nobody else may read.
        if mode is not None and temporary.stat().st_mode != mode:
            temporary.chmod(stat.S_IMODE(mode))
        temporary.replace(target)
    except BaseException as error:
        if not keep:
            with suppress(OSError):  # the error of the block is the one to report
                temporary.unlink()
        if isinstance(error, OSError) and str(error.filename) == os.fspath(temporary):
            error.filename = os.fspath(target)
            del error.filename2  # None would be printed
        raise


def _reserved(target: Path, keep: bool) -> Path:
    """An empty file beside the target, made under a name that was free."""
    for temporary in partials(target) if keep else _hidden(target):
        if not isinstance(temporary, Path):
            return temporary  # a bucket, where an object appears when it is complete
        with suppress(FileExistsError):
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            return temporary
    raise AssertionError("unreachable")


def _hidden(target: Path) -> Iterator[Path]:
    first = f".{cut(target.name, NAME_BYTES)}.{os.getpid()}.partial"
    return (target.with_name(first if n == 1 else f"{first}-{n}") for n in count(1))


def partials(path: Path) -> Iterator[Path]:
    """Names for what an interruption leaves of a file: of `faces.csv`, `faces.partial.csv`, then
    `faces.partial-2.csv` and so on."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) < SUFFIX_BYTES else ""
    stem = cut(path.name.removesuffix(suffix), 240 - SUFFIX_BYTES)
    for number in count(1):
        yield path.with_name(f"{stem}.partial{f'-{number}' if number > 1 else ''}{suffix}")


def cut(name: str, most: int) -> str:
    """The beginning of a file name that takes at most so many bytes, in whole characters."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= most else encoded[:most].decode("utf-8", "ignore")


@contextmanager
def stream(
    path: str | os.PathLike, *, newline: str | None = "\n", keep: bool = False
) -> Iterator[TextIO]:
    """A UTF-8 text file written bit by bit; see `replacing`, and `open` about `newline`."""
    with (
        replacing(path, keep=keep) as temporary,
        temporary.open("w", encoding="utf-8", newline=newline) as file,
    ):
        yield file


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike, content: str) -> None:
    """Writes a UTF-8 text file, complete or not at all; line ends stay as they are."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str | os.PathLike, content: object, indent: int | None = 2) -> None:
    """Writes a JSON file that ends in a line feed, complete or not at all.

    Raises:
      DataError: a number is NaN or infinite, which JSON cannot hold; names the file.
      OSError: the file cannot be written.
    """
    try:
        text = json.dumps(content, indent=indent, allow_nan=False)
    except ValueError as error:
        raise DataError(str(error), path=path) from error
    write_text(path, text + "\n")


def finite(content: object) -> Any:
    """JSON content, however nested, with null in place of each NaN and infinity.

    For `write_json`, of measured figures: what cannot be measured is none of them.
    """
    if isinstance(content, Mapping):
        return {name: finite(each) for name, each in content.items()}
    if isinstance(content, list | tuple):
        return [finite(each) for each in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


@contextmanager
def folder(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` at the end; it is removed on failure.

    Folders above `path` are made.

    Raises:
      DataError: `path` exists.
      BusyError: another process is making it.
    """
    target = Path(path)
    with locks.held(target.parent, f".{cut(target.name, NAME_BYTES)}.lock") as lock:
        if target.exists():
            raise DataError("exists already; name a folder that does not", path=path)
        prefix = f".{cut(target.name, NAME_BYTES)}."
        temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=target.parent))
        try:
            temporary.chmod(0o755)
            yield temporary
            lock.check()
            temporary.replace(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _path(path: str | os.PathLike) -> Path:
    text = os.fspath(path)
    if "://" not in text:
        return Path(text)
    from etils import epath  # late: few need it

    return epath.Path(text)
