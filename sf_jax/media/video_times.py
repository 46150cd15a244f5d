"""Times of video frames: presentation time stamps, made to increase strictly."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")

MIN_FPS, MAX_FPS = 0.01, 1000.0  # frame rates that are believed

SPLICE = Fraction(1)  # seconds; a step back of more starts another recording in the same file
NEAREST = Fraction(1, 2000)  # seconds between two frames; nearer stamps are taken to be the same
GAP = Fraction(10)  # seconds; MPEG streams with a longer step forwards are spliced there too
LONGEST = Fraction(12 * 3600)  # seconds; so are others: the hours of timecode begin again each day


class PresentationTimes:
    """Turns the time stamps of frames, in the order of showing, into times from the first frame.

    A frame whose stamp is missing, repeated, earlier than its predecessor's or later than its
    successor's is put between its neighbours, at most one frame duration after its predecessor.
    Where the clock restarts, as in joined MPEG streams, times continue one frame duration later.

    Args:
      duration: seconds of one frame, where stamps do not show it.
      grid: frames a second, or None: times within `tick` of a whole number of frames at this rate
        are moved there, which removes the rounding of coarse time bases such as 1/1000 s.
      tick: seconds, the time base of the stamps.
      restarts: whether a long step forwards is a restarted clock too.

    Attributes:
      mended: number of frames whose stamp was missing or out of order.
      spliced: times at which the clock restarted.
    """

    def __init__(
        self,
        duration: Fraction,
        grid: Fraction | None = None,
        tick: Fraction = Fraction(0),
        restarts: bool = False,
    ):
        self.duration, self.grid, self.tick, self.restarts = duration, grid, tick, restarts
        self.mended = 0
        self.spliced: list[float] = []
        self._offset = Fraction(0)
        self._last: Fraction | None = None

    def __call__(self, frames: Iterable[tuple[Fraction | None, T]]) -> Iterator[tuple[Fraction, T]]:
        """Pairs of seconds from the first frame and frame; one frame ahead is kept in memory."""
        following: list[tuple[Fraction | None, T | None]] = [(None, None)]
        for (stamp, frame), (after, _) in pairwise(_chained(frames, following)):
            assert frame is not None
            self._last = self._time(stamp, after)
            yield self._last, frame

    def _time(self, stamp: Fraction | None, after: Fraction | None) -> Fraction:
        if self._last is None:
            first = stamp if stamp is not None else (after or self.duration) - self.duration
            self._offset = -first
            return Fraction(0)
        time = None if stamp is None else stamp + self._offset
        after = None if after is None else after + self._offset
        if after is not None and after > self._last + 2 * NEAREST:
            if time is None or not self._last + NEAREST < time <= after:
                self.mended += 1
                return min(self._last + self.duration, (self._last + after) / 2)
        elif time is None or self._last - SPLICE <= time <= self._last + NEAREST:
            self.mended += 1
            return self._last + self.duration
        if time < self._last or time - self._last > (GAP if self.restarts else LONGEST):
            self._offset += self._last + self.duration - time
            time = self._last + self.duration
            self.spliced.append(float(time))
            return time
        return self._on_grid(time)

    def _on_grid(self, time: Fraction) -> Fraction:
        assert self._last is not None
        if self.grid is None:
            return time
        nearest = round(time * self.grid) / self.grid
        return nearest if abs(nearest - time) <= self.tick and nearest > self._last else time


def _chained(first: Iterable, second: Iterable) -> Iterator:
    yield from first
    yield from second
