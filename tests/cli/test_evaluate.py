"""`sf-jax evaluate --out`: every figure, with what it was made of."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import sf_jax
from data_pipelines import records
from sf_jax.cli import loading
from sf_jax.face import bootstrap, coverage, metrics
from sf_jax.face.agreement import agreement
from sf_jax.face.channels import NAMES
from sf_jax.face.describe import describe
from sf_jax.systems.semanticface import evaluate
from tests.cli.test_cli import FakeModel, errors, names, run


class Evaluated(FakeModel):
    class config:
        product_dtype = "float32"


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records of a model whose scores are known."""

    def compared(model, found, *_) -> evaluate.Comparison:
        labels = np.stack([record["coefficients"] for record in found])
        scores = {"zeros": metrics.evaluate(np.zeros_like(labels), labels)}
        scores[evaluate.MEANS] = metrics.evaluate(labels, labels)
        known, spread = np.ones(labels.shape, bool), np.full(labels.shape, 0.5)
        return evaluate.Comparison(
            scores,
            agreement(describe(labels[0]), labels[0]),
            {evaluate.MEANS: bootstrap.intervals(labels, labels, known, np.arange(len(labels)))},
            people=len(labels),
            found=len(labels) - 1,
            coverage=coverage.coverage(spread, labels, known),
        )

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
    assert found["faces"] == 4 and found["read_out"] == "model, mean"
    assert set(found["versions"]) == {"python", "jax", "jaxlib", "numpy"}
    (own,) = found["sets"].values()
    assert own["record_files"]["a.array_record"]["records"] == 5
    scores = own["scores"]["zeros"]
    assert set(scores["all"]) >= {"r_52", "mae_52", "head_degrees"}
    assert len(scores["channels"]) == 61 and set(scores["regions"]) == set(metrics.REGIONS)
    assert [c["active_mae"] for c in scores["channels"].values()].count(None) == 10
    assert own["agreement"]["exact"] == 1.0 and own["agreement"]["rationales"] == 1
    assert own["people"] == 4 and own["found"] == 3 and own["coverage"]["all"] == 1.0
    assert set(own["scores"]["model, mean"]["intervals"]["mae_52"]) == {"low", "high"}
    written = (tmp_path / "results" / "evaluation.md").read_text()
    printed = capsys.readouterr().out
    for part in ("zeros", "within one level 1.000", "1 missed ones count as zeros", "4 people"):
        assert part in written and part in printed


def test_several_sets_in_one_run(faces: Path, tmp_path: Path, capsys) -> None:
    """Each has a row in the overview; two of the same name would be one."""
    other = tmp_path / "others"
    shutil.copytree(faces, other)
    out = tmp_path / "a.json"
    assert run("evaluate", "--records", faces, other, "--out", out) == 0
    assert set(json.loads(out.read_text())["sets"]) == {"faces", "others"}
    overview = capsys.readouterr().out.partition("Read-out")[2]
    assert "\nfaces " in overview and "\nothers " in overview
    assert run("evaluate", "--records", faces, tmp_path / "." / "faces") == 2
    assert "given already" in errors(capsys)[0]


def test_a_set_with_nothing_known_is_refused(faces: Path, tmp_path: Path, capsys) -> None:
    row = next(records.read(faces / "a.array_record"))
    nothing = {"coefficients": np.zeros(61, np.float32), "known": np.zeros(61, bool)}
    (tmp_path / "portraits").mkdir()
    records.write(tmp_path / "portraits" / "a.array_record", [row | nothing])
    assert run("evaluate", "--records", tmp_path / "portraits") == 2
    assert "portraits: no coefficient is known" in errors(capsys)[0]


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


def test_predictions_in_place_of_a_model(faces: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(evaluate, "TRAINING_FACES", 20)
    labels = [record["coefficients"].tolist() for record in records.first(faces, 5)]
    lines = [json.dumps({"coefficients": dict(zip(NAMES, row, strict=True))}) for row in labels]
    file, out = tmp_path / "other.jsonl", tmp_path / "results"
    file.write_text("\n".join(lines))
    assert run("evaluate", "--records", faces, "--predictions", file, "--out", out) == 0
    found = json.loads((out / "evaluation.json").read_text())
    assert found["sf_jax"] == {"version": sf_jax.__version__} and "model" not in found
    (measured,) = found["sets"].values()
    assert measured["scores"]["predictions"]["all"]["mae_52"] == pytest.approx(0, abs=1e-6)
    assert measured["predictions"] == str(file) and found["read_out"] == "predictions"
    capsys.readouterr()
    assert run("evaluate", "--predictions", file) == 2
    assert "--predictions has 1 files for 0 of --records" in capsys.readouterr().err
    assert run("evaluate", "--records", faces, "--predictions", file, "--whole") == 2
    assert "--whole does not go with --predictions" in capsys.readouterr().err
    file.write_text("{}")
    assert run("evaluate", "--records", faces, "--predictions", file) == 2
    assert "other.jsonl, line 1, field 'coefficients': is missing" in capsys.readouterr().err
