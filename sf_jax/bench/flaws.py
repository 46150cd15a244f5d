"""`sf-jax bench flaws TAKE.csv`: the faults of a recorded take's labels.

Printed are how far left and right differ, the least values of channels that are never at rest, and
the pairs of different actions that move together: what `systems.superface.corruption` does to true
coefficients.
"""

from pathlib import Path

import numpy as np

from sf_jax.cli.arguments import Parser, UsageError
from sf_jax.face import livelink
from sf_jax.face.channels import BLENDSHAPES, NAMES
from sf_jax.systems.superface.corruption import TIED

FLOOR = 0.04  # a channel that is never below
TOGETHER = 0.7  # correlation from which on channels move together


def lines(values: np.ndarray) -> list[str]:
    """The faults of coefficients [N, 61] in canonical order, NaN where not known, as sentences."""
    found = []
    for i, j in TIED:
        apart = float(np.nanmean(np.abs(values[:, i] - values[:, j])))
        r = _correlation(values[:, i], values[:, j])
        found.append(
            f"{NAMES[i].removesuffix('Left')}: left and right differ by {apart:.4f}, r {r:.3f}"
        )
    least = np.nanmin(values[:, BLENDSHAPES], 0)
    for i in np.flatnonzero(least >= FLOOR).tolist():
        found.append(f"{NAMES[i]}: never below {least[i]:.3f}")
    for i in range(BLENDSHAPES.stop):
        for j in range(i + 1, BLENDSHAPES.stop):
            r = _correlation(values[:, i], values[:, j])
            if r >= TOGETHER and _stem(i) != _stem(j) and not NAMES[i].startswith("EyeLook"):
                found.append(f"{NAMES[i]} and {NAMES[j]} move together, r {r:.2f}")
    return found


def _stem(i: int) -> str:
    return NAMES[i].removesuffix("Left").removesuffix("Right")


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's r; 0 where either stands still."""
    one, other = one - np.nanmean(one), other - np.nanmean(other)
    size = float(np.sqrt(np.nansum(one**2) * np.nansum(other**2)))
    return float(np.nansum(one * other)) / size if size > 0 else 0.0


def main(argv: list[str]) -> None:
    """Prints the faults."""
    parser = Parser(prog="sf-jax bench flaws", description=__doc__)
    parser.add_argument("take", type=Path, help="a Live Link Face CSV")
    options = parser.parse_args(argv)
    take = livelink.read(options.take)
    if len(take.coefficients) < 2:
        raise UsageError("fewer than two rows", path=options.take)
    print(f"{len(take.coefficients):,} frames")
    for line in lines(np.asarray(take.coefficients, np.float64)):
        print(line)
