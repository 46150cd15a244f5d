"""Batches that are on the devices before they are asked for, with exact positions.

Copies to devices run beside the step in progress. What is ahead of the step is no part of the
position: a run that resumes makes it again.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from jaxtyping import PyTree

from sf_jax.train.loop import Batches


class Prefetched:
    """An iterator over batches on the devices, with the `get_state` and `set_state` of host ones.

    The state is that after the batch handed out last, however many are ahead. It keeps the host
    arrays of none. An error in making a batch is raised by the call that would hand it out.
    """

    def __init__(self, batches: Batches, put: Callable[[PyTree], PyTree], ahead: int = 2):
        """Copies nothing yet.

        Args:
          put: host batch → batch in the layout that the step takes, such as `mesh.put` on a mesh;
            it returns before the copy is complete, as `jax.device_put` does.
          ahead: batches on the devices beside the one handed out last, each with memory of its own.

        Raises:
          ValueError: `ahead` is below 1.
        """
        if ahead < 1:
            raise ValueError(f"ahead is {ahead}, expected 1 or more")
        self._batches, self._put, self._ahead = batches, put, ahead
        self._ready: deque[tuple[PyTree, Any]] = deque()
        self._state: PyTree = batches.get_state()
        self._failed: BaseException | None = None

    def __iter__(self) -> "Prefetched":
        return self

    def __next__(self) -> PyTree:
        """Fills up first, so that the copies of later batches have begun when one is handed out."""
        while self._failed is None and len(self._ready) <= self._ahead:
            try:
                batch = self._put(next(self._batches))
            except (Exception, StopIteration) as error:
                self._failed = error
            else:
                self._ready.append((batch, self._batches.get_state()))
        if not self._ready:
            assert self._failed is not None
            raise self._failed
        batch, self._state = self._ready.popleft()
        return batch

    def get_state(self) -> Any:
        """The position after the batch handed out last."""
        return self._state

    def set_state(self, state: PyTree) -> None:
        """Resumes from a position; drops what is ahead."""
        self._ready.clear()
        self._failed = None
        self._batches.set_state(state)
        self._state = state
