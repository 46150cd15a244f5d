"""Recipes belong to a checkout: found from anywhere inside, missed clearly elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
from setuptools.config.setupcfg import read_configuration

import sf_jax
from sf_jax import cli
from sf_jax.cli import recipes
from sf_jax.cli.arguments import UsageError

ROOT = Path(__file__).parents[2]


def test_recipes_beside_the_package_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipes.folder() == ROOT / "experiments"
    assert {"builtin_model", "sft"} <= set(recipes.names())
    assert Path(str(recipes.load("sft").__file__)) == ROOT / "experiments" / "sft.py"
    with pytest.raises(UsageError, match="no experiment 'dancing'; there are .*builtin_model, "):
        recipes.load("dancing")


def test_recipes_of_the_working_directory_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sf_jax, "__file__", str(tmp_path / "sf_jax" / "__init__.py"))
    monkeypatch.chdir(ROOT)
    assert recipes.folder() == ROOT / "experiments"


def test_outside_a_checkout_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sf_jax, "__file__", str(tmp_path / "sf_jax" / "__init__.py"))
    (tmp_path / "experiments").mkdir()  # some other project's
    monkeypatch.chdir(tmp_path)
    for arguments in (["train"], ["train", "sft", "builtin"], ["compile", "4b-lora"]):
        assert cli.main(arguments) == 2
        error = capsys.readouterr().err
        assert "experiments are part of the repository: run this in a checkout" in error
        assert error.count("\n") == 1


def test_a_foreign_package_of_that_name_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    for name in ("__init__", "answer_order"):
        (tmp_path / "experiments" / f"{name}.py").touch()
    code = "from sf_jax.cli import recipes; recipes.load('answer_order')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "UsageError: another package named experiments is in the way" in done.stderr


def test_a_wheel_holds_the_packages_alone() -> None:
    options = read_configuration(ROOT / "setup.cfg")["options"]
    tops = {name.partition(".")[0] for name in options["packages"]}
    assert tops == {"sf_jax", "data_pipelines"}
    found = setuptools.find_packages(str(ROOT), include=["sf_jax*"])
    assert set(found) <= set(options["packages"]), "no room is left out"
    rooms = {f"sf_jax.{path.parent.name}" for path in (ROOT / "sf_jax").glob("*/__init__.py")}
    assert rooms <= set(options["packages"])


def test_help_needs_no_jax() -> None:
    code = """
import sys
from sf_jax import cli
cli.main([])
for command in ("predict", "convert", "data", "demo", "evaluate", "bench"):
    try:
        cli.main([command, "--help"])
    except SystemExit:
        pass
assert not {"jax", "flax", "cv2", "orbax"} & set(sys.modules), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: sf-jax predict" in done.stdout and "render faces into" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["builtin_model", "--mixture", "skins=0"], "'skins=0' is no NAME=WEIGHT with a weight"),
        (["builtin_model", "--mesh", "rows=4"], "'rows=4' is no AXIS=SIZE of data, "),
        (["finder", "--mesh", "4"], "'4' is no AXIS=SIZE of data, "),
        (["sft", "builtin", "--mesh", "data=x"], "'data=x' is no AXIS=SIZE of data, "),
        (["builtin_model", "--side", "100"], "--side 100 is not a multiple of 32"),
        (["answer_order", "--records", "mistyped"], "mistyped: --records is a folder of face rec"),
    ],
)
def test_an_argument_that_cannot_be_read_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], reason: str
) -> None:
    """And nothing is rendered in place of a folder that is not there."""
    assert cli.main(["train", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists() and not Path("mistyped").exists()
