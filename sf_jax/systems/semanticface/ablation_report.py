"""Tables and plots of an ablation: JSON with everything, Markdown for people, one plot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sf_jax.face import channels
from sf_jax.face.bootstrap import LEVEL, Interval
from sf_jax.media import files
from sf_jax.systems.semanticface.ablation import SETS, Ablation, Arm
from sf_jax.systems.semanticface.ablation_runs import ArmResult, Runs
from sf_jax.systems.semanticface.ablation_scores import ArmScores, Measure, scores
from sf_jax.systems.semanticface.evaluation_report import NONE, number

STEPS, COMPUTE = "equal steps", "equal compute"
COLUMNS = {
    "mae_52": "MAE (52)",
    "active_mae": "active MAE",
    "active_f1": "active F1",
    "left_right": "left–right",
    "head_degrees": "head °",
    "lips_mm": "lips mm",
    "lids_mm": "lids mm",
    "brows_mm": "brows mm",
}
COLOURS = ("#3b7dd8", "#d98a3b", "#6aa84f", "#a64d79", "#45818e", "#7f6000", "#666666")
Compared = dict[str, dict[str, dict[str, ArmScores]]]  # equal steps or compute → set → arm


@dataclass(frozen=True)
class Table:
    """What an ablation found.

    Attributes:
      compared: by `STEPS` and `COMPUTE`, set and arm.
      results: of the first seed of each arm, for its steps and their time.
      missing: sets that the inputs did not allow.
    """

    ablation: Ablation
    compared: Compared
    results: Mapping[str, ArmResult]
    missing: Sequence[str]
    seeds: int


def channels_read(arm: Arm) -> np.ndarray:
    """bool [61]: the channels of an arm's answers."""
    names = arm.recipe.get("channels", channels.NAMES)
    return np.isin(channels.NAMES, list(names))


def table_of(ablation: Ablation, runs: Runs) -> Table:
    """The scores of arms that are all done."""
    seeds = range(runs.study.seeds)
    found = {arm.name: [runs.result(arm, seed) for seed in seeds] for arm in ablation.arms}
    read = {arm.name: channels_read(arm) for arm in ablation.arms}
    compared: Compared = {}
    for what in (STEPS, COMPUTE):
        at = {
            name: [one.at.steps if what == STEPS else one.at.compute for one in each]
            for name, each in found.items()
        }
        if what == COMPUTE and all(
            one.at.steps == one.at.compute for e in found.values() for one in e
        ):
            continue  # the same table again
        compared[what] = {}
        for name, faces in runs.sets.items():
            values = {
                arm.name: [
                    one.values[step][name][arm.read_out]
                    for one, step in zip(found[arm.name], at[arm.name], strict=True)
                ]
                for arm in ablation.arms
            }
            shares = {
                arm: [one.agreement[step][name] for one, step in zip(each, at[arm], strict=True)]
                for arm, each in found.items()
            }
            compared[what][name] = scores(values, faces, ablation.reference, read, shares)
    first = {name: each[0] for name, each in found.items()}
    return Table(ablation, compared, first, runs.missing, runs.study.seeds)


def between(interval: Interval | None, sign: bool = False) -> str:
    """An interval for people."""
    if interval is None:
        return NONE
    return f"{number(interval.low, sign=sign)} to {number(interval.high, sign=sign)}"


def row_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its heading."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def overview(of_sets: Mapping[str, Mapping[str, ArmScores]], arms: Sequence[str]) -> str:
    """Mean r of each arm on each set, ± its standard deviation over seeds."""

    def cell(one: Measure) -> str:
        return number(one.mean) + ("" if math.isnan(one.spread) else f" ± {number(one.spread)}")

    rows = [["r (52)", *(SETS[name] for name in of_sets)]]
    rows += [
        [arm, *(cell(each[arm].measures["r_52"]) for each in of_sets.values())] for arm in arms
    ]
    return row_table(rows)


def set_table(of_arms: Mapping[str, ArmScores], reference: str) -> str:
    """Every measure of one set, with intervals of r and of its difference from the reference."""
    rows = [
        [
            "arm",
            "r (52)",
            f"{LEVEL:.0%} interval",
            "sd of seeds",
            f"less {reference}",
            f"{LEVEL:.0%} interval",
            *COLUMNS.values(),
            "levels agree",
        ]
    ]
    for arm, one in of_arms.items():
        r = one.measures["r_52"]
        rows.append(
            [
                arm,
                number(r.mean),
                between(r.interval),
                number(r.spread),
                number(r.difference, sign=True),
                between(r.difference_interval, sign=True),
                *(number(one.measures[name].mean) for name in COLUMNS),
                number(one.agreement.get("exact")),
            ]
        )
    return row_table(rows)


