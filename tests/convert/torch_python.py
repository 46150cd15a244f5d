"""The Python that computes references: this one where it has torch and transformers (extra
`porting`), else the one that SF_JAX_TORCH_PYTHON names. Without either the tests are skipped."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TORCH_SIDE = Path(__file__).parents[2] / "sf_jax" / "bench" / "torch_side"


def torch_python() -> str | None:
    """A Python that has torch, transformers and PEFT, if there is one."""
    named = os.environ.get("SF_JAX_TORCH_PYTHON")
    if named:
        return named
    found = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft"))
    return sys.executable if found else None


def run_torch(script: str | Path, *arguments: str, stdin: str | None = None) -> str:
    """Runs a script, by its name where it is in this folder, and returns what it prints."""
    python = torch_python()
    if python is None:
        pytest.skip("needs torch and transformers: the extra 'porting', or SF_JAX_TORCH_PYTHON")
    environment = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(TORCH_SIDE)  # for `any_torchvision`
    done = subprocess.run(
        [python, str(Path(__file__).parent / script), *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
