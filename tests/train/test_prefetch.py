"""Batches ahead on the devices: in the layout asked for, positions exact, errors in their turn."""

from typing import Any

import jax
import numpy as np
import pytest

from sf_jax.train import mesh as meshes
from sf_jax.train.prefetch import Fetched, Prefetched


class Numbered:
    """Batch n is the array [n, n]; it fails once at `fails_at`, and ends before `end`."""

    def __init__(self, fails_at: int = -1, end: int = 100):
        self.next, self.fails_at, self.end = 0, fails_at, end

    def __next__(self) -> np.ndarray:
        if self.next == self.end:
            raise StopIteration
        if self.next == self.fails_at:
            raise ValueError("record 3 is damaged")
        self.next += 1
        return np.full((2, 4), self.next - 1, np.int32)

    def get_state(self) -> Any:
        return {"next": self.next}

    def set_state(self, state: Any) -> None:
        self.next = state["next"]


def number(batch: Fetched) -> int:
    return int(batch.placed[0, 0])


def test_batches_have_the_layout_of_the_mesh_and_are_ahead() -> None:
    mesh = meshes.make({"fsdp": 1}, jax.devices()[:1])
    source = Numbered()
    batches = Prefetched(source, lambda batch: meshes.put(batch, mesh), ahead=3)
    assert source.next == 0
    first = next(batches)
    wanted = meshes.put(np.zeros((2, 4), np.int32), mesh)
    assert isinstance(first.placed, jax.Array) and first.placed.sharding == wanted.sharding
    assert isinstance(first.host, np.ndarray) and first.examples is None
    assert number(first) == 0 and source.next == 4
    assert number(next(batches)) == 1 and source.next == 5


def test_example_numbers_are_those_of_the_batch_and_not_of_one_ahead() -> None:
    source = Numbered()
    batches = Prefetched(source, np.asarray, 2, lambda: [[source.next - 1]])
    assert [next(batches).examples for _ in range(3)] == [[[0]], [[1]], [[2]]]
    assert source.next == 5


def test_the_position_is_that_of_the_batch_handed_out_last() -> None:
    batches = Prefetched(Numbered(), np.asarray, ahead=2)
    assert batches.get_state() == {"next": 0}
    for n in range(4):
        assert number(next(batches)) == n and batches.get_state() == {"next": n + 1}
    batches.set_state({"next": 1})
    assert batches.get_state() == {"next": 1}
    assert [number(next(batches)) for _ in range(3)] == [1, 2, 3]


def test_an_error_comes_after_the_batches_before_it() -> None:
    batches = Prefetched(Numbered(fails_at=3), np.asarray, ahead=2)
    assert [number(next(batches)) for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(ValueError, match="record 3"):
            next(batches)
    assert batches.get_state() == {"next": 3}
    batches.set_state({"next": 1})
    assert number(next(batches)) == 1


def test_the_end_comes_after_the_last_batch() -> None:
    batches = Prefetched(Numbered(end=4), np.asarray, ahead=3)
    assert [number(batch) for batch in batches] == [0, 1, 2, 3]


def test_nothing_ahead_is_refused() -> None:
    with pytest.raises(ValueError, match="ahead is 0"):
        Prefetched(Numbered(), np.asarray, ahead=0)
