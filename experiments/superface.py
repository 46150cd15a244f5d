"""SuperFace: how far do judgements of rendered faces repair what faulty labels have broken?

    sf-jax train superface --rig RIGS/ict_facekit.npz --out runs/superface
    sf-jax train superface --tiny --out runs/superface-tiny      every arm, at its smallest

Images are of the built-in head, so that the truth is known: to simulated judges, who see pictures
alone, and to what measures the result. Trainers get faulty labels and judgements. Labels (b) have
the faults of capture software (`systems/superface/corruption.py`); labels (a) are MediaPipe's of
the same images, in a file beside the results. Every arm starts from the model in --model,
fine-tuned on labels; an arm and seed that is done is not trained again.
docs/preferences.md explains the measures.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32
from tqdm import tqdm

from data_pipelines import synthetic
from data_pipelines.sources import Split
from data_pipelines.synthetic import Sitting
from sf_jax.cli.arguments import Parser, UsageError, whole
from sf_jax.face import labels as label_files
from sf_jax.face.regions import PARTS, Region
from sf_jax.media import files, locks
from sf_jax.reader import loading, training
from sf_jax.render import rigs
from sf_jax.render.rig import Rig
from sf_jax.systems.semanticface import fine_tuning
from sf_jax.systems.semanticface.sequences import SequenceConfig
from sf_jax.systems.superface import flawed, grpo, measures, report, rounds
from sf_jax.systems.superface.asking import Asking
from sf_jax.systems.superface.examples import AnswerExamples, PairGroups, judged
from sf_jax.systems.superface.grpo import GrpoRecipe
from sf_jax.systems.superface.judges import Judge
from sf_jax.systems.superface.pairs import image_hash
from sf_jax.systems.superface.reward import RewardModel, RewardRecipe
from sf_jax.systems.superface.reward import train as train_reward
from sf_jax.systems.superface.simulated import Sitter, sitter_of
from sf_jax.systems.superface.study import Panel, shuffled
from sf_jax.systems.superface.training import PairRecipe, Recipe
from sf_jax.systems.superface.training import train as train_on_pairs
from sf_jax.train import hooks, task
from sf_jax.train import mesh as meshes
from sf_jax.train.losses.supervised import SupervisedConfig
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.preference import Dpo, Grpo

RESULTS = Path(__file__).parent / "results"
TAKE_SEED, FACE_SEED = 1, 21  # of faulty labels; of rendered people
MEDIAPIPE = RESULTS / "superface_mediapipe.csv"  # of the training images, by their numbers
TRUTH = "truth"


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
      name: in tables; labels: of the fine-tuning that it starts from, "a", "b" or "truth".
      by: what it is trained by then: "judgements" of pairs of its answers (DPO), "render", how near
        the render of an answer is to the image (GRPO), or a "reward" model of judgements (GRPO);
        None: nothing.
      regions: that are judged.
      most: rounds, at most; beyond: train them all, though the run has halted, to see what follows.
    """

    name: str
    labels: str
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
    BASE["b"],
    BASE[TRUTH],
    Arm("DPO, whole face", "b", "judgements", ("whole",)),
    Arm("DPO by region", "b", "judgements"),
    Arm("DPO, upper face alone", "b", "judgements", ("upper",), most=1),
    Arm("DPO, lower face alone", "b", "judgements", ("lower",), most=1),
    Arm("GRPO by render", "b", "render", most=1),
    Arm("GRPO by reward model", "b", "reward", most=5, beyond=True),
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
      judgements: of a round; per_image: pairs of an image.
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
        objective=Grpo(answers=8), learning_rate=3e-5, rows=16, accumulate=8, epochs=0.5
    ),
    judgements=4000,
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


