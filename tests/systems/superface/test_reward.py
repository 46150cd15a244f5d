"""A reward model learnt from judged pairs."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.convert import checksums, hf
from sf_jax.convert.tensor_files import CheckpointError
from sf_jax.face import regions
from sf_jax.face.channels import INDEX
from sf_jax.model.declared import initialise
from sf_jax.systems.superface import reward
from sf_jax.systems.superface.examples import AnswerExamples, PairGroups
from sf_jax.systems.superface.reward import RewardModel, RewardRecipe, load, train
from sf_jax.train.groups import GroupBatch
from sf_jax.train.hooks import HookConfig
from sf_jax.train.reward import RewardWeights, scores
from tests.systems.superface import judging

RECIPE = RewardRecipe(
    learning_rate=1e-2, epochs=10, rows=2, groups=2, warmup=0.0, unrolled=False, hidden=16
)


@pytest.fixture(scope="module")
def pairs(random_model: Path) -> PairGroups:
    answers = AnswerExamples.of(random_model, RECIPE.config_in(random_model))
    return judging.groups(replace(answers, processor=judging.PROCESSOR), 6)


@pytest.fixture(scope="module")
def model(random_model: Path, pairs: PairGroups) -> RewardModel:
    """One whose head is random, which has learnt nothing."""
    task = reward.task_of(RECIPE, random_model, pairs)
    head = reward.declared_head(task.config, RECIPE.hidden)
    out = replace(head.out, weight=replace(head.out.weight, init="normal", scale=1.0))
    drawn = initialise(replace(head, out=out), 0)
    weights = RewardWeights(hf.load(random_model)[1], drawn)
    return RewardModel(task, weights, pairs.answers)


@pytest.mark.slow
def test_chosen_answers_are_scored_higher(
    random_model: Path, pairs: PairGroups, tmp_path: Path
) -> None:
    """By the head and adapters; the loss begins at ln 2, since all scores are 0."""
    logged = HookConfig(log_every=1)
    model = train(RECIPE, random_model, pairs, tmp_path, pairs, beside=logged)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert '"loss": 0.693' in lines[0] and '"evaluation/calibration_error"' in lines[-1]
    margins, found = model.margins(pairs), model.calibration(pairs)
    print(f"\nmargins {np.round(margins, 2)}, accuracy {found.accuracy}, error {found.error:.3f}")
    assert margins.min() > 0 and found.accuracy == 1 and found.log_loss < 0.5
    again = load(tmp_path / "model")
    given = replace(pairs, answers=again.answers)
    np.testing.assert_allclose(again.margins(given), margins, atol=1e-4)


def test_a_score_is_of_the_region_alone_and_of_the_image(
    pairs: PairGroups, model: RewardModel
) -> None:
    """The head reads the tokens of the region's values, which have attended to the image."""
    one = pairs.judged[0]
    image = pairs.answers.processor.fit(pairs.image(one.pair))
    both = np.stack([one.chosen_coefficients, one.rejected_coefficients])
    alone = model(image, both, one.pair.region)
    assert alone[0] - alone[1] == pytest.approx(model.margins(pairs)[0], abs=1e-3)
    other = pairs.answers.processor.fit(255 - image.pixels)
    assert (np.abs(model(other, both, one.pair.region) - alone) > 1e-4).all()
    # The roll of the head follows all slots of the lower face, and is none of them.
    last = both[:1].copy()
    last[0, INDEX["HeadRoll"]] = 0.5
    plain = model(image, both[:1], "lower")
    assert model(image, last, "lower") == pytest.approx(plain, abs=1e-5)
    assert abs(model(image, last, "whole") - model(image, both[:1], "whole"))[0] > 1e-5


def test_scores_of_several_regions_are_those_of_each(pairs: PairGroups, model: RewardModel) -> None:
    one = pairs.judged[0]
    image = pairs.answers.processor.fit(pairs.image(one.pair))
    both = np.stack([one.chosen_coefficients, one.rejected_coefficients])
    found = model.by_region(image, both, ("upper", "lower"))
    alone = [model(image, both, region) for region in ("upper", "lower")]
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert np.abs(found[0] - found[1]).min() > 1e-4


@pytest.mark.parametrize(
    ("answers", "judged", "rows"),
    [
        (1, ("upper",), [1]),
        (2, ("upper", "lower"), [1]),
        (8, ("lower",), [2]),
        (9, ("upper",), [3]),
        (40, ("upper",), [8, 8]),
    ],
)
def test_as_many_rows_are_scored_as_the_answers_need(
    pairs: PairGroups, model: RewardModel, answers: int, judged: tuple, rows: list[int]
) -> None:
    """Four answers to a row, and never more rows than training takes at once."""
    large = RewardModel(replace(model.task, rows=16, accumulate=2), model.weights, pairs.answers)
    image = pairs.answers.processor.fit(pairs.image(pairs.judged[0].pair))
    asked = []

    def scored(_: object, batch: GroupBatch) -> np.ndarray:
        asked.append(len(batch.weights))
        return np.arange(batch.weights.size, dtype=np.float32).reshape(*batch.weights.shape, 1)

    vars(large._of_single)["asked"] = scored
    coefficients = np.stack([judging.drawn(i) for i in range(answers)])
    found = large.by_region(image, coefficients, judged)
    assert asked == rows and found.shape == (len(judged), answers)
    np.testing.assert_array_equal(found.ravel()[:32], np.arange(len(judged) * answers)[:32])


def test_only_states_of_the_region_reach_a_score(
    pairs: PairGroups, model: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of an upper score by a state is zero but at the values of the upper face."""
    group = replace(pairs, judged=[o for o in pairs.judged if o.pair.region == "upper"]).group(0)
    batch = model.task.build([[group]])
    slots = np.asarray(batch.rows.slots)
    states = np.random.default_rng(0).normal(
        size=(*slots.shape, model.task.config.text.hidden_size)
    )

    def upper(states: jax.Array) -> jax.Array:
        monkeypatch.setattr("sf_jax.train.reward.forward", lambda *_, **__: (states, None))
        return scores(model.weights, batch.rows, model.task.config, 2).sum()

    moved = np.abs(np.asarray(jax.grad(upper)(jnp.asarray(states, jnp.float32)))).max(-1) > 0
    before = np.isin(slots, 1 + np.flatnonzero(regions.channels("upper")))
    np.testing.assert_array_equal(moved, np.roll(before, 1, 1))


def test_what_is_written_is_read_again_and_damage_is_named(
    random_model: Path, pairs: PairGroups, model: RewardModel, tmp_path: Path
) -> None:
    model.save(random_model, tmp_path)
    again = load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.weights, model.weights)
    assert (again.task.length, again.task.hidden) == (model.task.length, RECIPE.hidden)
    for name in (reward.FILE, reward.SETTINGS):
        path = tmp_path / name
        content = path.read_bytes()
        last = content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]  # a digit, or of a weight
        path.write_bytes(last)
        with pytest.raises(CheckpointError, match=f"{name}: differs from its checksum"):
            load(tmp_path)
        path.write_bytes(content)
    checksums.unseal(tmp_path)  # as one that others have made
    for name in (reward.FILE, reward.SETTINGS):
        path = tmp_path / name
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=name):
                load(tmp_path)
        path.write_bytes(content)
