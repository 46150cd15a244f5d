"""Which frame each row of a tracker's file belongs to, and what is wrong with either.

The clocks are related by timecode, by a given offset, or by cross-correlation of the curves in the
file with those that a model reads off the video (`face/curve_offset.py`). Frames dropped or
inserted without a trace in the times are found by `face/curve_steps.py`. A row and a frame make a
pair where each is the other's nearest in time. Whatever is in doubt is left out and counted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from data_pipelines.take_faults import Fault, of_frames, of_rows
from data_pipelines.take_frames import Frames, TakeError
from sf_jax.face.channels import INDEX
from sf_jax.face.curve_offset import Curves, Offset, OffsetError, best_ratio, find_offset
from sf_jax.face.curve_steps import Shifts, best_shifts
from sf_jax.face.labels import Labels
from sf_jax.face.timecode import STANDARD_RATES

CURVES = {
    "blink": ("EyeBlinkLeft", "EyeBlinkRight"),
    "jaw": ("JawOpen",),
    "smile": ("MouthSmileLeft", "MouthSmileRight"),
    "brows": ("BrowInnerUp",),
    "pucker": ("MouthPucker",),
}  # the first two are aligned, all show where frames were dropped
ALIGNED = 2
NEAREST = 0.55  # of the shorter period: how far apart in time the row and frame of a pair may be
STEADY = 0.2  # of it: pairs that are apart by the same to within this are of one grid
NTSC = 1.001
DRIFTS = 1.5  # periods by which clocks drift apart over a take before other ratios are tried
NEARBY = 2.0  # seconds between the offsets at different ratios, at most
DAY = 24 * 3600.0
Wish = Literal["auto", "timecode"] | float


@dataclass(frozen=True)
class Pairing:
    """Rows with their frames.

    Attributes:
      rows, frames: P indices of each.
      how: "curves", "timecode", "given", "names", "numbers" or "order".
      offset: of the video's clock against the file's; None where no clock was needed.
      faults: what was found, see `take_faults`.
      left_out: how many rows or frames are in no pair, by reason.
      notes: sentences on how the clocks were related.
    """

    rows: Int[np.ndarray, " P"]
    frames: Int[np.ndarray, " P"]
    how: str
    offset: Offset | None = None
    faults: list[Fault] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def pair(
    labels: Labels, frames: Frames, wish: Wish = "auto", first_frame: int | None = None
) -> Pairing:
    """Pairs the rows of a file with the frames of a video or folder.

    Names of images come first, then numbers of frames, then times; rows and frames that nothing
    else relates are paired by their order.

    Args:
      wish: how the clocks are related: seconds of the video's clock at the first row, by
        "timecode", or by what is there ("auto").
      first_frame: the number, 0 or 1, that the file has for the first frame; None where its
        numbers show it.

    Raises:
      DataError: nothing relates them, or what was asked for cannot be used; names the file and
        what can be done.
    """
    images = bool(frames.names)
    timed = labels.seconds is not None and not images
    if not timed and wish != "auto":
        lacking = "has no times" if labels.seconds is None else f"belongs to images: {frames.path}"
        raise TakeError(f"{lacking}; leave out --offset, which relates clocks", path=labels.path)
    if images and labels.images is not None:
        found = _by_name(labels, frames, labels.images)
    elif labels.numbers is not None and (not timed or wish == "auto"):
        found = _by_number(labels, frames, labels.numbers, first_frame)
    elif not timed:
        found = _by_order(labels, frames)
    else:
        found = _by_time(labels, frames, wish)
    if first_frame is not None and found.how != "numbers":
        problem = f"was paired by {found.how}; leave out --first-frame, which is about numbers"
        raise TakeError(problem, path=labels.path)
    return found


def _by_time(labels: Labels, frames: Frames, wish: Wish) -> Pairing:
    """Rows and frames that both have times, on clocks of their own."""
    rows, faults, left_out = of_rows(labels)
    faults += of_frames(frames)
    if not len(rows):
        raise TakeError("holds no values", path=labels.path)
    assert labels.seconds is not None
    curves = Curves(labels.seconds[rows], curves_of(labels.coefficients[rows]))
    seen = Curves(frames.seconds, curves_of(frames.values))
    offset, how, notes = _offset(labels, frames, curves, seen, wish)
    shifts = Shifts(offset, np.zeros(len(frames.seconds), int), np.ones(len(frames.seconds), bool))
    if offset.clear:
        shifts = best_shifts(curves, seen, _alike(labels, frames, curves, seen, offset))
        stated = offset
        offset, shifts = _from_the_start(shifts.offset, shifts, seen.period)
        # A given offset is that of the first frame, and stays as it is.
        offset = stated if how == "given" else offset
    else:
        notes.append("curves do not correlate: untimed drops of frames were not searched for")
    late = shifts.periods * seen.period
    wanted = offset.seconds + offset.ratio * curves.seconds
    clock = frames.seconds - late
    left, right = nearest_pairs(wanted, clock, snap=how != "given")
    if how != "given" and len(left):
        moved = float(np.median(clock[right] - wanted[left]))
        offset = _replaced(offset, offset.seconds + moved * (abs(moved) < seen.period))
    faults += _jumps(shifts, frames) + _rates(labels, frames, offset)
    good = shifts.sure[right] & ~frames.repeats[right]
    left_out |= {
        "rows without a frame": len(rows) - len(left),
        "frames without a row": len(frames.seconds) - len(right),
        "frames near a jump": int(np.sum(~shifts.sure[right])),
        "repeated frames": int(np.sum(frames.repeats[right] & shifts.sure[right])),
    }
    found = rows[left[good]], right[good]
    return Pairing(*found, how, offset, faults, _counted(left_out), notes)


def _from_the_start(offset: Offset, shifts: Shifts, period: float) -> tuple[Offset, Shifts]:
    """The same, with the offset of the first frame, which is not shifted then."""
    first = int(shifts.periods[0])
    moved = _replaced(offset, offset.seconds + first * period)
    return moved, replace(shifts, offset=moved, periods=shifts.periods - first)


def curves_of(values: Float[np.ndarray, "N 61"]) -> Float[np.ndarray, "N C"]:
    """The curves that are compared; NaN where none of a curve's channels is known."""
    out = []
    for names in CURVES.values():
        part = values[:, [INDEX[name] for name in names]]
        known = np.isfinite(part)
        total = np.where(known, part, 0).sum(1)
        count = known.sum(1)
        out.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return np.stack(out, 1)


