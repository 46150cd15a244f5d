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
from tests.render import shared_rigs
from tests.systems.semanticface import builtin_model_checks as checks


@pytest.fixture(scope="module")
def model() -> estimator.Model:
    return loading.load()


# Floors of means, some way below what `sf-jax evaluate` measures.
FLOORS = {"builtin": 0.48, "drawn": 0.55, "rigs": 0.30}


@pytest.mark.parametrize("source", FLOORS)
def test_faces_never_trained_on_are_read(model, source: str) -> None:
    if source == "rigs":
        shared_rigs.needed("rocketbox")
    summary = checks.scores(model, checks.held_out(80, source)).summary()
    assert summary["r_52"] > FLOORS[source]
    if source == "builtin":
        assert summary["head_degrees"] < 3


def test_words_are_foreseen(model) -> None:
    """By the shipped heads, and by what the recipe learns them from."""
    images = checks.framed(6)
    actions = model.predict_batch(images, whole=True)
    words = sum(len(action.rationale_ids) for action in actions)
    assert words / sum(action.passes["rationale"] for action in actions) > 4
    table = np.asarray(model.weights.text.embed)
    for states, tokens in rationale_states(model, images):
        scores = states @ table.T
        scores[:, model.program.banned & ~model.program.ends] = -np.inf
        assert (scores.argmax(1) == tokens).mean() > 0.98  # but for ties


def test_mirrored_pictures_give_mirrored_answers(model) -> None:
    assert checks.mirror_agreement(model, 40)[0] > 0.85


@pytest.mark.parametrize("answers", [40, pytest.param(120, marks=pytest.mark.slow)])
def test_sampled_answers_obey_the_grammar(model, answers: int) -> None:
    assert checks.violations(model, answers) == 0


def test_every_number_is_in_range_and_spread_fits(model) -> None:
    action = model.predict(checks.framed(1)[0], whole=True)
    for values in (action.coefficients, action.answer):
        assert values.shape == (61,) and values.dtype == np.float32
        assert (values >= channels.LOW).all() and (values <= channels.HIGH).all()
    assert (action.spread >= 0).all() and action.spread.max() > 0
    assert list(action.as_dict()) == list(channels.NAMES)


PROGRAM = """
import hashlib, sf_jax
from tests.systems.semanticface import builtin_model_checks as checks
action = sf_jax.load().predict(checks.framed(3)[2], whole=True)
digest = hashlib.sha256(action.coefficients.tobytes() + action.text.encode()).hexdigest()
print("digest", digest)
"""


def test_two_processes_agree_to_the_bit(model) -> None:
    action = model.predict(checks.framed(3)[2], whole=True)
    here = hashlib.sha256(action.coefficients.tobytes() + action.text.encode()).hexdigest()
    other = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert f"digest {here}" in other.stdout


def test_both_decodings_give_one_answer(model) -> None:
    pictures = checks.framed(6)
    drafted = model.predict_batch(pictures, whole=True)
    plain = model.predict_batch(pictures, whole=True, decoding="sequential")
    for ours, theirs in zip(drafted, plain, strict=True):
        assert ours.text == theirs.text
        np.testing.assert_allclose(ours.coefficients, theirs.coefficients, atol=1e-5)
        assert ours.passes["coefficients"] < 12 and theirs.passes["coefficients"] == 61
        assert ours.passes["rationale"] < theirs.passes["rationale"]
    again = model.predict_batch(pictures, whole=True, previous=drafted)
    for ours, known in zip(drafted, again, strict=True):
        assert ours.text == known.text and known.passes["coefficients"] == 1
    passes = [sum(one.passes["rationale"] for one in found) for found in (again, drafted)]
    assert passes[0] < passes[1]
    with pytest.raises(ValueError, match="decoding is 'guessed'"):
        model.predict(pictures[0], decoding="guessed")


def test_an_answer_does_not_depend_on_its_neighbours(model) -> None:
    pictures = checks.framed(2)
    together = model.predict_batch(pictures, whole=True, temperature=[0.0, 0.8], seed=[1, 2])
    assert together[0].text == model.predict(pictures[0], whole=True).text
    assert together[1].text == model.predict(pictures[1], whole=True, temperature=0.8, seed=2).text
    assert together[1].text != model.predict(pictures[1], whole=True, temperature=0.8, seed=3).text
    with pytest.raises(ValueError, match="temperature is nan"):
        model.predict(np.zeros((64, 64, 3), np.uint8), temperature=float("nan"))  # no face


def test_an_answer_scores_as_it_was_given(model) -> None:
    picture = checks.framed(1)[0]
    action = model.predict(picture, whole=True)
    words = action.rationale.text
    scored = model.score(picture, action.answer, words, whole=True)
    np.testing.assert_allclose(scored.coefficients, action.log_likelihood, atol=1e-4)
    assert scored.total == pytest.approx(scored.rationale + action.log_likelihood.sum(), abs=1e-3)
    other = np.where(channels.LOW < 0, 0.9, 1.0)
    assert model.score(picture, other, words, whole=True).total < scored.total - 10
    assert model.score(picture, action.answer, "Hello.", whole=True).rationale < scored.rationale
    assert (action.entropy >= 0).all() and (action.entropy <= np.log(21)).all()
    with pytest.raises(ValueError, match="the rationale holds '{'"):
        model.score(picture, action.answer, "a { b", whole=True)
