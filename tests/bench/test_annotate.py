"""`sf-jax bench annotate`: a page with a few pairs of noise, judged in a browser."""

import json
from pathlib import Path

import numpy as np
import pytest

from sf_jax import cli
from sf_jax.bench import annotate
from tests.serve.chromium import executable


def test_pairs_of_noise_are_all_others(tmp_path: Path) -> None:
    found = annotate.made(tmp_path / "pairs", 70, 16, 24)
    found.check_files()
    assert len({pair.key for pair in found.pairs}) == 70
    assert found.image(found.pairs[0]).shape == (24, 24, 3)


def test_figures() -> None:
    found = annotate.summary(np.arange(1, 101, dtype=float))
    assert found == {"judgements": 100, "median_ms": 50.5, "p95_ms": 95.0, "longest_ms": 100.0}


def test_a_short_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    executable()
    out = tmp_path / "times.json"
    arguments = [
        "--pause",
        "0",
        "--judgements",
        "3",
        "--pairs",
        "6",
        "--size",
        "16",
        "--image-size",
        "24",
    ]
    assert cli.main(["bench", "annotate", *arguments, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["judgements"] == 3 and 0 < found["median_ms"] <= found["longest_ms"]
    assert "p95 within 150 ms" in capsys.readouterr().out
    assert cli.main(["bench", "annotate", "--pairs", "2", "--judgements", "2"]) == 2
