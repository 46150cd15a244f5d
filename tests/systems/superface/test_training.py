"""Training on judged pairs, and the reference that is asked once."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import sf_jax
from sf_jax.convert import hf
from sf_jax.model.config import Config
from sf_jax.model.declared import initialise
from sf_jax.model.lora import LoraConfig
from sf_jax.reader import loading
from sf_jax.systems.superface import prediction, reference
from sf_jax.systems.superface.examples import AnswerExamples, PairGroups
from sf_jax.systems.superface.reference import ReferenceError
from sf_jax.systems.superface.training import Recipe, feed_of, task_of, train
from sf_jax.train import mesh as meshes
from sf_jax.train.fingerprint import changes
from sf_jax.train.groups import GroupError
from sf_jax.train.hooks import HookConfig
from sf_jax.train.preference import Dpo, Kto
from sf_jax.train.trainable import Trainable
from tests.systems.superface import judging

RECIPE = Recipe(
    objective=Dpo(beta=0.1),
    learning_rate=3e-3,
    epochs=6,
    rows=2,
    groups=2,
    warmup=0.0,
    unrolled=False,
)


@pytest.fixture(scope="module")
def pairs(random_model: Path) -> PairGroups:
    answers = AnswerExamples.of(random_model, RECIPE.config_in(random_model))
    return judging.groups(replace(answers, processor=judging.PROCESSOR), 6)


@pytest.fixture(scope="module")
def trained(
    random_model: Path, pairs: PairGroups, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("run")
    held_out = judging.groups(pairs.answers, 2)
    logged = HookConfig(log_every=1)
    assert train(RECIPE, random_model, pairs, out, held_out, beside=logged) == out / "model"
    return out


@pytest.mark.slow
def test_a_model_learns_what_was_chosen(
    random_model: Path, pairs: PairGroups, trained: Path
) -> None:
    task = task_of(RECIPE, random_model, pairs)
    _, weights = hf.load(random_model)
    known = reference.with_reference(task, weights, pairs, trained)
    _, after = hf.load(trained / "model")
    assert reference.file_of(task, weights, pairs, trained).exists()  # of the run
    assert np.abs(prediction.margins(task, weights, known)).max() < 1e-3
    found = prediction.margins(task, after, known)
    scores = prediction.scores(found, known)
    print(f"\nmargins {np.round(found, 1)}: {scores}")
    assert found.min() > 0 and scores["agreement"] == 1 and scores["margin"] > 1
    lines = (trained / "metrics.jsonl").read_text().splitlines()
    assert '"evaluation/agreement"' in lines[-1] and '"margin"' in lines[0]


def test_a_reference_is_asked_once(
    random_model: Path, pairs: PairGroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what it is and what it is asked; changed pixels change what it answers."""
    task = task_of(RECIPE, random_model, pairs)
    _, weights = hf.load(random_model)
    path = reference.file_of(task, weights, pairs, tmp_path)
    first = reference.log_probabilities(task, weights, pairs, tmp_path)
    assert [path] == list(tmp_path.iterdir())
    other = replace(pairs, image=lambda pair: 255 - pairs.image(pair))  # by the same names
    assert reference.file_of(task, weights, other, tmp_path) != path
    second = reference.log_probabilities(task, weights, other, tmp_path)
    assert (np.abs(first - second) > 1e-3).all()
    moved = jax.tree.map(lambda x: x * (1 + 1e-6), weights)
    assert reference.file_of(task, moved, pairs, tmp_path) != path

    def refuse(*_: object) -> None:
        raise AssertionError("the reference was asked again")

    monkeypatch.setattr(reference, "answer_log_probabilities", refuse)
    kept = reference.log_probabilities(task, weights, pairs, tmp_path)
    np.testing.assert_array_equal(kept, first)
    with pytest.raises(AssertionError, match="asked again"):
        reference.log_probabilities(task, moved, pairs, tmp_path)


def test_a_damaged_file_of_the_reference_is_refused_by_name(
    random_model: Path, pairs: PairGroups, tmp_path: Path
) -> None:
    task = task_of(RECIPE, random_model, pairs)
    _, weights = hf.load(random_model)
    path = reference.file_of(task, weights, pairs, tmp_path)
    for content in (b"PK\x03\x04 cut off", b""):
        path.write_bytes(content)
        with pytest.raises(ReferenceError, match="delete the file, and it is computed anew") as e:
            reference.log_probabilities(task, weights, pairs, tmp_path)
        assert str(path) in str(e.value)
    np.savez(path, log_probabilities=np.zeros((5, 2), np.float32))
    with pytest.raises(ReferenceError, match=r"has the shape \[5, 2\], expected \[6, 2\]"):
        reference.log_probabilities(task, weights, pairs, tmp_path)


