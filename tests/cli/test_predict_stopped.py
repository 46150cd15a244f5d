"""`sf-jax predict` that is interrupted, or whose files cannot be written: what was read is kept."""

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sf_jax.cli import loading
from sf_jax.reader import pictures, videos
from sf_jax.reader.action import FaceAction
from sf_jax.reader.results import RECORD
from sf_jax.render import preview
from tests.cli.results import clip, contents, listed, rows
from tests.cli.test_cli import FakeModel, errors, run


@pytest.mark.parametrize("code", ["ENOSPC", "EACCES"])
def test_a_full_disk_ends_the_run_and_another_error_one_file(
    model: FakeModel,
    image: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    code: str,
) -> None:
    files = [image(f"{name}.png") for name in "abcd"]
    write = pictures.write_json

    def full(path: Path, content: object) -> None:
        if path.name == "b.json":
            raise OSError(getattr(errno, code), "it cannot be", str(path))
        write(path, content)

    monkeypatch.setattr(pictures, "write_json", full)
    out = tmp_path / "o"
    assert run("predict", *files, "--out", out, "--no-preview") == 2
    assert f" {out}/b.json: it cannot be" in errors(capsys)[0]
    left = (
        ["a.json", "pictures.partial.csv"]
        if code == "ENOSPC"
        else [
            "a.json",
            "c.json",
            "d.json",
            "pictures.csv",
        ]
    )
    assert listed(out) == left


def test_a_file_whose_status_cannot_be_had_ends_no_run(
    model: FakeModel, image: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a card that is failing: the error is that of a disk that takes no results."""
    files, status = [image(f"{name}.png") for name in "abc"], Path.stat

    def failing(path: Path, **how: bool) -> os.stat_result:
        if model.seen and path in files[:2]:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return status(path, **how)

    monkeypatch.setattr(Path, "stat", failing)
    assert run("predict", *files, "--out", tmp_path / "o", "--no-preview") == 2
    assert listed(tmp_path / "o") == ["a.json", "c.json", "pictures.csv"]


class StoppingModel(FakeModel):
    """Gets a signal while it reads its third image."""

    sent = signal.SIGINT

    def predict(self, picture: np.ndarray, **called: object) -> FaceAction:
        if len(self.seen) == 2:
            os.kill(os.getpid(), self.sent)
        return super().predict(picture, **called)


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interruption_keeps_what_was_read(
    monkeypatch: pytest.MonkeyPatch,
    image: Callable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    sent: str,
) -> None:
    stopping = StoppingModel()
    stopping.sent = getattr(signal, sent)
    monkeypatch.setattr(loading, "load_model", lambda *_: stopping)
    folder, out = image("f/1.png").parent, tmp_path / "o"
    for number in (2, 3, 4):
        image(f"f/{number}.png", 60 * number)
    assert run("predict", folder, "--out", out, "--no-preview") == 130
    assert listed(out) == ["1.json", "2.json", "pictures.partial.csv"]
    assert len(rows(out / "pictures.partial.csv")) == 2
    assert "stopped: kept are 2 of 4 pictures, with rows in" in errors(capsys)[-1]
    assert json.loads((out / RECORD).read_text().splitlines()[-1])["complete"] is False
    monkeypatch.setattr(loading, "load_model", lambda *_: FakeModel())
    assert run("predict", folder, "--out", out, "--no-preview", "--skip-existing") == 0
    assert listed(out) == ["1.json", "2.json", "3.json", "4.json", "pictures.csv"]
    assert len(rows(out / "pictures.csv")) == 4


def test_a_second_interruption_does_not_cut_the_saving_short(
    monkeypatch: pytest.MonkeyPatch, image: Callable, tmp_path: Path
) -> None:
    """As of an impatient user, or of a shell that signals a whole group of processes."""
    monkeypatch.setattr(loading, "load_model", lambda *_: StoppingModel())
    files, out = [image(f"{name}.png") for name in "abcd"], tmp_path / "o"
    write = pictures.stills.write

    def signalled(*given: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        write(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(pictures.stills, "write", signalled)
    assert run("predict", *files, "--out", out, "--no-preview") == 130
    assert len(rows(out / "pictures.partial.csv")) == 2


def test_an_interrupted_video_keeps_its_frames_and_the_results_of_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    video, out = clip(tmp_path / "c.mp4"), tmp_path / "o"
    monkeypatch.setattr(loading, "load_model", lambda *_: FakeModel())
    assert run("predict", video, "--out", out, "--no-preview") == 0
    before = contents(out)
    monkeypatch.setattr(loading, "load_model", lambda *_: StoppingModel())
    assert run("predict", video, "--out", out, "--no-preview") == 130
    assert "kept are 2 of 4 frames of" in errors(capsys)[-1]
    after = contents(out)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"c.partial.csv", "c.partial.jsonl"}
    assert len(rows(out / "c.partial.csv")) == 2


@pytest.mark.parametrize("where", ["csv", "sheet"])
def test_an_interruption_after_the_last_frame_loses_nothing(
    model: FakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    where: str,
) -> None:
    """A CSV is completed, a sheet is not waited for; both end the run."""
    files, out = [clip(tmp_path / "c.mp4"), clip(tmp_path / "d.mp4")], tmp_path / "o"
    room, name = (videos.livelink, "write") if where == "csv" else (preview, "preview")
    write = getattr(room, name)

    def signalled(*given: object, **named: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        write(*given, **named)

    monkeypatch.setattr(room, name, signalled)
    assert run("predict", *files, "--out", out) == 130
    sheet = ["c.preview.png"] if where == "csv" else []
    assert listed(out) == ["c.csv", "c.jsonl", *sheet]
    assert len(rows(out / "c.csv")) == 4
    assert "kept are " in errors(capsys)[-1]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("odd")])
def test_a_sheet_that_fails_costs_nothing_else_and_a_csv_not_the_lines(
    model: FakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    error: Exception,
) -> None:
    video = clip(tmp_path / "c.mp4")

    def failing(*given: object, **_: object) -> None:
        nonlocal error
        if isinstance(error, OSError):
            path = next(path for path in given if isinstance(path, Path))
            error = OSError(28, "No space left", str(path))
        raise error

    named = isinstance(error, OSError)
    with monkeypatch.context() as patch:
        patch.setattr(preview, "preview", failing)
        assert run("predict", video, "--out", tmp_path / "o") == 2
        assert errors(capsys)[-1].endswith(
            f" {tmp_path}/o/c.preview.png: No space left" if named else "odd"
        )
    assert listed(tmp_path / "o") == ["c.csv", "c.jsonl"]
    monkeypatch.setattr(videos.livelink, "write", failing)
    assert run("predict", video, "--out", tmp_path / "p", "--no-preview") == 2
    assert errors(capsys)[-1].endswith(f" {tmp_path}/p/c.csv: No space left" if named else "odd")
    assert listed(tmp_path / "p") == ["c.partial.jsonl"]
    assert len((tmp_path / "p" / "c.partial.jsonl").read_text().splitlines()) == 4
