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
from typing import Any

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
from sf_jax.systems.superface import flawed, measures, report, rounds
from sf_jax.systems.superface.asking import Asking
from sf_jax.systems.superface.examples import AnswerExamples, PairGroups, judged
from sf_jax.systems.superface.judges import Judge
from sf_jax.systems.superface.pairs import image_hash
from sf_jax.systems.superface.simulated import Sitter, sitter_of
from sf_jax.systems.superface.study import Panel, shuffled
from sf_jax.systems.superface.training import Recipe
from sf_jax.systems.superface.training import train as train_on_pairs
from sf_jax.train import hooks, task
from sf_jax.train import mesh as meshes
from sf_jax.train.losses.supervised import SupervisedConfig
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.preference import Dpo

RESULTS = Path(__file__).parent / "results"
TAKE_SEED, FACE_SEED = 1, 21  # of faulty labels; of rendered people
MEDIAPIPE = RESULTS / "superface_mediapipe.csv"  # of the training images, by their numbers
TRUTH = "truth"


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
      name: in tables; labels: of the fine-tuning that it starts from, "a", "b" or "truth".
      regions: that are judged; none: nothing is.
      most: rounds, at most.
    """

    name: str
    labels: str
    regions: tuple[Region, ...] = ()
    most: int = 3

    @property
    def folder(self) -> str:
        """Its name as that of a folder."""
        return "".join(c if c.isalnum() else "-" for c in self.name.lower()).strip("-")


BASE = {labels: Arm(f"fine-tuned on {labels}", labels) for labels in ("b", TRUTH, "a")}
ARMS = (
    BASE["b"],
    BASE[TRUTH],
    Arm("DPO, whole face", "b", ("whole",)),
    Arm("DPO by region", "b", PARTS),
    Arm("DPO, upper face alone", "b", ("upper",), most=1),
    Arm("DPO, lower face alone", "b", ("lower",), most=1),
    BASE["a"],
    Arm("DPO by region, from a", "a", PARTS),
)


@dataclass(frozen=True)
class Study:
    """What all arms share.

    Attributes:
      images: to train on; compared: those of them that only models are compared on; faces: to
        measure on.
      tuning: of the fine-tuning on labels; preferences: of a round.
      judgements: of a round; per_image: pairs of an image.
      asking: how pairs are made; agreement: share of pairs in which the judge is right.
      arms, seeds: to train.
    """

    images: int
    compared: int
    faces: int
    tuning: fine_tuning.Recipe
    preferences: Recipe
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
    preferences=Recipe(objective=Dpo(beta=0.1), learning_rate=1e-4, rows=16, groups=2),
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
        preferences=replace(study.preferences, rows=2),
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

    def trained(self, arm: Arm, seed: int) -> tuple[Path, rounds.Outcome | None]:
        """The model of an arm, and how its rounds were judged."""
        start = self.tuned(arm.labels, seed)
        if not arm.regions:
            return start, None
        folder = self.out / "arms" / arm.folder / f"seed-{seed}"

        def model_of(number: int) -> Path:
            return start if not number else folder / f"round-{number}" / training.MODEL

        compared, asked = self._images(seed)

        def train(number: int, best: int) -> None:
            self._round(arm, seed, number, model_of(best), folder / f"round-{number}", asked)

        def compare(number: int, best: int) -> rounds.Preference:
            new, before = (loading.load(model_of(each)) for each in (number, best))
            return self.panel.compare(new, before, compared)

        say = partial(print, f"{arm.name}, seed {seed}:")
        outcome = rounds.run(folder, train, compare, arm.most, say)
        return model_of(outcome.best), outcome

    def _images(self, seed: int) -> tuple[list[str], list[str]]:
        """Images that models are compared on, and those that are asked about."""
        order = list(self.panel.sitters)
        return order[: self.study.compared], shuffled(order[self.study.compared :], seed)

    def _round(
        self, arm: Arm, seed: int, number: int, source: Path, folder: Path, images: Sequence[str]
    ) -> None:
        """Asks about a model's answers and trains it on the judgements."""
        study = self.study
        how = replace(study.asking, regions=arm.regions, seed=100 * seed + number)
        panel = replace(self.panel, how=how, judge=replace(self.panel.judge, seed=how.seed))
        count = -(-study.judgements // study.per_image)
        first = (number - 1) * count
        chosen = [images[i % len(images)] for i in range(first, first + min(count, len(images)))]
        model = loading.load(source)
        pairs, judgements = panel.ask(model, chosen, study.per_image, study.judgements)
        answers = AnswerExamples.of(source, study.preferences.config_in(source))
        groups = PairGroups(
            judged(pairs, judgements),
            lambda pair: panel.sitters[pair.image].image,
            answers,
            seed=how.seed,
        )
        beside = hooks.HookConfig(label=f"{arm.name}, seed {seed}, round {number}")
        recipe = replace(study.preferences, seed=how.seed)
        train_on_pairs(recipe, source, groups, folder, mesh=self.mesh, beside=beside)

    # Measuring.

    def scores(self, arm: Arm, seed: int) -> dict[str, Any]:
        """What an arm and seed reached; of every round of it too."""
        path = self.out / "scores" / f"{arm.folder}-{seed}.json"
        if path.exists():
            return json.loads(path.read_text())
        model, outcome = self.trained(arm, seed)
        found: dict[str, Any] = {"scores": self.measured(model)}
        if outcome is not None:
            folder = self.out / "arms" / arm.folder / f"seed-{seed}"
            every = [folder / f"round-{n + 1}" for n in range(len(outcome.preferences))]
            found["rounds"] = [self.measured(each / training.MODEL) for each in every]
            found |= {"best": outcome.best, "reason": outcome.reason}
            found["preferred"] = [each.rate for each in outcome.preferences]
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
    judged_arms = [arm.name for arm in study.arms if arm.labels == "b" and arm.regions]
    distances = report.closed(results, BASE["b"].name, BASE[TRUTH].name, judged_arms)
    report.write(folder, command, results, distances)
    print(f"\n{report.table(results)}\n\n{distances}\n\ntables and plot in {folder}")


if __name__ == "__main__":
    main()
