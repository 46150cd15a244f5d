"""Every recipe runs with --tiny, from nothing, and exports into --out."""

import json
from pathlib import Path

import pytest

from sf_jax.cli import main, recipes
from sf_jax.reader import loading

HERE = {"answer_order", "builtin_model", "finder", "sft"}
ABLATIONS = {name for name in recipes.names() if name.startswith("ablation")}  # test_ablations.py
ELSEWHERE = ABLATIONS | {"superface"}  # test_superface.py


def test_every_recipe_is_tried_here() -> None:
    assert set(recipes.names()) == HERE | ELSEWHERE


@pytest.mark.parametrize(
    "name",
    [
        "4b-lora",
        *[pytest.param(name, marks=pytest.mark.slow) for name in ("builtin", "8b-scratch")],
    ],
)
def test_fine_tuning(name: str, tmp_path: Path) -> None:
    assert main(["train", "sft", name, "--tiny", "--faces", "0", "--out", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["slots"] > 0 for line in lines) and any(line["next_token"] for line in lines)
    assert (tmp_path / ("adapter" if "lora" in name else "model")).is_dir()


def test_the_built_in_model_from_nothing(tmp_path: Path) -> None:
    assert main(["train", "builtin_model", "--tiny", "--out", str(tmp_path)]) == 0
    model = loading.load(tmp_path / "model")
    assert model.decoder.draft_heads is not None


def test_the_finder_from_nothing(tmp_path: Path) -> None:
    assert main(["train", "finder", "--tiny", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "model" / "finder.safetensors").is_file()


@pytest.mark.slow
def test_answer_order(tmp_path: Path) -> None:
    assert main(["train", "answer_order", "--tiny", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "answer_order.json").read_text())
    assert len(found["results"]) == 4
    for order in ("rationale_first", "values_first"):
        row = "both-" + order.replace("_", "-")
        folder = tmp_path / "answer_order-4" / "models" / row
        assert loading.load(folder).schema.order == order
