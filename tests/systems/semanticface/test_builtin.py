"""The shipped model, as a user meets it.

The floors here catch a broken checkpoint or pipeline; the figures themselves are printed by
`sf-jax evaluate` and `python -m tests.systems.semanticface.builtin_model_checks`.
"""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from sf_jax.face import channels
from sf_jax.reader import estimator, loading
from sf_jax.systems.semanticface.answer_states import rationale_states
from tests.render.shared_rigs import ict_facekit
from tests.systems.semanticface import builtin_model_checks as checks


@pytest.fixture(scope="module")
def model() -> estimator.Model:
    return loading.load()


def test_faces_of_strangers_are_read(model) -> None:
    found = checks.held_out(80)
    labels = np.stack([record["coefficients"] for record in found])
    summary = checks.scores(model, [record["image"] for record in found], labels).summary()
    assert summary["r_52"] > 0.42  # of 0.6 on the scenes that it was trained on
    assert summary["head_degrees"] < 3


def test_words_are_foreseen(model) -> None:
    """By the shipped heads, and by what the recipe learns them from."""
    images = [record["image"] for record in checks.held_out(6)]
    actions = model.predict_batch(images)
    words = sum(len(action.rationale_ids) for action in actions)
    assert words / sum(action.passes["rationale"] for action in actions) > 4
    table = np.asarray(model.weights.text.embed)
    for states, tokens in rationale_states(model, images):
        scores = states @ table.T
        scores[:, model.program.banned & ~model.program.ends] = -np.inf
        assert (scores.argmax(1) == tokens).mean() > 0.98  # but for ties


def test_a_head_of_another_make_is_read(model) -> None:
    assert checks.ict_scores(model, ict_facekit(), 80).summary()["r_52"] > 0.22


def test_mirrored_pictures_give_mirrored_answers(model) -> None:
    assert checks.mirror_agreement(model, 40)[0] > 0.85


@pytest.mark.parametrize("answers", [40, pytest.param(120, marks=pytest.mark.slow)])
def test_sampled_answers_obey_the_grammar(model, answers: int) -> None:
    assert checks.violations(model, answers) == 0


def test_every_number_is_in_range_and_spread_fits(model) -> None:
    action = model.predict(checks.held_out(1)[0]["image"])
    for values in (action.coefficients, action.answer):
        assert values.shape == (61,) and values.dtype == np.float32
        assert (values >= channels.LOW).all() and (values <= channels.HIGH).all()
    assert (action.spread >= 0).all() and action.spread.max() > 0
    assert list(action.as_dict()) == list(channels.NAMES)


PROGRAM = """
import hashlib, sf_jax
from tests.systems.semanticface import builtin_model_checks as checks
action = sf_jax.load().predict(checks.held_out(3)[2]["image"])
digest = hashlib.sha256(action.coefficients.tobytes() + action.text.encode()).hexdigest()
print("digest", digest)
"""


def test_two_processes_agree_to_the_bit(model) -> None:
    action = model.predict(checks.held_out(3)[2]["image"])
    here = hashlib.sha256(action.coefficients.tobytes() + action.text.encode()).hexdigest()
    other = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert f"digest {here}" in other.stdout


def test_both_decodings_give_one_answer(model) -> None:
    pictures = [record["image"] for record in checks.held_out(6)]
    drafted = model.predict_batch(pictures)
    plain = model.predict_batch(pictures, decoding="sequential")
    for ours, theirs in zip(drafted, plain, strict=True):
        assert ours.text == theirs.text
        np.testing.assert_allclose(ours.coefficients, theirs.coefficients, atol=1e-5)
        assert ours.passes["coefficients"] < 12 and theirs.passes["coefficients"] == 61
        assert ours.passes["rationale"] < theirs.passes["rationale"]
    again = model.predict_batch(pictures, previous=drafted)
    for ours, known in zip(drafted, again, strict=True):
        assert ours.text == known.text and known.passes["coefficients"] == 1
        assert known.passes["rationale"] < ours.passes["rationale"]
    with pytest.raises(ValueError, match="decoding is 'guessed'"):
        model.predict(pictures[0], decoding="guessed")


def test_an_answer_does_not_depend_on_its_neighbours(model) -> None:
    pictures = [record["image"] for record in checks.held_out(2)]
    together = model.predict_batch(pictures, temperature=[0.0, 0.8], seed=[1, 2])
    assert together[0].text == model.predict(pictures[0]).text
    assert together[1].text == model.predict(pictures[1], temperature=0.8, seed=2).text
    assert together[1].text != model.predict(pictures[1], temperature=0.8, seed=3).text
    with pytest.raises(ValueError, match="temperature is nan"):
        model.predict(pictures[0], temperature=float("nan"))


def test_an_answer_scores_as_it_was_given(model) -> None:
    picture = checks.held_out(1)[0]["image"]
    action = model.predict(picture)
    words = action.text[: action.text.rindex("\n\n{")]
    scored = model.score(picture, action.answer, words)
    np.testing.assert_allclose(scored.coefficients, action.log_likelihood, atol=1e-4)
    assert scored.total == pytest.approx(scored.rationale + action.log_likelihood.sum(), abs=1e-3)
    other = np.where(channels.LOW < 0, 0.9, 1.0)
    assert model.score(picture, other, words).total < scored.total - 10
    assert model.score(picture, action.answer, "Hello.").rationale < scored.rationale
    assert (action.entropy >= 0).all() and (action.entropy <= np.log(21)).all()
    with pytest.raises(ValueError, match="the rationale holds '{'"):
        model.score(picture, action.answer, "a { b")
