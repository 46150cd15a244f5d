"""The database of judgements in a folder of pairs: `judgements.sqlite`, SQLite in WAL mode.

A *task* is a pair to be judged by one annotator, for the first time or as a hidden repeat, with the
side of the screen that each candidate is shown at. Tasks and judgements are only added: undoing
marks a judgement, and the task is open again. A judgement has an id that its sender chose, so that
sending one again changes nothing, and an index admits one that counts a task, so that nothing is
stored twice.

A judgement is on the disk when `judge` returns, and outlives a crash of the process or the machine.
One process writes at a time: see `writing`.
"""

import datetime
import re
import sqlite3
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from sf_jax.media import locks
from sf_jax.media.errors import printable
from sf_jax.systems.superface import database
from sf_jax.systems.superface.database import MOST_SECONDS, Database, StoreError
from sf_jax.systems.superface.folder import PAIRS, PairFolder
from sf_jax.systems.superface.pairs import Choice, Judgement, Pair, Side

LOCK = ".annotate.lock"
MOST_NAME = 64  # characters of an annotator's name
ID = re.compile(r"[0-9A-Za-z_-]{8,64}")

COUNTING = """
SELECT j.id, j.number, t.pair, j.annotator, j.choice, j.seconds, t.left_side, t.repeat, j.at
FROM judgements AS j JOIN tasks AS t USING (annotator, number) WHERE j.undone_at IS NULL
"""
OF_ONE = "WHERE annotator = ?"
OPEN = """
NOT EXISTS (SELECT 1 FROM judgements AS j
WHERE j.annotator = t.annotator AND j.number = t.number AND j.undone_at IS NULL)
"""
ADD = """
INSERT INTO judgements (id, annotator, number, choice, seconds, at) VALUES (?, ?, ?, ?, ?, ?)
"""


class UnknownTaskError(StoreError):
    """There is no such task, or no such judgement to undo."""


class JudgedError(StoreError):
    """The task has another judgement already, as from a second window."""


@dataclass(frozen=True)
class Task:
    """A pair that an annotator is to judge.

    Attributes:
      number: in the order of showing, from 0, for each annotator.
      pair: key of the pair.
      repeat: whether it is shown to the annotator for the second time.
      left: which candidate is shown at the left of the screen.
    """

    annotator: str
    number: int
    pair: str
    repeat: bool
    left: Side


@dataclass(frozen=True)
class Stored:
    """A judgement with its id and the number of its task."""

    id: str
    number: int
    judgement: Judgement