def test_rows_are_as_long_as_pairs_need(random_model: Path, pairs: PairGroups) -> None:
    task = task_of(RECIPE, random_model, pairs)
    (tokens, patches), *_ = pairs.measured[0]
    assert task.length % 64 == 0 and 2 * tokens <= task.length < 2 * tokens + 64
    assert task.patches == 2 * patches and task.group_count == 2
    assert task.optimizer.steps == 6 * 6 / 4
    small = replace(task, length=64)
    with pytest.raises(GroupError, match=rf"{pairs.judged[0].where}: its answers take {tokens} t"):
        small.room.size(pairs.group(0))


@pytest.mark.slow
def test_an_adapter_is_written_beside_the_model_it_was_summed_into(
    random_model: Path, pairs: PairGroups, tmp_path: Path
) -> None:
    lora = LoraConfig(rank=4, alpha=8.0, targets=r".*language_model.*_proj")
    recipe = replace(RECIPE, trainable=Trainable(None, lora))
    folder = train(recipe, random_model, pairs, tmp_path)
    assert folder == tmp_path / "model"
    beside = sf_jax.load(random_model, adapter=tmp_path / "adapter")
    summed = sf_jax.load(folder)
    image = judging.pair(0)[1]
    one, other = (m.predict(image, rationale=False, whole=True) for m in (beside, summed))
    np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-3)
    _, before = hf.load(random_model)
    _, after = hf.load(folder)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), before, after)
    assert all(jax.tree.leaves(same.vision)) and not all(jax.tree.leaves(same.text))
    kept = (folder / "model.safetensors").read_bytes()
    assert train(recipe, random_model, pairs, tmp_path) == folder  # a run that is over
    assert (folder / "model.safetensors").read_bytes() == kept
    alone = train(replace(recipe, merged=False), random_model, pairs, tmp_path / "alone")
    assert alone == tmp_path / "alone" / "adapter" and not (tmp_path / "alone" / "model").exists()


@pytest.mark.slow
def test_an_instructed_model_learns_tokens_of_values(tiny_config: Config, tmp_path: Path) -> None:
    """A chat model, which spells values digit by digit; one that is judged whole learns its end."""
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = judging.digits(folder)
    made = judging.answers_of(tiny_config, tokenizer, slots=False)
    weights = initialise(made.config.declare(), 0)
    loading.save(folder, made.config, weights, tokenizer, judging.PROCESSOR)
    recipe = replace(RECIPE, chunks=4, epochs=4, objective=Kto(beta=0.1))
    answers = AnswerExamples.of(folder, recipe.config_in(folder))
    assert not answers.slots
    pairs = judging.groups(answers, 4, unlike=True)
    out = train(recipe, folder, pairs, tmp_path / "run")
    task = task_of(recipe, folder, pairs)
    known = reference.with_reference(task, weights, pairs, tmp_path / "run")
    assert known.reference is not None and known.reference.shape == (4, 3)
    found = prediction.margins(task, hf.load(out)[1], known)
    print(f"\nmargins {np.round(found, 1)}")
    assert found.min() > 0
    whole = next(i for i, one in enumerate(pairs.judged) if one.pair.region == "whole")
    assert pairs.group(whole).answers[0].loss_weights[-1] == 1


def test_other_judgements_of_the_same_pairs_are_other_data(
    random_model: Path, pairs: PairGroups
) -> None:
    """A run that was interrupted is not resumed with them."""
    task = task_of(RECIPE, random_model, pairs)
    mesh = meshes.make({}, jax.devices()[:1])
    doubted = [replace(one, label_smoothing=0.2) for one in pairs.judged]
    found = [
        feed_of(task, random_model, RECIPE, given, mesh).fingerprint
        for given in (pairs, pairs, replace(pairs, judged=doubted))
    ]
    assert found[0] is not None and found[2] is not None
    assert found[0] == found[1] and "pairs has other content" in changes(found[0], found[2])


def test_a_recipe_may_accept_changed_data() -> None:
    accepts = Recipe(accept_changed_data=True)
    assert accepts.run_config(None).accept_changed_data
    assert not Recipe().run_config(None).accept_changed_data
    assert accepts.settings == Recipe().settings  # what is learnt is the same


def test_another_recipe_does_not_go_on_with_a_run(random_model: Path, pairs: PairGroups) -> None:
    """Unless it takes the same steps in another way."""
    task = task_of(RECIPE, random_model, pairs)
    mesh = meshes.make({}, jax.devices()[:1])
    of = lambda recipe: feed_of(task, random_model, recipe, pairs, mesh).fingerprint  # noqa: E731
    first = of(RECIPE)
    assert changes(first, of(replace(RECIPE, accumulate=2, remat="full", merged=False))) == ""
    found = changes(first, of(replace(RECIPE, objective=Dpo(beta=0.2), learning_rate=1e-3)))
    assert found.startswith("learning_rate is 0.001, was 0.003; objective is Dpo(beta=0.2, ")
