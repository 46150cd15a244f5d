"""The SQLite database of a folder of pairs: its tables, its transactions, and what may be wrong.

It is opened in WAL mode, so that others may read while one process writes, and synchronised at each
commit, so that what was committed outlives a crash of the process or of the machine.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sf_jax.media import files
from sf_jax.media.errors import DataError

APPLICATION, VERSION = 0x53464A50, 1  # "SFJP" in the file's header, and the tables' version
PATIENCE = 5.0  # seconds for which a lock of another program is waited for
MOST_SECONDS = 86_400.0  # of a judgement

SCHEMA = f"""
CREATE TABLE tasks (
    annotator TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 0),
    pair TEXT NOT NULL,
    repeat INTEGER NOT NULL CHECK (repeat IN (0, 1)),
    left_side TEXT NOT NULL CHECK (left_side IN ('first', 'second')),
    PRIMARY KEY (annotator, number),
    UNIQUE (annotator, pair, repeat)
);
CREATE TABLE judgements (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    annotator TEXT NOT NULL,
    number INTEGER NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('first', 'second', 'tie', 'unclear')),
    seconds REAL NOT NULL CHECK (seconds BETWEEN 0 AND {MOST_SECONDS}),
    at TEXT NOT NULL,
    undone_at TEXT,
    FOREIGN KEY (annotator, number) REFERENCES tasks (annotator, number)
);
CREATE UNIQUE INDEX one_that_counts ON judgements (annotator, number) WHERE undone_at IS NULL;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
DAMAGED = (
    "is damaged, and was left as it is; rename it, and start anew from an export with --import, "
    "or restore a copy"
)
FAULTS = {
    "SQLITE_CANTOPEN": (True, "cannot be opened: {}"),
    "SQLITE_FULL": (True, "cannot be written: {}; all judgements before this one are stored"),
    "SQLITE_IOERR": (True, "cannot be written: {}; all judgements before this one are stored"),
    "SQLITE_READONLY": (True, "cannot be written: {}; all judgements before this one are stored"),
    "SQLITE_BUSY": (False, "is locked by another program; close it there"),
    "SQLITE_LOCKED": (False, "is locked by another program; close it there"),
    "SQLITE_CORRUPT": (False, DAMAGED + " ({})"),
    "SQLITE_NOTADB": (False, DAMAGED + " ({})"),
}  # by the beginning of SQLite's name of an error: whether it is of the disk, and its text


class StoreError(DataError):
    """A database of judgements that cannot be used."""


class DiskError(StoreError):
    """The disk is full or cannot be written; what was stored before is untouched."""


class Database:
    """An open database; methods may be called from several threads.

    Every method raises `StoreError` where the file turns out to be damaged or is locked by another
    program, and `transaction` raises `DiskError` where the disk is full.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection):
        """See `opened`."""
        self.path = path
        self.connection = connection
        self._file = os.stat(path)
        self._lock = threading.RLock()

    def rows(self, query: str, *given: str | int) -> list[tuple]:
        """All rows of a query."""
        with self.errors():
            return self.connection.execute(query, given).fetchall()

    def close(self) -> None:
        """Ends the connection; the write-ahead log is merged into the file."""
        with self._lock:
            self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A block whose changes are stored at its end, or not at all; may be nested."""
        with self._lock:
            if self.connection.in_transaction:
                yield self.connection
                return
            self._check_name()
            with self.errors():
                self.connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self.connection
                    self.connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):  # a full disk has ended the transaction already
                        self.connection.execute("ROLLBACK")
                    raise

    def _check_name(self) -> None:
        """Raises DiskError where the file has lost its name, as by `rm` or `mv`.

        The open file would take further judgements, and vanish with the process.
        """
        try:
            found = os.stat(self.path)
        except OSError:
            found = None
        if found is None or not os.path.samestat(found, self._file):
            problem = "was moved, deleted or replaced while it was open; restore it, or start again"
            raise DiskError(problem, path=self.path)

    @contextmanager
    def errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise store_error(error, self.path) from error


def store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """An error of SQLite as one of ours."""
    name = getattr(error, "sqlite_errorname", "")
    for beginning, (of_disk, problem) in FAULTS.items():
        if name.startswith(beginning):
            return (DiskError if of_disk else StoreError)(problem.format(error), path=path)
    return StoreError(f"the database failed: {error}", path=path)


def create(path: Path) -> None:
    """Makes an empty database, which gets its name when it is complete."""
    with files.replacing(path) as temporary:
        connection = None
        try:
            connection = sqlite3.connect(temporary)
            connection.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise DiskError(f"cannot be made: {error}", path=path) from error
        finally:
            if connection is not None:
                connection.close()


@contextmanager
def opened(path: Path, writes: bool) -> Iterator[Database]:
    """A database that was found to be sound.

    Raises:
      StoreError: it is damaged or of another program; it is left as it is.
      DiskError: it cannot be opened.
    """
    if not path.is_file():
        raise StoreError("a folder, expected a file", path=path)
    if not path.stat().st_size:
        raise StoreError(f"{DAMAGED} (it is empty)", path=path)
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'rw' if writes else 'ro'}",
            uri=True,
            timeout=PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise store_error(error, path) from error
    found = Database(path, connection)
    try:
        with found.errors():
            _prepare(connection, path, writes)
        yield found
    finally:
        found.close()


def _prepare(connection: sqlite3.Connection, path: Path, writes: bool) -> None:
    """Checks that the file is a sound database of ours, and sets the connection up."""
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    if found != APPLICATION:
        raise StoreError("is a database of another program", path=path)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        problem = f"has tables of version {version}, expected {VERSION}: of another sf_jax"
        raise StoreError(problem, path=path)
    problem = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if problem != "ok":
        raise StoreError(f"{DAMAGED} ({problem})", path=path)
    connection.execute("PRAGMA foreign_keys = ON")
    if writes:
        connection.execute("PRAGMA journal_mode = WAL")
        # With NORMAL, the default of WAL, a power failure could take the last judgements.
        connection.execute("PRAGMA synchronous = FULL")
