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

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jax.sharding import Mesh
from pydantic import Field
from tqdm import tqdm

from data_pipelines import synthetic
from data_pipelines.synthetic import Sitting
from experiments._superface_arms import BASE, STUDY, TRUTH, Arm, Study, tiny
from sf_jax.cli.arguments import Parser, UsageError, accept_changed_data, whole
from sf_jax.face import labels as label_files
from sf_jax.media import files, hashes, locks, small_files
from sf_jax.media.errors import DataError
from sf_jax.reader import loading, provenance, training
from sf_jax.render import rigs
from sf_jax.render.rig import Rig
from sf_jax.systems.semanticface import fine_tuning
from sf_jax.systems.superface import flawed, grpo, measures, report, rounds, truth
from sf_jax.systems.superface.asking import Asking
from sf_jax.systems.superface.examples import AnswerExamples, PairGroups, images_by_hash, judged
from sf_jax.systems.superface.judges import Judge
from sf_jax.systems.superface.reward import RewardModel
from sf_jax.systems.superface.reward import load as load_reward
from sf_jax.systems.superface.reward import train as train_reward
from sf_jax.systems.superface.seen import Image
from sf_jax.systems.superface.simulated import Sitter, sitter_of
from sf_jax.systems.superface.study import Panel, answers_to, drawn, shuffled
from sf_jax.systems.superface.training import PairRecipe
from sf_jax.systems.superface.training import train as train_on_pairs
from sf_jax.train import hooks, task
from sf_jax.train import mesh as meshes

RESULTS = Path(__file__).parent / "results"
FACE_SEED = 21  # of rendered people
DONE, ASKED = "done", "judged.json"  # a mark of what is complete; what was judged for it
MEDIAPIPE = RESULTS / "superface_mediapipe.csv"  # of the training images, by their numbers


Kind = TypeVar("Kind", bound=small_files.Settings)
AnyRecipe = TypeVar("AnyRecipe", bound=PairRecipe)
MOST_BYTES = 2**26  # of a file of what was read


class StudyError(DataError):
    """A file of a study that is damaged."""


class Judged(small_files.Settings):
    """Judgements to train on: how many, and the share that chose the nearer render."""

    judgements: int
    nearer: float


