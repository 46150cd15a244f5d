"""The arms of `superface.py`, and what they share."""

from dataclasses import dataclass, replace
from typing import Literal

from sf_jax.face.regions import PARTS, Region
from sf_jax.systems.semanticface import fine_tuning
from sf_jax.systems.semanticface.sequences import SequenceConfig
from sf_jax.systems.superface.asking import Asking
from sf_jax.systems.superface.grpo import GrpoRecipe
from sf_jax.systems.superface.reward import RewardRecipe
from sf_jax.systems.superface.training import Recipe
from sf_jax.train.losses.supervised import SupervisedConfig
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.preference import Dpo, Grpo

TRUTH = "truth"


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
      name: in tables; labels: of the fine-tuning that it starts from, "a", "b" or "truth"; None:
        the model as it is.
      by: what it is trained by then: "judgements" of pairs of its answers (DPO), "render", how near
        the render of an answer is to the image (GRPO), or a "reward" model of judgements (GRPO);
        None: nothing.
      regions: that are judged.
      most: rounds, at most; beyond: train them all, though the run has halted, to see what follows.
    """

    name: str
    labels: str | None
    by: Literal["judgements", "render", "reward"] | None = None
    regions: tuple[Region, ...] = PARTS
    most: int = 3
    beyond: bool = False

    @property
    def folder(self) -> str:
        """Its name as that of a folder."""
        return "".join(c if c.isalnum() else "-" for c in self.name.lower()).strip("-")


BASE = {labels: Arm(f"fine-tuned on {labels}", labels) for labels in ("b", TRUTH, "a")}
ARMS = (
    Arm("the model as it is", None),
    BASE["b"],
    BASE[TRUTH],
    Arm("DPO, whole face", "b", "judgements", ("whole",)),
    Arm("DPO by region", "b", "judgements"),
    Arm("DPO, upper face alone", "b", "judgements", ("upper",), most=1),
    Arm("DPO, lower face alone", "b", "judgements", ("lower",), most=1),
    Arm("GRPO by render", "b", "render"),
    Arm("GRPO by reward model", "b", "reward", most=4, beyond=True),
    BASE["a"],
    Arm("DPO by region, from a", "a", "judgements"),
)


@dataclass(frozen=True)
class Study:
    """What all arms share.

    Attributes:
      images: to train on; compared: those of them that only models are compared on; faces: to
        measure on.
      tuning: of the fine-tuning on labels; preferences: of a round of DPO; reward: of a reward
        model; rewarded: of a round of GRPO.
      judgements: of a round; per_image: pairs of an image. A round of GRPO uses as many images as a
        round of DPO asks about, the same ones, and so takes as many steps.
      asking: how pairs are made; agreement: share of pairs in which the judge is right.
      arms, seeds: to train.
    """

    images: int
    compared: int
    faces: int
    tuning: fine_tuning.Recipe
    preferences: Recipe
    reward: RewardRecipe
    rewarded: GrpoRecipe
    judgements: int
    per_image: int
    asking: Asking
    agreement: float
    arms: tuple[Arm, ...]
    seeds: int


STUDY = Study(
    images=3000,
    compared=300,
    faces=400,
    tuning=fine_tuning.Recipe(
        "builtin",
        "workstation",
        {"fsdp": -1},
        8,
        optimizer=OptimizerConfig(3e-4, 400, 20, kind="adamw"),
        length=1136,
        patches=448,
        accumulate=0,
        objective=SupervisedConfig(),
        sequences=SequenceConfig(words=0.0),  # coefficients alone are compared
        remat="none",
        product_dtype="float32",
        unrolled=True,
    ),
    preferences=Recipe(
        objective=Dpo(beta=0.1), learning_rate=1e-4, rows=16, groups=2, accumulate=8
    ),
    reward=RewardRecipe(rows=16, groups=2, accumulate=8),
    rewarded=GrpoRecipe(
        objective=Grpo(answers=8), regions=PARTS, learning_rate=3e-5, rows=16, accumulate=8
    ),
    judgements=3300,  # three rounds and their comparisons: below 12,000
    per_image=4,
    asking=Asking(gold=0.0, whole=True),
    agreement=0.85,
    arms=ARMS,
    seeds=3,
)


def tiny(study: Study) -> Study:
    """Few images, steps and judgements: every path, and nothing learnt."""
    tuning = replace(study.tuning, rows=2, optimizer=replace(study.tuning.optimizer, steps=2))
    return replace(
        study,
        images=12,
        compared=4,
        faces=4,
        tuning=tuning,
        preferences=replace(study.preferences, rows=2, accumulate=1),
        reward=replace(study.reward, rows=2, accumulate=1),
        rewarded=replace(study.rewarded, objective=Grpo(answers=2), rows=2, accumulate=1),
        judgements=8,
        arms=tuple(replace(arm, most=1) for arm in study.arms),
        seeds=1,
    )
