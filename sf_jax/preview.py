"""The preview sheet: what went in, what was read, and the same face rendered from the numbers."""

import os
import textwrap
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sf_jax.face import channels
from sf_jax.render.draw import draw
from sf_jax.render.head import builtin
from sf_jax.render.scene import plain_scene

SHOWN = 20  # bars at most
LEAST = 0.08  # smaller values get no bar
INK, QUIET, BAR, ANGLE = "#20242c", "#7a828f", "#3b7dd8", "#d98a3b"


class Action(Protocol):
    """What a sheet needs of a `FaceAction`."""

    coefficients: np.ndarray
    spread: np.ndarray
    rationale: Any


def _picture(axes: Any, image: np.ndarray, title: str) -> None:
    axes.imshow(image)
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.axis("off")


def _bars(axes: Any, action: Action) -> None:
    values = action.coefficients
    order = [i for i in np.argsort(-np.abs(values)) if abs(values[i]) >= LEAST][:SHOWN]
    places = np.arange(len(order))[::-1]
    colours = [ANGLE if i >= channels.ANGLES.start else BAR for i in order]
    axes.barh(places, values[order], color=colours, height=0.72, zorder=2)
    axes.errorbar(
        values[order], places, xerr=action.spread[order],
        fmt="none", ecolor=INK, elinewidth=1, capsize=2, zorder=3,
    )  # fmt: skip
    axes.set_yticks(places, [channels.NAMES[i] for i in order], fontsize=8, color=INK)
    axes.set_xlim(min(0.0, float(values[order].min(initial=0)) - 0.1), 1.05)
    axes.set_title("Active channels, mean ± spread", fontsize=11, color=INK, loc="left")
    axes.tick_params(axis="x", labelsize=8, colors=QUIET)
    axes.axvline(0, color=QUIET, linewidth=0.8)
    axes.grid(axis="x", color="#e3e6ea", zorder=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if not order:
        axes.text(0.5, 0.5, "at rest", ha="center", color=QUIET, transform=axes.transAxes)


def _words(axes: Any, action: Action) -> None:
    rationale = action.rationale
    fields = ("expression", "movements", "emotion", "symmetry")
    lines: list[str] = []
    for name in fields:
        text = f"{name.capitalize()}: {getattr(rationale, name)}"
        lines += textwrap.wrap(text, 100, subsequent_indent="   ")[:6]
    axes.text(0, 1, "\n".join(lines), va="top", fontsize=10, color=INK, linespacing=1.45)
    axes.axis("off")


def preview(image: np.ndarray, action: Action, path: str | os.PathLike) -> None:
    """Writes one PNG sheet; it appears whole or not at all.

    Args:
      image: uint8 [H, W, 3], as the model saw it.
    """
    face = draw(builtin(), action.coefficients, plain_scene(), 384, 384).image
    figure = Figure(figsize=(13, 6.6), facecolor="white")
    grid = figure.add_gridspec(
        2, 3, width_ratios=(1, 1, 1.15), height_ratios=(2.6, 1),
        left=0.02, right=0.985, top=0.94, bottom=0.05, wspace=0.08, hspace=0.08,
    )  # fmt: skip
    _picture(figure.add_subplot(grid[0, 0]), image, "Input")
    _picture(figure.add_subplot(grid[0, 1]), face, "Rendered from the coefficients")
    right = grid[:, 2].subgridspec(1, 2, width_ratios=(0.42, 1), wspace=0)
    _bars(figure.add_subplot(right[1]), action)
    _words(figure.add_subplot(grid[1, :2]), action)
    partial = Path(f"{os.fspath(path)}.partial")
    FigureCanvasAgg(figure).print_figure(partial, format="png", dpi=100)
    os.replace(partial, path)
