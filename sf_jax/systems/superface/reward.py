"""A reward model: a score of an answer to an image, learnt from judged pairs.

It is the model that answers, with a small head on the states of the judged region's slots. So it
sees the image itself and needs no rig: pictures of image and render would have scores of their own
for each rig, and a render for each answer that is scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32
from pydantic import Field, StringConstraints
from safetensors.numpy import save_file

from sf_jax.convert import checksums, hf
from sf_jax.convert.processor import FittedImage
from sf_jax.convert.tensor_files import CheckpointError
from sf_jax.face.regions import Region
from sf_jax.media import files, locks, safetensors_files, small_files
from sf_jax.model import lora
from sf_jax.model.config import Config
from sf_jax.model.declared import Weight, initialise, leaves, map_declared
from sf_jax.model.lora import LoraConfig
from sf_jax.reader import loading, training
from sf_jax.reader.training import MODEL
from sf_jax.systems.superface import prediction
from sf_jax.systems.superface.examples import AnswerExamples, PairGroups
from sf_jax.systems.superface.training import PairRecipe, feed_of, starting_weights
from sf_jax.train import mesh as meshes
from sf_jax.train.calibration import Reliability
from sf_jax.train.groups import Group, in_rows
from sf_jax.train.hooks import HookConfig
from sf_jax.train.reward import (
    PREFIX,
    RewardHead,
    RewardTask,
    RewardWeights,
    answer_scores,
    declare_head,
)
from sf_jax.train.step import TrainState
from sf_jax.train.task import run
from sf_jax.train.trainable import Trainable

FILE, SETTINGS = "reward.safetensors", "reward.json"  # in the directory of the model
TEXT = r".*language_model.*_proj"


class _Settings(small_files.Settings):
    """The fields of `reward.json`."""

    hidden: Annotated[int, Field(ge=1)]
    rows: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=1)]
    patches: Annotated[int, Field(ge=1)]
    groups: Annotated[int, Field(ge=1)]
    product_dtype: Annotated[str, StringConstraints(pattern="^(float32|bfloat16)$")]


def _head_and_adapters() -> Trainable:
    return Trainable(rf"^{PREFIX}\.", LoraConfig(rank=8, alpha=16.0, targets=TEXT))


@dataclass(frozen=True)
class RewardRecipe(PairRecipe):
    """One training of a reward model: of the head and of adapters of the text layers, unless
    `trainable` says otherwise.

    Attributes:
      hidden: width of the head's hidden layer.
      label_smoothing: the probability that any judgement is the wrong way round.
    """

    trainable: Trainable = field(default_factory=_head_and_adapters)
    learning_rate: float = 1e-3
    hidden: int = 128
    label_smoothing: float = 0.0


@dataclass(frozen=True, eq=False)
class RewardModel:
    """A trained reward model.

    Attributes:
      task: with room for the images that it was trained on.
      weights: of model and head; answers: makes examples of coefficients.
    """

    task: RewardTask
    weights: RewardWeights
    answers: AnswerExamples

    def __call__(
        self,
        image: FittedImage,
        coefficients: Float32[np.ndarray, "G 61"],
        region: Region,
    ) -> Float[np.ndarray, " G"]:
        """The score of each answer to an image: the difference of two is the log-odds that the
        first would be chosen.

        Raises:
          as `by_region`.
        """
        return self.by_region(image, coefficients, (region,))[0]

    def by_region(
        self,
        image: FittedImage,
        coefficients: Float32[np.ndarray, "G 61"],
        judged: Sequence[Region],
    ) -> Float[np.ndarray, "R G"]:
        """The scores of answers to an image for each of several regions, asked together.

        Raises:
          ExampleError: a coefficient is none that its slot can take.
          GroupError: the image is larger than any that the model was trained on.
        """
        made = [
            self.answers(image, each, region, number, f"answer {number}")
            for region in judged
            for number, each in enumerate(coefficients)
        ]
        given = [Group(example.number, example.where, (example,)) for example in made]
        task = self._of_single
        rows = min(sum(1 for _ in in_rows(given, task.room)), task.at_once)
        found = answer_scores(task, self.weights, given, max(rows, 1))
        return found.reshape(len(judged), len(coefficients))

    @cached_property
    def _of_single(self) -> RewardTask:
        """The task with answers by themselves, twice as many to a row."""
        return replace(self.task, answers=1, group_count=2 * self.task.group_count)

    def margins(self, groups: PairGroups) -> Float[np.ndarray, " N"]:
        """By how much the chosen answer of each pair is scored higher than the rejected one."""
        found = answer_scores(self.task, self.weights, map(groups.group, range(len(groups))))
        return found[:, 0] - found[:, 1]

    def calibration(self, groups: PairGroups, bins: int = 10) -> Reliability:
        """Accuracy and calibration on held-out judgements."""
        return prediction.calibration(self.margins(groups), groups, bins=bins)

    def save(self, source: Path, directory: Path) -> None:
        """Writes model and head into a directory, with checksums.

        Args:
          source: the directory of the model that training began with.
        """
        inputs = self.answers.tokenizer, self.answers.processor
        config = training.config_in(source)
        host = jax.device_get(self.weights)
        loading.save(directory, config, host.model, *inputs, schema=self.answers.schema)
        names = [weight.name for weight in leaves(declared_head(config, self.task.hidden))]
        arrays = [np.asarray(array, np.float32) for array in jax.tree.leaves(host.head)]
        with files.replacing(directory / FILE) as file:
            save_file(dict(zip(names, arrays, strict=True)), file)
        task, dtype = self.task, self.task.config.product_dtype
        sizes = _Settings(
            hidden=task.hidden,
            rows=task.rows,
            length=task.length,
            patches=task.patches,
            groups=task.group_count,
            product_dtype=dtype,
        )
        files.write_json(directory / SETTINGS, sizes.model_dump())
        checksums.seal(directory)  # anew, with the head


def declared_head(config: Config, hidden: int) -> RewardHead:
    """The head on the model of a configuration, declared."""
    return declare_head(config.text.hidden_size, hidden)


@dataclass(frozen=True, eq=False)
class FaceReward(RewardTask):
    """Training of a reward model on judged faces.

    Attributes:
      source: the model directory that it starts from; answers_of: makes examples.
      held_out: judged pairs to evaluate on.
    """

    source: Path = Path()
    answers_of: AnswerExamples | None = None
    held_out: PairGroups | None = None

    def model(self, state: TrainState) -> RewardModel:
        """The reward model of a state, adapters summed into its weights."""
        assert self.answers_of is not None
        trained = replace(state.weights, adapter=None)
        weights = self.join(trained, state.frozen)
        if state.weights.adapter is not None:
            weights = lora.merge(weights, state.weights.adapter, self.declare())
        return RewardModel(self, weights, self.answers_of)

    def evaluate(self, state: TrainState, mesh: Mesh) -> dict[str, float]:
        """Accuracy and calibration on held-out judgements."""
        if self.held_out is None:
            return {}
        found = self.model(state).calibration(self.held_out)
        return {
            "accuracy": found.accuracy,
            "calibration_error": found.error,
            "log_loss": found.log_loss,
        }

    def export(self, state: TrainState, directory: Path) -> None:
        """Writes model and head into the folder "model"."""
        self.model(state).save(self.source, directory / MODEL)
        print(f"the reward model in {directory / MODEL}")


def task_of(
    recipe: RewardRecipe, source: Path, groups: PairGroups, held_out: PairGroups | None = None
) -> FaceReward:
    """The task of a recipe, with rows as long as the pairs need."""
    sizes = [*groups.measured[0], *([] if held_out is None else held_out.measured[0])]
    length, patches, most = recipe.row(sizes)
    return FaceReward(
        recipe.config_in(source),
        recipe.rows,
        length,
        patches,
        recipe.trainable,
        recipe.optimizer(len(groups)),
        recipe.accumulate,
        group_count=most,
        slots=groups.answers.slots,
        hidden=recipe.hidden,
        label_smoothing=recipe.label_smoothing,
        source=source,
        answers_of=groups.answers,
        held_out=held_out,
    )


def train(
    recipe: RewardRecipe,
    source: Path,
    groups: PairGroups,
    out: Path,
    held_out: PairGroups | None = None,
    mesh: Mesh | None = None,
    beside: HookConfig | None = None,
) -> RewardModel:
    """Trains a reward model on judged pairs; an interrupted run is resumed.

    The folder `out` gets checkpoints, `metrics.jsonl`, and model and head in "model".

    Raises:
      as `training.train`.
    """
    mesh = meshes.make({"fsdp": -1}) if mesh is None else mesh
    with locks.held(out):
        task = task_of(recipe, source, groups, held_out)
        model = starting_weights(task, source, mesh)
        head = initialise(declared_head(task.config, recipe.hidden), recipe.seed)
        state = task.create(RewardWeights(model, head), mesh, recipe.seed)
        config = recipe.run_config(beside)
        feed = feed_of(task, source, recipe, groups, mesh)
        state = run(task, state, feed, mesh, out, config, export=out)
    return task.model(state)


def load(directory: Path) -> RewardModel:
    """Reads what `RewardModel.save` wrote.

    Raises:
      CheckpointError: a file is missing or damaged; names it.
    """
    checksums.verify(directory)
    path = directory / SETTINGS
    settings = small_files.read_json(path, CheckpointError)
    try:
        own = small_files.checked(_Settings, settings, CheckpointError)
    except CheckpointError as error:
        raise error.at(path=path) from None
    config, model = hf.load(directory, dtype=jnp.float32)
    config = replace(config, product_dtype=own.product_dtype)
    tensors = safetensors_files.read_tensors(directory / FILE, CheckpointError)

    def found(weight: Weight) -> jax.Array:
        array = tensors.get(weight.name)
        if array is None or array.shape != weight.shape:
            what = "missing" if array is None else f"of shape {list(array.shape)}"
            problem = f"tensor {weight.name!r} is {what}, expected {list(weight.shape)}"
            raise CheckpointError(problem, path=directory / FILE, field=weight.name)
        return jnp.asarray(array, jnp.float32)

    head = map_declared(found, declared_head(config, own.hidden))
    answers = AnswerExamples.of(directory, config)
    task = RewardTask(
        config,
        own.rows,
        own.length,
        own.patches,
        group_count=own.groups,
        slots=answers.slots,
        hidden=own.hidden,
    )
    return RewardModel(task, RewardWeights(model, head), answers)