class ReadFaces(small_files.Settings):
    """What the model of each round of an arm reads, the one that it began with first, and how the
    rounds ended.

    Attributes:
      held_out: of people whom no model has seen; unasked: of training images that nobody was asked
        about.
      preferred: of each round that was judged; compared: by how many judgements.
      judged: of each training that asked; rewards: by a reward model, of each round.
    """

    held_out: list[list[list[float]]]
    unasked: list[list[list[float]]]
    best: int = 0
    reason: str | None = None
    preferred: list[float | None] = Field(default_factory=list)
    compared: int = 0
    judged: list[Judged] = Field(default_factory=list)
    rewards: list[float] = Field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a study in a folder.

    Attributes:
      model: the directory that every arm begins with; labels: a file of MediaPipe's labels.
      accept_changed_data: see `train.loop.LoopConfig`.
    """

    study: Study
    out: Path
    model: Path
    labels: Path
    mesh: Mesh
    accept_changed_data: bool = False
    _reward_models: dict[tuple[Arm, int], RewardModel] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Everything that results depend on, as JSON."""
        study = {name: repr(value) for name, value in vars(self.study).items() if name != "seeds"}
        model = provenance.verified(self.model).weights
        labels = hashes.of_samples(self.labels, 1 << 26)
        return {"study": study, "model": model, "labels": labels}

    @cached_property
    def held_out(self) -> list[Sitting]:
        """People whom no model has seen."""
        count = self.study.faces
        return [synthetic.sitting(i, FACE_SEED, "evaluation") for i in range(count)]

    @cached_property
    def unasked(self) -> list[Sitting]:
        """The images that models are compared on, which were among those to fine-tune on."""
        numbers = self.truth_of("b", 0).numbers[: self.study.compared]
        return [synthetic.numbered(number, "train") for number in numbers.tolist()]

    @cached_property
    def pictures(self) -> tuple[list[Image], list[Image]]:
        """Of `held_out` and of `unasked`."""
        drawn = [[sitter_of(one).image for one in each] for each in (self.held_out, self.unasked)]
        return drawn[0], drawn[1]

    @cached_property
    def panel(self) -> Panel:
        """The judge of all arms and seeds, as noisy as the study says on answers tuned on (b)."""
        known = self.truth_of("b", 0)
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

    def truth_of(self, labels: str, seed: int) -> truth.Truth:
        """What is true of the records with these labels, in their order."""
        self.records_of(labels, seed)
        return truth.read(self._truth(labels, seed))

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
            beside = hooks.HookConfig(label=f"fine-tune on {labels}, {seed}")
            config = task.RunConfig(beside=beside, accept_changed_data=self.accept_changed_data)
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
        found = panel.ask(loading.load(source), images, study.per_image, study.judgements)
        into.mkdir(parents=True, exist_ok=True)
        noted = Judged(judgements=len(found.judgements), nearer=found.nearer)
        files.write_json(into / ASKED, noted.model_dump())
        answers = AnswerExamples.of(source, recipe.config_in(source))
        pixels = {image: panel.sitters[image].image for image in images}
        chosen = judged(found.pairs, found.judgements)
        return PairGroups(chosen, images_by_hash(pixels), answers, seed=how.seed)

    def _some(self, images: Sequence[str], number: int) -> list[str]:
        """The images of a round, from 1: others in each, as far as there are enough."""
        count = -(-self.study.judgements // self.study.per_image)
        first = (number - 1) * count
        return [images[i % len(images)] for i in range(first, first + min(count, len(images)))]

    def _on_judgements(
        self, arm: Arm, seed: int, number: int, source: Path, folder: Path, images: Sequence[str]
    ) -> None:
        """One round of DPO: asks about a model's answers and trains it on what was chosen."""
        study = self.study
        how = replace(study.asking, regions=arm.regions, seed=drawn(seed, number))
        some = self._some(images, number)
        groups = self._judged(how, source, some, study.preferences, folder)
        beside = hooks.HookConfig(label=f"{arm.name}, seed {seed}, round {number}")
        recipe = self._resumed(replace(study.preferences, seed=how.seed))
        train_on_pairs(recipe, source, groups, folder, mesh=self.mesh, beside=beside)

    def _resumed(self, recipe: AnyRecipe) -> AnyRecipe:
        return replace(recipe, accept_changed_data=self.accept_changed_data)

    def _by_reward(
        self, arm: Arm, seed: int, number: int, source: Path, folder: Path, images: Sequence[str]
    ) -> None:
        """One round of GRPO, on the images that a round of DPO would ask about."""
        sitters = [self.panel.sitters[image] for image in self._some(images, number)]
        scored = self._reward_model(arm, seed, images) if arm.by == "reward" else None

        def reward(index: int, answers: np.ndarray) -> np.ndarray:
            sitter = sitters[index]
            if scored is not None:
                return self._scores(scored, arm, sitter, answers)
            away = [[sitter.distance(one, region) for one in answers] for region in arm.regions]
            sitter.forget()
            return -np.array(away)

        recipe = replace(self.study.rewarded, regions=arm.regions, seed=drawn(seed, number))
        pictures = [sitter.image for sitter in sitters]
        grpo.train(self._resumed(recipe), source, pictures, reward, folder, self.mesh)

    def _scores(
        self, scored: RewardModel, arm: Arm, sitter: Sitter, answers: np.ndarray
    ) -> np.ndarray:
        """A reward model's scores [R, G] of answers to an image."""
        return scored.by_region(scored.answers.processor.fit(sitter.image), answers, arm.regions)

    def _reward_model(self, arm: Arm, seed: int, images: Sequence[str]) -> RewardModel:
        """A reward model of judgements about the fine-tuned model's answers, the very ones that the
        first round of DPO by region learns from."""
        if (arm, seed) not in self._reward_models:
            source, folder = self.tuned(arm.labels, seed), self.folder(arm, seed) / "reward"
            if not (folder / DONE).exists():
                recipe = self._resumed(replace(self.study.reward, seed=seed))
                how = replace(self.study.asking, regions=arm.regions, seed=drawn(seed, 1))
                groups = self._judged(how, source, self._some(images, 1), recipe, folder)
                beside = hooks.HookConfig(label=f"reward model, seed {seed}")
                train_reward(recipe, source, groups, folder, mesh=self.mesh, beside=beside)
                files.write_text(folder / DONE, "")
            # As a resumed run reads it: another size of batches would change the last digits.
            self._reward_models[arm, seed] = load_reward(folder / training.MODEL)
        return self._reward_models[arm, seed]

    # Measuring.

    def results(self, arm: Arm, seed: int, second: Rig | None) -> dict[str, Any]:
        """What an arm and seed reached, and every round of it.

        Args:
          second: a rig to measure on, beside the built-in head.

        Raises:
          StudyError: a file of an earlier run is damaged; names it.
        """
        found = self.read(arm, seed)
        known = self.truth_of("b", seed)
        each = zip(found.held_out, found.unasked, strict=True)
        measured = [self._measured(*read, known, second) for read in each]
        if arm.by is None:
            return {"scores": measured[0]}
        reached = {"scores": measured[found.best], "rounds": measured[1:]}
        return reached | found.model_dump(exclude={"held_out", "unasked"})

    def read(self, arm: Arm, seed: int) -> ReadFaces:
        """What every round of an arm reads; trained and read where that is not in its file yet."""
        path = self.out / "read" / f"{arm.folder}-{seed}.json"
        if not path.exists():
            made = files.finite(self._read(arm, seed).model_dump())
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(path, made, indent=None)
        return stored(path, ReadFaces)

    def _measured(
        self,
        held_out: list[list[float]],
        unasked: list[list[float]],
        known: truth.Truth,
        second: Rig | None,
    ) -> dict[str, float]:
        """Measures of what a model reads. Dropped are the actions that labels (b) of the seed lack,
        of images that nobody was asked about."""
        true = np.stack([each.coefficients for each in self.held_out]).astype(np.float32)
        found = measures.measures(np.array(held_out, np.float32), true, second)
        first = slice(len(unasked))
        read, shown = np.array(unasked, np.float32), known.coefficients[first]
        return found | {"dropped": measures.recall(read, shown, known.dropped[first])}

    def _read(self, arm: Arm, seed: int) -> ReadFaces:
        """What every round of an arm reads, and how it was judged."""
        if arm.by is None:
            held_out, unasked = self._means(self.model_of(arm, seed, 0))
            return ReadFaces(held_out=[held_out], unasked=[unasked])
        outcome = self.trained(arm, seed)
        last = arm.most if arm.beyond else len(outcome.preferences)
        assert arm.labels is not None
        start = self.read(BASE[arm.labels], seed)
        read = [(start.held_out[0], start.unasked[0])]
        read += [self._means(self.model_of(arm, seed, each)) for each in range(1, last + 1)]
        noted = sorted(self.folder(arm, seed).glob(f"*/{ASKED}"))
        rewarded = range(1, last + 1) if arm.by == "reward" else ()
        return ReadFaces(
            held_out=[one for one, _ in read],
            unasked=[one for _, one in read],
            best=outcome.best,
            reason=outcome.reason,
            preferred=[each.rate if each.count else None for each in outcome.preferences],
            compared=sum(each.count for each in outcome.preferences),
            judged=[stored(path, Judged) for path in noted],
            rewards=[self._rewarded(arm, seed, each) for each in rewarded],
        )

    def _means(self, directory: Path) -> tuple[list[list[float]], list[list[float]]]:
        """The means of the slots, of the images in `pictures`."""
        held_out, unasked = self.pictures
        found = answers_to(loading.load(directory), [*held_out, *unasked])
        read = [[round(float(x), 4) for x in one.coefficients] for one in found]
        return read[: len(held_out)], read[len(held_out) :]

    def _rewarded(self, arm: Arm, seed: int, number: int) -> float:
        """The reward model's mean score of a round's answers to images nobody was asked about."""
        compared, asked = self._images(seed)
        scored = self._reward_model(arm, seed, asked)
        answers = self.panel.answers(loading.load(self.model_of(arm, seed, number)), compared)
        found = [
            self._scores(scored, arm, self.panel.sitters[image], one.coefficients[None])
            for image, one in zip(compared, answers, strict=True)
        ]
        return float(np.mean(found))


def stored(path: Path, kind: type[Kind]) -> Kind:
    """What a file of a study holds; raises StudyError where it is damaged."""
    try:
        content = small_files.read_json(path, StudyError, MOST_BYTES)
        return small_files.checked(kind, content, StudyError)
    except StudyError as error:
        problem = f"{error.problem}; delete the file, and it is made anew"
        raise StudyError(problem, path=path, field=error.field) from None


def claim(run: Run) -> None:
    """Writes the settings of a run into its folder.

    Raises:
      UsageError: the folder is of a run with other settings; names what differs.
    """
    path, settings = run.out / "study.json", run.settings()
    if not path.exists():
        files.write_json(path, settings)
        return
    before = small_files.read_json(path, StudyError)
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
    accept_changed_data(parser)
    add("--results", type=Path, help="for table and plot (default: results/; with --tiny, OUT)")
    options = parser.parse_args(argv)
    study = tiny(STUDY) if options.tiny else STUDY
    seeds = options.seeds or study.seeds
    if not options.labels.is_file():
        raise UsageError("no such file", path=options.labels)
    second = None if options.rig is None else rigs.load(options.rig)
    loading.compilation_cache()
    model, mesh = options.model or loading.BUILTIN, meshes.make({"data": -1})
    accept = options.accept_changed_data
    run = Run(study, options.out, model, options.labels, mesh, accept)
    with locks.held(options.out):
        claim(run)
        results: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in study.arms}
        for seed in range(seeds):
            for arm in study.arms:
                results[arm.name].append(run.results(arm, seed, second))
                print(report.table({arm.name: results[arm.name][-1:]}).splitlines()[-1])
    command = f"sf-jax train superface --seeds {seeds}" + (" --tiny" if options.tiny else "")
    labels = None if options.labels == MEDIAPIPE else options.labels
    given = {"model": options.model, "rig": options.rig, "labels": labels}
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
