"""Training and reading the arms of ablations in one folder, resumable arm by arm and seed by seed.

Several processes may work in one folder: each takes an arm and seed that no other is training.

study.json          what all results in the folder depend on
plan.json           measured seconds of a step of each kind, from which budgets become steps
data/, sets/        records to train on; evaluation sets
tower/              the shared vision tower
tokenizers/         one for each set of slot values
starts/             language models after reading keys alone, by slots and seed
arms/ARM/seed-N/    predictions after each measured step, the trained model, and at the end
                    result.json
"""

import shutil
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from data_pipelines import evaluation_sets, mixtures, rendering
from data_pipelines.mixtures import Inputs
from data_pipelines.sources import noted
from sf_jax.convert import hf
from sf_jax.media import files, locks, small_files
from sf_jax.media.errors import DataError
from sf_jax.media.locks import BusyError
from sf_jax.model import lora
from sf_jax.model.lora import LoraConfig
from sf_jax.reader import loading
from sf_jax.reader import readout as readout_file
from sf_jax.sequence.tokenizer import SentencePieceTokenizer, Tokenizer
from sf_jax.systems.semanticface import ablation_reading as reading
from sf_jax.systems.semanticface import pretraining, teacher_records
from sf_jax.systems.semanticface.ablation import (
    LANGUAGE,
    READING,
    SETS,
    TOWER,
    Arm,
    Points,
    Study,
    constant,
    data_seed,
    points,
)
from sf_jax.systems.semanticface.ablation_reading import EvaluationSet, Reading
from sf_jax.systems.semanticface.dense_targets import initial_readout
from sf_jax.systems.semanticface.pretraining import JointTask, WarmupTask
from sf_jax.systems.semanticface.recipe import Recipe, Stage, make_tokenizer
from sf_jax.train import mesh as meshes
from sf_jax.train.losses.joint import JointWeights
from sf_jax.train.losses.readout import WarmupWeights

DRAINED, TIMED = 16, 10  # batches made beforehand, which are thrown away, and steps after them
RESULT, PLAN_LOCK, ARMS_LOCK = "result.json", ".plan.lock", ".arms.lock"
WAIT = 2.0  # seconds between two tries of an arm that another process is training
Task = WarmupTask | JointTask
Start = WarmupWeights | JointWeights  # what a task starts from
RECORDED = 8000  # rationales of given records that a tokenizer is trained on


@dataclass(frozen=True)
class Given:
    """A user's files, besides those of `Inputs`.

    Attributes:
      teacher: folder of face records with the rationales of another teacher than the describer.
      workers: processes that render.
    """

    inputs: Inputs = field(default_factory=Inputs)
    teacher: Path | None = None
    workers: int = 2


@dataclass(frozen=True)
class ArmResult:
    """What is known of an arm and seed once it is done.

    Attributes:
      at: measured steps; seconds: of a step, NaN where none was timed.
      values: measured step → set → read-out → [N, 61]; agreement: measured step → set → shares.
    """

    at: Points
    seconds: float
    values: dict[int, dict[str, dict[str, reading.Values]]]
    agreement: dict[int, dict[str, dict[str, float]]]


