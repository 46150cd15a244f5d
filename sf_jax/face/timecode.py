"""Timecode as Live Link Face writes it: `HH:MM:SS:FF.fff`.

`FF` counts whole frames at the timecode's rate and `.fff` is a decimal fraction of one such frame.
At 30000/1001 frames a second ("29.97") timecode still counts thirty frames to its second, so its
clock runs 3.6 seconds an hour slow. That is non-drop timecode, the default here. Drop-frame
timecode, written with `;` before the frames, leaves out labels 00 and 01 (at 59.94: 00 to 03) at
the start of every minute that is no multiple of ten and so keeps to the clock within a frame or so.

All arithmetic is on fractions: a label, its frame number and its time convert without loss.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from sf_jax.media.errors import DataError

# In the order in which `counting_rate` prefers them.
STANDARD_RATES: tuple[Fraction, ...] = tuple(
    Fraction(rate) for rate in (30, 60, 24, 25, 50, 48, 100, 120, 240)
) + tuple(Fraction(rate * 1000, 1001) for rate in (30, 60, 24, 48, 120))

USUAL_RATES = (30, 60, 120, 240)  # for frames without a standard rate
ZERO = "00:00:00:00.000"
NEAR_STANDARD = 0.005  # relative: a rate measured from rounded times is this close to its standard
TICKS = 1000  # of a frame: labels have three decimals

_NTSC = [rate for rate in STANDARD_RATES if rate.denominator != 1]
_LABEL = re.compile(r"(\d{1,2})[:;](\d{2})[:;](\d{2})([:;])(\d{1,3})(?:[.,](\d{1,9}))?", re.ASCII)


class TimecodeError(DataError):
    """A label or a rate that is none."""


@lru_cache
def exact_rate(fps: float | Fraction) -> Fraction:
    """The rate that a number stands for: 29.97 is 30000/1001, 23.976 is 24000/1001; 30 is 30.

    Raises:
      TimecodeError: `fps` is no positive finite number.
    """
    try:
        rate = Fraction(fps)
    except (ValueError, OverflowError, TypeError) as error:
        raise TimecodeError(f"a frame rate is a positive number, not {fps!r}") from error
    if rate <= 0:
        raise TimecodeError(f"a frame rate is a positive number, not {fps!r}")
    return next((ntsc for ntsc in _NTSC if abs(rate - ntsc) < 0.005), rate)


@lru_cache
def frames_per_label_second(fps: float | Fraction) -> int:
    """How many frame labels one second of timecode holds at a rate: 30 at 29.97."""
    rate = exact_rate(fps)
    return -(-rate.numerator // rate.denominator)


def counting_rate(fps: float | Fraction) -> Fraction:
    """The standard rate at which to count timecode for frames at `fps`.

    A standard rate counts at itself and 15 at 30. A measured 29.98 or 30.01 has no timecode of its
    own: it counts at 30 too, and its frames fall between the labels' whole frames. So do those of
    other rates, which count at the next of 30, 60, 120 and 240; beyond that several share a label's
    whole frame.
    """
    rate = exact_rate(fps)
    if rate in STANDARD_RATES:
        return rate
    for standard in STANDARD_RATES:
        if (standard / rate).denominator == 1:
            return standard
    for standard in STANDARD_RATES:
        if abs(rate / standard - 1) < NEAR_STANDARD:
            return standard
    return Fraction(next((high for high in USUAL_RATES if high >= rate), USUAL_RATES[-1]))


def labels_at(
    seconds: Sequence[float] | Sequence[Fraction] | np.ndarray,
    rate: float | Fraction,
    start: str = ZERO,
    drop_frame: bool | None = None,
) -> list[str]:
    """Timecodes of frames at any times, as of a video whose rate varies.

    Labels count at a standard rate and keep the times to a thousandth of a frame. They increase
    strictly: of frames at the same time, the later ones are a thousandth of a frame apart.

    Args:
      seconds: [N] times of the frames, from any origin.
      rate: the nominal frame rate, which chooses the counting rate.
      start: the label of the first frame.
      drop_frame: count drop-frame, at 29.97 and 59.94 only; None does as `start` is written.

    Raises:
      TimecodeError: a time is no number or is earlier than the one before, too many frames share
        one time, or `start` or `drop_frame` does not go with the rate; names the frame.
    """
    if not len(seconds):
        return []
    times = [_exact_time(number, time) for number, time in enumerate(seconds)]
    counting = counting_rate(rate)
    first = Timecode.parse(start, drop_frame)
    origin = first.frame(counting)
    labels: list[str] = []
    previous = -1
    for number, time in enumerate(times):
        if number and time < times[number - 1]:
            raise TimecodeError(
                f"frame {number} at {float(time):g} s comes before the one at "
                f"{float(times[number - 1]):g} s"
            )
        exact = (origin + (time - times[0]) * counting) * TICKS
        tick = max(round(exact), previous + 1)
        if tick - exact > TICKS / 2:
            raise TimecodeError(f"frame {number} at {float(time):g} s: too many share this time")
        previous = tick
        labels.append(str(Timecode.at_frame(Fraction(tick, TICKS), counting, first.drop_frame)))
    return labels


def _exact_time(number: int, time: float | Fraction) -> Fraction:
    try:
        return time if isinstance(time, Fraction) else Fraction(float(time))
    except (ValueError, OverflowError, TypeError) as error:
        raise TimecodeError(f"frame {number} is at {time!r}, expected seconds") from error


def _dropped_a_minute(fps: float | Fraction) -> int:
    rate = exact_rate(fps)
    if rate not in (Fraction(30000, 1001), Fraction(60000, 1001)):
        raise TimecodeError(f"drop-frame timecode is for 29.97 and 59.94 only, not {float(rate):g}")
    return frames_per_label_second(rate) // 15


def frames_per_day(fps: float | Fraction, drop_frame: bool = False) -> int:
    """How many labels there are from 00:00:00:00 until they start again."""
    minutes = 24 * 60
    labels = minutes * 60 * frames_per_label_second(fps)
    return labels - (_dropped_a_minute(fps) * (minutes - minutes // 10) if drop_frame else 0)


@dataclass(frozen=True)
class Timecode:
    """One label.

    Attributes:
      hours, minutes, seconds, frames: the four fields as written.
      subframe: the fraction of a frame after them, in [0, 1).
      drop_frame: whether the label is of the drop-frame kind, written with `;`.
      decimals: how many decimals of the sub-frame are written; 0 writes none.
    """

    hours: int
    minutes: int
    seconds: int
    frames: int
    subframe: Fraction = Fraction(0)
    drop_frame: bool = False
    decimals: int = 3

    @classmethod
    def parse(cls, text: str, drop_frame: bool | None = None) -> "Timecode":
        """Reads `HH:MM:SS:FF.fff`; `drop_frame` overrules what the last separator means.

        Raises:
          TimecodeError: the text is no timecode.
        """
        match = _LABEL.fullmatch(text.strip())
        if match is None:
            raise TimecodeError(f"{text[:40]!r} is no timecode HH:MM:SS:FF.fff")
        hours, minutes, seconds = (int(field) for field in match.group(1, 2, 3))
        if hours > 23 or minutes > 59 or seconds > 59:
            raise TimecodeError(f"{text!r} is no time of a day")
        decimals = match.group(6) or ""
        return cls(
            hours,
            minutes,
            seconds,
            int(match.group(5)),
            Fraction(int(decimals or 0), 10 ** len(decimals)),
            match.group(4) == ";" if drop_frame is None else drop_frame,
            len(decimals),
        )

    @classmethod
    def at_frame(
        cls,
        number: int | Fraction,
        fps: float | Fraction,
        drop_frame: bool = False,
        decimals: int = 3,
    ) -> "Timecode":
        """The label of a frame counted from 00:00:00:00, rounded to the decimals; a day wraps."""
        ticks = round(Fraction(number) * 10**decimals)  # rounding first lets .9996 carry over
        if ticks < 0:
            raise TimecodeError(f"frame {float(number):g} is before timecode starts")
        whole, part = divmod(ticks, 10**decimals)
        whole %= frames_per_day(fps, drop_frame)
        nominal = frames_per_label_second(fps)
        if drop_frame:
            whole += _labels_left_out(whole, nominal, _dropped_a_minute(fps))
        seconds, frames = divmod(whole, nominal)
        return cls(
            seconds // 3600,
            seconds // 60 % 60,
            seconds % 60,
            frames,
            Fraction(part, 10**decimals),
            drop_frame,
            decimals,
        )

    def frame(self, fps: float | Fraction) -> Fraction:
        """The frame number from 00:00:00:00 at the timecode's rate, with its fraction.

        Raises:
          TimecodeError: no such label exists at this rate.
        """
        nominal = frames_per_label_second(fps)
        if self.frames >= nominal:
            raise TimecodeError(f"{self} counts beyond the {nominal} frames of its second")
        minutes = self.hours * 60 + self.minutes
        number = (minutes * 60 + self.seconds) * nominal + self.frames
        if self.drop_frame:
            dropped = _dropped_a_minute(fps)
            if self.minutes % 10 and self.seconds == 0 and self.frames < dropped:
                raise TimecodeError(f"{self} is a label that drop-frame timecode leaves out")
            number -= dropped * (minutes - minutes // 10)
        return number + self.subframe

    def __str__(self) -> str:
        separator = ";" if self.drop_frame else ":"
        label = f"{self.hours:02}:{self.minutes:02}:{self.seconds:02}{separator}{self.frames:02}"
        if not self.decimals:
            return label
        return f"{label}.{int(self.subframe * 10**self.decimals):0{self.decimals}}"


def _labels_left_out(number: int, nominal: int, dropped: int) -> int:
    """How many drop-frame labels are left out up to a frame number of the same day."""
    minute = nominal * 60 - dropped
    ten_minutes = minute * 10 + dropped
    tens, rest = divmod(number, ten_minutes)
    # The first minute of ten is whole, so it is `dropped` frames longer than the other nine.
    minutes = max(0, (rest - dropped) // minute)
    return dropped * (9 * tens + minutes)
