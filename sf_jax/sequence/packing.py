"""Packed rows: several examples share a row, and each batch is the same on any number of processes.

Each row of the global batch has a stream of its own. With R rows, stream r runs through examples
r, r + R, r + 2R, … without end. It keeps a pool of pending examples and makes one row a step: the
oldest of them, and those others that fill the row best. A row thus depends on its stream alone,
whichever process makes it, and the state of a stream is a few example numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from jaxtyping import PyTree

from sf_jax.sequence.batch import Capacity
from sf_jax.sequence.example import Example, assemble


class Numbered(Protocol):
    """What is packed: an example, or several that belong together."""

    @property
    def number(self) -> int: ...


Item = TypeVar("Item", bound=Numbered)
Size = Callable[[Any, Capacity], tuple[int, int]]
Build = Callable[[Sequence[Sequence[Any]], Capacity], PyTree]


def choose(sizes: Sequence[tuple[int, int]], length: int, units: int) -> list[int]:
    """Which examples make a row: the first, and those others that fill it best.

    Best are the most tokens, then the most units (patches), then the older examples: the first that
    can be in such a row is in it, then the next, and so on. The search is exact.

    Args:
      sizes: (tokens, units) of each example, oldest first. The first one fits a row.
      length, units: of a row.

    Returns:
      Their indices, ascending.
    """
    first_tokens, first_patches = sizes[0]
    room, patch_room = length - first_tokens, units - first_patches
    within = (1 << (room + 1)) - 1
    # Item i: sums of the last i examples. For each number of patches an integer, whose bit t is
    # set where t tokens go with it.
    sums: list[dict[int, int]] = [{0: 1}]
    for tokens, patches in reversed(sizes[1:]):
        grown = dict(sums[-1])
        for patch_sum, token_sums in sums[-1].items():
            moved = token_sums << tokens & within
            if moved and patch_sum + patches <= patch_room:
                grown[patch_sum + patches] = grown.get(patch_sum + patches, 0) | moved
        sums.append(grown)
    room, patch_room = max((bits.bit_length() - 1, at) for at, bits in sums[-1].items())
    chosen = [0]
    for index, (tokens, patches) in enumerate(sizes[1:], 1):
        later = sums[len(sizes) - 1 - index].get(patch_room - patches, 0)
        if tokens <= room and later >> (room - tokens) & 1:
            chosen.append(index)
            room, patch_room = room - tokens, patch_room - patches
    return chosen


def example_size(example: Example, capacity: Capacity) -> tuple[int, int]:
    """Tokens of an example, and units of other modalities, such as patches.

    Raises:
      ValueError: it is larger than a row.
    """
    tokens, units = example.size
    if tokens > capacity.length or units > capacity.units:
        raise ValueError(
            f"{example.where}: an example of {tokens} tokens and {units} units exceeds rows of "
            f"{capacity.length} tokens and {capacity.units} units, such as patches"
        )
    return tokens, units


@dataclass(frozen=True, eq=False)
class _Stream(Generic[Item]):
    """Position of a stream: the number of the next example to draw, and those not yet in a row."""

    following: int
    pending: tuple[Item, ...] = ()


@dataclass(frozen=True, eq=False)
class _Made(Generic[Item]):
    """A batch, the numbers of its rows' examples, their tokens and units, the streams after it."""

    batch: PyTree
    numbers: list[list[int]]
    streams: list[_Stream[Item]]
    sizes: np.ndarray


