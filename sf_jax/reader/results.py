"""The folder of results of `sf-jax predict`, and the record of what was written there.

The rule: no result replaces a file that a run did not write itself, or that was changed since. The
record is a hidden file of the folder, a JSON line for each input and for each table of several. A
line holds the hashes of the results and is written before they get their names, so that whatever
ends a run, the next one knows its files.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from sf_jax.media import files, hashes, locks
from sf_jax.media.errors import DataError
from sf_jax.media.locks import Lock
from sf_jax.media.small_files import parse_json

RECORD = ".sf-jax-results.jsonl"
LOCK = ".sf-jax-results.lock"
WORK = (".sf-jax-", ".partial")  # around eight characters: a folder of results on their way
HEADER = {"record": "results of sf-jax predict", "version": 1}
KEPT = 2  # hashes of a name: a run that was killed may have written the newest, or not

# Of all results that an input may have: a stem is given to an input where all of these are free.
SHEET = ".preview.png"
SUFFIXES = (".json", ".jsonl", ".csv", ".index.csv", SHEET)
OF_FACES = (".json", SHEET)  # of these, what each of several faces of an image has
ANY_FACE = ".face-#"  # stands for the part of a name that `face_suffix` gives, of any number
Errors = TypeVar("Errors", bound=Exception)

PARTIAL = ".partial"  # before the suffix of what an interruption left


def face_suffix(number: int) -> str:
    """What comes before the suffix of a result of one face of several."""
    return ANY_FACE.replace("#", str(number))


def of_any_face(name: str) -> str:
    """A file name with `ANY_FACE` in place of the number of a face; other names as they are."""
    suffixes = "|".join(map(re.escape, OF_FACES))
    return re.sub(rf"\.face-\d+(?=({suffixes})$)", ANY_FACE, name, flags=re.IGNORECASE)


class ResultsError(DataError):
    """A folder or a name where results cannot be written."""


@dataclass(frozen=True)
class Names:
    """The names of the results of one input: those of `SUFFIXES` after one stem in one folder."""

    folder: Path
    stem: str

    def file(self, suffix: str) -> str:
        """The name of one result."""
        return self.stem + suffix

    def path(self, suffix: str, partial: bool = False) -> Path:
        """The path of one result, or of what an interruption left of it."""
        return self.folder / self.file(PARTIAL + suffix if partial else suffix)

    def files(self, faces: bool = False) -> list[str]:
        """All file names that the results may take.

        Args:
          faces: with those of several faces, whose numbers are `ANY_FACE`.
        """
        suffixes = [*SUFFIXES, *(ANY_FACE + suffix for suffix in OF_FACES if faces)]
        return [self.stem + before + suffix for suffix in suffixes for before in ("", PARTIAL)]


@dataclass(frozen=True)
class Entry:
    """The results of one input, or one table of several inputs.

    Attributes:
      source: the input's path relative to the folder of results; of a table, the paths named.
      stem: the part of the names that is common to the results, with their subfolder.
      files: relative path of each result → the hash of its content.
      older: relative path → hashes of results that earlier runs wrote for the same input.
      stamp: size and time of the last change (ns) of the input.
      made: what else the results depend on, as text.
      complete: False for what an interruption left.
      sheets: whether each face that was found has its preview sheet.
    """

    source: str
    stem: str
    files: dict[str, str] = field(default_factory=dict)
    older: dict[str, list[str]] = field(default_factory=dict)
    stamp: list[int] = field(default_factory=list)
    made: str = ""
    complete: bool = True
    sheets: bool = False


class Record:
    """The record of one folder, as read.

    Attributes:
      folder: its real path.
      entries: by source.
    """

    def __init__(self, folder: Path, entries: dict[str, Entry]):
        self.folder, self.entries = folder, entries
        self._real: dict[Path, str] = {}  # of folders, as every file asks
        self._known: dict[str, list[str]] = {}
        self._sources: dict[str, str] = {}
        for entry in entries.values():
            self._know(entry)

    @classmethod
    def of(cls, folder: Path) -> "Record | None":
        """The record of a folder; None where it has none."""
        path = folder / RECORD
        if not os.path.lexists(path):
            return None
        return cls(Path(os.path.realpath(folder)), _entries(path))

    def _know(self, entry: Entry) -> None:
        known = {name: [digest] for name, digest in entry.files.items()}
        for name, older in entry.older.items():
            known[name] = [*known.get(name, []), *older]
        self._known.update(known)
        self._sources.update(dict.fromkeys(known, entry.source))

    def relative(self, path: Path) -> str:
        """A path relative to the folder, one text for all spellings; links are not resolved."""
        folder = path.parent
        if folder not in self._real:
            self._real[folder] = os.path.relpath(os.path.realpath(folder), self.folder)
        return os.path.normpath(os.path.join(self._real[folder], path.name))

    def owns(self, path: Path, source: str | None = None) -> bool:
        """Whether a file is a result that nobody changed since, or an empty one.

        Results get their names by a rename, complete: all that a crash of the machine may leave in
        place of one is an empty file.

        Args:
          source: the results of this one alone; see `Entry`.
        """
        name = self.relative(path)
        known = self._known.get(name)
        if not known or os.path.islink(path) or not os.path.isfile(path):
            return False
        if source is not None and self._sources[name] != source:
            return False
        with suppress(OSError):
            return not path.stat().st_size or hashes.of_file(path) in known
        return False

    def owns_reading(self, path: Path) -> bool:
        """Whether a file is what reading an input gave, such as a sheet; see `owns`."""
        return path.name.endswith(SUFFIXES) and self.owns(path)

    def holds(self, entry: Entry, paths: Iterable[Path]) -> bool:
        """Whether results of an entry are there, as they were written."""
        names = [self.relative(path) for path in paths]
        if not entry.complete or not entry.files.keys() >= set(names):
            return False
        with suppress(OSError):
            return all(hashes.of_file(self.folder / n) == entry.files[n] for n in names)
        return False


def _entries(path: Path) -> dict[str, Entry]:
    """The lines of a record; the last one may be cut short.

    Raises:
      ResultsError: the file is no record.
    """
    try:
        lines = path.read_bytes().decode("utf-8").split("\n") if path.is_file() else []
        if path.is_symlink() or parse_json(lines[0]) != HEADER:
            raise ValueError
    except (ValueError, IndexError):
        problem = "not a record of results; name another folder with --out"
        raise ResultsError(problem, path=path) from None
    entries: dict[str, Entry] = {}
    for line in lines[1:]:
        with suppress(ValueError, TypeError, AttributeError):
            entry = _entry(parse_json(line))
            entries[entry.source] = entry
    return entries


def _entry(line: dict) -> Entry:
    entry = Entry(**line)
    older = [digest for digests in entry.older.values() for digest in digests]
    texts = [entry.source, entry.stem, entry.made, *entry.files, *entry.files.values(), *older]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    return entry


def _clear_work(out: Path) -> None:
    """Removes what runs that were killed left; the folder is locked, so that none is at work."""
    name = re.compile(re.escape(WORK[0]) + "[a-z0-9_]{8}" + re.escape(WORK[1]))
    for path in out.glob(f"{WORK[0]}*{WORK[1]}"):
        if name.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


@dataclass
class Writing:
    """Results of one input on their way: written into `folder` under the stem of `names`.

    Attributes:
      complete: False where a later run is to read the input again.
      interrupted: True gives the results other names, as of something that was stopped.
      sheets: whether each face that was found has its preview sheet.
    """

    folder: Path
    names: Names
    complete: bool = True
    interrupted: bool = False
    sheets: bool = False

    def path(self, suffix: str) -> Path:
        """Where to write a result."""
        return self.folder / self.names.file(suffix)

    def final(self, path: Path) -> Path:
        """The name that a result gets."""
        suffix = path.name.removeprefix(self.names.stem)
        return self.names.path(suffix, partial=self.interrupted)

    def named(self, error: Errors) -> Errors:
        """The error, with the name that a result would have got in place of that in `folder`."""
        if isinstance(error, OSError):
            written = Path(os.fsdecode(error.filename or ""))
            if self.folder in written.parents:
                error.filename = os.fspath(self.final(written))
                del error.filename2  # None would be printed
        return error


class Results(Record):
    """The folder of results of this run, which no other run writes to at the same time."""

    @classmethod
    def open(cls, out: Path) -> "Results":
        """Makes the folder, if need be, and locks it until `close` or the end of the process.

        Raises:
          ResultsError: it is a file, or its record is none.
          BusyError: another run writes to it.
          OSError: it cannot be written to.
        """
        try:
            out.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ResultsError("a file, expected a folder", path=error.filename) from error
        lock = locks.acquire(out / LOCK)
        try:
            record = Record.of(out)
            results = cls(Path(os.path.realpath(out)), record.entries if record else {})
            results.out, results._lock = out, lock
            lines = [HEADER, *(asdict(entry) for entry in results.entries.values())]
            files.write_text(out / RECORD, "".join(json.dumps(line) + "\n" for line in lines))
            _clear_work(out)
        except BaseException:
            lock.release()
            raise
        return results

    out: Path
    _lock: Lock

    def close(self) -> None:
        """Unlocks the folder."""
        self._lock.release()

    @contextmanager
    def writing(
        self, names: Names, source: str, stamp: list[int] | None = None, made: str = ""
    ) -> Iterator[Writing]:
        """A folder to write results into, which get their names together at the end of the block.

        Raises:
          OSError: one cannot be written; names the result.
          ResultsError: a file that is not ours has got one of the names in the meantime.
        """
        try:
            names.folder.mkdir(parents=True, exist_ok=True)
            work = self._work_folder(names.folder)
        except OSError as error:
            error.filename = os.fspath(names.folder)
            del error.filename2
            raise
        writing = Writing(work, names)
        try:
            yield writing
            self._commit(writing, source, stamp or [], made)
        except OSError as error:
            writing.named(error)
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _work_folder(self, folder: Path) -> Path:
        """A new folder, in the folder of all results, where `open` clears it; or in that of the
        results themselves where this is another file system, to which nothing can be renamed."""
        near = self.out if self.out.stat().st_dev == folder.stat().st_dev else folder
        return Path(tempfile.mkdtemp(prefix=WORK[0], suffix=WORK[1], dir=near))

    def _commit(self, writing: Writing, source: str, stamp: list[int], made: str) -> None:
        moves = {path: writing.final(path) for path in sorted(writing.folder.iterdir())}
        for path, target in moves.items():
            if os.path.lexists(target) and not self._replaceable(target, path, source):
                raise ResultsError(
                    "is not a result of before, and is left as it is; name another folder with "
                    "--out",
                    path=target,
                )
        found = {self.relative(target): hashes.of_file(path) for path, target in moves.items()}
        stem = self.relative(writing.names.folder / writing.names.stem)
        older = self._older(source, found)
        complete = writing.complete and not writing.interrupted
        gone = [] if writing.interrupted else self._outdated(source, stem, found)
        self._append(Entry(source, stem, found, older, stamp, made, complete, writing.sheets))
        for path, target in moves.items():
            path.replace(target)
        for path in gone:
            path.unlink(missing_ok=True)
        if not writing.interrupted:
            self._clear(writing.names)

    def _outdated(self, source: str, stem: str, found: dict[str, str]) -> list[Path]:
        """Earlier results of the same input and stem, as they were written, that would contradict
        these: of faces that are not found any more, or of a reading of another kind.

        Those of another stem stay, since something there was edited; and so do tables.
        """
        earlier = self.entries.get(source)
        names = set() if earlier is None else {*earlier.files, *earlier.older} - found.keys()
        own = {stem + face + suffix for suffix in OF_FACES for face in ("", ANY_FACE)}
        paths = [self.folder / name for name in sorted(names) if of_any_face(name) in own]
        return [path for path in paths if self.owns(path, source)]

    def _replaceable(self, target: Path, by: Path, source: str) -> bool:
        """Whether a file is ours, or is the same already."""
        if self.owns(target, source):
            return True
        same = target.is_file() and not target.is_symlink()
        return same and hashes.of_file(target) == hashes.of_file(by)

    def _older(self, source: str, found: dict[str, str]) -> dict[str, list[str]]:
        """The hashes of what may be on the disk of results that are replaced now, or are not."""
        earlier = self.entries.get(source)
        names = {*found, *(earlier.files if earlier else ()), *(earlier.older if earlier else ())}
        known = {name: self._known.get(name, []) for name in names}
        return {name: digests[:KEPT] for name, digests in known.items() if digests}

    def _append(self, entry: Entry) -> None:
        self.entries[entry.source] = entry
        self._know(entry)
        with (self.out / RECORD).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")

    def _clear(self, names: Names) -> None:
        """Removes what an interrupted run left of results that are now complete."""
        for suffix in SUFFIXES:
            path = names.path(suffix, partial=True)
            if self.owns(path):
                path.unlink(missing_ok=True)
