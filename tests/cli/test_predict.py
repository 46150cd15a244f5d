"""`sf-jax predict` beside files of the user's own: names of results and later runs."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sf_jax.cli import loading, show
from sf_jax.face import livelink
from sf_jax.media import locks
from sf_jax.reader import job, pictures
from sf_jax.reader.action import FaceAction
from sf_jax.reader.reader import PredictOptions
from sf_jax.reader.results import LOCK, RECORD
from sf_jax.render import preview
from tests.cli.results import clip, contents, listed, rows
from tests.cli.test_cli import JAW, FakeModel, errors, names, run


def test_a_video_named_as_the_table_gets_another_name(
    model: FakeModel, image: Callable, tmp_path: Path
) -> None:
    files = [image("a.jpg"), image("b.jpg"), clip(tmp_path / "pictures.mp4")]
    assert run("predict", *files, "--out", tmp_path / "o", "--no-preview") == 0
    assert listed(tmp_path / "o") == [
        "a.json",
        "b.json",
        "pictures.csv",
        "pictures.mp4.csv",
        "pictures.mp4.jsonl",
    ]
    assert len(rows(tmp_path / "o" / "pictures.csv")) == 2
    assert len(rows(tmp_path / "o" / "pictures.mp4.csv")) == 4


OWN = ["x.preview.png", "y.json", "pictures.csv", "z.csv", "z.jsonl", "Y.JSONL"]


def test_in_the_folder_of_the_inputs_no_file_of_the_users_own_is_touched(
    model: FakeModel, image: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "f"
    for name in ("x.jpg", "y.jpg", "x.preview.png"):
        image(f"f/{name}")
    clip(folder / "z.mp4")
    for name in OWN[1:]:
        (folder / name).write_text(f"mine: {name}")
    before = contents(folder)
    for _ in range(3):  # the second and third run replace the results of the first
        assert run("predict", folder, "--out", folder) == 0
        after = contents(folder)
        assert {name: after[name] for name in before} == before
        assert len(after) == len(before) + 3 * 2 + 3 + 2
    assert (folder / "x.jpg.preview.png").exists() and (folder / "pictures-2.csv").exists()
    assert len(rows(folder / "pictures-2.csv")) == 3  # results were not read as images


def test_linked_inputs_and_folders_of_results_stay(
    model: FakeModel, image: Callable, tmp_path: Path
) -> None:
    """Links of both kinds from where a result would go to an input or another file."""
    first = image("in/a.png")
    out = tmp_path / "out"
    out.mkdir()
    os.link(first, out / "a.preview.png")
    (out / "b.json").symlink_to(image("in/b.png"))
    (out / "b.png.csv").symlink_to("nowhere")
    before = contents(tmp_path)
    assert run("predict", tmp_path / "in", "--out", out, "--recursive") == 0
    assert {name: contents(tmp_path)[name] for name in before} == before
    assert (out / "b.json").is_symlink() and (out / "b.png.csv").is_symlink()
    assert {"a.png.json", "b.png-2.json", "pictures.csv"} <= set(listed(out))


def test_names_that_some_file_systems_take_for_one_are_apart(
    model: FakeModel, image: Callable, tmp_path: Path
) -> None:
    folder = image("f/Face.png").parent
    for name in (
        "f/face.png",
        "f/e\u0301.png",
        "f/\u00e9.png",
        "f/stra\u00dfe.png",
        "f/STRASSE.png",
    ):
        image(name)
    assert run("predict", folder, "--out", tmp_path / "o", "--no-preview") == 0
    found = [name.casefold() for name in listed(tmp_path / "o")]
    assert len(found) == len(set(found)) == 7


def test_folders_below_a_folder_keep_their_results_apart(
    model: FakeModel, image: Callable, tmp_path: Path
) -> None:
    for name in ("f/x.png", "f/a/x.png", "f/b/x.png", "f/blocked/x.png"):
        image(name)
    out = tmp_path / "f" / "out"
    out.mkdir()
    (out / "blocked").write_text("a file of the user's own")
    for _ in range(2):
        assert run("predict", tmp_path / "f", "--recursive", "--out", out, "--no-preview") == 2
        assert listed(out) == ["a", "b", "blocked", "pictures.csv", "x.json"]
        assert listed(out / "a") == listed(out / "b") == ["x.json"]
        assert len(model.seen) in (3, 6)  # the second time too: no result is an input


def test_long_names_are_cut_and_odd_ones_cost_nobody_the_table(
    model: FakeModel, image: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    odd = ["l" * 251 + ".png", "\u00e9" * 125 + ".png", "a\nb.png", "\x1b[31mred.png", b"\xff.png"]
    for name in odd:
        image(f"f/{os.fsdecode(name)}")
    (tmp_path / "f" / os.fsdecode(b"bad\xfe.png")).write_bytes(b"no image")
    out = tmp_path / "o"
    assert run("predict", tmp_path / "f", "--out", out) == 2
    assert len(rows(out / "pictures.csv")) == 5 and len(names(out)) == 12
    (error,) = errors(capsys)
    assert r"bad\xfe.png: not an image" in error
    found = json.loads((out / os.fsdecode(b"\xff.json")).read_text(encoding="utf-8"))
    assert found["image"].endswith(r"\xff.png")
    assert run("predict", tmp_path / "f" / os.fsdecode(b"\xff.png")) == 0
    assert r"\xff.png" in capsys.readouterr().out


def test_a_later_run_replaces_what_it_wrote_and_leaves_what_was_edited(
    model: FakeModel, image: Callable, tmp_path: Path
) -> None:
    first, out = image("one/a.png", 50), tmp_path / "o"
    assert run("predict", first, "--out", out, "--no-preview") == 0
    image("one/a.png", 100)
    assert run("predict", first, "--out", out, "--no-preview") == 0
    assert listed(out) == ["a.csv", "a.json"] and rows(out / "a.csv") == [pytest.approx(100 / 255)]
    (out / "a.csv").write_text((out / "a.csv").read_text() + "my own line\n")
    assert run("predict", first, "--out", out, "--no-preview") == 0
    assert listed(out) == ["a.csv", "a.json", "a.png.csv", "a.png.json"]
    assert "my own line" in (out / "a.csv").read_text()
    assert run("predict", image("two/a.png"), "--out", out, "--no-preview") == 0
    assert {"a.png-2.csv", "a.png-2.json"} <= set(listed(out)), "of another input of the same name"


def test_skip_existing_skips_complete_results_alone(
    model: FakeModel, image: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for number in range(6):
        image(f"f/{number}.png", 40 * number)
    clip(tmp_path / "f" / "c.mp4")
    arguments = ["predict", tmp_path / "f", "--out", tmp_path / "o", "--skip-existing"]
    assert run(*arguments) == 0 and len(model.seen) == 10
    before, out = contents(tmp_path / "o"), tmp_path / "o"
    assert run(*arguments) == 0 and len(model.seen) == 10
    assert contents(out) == before and "7 files skipped" in capsys.readouterr().out
    (out / "0.json").write_bytes(b"")
    (out / "1.preview.png").unlink()
    (out / "2.preview.png").write_bytes(b"")
    (out / "c.jsonl").write_bytes(b"")
    assert run(*arguments) == 0 and len(model.seen) == 10 + 3 + 4
    assert contents(out) == before
    image("f/3.png", 33)
    assert run(*arguments) == 0 and len(model.seen) == 18
    assert rows(out / "pictures.csv")[3] == pytest.approx(33 / 255)
    assert run(*arguments, "--values", "answer") == 0 and len(model.seen) == 28


def test_what_was_edited_stays_however_it_ends(
    model: FakeModel, image: Callable, tmp_path: Path
) -> None:
    """A CSV or JSON lines saved without the last line feed, JSON with a comment, an image of
    another kind or with bytes after its end."""
    files, out = [image("a.png"), image("b.png"), clip(tmp_path / "c.mp4")], tmp_path / "o"
    assert run("predict", *files, "--out", out) == 0
    edited = {name: (out / name).read_bytes() for name in ("pictures.csv", "c.csv", "c.jsonl")}
    edited = {name: content.rstrip() for name, content in edited.items()}
    edited["a.json"] = b"// mine\n" + (out / "a.json").read_bytes()
    edited["b.preview.png"] = (out / "b.preview.png").read_bytes() + b"more"
    Image.new("RGB", (9, 9)).save(tmp_path / "other", "JPEG")
    edited["a.preview.png"] = (tmp_path / "other").read_bytes()
    for name, content in edited.items():
        (out / name).write_bytes(content)
    assert run("predict", *files, "--out", out) == 0
    assert {name: contents(out)[name] for name in edited} == edited
    assert {"a.png.json", "pictures-2.csv", "c.mp4.csv", "b.png.json"} <= set(listed(out))


def test_a_record_cut_short_is_read_and_a_file_that_is_none_is_refused(
    model: FakeModel, image: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, files = tmp_path / "o", [image("a.png"), image("b.png")]
    arguments = ["predict", *files, "--out", out, "--no-preview", "--skip-existing"]
    assert run(*arguments) == 0
    lines = (out / RECORD).read_text().splitlines(keepends=True)
    (out / RECORD).write_text(lines[0] + lines[1] + lines[2][:40])
    assert run(*arguments) == 0 and len(model.seen) == 3
    (out / RECORD).write_text("my notes\n")
    assert run(*arguments) == 2
    assert f"{RECORD}: not a record of results" in errors(capsys)[0]
    assert (out / RECORD).read_text() == "my notes\n"


def test_two_runs_do_not_write_to_one_folder(
    model: FakeModel, image: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with locks.held(tmp_path / "o", LOCK):
        assert run("predict", image("a.png"), "--out", tmp_path / "o") == 2
    assert "writes here" in errors(capsys)[0] and not model.seen
    assert run("predict", image("a.png"), "--out", tmp_path / "o") == 0


def test_a_file_that_appears_during_the_work_stays(
    model: FakeModel, image: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o"
    write = preview.preview

    def other(*given: object) -> None:
        (out / "a.json").write_text("of another program")
        write(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(preview, "preview", other)
    assert run("predict", image("a.png"), image("b.png"), "--out", out) == 2
    assert (out / "a.json").read_text() == "of another program"
    assert listed(out) == ["a.json", "b.json", "b.preview.png", "pictures.csv"]


def test_an_input_that_is_replaced_while_it_is_read_is_read_again(
    image: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [image("a.png", 50), image("b.png", 50), clip(tmp_path / "c.mp4")]
    model = FakeModel()
    predict = model.predict

    def replacing(*given: object, **called: object) -> FaceAction:
        if len(model.seen) in (0, 2):  # the first image, the first frame of the video
            os.utime(files[len(model.seen)], (1, 1))
        return predict(*given, **called)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "predict", replacing)
    monkeypatch.setattr(loading, "load_model", lambda *_: model)
    arguments = ["predict", *files, "--out", tmp_path / "o", "--no-preview", "--skip-existing"]
    assert run(*arguments) == 0 and len(model.seen) == 2 + 4
    assert run(*arguments) == 0 and len(model.seen) == 6 + 1 + 4


def test_what_a_killed_run_left_is_removed(model: FakeModel, image: Callable) -> None:
    out = image("o/sub/a.png").parents[1]
    ours = out / ".sf-jax-a1b_c2d3.partial"
    others = [out / ".sf-jax-mine.partial", out / "sub" / ours.name]
    for folder in (ours, *others):
        folder.mkdir()
        (folder / "a.json").write_text("{}")
    (out / ".sf-jax-link0000.partial").symlink_to(others[0])
    assert run("predict", out / "sub" / "a.png", "--out", out, "--no-preview") == 0
    assert not ours.exists() and all((folder / "a.json").exists() for folder in others)


def test_a_plan_that_fails_unlocks_the_folder(
    model: FakeModel, image: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **options: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(job, "plan", failing)
        assert run("predict", image("a.png"), "--out", tmp_path / "o") == 2
    assert not (tmp_path / "o" / LOCK).exists()


def test_the_images_of_a_job_are_chosen_once(image: Callable, tmp_path: Path) -> None:
    """Each image asks for all of them."""
    with closing(job.prepare([image("a.png")], PredictOptions(out=tmp_path / "o"))) as found:
        assert found.pictures is found.pictures and found.videos is found.videos


@pytest.mark.parametrize("out", ["file", "file/deeper", "/proc/none", "/dev/null"])
def test_a_folder_that_cannot_be_is_refused_before_the_work(
    model: FakeModel, image: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, out: str
) -> None:
    (tmp_path / "file").write_text("mine")
    assert run("predict", image("a.png"), "--out", tmp_path / out) == 2
    assert out.split("/")[1 if out[0] == "/" else 0] in errors(capsys)[0] and not model.seen
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_in_the_way_of_the_table_costs_no_video(
    model: FakeModel,
    image: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    out = tmp_path / "o"
    files = [image("a.png"), image("b.png"), image("c.png", 0), clip(tmp_path / "d.mp4")]
    files[2].write_bytes(b"no image")
    write = pictures.stills.write

    def meanwhile(*given: object) -> None:
        (out / "pictures.csv").write_text("of another program")
        write(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(pictures.stills, "write", meanwhile)
    assert run("predict", *files, "--out", out, "--no-preview") == 2
    reported = errors(capsys)
    assert "c.png: not an image" in reported[0]
    assert "pictures.csv: is not a result of before" in reported[1]
    assert (out / "pictures.csv").read_text() == "of another program"
    assert {"a.json", "b.json", "d.csv", "d.jsonl"} <= set(listed(out))


def test_a_video_has_a_json_line_a_frame(model: FakeModel, tmp_path: Path) -> None:
    video, out = clip(tmp_path / "c.mp4"), tmp_path / "o"
    assert run("predict", video, "--out", out, "--no-preview") == 0
    lines = [json.loads(line) for line in (out / "c.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    assert [line["seconds"] for line in lines] == pytest.approx(
        [0, 1 / 24, 2 / 24, 3 / 24], abs=1e-5
    )
    assert set(lines[0]["rationale"]) == {"expression", "movements", "emotion", "symmetry"}
    assert lines[0]["spread"]["JawOpen"] == pytest.approx(0.05)
    take = livelink.read(out / "c.csv")
    jaws = [np.float32(line["coefficients"]["JawOpen"]) for line in lines]
    np.testing.assert_allclose(take.coefficients[:, JAW], jaws, rtol=0, atol=1e-9)


def test_without_out_the_reading_is_printed_and_nothing_written(
    model: FakeModel, image: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    files = [image("a.png"), image("b.png", 0)]
    before = contents(tmp_path)
    assert run("predict", *files) == 0
    printed = capsys.readouterr().out
    assert printed.count("Expression:") == 2 and "JawOpen               0.59" in printed
    assert contents(tmp_path) == before
    assert run("predict", clip(tmp_path / "c.mp4")) == 2
    assert "c.mp4: --out is required for the frames of a video" in errors(capsys)[0]


def test_half_a_character_in_a_prompt_is_refused(
    model: FakeModel, image: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A model with a tokenizer.json would raise a TypeError for each image."""
    prompt = tmp_path / "prompt.json"
    prompt.write_text('{"messages": [{"role": "user", "content": "<image>Read \\ud83d"}]}')
    assert run("predict", image("a.png"), "--model", tmp_path, "--prompt", prompt) == 2
    assert "prompt.json: message 1: the text holds U+D83D alone" in errors(capsys)[0]