class Runs:
    """The arms of one study in one folder.

    Raises:
      DataError: the folder holds results of other settings or inputs.
    """

    def __init__(self, study: Study, out: Path, mesh: Mesh, given: Given | None = None):
        self.study, self.out, self.mesh = study, out, mesh
        self.given = given or Given()
        self._data: dict[str, Path] = {}
        with locks.waited(out):
            self._check_settings()

    def _check_settings(self) -> None:
        path, inputs = self.out / "study.json", self.given.inputs
        names = {name: getattr(inputs, name) for name in ("rigs", "skins", "backgrounds")}
        names["teacher"] = self.given.teacher
        wanted = self.study.settings() | {name: noted(each) for name, each in names.items()}
        if not path.exists():
            files.write_json(path, wanted)
            return
        found = _json_object(path)
        # A teacher counts for the arms that need one alone: it may be given later, or left out.
        if "teacher" in found and (wanted["teacher"] is None or found["teacher"] is None):
            wanted["teacher"] = found["teacher"] = wanted["teacher"] or found["teacher"]
        other = [name for name in wanted if name not in found or found[name] != wanted[name]]
        if other:
            problem = f"the results here were made with another {', '.join(other)}; "
            raise DataError(f"{problem}give the same, or name another folder", path=path)
        files.write_json(path, wanted)

    # What arms share.

    @cached_property
    def sets(self) -> dict[str, EvaluationSet]:
        """The evaluation sets that the inputs allow, by name."""
        study, folder = self.study, self.out / "sets"
        lines = evaluation_sets.write(
            folder, self.given.inputs, list(SETS), study.faces, self.given.workers
        )
        for line in lines:
            tqdm.write(line)
        views = study.recipe.views
        return {
            name: EvaluationSet.load(folder / name, study.faces, views)
            for name in SETS
            if (folder / name).is_dir()
        }

    @property
    def missing(self) -> list[str]:
        """Names of the sets that the inputs do not allow."""
        return [name for name in SETS if name not in self.sets]

    def data(self, name: str) -> Path:
        """The folder of records that an arm is trained on; see `Arm.data`."""
        if name not in self._data:
            self._data[name] = self._made(name)
        return self._data[name]

    def _made(self, name: str) -> Path:
        folder = self.out / "data" / name
        if name == "teacher":
            return self._teacher()
        if name == "describer":
            teacher_records.describe_anew(self._teacher(), folder)
            return folder
        mixture = self.study.mixture if name == "train" else {name: 1.0}
        sources = mixtures.build(mixture, self.given.inputs, seed=self.study.recipe.seed)
        sources.check("train")
        count = self.study.recipe.images
        rendering.render(folder, count, sources, workers=self.given.workers)
        return folder

    def _teacher(self) -> Path:
        if self.given.teacher is None:
            raise DataError("this ablation needs --teacher, records with another teacher's words")
        return self.given.teacher

    def tokenizer(self, recipe: Recipe) -> tuple[Tokenizer, Path]:
        """The tokenizer of a recipe's slots and, where it learns recorded words, of these."""
        names = [f"{len(recipe.channels)}-channels", f"{recipe.decimals}-decimals"]
        if recipe.sequences.recorded:
            names.append("recorded")
        folder = self.out / "tokenizers" / "-".join(names)
        with locks.waited(folder):
            texts: list[str] = []
            if recipe.sequences.recorded and not (folder / SentencePieceTokenizer.file).exists():
                texts = teacher_records.rationales(self._teacher(), RECORDED)
            return make_tokenizer(recipe, folder, texts), folder

    def seconds(self, name: str, measure: Callable[[], float]) -> float:
        """A measured duration from the plan, measured where it is not there yet."""
        path = self.out / "plan.json"

        def planned() -> dict[str, Any]:
            return _json_object(path) if path.exists() else {}

        found = planned().get(name)
        if found is None:
            measured = measure()
            with locks.waited(self.out, PLAN_LOCK):
                plan = planned()
                found = plan.setdefault(name, measured)  # another process may have been faster
                files.write_json(path, plan)
        return float(found)

    def _steps(self, name: str, minutes: float, task: Task, first: Start) -> int:
        """Steps that a budget is enough for, at least one; 0 without a budget."""
        if not minutes:
            return 0
        data = self.data("train")
        seconds = self.seconds(name, lambda: step_seconds(task, first, data, self.mesh))
        return max(1, int(60 * minutes / seconds))

    @cached_property
    def tower(self) -> WarmupWeights:
        """The vision tower that all arms and seeds start from, with its read-out."""
        recipe, fixed = self.study.recipe, self.study.steps
        tokenizer, _ = self.tokenizer(recipe)
        task = WarmupTask(recipe, tokenizer)
        first, minutes = _on_host(task.initial()), self.study.tower_budget
        steps = fixed.tower if fixed else self._steps("tower", minutes, task, first)
        stage = replace(recipe.warmup, optimizer=replace(recipe.warmup.optimizer, steps=steps))
        task = WarmupTask(replace(recipe, warmup=stage), tokenizer)
        where = self.out / "tower"
        where.mkdir(exist_ok=True)
        data = self.data("train")
        order = data_seed(TOWER, recipe.seed)
        trained = pretraining.train_stage(task, first, data, self.mesh, where, "tower", None, order)
        return _on_host(trained.weights)

    @cached_property
    def reading_steps(self) -> int:
        """Steps on the keys of slots alone, of every language model."""
        if self.study.steps is not None:
            return self.study.steps.reading
        recipe = self.study.recipe
        tokenizer, _ = self.tokenizer(recipe)
        task = JointTask(replace(recipe, reading=recipe.language), tokenizer, True)
        first, minutes = task.initial(self.tower), self.study.reading_budget
        return self._steps("reading", minutes, task, first)

    def start(self, recipe: Recipe, tokenizer: Tokenizer, folder: Path) -> JointWeights:
        """A fresh language model on the tower that has read the keys of its slots alone.

        It depends on slots and seed, and on nothing else that arms change.
        """
        shared, steps = self.study.recipe, self.reading_steps
        stage = constant(recipe.language, Points(steps, steps), steps)
        plain = replace(recipe, sequences=shared.sequences, order=shared.order, reading=stage)
        task = JointTask(plain, tokenizer, True)
        first = _on_host(task.initial(self.tower))
        if not steps:
            return first
        where = self.out / "starts" / folder.name / f"seed-{recipe.seed}"
        label, data = f"reading, seed {recipe.seed}", self.data("train")
        order = data_seed(READING, recipe.seed)
        with locks.waited(where):
            trained = pretraining.train_stage(
                task, first, data, self.mesh, where, label, folder, order
            )
        return _on_host(trained.weights)

    # One arm and seed.

    def folder(self, arm: Arm, seed: int) -> Path:
        """Of an arm and seed, under whichever name the arm was trained first."""
        arms = self.out / "arms"
        found = sorted(arms.glob(f"*-{arm.key(self.study.recipe)}"))
        where = found[0] if found else arms / arm.folder(self.study.recipe)
        return where / f"seed-{seed}"

    def run(self, arms: Iterable[Arm]) -> None:
        """Trains and reads all arms and seeds that are not done yet, seed by seed.

        What all share is made first, by one process while others wait. Of an arm and seed that
        another process is training, its end is awaited.
        """
        arms = list(arms)
        with locks.waited(self.out):
            print(f"sets: {', '.join(self.sets)}")  # bad inputs are found before training
            self.prepare()
        jobs = deque((arm, seed) for seed in range(self.study.seeds) for arm in arms)
        with tqdm(total=len(jobs), desc="arms and seeds", unit="arm") as bar:
            while jobs:
                arm, seed = jobs.popleft()
                bar.set_postfix_str(f"{arm.name}, seed {seed}")
                try:
                    self._run(arm, seed)
                    bar.update()
                except BusyError:
                    jobs.append((arm, seed))
                    time.sleep(WAIT)

    def prepare(self) -> None:
        """Makes what every arm starts from, unless it is there: records and the trained tower."""
        self.data("train")
        _ = self.tower, self.reading_steps

    def _run(self, arm: Arm, seed: int) -> None:
        """Raises BusyError where another process trains the arm, its base, or makes its records."""
        if arm.base is not None:
            self._run(arm.base, seed)
        with locks.waited(self.out, ARMS_LOCK):  # an arm has one folder, whatever it is called
            where = self.folder(arm, seed)
            where.mkdir(parents=True, exist_ok=True)
        if (where / RESULT).exists():
            return
        with locks.held(where):
            if not (where / RESULT).exists():  # made just before it was locked
                self._train_and_read(arm, seed, where)

    def _train_and_read(self, arm: Arm, seed: int, where: Path) -> None:
        job = _Job(self, arm, seed, where)
        at = job.points
        for step in at.ascending:
            values, shares = where / f"predictions-{step}.npz", where / f"agreement-{step}.json"
            if not (values.exists() and shares.exists()):
                read = job.reader(step)
                found = {name: read(faces) for name, faces in self.sets.items()}
                reading.save(values, found)
                agreed = {name: dict(each.agreement) for name, each in found.items()}
                files.write_json(shares, agreed)
        content = {"arm": arm.name, "seed": seed, "steps": at.steps, "compute": at.compute}
        timed = job.seconds if arm.trained and not self.study.steps else None
        files.write_json(where / RESULT, content | {"seconds": timed})
        shutil.rmtree(where / "checkpoints", ignore_errors=True)  # the model is exported

    def result(self, arm: Arm, seed: int) -> ArmResult:
        """What `run` found.

        Raises:
          DataError: it is missing or damaged.
        """
        where = self.folder(arm, seed)
        found = _json_object(where / RESULT)
        at = Points(found["steps"], found["compute"])
        agreed = {step: _json_object(where / f"agreement-{step}.json") for step in at.ascending}
        names = list(self.sets)
        values = {
            step: reading.load(where / f"predictions-{step}.npz", names) for step in at.ascending
        }
        seconds = found["seconds"]
        return ArmResult(at, float("nan") if seconds is None else seconds, values, agreed)


