"""Which pair comes next: each pair to one annotator, some to all, gold and repeats among them."""

from collections.abc import Iterator

import pytest

from sf_jax.systems.superface import store
from sf_jax.systems.superface.folder import PairFolder
from sf_jax.systems.superface.queues import QueueOptions, Queues
from sf_jax.systems.superface.store import JudgementStore, Task
from tests.systems.superface.folders import fill

COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    return fill(tmp_path_factory.mktemp("pairs"), COUNT)


@pytest.fixture
def opened(folder: PairFolder) -> Iterator[JudgementStore]:
    with store.writing(folder) as found:
        yield found
    for path in folder.path.glob("judgements.sqlite*"):
        path.unlink()


def judge(opened: JudgementStore, task: Task) -> None:
    id = f"{task.annotator}-{task.number:08d}"
    opened.judge(id, task.annotator, task.number, "first", 1.0)


def work(opened: JudgementStore, queues: Queues, annotator: str, most: int = 1000) -> list[Task]:
    """The tasks that an annotator judges, one after the other, with two asked for in advance."""
    done: list[Task] = []
    while len(done) < most and (tasks := queues.upcoming(annotator, 3)):
        judge(opened, tasks[0])
        done.append(tasks[0])
    return done


def test_each_pair_goes_to_one_annotator_and_gold_to_all(
    opened: JudgementStore, folder: PairFolder
) -> None:
    queues = Queues(opened, QueueOptions(overlap=0, repeats=0))
    done: dict[str, list[Task]] = {"anna": [], "bert": []}
    for _ in range(COUNT):
        for name in done:
            done[name] += work(opened, queues, name, 1)
    shown = {name: {task.pair for task in tasks} for name, tasks in done.items()}
    gold = {pair.key for pair in folder.pairs if pair.gold}
    both = shown["anna"] & shown["bert"]
    assert gold and gold <= both and len(both - gold) <= 3  # those left open at the very end
    assert shown["anna"] | shown["bert"] == {pair.key for pair in folder.pairs}
    for name, tasks in done.items():
        assert [task.number for task in tasks] == list(range(len(tasks)))
        assert len(shown[name]) == len(tasks) and abs(len(tasks) - COUNT * 0.6) < 5
        assert {task.left for task in tasks} == {"first", "second"}
        assert queues.remaining(name) == 0
    orders = [[task.pair for task in tasks if task.pair in gold] for tasks in done.values()]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("overlap, least, most", [(1.0, COUNT, COUNT), (0.5, 30, 50)])
def test_a_share_of_the_pairs_goes_to_all(
    opened: JudgementStore, overlap: float, least: int, most: int
) -> None:
    queues = Queues(opened, QueueOptions(overlap=overlap, repeats=0))
    first = {task.pair for task in work(opened, queues, "anna")}
    second = {task.pair for task in work(opened, queues, "bert")}
    assert len(first) == COUNT and least <= len(second) <= most


def test_repeats_come_later_with_the_sides_exchanged(opened: JudgementStore) -> None:
    options = QueueOptions(overlap=0, repeats=0.3, distance=10)
    done = work(opened, Queues(opened, options), "anna")
    first = {task.pair: task for task in done if not task.repeat}
    again = [task for task in done if task.repeat]
    assert len(first) == COUNT and 10 <= len(again) <= 40
    assert len({task.pair for task in again}) == len(again)
    for task in again:
        earlier = first[task.pair]
        assert task.left != earlier.left and task.number - earlier.number >= options.distance
        assert opened.pairs[task.pair].gold is None
    assert sum(one.repeat for one in opened.judgements()) == len(again)


def test_a_queue_continues_after_a_restart(opened: JudgementStore) -> None:
    options = QueueOptions(overlap=0.2, repeats=0.2, distance=5)
    work(opened, Queues(opened, options), "anna", 20)
    ahead = Queues(opened, options).upcoming("anna", 3)
    assert Queues(opened, options).upcoming("anna", 3) == ahead
    left = Queues(opened, options).remaining("anna")
    done = work(opened, Queues(opened, options), "anna")
    assert done[:3] == ahead and left == len([task for task in done if not task.repeat])


def test_what_one_annotator_leaves_open_another_gets_in_the_end(opened: JudgementStore) -> None:
    queues = Queues(opened, QueueOptions(overlap=0, repeats=0))
    waiting = {task.pair for task in queues.upcoming("anna", 3)}
    assert queues.remaining("bert") == COUNT
    done = {task.pair for task in work(opened, queues, "bert")}
    assert len(done) == COUNT and waiting <= done
    gold = {key for key, pair in opened.pairs.items() if pair.gold}
    assert queues.remaining("anna") == len(waiting | gold) and queues.remaining("bert") == 0


def test_pairs_that_cannot_be_shown_are_given_to_nobody(
    opened: JudgementStore, folder: PairFolder
) -> None:
    queues = Queues(opened, QueueOptions(overlap=0, repeats=0))
    waiting = {task.pair for task in queues.upcoming("anna", 3)}
    keys = {pair.key for pair in folder.pairs}
    gone = {pair.key for pair in folder.pairs[::2]}
    for name in ("anna", "bert"):  # who gets what anna has not judged
        found = queues.upcoming(name, COUNT, lambda pair: pair not in gone)
        assert {task.pair for task in found} == keys - gone
    assert {task.pair for task in opened.tasks()} & gone <= waiting
    assert {task.pair for task in queues.upcoming("anna", COUNT)} == keys


def test_a_pair_that_cannot_be_shown_is_not_repeated(opened: JudgementStore) -> None:
    queues = Queues(opened, QueueOptions(overlap=0, repeats=1, distance=0))
    (first,) = work(opened, queues, "anna", 1)
    (task,) = queues.upcoming("anna", 1, lambda pair: pair != first.pair)
    assert task.pair != first.pair and not task.repeat


def test_an_undone_task_is_the_next_one(opened: JudgementStore) -> None:
    queues = Queues(opened)
    tasks = work(opened, queues, "anna", 3)
    opened.undo("anna", "anna-00000001")
    assert queues.upcoming("anna", 1) == [tasks[1]]
