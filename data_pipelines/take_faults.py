"""What is wrong with the times of a take's rows and frames: missing, repeated, uneven."""

from dataclasses import asdict, dataclass, field

import numpy as np
from jaxtyping import Float, Int

from data_pipelines.take_frames import Frames
from sf_jax.face.labels import Labels

GAP = 1.5  # usual steps: a longer one is a gap
UNEVEN = 0.2  # of the usual step: a step that differs by more is uneven
RARE = 0.1  # of the steps: where more are uneven, the rate varies
COARSE = 0.01  # labels of whole percents repeat at rest without being stale
SHOWN = 8  # positions in a report


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
      kind: "rows-missing", "rows-doubled", "rows-empty", "frames-missing", "frames-doubled",
        "frames-dropped" or "frames-inserted" (both without a gap in the times), "variable-rate"
        or "rate".
      count: how many rows or frames are concerned.
      text: a sentence.
      at: the first of them: line numbers of rows, seconds of frames.
    """

    kind: str
    count: int
    text: str
    at: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """The fields."""
        return asdict(self)


def of_rows(labels: Labels) -> tuple[Int[np.ndarray, " R"], list[Fault], dict[str, int]]:
    """Indices of usable rows, whose times increase strictly, faults, and how many are left out."""
    assert labels.seconds is not None
    faults, left_out = [], {}
    good = labels.known.any(1)
    if not good.all():
        empty = np.flatnonzero(~good)
        text = f"{len(empty)} rows hold no values"
        faults.append(Fault("rows-empty", len(empty), text, _lines(labels, empty)))
        left_out["rows without values"] = len(empty)
    again = good & (_same_time(labels) | _same_values(labels))
    if again.any():
        rows = np.flatnonzero(again)
        text = f"{len(rows)} rows repeat the row above, its time or all of its values"
        faults.append(Fault("rows-doubled", len(rows), text, _lines(labels, rows)))
        left_out["repeated rows"] = len(rows)
    faults += _missing_rows(labels)
    return np.flatnonzero(good & ~again), faults, left_out


def _same_time(labels: Labels) -> np.ndarray:
    assert labels.seconds is not None
    return np.r_[False, np.diff(labels.seconds) <= 0]


def _same_values(labels: Labels) -> np.ndarray:
    """Rows that repeat all values of the row above, where values are fine enough to show that."""
    values = np.nan_to_num(labels.coefficients)
    parts = values[values != 0] / COARSE
    fine = len(parts) > 0 and np.mean(np.abs(parts - np.round(parts)) > 1e-3) > 0.5
    return np.r_[False, (values[1:] == values[:-1]).all(1)] if fine else np.zeros(len(values), bool)


def _missing_rows(labels: Labels) -> list[Fault]:
    assert labels.seconds is not None
    gaps, missing, varies = _gaps(labels.seconds)
    if varies:
        return [Fault("variable-rate", len(gaps), "rows follow one another at a varying rate")]
    if not len(gaps):
        return []
    text = f"{missing} rows are missing, in {len(gaps)} gaps"
    return [Fault("rows-missing", missing, text, _lines(labels, gaps + 1))]


def of_frames(frames: Frames) -> list[Fault]:
    """Faults of a video's frames."""
    faults = []
    gaps, missing, varies = _gaps(frames.seconds)
    at = [round(float(frames.seconds[i]), 3) for i in gaps[:SHOWN]]
    if varies:
        steps = np.diff(frames.seconds)
        text = f"the frame rate varies: frames are {steps.min():.3f} to {steps.max():.3f} s apart"
        faults.append(Fault("variable-rate", len(gaps), text, at))
    elif len(gaps):
        text = f"{missing} frames are missing, in {len(gaps)} gaps of the video's times"
        faults.append(Fault("frames-missing", missing, text, at))
    again = np.flatnonzero(frames.repeats)
    if len(again):
        at = [round(float(frames.seconds[i]), 3) for i in again[:SHOWN]]
        text = f"{len(again)} frames show the frame before again"
        faults.append(Fault("frames-doubled", len(again), text, at))
    return faults


def _gaps(seconds: Float[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " G"], int, bool]:
    """The sample before each gap, how many samples are missing, and whether the rate varies."""
    steps = np.diff(seconds)
    steps = np.where(steps > 0, steps, np.nan)
    usual = float(np.nanmedian(steps)) if np.isfinite(steps).any() else 1.0
    gaps = np.flatnonzero(steps > GAP * usual)
    missing = int(np.sum(np.round(steps[gaps] / usual) - 1))
    uneven = np.abs(steps / usual - 1) > UNEVEN
    return gaps, missing, bool(uneven.mean() > RARE)


def _lines(labels: Labels, rows: np.ndarray) -> list[float]:
    return [labels.lines[int(row)] for row in rows[:SHOWN]]
