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
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from data_pipelines import synthetic
from data_pipelines.synthetic import Sitting
from sf_jax.cli.arguments import Parser, UsageError, whole
from sf_jax.face import labels as label_files
from sf_jax.face.regions import PARTS, Region
from sf_jax.media import files, hashes, locks
from sf_jax.reader import loading, provenance, training
from sf_jax.render import rigs
from sf_jax.render.rig import Rig
from sf_jax.systems.semanticface import fine_tuning
from sf_jax.systems.semanticface.sequences import SequenceConfig
from sf_jax.systems.superface import flawed, grpo, measures, report, rounds, truth
from sf_jax.systems.superface.asking import Asking
from sf_jax.systems.superface.examples import AnswerExamples, PairGroups, images_by_hash, judged
from sf_jax.systems.superface.grpo import GrpoRecipe
from sf_jax.systems.superface.judges import Judge
from sf_jax.systems.superface.reward import RewardModel, RewardRecipe
from sf_jax.systems.superface.reward import load as load_reward
from sf_jax.systems.superface.reward import train as train_reward
from sf_jax.systems.superface.simulated import sitter_of
from sf_jax.systems.superface.study import Panel, answers_to, drawn, shuffled
from sf_jax.systems.superface.training import PairRecipe, Recipe
from sf_jax.systems.superface.training import train as train_on_pairs
from sf_jax.train import hooks, task
from sf_jax.train import mesh as meshes
from sf_jax.train.losses.supervised import SupervisedConfig
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.preference import Dpo, Grpo