class _Job:
    """One arm and seed: its task, where it starts, and how its images are read."""

    def __init__(self, runs: Runs, arm: Arm, seed: int, where: Path):
        self.runs, self.arm, self.where = runs, arm, where
        recipe = arm.resolved(runs.study.recipe, seed)
        self.tokenizer, self.tokenizer_folder = runs.tokenizer(recipe)
        if not arm.regression and not recipe.sequences.words:  # rows as short as they can be
            length = JointTask(recipe, self.tokenizer).sequences.length_without_words
            recipe = replace(recipe, sequences=replace(recipe.sequences, length=length))
        self.recipe = recipe

    @cached_property
    def first(self) -> WarmupWeights | JointWeights:
        """The weights that it starts from, on the host: a step takes over given arrays."""
        return _on_host(self._start())

    def _start(self) -> WarmupWeights | JointWeights:
        recipe, runs = self.recipe, self.runs
        if self.arm.base is not None:
            folder = runs.folder(self.arm.base, recipe.seed) / "model"
            head = readout_file.load(folder / readout_file.FILE)
            return JointWeights(hf.load(folder, dtype=jnp.float32)[1], head)
        if self.arm.regression:
            head = initial_readout(
                recipe.vision, recipe.objective.readout, recipe.rare, recipe.seed + 1
            )
            return WarmupWeights(runs.tower.vision, head)
        return runs.start(recipe, self.tokenizer, self.tokenizer_folder)

    def task(self, steps: int) -> WarmupTask | JointTask:
        """Training up to a step."""
        stage = constant(self.recipe.language, self.points, steps)
        return self._task(stage)

    def _task(self, stage: Stage) -> WarmupTask | JointTask:
        if self.arm.regression:
            return WarmupTask(replace(self.recipe, warmup=stage), self.tokenizer)
        adapter = None
        if self.arm.adapter is not None:
            rank = self.runs.study.rank
            adapter = LoraConfig(self.arm.adapter, rank=rank, alpha=2.0 * rank)
        recipe = replace(self.recipe, language=stage)
        return JointTask(recipe, self.tokenizer, adapter=adapter)

    @cached_property
    def seconds(self) -> float:
        """Of a step, measured once for all seeds."""
        return self.runs.seconds(self.arm.key(self.runs.study.recipe), self._measured)

    def _measured(self) -> float:
        data = self.runs.data(self.arm.data)
        task = self._task(self.recipe.language)
        return step_seconds(task, self.first, data, self.runs.mesh)

    @cached_property
    def points(self) -> Points:
        """The steps after which it is measured; 0 where nothing is trained."""
        study, runs = self.runs.study, self.runs
        if not self.arm.trained:
            return Points(0, 0)
        # Language models have read keys before: regression has as many steps and as much time more.
        more = runs.reading_steps if self.arm.regression else 0
        if study.steps is not None:
            return Points(study.steps.arm + more, study.steps.arm + more)
        reference = study.reference
        if self.arm.key(study.recipe) == reference.key(study.recipe):
            return points(self.seconds, self.seconds, study.budget)
        other = _Job(runs, reference, 0, self.where).seconds
        equal = points(other, self.seconds, study.budget)
        if not more:
            return equal
        minutes = study.budget + study.reading_budget
        return Points(equal.steps + more, points(other, self.seconds, minutes).compute)

    def reader(self, step: int) -> Callable[[EvaluationSet], Reading]:
        """Trains up to a step, exports the model, and returns what reads images with it."""
        weights = self._trained(step) if step else self.first
        if isinstance(weights, WarmupWeights):
            config = self.recipe.config(self.tokenizer)
            return reading.with_readout(weights, config, self.recipe.patches)
        export = self.where / "model"
        JointTask(self.recipe, self.tokenizer).write(weights, export)
        return reading.with_model(loading.load(export), self.arm.rationale)

    def _trained(self, step: int) -> WarmupWeights | JointWeights:
        task, runs = self.task(step), self.runs
        label = f"{self.arm.name}, seed {self.recipe.seed}"
        state = pretraining.train_stage(
            task,
            self.first,
            runs.data(self.arm.data),
            runs.mesh,
            self.where,
            label,
            self.tokenizer_folder,
            data_seed(LANGUAGE, self.recipe.seed),
        )
        if task.trainable is None:
            return _on_host(state.weights)
        base, adapter = jax.device_get((self.first, state.weights.adapter))
        return lora.merge(base, adapter, task.declare())


def _json_object(path: Path) -> dict[str, Any]:
    """A JSON object that was written here; raises DataError where it is something else."""
    found = small_files.read_json(path)
    if not isinstance(found, dict):
        raise DataError("expected a JSON object", path=path)
    return found


def _on_host(weights: Start) -> Any:
    """A copy in host memory, which no step can take over."""
    return jax.tree.map(lambda x: np.array(x), weights)


def step_seconds(task: Task, weights: Start, data: Path, mesh: Mesh) -> float:
    """Median seconds of a training step with its batch, once they follow each other steadily.

    The first step compiles. Batches that are prefetched meanwhile are thrown away: a step may
    have to wait for its batch, and what is timed is the slower of the two.
    """
    batches, _ = pretraining.batches_of(task, data)
    state, step = task.create(_on_host(weights), mesh), task.build_step(mesh)
    state, metrics = step(state, meshes.put(next(batches), mesh))
    jax.block_until_ready(metrics)
    for _ in range(DRAINED):
        next(batches)
    found = []
    for _ in range(TIMED):
        before = time.perf_counter()
        state, metrics = step(state, meshes.put(next(batches), mesh))
        jax.block_until_ready(metrics)
        found.append(time.perf_counter() - before)
    return statistics.median(found)
