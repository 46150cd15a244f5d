"""Training by a reward of the model's own answers, without judgements: GRPO.

Each iteration samples several answers to each of a few images, asks what each is worth, and raises
those that are worth more than the others of their image. The reward is any function, such as how
near a render is to the image, or a reward model. Where it is of several regions, the same answers
are compared once for each, and its slots alone follow.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, PyTree, UInt8
from tqdm import tqdm

from sf_jax.convert.processor import FittedImage
from sf_jax.face.regions import Region
from sf_jax.media import hashes, locks
from sf_jax.reader import loading, training
from sf_jax.reader.estimator import Model
from sf_jax.reader.training import ADAPTER, MODEL
from sf_jax.systems.superface.examples import AnswerExamples, ExampleError
from sf_jax.systems.superface.training import FacePreferences, PairRecipe, starting_weights
from sf_jax.train import groups, preference
from sf_jax.train import mesh as meshes
from sf_jax.train.checkpoint import Checkpoints
from sf_jax.train.fingerprint import FileFingerprint, Fingerprint, changes
from sf_jax.train.groups import Group, GroupBatch
from sf_jax.train.logs import Lines
from sf_jax.train.loop import TrainingError
from sf_jax.train.losses.preference import group_advantages
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.preference import REFERENCE, Grpo
from sf_jax.train.step import TrainState

ITERATION, FINGERPRINT = "iteration", "fingerprint"  # in a checkpoint
Answers = Float32[np.ndarray, "G 61"]
Reward = Callable[[int, Answers], Float[np.ndarray, "R G"] | Float[np.ndarray, " G"]]


@dataclass(frozen=True)
class GrpoRecipe(PairRecipe):
    """One training by a reward.

    Attributes:
      objective: how many answers an image gets, and how far a batch may move the policy.
      temperature: at which answers are sampled; 1 samples the policy itself.
      regions: whose slots are raised and lowered, each by a reward of its own.
      scale: what rewards are divided by, see `losses.preference.group_advantages`.
      uses: steps on a batch before new answers are sampled; more than 1 needs the objective's
        `needs_old`.
      groups: of answers in a row, one for each image and region; epochs: how often each image is
        used.
      save_every: iterations between checkpoints.
      merged: write a whole model although an adapter was trained.
    """

    objective: Grpo = field(default_factory=Grpo)
    temperature: float = 1.0
    regions: tuple[Region, ...] = ("whole",)
    scale: str = "group"
    uses: int = 1
    groups: int = 1
    save_every: int = 20
    merged: bool = True

    def __post_init__(self) -> None:
        if self.uses > 1 and not self.objective.needs_old:
            raise ValueError(f"uses is {self.uses}; more than 1 needs Grpo(needs_old=True)")
        count = self.rows * self.groups
        if not self.regions or count % len(self.regions):
            raise ValueError(f"{count} groups of a batch cannot be shared by {self.regions}")

    @property
    def images(self) -> int:
        """Of an iteration."""
        return self.rows * self.groups // len(self.regions)


@dataclass(frozen=True, eq=False)
class Sampling:
    """Samples answers of a policy in training.

    Attributes:
      source: the directory of the model; answers: makes examples, with the same question.
    """

    source: Path
    answers: AnswerExamples
    recipe: GrpoRecipe

    def __call__(
        self, weights: PyTree, images: Sequence[FittedImage], seed: int
    ) -> Float32[np.ndarray, "N G 61"]:
        """Answers to each image, each value one that its slot can take; 0 of channels that the
        model does not read.

        Args:
          weights: of the whole model.
          seed: of the first answer; the others have those that follow.
        """
        count = self.recipe.objective.answers
        made = self.answers
        config = replace(training.config_in(self.source), product_dtype=self.recipe.product_dtype)
        model = Model(
            config,
            weights,
            made.tokenizer,
            made.processor,
            schema=made.schema,
            instructed=loading.is_instructed(self.source),
        )
        repeated = [image for image in images for _ in range(count)]
        found = model.predict_batch(
            repeated,
            rationale=False,
            messages=made.messages,
            whole=True,
            temperature=self.recipe.temperature,
            seed=[(seed + i) % 2**32 for i in range(len(repeated))],
        )
        answers = np.stack([np.nan_to_num(one.answer) for one in found]).astype(np.float32)
        return answers.reshape(len(images), count, -1)


def task_of(recipe: GrpoRecipe, source: Path, size: tuple[int, int], count: int) -> FacePreferences:
    """The task of a recipe.

    Args:
      size: tokens and patches of the largest group; count: how many images there are.
    """
    length, patches, most = recipe.row([size])
    config = recipe.config_in(source)
    steps = recipe.uses * iterations(recipe, count)
    return FacePreferences(
        config,
        recipe.rows,
        length,
        patches,
        recipe.trainable,
        OptimizerConfig(recipe.learning_rate, steps, round(recipe.warmup * steps), kind="adamw"),
        recipe.accumulate,
        group_count=max(most, recipe.groups),
        objective=recipe.objective,
        values=training.values_of(source, config),
        chunk_count=recipe.chunks,
        companion=recipe.objective.needs_reference,
        source=source,
        merged=recipe.merged,
    )


def iterations(recipe: GrpoRecipe, count: int) -> int:
    """How many batches of images there are in all, for so many images."""
    return max(1, round(recipe.epochs * count / recipe.images))


@dataclass(eq=False)
class _Run:
    """One training as it goes.

    Attributes:
      images: as the model reads them; reward: of answers to one of them, by its index.
    """

    task: FacePreferences
    sampling: Sampling
    images: Sequence[FittedImage]
    reward: Reward

    @property
    def recipe(self) -> GrpoRecipe:
        return self.sampling.recipe

    def chosen(self, iteration: int) -> list[int]:
        """Which images an iteration takes: all in one order, then all in another, without end."""
        recipe, total = self.recipe, len(self.images)
        each = recipe.images
        numbers = range(iteration * each, (iteration + 1) * each)
        orders = {
            epoch: np.random.default_rng([recipe.seed, epoch]).permutation(total)
            for epoch in {number // total for number in numbers}
        }
        return [int(orders[number // total][number % total]) for number in numbers]

    def batch(self, weights: PyTree, iteration: int) -> tuple[GroupBatch, dict[str, float]]:
        """A batch of sampled answers with their advantages, and what they are worth.

        Raises:
          GroupError: the answers to an image cannot be trained on; names it.
          ExampleError: a reward is none; names its image.
        """
        recipe, chosen = self.recipe, self.chosen(iteration)
        count = recipe.objective.answers
        seed = recipe.seed + iteration * len(chosen) * count
        answers = self.sampling(weights, [self.images[i] for i in chosen], seed)
        rewards = np.stack([self._rewards(i, own) for i, own in zip(chosen, answers, strict=True)])
        of_region = [
            group_advantages(jnp.asarray(each), recipe.scale) for each in rewards.swapaxes(0, 1)
        ]
        advantages = np.stack(of_region, 1)
        made: list[Group] = []
        for index, own, raised in zip(chosen, answers, advantages, strict=True):
            for region, advantage in zip(recipe.regions, raised, strict=True):
                number, where = len(made), f"image {index}"
                examples = tuple(
                    self.sampling.answers(self.images[index], each, region, number, where)
                    for each in own
                )
                made.append(Group(number, where, examples, advantages=advantage))
        room = replace(self.task.room, optional=("advantages",))
        for group in made:
            room.size(group)  # refuses it where it cannot be trained on
        step = recipe.groups
        rows = [made[start : start + step] for start in range(0, len(made), step)]
        batch = groups.build(rows, room)
        if recipe.objective.needs_old:
            (batch,) = preference.with_old(self.task, weights, [batch])
        spread = float(np.nanmean(np.nanmax(rewards, -1) - np.nanmin(rewards, -1)))
        return batch, {"reward": float(np.nanmean(rewards)), "reward_range": spread}

    def _rewards(self, index: int, answers: Answers) -> Float[np.ndarray, "R G"]:
        found = np.asarray(self.reward(index, answers), np.float64)
        regions, count = len(self.recipe.regions), len(answers)
        shapes = [(regions, count), *([(count,)] if regions == 1 else [])]
        if found.shape not in shapes or np.isinf(found).any():
            each = f" for each of {regions} regions" if regions > 1 else ""
            problem = f"image {index}: its rewards are {found}, expected {count} numbers{each}"
            raise ExampleError(problem)
        return found.reshape(regions, count)


def train(
    recipe: GrpoRecipe,
    source: Path,
    images: Sequence[UInt8[np.ndarray, "H W 3"]],
    reward: Reward,
    out: Path,
    mesh: Mesh | None = None,
) -> Path:
    """Trains the model of a directory by a reward of its answers; an interrupted run is resumed.

    The folder `out` gets checkpoints, `metrics.jsonl` with the mean reward of each iteration, and
    the trained model in "model", or an adapter in "adapter".

    Args:
      images: read whole.
      reward: (index of an image, G answers to it) → G numbers for each of the recipe's regions,
        the higher the better; NaN for an answer that has none.

    Returns:
      the folder of the trained model, or of the adapter where no whole model is written.

    Raises:
      ExampleError: there are no images, or a reward is none; names the image.
      GroupError: the answers to an image cannot be trained on; names it.
      TrainingError: a gradient is not finite; or images, model or recipe are not those of the run
        that is in `out`. That the reward is the same is for the caller to see to.
      CheckpointError: a file of the model is missing, cannot be read or differs from its checksum.
      BusyError: another run writes to `out`.
    """
    if not len(images):
        raise ExampleError("no images to learn from")
    mesh = meshes.make({"fsdp": -1}) if mesh is None else mesh
    with locks.held(out):
        answers = AnswerExamples.of(source, recipe.config_in(source))
        fitted = [answers.processor.fit(image) for image in images]
        largest = max(fitted, key=lambda image: image.pixels.size)
        low = np.asarray(answers.schema.low, np.float32)
        longest = np.zeros(61, np.float32)
        longest[answers.channels] = np.where(low < 0, low, 0)  # a sign is a token
        example = answers(largest, longest, recipe.regions[0])
        tokens, patches = (recipe.objective.answers * n for n in example.size)
        task = task_of(recipe, source, (tokens, patches), len(images))
        weights = starting_weights(task, source, mesh)
        companions = {REFERENCE: weights} if task.companion else None
        state = task.create(weights, mesh, recipe.seed, companions=companions)
        run = _Run(task, Sampling(source, answers, recipe), fitted, reward)
        state = _iterate(run, state, mesh, out, fingerprint_of(recipe, source, fitted))
        task.export(state, out)
    whole = recipe.merged or recipe.trainable.whole is not None
    return out / (MODEL if whole else ADAPTER)


def fingerprint_of(recipe: GrpoRecipe, source: Path, images: Sequence[FittedImage]) -> Fingerprint:
    """What a run that is resumed must find as it was: images, model and recipe."""
    pixels = [image.pixels for image in images]
    read = FileFingerprint(sum(x.nbytes for x in pixels), len(pixels), hashes.of_arrays(*pixels))
    found = Fingerprint({"images": read}, recipe.settings)
    return found.with_model(source, training.model_files(source, weights=True))


def _begun(position: Mapping[str, Any], now: Fingerprint, out: Path, accept: bool) -> int:
    """The iteration to go on with; raises TrainingError where the run was another one."""
    saved = position.get(FINGERPRINT, {"files": {}, "order": {}})
    found = changes(Fingerprint.from_json(saved), now)
    if found and not accept:
        raise TrainingError(
            f"{out} holds a run of other images, another model or another recipe: {found}. Give "
            "the same ones, another folder, or --accept-changed-data to resume with these"
        )
    if found:
        tqdm.write(f"{out} holds a run of others, which is accepted: {found}")
    return int(position[ITERATION])


def _iterate(
    run: _Run, state: TrainState, mesh: Mesh, out: Path, fingerprint: Fingerprint
) -> TrainState:
    """All iterations, from the newest sound checkpoint."""
    recipe, task = run.recipe, run.task
    total, step = iterations(recipe, len(run.images)), task.build_step(mesh)
    join = jax.jit(task.join)
    with closing(Checkpoints(out / "checkpoints", 2, tqdm.write)) as checkpoints:
        restored = checkpoints.restore(state)
        first = 0
        if restored is not None:
            state, position = restored
            first = _begun(position, fingerprint, out, recipe.accept_changed_data)
        bar = tqdm(range(first, total), "GRPO", total, initial=first, unit="iteration")
        with closing(Lines(out / "metrics.jsonl", first)) as lines:
            for iteration in bar:
                batch, worth = run.batch(join(state.weights, state.frozen), iteration)
                on_mesh = meshes.put(batch, mesh)
                for _ in range(recipe.uses):
                    state, metrics = step(state, on_mesh)
                found = {name: float(value) for name, value in metrics.items()} | worth
                if found["skipped"]:
                    raise TrainingError(f"iteration {iteration}: the gradient is not finite")
                lines.write(iteration + 1, found)
                bar.set_postfix(reward=f"{worth['reward']:.4g}", loss=f"{found['loss']:.4g}")
                if (iteration + 1) % recipe.save_every == 0 or iteration + 1 == total:
                    position = {ITERATION: iteration + 1, FINGERPRINT: fingerprint.as_json()}
                    checkpoints.save(state, position)
    return state
