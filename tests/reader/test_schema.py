"""A model directory with a schema of its own: ten channels, read everywhere as ten."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

import sf_jax
from sf_jax import cli
from sf_jax.decode.schema import MEDIAN, VALUES_FIRST
from sf_jax.decode.schema_file import FILE, SchemaFileError, write_schema
from sf_jax.face import answers, livelink
from sf_jax.face.channels import HIGH, INDEX, LOW, NAMES
from sf_jax.model.config import Config
from sf_jax.reader import estimator, loading
from sf_jax.reader.action import FaceAction
from sf_jax.reader.schema import channel_schema, read_channel_schema
from sf_jax.serve.client import Session, ask
from sf_jax.serve.service import Limits
from tests.serve.test_service import on_loopback
from tests.small import write_random_model

READ = (
    "JawOpen", "MouthSmileLeft", "MouthSmileRight", "EyeBlinkLeft", "EyeBlinkRight",
    "BrowInnerUp", "CheekPuff", "HeadYaw", "HeadPitch", "LeftEyeYaw",
)  # fmt: skip
IN_ORDER = tuple(sorted(READ, key=lambda name: INDEX[name]))
ROWS = [INDEX[name] for name in IN_ORDER]
OTHERS = [i for i in range(61) if i not in ROWS]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Path:
    """Random weights of a tiny shape that read ten channels, in an order of their own."""
    folder = tmp_path_factory.mktemp("ten")
    schema = channel_schema(READ, decimals=2)
    return write_random_model(folder, tiny_config, schema)


@pytest.fixture(scope="module")
def model(directory: Path) -> estimator.Model:
    return sf_jax.load(directory)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rows, columns = np.mgrid[:96, :80]
    waves = np.stack([np.sin(rows / 9 + k) + np.cos(columns / (7 + k)) for k in range(3)], -1)
    return np.clip(128 + 50 * waves, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def action(model: estimator.Model, image: np.ndarray) -> FaceAction:
    return model.predict(image, max_rationale=8)


def test_the_directory_carries_its_schema(directory: Path, model: estimator.Model) -> None:
    assert model.schema == channel_schema(READ, decimals=2)
    assert loading.load_schema(directory) == model.schema
    built_in = replace(channel_schema(), order=VALUES_FIRST, estimate=MEDIAN)
    assert loading.load_schema() == built_in
    assert len(model.program.kind) == 10


def test_other_channels_are_unknown_and_not_zero(
    model: estimator.Model, action: FaceAction, image: np.ndarray
) -> None:
    for values in (action.coefficients, action.answer, action.spread, action.entropy):
        assert values.shape == (61,) and values.dtype == np.float32
        assert np.isnan(values[OTHERS]).all() and np.isfinite(values[ROWS]).all()
    assert (action.coefficients[ROWS] >= LOW[ROWS]).all()
    assert (action.coefficients[ROWS] <= HIGH[ROWS]).all()
    assert action.channels == IN_ORDER and tuple(action.as_dict()) == IN_ORDER
    block = json.loads(action.text[action.text.rindex("{") :])
    assert tuple(block) == READ  # in the order of the model's own schema
    assert [block[name] for name in IN_ORDER] == pytest.approx(action.answer[ROWS].tolist())
    jsonschema.Draft202012Validator(model.schema.json_schema()).validate(block)
    parsed = answers.parse(action.text, channels=READ)
    np.testing.assert_allclose(parsed.coefficients, action.answer[[INDEX[n] for n in READ]])
    plain = model.predict(image, max_rationale=8, decoding="sequential")
    assert plain.text == action.text
    again = model.predict(image, max_rationale=8, previous=action)
    assert again.text == action.text and again.passes["coefficients"] == 1


def test_likelihoods_are_of_the_channels_read(
    model: estimator.Model, action: FaceAction, image: np.ndarray
) -> None:
    scored = model.score(image, action.answer)
    mute = model.predict(image, rationale=False)
    likeliest = model.score(image, mute.answer)
    assert np.isnan(scored.coefficients[OTHERS]).all() and np.isfinite(scored.total)
    np.testing.assert_allclose(likeliest.coefficients, mute.log_likelihood, atol=1e-4)


def test_files_hold_ten_channels(
    directory: Path, image: np.ndarray, tmp_path: Path, action: FaceAction
) -> None:
    Image.fromarray(image).save(tmp_path / "face.png")
    command = ["predict", tmp_path / "face.png", "--model", directory, "--out", tmp_path / "out"]
    assert cli.main([*map(str, command), "--max-rationale-tokens", "8"]) == 0
    found = json.loads((tmp_path / "out" / "face.json").read_text())
    for field in ("coefficients", "mean", "answer", "spread", "entropy", "log_likelihood"):
        assert tuple(found[field]) == IN_ORDER
    assert (tmp_path / "out" / "face.preview.png").stat().st_size > 10_000
    table = tmp_path / "out" / "face.csv"
    with table.open() as file:
        (row,) = csv.DictReader(file)
    assert row["BlendShapeCount"] == "10"
    assert {name for name in NAMES if row[name]} == set(READ)
    with pytest.raises(
        livelink.LiveLinkError, match="10 of 61 channels hold a value, as of a model"
    ):
        livelink.read(table)
    take = livelink.read(table, subset=True)
    assert np.isnan(take.coefficients[0, OTHERS]).all()
    np.testing.assert_allclose(take.coefficients[0, ROWS], action.coefficients[ROWS], atol=1e-6)


def test_a_session_smooths_what_is_read(
    model: estimator.Model, image: np.ndarray, action: FaceAction
) -> None:
    with on_loopback(model, Limits(max_rationale=(8,)), batch=1) as url:
        alone = ask(url, image, max_rationale=8)
        np.testing.assert_array_equal(alone.coefficients, action.coefficients)
        assert alone.channels == IN_ORDER
        with Session(url, smooth=True, max_rationale=8) as session:
            frames = [session.frame(shown) for shown in (image, 255 - image, image)]
    for frame in frames:
        assert np.isnan(frame.values[OTHERS]).all() and np.isfinite(frame.values[ROWS]).all()


def test_requests_keep_failed_rows_apart(
    directory: Path, image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    Image.fromarray(image).save(tmp_path / "a.png")
    asked = {"messages": [{"role": "user", "content": "<image>?"}]}
    lines = [asked | {"images": [name]} for name in ("a.png", "none.png")]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["predict", "--model", directory, "--requests", tmp_path / "in.jsonl", "--results"]
    command += [tmp_path / "out.jsonl", "--csv", tmp_path / "out.csv", "--no-rationale"]
    assert cli.main([*map(str, command)]) == 2
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["BlendShapeCount"] for row in rows] == ["10", "0"]
    assert rows[0]["JawOpen"] and not rows[1]["JawOpen"] and not rows[0]["TongueOut"]


def test_the_schema_at_the_shell(directory: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["schema", "--model", str(directory)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert tuple(found["properties"]) == READ
    assert 0.01 in found["$defs"]["0 to 1"]["enum"]


def test_evaluation_asks_for_all_channels(directory: Path, capsys: pytest.CaptureFixture) -> None:
    """Records have labels of all channels in canonical order: none is taken for another."""
    assert cli.main(["evaluate", "--count", "1", "--model", str(directory)]) == 2
    assert f"{directory / FILE}, field 'slots'" in capsys.readouterr().err
    assert cli.main(["schema", "--model", "no/such/folder"]) == 2
    assert "no/such/folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, field, problem",
    [
        ({"names": ("JawOpen", "Foo")}, "slots[1].name", "'Foo' is not one of the 61 channels"),
        ({"names": ("JawOpen", "jawOpen")}, "slots[1].name", "JawOpen is in two slots"),
        ({"low": (0.0, -0.5)}, "slots[1].low", "-0.5 is out of 0 to 1, the range of CheekPuff"),
        ({"high": (1.5, 1.0)}, "slots[0].high", "1.5 is out of 0 to 1, the range of JawOpen"),
        ({"decimals": 4}, "slots[0].high", "more than the 2001 values that a slot may have"),
        ({"high": (1e300, 1.0)}, "slots[0].high", "more than the 2001 values that a slot may"),
    ],
)
def test_slots_that_are_no_channels_are_refused(
    change: dict, field: str, problem: str, tmp_path: Path
) -> None:
    schema = replace(channel_schema(("JawOpen", "CheekPuff")), **change)
    write_schema(tmp_path, schema)
    with pytest.raises(SchemaFileError) as error:
        read_channel_schema(tmp_path, paragraphs=False)
    assert error.value.path == str(tmp_path / FILE) and error.value.field == field
    assert problem in error.value.problem
