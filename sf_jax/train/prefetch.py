"""Batches that are on the devices before they are asked for, with exact positions.

Copies to devices run beside the step in progress. What is ahead of the step is no part of the
position: a run that resumes makes it again.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import PyTree

ExampleNumbers = Sequence[Sequence[int]]  # row by row


class Batches(Protocol):
    """An iterator over host batches whose position can be saved and restored.

    A process's iterator may have part of a position, under keys of its own; those of all processes
    are saved together, and each is given the whole.
    """

    def __next__(self) -> Any: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


@dataclass(frozen=True)
class Fetched:
    """A batch on the host and on the devices, and the numbers of its examples where known."""

    host: PyTree
    placed: PyTree
    examples: ExampleNumbers | None


class Prefetched:
    """An iterator over batches on the devices, with the `get_state` and `set_state` of host ones.

    The state is that after the batch handed out last, however many are ahead. An error in making a
    batch is raised by the call that would hand it out.
    """

    def __init__(
        self,
        batches: Batches,
        put: Callable[[PyTree], PyTree],
        ahead: int = 1,
        examples: Callable[[], ExampleNumbers] | None = None,
    ):
        """Copies nothing yet.

        Args:
          put: host batch → batch in the layout that the step takes, such as `mesh.put` on a mesh;
            it returns before the copy is complete, as `jax.device_put` does.
          ahead: batches on the devices beside the one handed out last, each with memory of its own.
          examples: the numbers of the examples in the batch that `batches` gave last.

        Raises:
          ValueError: `ahead` is below 1.
        """
        if ahead < 1:
            raise ValueError(f"ahead is {ahead}, expected 1 or more")
        self._batches, self._put, self._ahead, self._examples = batches, put, ahead, examples
        self._ready: deque[tuple[Fetched, PyTree]] = deque()
        self._state: PyTree = batches.get_state()
        self._failed: BaseException | None = None

    def __iter__(self) -> "Prefetched":
        return self

    def __next__(self) -> Fetched:
        """Fills up first, so that the copies of later batches have begun when one is handed out."""
        while self._failed is None and len(self._ready) <= self._ahead:
            try:
                batch = next(self._batches)
                numbers = None if self._examples is None else self._examples()
                found = Fetched(batch, self._put(batch), numbers)
            except (Exception, StopIteration) as error:
                self._failed = error
            else:
                self._ready.append((found, self._batches.get_state()))
        if not self._ready:
            assert self._failed is not None
            raise self._failed
        found, self._state = self._ready.popleft()
        return found

    def get_state(self) -> PyTree:
        """The position after the batch handed out last."""
        return self._state

    def set_state(self, state: PyTree) -> None:
        """Resumes from a position; drops what is ahead."""
        self._ready.clear()
        self._failed = None
        self._batches.set_state(state)
        self._state = state
