"""Ctrl-C and other requests to stop as one exception, and a block that they do not cut short."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], object]


class Stopped(KeyboardInterrupt):
    """Work that was stopped; the text is what was kept of it."""


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _wait(_signal: int, _frame: FrameType | None) -> None:
    """The work is ending already."""


@contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    """Handles `SIGNALS` so in the block, but for those that the process ignores, as under nohup."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, how in before.items() if how not in (signal.SIG_IGN, None)]
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def stoppable() -> AbstractContextManager[None]:
    """A block in which SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does."""
    return _handled(_stop)


@contextmanager
def delayed() -> Iterator[None]:
    """A block at whose end a signal that came in it raises KeyboardInterrupt."""
    came: list[int] = []
    with _handled(lambda number, _: came.append(number)):
        yield
    if came:
        raise KeyboardInterrupt


def uninterrupted() -> AbstractContextManager[None]:
    """A block that saves what was done: signals in it are dropped."""
    return _handled(_wait)
