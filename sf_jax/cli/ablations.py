"""The command line that all ablations share: `sf-jax train ablation_NAME …`."""

import argparse
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipelines.mixtures import Inputs
from sf_jax.cli.arguments import Parser, UsageError, check_sources, number, whole
from sf_jax.systems.semanticface import ablation_report as report
from sf_jax.systems.semanticface.ablation import Ablation, Study
from sf_jax.systems.semanticface.ablation_runs import Given, Runs
from sf_jax.train import mesh as meshes

FILES = {
    "rigs": "folder of rigs, for the unseen rig and as a rig to adapt to",
    "skins": "file of photo skins, which sf-jax data skins writes; with --rigs",
    "backgrounds": "folder of photographs without faces",
    "teacher": "folder of face records whose rationales another teacher than the describer wrote",
}
BUDGETS = {
    "budget": "minutes of training of each arm and seed",
    "tower-budget": "minutes of training of the vision tower that all share",
    "reading-budget": "minutes of reading keys alone before, of each seed and set of slots",
}


@dataclass(frozen=True)
class Command:
    """One recipe of `experiments/`.

    Attributes:
      name: of its file; about: its docstring.
      ablations: to run in this order; the tables of each are written before the next begins.
      study: at the documented budget; tiny: of it, to try everything.
    """

    name: str
    about: str
    ablations: Sequence[Ablation]
    study: Study
    tiny: Callable[[Study], Study]


def parser_of(command: Command) -> Parser:
    """The options; those of the study have its values as default."""
    parser = Parser(prog=f"sf-jax train {command.name}", description=command.about)
    add, study = parser.add_argument, command.study
    add("--out", type=Path, help="of all arms, which ablations share (default: runs/ablations)")
    add("--tiny", action="store_true", help="a small model and few steps, to see that it runs")
    for name, about in BUDGETS.items():
        usual = getattr(study, name.replace("-", "_"))
        low = number(0, name != "reading-budget", "a number of minutes", 10_000)
        add(f"--{name}", type=low, help=f"{about} (default: {usual:g})")
    add("--seeds", type=whole(1, 100), help=f"of every arm (default: {study.seeds}; tiny: 1)")
    add("--faces", type=whole(2, 10**6), help=f"of each set (default: {study.faces})")
    add("--images", type=whole(1, 10**7), help=f"to train on (default: {study.recipe.images:,})")
    for name, about in FILES.items():
        add(f"--{name}", type=Path, help=about)
    add("--workers", type=whole(1, 1000), default=2, help="processes that render")
    add("--results", type=Path, help="for tables (default: experiments/results; tiny: OUT)")
    return parser


def study_of(command: Command, options: argparse.Namespace) -> Study:
    """The study with what was asked for in place of its own values.

    Raises:
      UsageError: a budget is asked for and --tiny, whose steps are fixed.
    """
    for name in BUDGETS:
        if options.tiny and getattr(options, name.replace("-", "_")) is not None:
            raise UsageError(f"--{name} has no effect with --tiny, whose steps are fixed")
    study = command.tiny(command.study) if options.tiny else command.study
    names = ("budget", "tower_budget", "reading_budget", "seeds", "faces")
    asked = {name: getattr(options, name) for name in names}
    study = replace(study, **{name: each for name, each in asked.items() if each is not None})
    if options.images:
        study = replace(study, recipe=replace(study.recipe, images=options.images))
    return study


def run(command: Command, argv: Sequence[str] | None, results: Path) -> list[Path]:
    """Runs the ablations; returns the files of their tables.

    Args:
      results: the folder of tables where none is asked for.

    Raises:
      UsageError: an input is missing that the only ablation needs, or options do not go together.
    """
    options = parser_of(command).parse_args(argv)
    study = study_of(command, options)
    check_sources({name: getattr(options, name) for name in FILES})
    there = [name for name in FILES if getattr(options, name) is not None]
    chosen = [one for one in command.ablations if set(one.needs) <= set(there)]
    for one in command.ablations:
        lacking = " and ".join(f"--{name}" for name in one.needs if name not in there)
        if lacking and len(command.ablations) == 1:
            raise UsageError(f"{one.name} needs {lacking}")
        if lacking:
            print(f"{one.name}: left out: needs {lacking}")
    inputs = Inputs(options.rigs, options.skins, options.backgrounds)
    given = Given(inputs, options.teacher, options.workers)
    out = options.out or Path("runs/ablations-tiny" if options.tiny else "runs/ablations")
    runs = Runs(study, out, meshes.make(study.recipe.mesh), given)
    _announce(chosen, study)
    folder = options.results or (out if options.tiny else results)
    written = []
    for one in chosen:
        runs.run(one.arms)
        made_by = {"command": _command(command.name, options, study), "commit": commit()}
        table = report.table_of(one, runs)
        written += report.write(table, folder, made_by)
        print(report.markdown(table, made_by))
    print("\n".join(f"written: {path}" for path in written))
    return written


def _announce(chosen: Sequence[Ablation], study: Study) -> None:
    """What is to be trained and how long it takes, if nothing is done yet.

    An arm whose steps take longer than those of the reference takes longer than its budget.
    """
    arms = {arm.key(study.recipe): arm for one in chosen for arm in one.arms if arm.trained}
    bases = {arm.base.key(study.recipe): arm.base for arm in arms.values() if arm.base}
    count = len(arms | bases) * study.seeds
    print(f"{len(arms | bases)} arms, {study.seeds} seeds", end="")
    if study.steps is None:
        hours = (study.tower_budget + count * study.budget) / 60
        print(f": {hours:.1f} hours of training, and reading keys and evaluation besides", end="")
    print()


def _command(name: str, options: argparse.Namespace, study: Study) -> str:
    """The command without the paths of one machine."""
    parts = [f"sf-jax train {name}", *(["--tiny"] if options.tiny else [])]
    if study.steps is None:
        parts += [f"--{each} {getattr(study, each.replace('-', '_')):g}" for each in BUDGETS]
    parts += [f"--seeds {study.seeds}", f"--faces {study.faces}", f"--images {study.recipe.images}"]
    parts += [f"--{each} {each.upper()}" for each in FILES if getattr(options, each) is not None]
    return " ".join(parts)


def commit() -> str:
    """The commit of this checkout, with a plus sign where files differ from it."""
    here = ["git", "-C", str(Path(__file__).parent)]
    try:
        found, changed = (
            subprocess.run([*here, *ask], capture_output=True, text=True, check=True).stdout.strip()
            for ask in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found + ("+" if changed else "")