def test_the_demo_replaces_no_image_of_the_users_own(
    model: FakeModel, image: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    mine = image("o/face.png").read_bytes()
    assert run("demo", "--out", tmp_path / "o") == 2
    assert "face.png: is not a result of before" in errors(capsys)[0]
    assert (tmp_path / "o" / "face.png").read_bytes() == mine
    for _ in range(2):
        assert run("demo", "--out", tmp_path / "demo") == 0
    assert listed(tmp_path / "demo") == ["face.csv", "face.json", "face.png", "face.preview.png"]
    assert run("predict", tmp_path / "demo", "--out", tmp_path / "r", "--no-preview") == 0
    assert listed(tmp_path / "r") == ["face.csv", "face.json"]
    assert "demo: 4 results of an earlier run left out" in capsys.readouterr().err
    (tmp_path / "demo" / "face.png").unlink()
    assert run("predict", tmp_path / "demo") == 2
    assert "but 4 results of an earlier run" in errors(capsys)[-1]


def test_show_opens_the_sheet_or_says_what_is_missing(
    model: FakeModel,
    image: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run("predict", image("a.png"), "--show") == 2
    assert "--show needs a display" in errors(capsys)[0] and not model.seen
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert run("predict", image("a.png"), "--show") == 2
    assert "xdg-open" in errors(capsys)[0] and not model.seen
    viewer = tmp_path / "bin" / "xdg-open"
    viewer.parent.mkdir()
    viewer.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/shown\nexit 0\n')
    viewer.chmod(0o755)
    assert run("predict", image("a.png"), "--show") == 0
    shown = Path((tmp_path / "shown").read_text().strip())
    assert shown.name == "a.preview.png" and Image.open(shown).size == (24, 16)
    viewer.write_text("#!/bin/sh\nexit 4\n")
    assert run("predict", image("a.png"), "--show", "--out", tmp_path / "o") == 2
    assert "could not open it (exit code 4)" in errors(capsys)[0]
    assert run("predict", image("a.png"), image("b.png"), "--show") == 2
    assert "one image or video" in errors(capsys)[0]
    assert show.viewer() == str(viewer)
