"""Which timecode the frames of a video get: its rate, its start, and times free of rounding.

Timecode counts at one standard rate. Frames on the grid of a standard rate count at it, pauses and
dropped frames included. Others, whose times jitter, count at the first rate at which no two frames
share a label's whole frame, so that an importer that ignores sub-frames keeps them apart.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from sf_jax.face import timecode
from sf_jax.face.timecode import STANDARD_RATES, USUAL_RATES, ZERO, Timecode, TimecodeError

# Times rounded to milliseconds, as many files have them, are off by up to half of one, and so is
# the first, from which the others are counted.
ROUNDING = Fraction(1, 1000)


@dataclass(frozen=True)
class FrameTiming:
    """How N frames are labelled; the first four fields are arguments of `timecode.labels_at`.

    Attributes:
      seconds: N times, increasing strictly.
      rate: a standard rate, at which timecode counts.
      start: the label of the first frame.
      drop_frame: whether labels are drop-frame.
      notes: sentences on a start timecode that could not be used as it was.
    """

    seconds: list[Fraction]
    rate: Fraction
    start: str
    drop_frame: bool
    notes: list[str]

    def __str__(self) -> str:
        """Number of frames and their rate, as a person wants to read it."""
        count, last = len(self.seconds), self.seconds[-1]
        if count == 1:
            return "1 frame"
        step = last / (count - 1)
        if all(abs(i * step - time) <= ROUNDING for i, time in enumerate(self.seconds)):
            return f"{count} frames at {float(1 / step):.5g} a second"
        rate = f"timecode at {float(self.rate):.5g} a second"
        return f"{count} frames at uneven times, the last at {float(last):.3f} s; {rate}"

    def labels(self) -> list[str]:
        """N timecodes, increasing strictly but for midnight."""
        return timecode.labels_at(self.seconds, self.rate, self.start, self.drop_frame)


def time_frames(
    seconds: Sequence[float],
    fps: float,
    start: str | None = None,
    start_counts: int | None = None,
    drop_frame: bool = False,
) -> FrameTiming:
    """Chooses timecode for frames at given times.

    Args:
      seconds: [N] from the first frame, increasing strictly.
      fps: the nominal frame rate, preferred where the frames are on its grid.
      start: timecode of the first frame; written with `;` it asks for drop-frame labels.
      start_counts: frames that `start` counts to its second; None: as many as the labels.
      drop_frame: ask for drop-frame labels, which count at `fps` whatever the times.

    Raises:
      TimecodeError: `drop_frame` is asked for and `fps` is not 29.97 or 59.94.
    """
    times = [Fraction(second) for second in seconds]
    rate = timecode.counting_rate(fps)
    if drop_frame:
        timecode.frames_per_day(rate, drop_frame=True)  # refuses other rates
        times = _on_grid(times, rate) or times
    else:
        rate, times = _rate(times, rate)
    notes: list[str] = []
    label = ZERO
    if start is not None:
        try:
            label, drop_frame, notes = _start(start, start_counts, rate, drop_frame)
        except TimecodeError as error:
            notes = [f"its start timecode was not used: {error}"]
    return FrameTiming(times, rate, label, drop_frame, notes)


def _rate(times: list[Fraction], preferred: Fraction) -> tuple[Fraction, list[Fraction]]:
    """The rate at which to count, and the times, moved to its grid if all are near it."""
    for rate in dict.fromkeys((preferred, *STANDARD_RATES)):
        moved = _on_grid(times, rate)
        if moved is not None:
            return rate, moved
    multiples = [preferred * factor for factor in (1, 2, 4, 8)]
    for rate in (*multiples, *map(Fraction, USUAL_RATES)):
        if rate in STANDARD_RATES and _increasing(int(time * rate) for time in times):
            return rate, times
    return Fraction(USUAL_RATES[-1]), times


def _on_grid(times: list[Fraction], rate: Fraction) -> list[Fraction] | None:
    """Times at whole frames of a rate, where each is at one up to rounding; else None."""
    moved = []
    last = -1
    for time in times:
        nearest = round(time * rate)
        if nearest <= last or abs(nearest / rate - time) > ROUNDING:
            return None
        last = nearest
        moved.append(nearest / rate)
    return moved


def _increasing(numbers: Iterable[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))


def _start(
    text: str, counts: int | None, rate: Fraction, drop_frame: bool
) -> tuple[str, bool, list[str]]:
    """The first label at `rate`, whether it is drop-frame, and notes.

    Raises:
      TimecodeError: the text is no label of its rate.
    """
    held = timecode.frames_per_label_second(rate)
    own_rate = rate * Fraction(counts or held, held)
    label = Timecode.parse(text, True if drop_frame else None)
    notes = []
    if label.drop_frame and own_rate.denominator == 1:
        label = Timecode.parse(text, False)
        notes = [f"its timecode {text} is drop-frame, its {float(rate):g} frames a second are not"]
    number = label.frame(own_rate) * rate / own_rate
    return str(Timecode.at_frame(number, rate, label.drop_frame)), label.drop_frame, notes
