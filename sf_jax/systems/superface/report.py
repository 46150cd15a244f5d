"""Tables and a plot of a study: arms, seeds and rounds."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from sf_jax.media import files
from sf_jax.systems.superface.measures import MEASURES, VERTICES, clear, gap_closed

CHANGES = ("dropped", "false")  # measures of which a change is shown

Results = Mapping[str, Sequence[Mapping[str, Any]]]  # by arm, of each seed


def table(results: Results) -> str:
    """Mean and standard deviation over seeds of every measure, an arm a row."""
    present = [
        name for name in MEASURES if any(name in one[0]["scores"] for one in results.values())
    ]
    rows = [f"| arm | {' | '.join(MEASURES[name] for name in present)} |"]
    rows.append("|---" * (1 + len(present)) + "|")
    for arm, each in results.items():
        cells = [_cell([one["scores"][name] for one in each]) for name in present]
        rows.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def closed(results: Results, start: str, best: str, arms: Sequence[str]) -> str:
    """How much of the distance from faulty labels to true ones arms close.

    In brackets where the distance is not clear: below two standard deviations over the seeds. Of
    the share of dropped actions that are read, and of false ones, the change is shown.

    Args:
      start: the arm of faulty labels; best: that of true ones; arms: those that began at `start`.
    """
    shown = [arm for arm in arms if arm in results]
    if not shown or not {start, best} <= results.keys():
        return ""
    names = [name for name in VERTICES if name in results[start][0]["scores"]]
    changes = [name for name in CHANGES if name in results[start][0]["scores"]]
    headings = [MEASURES[name] for name in names] + [f"change in {MEASURES[c]}" for c in changes]
    rows = [f"| share of the distance closed | {' | '.join(headings)} |"]
    rows.append("|---" * (1 + len(headings)) + "|")
    for arm in shown:
        cells = []
        for name in names:
            low, high, own = (
                [one["scores"][name] for one in results[each]] for each in (start, best, arm)
            )
            share = f"{round(gap_closed(low, high, own), 2) + 0.0:.0%}"  # no negative zero
            cells.append(share if clear(low, high) else f"({share})")
        for name in changes:
            before, after = (
                np.mean([one["scores"][name] for one in results[each]]) for each in (start, arm)
            )
            cells.append(f"{after - before:+.3f}")
        rows.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(rows)


def by_round(results: Results) -> str:
    """Of each arm and seed, the measures of every round, and which was kept.

    Rounds after an arm has halted were not judged; "score" is that of the reward model that an arm
    was trained by.
    """
    headings = ["arm", "seed", "round", "upper, mm", "lower, mm", "preferred", "score", "kept"]
    rows = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for arm, each in results.items():
        for seed, one in enumerate(each):
            found = one.get("rounds", ()), one.get("preferred", ()), one.get("rewards", ())
            for number, (scores, rate, reward) in enumerate(zip_longest(*found), 1):
                cells = [arm, str(seed), str(number)]
                cells += [f"{scores[name]:.3f}" for name in ("upper_mm", "lower_mm")]
                cells += ["–" if rate is None else f"{rate:.0%}"]
                cells += ["–" if reward is None else f"{reward:.2f}"]
                rows.append(f"| {' | '.join(cells)} | {'yes' if number == one['best'] else ''} |")
    return "\n".join(rows)


def reasons(results: Results) -> str:
    """Why each run of rounds ended, how many judgements it took, and which shares of those that
    each training learnt from chose the nearer render."""
    lines = []
    for arm, each in results.items():
        for seed, one in enumerate(each):
            if "reason" in one:
                judged = one["judged"]
                asked = f"{sum(each['judgements'] for each in judged):,} judgements to train on"
                if judged:
                    shares = ", ".join(f"{each['nearer']:.0%}" for each in judged)
                    asked += f" ({shares} of the nearer render)"
                compared = f"{one['compared']:,} to compare"
                lines.append(f"- {arm}, seed {seed}: {one['reason']} {asked}, {compared}.")
    return "\n".join(lines)


def plot(results: Results, path: Path) -> None:
    """Vertex errors of every arm and seed, upper beside lower face."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 0.5 + 0.42 * len(results)), sharey=True)
    for axis, name, title in zip(axes, VERTICES[:2], ("upper face", "lower face"), strict=True):
        for row, each in enumerate(results.values()):
            values = [one["scores"][name] for one in each]
            axis.plot(values, [row] * len(values), "o", color="#9db7d5", markersize=5)
            axis.plot(
                np.mean(values), row, "|", color="#1f4e79", markersize=16, markeredgewidth=2.5
            )
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("mean error of vertices, millimetres")
        axis.grid(axis="x", color="#e3e6ea")
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(results)), list(results))
    axes[0].invert_yaxis()
    figure.tight_layout()
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)


def write(folder: Path, command: str, results: Results, distances: str) -> None:
    """Tables, plot and all figures as JSON into a folder.

    Args:
      distances: of `closed`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "superface.json", files.finite({"command": command, "arms": results}))
    plot(results, folder / "superface.png")
    parts = [f"`{command}`", table(results), distances, by_round(results), reasons(results)]
    text = "\n\n".join([*filter(None, parts), "![Errors of vertices](superface.png)"])
    files.write_text(folder / "superface.md", text + "\n")
