"""The preview sheet: input image, rationale, coefficients, and the face rendered from them."""

import os
import textwrap
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from sf_jax.face import channels
from sf_jax.face.agreement import Agreement, sentence
from sf_jax.face.describe import Description
from sf_jax.face.landmarks import Square
from sf_jax.media import files
from sf_jax.render.draw import draw
from sf_jax.render.head import builtin
from sf_jax.render.scene import plain_scene

SHOWN = 20  # maximum number of bars
LEAST = 0.1  # smaller magnitudes get no bar
SIDE = 384  # of either image, in pixels
LINE = 110  # characters of a line of the rationale
LINES = 11  # of the rationale that fit
UNDER = -0.33  # where the line about agreement is, in heights of the rationale's axes
INSET = 0.36  # side of what was read, in sides of the picture
FOUND = "#f2c230"  # colour of the square
INK, QUIET, BAR, ANGLE = "#20242c", "#7a828f", "#3b7dd8", "#d98a3b"


class Action(Protocol):
    """The attributes of a `FaceAction` that the sheet shows."""

    @property
    def coefficients(self) -> Float[np.ndarray, " 61"]: ...

    @property
    def spread(self) -> Float[np.ndarray, " 61"]: ...

    @property
    def rationale(self) -> Description: ...

    @property
    def agreement(self) -> Agreement | None: ...

    @property
    def weak(self) -> tuple[str, ...]: ...


def _picture(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, interpolation="bilinear")
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.set_anchor("NW")
    axes.axis("off")


def _shrunk(image: np.ndarray) -> np.ndarray:
    """A large image, downsampled to what the sheet can show."""
    scale = 2 * SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def strongest(values: np.ndarray, count: int, least: float) -> list[int]:
    """Indices of the largest magnitudes in float [61], at most `count`, in descending order."""
    order = np.argsort(-np.abs(np.nan_to_num(values)), kind="stable")[:count]
    return [int(i) for i in order if abs(values[i]) >= least]


def _bars(axes: Axes, action: Action) -> None:
    order = strongest(action.coefficients, SHOWN, LEAST)
    values, spread = action.coefficients[order], action.spread[order]
    positions = np.arange(len(order))[::-1]
    colours = [ANGLE if i >= channels.ANGLES.start else BAR for i in order]
    axes.barh(positions, values, color=colours, height=0.72, zorder=2)
    axes.errorbar(
        values, positions, xerr=spread, fmt="none", ecolor=INK, elinewidth=1, capsize=2, zorder=3
    )
    names = [channels.NAMES[i] for i in order]
    labels = [f"{name} ?" if name in action.weak else name for name in names]
    axes.set_yticks(positions, labels, fontsize=8, color=INK)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(QUIET if name in action.weak else INK)
    axes.set_ylim(len(order) - SHOWN - 0.6, len(order) - 0.4)  # bars of one width on every sheet
    least, most = (values - spread).min(initial=0), (values + spread).max(initial=1)
    axes.set_xlim(min(0.0, float(least) * 1.06), float(most) * 1.03)
    axes.set_title("Active channels, mean ± spread", fontsize=11, color=INK, loc="left")
    legend = "blue: coefficient   orange: angle in radians"
    legend += "\n?: measured to be read badly" if set(names) & set(action.weak) else ""
    axes.set_xlabel(legend, fontsize=8, color=QUIET)
    axes.tick_params(axis="x", labelsize=8, colors=QUIET)
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=QUIET, linewidth=0.8)
    axes.grid(axis="x", color="#e3e6ea", zorder=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if not order:
        axes.text(0.5, 0.5, "at rest", ha="center", color=QUIET, transform=axes.transAxes)


def wrap_rationale(rationale: Description) -> list[str]:
    """The four fields of a rationale as lines that fit the sheet; where they do not, the longest
    field is truncated and ends in "…"."""
    fields = []
    for name in ("expression", "movements", "emotion", "symmetry"):
        content = " ".join(str(getattr(rationale, name)).split()) or "–"
        text = f"{name.capitalize()}: {content}"
        fields.append(textwrap.wrap(text, LINE, subsequent_indent="    "))
    while sum(map(len, fields)) > LINES:
        longest = max(fields, key=len)
        longest[-2:] = [longest[-2].removesuffix(" …")[: LINE - 2] + " …"]
    return [line for lines in fields for line in lines]


def _rationale(axes: Axes, action: Action) -> None:
    # The text may contain a "$", which would start a formula.
    axes.text(
        0,
        1,
        "\n".join(wrap_rationale(action.rationale)),
        va="top",
        fontsize=9.5,
        color=INK,
        linespacing=1.4,
        parse_math=False,
    )
    mark = sentence(action.agreement)
    if mark:
        axes.text(0, UNDER, mark, va="bottom", fontsize=8.5, color=QUIET)
    axes.axis("off")


def _inset(axes: Axes, image: np.ndarray) -> None:
    """What the model read, in a corner of the picture that it was cut out of."""
    inner = axes.inset_axes((0.0, 0.0, INSET, INSET), zorder=5)
    inner.imshow(image, interpolation="bilinear")
    inner.set_anchor("SW")
    inner.set_xticks([])
    inner.set_yticks([])
    for side in inner.spines.values():
        side.set_color(FOUND)
        side.set_linewidth(2)


def _input(axes: Axes, image: np.ndarray, whole: np.ndarray | None, box: Square | None) -> None:
    """The picture, and where it was cut out of another one that, the square, and what was read."""
    if whole is None or box is None:
        _picture(axes, _shrunk(image), "Input")
        return
    shown = _shrunk(whole)
    _picture(axes, shown, "Input, and the face as it was read")
    scale = shown.shape[1] / whole.shape[1], shown.shape[0] / whole.shape[0]
    corners = np.array(box.corners) * scale - 0.5
    axes.add_patch(Polygon(corners, fill=False, edgecolor=FOUND, linewidth=2))
    axes.set_xlim(-0.5, shown.shape[1] - 0.5)
    axes.set_ylim(shown.shape[0] - 0.5, -0.5)
    _inset(axes, image)


def preview(
    image: np.ndarray,
    action: Action,
    path: str | os.PathLike,
    whole: np.ndarray | None = None,
    box: Square | None = None,
) -> None:
    """Writes one PNG sheet, atomically.

    Args:
      image: uint8 [H, W, 3], as the model saw it.
      whole, box: the image that it was cut out of, and the square there; a box of None: it was not.

    Raises:
      OSError: the file cannot be written.
    """
    # Channels that the model does not read are NaN; they are drawn at rest, and the title says so.
    title = "Rendered from the coefficients"
    title += ", others at rest" if np.isnan(action.coefficients).any() else ""
    face = draw(builtin(), np.nan_to_num(action.coefficients), plain_scene(), SIDE, SIDE).image
    figure = Figure(figsize=(13, 6.6), facecolor="white")
    grid = figure.add_gridspec(
        2,
        3,
        width_ratios=(1, 1, 1.15),
        height_ratios=(2.2, 1),
        left=0.02,
        right=0.985,
        top=0.94,
        bottom=0.09,
        wspace=0.08,
        hspace=0.06,
    )
    _input(figure.add_subplot(grid[0, 0]), image, whole, box)
    _picture(figure.add_subplot(grid[0, 1]), face, title)
    right = grid[:, 2].subgridspec(1, 2, width_ratios=(0.42, 1), wspace=0)
    _bars(figure.add_subplot(right[1]), action)
    _rationale(figure.add_subplot(grid[1, :2]), action)
    with files.replacing(path) as file:
        FigureCanvasAgg(figure).print_figure(file, format="png", dpi=100)
