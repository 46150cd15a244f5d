"""Plots of a take's labels, and a contact sheet of its images with what they are labelled."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from data_pipelines.take_frames import Frames
from data_pipelines.take_pairing import CURVES, Pairing, curves_of
from data_pipelines.take_quality import JITTER, SIDES, Quality
from sf_jax.face.channels import BLENDSHAPES, NAMES
from sf_jax.face.labels import Labels
from sf_jax.media import files
from sf_jax.render.preview import ANGLE, BAR, INK, QUIET, strongest

BINS = 25
COLUMNS, ROWS = 6, 4  # of the contact sheet
CELL = 160  # pixels across an image of it
DPI = 80


class Contact:
    """The images of a contact sheet, chosen evenly while records are made.

    Args:
      count: how many records there will be.
    """

    def __init__(self, count: int):
        cells = min(count, COLUMNS * ROWS)
        self._chosen = set(np.linspace(0, count - 1, cells).round().astype(int).tolist())
        self._number = 0
        self._cells: list[tuple[UInt8[np.ndarray, "H W 3"], list[str]]] = []

    def add(self, record: Mapping, labels: Labels, row: int) -> None:
        """A further record, of the row of a file."""
        if self._number in self._chosen:
            values = np.nan_to_num(labels.coefficients[row])
            top = strongest(values, 3, 0.1)
            when = "" if labels.seconds is None else f", {labels.seconds[row]:.2f} s"
            lines = [f"line {labels.lines[row]}{when}"]
            lines += [f"{NAMES[i]} {values[i]:.2f}" for i in top]
            self._cells.append((_small(record["image"]), lines))
        self._number += 1

    def draw(self, path: Path) -> None:
        """Writes the sheet as PNG."""
        rows = -(-len(self._cells) // COLUMNS)
        figure = Figure(figsize=(2.2 * COLUMNS, 2.75 * rows), facecolor="white")
        for number, (image, lines) in enumerate(self._cells):
            axes = figure.add_subplot(rows, COLUMNS, number + 1)
            axes.imshow(image)
            axes.axis("off")
            axes.set_anchor("N")
            text = "\n".join(lines)
            axes.text(0, -0.03, text, fontsize=7, va="top", color=INK, transform=axes.transAxes)
        figure.subplots_adjust(0.01, 0.22 / rows + 0.01, 0.99, 0.99, 0.05, 0.28)
        _save(figure, path)


def _small(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    scale = min(1.0, CELL / max(image.shape[:2]))
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def draw_quality(
    path: Path, labels: Labels, frames: Frames, pairing: Pairing, quality: Quality
) -> None:
    """Writes histograms, jitter and agreement of sides, and the aligned curves, as PNG."""
    figure = Figure(figsize=(15, 13), facecolor="white")
    grid = figure.add_gridspec(
        3, 2, height_ratios=(1.7, 1, 1.1), left=0.06, right=0.98, top=0.97, bottom=0.05
    )
    grid.update(hspace=0.75, wspace=0.16)
    _histograms(figure.add_subplot(grid[0, :]), labels, pairing)
    _jitters(figure.add_subplot(grid[1, 0]), quality)
    _agreement(figure.add_subplot(grid[1, 1]), quality)
    _curves(figure.add_subplot(grid[2, :]), labels, frames, pairing)
    _save(figure, path)


def _histograms(axes: Axes, labels: Labels, pairing: Pairing) -> None:
    values = labels.coefficients[pairing.rows][:, BLENDSHAPES]
    edges = np.linspace(0, 1, BINS + 1)
    counts = [np.histogram(column[np.isfinite(column)], edges)[0] for column in values.T]
    shares = np.array(counts, float).T / max(1, len(values))
    image = np.where(shares > 0, shares, np.nan)
    axes.imshow(
        image,
        origin="lower",
        aspect="auto",
        cmap="viridis_r",
        norm=LogNorm(1e-3, 1),
        extent=(-0.5, values.shape[1] - 0.5, 0, 1),
    )
    names = [
        _marked(name, bool(labels.known[:, i].any())) for i, name in enumerate(NAMES[BLENDSHAPES])
    ]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_title("Histograms: share of rows, dark is more; (–) is not known", **_left())
    axes.set_ylabel("coefficient", color=QUIET)


def _marked(name: str, known: bool) -> str:
    return name if known else f"(–) {name}"


def _jitters(axes: Axes, quality: Quality) -> None:
    values = np.nan_to_num(quality.jitter[BLENDSHAPES])
    order = np.argsort(-values, kind="stable")[:20]
    axes.bar(range(len(order)), values[order], color=BAR)
    axes.axhline(JITTER, color=ANGLE, linewidth=1)
    axes.set_xticks(range(len(order)), [NAMES[i] for i in order], rotation=90, fontsize=7)
    axes.set_title(f"Jitter: mean |second difference|, line at {JITTER}", **_left())


def _agreement(axes: Axes, quality: Quality) -> None:
    names = [NAMES[left].removesuffix("Left") for left, _ in SIDES]
    moving = np.isfinite(quality.agreement)
    values = np.where(moving, quality.agreement, 0)
    axes.bar(range(len(names)), values, color=BAR)
    ticks = [_marked(name, bool(moves)) for name, moves in zip(names, moving, strict=True)]
    axes.set_xticks(range(len(names)), ticks, rotation=90, fontsize=7)
    axes.set_ylim(min(0.0, float(values.min())) - 0.02, 1.02)
    axes.set_title("Correlation of left and right; (–) does not move", **_left())


def _curves(axes: Axes, labels: Labels, frames: Frames, pairing: Pairing) -> None:
    """Blink and jaw of the file and as read off the video, on the video's clock."""
    names = list(CURVES)[:2]
    seen = curves_of(frames.values)
    if labels.seconds is None or pairing.offset is None or not np.isfinite(seen[:, :2]).any():
        axes.axis("off")
        axes.text(0, 0.9, f"rows and frames were related by {pairing.how}", fontsize=10)
        return
    offset = pairing.offset
    at = offset.seconds + offset.ratio * labels.seconds
    mine = curves_of(labels.coefficients)
    for i, name in enumerate(names):
        shift = 1.1 * i
        axes.plot(at, mine[:, i] + shift, color=BAR, linewidth=1.2)
        axes.plot(frames.seconds, seen[:, i] + shift, color=ANGLE, linewidth=0.8)
        axes.text(0.005, shift + 0.8, name, color=INK, transform=axes.get_yaxis_transform())
    for fault in pairing.faults:
        if fault.kind in ("frames-dropped", "frames-inserted"):
            axes.axvline(fault.at[0], color="red", linewidth=0.8)
    axes.set_xlabel("seconds of the video")
    axes.set_yticks([])
    axes.set_ylim(-0.15, 2.2)
    title = f"Curves of the file (blue) and as read off the video (orange): {offset}"
    axes.set_title(title, **_left())


def _left() -> dict:
    return {"loc": "left", "fontsize": 10, "color": INK}


def _save(figure: Figure, path: Path) -> None:
    with files.replacing(path) as file:
        FigureCanvasAgg(figure).print_figure(file, format="png", dpi=DPI)