def annotator_name(text: str) -> str:
    """An annotator's name without surrounding blanks, in one of its Unicode spellings.

    Raises:
      StoreError: it is empty, longer than 64 characters, or has characters that do not print.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not name:
        raise StoreError("is empty; give a name or initials", field="annotator")
    if len(name) > MOST_NAME:
        problem = f"has {len(name)} characters, at most {MOST_NAME} are taken"
        raise StoreError(problem, field="annotator")
    if not name.isprintable():
        raise StoreError(f"{printable(name)!r} has characters that do not print", field="annotator")
    return name


def _check_id(text: str) -> None:
    if not ID.fullmatch(text):
        raise StoreError("expected 8 to 64 letters, digits, - or _", field="id")


def now() -> str:
    """Date and time in UTC, ISO 8601 to the millisecond."""
    found = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return found.replace("+00:00", "Z")


class JudgementStore:
    """An open database; methods may be called from several threads.

    Every method raises `StoreError` where the database turns out to be damaged or is locked by
    another program, and those that write raise `DiskError` where the disk is full.
    """

    def __init__(self, folder: PairFolder, opened: Database):
        """See `writing` and `reading`."""
        self.folder = folder
        self.pairs: dict[str, Pair] = {pair.key: pair for pair in folder.pairs}
        self.database = opened

    def tasks(self, annotator: str | None = None) -> list[Task]:
        """All tasks, or those of one annotator, in the order of showing."""
        return self._tasks("") if annotator is None else self._tasks(OF_ONE, annotator)

    def open_tasks(self, annotator: str | None = None) -> list[Task]:
        """The tasks without a judgement that counts, in the order of showing."""
        if annotator is None:
            return self._tasks(f"WHERE {OPEN}")
        return self._tasks(f"{OF_ONE} AND {OPEN}", annotator)

    def task(self, annotator: str, number: int) -> Task:
        """One task.

        Raises:
          UnknownTaskError: there is none of this number.
        """
        found = self._tasks("WHERE annotator = ? AND number = ?", annotator, number)
        if not found:
            raise UnknownTaskError(f"{annotator} has no task {number}", field="number")
        return found[0]

    def judged(self, annotator: str | None = None) -> list[Stored]:
        """The judgements that count, those of one annotator or all, oldest first."""
        if annotator is None:
            return self._counting("ORDER BY sequence")
        return self._counting("AND j.annotator = ? ORDER BY sequence", annotator)

    def judgements(self) -> list[Judgement]:
        """The judgements that count, oldest first."""
        return [stored.judgement for stored in self.judged()]

    def count(self, annotator: str) -> int:
        """How many judgements of an annotator count."""
        query = "SELECT COUNT(*) FROM judgements WHERE annotator = ? AND undone_at IS NULL"
        return int(self.database.rows(query, annotator)[0][0])

    def judged_pairs(self) -> set[str]:
        """The pairs of which a judgement counts, of anybody."""
        query = "SELECT DISTINCT t.pair FROM judgements AS j JOIN tasks AS t "
        query += "USING (annotator, number) WHERE j.undone_at IS NULL"
        return {row[0] for row in self.database.rows(query)}

    def last(self, annotator: str) -> Stored | None:
        """The latest judgement of an annotator that counts, which is the one to undo."""
        found = self._counting("AND j.annotator = ? ORDER BY sequence DESC LIMIT 1", annotator)
        return found[0] if found else None

    def assign(self, annotator: str, pair: str, repeat: bool, left: Side) -> Task:
        """Adds a task at the end of an annotator's.

        Raises:
          StoreError: the pair is unknown, or a task of the annotator already.
        """
        self._known(pair)
        with self.database.transaction() as connection:
            query = "SELECT COALESCE(MAX(number) + 1, 0) FROM tasks WHERE annotator = ?"
            number = int(connection.execute(query, (annotator,)).fetchone()[0])
            row = (annotator, number, pair, int(repeat), left)
            connection.execute("INSERT INTO tasks VALUES (?, ?, ?, ?, ?)", row)
        return Task(annotator, number, pair, repeat, left)

    def judge(self, id: str, annotator: str, number: int, choice: Choice, seconds: float) -> bool:
        """Stores a judgement, durably, or nothing where one of this id is there.

        Returns:
          Whether it was stored now.

        Raises:
          StoreError: the id is of another judgement or no id, or `seconds` is out of range.
          UnknownTaskError: the annotator has no such task.
          JudgedError: the task has another judgement that counts.
        """
        _check_id(id)
        if not 0 <= seconds <= MOST_SECONDS:
            problem = f"found {seconds:g}, expected 0 to {MOST_SECONDS:g}"
            raise StoreError(problem, field="seconds")
        with self.database.transaction() as connection:
            query = "SELECT annotator, number, choice FROM judgements WHERE id = ?"
            there = connection.execute(query, (id,)).fetchone()
            if there is not None:
                if there != (annotator, number, choice):
                    raise StoreError("is that of another judgement", field="id")
                return False
            self._open(connection, annotator, number)
            row = (id, annotator, number, choice, float(seconds), now())
            connection.execute(ADD, row)
        return True

    def undo(self, annotator: str, id: str) -> bool:
        """Marks a judgement as undone, so that its task is open again.

        Returns:
          False where it was undone already.

        Raises:
          StoreError: the id is none.
          UnknownTaskError: the annotator has no such judgement.
        """
        _check_id(id)
        with self.database.transaction() as connection:
            query = "SELECT undone_at FROM judgements WHERE id = ? AND annotator = ?"
            row = connection.execute(query, (id, annotator)).fetchone()
            if row is None:
                raise UnknownTaskError(f"{annotator} has no judgement of this id", field="id")
            connection.execute(
                "UPDATE judgements SET undone_at = ? WHERE id = ? AND undone_at IS NULL",
                (now(), id),
            )
        return row[0] is None

    def add(self, id: str, judgement: Judgement) -> bool:
        """Stores a judgement made elsewhere, with its task; several are added within `together`.

        Returns:
          False where the very same judgement is there already.

        Raises:
          StoreError: the id is none, or the pair is unknown.
          JudgedError: the annotator has another judgement of the pair.
        """
        _check_id(id)
        pair, annotator, repeat = judgement.pair, judgement.annotator, int(judgement.repeat)
        self._known(pair)
        with self.database.transaction() as connection:
            query = "SELECT number FROM tasks WHERE annotator = ? AND pair = ? AND repeat = ?"
            row = connection.execute(query, (annotator, pair, repeat)).fetchone()
            if row is None:
                number = self.assign(annotator, pair, judgement.repeat, judgement.left).number
            else:
                number = int(row[0])
                there = self._counting("AND j.annotator = ? AND j.number = ?", annotator, number)
                if there and there[0].judgement == judgement:
                    return False
                if there:
                    other = there[0].judgement
                    problem = f"found {judgement.choice!r} of {annotator}, whose judgement of pair "
                    problem += f"{pair} at {other.at} is {other.choice!r}"
                    raise JudgedError(problem, field="choice")
                connection.execute(
                    "UPDATE tasks SET left_side = ? WHERE annotator = ? AND number = ?",
                    (judgement.left, annotator, number),
                )
            values = (id, annotator, number, judgement.choice, judgement.seconds, judgement.at)
            # One of this id was undone; who adds it again wants it back.
            restore = "UPDATE judgements SET undone_at = NULL WHERE id = ?"
            if not connection.execute(restore, (id,)).rowcount:
                connection.execute(ADD, values)
        return True

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block whose changes are all stored at its end, or none where it fails."""
        with self.database.transaction():
            yield

    def _counting(self, chosen: str, *given: str | int) -> list[Stored]:
        """The judgements that count, of those that the end of the query chooses."""
        return [self._stored(row) for row in self.database.rows(f"{COUNTING} {chosen}", *given)]

    def _open(self, connection: sqlite3.Connection, annotator: str, number: int) -> None:
        """Raises where there is no such task, or it has a judgement."""
        task = self.task(annotator, number)
        query = "SELECT 1 FROM judgements WHERE annotator = ? AND number = ? AND undone_at IS NULL"
        if connection.execute(query, (annotator, number)).fetchone():
            problem = f"{annotator} has judged pair {task.pair} already"
            raise JudgedError(problem, field="number")

    def _known(self, pair: str) -> None:
        if pair not in self.pairs:
            problem = f"{printable(pair)} is not among the pairs of {self.folder.path}"
            raise StoreError(problem, field="pair")

    def _tasks(self, chosen: str, *given: str | int) -> list[Task]:
        """Those that a clause of a query chooses."""
        query = "SELECT annotator, number, pair, repeat, left_side FROM tasks AS t"
        rows = self.database.rows(f"{query} {chosen} ORDER BY annotator, number", *given)
        return [Task(who, n, pair, bool(again), left) for who, n, pair, again, left in rows]

    def _stored(self, row: tuple) -> Stored:
        id, number, pair, annotator, choice, seconds, left, repeat, at = row
        gold = pair in self.pairs and self.pairs[pair].gold is not None
        judgement = Judgement(
            pair=pair,
            annotator=annotator,
            choice=cast(Choice, choice),
            seconds=seconds,
            left=cast(Side, left),
            repeat=bool(repeat),
            gold=gold,
            at=at,
        )
        return Stored(id, number, judgement)


