"""Scripts that another Python runs by path: they find what they need and hide no library."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sf_jax.bench import torch_side
from tests.convert.torch_python import TORCH_SIDE, torch_python

SCRIPTS = sorted(TORCH_SIDE.glob("*_torch.py"))
OTHER_BUILD = """
import torch
torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "Meta")  # raises where it lacks
__version__ = "0.0"
"""  # what torchvision does at import, where it was built for another torch


def test_the_folder_is_the_one_that_tests_use() -> None:
    assert Path(str(torch_side.__file__)).parent == TORCH_SIDE and len(SCRIPTS) == 3


def test_no_script_hides_a_library() -> None:
    for path in TORCH_SIDE.glob("[a-z]*.py"):
        assert find_spec(path.stem) is None, f"{path.name} has the name of a library"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_torchvision_is_imported_before_transformers(script: Path) -> None:
    text = script.read_text()
    assert 0 < text.index(" import_torchvision()\n") < text.index(" import transformers\n")


@pytest.mark.parametrize("build", ["another", "none"])
def test_a_torchvision_of_another_build_is_survived(tmp_path: Path, build: str) -> None:
    python = torch_python()
    if python is None:
        pytest.skip("needs torch: the extra 'porting', or SF_JAX_TORCH_PYTHON")
    folder = tmp_path / "torchvision" / "transforms" / "v2"
    folder.mkdir(parents=True)
    for level in (folder, folder.parent):
        (level / "__init__.py").touch()
    broken = OTHER_BUILD if build == "another" else "raise ImportError"
    (tmp_path / "torchvision" / "__init__.py").write_text(broken)
    code = "import any_torchvision; print(any_torchvision.import_torchvision())"
    done = subprocess.run(
        [python, "-c", code],
        env={"PYTHONPATH": f"{tmp_path}:{TORCH_SIDE}", "HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ("0.0\n" if build == "another" else "None\n"), done.stderr


def test_each_side_starts_by_itself(tmp_path: Path) -> None:
    """No script needs this package, nor finds it where it is not installed."""
    for script in SCRIPTS:
        done = subprocess.run(
            [sys.executable, "-I", str(script), "--help"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "ModuleNotFoundError" not in done.stderr, done.stderr
