"""Answers of other systems from files."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.sampler import sample
from sf_jax.face import livelink
from sf_jax.face.channels import INDEX, NAMES
from sf_jax.systems.semanticface import predictions
from sf_jax.systems.semanticface.predictions import PredictionsError

FACES = np.stack([sample(i) for i in range(4)]).astype(np.float64)


def lines(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_answers_in_any_kind_of_file(tmp_path: Path) -> None:
    named = [dict(zip(NAMES, row.tolist(), strict=True)) for row in FACES]
    given = lines(tmp_path / "a.jsonl", [{"coefficients": one, "image": "x"} for one in named])
    np.testing.assert_allclose(predictions.read(given, 3), FACES[:3])
    swift = lines(
        tmp_path / "b.jsonl", [{"response": f"A smile. {json.dumps(one)}"} for one in named]
    )
    np.testing.assert_allclose(predictions.read(swift, 4), FACES, atol=1e-6)
    timecodes = [f"00:00:00:{i:02}.000" for i in range(len(FACES))]
    livelink.write(tmp_path / "c.csv", FACES, timecodes=timecodes)
    np.testing.assert_allclose(predictions.read(tmp_path / "c.csv", 4), FACES, atol=1e-5)


def test_what_is_missing_is_nan(tmp_path: Path) -> None:
    rows = [{"coefficients": {"jawOpen": 0.5, "mouthSmile_L": None}}, {"coefficients": None}]
    found = predictions.read(lines(tmp_path / "a.jsonl", rows), 2)
    assert found[0, INDEX["JawOpen"]] == 0.5
    assert np.isfinite(found).sum() == 1


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"coefficients": {"jawOpen": 1.5}},
            "line 2.*coefficients.jawOpen.*1.5 is not from 0 to 1",
        ),
        ({"coefficients": {"jawOpen": 0.1, "JawOpen": 0.2}}, "line 2.*gives JawOpen twice"),
        ({"coefficients": {"jaw": 0.1}}, "line 2.*'jaw' is not one of the 61"),
        ({"coefficients": [0.1]}, "line 2.*coefficients"),
        ({"values": {}}, "line 2.*coefficients"),
        ({"response": 3}, "line 2.*response"),
        ({"response": "no JSON"}, "line 2.*response.*no JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: dict, words: str) -> None:
    path = lines(tmp_path / "a.jsonl", [{"coefficients": None}, row])
    with pytest.raises(PredictionsError, match=words):
        predictions.read(path, 2)
    assert len(predictions.read(path, 1)) == 1


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"a.jsonl.*holds 1 answers for 2 faces"):
        predictions.read(lines(tmp_path / "a.jsonl", [{"coefficients": None}]), 2)
    with pytest.raises(PredictionsError, match=r"a.txt: is neither of .csv and .jsonl"):
        predictions.read(tmp_path / "a.txt", 2)
    for name in ("none.jsonl", "none.csv"):
        with pytest.raises(PredictionsError, match=name):
            predictions.read(tmp_path / name, 2)
    (tmp_path / "b.csv").write_text("a,b\n1,2\n")
    with pytest.raises(PredictionsError, match="b.csv"):
        predictions.read(tmp_path / "b.csv", 1)