RESULTS = Path(__file__).parent / "results"
FACE_SEED = 21  # of rendered people
DONE, ASKED = "done", "judgements.txt"  # a mark of what is complete; how many were asked for
MEDIAPIPE = RESULTS / "superface_mediapipe.csv"  # of the training images, by their numbers
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


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a study in a folder.

    Attributes:
      model: the directory that every arm begins with; labels: a file of MediaPipe's labels.
    """

    study: Study
    out: Path
    model: Path
    labels: Path
    mesh: Mesh
    _reward_models: dict[tuple[Arm, int], RewardModel] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Everything that results depend on, as JSON."""
        study = {name: repr(value) for name, value in vars(self.study).items() if name != "seeds"}
        model = provenance.verified(self.model).weights
        labels = hashes.of_samples(self.labels, 1 << 26)
        return {"study": study, "model": model, "labels": labels}

    @cached_property
    def evaluation(self) -> list[Sitting]:
        """People whom no model has seen."""
        count = self.study.faces
        return [synthetic.sitting(i, FACE_SEED, "evaluation") for i in range(count)]

    @cached_property
    def panel(self) -> Panel:
        """The judge of all arms and seeds, as noisy as the study says on answers tuned on (b)."""
        self.records_of("b", 0)
        known = truth.read(self._truth("b", 0))
        numbered = zip(known.images, known.numbers.tolist(), strict=True)
        sitters = {
            image: sitter_of(synthetic.numbered(number, "train"))
            for image, number in tqdm(list(numbered), desc="sitters", disable=None)
        }
        panel = Panel(sitters, Judge(noise=1.0), self.study.asking)
        model = loading.load(self.tuned("b", 0))
        return panel.calibrated(model, list(sitters), self.study.agreement)

    # Data.

    def records_of(self, labels: str, seed: int) -> Path:
        """The folder of records that has these labels; made where it is missing."""
        exact = self.out / "data" / "train"
        synthetic.render(exact, self.study.images, seed=FACE_SEED)
        if labels == TRUTH:
            return exact
        folder, kept = self.out / "labels" / f"{labels}-{seed}", self._truth(labels, seed)
        if not folder.is_dir():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.unlink(missing_ok=True)  # of a run that was stopped before the records were whole
            folder.parent.mkdir(parents=True, exist_ok=True)
            if labels == "b":
                flawed.corrupted(exact, folder, kept, seed)
            else:
                found = label_files.read(self.labels, tracker="mediapipe", pseudo=True)
                flawed.labelled(exact, folder, kept, found)
        return folder

    def _truth(self, labels: str, seed: int) -> Path:
        return self.out / "truth" / f"{labels}-{seed}.npz"

    # Training.

    def tuned(self, labels: str | None, seed: int) -> Path:
        """The model fine-tuned on labels; None: as it is."""
        if labels is None:
            return self.model
        folder = self.out / "tuned" / labels / f"seed-{seed}"
        if not (folder / DONE).exists():
            data = self.records_of(labels, seed)
            sft = fine_tuning.task_of(self.study.tuning, self.model, self.mesh)
            _, feed = fine_tuning.feed_of(sft, self.study.tuning, data, self.mesh, seed)
            state = training.initial_state(sft, self.model, self.mesh, False, seed)
            config = task.RunConfig(beside=hooks.HookConfig(label=f"fine-tune on {labels}, {seed}"))
            task.run(sft, state, feed, self.mesh, folder, config, export=folder)
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
        compared, asked = self._images(seed)

        def train(number: int, before: int) -> None:
            folder = self.folder(arm, seed) / f"round-{number}"
            if not (folder / DONE).exists():
                source = self.model_of(arm, seed, before)
                each = self._on_judgements if arm.by == "judgements" else self._by_reward
                each(arm, seed, number, source, folder, asked)
                files.write_text(folder / DONE, "")

        def compare(number: int, best: int) -> rounds.Preference:
            new, before = (loading.load(self.model_of(arm, seed, each)) for each in (number, best))
            return self.panel.compare(new, before, compared)

        say = partial(print, f"{arm.name}, seed {seed}:")
        outcome = rounds.run(self.folder(arm, seed), train, compare, arm.most, say)
        for number in range(len(outcome.preferences) + 1, arm.most + 1) if arm.beyond else ():
            train(number, number - 1)
        return outcome

    def _images(self, seed: int) -> tuple[list[str], list[str]]:
        """Images that models are compared on, and those that are asked about."""
        order = list(self.panel.sitters)
        return order[: self.study.compared], shuffled(order[self.study.compared :], seed)

    def _judged(
        self, how: Asking, source: Path, images: Sequence[str], recipe: PairRecipe, into: Path
    ) -> PairGroups:
        """Pairs of a model's answers, judged; how many is noted in a folder."""
        study = self.study
        panel = replace(self.panel, how=how, judge=replace(self.panel.judge, seed=how.seed))
        model = loading.load(source)
        pairs, judgements = panel.ask(model, images, study.per_image, study.judgements)
        into.mkdir(parents=True, exist_ok=True)
        files.write_text(into / ASKED, f"{len(judgements)}\n")
        answers = AnswerExamples.of(source, recipe.config_in(source))
        pixels = {image: panel.sitters[image].image for image in images}
        chosen = judged(pairs, judgements)
        return PairGroups(chosen, images_by_hash(pixels), answers, seed=how.seed)

    def _some(self, images: Sequence[str], number: int) -> list[str]:
        """The images that a round asks about: others in each, as far as there are enough."""
        count = -(-self.study.judgements // self.study.per_image)
        first = number * count
        return [images[i % len(images)] for i in range(first, first + min(count, len(images)))]

    def _on_judgements(
        self, arm: Arm, seed: int, number: int, source: Path, folder: Path, images: Sequence[str]
    ) -> None:
        """One round of DPO: asks about a model's answers and trains it on what was chosen."""
        study = self.study
        how = replace(study.asking, regions=arm.regions, seed=drawn(seed, number))
        some = self._some(images, number - 1)
        groups = self._judged(how, source, some, study.preferences, folder)
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
            away = -np.array([sitter.distance(one, region) for one in answers])
            sitter.forget()
            return away

        pictures = [sitter.image for sitter in sitters]
        last = arm.regions[-1]
        for region in arm.regions:
            recipe = replace(self.study.rewarded, region=region, seed=drawn(seed, number))
            into = folder if region == last else folder / region
            source = grpo.train(recipe, source, pictures, partial(reward, region), into, self.mesh)

    def _reward_model(self, arm: Arm, seed: int, images: Sequence[str]) -> RewardModel:
        """A reward model of judgements about the fine-tuned model's answers."""
        if (arm, seed) not in self._reward_models:
            source, folder = self.tuned(arm.labels, seed), self.folder(arm, seed) / "reward"
            if (folder / DONE).exists():
                found = load_reward(folder / training.MODEL)
            else:
                recipe = replace(self.study.reward, seed=seed)
                how = replace(self.study.asking, regions=arm.regions, seed=drawn(seed, 0))
                groups = self._judged(how, source, self._some(images, 0), recipe, folder)
                found = train_reward(recipe, source, groups, folder)
                files.write_text(folder / DONE, "")
            self._reward_models[arm, seed] = found
        return self._reward_models[arm, seed]

    # Measuring.

    def results(self, arm: Arm, seed: int, second: Rig | None) -> dict[str, Any]:
        """What an arm and seed reached, and every round of it.

        Args:
          second: a rig to measure on, beside the built-in head.
        """
        path = self.out / "read" / f"{arm.folder}-{seed}.json"
        if not path.exists():
            found = self._read(arm, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(path, files.finite(found))
        found = json.loads(path.read_text())
        true = np.stack([each.coefficients for each in self.evaluation]).astype(np.float32)
        measured = [
            measures.measures(np.array(each, np.float32), true, second) for each in found["read"]
        ]
        best = found.pop("best", 0)
        del found["read"]
        if arm.by is None:
            return {"scores": measured[0]}
        return found | {"scores": measured[best], "rounds": measured[1:], "best": best}

    def _read(self, arm: Arm, seed: int) -> dict[str, Any]:
        """What every round of an arm reads of people it has not seen, and how it was judged."""
        if arm.by is None:
            return {"read": [self._means(self.model_of(arm, seed, 0))]}
        outcome = self.trained(arm, seed)
        last = arm.most if arm.beyond else len(outcome.preferences)
        found: dict[str, Any] = {
            "read": [self._means(self.model_of(arm, seed, each)) for each in range(last + 1)],
            "preferred": [each.rate for each in outcome.preferences],
            "compared": sum(each.count for each in outcome.preferences),
            "asked": sum(int(p.read_text()) for p in self.folder(arm, seed).glob(f"*/{ASKED}")),
            "best": outcome.best,
            "reason": outcome.reason,
        }
        if arm.by == "reward":
            found["rewards"] = [self._rewarded(arm, seed, each) for each in range(1, last + 1)]
        return found

    def _means(self, directory: Path) -> list[list[float]]:
        """The means of the slots, of images of the evaluation."""
        pictures = [sitter_of(each).image for each in self.evaluation]
        found = answers_to(loading.load(directory), pictures)
        return [[round(float(x), 4) for x in one.coefficients] for one in found]

    def _rewarded(self, arm: Arm, seed: int, number: int) -> float:
        """The reward model's mean score of a round's answers to images nobody was asked about."""
        compared, asked = self._images(seed)
        scored = self._reward_model(arm, seed, asked)
        answers = self.panel.answers(loading.load(self.model_of(arm, seed, number)), compared)
        fit = scored.answers.processor.fit
        found = [
            scored(fit(self.panel.sitters[image].image), one.coefficients[None], region)
            for image, one in zip(compared, answers, strict=True)
            for region in arm.regions
        ]
        return float(np.mean(found))


def claim(run: Run) -> None:
    """Writes the settings of a run into its folder.

    Raises:
      UsageError: the folder is of a run with other settings; names what differs.
    """
    path, settings = run.out / "study.json", run.settings()
    if not path.exists():
        files.write_json(path, settings)
        return
    before = json.loads(path.read_text())
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        problem = f"is of a study with another {' and '.join(changed)}; name another --out"
        raise UsageError(problem, path=run.out)


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
    seeds = options.seeds or study.seeds
    if not options.labels.is_file():
        raise UsageError("no such file", path=options.labels)
    second = None if options.rig is None else rigs.load(options.rig)
    loading.compilation_cache()
    model, mesh = options.model or loading.BUILTIN, meshes.make({"data": -1})
    run = Run(study, options.out, model, options.labels, mesh)
    with locks.held(options.out):
        claim(run)
        results: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in study.arms}
        for seed in range(seeds):
            for arm in study.arms:
                results[arm.name].append(run.results(arm, seed, second))
                print(report.table({arm.name: results[arm.name][-1:]}).splitlines()[-1])
    command = f"sf-jax train superface --seeds {seeds}" + (" --tiny" if options.tiny else "")
    given = {"model": options.model, "rig": options.rig}
    command += "".join(f" --{name} {path.name}" for name, path in given.items() if path)
    folder = options.results or (options.out if options.tiny else RESULTS)
    distances = "\n\n".join(
        report.closed(
            results,
            BASE[labels].name,
            BASE[TRUTH].name,
            [arm.name for arm in study.arms if arm.labels == labels and arm.by],
        )
        for labels in ("b", "a")
    )
    report.write(folder, command, results, distances)
    print(f"\n{report.table(results)}\n\n{distances}\n\ntables and plot in {folder}")


if __name__ == "__main__":
    main()
