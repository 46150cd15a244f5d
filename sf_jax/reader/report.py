"""One reading as text for a terminal: the rationale and the strongest channels, in columns."""

import shutil
import textwrap
from collections.abc import Sequence

import numpy as np

from sf_jax.face import channels
from sf_jax.media.errors import printable
from sf_jax.reader import reliability
from sf_jax.reader.action import FaceAction, Values

SHOWN = 12  # maximum number of channels
LEAST = 0.05  # smaller magnitudes are left out
NAME, BAR, WIDEST = 20, 20, 100  # columns


def report(action: FaceAction, values: Values, name: str) -> str:
    """What a person wants to see of one image.

    Args:
      values: the coefficients asked for, in canonical order; NaN where the model reads none.
      name: of the image.
    """
    return "\n".join([printable(name), "", *_rationale(action), "", *_channels(action, values)])


def _rationale(action: FaceAction) -> list[str]:
    width = min(WIDEST, shutil.get_terminal_size().columns)
    lines = []
    for field in ("expression", "movements", "emotion", "symmetry"):
        content = " ".join(getattr(action.rationale, field).split())
        label = f"{field.capitalize()}:".ljust(13)
        if content:
            lines += textwrap.wrap(label + content, max(40, width), subsequent_indent=" " * 13)
    return lines or ["no rationale"]


def _channels(action: FaceAction, values: Values) -> list[str]:
    order = np.argsort(-np.abs(np.nan_to_num(values)), kind="stable")[:SHOWN]
    shown = [i for i in order if abs(values[i]) >= LEAST]
    if not shown:
        return [f"at rest: no channel reaches {LEAST}"]
    rows = [_row(i, values[i], action.spread[i], action.weak) for i in shown]
    notes = []
    if any(channels.NAMES[i] in action.weak for i in shown):
        notes = [f"? measured to be read badly (r below {reliability.LEAST}): do not rely on it"]
    return [f"{'channel':<{NAME}} value  spread", *rows, *notes]


def _row(index: int, value: float, spread: float, weak: Sequence[str]) -> str:
    bar = "#" * round(BAR * min(1.0, abs(float(value))))
    mark = "?" if channels.NAMES[index] in weak else " "
    row = f"{channels.NAMES[index]:<{NAME}} {value:5.2f}  ±{spread:.2f} {mark} {bar}"
    if channels.CHANNELS[index].unit != "coefficient":
        row = f"{row:<{NAME + 17 + BAR}} {np.degrees(value):+.0f}°"
    return row
