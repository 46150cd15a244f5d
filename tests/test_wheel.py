"""The wheel, built and installed in a bare environment outside of the checkout, reads a face."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sf_jax

ROOT = Path(__file__).parents[1]
SOURCES = ("sf_jax", "data_pipelines", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def run(*command: object, folder: Path, code: int = 0) -> str:
    """What a command prints that knows nothing of the checkout."""
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=kept | {"VIRTUAL_ENV": ""},
        capture_output=True,
        text=True,
    )
    assert found.returncode == code, f"{command}: {found.stderr[-3000:]}"
    return found.stdout + found.stderr


@pytest.mark.slow
def test_a_wheel_in_a_bare_environment_predicts(tmp_path: Path) -> None:
    """Installs the requirements: minutes, and a package index."""
    source, empty = tmp_path / "source", tmp_path / "empty"
    source.mkdir()
    empty.mkdir()
    for name in SOURCES:  # a copy, as building leaves folders that later builds would take over
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "venv", tmp_path / "env", folder=empty)
    python, command = tmp_path / "env" / "bin" / "python", tmp_path / "env" / "bin" / "sf-jax"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source, folder=empty)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.rmtree(source)
    run(*pip, "install", "-c", ROOT / "requirements.txt", wheel, folder=empty)

    assert "Facial action estimation" in run(command, "--help", folder=empty)
    run(command, "demo", "--out", "demo", folder=empty)
    assert {path.name for path in (empty / "demo").iterdir()} >= {
        "face.csv",
        "face.json",
        "face.png",
        "face.preview.png",
    }
    run(command, "predict", "demo/face.png", "--out", "results", folder=empty)
    found = json.loads((empty / "results" / "face.json").read_text())
    model = sf_jax.load()
    here = model.predict(empty / "demo" / "face.png")
    assert found["text"] == here.text and found["sf_jax"] == model.provenance.as_json()
    assert found["coefficients"] == pytest.approx(here.as_dict(), abs=1e-4)
    assert "JawOpen" in run(command, "schema", folder=empty)
    run(command, "data", "render", "--out", "faces", "--count", 2, folder=empty)
    run(command, "evaluate", "--records", "faces", "--batch", 2, "--out", "scores", folder=empty)
    assert json.loads((empty / "scores" / "evaluation.json").read_text())["faces"] == 2
    assert "pip install 'sf_jax[serve]'" in run(command, "serve", folder=empty, code=2)
    assert "run this in a checkout" in run(command, "train", "sft", folder=empty, code=2)