def steps_table(table: Table) -> str:
    """Steps of each arm, and the time of one."""
    rows = [["arm", "steps, equal number", "steps, equal compute", "seconds a step"]]
    rows += [
        [name, f"{one.at.steps:,}", f"{one.at.compute:,}", number(one.seconds)]
        for name, one in table.results.items()
    ]
    return row_table(rows)


def markdown(table: Table, made_by: Mapping[str, Any]) -> str:
    """The report.

    Args:
      made_by: "command", "commit" and further facts, each a line.
    """
    ablation = table.ablation
    absent = ", ".join(SETS[name] for name in table.missing)
    lines = [
        f"# {ablation.question}",
        f"`{made_by['command']}`, commit {made_by['commit']}",
        "Coefficients are means of the slots' distributions unless an arm names another read-out. "
        "Intervals are of the mean over seeds, by bootstrap over people, the same people for all "
        f"arms; ± and “sd of seeds” are the standard deviation over seeds, {table.seeds} of them. "
        "All arms and seeds share one vision tower, trained once and without drawings, so that the "
        "seeds vary what is trained after it alone: the language model, the order of the data, and "
        "what is drawn by chance.",
        *([f"**Not measured, since rigs or skins were not given: {absent}.**"] if absent else []),
        *ablation.notes,
        steps_table(table),
    ]
    arms = [arm.name for arm in ablation.arms]
    for what, of_sets in table.compared.items():
        lines += [f"## At {what}", overview(of_sets, arms)]
        for name, of_arms in of_sets.items():
            lines += [f"### {SETS[name].capitalize()}", set_table(of_arms, ablation.reference)]
    if COMPUTE not in table.compared:
        timed = any(math.isfinite(one.seconds) for one in table.results.values())
        lines.append(
            "A step takes all arms the same time: equal steps are equal compute."
            if timed
            else "Steps were given, and nothing timed: there is no table at equal compute."
        )
    return "\n\n".join([*lines, f"![r by arm and set]({ablation.name}.png)"]) + "\n"


def as_json(table: Table, made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for a file; what is no number is null."""
    return files.finite(
        {
            **made_by,
            "question": table.ablation.question,
            "reference": table.ablation.reference,
            "arms": {arm.name: asdict(arm) for arm in table.ablation.arms},
            "steps": {
                name: asdict(one.at) | {"seconds": one.seconds}
                for name, one in table.results.items()
            },
            "missing": list(table.missing),
            "results": {
                what: {
                    name: {arm: _of_arm(one) for arm, one in of_arms.items()}
                    for name, of_arms in of_sets.items()
                }
                for what, of_sets in table.compared.items()
            },
        }
    )


def _of_arm(one: ArmScores) -> dict[str, Any]:
    measures = {name: asdict(each) | {"sd": each.spread} for name, each in one.measures.items()}
    return {"measures": measures, "agreement": dict(one.agreement)}


def plot(table: Table, path: Path) -> None:
    """Mean r with its interval, and each seed as a dot: a panel a set, at equal steps."""
    of_sets = table.compared[STEPS]
    arms = [arm.name for arm in table.ablation.arms]
    columns = min(4, len(of_sets))
    rows = -(-len(of_sets) // columns)
    size = (3.0 * columns + 2.2, (0.34 * len(arms) + 0.75) * rows + 0.4)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel, (name, of_arms) in zip(panels, of_sets.items(), strict=False):
        for at, arm in enumerate(arms):
            one, colour = of_arms[arm].measures["r_52"], COLOURS[at % len(COLOURS)]
            if one.interval is not None and math.isfinite(one.interval.low):
                ends = [one.interval.low, one.interval.high]
                panel.plot(ends, [at, at], color=colour, lw=2.5, solid_capstyle="round")
            panel.plot(one.mean, at, "o", color=colour, ms=7)
            panel.plot(one.seeds, [at + 0.22] * len(one.seeds), ".", color="#333333", ms=4)
        panel.set_title(SETS[name], loc="left", fontsize=10)
        panel.grid(axis="x", color="#dddddd", lw=0.7)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_yticks(range(len(arms)), arms)
        panel.set_ylim(len(arms) - 0.4, -0.6)
        panel.margins(x=0.12)
    for panel in panels[len(of_sets) :]:
        panel.set_visible(False)
    figure.suptitle(
        f"{table.ablation.question}  Mean r of 52 blendshapes, {LEVEL:.0%} interval over people; "
        "dots: seeds",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    with files.replacing(path) as file:
        FigureCanvasAgg(figure).print_figure(file, format="png", dpi=90)


def write(table: Table, folder: Path, made_by: Mapping[str, Any]) -> list[Path]:
    """Writes JSON, Markdown and PNG, named after the ablation; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{table.ablation.name}.{ending}" for ending in ("json", "md", "png")]
    plot(table, paths[2])
    files.write_json(paths[0], as_json(table, made_by))
    files.write_text(paths[1], markdown(table, made_by))
    return paths