def nearest_pairs(
    wanted: Float[np.ndarray, " N"], clock: Float[np.ndarray, " F"], snap: bool = True
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Indices of rows and frames that are each other's nearest, and close.

    Args:
      wanted: times of rows on the video's clock; clock: times of frames.
      snap: where all pairs are apart by the same part of a period, as rows and frames of one
        device are, that part is an error of the offset and is taken out first.
    """
    period = min(float(np.median(np.diff(one))) for one in (wanted, np.sort(clock)))
    left, right = _mutual(wanted, clock, NEAREST * period)
    if snap and len(left) > 2:
        apart = clock[right] - wanted[left]
        middle = float(np.median(apart))
        if np.mean(np.abs(apart - middle) < STEADY * period) > 0.9:
            left, right = _mutual(wanted + middle, clock, NEAREST * period)
    return left, right


def _mutual(
    wanted: Float[np.ndarray, " N"], clock: Float[np.ndarray, " F"], most: float
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    order = np.argsort(clock, kind="stable")
    frame = order[_nearest(clock[order], wanted)]
    row = _nearest(wanted, clock)
    rows = np.arange(len(wanted))
    good = (row[frame] == rows) & (np.abs(clock[frame] - wanted) <= most)
    return rows[good], frame[good]


def _nearest(times: Float[np.ndarray, " N"], asked: Float[np.ndarray, " M"]) -> np.ndarray:
    """The index of the nearest of increasing times, for each time asked."""
    after = np.clip(np.searchsorted(times, asked), 1, len(times) - 1)
    before = after - 1
    return np.where(asked - times[before] <= times[after] - asked, before, after)


def _offset(
    labels: Labels, frames: Frames, curves: Curves, seen: Curves, wish: Wish
) -> tuple[Offset, str, list[str]]:
    """How the clocks are related, by what, and notes."""
    ratios = ratios_of(labels, frames)
    narrow = _aligned(curves), _aligned(seen)
    if not isinstance(wish, str):
        return _near(narrow, ratios, float(wish)), "given", []
    stated = _by_timecode(labels, frames)
    if wish == "timecode":
        if stated is None:
            lacking = frames.path if frames.clock is None else labels.path
            raise TakeError("has no timecode; use --offset SECONDS", path=lacking)
        return _near(narrow, ratios, stated), "timecode", []
    try:
        found = best_ratio(*narrow, ratios)
    except OffsetError as error:
        found, problem = None, error.problem
    if found is not None and found.clear:
        notes = []
        if stated is not None and abs(stated - found.seconds) > 1.5 * seen.period:
            where = f"{stated:+.3f} s, the curves at {found.seconds:+.3f} s"
            notes = [f"timecode puts the file's first row at {where}: the curves are used"]
        return found, "curves", notes
    if stated is not None:
        why = "the curves show no clear offset" if found else problem
        return _near(narrow, ratios, stated), "timecode", [f"{why}; timecode is used"]
    why = problem if found is None else f"blinks and jaw show no clear offset: at best {found}"
    advice = "give it with --offset SECONDS (of the video at the file's first row)"
    raise TakeError(f"{why}; {advice}", path=labels.path)


def _alike(
    labels: Labels, frames: Frames, curves: Curves, seen: Curves, offset: Offset
) -> list[Offset]:
    """The best offsets at all ratios of the clocks, near the one found; the likeliest first."""
    between = offset.seconds - NEARBY, offset.seconds + NEARBY
    ratios = ratios_of(labels, frames)
    return [find_offset(_aligned(curves), _aligned(seen), ratio, between) for ratio in ratios]


def _aligned(curves: Curves) -> Curves:
    return Curves(curves.seconds, curves.values[:, :ALIGNED])


def _near(narrow: tuple[Curves, Curves], ratios: Sequence[float], seconds: float) -> Offset:
    """The given offset, with the correlation of the curves there."""
    room = narrow[1].period
    try:
        found = best_ratio(*narrow, ratios, (seconds - room, seconds + room))
    except OffsetError:
        return Offset(seconds, ratios[0], 0.0, 0.0, 0.0, 0.0)
    return _replaced(found, seconds)


def _replaced(offset: Offset, seconds: float) -> Offset:
    return replace(offset, seconds=seconds)


def _by_timecode(labels: Labels, frames: Frames) -> float | None:
    """Seconds of the video at the first row, where both have timecode and meet."""
    if labels.clock is None or frames.clock is None or labels.seconds is None:
        return None
    seconds = (labels.clock - frames.clock + DAY / 2) % DAY - DAY / 2
    meets = -float(labels.seconds[-1]) < seconds < float(frames.seconds[-1])
    return seconds if meets else None


def ratios_of(labels: Labels, frames: Frames) -> list[float]:
    """Seconds of the video's clock in one of the file's, the likeliest first.

    Rows and frames of one device come one to one: where the file counts 30 a second and the video
    states 29.97, its clock is the slower one.
    """
    assert labels.seconds is not None
    first = 1.0
    rate, shown = standard_rate(labels.seconds), frames.fps
    if rate and shown:
        times = rate / shown if rate > shown else shown / rate
        part = times / round(times)
        part = part if rate > shown else 1 / part
        first = part if abs(part - 1) < 0.005 else 1.0
    found = [first]
    shorter = min(float(labels.seconds[-1]), float(frames.seconds[-1]))
    period = float(np.median(np.diff(frames.seconds)))
    for ratio in (1.0, NTSC, 1 / NTSC):
        # Clocks that drift apart by less than a frame would pass for one that was dropped.
        drifts = abs(ratio - first) * shorter > DRIFTS * period
        if drifts and all(abs(ratio - one) > 1e-5 for one in found):
            found.append(ratio)
    return found


def standard_rate(seconds: Float[np.ndarray, " N"]) -> float | None:
    """The standard rate at which times follow one another; None where they do at none."""
    steps = np.diff(seconds)
    steps = steps[steps > 0]
    if not len(steps):
        return None
    for step in (float(np.median(steps)), float(seconds[-1] / len(steps))):
        for rate in STANDARD_RATES:
            if abs(step * float(rate) - 1) < 4e-4:
                return float(rate)
    return None


def _rates(labels: Labels, frames: Frames, offset: Offset) -> list[Fault]:
    if offset.ratio == 1.0 or labels.seconds is None:
        return []
    rate = standard_rate(labels.seconds) or 0.0
    text = (
        f"the file counts {rate:g} rows a second and the video shows {frames.fps:.5g} frames: a "
        f"second of the file is {offset.ratio:.6g} s of the video"
    )
    return [Fault("rate", 1, text)]


def _jumps(shifts: Shifts, frames: Frames) -> list[Fault]:
    faults = []
    for frame, jump in shifts.jumps:
        at = float(frames.seconds[frame])
        kind, who, other = "frames-dropped", "the file", "the video"
        if jump > 0:
            kind, who, other = "frames-inserted", other, who
        count = f"{abs(jump)} frames more than {other}"
        text = f"at {at:.2f} s of the video {who} has {count}, without a gap in their times"
        faults.append(Fault(kind, abs(jump), text, [at]))
    return faults


def _counted(left_out: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in left_out.items() if count}


def _by_name(labels: Labels, frames: Frames, images: list[str]) -> Pairing:
    """Rows that name images."""
    exact = {name: i for i, name in enumerate(frames.names)}
    short: dict[str, list[int]] = {}
    for i, name in enumerate(frames.names):
        short.setdefault(name.rsplit("/", 1)[-1], []).append(i)
    found: dict[int, int] = {}
    doubled = missing = 0
    usable = np.asarray(labels.known.any(1))
    for row, name in enumerate(images):
        name = name.replace("\\", "/")
        alike = short.get(name.rsplit("/", 1)[-1], [])
        frame = exact.get(name, alike[0] if len(alike) == 1 else None)
        if frame is None:
            missing += 1
        elif frame in found.values():
            doubled += 1
        elif usable[row]:
            found[row] = frame
    if not found:
        problem = f"names no image of {frames.path}: the first is {images[0]!r}"
        raise TakeError(problem, path=labels.path)
    faults = [Fault("rows-doubled", doubled, f"{doubled} rows name an image again")] * bool(doubled)
    if missing:
        faults.append(Fault("frames-missing", missing, f"{missing} rows name images not there"))
    left_out = {
        "rows without a frame": missing,
        "repeated rows": doubled,
        "rows without values": int(np.sum(~usable)),
        "frames without a row": len(frames.names) - len(found),
    }
    pairs = np.array(sorted(found.items()), int)
    return Pairing(pairs[:, 0], pairs[:, 1], "names", None, faults, _counted(left_out))


def _by_number(
    labels: Labels, frames: Frames, numbered: list[int], first_frame: int | None
) -> Pairing:
    """Rows that name the frames by their numbers, as labels made of this very video."""
    count = len(frames.seconds)
    numbers, notes = np.array(numbered), []
    names = _numbers_in_names(frames)
    order = np.arange(count) if names is None else np.argsort(names)
    if names is not None and first_frame is None and not _counts_on(names[order]):
        place = np.clip(np.searchsorted(names[order], numbers), 0, count - 1)
        numbers = np.where(names[order][place] == numbers, place, -1)
        notes = ["rows were paired with images by the numbers in the images' names"]
    else:
        base = _base(labels, numbers, count) if first_frame is None else first_frame
        numbers = numbers - base
        notes = [f"frames are numbered from {base}"]
    there = (numbers >= 0) & (numbers < count)
    numbers = np.where(there, order[np.clip(numbers, 0, count - 1)], -1)
    first = np.zeros(len(numbers), bool)
    first[np.unique(numbered, return_index=True)[1]] = True
    usable = np.asarray(labels.known.any(1))
    good = first & there & usable
    good[good] &= ~frames.repeats[numbers[good]]
    rows = np.flatnonzero(good)
    if not len(rows):
        problem = f"numbers no frame of {frames.path}, which has {count}"
        raise TakeError(problem, path=labels.path)
    left_out = {
        "repeated rows": int(np.sum(~first)),
        "rows without a frame": int(np.sum(~there)),
        "rows without values": int(np.sum(~usable)),
        "repeated frames": int(np.sum(frames.repeats)),
        "frames without a row": count - len(np.unique(numbers[there])),
    }
    faults = of_frames(frames)
    return Pairing(rows, numbers[rows], "numbers", None, faults, _counted(left_out), notes)


def _base(labels: Labels, numbers: Int[np.ndarray, " N"], count: int) -> int:
    """The number of the first frame, 0 or 1, as the numbers of the rows show it."""
    if numbers.min() != 1:
        return 0
    if numbers.max() < count:
        problem = (
            f"numbers frames from 1 to {numbers.max()} of {count}: give the number of the first "
            "frame with --first-frame 0 or --first-frame 1"
        )
        raise TakeError(problem, path=labels.path)
    return 1


def _numbers_in_names(frames: Frames) -> Int[np.ndarray, " F"] | None:
    """The number that each image's name ends in; None where one has none or two have the same."""
    found = [re.search(r"(\d{1,18})$", name.rpartition(".")[0]) for name in frames.names]
    numbers = [int(one[1]) for one in found if one]
    if not numbers or len(set(numbers)) < len(found):
        return None
    return np.array(numbers)


def _counts_on(numbers: Int[np.ndarray, " F"]) -> bool:
    """Whether increasing numbers count frames from 0 or 1 without a gap."""
    return int(numbers[0]) in (0, 1) and int(numbers[-1] - numbers[0]) == len(numbers) - 1


def _by_order(labels: Labels, frames: Frames) -> Pairing:
    """As many rows as frames, without anything else that relates them."""
    count, shown = len(labels.lines), len(frames.seconds)
    if count != shown:
        problem = (
            "relates its rows to frames by nothing but their order, and has "
            f"{count} rows for {shown} frames of {frames.path}"
        )
        raise TakeError(problem, path=labels.path)
    usable = np.asarray(labels.known.any(1))
    good = np.flatnonzero(usable & ~frames.repeats)
    left_out = {
        "rows without values": int(np.sum(~usable)),
        "repeated frames": int(np.sum(frames.repeats)),
    }
    notes = ["rows and frames were paired by their order alone"]
    return Pairing(good, good, "order", None, of_frames(frames), _counted(left_out), notes)
