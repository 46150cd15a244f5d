"""Training by a reward of the model's own answers."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sf_jax
from sf_jax.face import regions
from sf_jax.face.channels import INDEX
from sf_jax.sequence.example import Example
from sf_jax.systems.superface import grpo
from sf_jax.systems.superface.examples import AnswerExamples, ExampleError
from sf_jax.systems.superface.grpo import GrpoRecipe, train
from sf_jax.systems.superface.training import FacePreferences
from sf_jax.train.groups import GroupError
from sf_jax.train.loop import TrainingError
from sf_jax.train.preference import Grpo
from tests.systems.superface import judging

RECIPE = GrpoRecipe(
    objective=Grpo(answers=6, beta=0.002, needs_old=True),
    learning_rate=5e-3,
    epochs=6,
    rows=2,
    groups=1,
    uses=2,
    warmup=0.0,
    unrolled=False,
    regions=("lower",),
    save_every=2,
)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [judging.pair(number)[1] for number in range(4)]


def smile(index: int, answers: np.ndarray) -> np.ndarray:
    """What is asked for in this test: an open mouth in the even images, a closed one in others."""
    opened = answers[:, [INDEX["JawOpen"], INDEX["MouthSmileLeft"]]].mean(1)
    return opened if index % 2 == 0 else -opened


@pytest.fixture(scope="module")
def run(
    random_model: Path, images: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[tuple[int, np.ndarray]]]:
    out, asked = tmp_path_factory.mktemp("run"), []

    def reward(index: int, answers: np.ndarray) -> np.ndarray:
        asked.append((index, answers))
        return smile(0, answers)

    assert train(RECIPE, random_model, images, reward, out) == out / "model"
    return out, asked


@pytest.mark.slow
def test_what_earns_more_becomes_likelier(run: tuple[Path, list]) -> None:
    out, asked = run
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rewards = [line["reward"] for line in lines]
    print(f"\nmean reward of each iteration: {np.round(rewards, 3)}")
    assert len(lines) == 6 * 4 / 2 and lines[0]["reward_range"] > 0
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.05
    assert sorted(index for index, _ in asked) == sorted(list(range(4)) * 6)
    model = sf_jax.load(out / "model")
    grid = model.values
    for _, answers in asked[:2]:
        assert answers.shape == (6, 61) and len({each.tobytes() for each in answers}) > 1
        near = np.nanmin(np.abs(grid[None] - answers[..., None]), -1)
        assert near.max() < 1e-6  # values that slots can take


class Drawn:
    """Answers that no model has sampled."""

    def __init__(self, recipe: GrpoRecipe, answers: AnswerExamples):
        self.recipe, self.answers = recipe, answers

    def __call__(self, weights: object, images: list, seed: int) -> np.ndarray:
        count = self.recipe.objective.answers
        drawn = [judging.drawn(seed + i) for i in range(len(images) * count)]
        return np.stack(drawn).reshape(len(images), count, -1)


def run_of(
    recipe: GrpoRecipe,
    model: Path,
    images: list[np.ndarray],
    reward: Callable[[int, np.ndarray], np.ndarray],
    kind: type[AnswerExamples] = AnswerExamples,
) -> grpo._Run:
    """A run of answers that no model has sampled, before its first step; three fit a row."""
    answers = kind.of(model, recipe.config_in(model))
    fitted = [answers.processor.fit(image) for image in images]
    with_image = AnswerExamples.of(model, recipe.config_in(model))
    tokens, patches = with_image(fitted[0], judging.drawn(0), "lower").size
    task = grpo.task_of(recipe, model, (3 * tokens, 3 * patches), len(images))
    return grpo._Run(task, Drawn(recipe, answers), fitted, reward)  # type: ignore[arg-type]


def test_a_batch_holds_all_answers_to_its_images_with_their_advantages(
    random_model: Path, images: list[np.ndarray]
) -> None:
    """Of the judged region only slots count; each image is used once an epoch."""
    recipe = replace(RECIPE, objective=Grpo(answers=3), uses=1, groups=2)
    asked = []

    def reward(index: int, given: np.ndarray) -> np.ndarray:
        asked.append(index)
        return np.array([1.0, np.nan, 3.0])

    run = run_of(recipe, random_model, images, reward)
    batch, worth = run.batch(None, 0)
    assert worth == {"reward": 2.0, "reward_range": 2.0}
    assert sorted(asked) == [0, 1, 2, 3] and sorted(run.chosen(1)) == [0, 1, 2, 3]
    np.testing.assert_allclose(
        batch.advantages[:, :2], np.tile([-0.7071, 0, 0.7071], (2, 2, 1)), atol=1e-3
    )
    np.testing.assert_array_equal(batch.weights[:, :2], 1)
    for row in range(2):
        slots, weights = batch.rows.slots[row], batch.rows.slot_weights[row]
        counted = np.bincount(batch.rows.segments[row][weights > 0], minlength=7)[1:7]
        np.testing.assert_array_equal(counted, regions.channels("lower").sum())
        np.testing.assert_array_equal(
            np.unique(slots[weights > 0]), 1 + np.flatnonzero(regions.channels("lower"))
        )


def test_the_same_answers_are_compared_for_each_region(
    random_model: Path, images: list[np.ndarray]
) -> None:
    """Each region by its own reward, and the slots of the other follow nothing of it."""
    parts = ("upper", "lower")
    recipe = replace(RECIPE, objective=Grpo(answers=3), uses=1, regions=parts)
    asked = []

    def reward(index: int, given: np.ndarray) -> np.ndarray:
        asked.append((index, given))
        return np.array([[1.0, 2.0, 3.0], [300.0, 200.0, np.nan]])

    run = run_of(recipe, random_model, images, reward)
    assert grpo.iterations(recipe, 4) == 24  # two rows, a region in each: one image
    batch, worth = run.batch(None, 0)
    assert [index for index, _ in asked] == run.chosen(0) and len(asked) == 1
    assert worth["reward_range"] == pytest.approx((2 + 100) / 2)
    np.testing.assert_allclose(batch.advantages[0, 0], [-1, 0, 1], atol=1e-3)
    np.testing.assert_allclose(batch.advantages[1, 0], [0.7071, -0.7071, 0], atol=1e-3)
    np.testing.assert_array_equal(batch.rows.input_ids[0], batch.rows.input_ids[1])
    for row, region in enumerate(parts):
        slots, weights = batch.rows.slots[row], batch.rows.slot_weights[row]
        channels = np.flatnonzero(regions.channels(region)[run.sampling.answers.channels])
        np.testing.assert_array_equal(np.unique(slots[weights > 0]), 1 + channels)
    flat = replace(run, reward=lambda *_: np.zeros(3))
    with pytest.raises(ExampleError, match="expected 3 numbers for each of 2 regions"):
        flat.batch(None, 0)


class Blind(AnswerExamples):
    """Examples that lack the image they have tokens of."""

    def __call__(self, *given: object) -> Example:  # type: ignore[override]
        return replace(super().__call__(*given), inserts=())  # type: ignore[arg-type]


def test_answers_without_their_image_are_refused_by_its_number(
    random_model: Path, images: list[np.ndarray]
) -> None:
    recipe = replace(RECIPE, objective=Grpo(answers=3), uses=1)
    run = run_of(recipe, random_model, images, smile, Blind)
    with pytest.raises(GroupError, match=r"image \d: \d+ image tokens for images of 0"):
        run.batch(None, 0)


def test_another_run_is_not_gone_on_with(
    random_model: Path, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was stopped after an iteration; steps train nothing here."""

    def build_step(*_: object) -> Callable:
        done = {"loss": 0.0, "skipped": 0.0}
        return lambda state, _: (state.replace(step=state.step + 1), done)

    def reward(index: int, answers: np.ndarray) -> np.ndarray:
        asked.append(index)
        if len(asked) == stop:
            raise KeyboardInterrupt
        return smile(index, answers)

    monkeypatch.setattr(grpo, "Sampling", lambda _, answers, recipe: Drawn(recipe, answers))
    monkeypatch.setattr(FacePreferences, "build_step", build_step)
    plain = Grpo(answers=2)
    recipe = replace(RECIPE, objective=plain, uses=1, epochs=1, save_every=1)  # 2 iterations
    asked: list[int] = []
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        train(recipe, random_model, images, reward, tmp_path)
    stop = 0
    darker = [image // 2 for image in images]
    for changed, given, problem in (
        (replace(recipe, learning_rate=1e-3), images, r"learning_rate is 0\.001, was 0\.005\."),
        (replace(recipe, objective=Grpo(2, clip=(0.1, 0.2))), images, r"objective is Grpo\(answ"),
        (recipe, darker, "images has other content"),
    ):
        with pytest.raises(TrainingError, match=rf"{tmp_path} holds a run of .* recipe: {problem}"):
            train(changed, random_model, given, reward, tmp_path)
    accepted = replace(recipe, learning_rate=1e-3, accept_changed_data=True)
    shutil.copytree(tmp_path, tmp_path.with_name("accepted"))
    asked.clear()
    train(accepted, random_model, images, reward, tmp_path.with_name("accepted"))
    assert len(asked) == 2
    asked.clear()
    train(replace(recipe, save_every=5), random_model, images, reward, tmp_path)
    assert len(asked) == 2


def test_what_cannot_be_trained_on_is_refused(
    random_model: Path, images: list[np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(ExampleError, match="no images to learn from"):
        train(RECIPE, random_model, [], smile, tmp_path / "none")
    with pytest.raises(ValueError, match=r"uses is 2; more than 1 needs Grpo\(needs_old=True\)"):
        GrpoRecipe(uses=2)
    with pytest.raises(
        ValueError, match=r"3 groups of a batch cannot be shared by \('upper', 'low"
    ):
        GrpoRecipe(rows=3, regions=("upper", "lower"))


def test_a_reward_that_is_none_is_refused_by_its_image(
    random_model: Path, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpo, "Sampling", lambda _, answers, recipe: Drawn(recipe, answers))
    for wrong in (np.zeros(5), np.full(6, np.inf)):
        with pytest.raises(ExampleError, match=r"image \d: its rewards are .*, expected 6 numbers"):
            train(RECIPE, random_model, images, lambda *_, wrong=wrong: wrong, tmp_path)


@pytest.mark.slow
def test_an_interrupted_run_is_resumed(
    random_model: Path, images: list[np.ndarray], tmp_path: Path
) -> None:
    """It takes the images and answers that it would have taken, and ends alike."""
    recipe = replace(RECIPE, epochs=2)  # 4 iterations
    seen: list[bytes] = []

    def reward(index: int, answers: np.ndarray) -> np.ndarray:
        seen.append(answers.tobytes())
        if stop and len(seen) == stop:
            raise KeyboardInterrupt
        return smile(index, answers)

    stop = 0
    train(recipe, random_model, images, reward, tmp_path / "whole")
    whole, seen = list(seen), []
    stop = 6  # in the third iteration
    with pytest.raises(KeyboardInterrupt):
        train(recipe, random_model, images, reward, tmp_path / "parted")
    seen, stop = [], 0
    train(recipe, random_model, images, reward, tmp_path / "parted")
    assert seen == whole[4:]
    one, other = (tmp_path / name / "metrics.jsonl" for name in ("whole", "parted"))
    assert one.read_text() == other.read_text()
