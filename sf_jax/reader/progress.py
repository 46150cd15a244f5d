"""Progress bars on standard error that also move while one long step runs."""

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

TICK = 0.5  # seconds between two drawings

Item = TypeVar("Item")


def tracked(
    items: Iterable[Item], unit: str, total: int | None = None, hidden: bool = False
) -> Iterator[Item]:
    """The items, with a bar that counts them; its clock goes on while one is worked at."""
    with tqdm(items, total=total, unit=unit, disable=hidden, file=sys.stderr) as bar, _ticking(bar):
        yield from bar


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows what is waited for and for how long, on a terminal, and clears the line at the end."""
    shown = "{desc} {elapsed}"
    hidden = not sys.stderr.isatty()
    with (
        tqdm(desc=what, bar_format=shown, leave=False, disable=hidden, file=sys.stderr) as bar,
        _ticking(bar),
    ):
        yield


def note(text: str) -> None:
    """A line on standard error, above the bar."""
    tqdm.write(text, file=sys.stderr)


@contextmanager
def _ticking(bar: tqdm) -> Iterator[None]:
    """Draws a bar again and again from another thread, on a terminal."""
    if bar.disable or not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(TICK):
            bar.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
