"""A model directory whose answers begin with their values: read, served and filed as such."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sf_jax
from sf_jax import cli
from sf_jax.decode import decoder
from sf_jax.decode.schema import VALUES_FIRST
from sf_jax.face import answers
from sf_jax.face.describe import Description
from sf_jax.model.config import Config
from sf_jax.reader import estimator
from sf_jax.reader.action import FaceAction
from sf_jax.reader.schema import channel_schema
from sf_jax.serve.client import ask
from sf_jax.serve.service import Limits
from sf_jax.systems.semanticface.answer_states import rationale_states
from tests.serve.test_service import on_loopback
from tests.small import write_random_model

READ = ("JawOpen", "MouthSmileLeft", "MouthSmileRight", "HeadYaw")
CAP = 8


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Path:
    """Random weights of a tiny shape."""
    folder = tmp_path_factory.mktemp("values-first")
    schema = dataclasses.replace(channel_schema(READ), order=VALUES_FIRST)
    return write_random_model(folder, tiny_config, schema)


@pytest.fixture(scope="module")
def model(directory: Path) -> estimator.Model:
    return sf_jax.load(directory)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (96, 80, 3)).astype(np.uint8)


@pytest.fixture
def any_rationale(monkeypatch: pytest.MonkeyPatch) -> None:
    """What random weights generate is no text, and would be left out."""
    monkeypatch.setattr(decoder, "is_degenerate", lambda *_, **__: False)


@pytest.fixture
def action(model: estimator.Model, image: np.ndarray, any_rationale: None) -> FaceAction:
    return model.predict(image, max_rationale=CAP)


def test_values_stand_before_the_text_and_are_the_same_without_it(
    model: estimator.Model, image: np.ndarray, action: FaceAction
) -> None:
    block, _, rationale = action.text.partition("\n\n")
    assert tuple(json.loads(block)) == READ and len(action.rationale_ids) == CAP
    assert answers.parse(action.text, channels=READ).rationale == rationale.strip()
    assert Description.parse(rationale) == action.rationale
    mute = model.predict(image, rationale=False)
    assert mute.text == block and mute.passes["rationale"] == 0
    np.testing.assert_array_equal(mute.coefficients, action.coefficients)
    np.testing.assert_array_equal(mute.spread, action.spread)


def test_a_degenerate_rationale_is_left_out_and_nothing_is_read_again(
    model: estimator.Model,
    image: np.ndarray,
    action: FaceAction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoder, "is_degenerate", lambda *_, **__: True)
    kept = model.predict(image, max_rationale=CAP)
    assert kept.rationale == Description("", "", "", "") and not len(kept.rationale_ids)
    assert kept.agreement is None and kept.text == action.text.partition("\n\n")[0]
    np.testing.assert_array_equal(kept.coefficients, action.coefficients)
    assert kept.passes == action.passes


@pytest.mark.slow
def test_states_of_a_rationale_follow_the_values(
    model: estimator.Model, image: np.ndarray, any_rationale: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimator, "MAX_RATIONALE", CAP)
    ((states, tokens),) = rationale_states(model, [image])
    scores = states @ np.asarray(model.weights.text.embed).T
    scores[:, model.program.banned & ~model.program.ends] = -np.inf
    assert len(tokens) == CAP + 1
    np.testing.assert_array_equal(scores.argmax(1)[:CAP], tokens[:CAP])


@pytest.mark.slow
def test_served_and_filed_as_read(
    directory: Path, model: estimator.Model, image: np.ndarray, action: FaceAction, tmp_path: Path
) -> None:
    with on_loopback(model, Limits(max_rationale=(CAP,)), batch=1) as url:
        served = ask(url, image, max_rationale=CAP)
    assert served.text == action.text and served.agreement == action.agreement
    Image.fromarray(image).save(tmp_path / "face.png")
    command = ["predict", tmp_path / "face.png", "--model", directory, "--out", tmp_path / "out"]
    assert cli.main([*map(str, command), "--max-rationale-tokens", str(CAP)]) == 0
    found = json.loads((tmp_path / "out" / "face.json").read_text())
    assert found["text"] == action.text and found["agreement"] is None