class PackedBatches(Generic[Item]):
    """An endless iterator over batches of packed rows, with `get_state` and `set_state`.

    A batch holds numpy arrays, its rows in the order of `rows`. The next one is made in a thread
    while a batch is in use; `get_state`, `examples` and `waste` are about those handed out. An
    error in making a batch is raised by the call that would hand it out, and by each call after it.

    Attributes:
      source: example number → example. The same number always gives the same example, and it is
        made anew where a state is restored.
      examples: numbers of the examples in each row of the batch handed out last, in order;
        `source(number).where` names one.
    """

    def __init__(
        self,
        source: Callable[[int], Item],
        capacity: Capacity,
        *,
        row_count: int,
        rows: Sequence[int] | None = None,
        pool: int = 32,
        pack: bool = True,
        size: Size = example_size,
        build: Build = assemble,
    ):
        """Starts at the first examples.

        Args:
          capacity: of a row.
          row_count: rows of the global batch.
          rows: those rows of the global batch that this process makes; None means all.
          pool: examples of each row's stream to choose from, held with their images; a row fills
            up where there are about twice as many as fit it.
          pack: whether examples share rows; else each has a row to itself.
          size: how many tokens, and units of other modalities, an example takes; raises ValueError
            where a row has no room for it.
          build: makes the batch of the examples of each row.

        Raises:
          ValueError: a row is not one of the global batch, or given twice; the pool is empty.
        """
        self.rows = list(range(row_count) if rows is None else rows)
        if len(set(self.rows)) < len(self.rows) or not set(self.rows) <= set(range(row_count)):
            raise ValueError(f"rows are {self.rows}, expected different ones below {row_count}")
        if pool < 1:
            raise ValueError(f"pool is {pool}, expected 1 or more")
        if pack and size is example_size and len(capacity.modalities) > 1:
            names = ", ".join(capacity.modalities)
            raise ValueError(f"rows of several modalities ({names}) need a size of their own")
        self.source, self.capacity, self.row_count = source, capacity, row_count
        self.size, self.build = size, build
        self.pool, self.pack = pool if pack else 1, pack
        self.examples: list[list[int]] = []
        self._streams: list[_Stream[Item]] = [_Stream(row) for row in self.rows]
        self._worker = ThreadPoolExecutor(1, "packing")
        self._ahead: Future | None = None
        self._filled, self._handed_out = np.zeros(2, np.int64), 0  # tokens and units; rows

    def __iter__(self) -> "PackedBatches[Item]":
        return self

    def __next__(self) -> PyTree:
        ahead = self._ahead or self._worker.submit(self._made, self._streams)
        self._ahead = None
        made = ahead.result()
        self.examples, self._streams = made.numbers, made.streams
        self._ahead = self._worker.submit(self._made, self._streams)
        self._filled += made.sizes
        self._handed_out += len(made.numbers)
        return made.batch

    @property
    def waste(self) -> tuple[float, float]:
        """Share of padding among the tokens, and among the units such as patches, so far.

        Of the rows of this process; 0 where rows have room for none.
        """
        room = self._handed_out * np.array([self.capacity.length, self.capacity.units])
        tokens, units = np.where(room > 0, 1 - self._filled / np.maximum(room, 1), 0.0)
        return float(tokens), float(units)

    def get_state(self) -> dict[str, Any]:
        """Where the batch handed out last has left this process's streams, as JSON can hold it.

        {"row_count": R, "streams": {"r": {"next": number, "pending": [numbers]}}}. The streams of
        several processes may be put together into one state, for any other split of the rows.
        """
        streams = {
            str(row): {"next": stream.following, "pending": [e.number for e in stream.pending]}
            for row, stream in zip(self.rows, self._streams, strict=True)
        }
        return {"row_count": self.row_count, "streams": streams}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state, which may hold more streams than this process has.

        Raises:
          ValueError: the state is of another number of rows, or lacks some of this process's.
        """
        if state["row_count"] != self.row_count:
            raise ValueError(
                f"the state is of {state['row_count']} rows a global batch, here are "
                f"{self.row_count}: give as many, or begin in another directory"
            )
        missing = [row for row in self.rows if str(row) not in state["streams"]]
        if missing:
            raise ValueError(f"the state lacks the streams of rows {missing}")
        if self._ahead is not None:
            wait([self._ahead])
            self._ahead = None
        found = [state["streams"][str(row)] for row in self.rows]
        self._streams = [
            _Stream(stream["next"], tuple(map(self.source, stream["pending"]))) for stream in found
        ]

    def _made(self, streams: list[_Stream[Item]]) -> _Made[Item]:
        """The batch that follows `streams`."""
        rows, following = zip(*map(self._row, streams), strict=True)
        sizes = [self.size(example, self.capacity) for row in rows for example in row]
        return _Made(
            self.build(rows, self.capacity),
            [[example.number for example in row] for row in rows],
            list(following),
            np.sum(sizes, 0),
        )

    def _row(self, stream: _Stream[Item]) -> tuple[list[Item], _Stream[Item]]:
        """A stream's next row, and the stream after it."""
        pending, following = list(stream.pending), stream.following
        while len(pending) < self.pool:
            pending.append(self.source(following))
            following += self.row_count
        sizes = [self.size(example, self.capacity) for example in pending]
        limits = self.capacity.length, self.capacity.units
        chosen = choose(sizes, *limits) if self.pack else [0]
        left = [example for i, example in enumerate(pending) if i not in chosen]
        return [pending[i] for i in chosen], _Stream(following, tuple(left))
