"""Progress bars on standard error that also move while one long step runs."""

import shutil
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
    with (
        tqdm(items, total=total, unit=unit, disable=hidden, file=sys.stderr, **_size()) as bar,
        _ticking(bar),
    ):
        yield from bar


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows what is waited for and for how long, on a terminal, and clears the line at the end."""
    how = {"leave": False, "disable": not sys.stderr.isatty(), "file": sys.stderr}
    with tqdm(desc=what, bar_format="{desc} {elapsed}", **how, **_size()) as bar, _ticking(bar):
        yield


def _size() -> dict[str, int]:
    """Columns and rows of a terminal: of one that states none, where tqdm would draw nothing, 80
    by 24."""
    if not sys.stderr.isatty():
        return {}
    size = shutil.get_terminal_size()
    return {"ncols": size.columns, "nrows": size.lines}


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
