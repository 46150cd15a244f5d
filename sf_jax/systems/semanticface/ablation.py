"""Ablations as data: arms, which are changes to a recipe, and the study that all of them share.

How arms are trained and read is in `ablation_runs.py`, their statistics in `ablation_scores.py`,
tables and plots in `ablation_report.py`.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sf_jax.systems.semanticface.recipe import Recipe, Stage

MEAN, MEDIAN, ARGMAX, GENERATED = READ_OUTS = ("mean", "median", "arg-max", "generated")
TOWER, READING, LANGUAGE = range(3)  # stages of training that have a data order of their own
NEARLY = 0.05  # step times that differ by less, as a share, count as equal: timing is not exact
SETS = {
    "own": "unseen people",
    "rigs": "unseen rig",
    "skins": "photo skins",
    "drawings": "drawings",
    "occlusion": "occlusion",
    "blur": "blur",
    "low_resolution": "low resolution",
    "pose": "pose beyond training",
}  # of `evaluation_sets.SETS` → heading in tables


@dataclass(frozen=True)
class Arm:
    """One way to train and read a model, as changes to the study's recipe.

    Attributes:
      name: in tables.
      sequences: changes to `SequenceConfig`; recipe: changes to `Recipe`, such as decimals.
      rationale: whether a rationale is generated when images are read.
      regression: no language model: a fresh read-out of the coefficients on the tower.
      data: records to train on: "train", "rigs" (a user's rigs), "teacher" (the given records) or
        "describer" (the same with the describer's rationales).
      base: an arm whose trained weights it starts from; None: the tower and a fresh language model.
      adapter: modules that get a low-rank adapter, a regular expression over names as in Hugging
        Face checkpoints, the only weights that are then trained; None: all weights are.
      trained: False measures the base as it is.
      read_out: of the slots' distributions, of `READ_OUTS`.
    """

    name: str
    sequences: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    rationale: bool = True
    regression: bool = False
    data: str = "train"
    base: "Arm | None" = None
    adapter: str | None = None
    trained: bool = True
    read_out: str = MEAN

    def resolved(self, recipe: Recipe, seed: int) -> Recipe:
        """The recipe of this arm. A vocabulary has room for all values of its slots."""
        sequences = replace(recipe.sequences, **self.sequences)
        changed = replace(recipe, sequences=sequences, seed=seed, **self.recipe)
        more = len(changed.schema.symbols()) - len(recipe.schema.symbols())
        return replace(changed, vocabulary=changed.vocabulary + max(more, 0))

    def key(self, recipe: Recipe) -> str:
        """Digits of a hash of everything that its training and reading depend on.

        Arms of several ablations that are the same are trained once. Names and read-outs do not
        count: all read-outs are saved.
        """
        content = {
            "recipe": dataclasses.asdict(self.resolved(recipe, seed=0)),
            "base": None if self.base is None else self.base.key(recipe),
            **{
                name: getattr(self, name)
                for name in ("rationale", "regression", "data", "adapter", "trained")
            },
        }
        text = json.dumps(content, sort_keys=True, default=repr)
        return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()

    def folder(self, recipe: Recipe) -> str:
        """Name of its folder among those of all arms; it begins with the name, for people."""
        return f"{re.sub(r'[^a-z0-9]+', '-', self.name.lower()).strip('-')}-{self.key(recipe)}"


@dataclass(frozen=True)
class Ablation:
    """Arms that are compared.

    Attributes:
      name: of its files; question: what it tests, in a sentence.
      arms: in the order of tables; reference: name of the one that others are compared with.
      needs: inputs without which it cannot be run, "rigs" or "teacher".
      notes: sentences that are printed below its tables.
    """

    name: str
    question: str
    arms: tuple[Arm, ...]
    reference: str
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if self.reference not in names or len(set(names)) < len(names):
            raise ValueError(f"{self.name}: arms need names of their own, one of them of reference")


@dataclass(frozen=True)
class FixedSteps:
    """Steps in place of a budget, for trying everything: nothing is timed."""

    tower: int
    reading: int
    arm: int


@dataclass(frozen=True)
class Study:
    """What all arms of all ablations share.

    Attributes:
      recipe: of the model, data and stages that arms change; its warm-up trains the tower.
      reference: the arm whose step time turns the budget into the number of equal steps.
      budget: minutes of training of each arm and seed.
      tower_budget: minutes of training of the tower; reading_budget: of each language model on the
        keys of slots alone, before its arms, shared by all arms that have the same slots; 0: none.
      seeds: how many.
      faces: of each evaluation set.
      mixture: shares of the sources that are trained on.
      rank: of adapters.
      steps: in place of all budgets.
    """

    recipe: Recipe
    reference: Arm
    budget: float
    tower_budget: float
    reading_budget: float
    seeds: int
    faces: int
    mixture: Mapping[str, float]
    rank: int = 8
    steps: FixedSteps | None = None

    def settings(self) -> dict[str, Any]:
        """What the results in a folder depend on, beside the arms; as JSON."""
        content = json.dumps(dataclasses.asdict(self.recipe), sort_keys=True, default=repr)
        return {
            "recipe": hashlib.blake2b(content.encode(), digest_size=8).hexdigest(),
            "images": self.recipe.images,
            "budget": self.budget,
            "tower budget": self.tower_budget,
            "reading budget": self.reading_budget,
            "faces": self.faces,
            "mixture": {name: float(share) for name, share in self.mixture.items()},
            "rank": self.rank,
            "steps": None if self.steps is None else dataclasses.asdict(self.steps),
        }


@dataclass(frozen=True)
class Points:
    """Steps after which an arm is measured.

    Attributes:
      steps: as many as every other arm; compute: as many as take the time of the reference's.
    """

    steps: int
    compute: int

    @property
    def ascending(self) -> list[int]:
        return sorted({self.steps, self.compute})


def points(reference_seconds: float, own_seconds: float, minutes: float) -> Points:
    """Steps of equal number and of equal compute for a budget.

    Args:
      reference_seconds, own_seconds: of a step of the reference arm, and of this one.
    """
    if abs(own_seconds / reference_seconds - 1) < NEARLY:
        own_seconds = reference_seconds
    return Points(*(max(2, int(60 * minutes / each)) for each in (reference_seconds, own_seconds)))


def data_seed(stage: int, seed: int) -> int:
    """The seed of the order of the records in a stage, so that no two stages or seeds share one.

    Args:
      stage: `TOWER`, `READING` or `LANGUAGE`. Direct regression has the order of `LANGUAGE`: only
        so is it compared with language models, and the tower has met the records in another.
    """
    return int(np.random.SeedSequence([stage, seed]).generate_state(1)[0])


def constant(stage: Stage, at: Points, steps: int) -> Stage:
    """A stage of so many steps whose rate stays at its peak once it has risen.

    So each checkpoint is what a run of its length would give, and one run is read at two points.
    """
    risen = min(stage.optimizer.warmup_steps, at.ascending[0] // 2)
    optimizer = replace(stage.optimizer, steps=steps, warmup_steps=risen, final_fraction=1.0)
    return replace(stage, optimizer=optimizer)
