"""The database of judgements: durable, nothing twice, and clear about what is broken."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sf_jax.media.errors import DataError
from sf_jax.media.locks import BusyError
from sf_jax.systems.superface import store
from sf_jax.systems.superface.database import DiskError, StoreError
from sf_jax.systems.superface.folder import PairFolder
from sf_jax.systems.superface.pairs import Judgement
from sf_jax.systems.superface.store import (
    JudgedError,
    JudgementStore,
    UnknownTaskError,
)
from tests.systems.superface.folders import fill


@pytest.fixture
def folder(tmp_path: Path) -> PairFolder:
    return fill(tmp_path / "pairs", 6)


@pytest.fixture
def open_store(folder: PairFolder) -> Iterator[JudgementStore]:
    with store.writing(folder) as found:
        yield found


def key(folder: PairFolder, number: int) -> str:
    return folder.pairs[number].key


def judge_some(folder: PairFolder, count: int = 3) -> list[Judgement]:
    with store.writing(folder) as found:
        for number in range(count):
            found.assign("anna", key(folder, number), False, "second")
            found.judge(f"judgement-{number}", "anna", number, "first", 1.5)
        return found.judgements()


def test_a_judgement_is_there_after_opening_again(folder: PairFolder) -> None:
    (one, *_), pair = judge_some(folder, 1), folder.pairs[0]
    assert (one.pair, one.annotator, one.choice, one.left) == (pair.key, "anna", "first", "second")
    assert one.seconds == 1.5 and not one.repeat and one.gold == (pair.gold is not None)
    assert one.at.startswith("20") and one.at.endswith("Z")
    with store.reading(folder) as found:
        assert found.judgements() == [one]
    mode = sqlite3.connect(folder.judgements).execute("PRAGMA journal_mode").fetchone()[0]
    assert mode == "wal"


def test_a_judgement_that_is_sent_again_changes_nothing(
    open_store: JudgementStore, folder: PairFolder
) -> None:
    open_store.assign("anna", key(folder, 0), False, "first")
    assert open_store.judge("judgement-0", "anna", 0, "tie", 1.0)
    assert not open_store.judge("judgement-0", "anna", 0, "tie", 2.0)
    assert [one.seconds for one in open_store.judgements()] == [1.0]
    with pytest.raises(StoreError, match="field 'id': is that of another"):
        open_store.judge("judgement-0", "anna", 0, "first", 1.0)
    with pytest.raises(JudgedError, match=f"anna has judged pair {key(folder, 0)} already"):
        open_store.judge("judgement-1", "anna", 0, "first", 1.0)
    assert [one.choice for one in open_store.judgements()] == ["tie"]


def test_undoing_opens_the_task_again_and_forgets_nothing(
    open_store: JudgementStore, folder: PairFolder
) -> None:
    open_store.assign("anna", key(folder, 0), False, "first")
    open_store.judge("judgement-0", "anna", 0, "tie", 1.0)
    last = open_store.last("anna")
    assert last is not None and last.id == "judgement-0"
    assert open_store.undo("anna", "judgement-0") and not open_store.undo("anna", "judgement-0")
    assert open_store.last("anna") is None and open_store.count("anna") == 0
    assert [task.number for task in open_store.open_tasks("anna")] == [0]
    assert not open_store.judge("judgement-0", "anna", 0, "tie", 1.0)  # a late copy of the first
    assert open_store.judgements() == []
    assert open_store.judge("judgement-1", "anna", 0, "second", 1.0)
    assert [one.choice for one in open_store.judgements()] == ["second"]
    with sqlite3.connect(folder.judgements) as other:
        assert other.execute("SELECT COUNT(*) FROM judgements").fetchone() == (2,)


def test_what_cannot_be_stored_is_refused(open_store: JudgementStore, folder: PairFolder) -> None:
    with pytest.raises(StoreError, match="'pair': 0123 is not among the pairs of"):
        open_store.assign("anna", "0123", False, "first")
    with pytest.raises(UnknownTaskError, match="anna has no task 7"):
        open_store.judge("judgement-0", "anna", 7, "tie", 1.0)
    open_store.assign("anna", key(folder, 0), False, "first")
    with pytest.raises(StoreError, match="letters"):
        open_store.judge("short", "anna", 0, "tie", 1.0)
    for seconds in (-1.0, float("nan"), 1e6):
        with pytest.raises(StoreError, match="'seconds': found"):
            open_store.judge("judgement-0", "anna", 0, "tie", seconds)
    with pytest.raises(UnknownTaskError, match="bert has no judgement of this id"):
        open_store.undo("bert", "judgement-0")
    with pytest.raises(StoreError, match="letters, digits"):
        open_store.undo("anna", "\ud800")
    assert open_store.judgements() == []


@pytest.mark.parametrize("name, problem", [(" ", "empty"), ("a" * 65, "65"), ("a\nb", "print")])
def test_names_of_annotators(name: str, problem: str) -> None:
    with pytest.raises(StoreError, match=f"annotator.*{problem}"):
        store.annotator_name(name)
    assert store.annotator_name("  Zoe\u0308 ") == "Zoë"


def test_a_block_that_fails_stores_nothing(open_store: JudgementStore, folder: PairFolder) -> None:
    one = Judgement(
        key(folder, 0), "anna", "tie", 1.0, "first", False, False, "2026-01-01T00:00:00Z"
    )
    with pytest.raises(KeyError), open_store.together():
        assert open_store.add("judgement-0", one)
        raise KeyError
    assert open_store.judgements() == [] and open_store.tasks() == []
    assert open_store.add("judgement-0", one) and not open_store.add("judgement-0", one)


def test_what_was_added_and_undone_can_be_added_again(
    open_store: JudgementStore, folder: PairFolder
) -> None:
    at = "2026-01-01T00:00:00Z"
    one = Judgement(key(folder, 0), "anna", "tie", 1.0, "first", False, False, at)
    open_store.add("judgement-0", one)
    open_store.undo("anna", "judgement-0")
    assert open_store.add("judgement-0", one) and open_store.judgements() == [one]


def test_one_process_writes_and_others_read(folder: PairFolder) -> None:
    with store.writing(folder) as first:
        first.assign("anna", key(folder, 0), False, "first")
        with pytest.raises(BusyError, match="process .* writes here"), store.writing(folder):
            pass
        first.judge("judgement-0", "anna", 0, "tie", 1.0)
        with store.reading(folder) as second:
            assert len(second.judgements()) == 1
    with store.writing(fill(folder.path, 1, start=6)) as again:  # the lock is free
        assert len(again.judgements()) == 1


def test_a_full_disk_loses_nothing(open_store: JudgementStore, folder: PairFolder) -> None:
    connection = open_store.database.connection
    for number in range(3):
        open_store.assign("anna", key(folder, number), False, "first")
    open_store.judge("judgement-0", "anna", 0, "tie", 1.0)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    name = "a" * 60
    with pytest.raises(
        DiskError, match="judgements.sqlite: cannot be written: database or disk is full"
    ):
        for number in range(200):
            open_store.assign(f"{name}{number}", key(folder, 1), False, "first")
    before = len(open_store.tasks())
    assert [one.choice for one in open_store.judgements()] == ["tie"]
    connection.execute(f"PRAGMA max_page_count = {pages + 100}")
    open_store.judge("judgement-1", "anna", 1, "first", 1.0)
    open_store.assign(f"{name}!", key(folder, 1), False, "first")
    assert len(open_store.tasks()) == before + 1 and len(open_store.judgements()) == 2


def test_a_file_that_was_moved_or_replaced_takes_no_judgement(
    open_store: JudgementStore, folder: PairFolder
) -> None:
    open_store.assign("anna", key(folder, 0), False, "first")
    path = folder.judgements
    away = path.rename(path.with_name("away.sqlite"))
    with pytest.raises(DiskError, match="was moved, deleted or replaced while it was open"):
        open_store.judge("judgement-0", "anna", 0, "tie", 1.0)
    path.write_bytes(away.read_bytes())
    with pytest.raises(DiskError, match="was moved, deleted or replaced"):
        open_store.judge("judgement-0", "anna", 0, "tie", 1.0)
    away.rename(path)
    assert open_store.judge("judgement-0", "anna", 0, "tie", 1.0)


def garbage(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 4] = bytes(4096 * 2)
    path.write_bytes(content)


def of_another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE notes (text)")


def of_another_version(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")


def of_another_folder(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("UPDATE tasks SET pair = 'f' || substr(pair, 2)")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN = {
    garbage: "is damaged, and was left as it is; .*--import.*not a database",
    emptied: "is damaged, .*it is empty",
    cut_off: "is damaged",
    overwritten: "is damaged",
    of_another_program: "is a database of another program",
    of_another_version: "has tables of version 99, expected 1",
    of_another_folder: "has tasks of pair f.* and 2 more, not in .*pairs.jsonl; is it",
    a_folder: "a folder, expected a file",
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda one: one.__name__)
def test_a_broken_database_is_named_and_left_alone(
    folder: PairFolder, damage: Callable[[Path], None]
) -> None:
    judge_some(folder)
    damage(folder.judgements)
    before = folder.judgements.read_bytes() if folder.judgements.is_file() else b""
    for opened in (store.writing, store.reading):
        with pytest.raises(DataError, match=BROKEN[damage]) as found, opened(folder):
            pass
        assert str(found.value).startswith(str(folder.judgements))
    if folder.judgements.is_file():
        assert folder.judgements.read_bytes() == before


def test_reading_where_nothing_was_judged(folder: PairFolder) -> None:
    with pytest.raises(StoreError, match="judgements.sqlite: no such file"), store.reading(folder):
        pass
    assert not folder.judgements.exists()
