"""`sf-jax calibrate`: the file that it writes, and what a model with it answers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import synthetic
from sf_jax.face.channels import NAMES
from sf_jax.reader import calibration, loading
from tests.cli.test_cli import errors, run


def test_spreads_change_and_coefficients_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    model = tmp_path / "model"
    shutil.copytree(loading.BUILTIN, model)
    (model / calibration.FILE).unlink(missing_ok=True)
    synthetic.render(tmp_path / "faces", 8, split="evaluation", workers=1)
    monkeypatch.setattr(calibration, "LEAST", 5)
    assert run("calibrate", model, "--records", tmp_path / "faces", "--batch", 8) == 0
    out = capsys.readouterr().out
    assert str(model / calibration.FILE) in out and "as generated" in out
    stored = json.loads((model / calibration.FILE).read_text())
    assert tuple(stored["shares"]) == NAMES and stored["weights"].startswith("xxh128:")
    assert any(stored["shares"].values())
    image = synthetic.face_record(3, 0, "evaluation")["image"]
    plain, calibrated = (loading.load(each) for each in (loading.BUILTIN, model))
    plain.calibration = None
    first, second = (
        each.predict(image, whole=True, rationale=False) for each in (plain, calibrated)
    )
    np.testing.assert_array_equal(first.coefficients, second.coefficients)
    np.testing.assert_array_equal(first.answer, second.answer)
    assert (first.spread != second.spread).any()


def test_what_is_no_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("calibrate", tmp_path, "--records", tmp_path) == 2
    assert "no config.json" in errors(capsys)[0]
