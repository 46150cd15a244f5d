"""`sf-jax data pipeline` and `verify`, from the command line."""

from pathlib import Path

import pytest

from data_pipelines import rendering
from sf_jax import cli
from sf_jax.cli.arguments import UsageError

LINE = ["--train", "3", "--evaluation", "2", "--shard", "2", "--mixture", "drawn=1", "--side", "40"]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting others costs seconds; `test_dataset.py` does."""
    monkeypatch.setattr(rendering, "in_processes", lambda make, items, workers: map(make, items))


def test_a_dataset_is_made_verified_and_its_damage_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "faces")
    assert not cli.main(["data", "pipeline", "--out", out, *LINE, "--estimate"])
    assert "5 records in 3 files, about " in capsys.readouterr().out
    assert not (tmp_path / "faces").exists()
    assert not cli.main(["data", "pipeline", "--out", out, *LINE])
    printed = capsys.readouterr().out
    assert "5 rationales checked and stored, 0 rejected" in printed
    assert "train: 3 records, 2 files" in printed and "no person is in two splits" in printed
    assert not cli.main(["data", "verify", out, "--images"])
    assert "5 records of 5 people in 3 files, as its manifest" in capsys.readouterr().out
    assert not cli.main(["data", "pipeline", "--out", out, *LINE])
    assert "0 records made (5 were there)" in capsys.readouterr().out
    path = tmp_path / "faces" / "train-00001.array_record"
    path.write_bytes(path.read_bytes()[:-9])
    assert cli.main(["data", "verify", out]) == 2
    error = capsys.readouterr().err
    assert "train-00001.array_record: truncated" in error
    assert f"{out}: 2 problems found, listed above" in error


@pytest.mark.parametrize(
    "line, problem",
    [
        (["--train", "0", "--evaluation", "0"], "nothing to make"),
        (["--", "--direct_num_workers=2"], "unrecognized arguments: --direct_num_workers=2"),
        (["--mixture", "skins=1"], "source 'skins' needs --rigs and --skins"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, line: list[str], problem: str) -> None:
    from sf_jax.cli import datasets
    from sf_jax.media.errors import DataError

    with pytest.raises((UsageError, DataError), match=problem):
        datasets.pipeline(["--out", str(tmp_path / "faces"), *line])
    assert not (tmp_path / "faces").exists()


@pytest.mark.parametrize("command", ["pipeline", "render"])
def test_sources_that_cannot_be_used_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, command: str
) -> None:
    skins = tmp_path / "skins.npz"
    skins.touch()
    for arguments, words in (
        (["--skins", str(skins)], "--skins needs --rigs"),
        (["--skins", str(tmp_path)], "--skins: no such file"),
        (["--rigs", str(skins)], "--rigs: no such folder"),
        (["--backgrounds", str(tmp_path / "none")], "--backgrounds: no such folder"),
    ):
        out = tmp_path / "out"
        assert cli.main(["data", command, "--out", str(out), *arguments]) == 2
        assert words in capsys.readouterr().err and not out.exists()