@contextmanager
def writing(folder: PairFolder) -> Iterator[JudgementStore]:
    """The database of a folder, made where there is none, held for this process alone.

    Raises:
      BusyError: another process holds it; names it.
      StoreError: it is damaged, of another program, or has judgements of pairs that the folder
        lacks. It is left as it is then.
      DiskError: it cannot be made.
    """
    with locks.held(folder.path, LOCK):
        if not folder.judgements.exists():
            database.create(folder.judgements)
        with database.opened(folder.judgements, writes=True) as found:
            yield _checked(JudgementStore(folder, found))


@contextmanager
def reading(folder: PairFolder) -> Iterator[JudgementStore]:
    """The database of a folder, to read, while another process may write to it.

    Raises:
      StoreError: there is none; else as `writing`.
    """
    if not folder.judgements.exists():
        problem = "no such file; nothing was judged in this folder yet"
        raise StoreError(problem, path=folder.judgements)
    with database.opened(folder.judgements, writes=False) as found:
        yield _checked(JudgementStore(folder, found))


def _checked(store: JudgementStore) -> JudgementStore:
    """The store, whose tasks are all of pairs of the folder."""
    unknown = sorted({task.pair for task in store.tasks()} - store.pairs.keys())
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise StoreError(
            f"has tasks of pair {unknown[0]}{more}, not in {store.folder.path / PAIRS}; "
            "is it the database of another folder?",
            path=store.folder.judgements,
        )
    return store
