"""`sf-jax evaluate --out`: every figure, with what it was made of."""

import json
from pathlib import Path

import numpy as np
import pytest

import sf_jax
from sf_jax.cli import loading
from sf_jax.face import metrics
from sf_jax.face.agreement import agreement
from sf_jax.face.describe import describe
from sf_jax.systems.semanticface import evaluate
from tests.cli.test_cli import FakeModel, errors, names, run


class Evaluated(FakeModel):
    class config:
        product_dtype = "float32"


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records of a model whose scores are known."""
    from data_pipelines import records

    def compared(model, found, *_) -> evaluate.Comparison:
        labels = np.stack([record["coefficients"] for record in found])
        scores = {"zeros": metrics.evaluate(np.zeros_like(labels), labels)}
        return evaluate.Comparison(scores, agreement(describe(labels[0]), labels[0]))

    monkeypatch.setattr(loading, "load_model", lambda *_: Evaluated())
    monkeypatch.setattr(evaluate, "compare", compared)
    labels = np.random.default_rng(0).random((5, 61)).astype(np.float32)
    labels[:, 3] = 0  # never active: that error is not a number
    image = np.zeros((8, 8, 3), np.uint8)
    rows = [{"image": image, "coefficients": row, "rationale": ""} for row in labels]
    (tmp_path / "faces").mkdir()
    records.write(tmp_path / "faces" / "a.array_record", rows)
    return tmp_path / "faces"


@pytest.mark.parametrize("out", ["results", "results/evaluation.json"])
def test_all_figures_are_written(faces: Path, tmp_path: Path, out: str, capsys) -> None:
    command = ["evaluate", "--records", faces, "--count", 4, "--out", tmp_path / out]
    assert run(*command) == 0
    assert names(tmp_path / "results") == ["evaluation.json", "evaluation.md"]
    found = json.loads((tmp_path / "results" / "evaluation.json").read_text())
    assert found["sf_jax"] == {"version": sf_jax.__version__, "weights": "xxh128:0"}
    assert found["faces"] == 4 and found["record_files"]["a.array_record"]["records"] == 5
    assert set(found["versions"]) == {"python", "jax", "jaxlib", "numpy"}
    scores = found["scores"]["zeros"]
    assert set(scores["all"]) >= {"r_52", "mae_52", "head_degrees"}
    assert len(scores["channels"]) == 61 and set(scores["regions"]) == set(metrics.REGIONS)
    assert [c["active_mae"] for c in scores["channels"].values()].count(None) == 10
    assert found["agreement"]["exact"] == 1.0 and found["agreement"]["rationales"] == 1
    written = (tmp_path / "results" / "evaluation.md").read_text()
    assert written in capsys.readouterr().out and "zeros" in written
    assert "within one level 1.000" in written


def test_without_out_nothing_is_written(faces: Path, tmp_path: Path) -> None:
    assert run("evaluate", "--records", faces) == 0
    assert names(tmp_path) == ["faces"]


def test_an_out_that_cannot_be_written_is_refused_before_the_work(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(loading, "load_model", lambda *_: pytest.fail("the model is loaded"))
    (tmp_path / "text").write_text("kept")
    (tmp_path / "a.json").mkdir()
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "evaluation.md").write_text("my notes")
    for out in ("text", "a.json", "text/below", "before"):
        assert run("evaluate", "--records", faces, "--out", tmp_path / out) == 2
        (line,) = errors(capsys)
        assert str(tmp_path) in line
    assert (tmp_path / "text").read_text() == "kept"
    assert names(tmp_path / "before") == ["evaluation.md"]
