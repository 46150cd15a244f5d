"""Which pair an annotator is shown next: queues of their own, hidden repeats, gold pairs.

Each annotator has an order of the pairs of their own, made from hashes of name and pair. A share of
the pairs is shown to everyone, so that agreement can be measured, and so are all gold pairs; each
other pair goes to the first who comes to it. A share of an annotator's tasks are repeats: a pair
judged a while ago, with the sides exchanged, which measures consistency and a preference for a side
at once. Nothing on the page distinguishes gold pairs and repeats from others.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import xxhash

from sf_jax.systems.superface.pairs import Side
from sf_jax.systems.superface.store import JudgementStore, Task


@dataclass(frozen=True)
class QueueOptions:
    """How tasks are distributed.

    Attributes:
      overlap: share of the pairs that every annotator judges, 0 to 1.
      repeats: share of an annotator's tasks that are repeats, 0 to 1.
      distance: tasks between a pair and its repeat, at least.
    """

    overlap: float = 0.1
    repeats: float = 0.05
    distance: int = 20


Sound = Callable[[str], bool]  # key of a pair → whether it can be shown


def share(*parts: object) -> float:
    """A number from 0 to 1, excluding 1, that looks random but is always the same."""
    return xxhash.xxh3_64_intdigest("\n".join(map(str, parts)).encode()) / 2**64


class Queues:
    """The queues of all annotators of a folder; methods may be called from several threads."""

    def __init__(self, store: JudgementStore, options: QueueOptions = QueueOptions()):
        """Continues from the tasks of the store, of which this must be the only writer."""
        self._store, self._options = store, options
        self._lock = threading.Lock()
        self._orders: dict[str, list[str]] = {}
        self._tasks: dict[str, list[Task]] = {}  # of each annotator, in the order of showing
        self._taken: set[str] = set()  # pairs that are tasks of anybody
        self._gold = {key for key, pair in store.pairs.items() if pair.gold is not None}
        shown_to_all = {key for key in store.pairs if share("overlap", key) < options.overlap}
        self._everyones = self._gold | shown_to_all
        self._others = store.pairs.keys() - self._everyones
        for task in store.tasks():
            self._note(task)

    def upcoming(self, annotator: str, count: int, sound: Sound = lambda pair: True) -> list[Task]:
        """An annotator's next tasks, in order; fewer than `count` where no more are left.

        Args:
          sound: of other pairs no task is returned, and none is made: they stay everybody's. It is
            asked often, and is to remember what it found.

        Raises:
          StoreError: see `JudgementStore`.
        """
        with self._lock:
            waiting = self._store.open_tasks(annotator)
            found = list(islice((task for task in waiting if sound(task.pair)), count))
            while len(found) < count and (task := self._assigned(annotator, sound)) is not None:
                found.append(task)
        return found

    def remaining(self, annotator: str) -> int:
        """How many tasks an annotator has left, without repeats to come, if nobody else goes on.

        What others were given and have not judged is among them.
        """
        with self._lock:
            free = (self._everyones | self._others) - self._given(annotator)
            if not self._others.isdisjoint(free & self._taken):
                free -= self._others & self._store.judged_pairs()
        return len(self._store.open_tasks(annotator)) + len(free)

    def _given(self, annotator: str) -> set[str]:
        return {task.pair for task in self._tasks.get(annotator, ())}

    def _note(self, task: Task) -> None:
        self._tasks.setdefault(task.annotator, []).append(task)
        self._taken.add(task.pair)

    def _assigned(self, annotator: str, sound: Sound) -> Task | None:
        """A new task, which is stored; None where nothing is left."""
        chosen = self._repeat(annotator, sound) or self._new(annotator, sound)
        if chosen is None:
            return None
        task = self._store.assign(annotator, *chosen)
        self._note(task)
        return task

    def _repeat(self, annotator: str, sound: Sound) -> tuple[str, bool, Side] | None:
        """The earliest judged pair that was not repeated yet, where a repeat is due."""
        tasks = self._tasks.get(annotator, [])
        number = len(tasks)
        if share("repeat", annotator, number) >= self._options.repeats:
            return None
        again = {task.pair for task in tasks if task.repeat} | self._gold
        judged = {stored.number for stored in self._store.judged(annotator)}
        for task in tasks[: max(0, number - self._options.distance)]:
            if task.number in judged and task.pair not in again and sound(task.pair):
                return task.pair, True, "second" if task.left == "first" else "first"
        return None

    def _new(self, annotator: str, sound: Sound) -> tuple[str, bool, Side] | None:
        """The first pair, in the annotator's order, that they may be given."""
        order = self._orders.get(annotator)
        if order is None:
            order = sorted(self._store.pairs, key=lambda key: share("order", annotator, key))
            self._orders[annotator] = order
        given = self._given(annotator)
        free = (self._everyones | (self._others - self._taken)) - given
        pair = next((key for key in order if key in free and sound(key)), None)
        if pair is None:  # then what others were given and have left unjudged
            left = self._store.pairs.keys() - self._store.judged_pairs() - given - free
            pair = next((key for key in order if key in left and sound(key)), None)
        if pair is None:
            return None
        return pair, False, "first" if share("left", annotator, pair) < 0.5 else "second"
