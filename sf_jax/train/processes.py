"""What the processes of one run agree on."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from sf_jax.media import locks
from sf_jax.media.errors import DataError

Made = TypeVar("Made")


def gathered(state: Any) -> Any:
    """The parts of a position that each process has, put together."""
    if jax.process_count() == 1:
        return state
    encoded = np.frombuffer(json.dumps(state).encode(), np.uint8)
    longest = int(multihost_utils.process_allgather(np.int32(len(encoded))).max())
    padded = np.pad(encoded, (0, longest - len(encoded)), constant_values=ord(" "))
    parts = multihost_utils.process_allgather(padded)
    return joined([json.loads(part.tobytes()) for part in parts])


def joined(parts: Sequence[Any]) -> Any:
    """One tree of dictionaries that has everything the parts have.

    Raises:
      ValueError: two parts differ in what both have.
    """
    if all(isinstance(part, dict) for part in parts):
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: joined([p[name] for p in parts if name in p]) for name in names}
    if any(part != parts[0] for part in parts):
        raise ValueError(f"processes disagree on the position of the data: {parts}")
    return parts[0]


def shared_problem(problem: str) -> str:
    """The first problem that any process has, the same in all of them; "" where none has any."""
    found = gathered({f"{jax.process_index():06d}": problem})
    return next((found[process] for process in sorted(found) if found[process]), "")


def together(make: Callable[[], Made]) -> Made:
    """What `make` gives in this process, once it has succeeded in all; all processes call it.

    A process that failed alone would leave the others waiting for it at the next exchange.

    Raises:
      DataError, OSError: its own failure, else as DataError the first that another process has.
    """
    try:
        made = make()
    except (DataError, OSError) as error:
        shared_problem(str(error) or type(error).__name__)
        raise
    if problem := shared_problem(""):
        raise DataError(problem)
    return made


def acquire(path: str | os.PathLike) -> locks.Lock | None:
    """Takes a lock for all processes; process 0 holds it, the others have None.

    Raises:
      BusyError, OSError: another run holds it, or its file cannot be written; a DataError of the
        same text in the other processes.
    """
    return together(lambda: locks.acquire(path) if jax.process_index() == 0 else None)


@contextmanager
def held(folder: str | os.PathLike) -> Iterator[None]:
    """Holds the lock of a folder for all processes; see `sf_jax.media.locks.held`."""
    lock = acquire(f"{os.fspath(folder)}/{locks.NAME}")
    try:
        yield
        if lock is not None:
            lock.check()
    finally:
        if lock is not None:
            lock.release()
