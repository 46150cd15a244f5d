"""The sampler beside a recorded take: marginals and pairwise correlations in one plot."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_pipelines.sampler import sample
from sf_jax.face import livelink
from sf_jax.face.channels import BLENDSHAPES, NAMES
from sf_jax.media import files

SAMPLES = 4000


def correlations(faces: np.ndarray) -> np.ndarray:
    """Pearson correlations [C, C]; 0 where a channel does not vary."""
    varying = faces.std(0) > 1e-6
    out = np.zeros((faces.shape[1],) * 2)
    out[np.ix_(varying, varying)] = np.corrcoef(faces[:, varying], rowvar=False)
    return out


def plot(sampled: np.ndarray, recorded: np.ndarray, path: Path) -> float:
    """Draws the comparison; returns the correlation of the two sets of pairwise correlations."""
    figure = Figure(figsize=(16, 15), facecolor="white")
    grid = figure.add_gridspec(
        2,
        2,
        height_ratios=(1, 1.25),
        hspace=0.32,
        wspace=0.12,
        left=0.09,
        right=0.97,
        top=0.96,
        bottom=0.09,
    )
    names = NAMES[BLENDSHAPES]
    axes = figure.add_subplot(grid[0, :])
    for offset, faces, label, colour in (
        (-0.18, sampled, "sampler", "#3b7dd8"),
        (0.18, recorded, "recorded take", "#d98a3b"),
    ):
        low, middle, high = np.percentile(faces, (10, 50, 95), axis=0)
        ticks = np.arange(len(names)) + offset
        axes.vlines(ticks, low, high, color=colour, linewidth=3, label=f"{label}: 10–95 %")
        axes.scatter(ticks, middle, color=colour, s=14, zorder=3)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_title("Marginals (dot: median)", loc="left")
    axes.legend()
    matrices = [correlations(faces) for faces in (sampled, recorded)]
    for i, (matrix, title) in enumerate(zip(matrices, ("sampler", "recorded take"), strict=True)):
        axes = figure.add_subplot(grid[1, i])
        axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_title(f"Pairwise correlations: {title}", loc="left")
        axes.set_yticks(range(len(names)), names if i == 0 else [""] * len(names), fontsize=6)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    upper = np.triu_indices(len(names), 1)
    agreement = float(np.corrcoef(matrices[0][upper], matrices[1][upper])[0, 1])
    figure.text(0.09, 0.985, f"Agreement of the pairwise correlations: r = {agreement:.2f}")
    with files.replacing(path) as file:
        FigureCanvasAgg(figure).print_figure(file, format="png", dpi=70)
    return agreement


def compare(take: Path, out: Path) -> tuple[list[str], float]:
    """Plots the sampler beside a take.

    Args:
      take: a Live Link Face CSV; out: the PNG to write.

    Returns:
      notes on how the take was read, and the correlation of the pairwise correlations.
    """
    recorded = livelink.read(take)
    sampled = np.stack([sample(i) for i in range(SAMPLES)])[:, BLENDSHAPES]
    return list(recorded.notes), plot(sampled, recorded.coefficients[:, BLENDSHAPES], out)
