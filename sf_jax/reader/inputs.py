"""What a command line of files and folders names: images and videos, and what cannot be read."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sf_jax.media import images, kinds
from sf_jax.media.errors import DataError, printable
from sf_jax.reader.results import Record, ResultsError

# What file servers and systems keep in folders of images: thumbnails, deleted files.
SYSTEM_FOLDERS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information"}


class PredictError(DataError):
    """Inputs that leave nothing to do."""


@dataclass(frozen=True)
class Input:
    """A file to be read.

    Attributes:
      path: as its user named it.
      kind: "picture" or "video".
      folder: the subfolder of the results that it goes to, relative: that in which `--recursive`
        found it.
    """

    path: Path
    kind: kinds.Kind
    folder: Path = Path()


@dataclass
class Inputs:
    """The files to read, images before videos; what failed; and sentences on what was left out."""

    files: list[Input] = field(default_factory=list)
    failures: list[DataError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def pictures(self) -> list[Input]:
        return [file for file in self.files if file.kind == "picture"]

    @property
    def videos(self) -> list[Input]:
        return [file for file in self.files if file.kind == "video"]


def collect(paths: Sequence[Path], recursive: bool = False) -> Inputs:
    """Images and videos among files and folders.

    A folder is searched in name order, and with `recursive` the folders in it too, but for links to
    folders. In a folder, hidden files and results that an earlier run wrote there are left alone; a
    file that is named itself is always read. One named twice is read once.

    A path that is not there, and a file of a kind that is not read, are among the failures.
    """
    found = Inputs()
    files: dict[str, Input] = {}
    for path in paths:
        try:
            inputs = list(_named(path, recursive, found))
        except OSError as error:  # no permission, or a name that no file can have
            found.failures.append(PredictError(error.strerror or str(error), path=path))
            continue
        for file in inputs:
            files.setdefault(identity(file.path), file)
    for file in files.values():
        refused = _refusal(file)
        if refused is None:
            found.files.append(file)
        else:
            found.failures.append(refused)
    found.files.sort(key=lambda file: file.kind == "video")  # a stable sort
    return found


def _refusal(file: Input) -> DataError | None:
    """Why a file cannot be read, where that can be known at once."""
    if os.path.islink(file.path) and not os.path.exists(file.path):
        return PredictError("a link to a file that is not there", path=file.path)
    return images.refusal(file.path) if file.kind == "picture" else None


def identity(path: Path) -> str:
    """One text for all spellings of a path; a link is not the file it leads to."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def folded(path: str | os.PathLike) -> str:
    """The same text for names that some file systems take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", os.fspath(path)).casefold())


def node(path: Path) -> tuple[int, int] | str:
    """What all links to a file share; of what cannot be had, its own `identity`."""
    try:
        status = path.stat()
    except OSError:
        return identity(path)
    except ValueError:  # a name that no file can have
        return os.fspath(path)
    return status.st_dev, status.st_ino


def _named(path: Path, recursive: bool, found: Inputs) -> Iterator[Input]:
    """The inputs that one argument names."""
    if path.is_dir():
        yield from _in_folder(path, recursive, found)
    elif not os.path.lexists(path):
        raise FileNotFoundError(0, "no such file or folder")
    else:
        yield Input(path, kinds.kind_of(Path("x" + path.suffix)) or "picture")


def _in_folder(top: Path, recursive: bool, found: Inputs) -> Iterator[Input]:
    others: Counter[str] = Counter()
    count, failed = 0, len(found.failures)
    results: list[Path] = []
    for file in _walk(top, recursive, found, results):
        kind = None if _is_script(file) else kinds.kind_of(file)
        if kind is None:
            others.update([] if file.name.startswith(".") else [file.suffix.lower() or file.name])
            continue
        count += 1
        yield Input(file, kind, file.parent.relative_to(top))
    if not count and len(found.failures) == failed:
        deeper = "" if recursive else "; --recursive searches the folders in it too"
        but = f" but {len(results)} results of an earlier run" if results else ""
        problem = f"holds no picture and no video{but}{deeper}"
        found.failures.append(PredictError(problem, path=top))
    elif results:
        text = f"{printable(top)}: {len(results)} results of an earlier run left out"
        found.notes.append(text)
    if others:
        most = ", ".join(printable(ending) for ending, _ in others.most_common(5))
        files = "file" if others.total() == 1 else "files"
        found.notes.append(
            f"{printable(top)}: {others.total()} {files} of other kinds left out ({most})"
        )


def _walk(top: Path, recursive: bool, found: Inputs, results: list[Path]) -> Iterator[Path]:
    """Files in name order, those of a folder before those of the folders in it; results that an
    earlier run wrote go to `results`."""
    waiting = [top]
    records: list[Record] = []
    visited: set[tuple[int, int]] = set()
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            problem = f"cannot be searched: {error.strerror}"
            found.failures.append(PredictError(problem, path=folder))
            continue
        if (status.st_dev, status.st_ino) in visited:  # a loop of mounts
            continue
        visited.add((status.st_dev, status.st_ino))
        # A file of the user's own, or one that cannot be read, says nothing of others.
        with suppress(ResultsError, OSError):
            records += [record] if (record := Record.of(folder)) else []
        inside = []
        for entry in entries:
            path = folder / entry.name
            if not _is_folder(entry):
                if any(record.owns_reading(path) for record in records):
                    results.append(path)
                else:
                    yield path
            elif recursive and entry.is_symlink():
                found.notes.append(f"{printable(path)}: a link to a folder, which is not followed")
            elif recursive and not _system(entry.name):
                inside.append(path)
        waiting += reversed(inside)


def _is_script(path: Path) -> bool:
    """Whether a `.ts` file is TypeScript and no MPEG transport stream, which begins with a G."""
    with suppress(OSError):  # the error of reading it is the one to report
        if path.suffix.lower() == ".ts" and path.is_file():
            with path.open("rb") as file:
                return file.read(1) != b"G"
    return False


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles
        return False


def _system(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS
