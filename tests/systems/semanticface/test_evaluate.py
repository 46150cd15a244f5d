"""What `sf-jax evaluate` computes with a model that frames faces."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_pipelines.sampler import sample
from sf_jax.convert.processor import FittedImage
from sf_jax.face import metrics
from sf_jax.face.bootstrap import Interval
from sf_jax.face.channels import INDEX
from sf_jax.face.head_angles import HEAD
from sf_jax.reader.estimator import Model
from sf_jax.reader.framing import Framed
from sf_jax.systems.semanticface import evaluate, evaluation_report
from tests.reader.test_framed_model import directory, image, model  # noqa: F401 (fixtures)


def test_missed_faces_count_as_zeros_and_rolls_are_put_back(
    model: Model,  # noqa: F811
    directory,  # noqa: F811
    image: np.ndarray,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One image has a face in a turned square, the other none."""
    monkeypatch.setattr(evaluate, "TRAINING_FACES", 50)
    nothing = np.zeros_like(image)
    labels = np.zeros((2, 61), np.float32)
    found = [
        {"image": one, "coefficients": label, "known": np.ones(61, bool), "identity": i}
        for i, (one, label) in enumerate(zip((image, nothing), labels, strict=True))
    ]
    readout = directory / "readout.safetensors"
    compared = evaluate.compare(model, found, readout, False, 2)
    assert compared.found == 1 and compared.people == 2 and compared.count == 2
    assert compared.coverage is not None and np.isfinite(compared.coverage.all)
    seen = [model.framed(one["image"]) for one in found]
    values = evaluate.regression(model, seen, readout)
    assert values is not None and not values[1].any() and values[0].any()
    (action, missed) = evaluate.model_answers(model, seen, 2, False)
    alone = model.predict(image, rationale=False)
    np.testing.assert_allclose(action.coefficients, alone.coefficients, atol=1e-4)
    assert not missed.found
    # Distributions are of the square that was read, turned with the face.
    assert alone.face is not None and abs(alone.face.box.roll) > 0.1
    turned = evaluate.as_generated(alone, alone.coefficients)
    (cut,) = (model.framed(image),)
    upright = model.predict_batch([replace(cut, face=None)], rationale=False)[0]
    np.testing.assert_allclose(turned[HEAD], upright.coefficients[HEAD], atol=1e-4)


def test_answers_that_change_with_compression_are_not_repeatable() -> None:
    class Unsteady:
        """Its jaw opens with the brightness of a pixel, and wider once it has described it."""

        def framed(self, pixels: np.ndarray, whole: bool | None) -> Framed:
            return Framed(FittedImage(pixels))

        def no_face(self) -> SimpleNamespace:
            return SimpleNamespace(coefficients=np.full(61, np.nan, np.float32))

        def predict_batch(self, seen: list, rationale: bool) -> list:
            values = np.zeros((len(seen), 61), np.float32)
            jaws = np.array([one.picture.pixels[0, 0, 0] / 255 for one in seen])
            values[:, INDEX["JawOpen"]] = jaws + 0.3 * rationale
            return [SimpleNamespace(coefficients=row) for row in values]

    noise = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3)).astype(np.uint8)
    flat = np.full((3, 16, 16, 3), 128, np.uint8)
    found = []
    unsteady: Any = Unsteady()
    for images, rationale in ((noise, False), (flat, False), (flat, True)):
        seen = [Framed(FittedImage(pixels)) for pixels in images]
        actions = unsteady.predict_batch(seen, rationale)
        found.append(evaluate.repeatability(unsteady, list(images), actions, 2, rationale, None))
    assert found[0] > 0.0002 and found[1] == found[2] == 0


def test_copies_are_read_as_the_images_were(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    one = SimpleNamespace(coefficients=np.zeros(61), answer=np.zeros(61), agreement=None, found=1)

    def answers(_: Any, images: list, batch: int, rationale: bool) -> list:
        asked.append(rationale)
        return [one] * len(images)

    monkeypatch.setattr(evaluate, "TRAINING_FACES", 50)
    monkeypatch.setattr(evaluate, "model_answers", answers)
    for name in ("regression", "covered"):
        monkeypatch.setattr(evaluate, name, lambda *_: None)
    monkeypatch.setattr(evaluate, "_compared", lambda *_: evaluate.Comparison({}, None))
    reader: Any = SimpleNamespace(framed=lambda *_, **__: None, frames=lambda _: True)
    picture = np.zeros((16, 16, 3), np.uint8)
    record = {"image": picture, "coefficients": np.zeros(61), "known": np.ones(61, bool)}
    for rationale in (True, False):
        evaluate.compare(reader, [record], Path("none"), rationale, 1)
    assert asked == [True] * 3 + [False] * 3


def test_what_is_no_number_is_a_dash_and_null() -> None:
    for none in (None, float("nan"), float("inf")):
        assert evaluation_report.number(none) == evaluation_report.NONE
    assert evaluation_report.number(0.25, 1, sign=True) == "+0.2"
    labels = np.zeros((2, 61), np.float32)
    scores = {"zeros": metrics.evaluate(labels, labels, np.zeros((2, 61), bool))}
    interval = {"r_52": Interval(float("nan"), 1.0)}
    compared = evaluate.Comparison(
        scores, None, {"zeros": interval}, repeatability=float("nan"), read_out="zeros"
    )
    found = evaluation_report.set_json(compared, {"records": "faces"})
    assert found["repeatability"] is None and found["records"] == "faces"
    assert found["scores"]["zeros"]["intervals"] == {"r_52": {"low": None, "high": 1.0}}
    assert found["scores"]["zeros"]["channels"]["JawOpen"] == {
        "r": None,
        "mae": None,
        "active_mae": None,
        "faces": 0,
    }
    json.dumps(found, allow_nan=False)


def test_predictions_of_another_system_are_measured_as_a_models_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluate, "TRAINING_FACES", 50)
    labels = np.stack([sample(i) for i in range(6)])
    found = [
        {"coefficients": one, "known": np.ones(61, bool), "identity": i}
        for i, one in enumerate(labels)
    ]
    predicted = labels.astype(np.float64)
    predicted[5] = np.nan
    compared = evaluate.compare_predictions(predicted, found)
    assert compared.found == 5 and compared.agreement is None and compared.coverage is None
    exact = evaluate.compare_predictions(labels, found)
    assert exact.scores[evaluate.OTHERS].summary()["mae_52"] == 0
    assert exact.faces[evaluate.OTHERS] == pytest.approx(
        {"lips_mm": 0, "lids_mm": 0, "brows_mm": 0, "ssim": 1}, abs=1e-9
    )
    assert compared.faces[evaluate.OTHERS]["lips_mm"] > 0
    assert compared.faces["zeros"]["lips_mm"] > compared.faces[evaluate.OTHERS]["lips_mm"]
    text = evaluation_report.set_tables(compared, "others")
    assert "vertex error, mm" in text and "Rationale" not in text
    assert evaluation_report.overview({"others": compared}).startswith("Read-out: predictions")
    written = evaluation_report.as_json(
        {"others": evaluation_report.set_json(compared, {})}, None, {}
    )
    assert written["read_out"] == "predictions" and written["product_dtype"] is None
    assert written["sets"]["others"]["vertex_errors"]["predictions"]["lips_mm"] > 0
