"""When the frames of a take were recorded, from its timecodes: rates, gaps, rounded labels.

A file holds no frame rate. Two rates are inferred. At one, the timecode counts: the frame field
wraps there. At the other, frames follow one another: by how much labels step from row to row. They
differ in practice: a phone may label two frames at a time at 60.

Frame numbers are often rounded, so that they repeat, skip and even step back although the frames
are evenly spaced. Such labels are recognised, and the frames spaced evenly between real gaps. Where
the decimals after the frame number are milliseconds of the second, they give the time.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from sf_jax.face import timecode
from sf_jax.face.timecode import STANDARD_RATES, USUAL_RATES, Timecode, TimecodeError

# Labels a second of timecode; a frame field may also hold milliseconds.
NOMINAL = (24, 25, 30, 48, 50, 60, 100, 120, 240, 1000)
ROUNDING = 1.05  # labels that a rounded frame number is off, at most


@dataclass(frozen=True)
class Timing:
    """The times of N frames.

    Attributes:
      seconds: float64 [N], from the first frame, never decreasing.
      fps: frames a second, from the first frame to the last.
      counting: the rate at which the timecode counts.
      notes: how this was inferred, one sentence each.
    """

    seconds: np.ndarray
    fps: Fraction
    counting: Fraction
    notes: list[str]


@dataclass(frozen=True)
class _Labels:
    """Parsed timecodes and where they are from."""

    path: Path
    lines: list[int]
    texts: list[str]
    parsed: list[Timecode]

    @property
    def drop_frame(self) -> bool:
        return self.parsed[0].drop_frame

    def error(self, problem: str, row: int) -> TimecodeError:
        return TimecodeError(problem, path=self.path, line=self.lines[row], field="Timecode")


def timing(
    path: Path,
    lines: list[int],
    texts: list[str],
    fps: float | Fraction | None = None,
    drop_frame: bool = False,
) -> Timing:
    """Times and rates of the frames of a take.

    Args:
      path: the file, for errors.
      lines, texts: the line number and the timecode of each of N > 0 frames.
      fps: the frame rate where it is known.
      drop_frame: the timecode is drop-frame although it is written with `:`.

    Raises:
      TimecodeError: a text is no timecode, or goes back in time; names file and line.
    """
    drop_frame = drop_frame or any(";" in text for text in texts)
    parsed = []
    for line, text in zip(lines, texts, strict=True):
        try:
            parsed.append(Timecode.parse(text, drop_frame))
        except TimecodeError as error:
            raise error.at(path=path, line=line, field="Timecode") from error
    parsed = _of_milliseconds(parsed) or parsed
    labels = _Labels(path, lines, texts, parsed)
    top = max(label.frames for label in parsed)
    if drop_frame and top > 60:
        row = [label.frames for label in parsed].index(top)
        raise labels.error(f"{texts[row]} is no drop-frame timecode, which counts 30 or 60", row)
    seen = _labels_a_second(parsed)
    if fps is not None:
        return _given(labels, timecode.exact_rate(fps), seen)
    nominal = seen or next(number for number in (*USUAL_RATES, 1000) if number > top)
    counting = Fraction(nominal * 1000, 1001) if drop_frame else Fraction(nominal)
    numbers = _numbers(labels, counting)
    how = "counts" if seen else "is too short to show its rate and is taken to count"
    spaced = _evenly_spaced(numbers, counting)
    if spaced is not None:
        numbers, notes = spaced
    else:
        _check_order(labels, numbers)
        notes = _gap_notes(numbers)
    rate = _measured(labels, numbers, counting)
    note = (
        f"timecode {how} {nominal} frames a second; the take runs at {float(rate):.4g} "
        "frames a second (give fps if that is wrong)"
    )
    return Timing(_seconds(numbers, counting), rate, counting, [note, *notes])


def _given(labels: _Labels, fps: Fraction, seen: int | None) -> Timing:
    """As `timing`, at a given frame rate.

    The labels keep telling the time, gaps included, where they step by some whole number k of
    frames at k times the rate; otherwise the frames are spaced evenly.
    """
    top = max(label.frames for label in labels.parsed)
    for step in range(1, 241):
        counting = fps * step
        nominal = timecode.frames_per_label_second(counting)
        if nominal < top + (not seen) or (
            nominal != seen if seen else counting not in STANDARD_RATES
        ):
            continue
        try:
            numbers = _numbers(labels, counting)
        except TimecodeError:
            continue
        note = f"frame rate {float(fps):.4g} as given; timecode counts {nominal} to its second"
        spaced = _evenly_spaced(numbers, counting, Fraction(step))
        if spaced is not None:
            numbers, notes = spaced
            return Timing(_seconds(numbers, counting), fps, counting, [note, *notes])
        steps = np.diff(_floats(numbers))
        if not len(steps) or (steps.min() > 0 and round(float(np.median(steps))) == step):
            notes = [note, *_gap_notes(numbers)]
            return Timing(_seconds(numbers, counting), fps, counting, notes)
    seconds = np.arange(len(labels.parsed)) / float(fps)
    note = f"frame rate {float(fps):.4g} as given; the timecode does not fit: lines spaced evenly"
    return Timing(seconds, fps, timecode.counting_rate(fps), [note])


# --- how timecode counts


def _of_milliseconds(labels: list[Timecode]) -> list[Timecode] | None:
    """Labels whose decimals are milliseconds of the second and not of a frame, numbered anew.

    Some writers put the frame number and the millisecond of a time side by side, `00:00:07:15.500`.
    Then frame number and decimals grow together. The decimals are the finer of the two, and are
    moved to whole frames where all are near one.
    """
    if len(labels) < 8 or any(x.decimals != 3 or x.drop_frame for x in labels):
        return None
    field = np.array([x.frames for x in labels])
    part = np.array([float(x.subframe) for x in labels])
    if np.ptp(field) < 8:
        return None
    spread = {n: float(np.ptp(field - part * n)) for n in NOMINAL if n >= field.max()}
    nominal = min(spread, key=lambda n: spread[n], default=None)
    if nominal is None or spread[nominal] > 1 + ROUNDING or spread[nominal] > np.ptp(field) / 4:
        return None
    numbers = [x.subframe * nominal for x in labels]
    phase = numbers[0] % 1
    whole = [phase + round(number - phase) for number in numbers]
    if all(abs(a - b) <= Fraction(2 * nominal, 1000) for a, b in zip(whole, numbers, strict=True)):
        numbers = whole
    return [
        replace(x, frames=int(number), subframe=number - int(number))
        for x, number in zip(labels, numbers, strict=True)
    ]


def _labels_a_second(labels: list[Timecode]) -> int | None:
    """How many labels a second of timecode holds, seen where the seconds field steps by one.

    With N labels a second, the step into the next second is as large as the steps within one. A
    standard N is chosen if any fits; rounded frame numbers make that step vary by about a label.
    None where no second is filled, so that nothing can be seen.
    """
    clock = np.array([(x.hours * 60 + x.minutes) * 60 + x.seconds for x in labels])
    field = np.array([float(x.frames + x.subframe) for x in labels])
    clock_step = (np.diff(clock) + 43200) % 86400 - 43200  # over midnight
    field_step = np.diff(field)
    inside, across = clock_step == 0, clock_step == 1
    top, drop_frame = max(label.frames for label in labels), labels[0].drop_frame
    if drop_frame:  # labels are left out at the start of minutes
        across &= clock[1:] % 60 != 0
    standard = [n for n in NOMINAL if n >= top and (not drop_frame or n in (30, 60))]
    if not across.any():
        return None
    # 24 before 0, often: a second holds 25, and 24 is no number that was rounded up to the wrap.
    passed = (field[:-1] // 1 == top) & (field[1:] // 1 == 0) & across
    if top + 1 in standard and passed.sum() >= 0.15 * across.sum():
        standard = [n for n in standard if n > top]
    if not inside.any():
        wraps = [n for n in standard if n > top and np.all(field_step[across] == 1 - n)]
        return wraps[0] if wraps else None
    step = float(np.median(field_step[inside]))
    held = step - field_step[across]  # labels in each second, were each step the usual one
    usual = float(np.median(held))
    exact = (
        float(np.mean(np.abs(held - usual) < 0.25)) >= 0.8
        and _whole(field_step[inside], step)
        and field_step[inside].min() > 0.5 * step
    )
    close = [n for n in standard if abs(n - usual) <= (0.25 if exact else 1 + 2 * ROUNDING)]
    if close:
        elapsed = np.concatenate([[0], np.cumsum(clock_step)])
        return min(close, key=lambda n: (*_misfit(elapsed * n + field, n), n == top, n))
    nearest = min(standard, key=lambda n: abs(n - usual), default=None)
    if drop_frame or (nearest is not None and abs(nearest - usual) <= 1 + ROUNDING):
        return nearest
    own = round(usual)  # such as 15: no standard is near
    return own if own > top and (exact or own <= top + 3) else nearest


def _misfit(x: np.ndarray, nominal: int) -> tuple[float, float]:
    """How badly labels fit that were numbered as if a second held `nominal`: of rounded ones, gaps
    and the distance from whole labels; of others, steps back."""
    steps = np.diff(x)
    spacing = _spacing(x, Fraction(nominal), 2 * ROUNDING) if _whole_apart(steps) else None
    if spacing is None:
        return np.inf, float(np.sum(steps < 0))
    step = float(steps.mean())
    return spacing.gaps, round(abs(step - round(step)), 2)


def _whole(steps: np.ndarray, step: float) -> bool:
    """Whether steps are whole multiples of one, as where frames were dropped and none rounded."""
    if step <= 0:
        return False
    times = steps / step
    return bool(np.all(np.abs(times - np.round(times)) < 0.1) and np.all(times > -0.5))


def _numbers(labels: _Labels, counting: Fraction) -> list[Fraction]:
    """Frame numbers from the first label, running on over midnight."""
    day = timecode.frames_per_day(counting, labels.drop_frame)
    nominal = timecode.frames_per_label_second(counting)
    numbers: list[Fraction] = []
    turns, previous = 0, None
    for row, label in enumerate(labels.parsed):
        try:
            number = _number(label, counting, nominal)
        except TimecodeError as error:
            raise labels.error(error.problem, row) from error
        if previous is not None and abs(number - previous) > day / 2:
            turns += 1 if number < previous else -1
        previous = number
        numbers.append(number + turns * day)
    return [number - numbers[0] for number in numbers]


def _number(label: Timecode, counting: Fraction, nominal: int) -> Fraction:
    """Of a label whose frame number may be rounded up to the first of the next second."""
    if label.frames == nominal:
        return replace(label, frames=nominal - 1).frame(counting) + 1
    return label.frame(counting)


# --- how frames follow one another


def _evenly_spaced(
    numbers: list[Fraction], counting: Fraction, step: Fraction | None = None
) -> tuple[list[Fraction], list[str]] | None:
    """Frame numbers without the rounding of their labels, and notes; None where none is seen.

    Rounded labels step by a constant plus whole frames, and stay within a label of an even
    spacing. Times of a varying rate do neither.

    Args:
      step: labels a frame, where the rate is given; else that which makes a standard rate.
    """
    x = _floats(numbers)
    steps = np.diff(x)
    if len(steps) < 3 or not _whole_apart(steps):
        return None
    usual = float(np.median(steps))
    # Steps that are multiples of the usual one are gaps, unless they come in a rhythm.
    plain = _whole(steps, usual) and steps.min() > 0.5 * usual
    if plain and np.sum(steps > 1.5 * usual) <= _few(len(x)):
        return None
    found = _spacing(x, counting, ROUNDING if plain else 2 * ROUNDING, step)
    if found is None or (plain and found.gaps):
        return None
    notes = ["frame numbers are rounded: frames are spaced evenly"]
    notes += [f"frames are missing at {found.gaps} positions"] if found.gaps else []
    return [found.step * int(frame) for frame in found.frames], notes


@dataclass(frozen=True)
class _Spacing:
    """An even spacing: labels a frame, the number of each frame [N], and positions of gaps."""

    step: Fraction
    frames: np.ndarray
    gaps: int


def _spacing(
    x: np.ndarray, counting: Fraction, farthest: float, step: Fraction | None = None
) -> _Spacing | None:
    """The spacing of labels `x` with the fewest gaps, or the first with few; see `_frames`."""
    best = None
    for candidate in [step] if step else _steps(x, counting):
        frames = _frames(x, float(candidate), farthest)
        if frames is None:
            continue
        gaps = int(np.sum(np.diff(frames) > 1))
        if best is None or gaps < best.gaps:
            best = _Spacing(candidate, frames, gaps)
        if gaps <= _few(len(x)):
            break
    return best


def _few(rows: int) -> int:
    """Gaps that a take may well have; more of them are a rhythm."""
    return 3 + rows // 50


def _whole_apart(steps: np.ndarray) -> bool:
    """Whether steps differ from one another by whole labels, as those of rounded numbers do."""
    apart = steps - np.median(steps)
    return bool(np.all(np.abs(apart - np.round(apart)) < 0.05))


def _steps(x: np.ndarray, counting: Fraction) -> list[Fraction]:
    """Labels a frame to be tried: of standard rates, whole ones first, then the measured one."""
    mean = Fraction(float((x[-1] - x[0]) / (len(x) - 1)))
    if mean <= 0:
        return []
    room = Fraction(2 * ROUNDING) / (len(x) - 1)
    rates = (*STANDARD_RATES, Fraction(15), Fraction(12))
    steps = {counting / rate for rate in rates if rate <= counting}
    steps = {step for step in steps if mean / 2 <= step <= mean + room}
    return [*sorted(steps, key=lambda step: (step.denominator, -step)), max(mean, Fraction(1))]


def _frames(x: np.ndarray, step: float, farthest: float) -> np.ndarray | None:
    """The number of each frame, were they spaced by `step` labels and the labels rounded.

    Rounding moves a label by less than one, or by one in either direction; a gap moves all later
    labels. None where frames lack room, labels differ by more than `farthest`, or there are more
    gaps than a take has.
    """
    off = x - step * np.arange(len(x))
    for width in (ROUNDING, 2 * ROUNDING):
        if width > farthest:
            break
        found = [_missing(off - off[0] + shift, step, width) for shift in np.linspace(0, width, 5)]
        fits = [missing for missing in found if missing is not None]
        if fits:
            return np.arange(len(x)) + min(fits, key=lambda missing: len(np.unique(missing)))
    return None


def _missing(off: np.ndarray, step: float, width: float) -> np.ndarray | None:
    """How many frames are missing before each label, at the fewest gaps.

    Labels are off by 0 to `width` and by `step` a missing frame. As long as one number of missing
    frames explains all labels since the last gap, there is no other gap.
    """
    least = np.ceil((off - width) / step - 1e-6).astype(int)
    most = np.floor(off / step + 1e-6).astype(int)
    low, high, start = -len(off), len(off), 0
    gaps: list[tuple[int, int]] = []  # the row each segment ends before, its missing frames
    for row, (at_least, at_most) in enumerate(zip(least.tolist(), most.tolist(), strict=True)):
        if max(low, at_least) > min(high, at_most):
            gaps.append((row, low))
            low, high = max(low + 1, at_least), at_most
            if low > high or len(gaps) > 3 + len(off) / 8:
                return None
        else:
            low, high = max(low, at_least), min(high, at_most)
    missing = np.zeros(len(off), int)
    for end, number in [*gaps, (len(off), low)]:
        missing[start:end], start = number, end
    return missing - missing[0]


def _check_order(labels: _Labels, numbers: list[Fraction]) -> None:
    for row in range(1, len(numbers)):
        if numbers[row] < numbers[row - 1]:
            raise labels.error(
                f"{labels.texts[row]} comes before the line above, {labels.texts[row - 1]}; give "
                "the frame rate (fps) to space the lines evenly instead",
                row,
            )


def _measured(labels: _Labels, numbers: list[Fraction], counting: Fraction) -> Fraction:
    """Frames a second from the first frame to the last."""
    if len(numbers) == 1:
        return counting
    if numbers[-1] == 0:
        raise labels.error("every line has the same timecode; give the frame rate (fps)", 0)
    return counting * (len(numbers) - 1) / numbers[-1]


def _gap_notes(numbers: list[Fraction]) -> list[str]:
    steps = np.diff(_floats(numbers))
    repeats = int(np.sum(steps == 0))
    steps = steps[steps > 0]
    notes = []
    if len(steps) > 1:
        usual = float(np.median(steps))
        if _whole(steps, usual):
            gaps = int(np.sum(steps > 1.5 * usual))
            notes += [f"frames are missing at {gaps} positions"] if gaps else []
        else:
            notes.append(
                f"the frame rate varies: frames are {steps.min() / usual:.2g} to "
                f"{steps.max() / usual:.2g} times the usual time apart"
            )
    if repeats:
        notes.append(f"{repeats} lines repeat the timecode of the line above")
    return notes


def _floats(numbers: list[Fraction]) -> np.ndarray:
    return np.array([float(number) for number in numbers])


def _seconds(numbers: list[Fraction], counting: Fraction) -> np.ndarray:
    return np.array([float(number / counting) for number in numbers])