@dataclass(frozen=True, eq=False)
class Faces:
    """Rendered people, the same for a split and number.

    Attributes:
      split: of people; count: images.
    """

    split: Split
    count: int

    @cached_property
    def shown(self) -> list[Sitting]:
        """What is on each image."""
        return [synthetic.sitting(i, FACE_SEED, self.split) for i in range(self.count)]

    @cached_property
    def sitters(self) -> list[Sitter]:
        """Who is on each image."""
        label = f"render {self.split}"
        return [sitter_of(each) for each in tqdm(self.shown, desc=label, disable=None)]

    @property
    def true(self) -> Float32[np.ndarray, "N 61"]:
        """The coefficients that were rendered."""
        return np.stack([each.coefficients for each in self.shown]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a study in a folder.

    Attributes:
      model: the directory that every arm begins with; second: another rig to measure on.
      labels: a file of MediaPipe's labels.
    """

    study: Study
    out: Path
    model: Path
    second: Rig | None
    labels: Path
    mesh: Mesh

    @cached_property
    def train(self) -> Faces:
        return Faces("train", self.study.images)

    @cached_property
    def evaluation(self) -> Faces:
        return Faces("evaluation", self.study.faces)

    @cached_property
    def panel(self) -> Panel:
        """The judge of all arms and seeds, as noisy as the study says on answers tuned on (b)."""
        sitters = {image_hash(one.image): one for one in self.train.sitters}
        panel = Panel(sitters, Judge(noise=1.0), self.study.asking)
        model = loading.load(self.tuned("b", 0))
        return panel.calibrated(model, list(sitters), self.study.agreement)

    # Data.

    def records_of(self, labels: str) -> Path:
        """The folder of records that has these labels; made where it is missing."""
        exact = self.out / "data" / "train"
        synthetic.render(exact, self.study.images, seed=FACE_SEED)
        if labels == TRUTH:
            return exact
        folder, kept = self.out / "labels" / labels, self.out / "truth" / f"{labels}.npz"
        if not folder.is_dir():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.unlink(missing_ok=True)  # of a run that was stopped before the records were whole
            folder.parent.mkdir(parents=True, exist_ok=True)
            if labels == "b":
                flawed.corrupted(exact, folder, kept, TAKE_SEED)
            else:
                found = label_files.read(self.labels, tracker="mediapipe", pseudo=True)
                flawed.labelled(exact, folder, kept, found)
        return folder

    # Training.

    def tuned(self, labels: str, seed: int) -> Path:
        """The model fine-tuned on labels."""
        folder = self.out / "tuned" / labels / f"seed-{seed}"
        if (folder / DONE).exists():
            return folder / training.MODEL
        data = self.records_of(labels)
        sft = fine_tuning.task_of(self.study.tuning, self.model, self.mesh)
        _, feed = fine_tuning.feed_of(sft, self.study.tuning, data, self.mesh, seed)
        state = training.initial_state(sft, self.model, self.mesh, False, seed)
        beside = hooks.HookConfig(label=f"fine-tune on {labels}, seed {seed}")
        task.run(sft, state, feed, self.mesh, folder, task.RunConfig(beside=beside), export=folder)
        files.write_text(folder / DONE, "")
        return folder / training.MODEL

    def folder(self, arm: Arm, seed: int) -> Path:
        """Of an arm and seed, which holds a folder for each round."""
        return self.out / "arms" / arm.folder / f"seed-{seed}"

    def model_of(self, arm: Arm, seed: int, number: int) -> Path:
        """The model of a round of an arm; round 0 is the fine-tuned model."""
        if not number:
            return self.tuned(arm.labels, seed)
        return self.folder(arm, seed) / f"round-{number}" / training.MODEL

    def trained(self, arm: Arm, seed: int) -> rounds.Outcome:
        """Trains an arm; how its rounds were judged."""
        folder, (compared, asked) = self.folder(arm, seed), self._images(seed)

        def train(number: int, best: int) -> None:
            source, into = self.model_of(arm, seed, best), folder / f"round-{number}"
            if arm.by == "judgements":
                self._on_judgements(arm, seed, number, source, into, asked)
            else:
                self._by_reward(arm, seed, number, source, into, asked)

        def compare(number: int, best: int) -> rounds.Preference:
            new, before = (loading.load(self.model_of(arm, seed, each)) for each in (number, best))
            return self.panel.compare(new, before, compared)

        say = partial(print, f"{arm.name}, seed {seed}:")
        outcome = rounds.run(folder, train, compare, arm.most, say)
        for number in range(len(outcome.preferences) + 1, arm.most + 1) if arm.beyond else ():
            if not self.model_of(arm, seed, number).is_dir():
                train(number, number - 1)
        return outcome

    def _images(self, seed: int) -> tuple[list[str], list[str]]:
        """Images that models are compared on, and those that are asked about."""
        order = list(self.panel.sitters)
        return order[: self.study.compared], shuffled(order[self.study.compared :], seed)

    def _judged(
        self, how: Asking, source: Path, images: Sequence[str], recipe: PairRecipe
    ) -> PairGroups:
        """Pairs of a model's answers, judged."""
        study = self.study
        panel = replace(self.panel, how=how, judge=replace(self.panel.judge, seed=how.seed))
        model = loading.load(source)
        pairs, judgements = panel.ask(model, images, study.per_image, study.judgements)
        answers = AnswerExamples.of(source, recipe.config_in(source))
        return PairGroups(
            judged(pairs, judgements),
            lambda pair: panel.sitters[pair.image].image,
            answers,
            seed=how.seed,
        )

    def _on_judgements(
        self, arm: Arm, seed: int, number: int, source: Path, folder: Path, images: Sequence[str]
    ) -> None:
        """One round of DPO: asks about a model's answers and trains it on what was chosen."""
        study = self.study
        how = replace(study.asking, regions=arm.regions, seed=100 * seed + number)
        count = -(-study.judgements // study.per_image)
        first = (number - 1) * count
        chosen = [images[i % len(images)] for i in range(first, first + min(count, len(images)))]
        groups = self._judged(how, source, chosen, study.preferences)
        beside = hooks.HookConfig(label=f"{arm.name}, seed {seed}, round {number}")
        recipe = replace(study.preferences, seed=how.seed)
        train_on_pairs(recipe, source, groups, folder, mesh=self.mesh, beside=beside)

    def _by_reward(
        self, arm: Arm, seed: int, number: int, source: Path, folder: Path, images: Sequence[str]
    ) -> None:
        """One round of GRPO, for one region after the other."""
        sitters = [self.panel.sitters[image] for image in images]
        scored = self._reward_model(arm, seed, images) if arm.by == "reward" else None

        def reward(region: Region, index: int, answers: np.ndarray) -> np.ndarray:
            sitter = sitters[index]
            if scored is not None:
                return scored(scored.answers.processor.fit(sitter.image), answers, region)
            return -np.array([sitter.distance(one, region) for one in answers])

        pictures = [sitter.image for sitter in sitters]
        last = arm.regions[-1]
        for region in arm.regions:
            recipe = replace(self.study.rewarded, region=region, seed=100 * seed + number)
            into = folder if region == last else folder / region
            source = grpo.train(recipe, source, pictures, partial(reward, region), into, self.mesh)

    def _reward_model(self, arm: Arm, seed: int, images: Sequence[str]) -> RewardModel:
        """A reward model of judgements about the fine-tuned model's answers."""
        source, study = self.tuned(arm.labels, seed), self.study
        how = replace(study.asking, regions=arm.regions, seed=100 * seed)
        groups = self._judged(how, source, images, study.reward)
        recipe = replace(study.reward, seed=seed)
        return train_reward(recipe, source, groups, self.folder(arm, seed) / "reward")

    def _rewarded(self, arm: Arm, seed: int, number: int) -> float:
        """The reward model's mean score of a round's answers to images nobody was asked about."""
        compared, asked = self._images(seed)
        scored = self._reward_model(arm, seed, asked)
        model = loading.load(self.model_of(arm, seed, number))
        answers = self.panel.answers(model, compared)
        fit = scored.answers.processor.fit
        found = [
            scored(fit(self.panel.sitters[image].image), one.coefficients[None], region)
            for image, one in zip(compared, answers, strict=True)
            for region in arm.regions
        ]
        return float(np.mean(found))

    # Measuring.

    def scores(self, arm: Arm, seed: int) -> dict[str, Any]:
        """What an arm and seed reached; of every round of it too."""
        path = self.out / "scores" / f"{arm.folder}-{seed}.json"
        if path.exists():
            return json.loads(path.read_text())
        if arm.by is None:
            found: dict[str, Any] = {"scores": self.measured(self.model_of(arm, seed, 0))}
        else:
            outcome = self.trained(arm, seed)
            numbers = range(1, 1 + (arm.most if arm.beyond else len(outcome.preferences)))
            found = {
                "scores": self.measured(self.model_of(arm, seed, outcome.best)),
                "rounds": [self.measured(self.model_of(arm, seed, each)) for each in numbers],
                "preferred": [each.rate for each in outcome.preferences],
                "best": outcome.best,
                "reason": outcome.reason,
            }
            if arm.by == "reward":
                found["rewards"] = [self._rewarded(arm, seed, each) for each in numbers]
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, files.finite(found))
        return found

    def measured(self, directory: Path) -> dict[str, float]:
        """The measures of a model on people it has not seen, by the means of its slots."""
        model = loading.load(directory)
        sitters = self.evaluation.sitters
        fitted = [model.fitted(one.image) for one in sitters]
        found = []
        for start in range(0, len(fitted), BATCH):
            part = fitted[start : start + BATCH]
            filled = [*part, *part[-1:] * (BATCH - len(part))]
            found += model.predict_batch(filled, rationale=False)[: len(part)]
        read = np.stack([action.coefficients for action in found])
        return measures.measures(read, self.evaluation.true, self.second)


DONE = "done"  # a mark in the folder of a fine-tuning that is complete
BATCH = 50  # images read together


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="sf-jax train superface", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/superface"), help="folder of the run")
    add("--tiny", action="store_true", help="few images, steps and judgements")
    add("--model", type=Path, help="directory that all arms begin with (default: the built-in one)")
    add("--rig", type=Path, help="a second rig to measure on, which nothing is trained on")
    add("--labels", type=Path, default=MEDIAPIPE, help="MediaPipe's, of OUT/data/train")
    add("--seeds", type=whole(1, 100), help="how many (default 3)")
    add("--results", type=Path, help="for table and plot (default: results/; with --tiny, OUT)")
    options = parser.parse_args(argv)
    study = tiny(STUDY) if options.tiny else STUDY
    if options.seeds:
        study = replace(study, seeds=options.seeds)
    if not options.labels.is_file():
        raise UsageError("no such file", path=options.labels)
    second = None if options.rig is None else rigs.load(options.rig)
    loading.compilation_cache()
    run = Run(
        study,
        options.out,
        options.model or loading.BUILTIN,
        second,
        options.labels,
        meshes.make({"data": -1}),
    )
    with locks.held(options.out):
        results: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in study.arms}
        for seed in range(study.seeds):
            for arm in study.arms:
                results[arm.name].append(run.scores(arm, seed))
                print(report.table({arm.name: results[arm.name][-1:]}).splitlines()[-1])
    command = "sf-jax train superface" + (" --tiny" if options.tiny else "")
    command += "" if second is None else " --rig RIG"
    folder = options.results or (options.out if options.tiny else RESULTS)
    judged_arms = [arm.name for arm in study.arms if arm.labels == "b" and arm.by]
    distances = report.closed(results, BASE["b"].name, BASE[TRUTH].name, judged_arms)
    report.write(folder, command, results, distances)
    print(f"\n{report.table(results)}\n\n{distances}\n\ntables and plot in {folder}")


if __name__ == "__main__":
    main()
