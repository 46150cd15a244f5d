"""`sf-jax` on files good and bad: what it writes, what it says, how it exits."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import sf_jax
from data_pipelines.sampler import sample
from sf_jax import cli
from sf_jax.cli import loading
from sf_jax.face import channels, livelink
from sf_jax.face.describe import describe
from sf_jax.face.one_euro import smooth
from sf_jax.media.files import write_json
from sf_jax.reader.action import FaceAction, Provenance
from sf_jax.reader.framing import Framer
from sf_jax.reader.output import as_json, rationale_json
from sf_jax.reader.results import RECORD
from sf_jax.reader.session import Session
from tests.media.videos import counted, counting, write_video
from tests.plain_model import PlainModel

JAW, YAW = channels.INDEX["JawOpen"], channels.INDEX["HeadYaw"]


def action_of(picture: np.ndarray) -> FaceAction:
    """What `predict` gives: a jaw opened as far as the picture is bright, a head turned by red."""
    coefficients = np.zeros(61, np.float32)
    coefficients[JAW] = picture[..., 1].mean() / 255
    coefficients[YAW] = picture[..., 0].mean() / 255 - 0.5
    answer = np.round(coefficients, 1)
    spread = np.full(61, 0.05, np.float32)
    return FaceAction(
        coefficients,
        spread,
        answer,
        rationale=describe(answer),
        text=describe(answer).text,
        passes={"rationale": 3, "coefficients": 61},
        entropy=spread,
        log_likelihood=-spread,
        rationale_ids=np.zeros(0, np.int32),
        provenance=Provenance(weights="xxh128:0"),
    )


class FakeModel(PlainModel):
    """Stands for the estimator; keeps the pictures it is shown and how it is called."""

    instructed = False
    provenance = Provenance(weights="xxh128:0")

    def __init__(self, framer: Framer | None = None, framed: bool = True) -> None:
        super().__init__(framer, framed)
        self.seen: list[np.ndarray] = []
        self.called: list[dict] = []

    def predict(self, picture: np.ndarray, **called: object) -> FaceAction:
        assert isinstance(picture, np.ndarray) and picture.dtype == np.uint8
        self.seen.append(picture)
        self.called.append(called)
        return action_of(picture)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    fake = FakeModel()
    monkeypatch.setattr(loading, "load_model", lambda *_: fake)
    return fake


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "face.png", red: int = 200, green: int = 150) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (red, green, 30)).save(path)
        return path

    return make


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def errors(capsys: pytest.CaptureFixture) -> list[str]:
    """The lines of standard error but the progress bar's."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return [line for line in err.replace("\r", "\n").splitlines() if line.startswith("sf-jax")]


def names(folder: Path) -> list[str]:
    """Files but the record of what was written."""
    return sorted(path.name for path in folder.iterdir() if path.name != RECORD)


TABLE = ["pictures.csv", "pictures.index.csv"]


def test_one_picture_gives_json_csv_preview_and_a_table(
    model: FakeModel, picture: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run("predict", picture(), "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "Expression:" in printed and "Symmetry:" in printed
    rows = [line.split()[:2] for line in printed.splitlines() if line.startswith(("Jaw", "Head"))]
    assert rows == [["JawOpen", "0.59"], ["HeadYaw", "0.28"]]
    assert names(tmp_path / "out") == [
        "face.csv",
        "face.index.csv",
        "face.json",
        "face.preview.png",
    ]
    found = json.loads((tmp_path / "out" / "face.json").read_text())
    assert list(found["coefficients"]) == list(channels.NAMES)
    assert found["coefficients"]["JawOpen"] == pytest.approx(150 / 255, abs=1e-4)
    assert found["answer"]["JawOpen"] == pytest.approx(0.6)
    assert found["spread"]["JawOpen"] == pytest.approx(0.05)
    assert found["passes"] == {"rationale": 3, "coefficients": 61}
    assert set(found["rationale"]) == {"expression", "movements", "emotion", "symmetry"}
    assert found["image"].endswith("face.png") and found["text"].startswith("1. Expression")
    take = livelink.read(tmp_path / "out" / "face.csv", fps=30)
    assert take.coefficients[0, JAW] == pytest.approx(150 / 255, abs=1e-6)


def test_values_answer_writes_the_spoken_numbers(
    model: FakeModel, picture: Callable, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("predict", picture(), "--out", out, "--values", "answer", "--no-preview") == 0
    assert names(out) == ["face.csv", "face.index.csv", "face.json"]
    found = json.loads((out / "face.json").read_text())
    assert found["coefficients"]["JawOpen"] == pytest.approx(0.6)
    assert found["mean"]["JawOpen"] == pytest.approx(150 / 255, abs=1e-4)


def test_flags_reach_the_model(model: FakeModel, picture: Callable, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.json"
    prompt.write_text('{"messages": [{"role": "user", "content": "<image>?"}]}')
    run("predict", picture(), "--out", tmp_path / "out", "--no-preview")
    run(
        "predict",
        picture(),
        "--out",
        tmp_path / "out",
        "--no-preview",
        "--model",
        tmp_path,
        "--temperature",
        "0.7",
        "--seed",
        "5",
        "--no-words",
        "--max-words",
        "9",
        "--prompt",
        prompt,
    )
    messages = [{"role": "user", "content": "<image>?"}]
    usual = {
        "rationale": True,
        "temperature": 0.0,
        "seed": 0,
        "messages": None,
        "max_rationale": None,
    }
    changed = {
        "rationale": False,
        "temperature": 0.7,
        "seed": 5,
        "messages": messages,
        "max_rationale": 9,
    }
    assert model.called == [usual | {"previous": None}, changed | {"previous": None}]


def test_a_model_directory_is_handed_on(
    monkeypatch: pytest.MonkeyPatch, picture: Callable, tmp_path: Path
) -> None:
    asked = []
    monkeypatch.setattr(loading, "load_model", lambda path, *_: asked.append(path) or FakeModel())
    run("predict", picture(), "--out", tmp_path / "o", "--no-preview", "--model", tmp_path / "m")
    run("predict", picture(), "--out", tmp_path / "o", "--no-preview")
    assert asked == [tmp_path / "m", None]


def test_neutral_is_subtracted_by_the_documented_formula(
    model: FakeModel, picture: Callable, tmp_path: Path
) -> None:
    neutral = picture("neutral.png", red=100, green=50)
    out = tmp_path / "out"
    assert run("predict", picture(), "--out", out, "--no-preview", "--neutral", neutral) == 0
    found = json.loads((out / "face.json").read_text())["coefficients"]
    v, n = 150 / 255, 50 / 255
    assert found["JawOpen"] == pytest.approx((v - n) / (1 - n), abs=1e-4)
    assert found["HeadYaw"] == pytest.approx(100 / 255, abs=1e-4)
    # The other way round the jaw would go below rest: it stays in its range.
    assert run("predict", neutral, "--out", out, "--no-preview", "--neutral", picture()) == 0
    found = json.loads((out / "neutral.json").read_text())["coefficients"]
    assert found["JawOpen"] == 0 and found["HeadYaw"] == pytest.approx(-100 / 255, abs=1e-4)


def test_the_rationale_follows_the_neutral_face(
    model: FakeModel, picture: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """JSON, report and sheet of an image, and the lines of a video: all at rest."""
    shown: list[FaceAction] = []
    rest = describe(np.zeros(61))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sf_jax.render.preview.preview",
            lambda image, action, path, *found: shown.append(action) or path.touch(),
        )
        neutral, out = picture(), tmp_path / "out"
        pixels = np.full((30, 40, 3), (200, 150, 30), np.uint8)
        video = write_video(tmp_path / "v.mp4", 25.0, [pixels] * 2)
        assert run("predict", neutral, "--out", out, "--neutral", neutral) == 0
        printed = capsys.readouterr().out
        assert run("predict", video, "--out", out, "--neutral", neutral) == 0
    found = json.loads((out / "face.json").read_text())
    assert not any(found["coefficients"].values())
    assert found["rationale"] == rationale_json(rest)
    assert found["uncorrected"]["rationale"] != found["rationale"] and "text" not in found
    assert found["uncorrected"]["text"] == action_of(np.array([[[200, 150, 30]]])).text
    assert rest.movements in printed and "jaw" not in printed
    assert [action.rationale for action in shown] == [rest, rest]
    assert all(np.abs(action.coefficients).max() < 0.05 for action in shown)  # coded colours
    for line in (out / "v.jsonl").read_text().splitlines():
        assert json.loads(line)["rationale"] == rationale_json(rest)


def test_in_a_folder_the_good_are_read_and_the_bad_are_listed(
    model: FakeModel, picture: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("take/b.png", "take/a.jpg", "take/d.png"):
        picture(name)
    (tmp_path / "take" / "c.png").write_bytes(b"no picture")
    whole = (tmp_path / "take" / "d.png").read_bytes()
    (tmp_path / "take" / "e.png").write_bytes(whole[:60])
    (tmp_path / "take" / "notes.txt").write_text("not meant")
    assert run("predict", tmp_path / "take", "--out", tmp_path / "out", "--no-preview") == 2
    lines = errors(capsys)
    assert len(lines) == 2 and all(line.startswith("sf-jax: error: ") for line in lines)
    assert "c.png: not an image" in lines[0] and "e.png: damaged or truncated" in lines[1]
    assert names(tmp_path / "out") == ["a.json", "b.json", "d.json", *TABLE]
    with (tmp_path / "out" / "pictures.index.csv").open() as file:
        found = [Path(row["image"]).name for row in csv.DictReader(file)]
    assert found == ["a.jpg", "b.png", "d.png"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    return write_video(path, 30000 / 1001, [counting(i) for i in range(60)])


class BarModel(FakeModel):
    """Opens the jaw as far as the bar of `counting` has moved, with a jitter."""

    def predict(self, picture: np.ndarray, **called: object) -> FaceAction:
        action = action_of(picture)
        number = counted(picture)
        action.coefficients[:] = 0
        action.coefficients[JAW] = number / 100 + 0.02 * (round(number) % 2)
        return action


@pytest.fixture
def bar_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_model", lambda *_: BarModel())


def test_sixty_frames_of_video_keep_their_order_and_rate(
    bar_model: None, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert run("predict", video, "--out", out) == 0
    assert names(out) == ["clip.csv", "clip.jsonl", "clip.preview.png"]
    take = livelink.read(out / "clip.csv", fps=29.97)
    assert len(take.coefficients) == 60 and take.fps == pytest.approx(30000 / 1001)
    assert take.seconds[-1] == pytest.approx(59 * 1001 / 30000, abs=1e-4)
    raw = np.arange(60) / 100 + 0.02 * (np.arange(60) % 2)
    assert np.abs(take.coefficients[:, JAW] - raw).max() < 0.011
    assert "60 frames at 29.97" in capsys.readouterr().out


def test_a_given_rate_and_drop_frame_timecode(bar_model: None, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("predict", video, "--out", out, "--no-preview", "--fps", 24) == 0
    assert livelink.read(out / "clip.csv").fps == pytest.approx(24, abs=0.01)
    assert run("predict", video, "--out", out, "--no-preview", "--drop-frame") == 0
    take = livelink.read(out / "clip.csv")
    assert ";" in take.timecodes[0] and take.fps == pytest.approx(29.97, abs=0.01)


def test_smooth_is_the_one_euro_filter_at_the_videos_rate(
    bar_model: None, video: Path, tmp_path: Path
) -> None:
    rows = []
    for flags in ([], ["--smooth"]):
        assert run("predict", video, "--out", tmp_path / "out", "--no-preview", *flags) == 0
        rows.append(livelink.read(tmp_path / "out" / "clip.csv", fps=29.97).coefficients)
    raw, filtered = rows
    assert np.abs(raw - filtered).max() > 0.005
    np.testing.assert_allclose(filtered, smooth(raw, 30000 / 1001), atol=1e-5)


def test_a_broken_video_is_listed_and_the_rest_is_read(
    model: FakeModel, picture: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 50)
    out = tmp_path / "out"
    assert run("predict", tmp_path / "bad.mp4", picture(), "--out", out, "--no-preview") == 2
    (line,) = errors(capsys)
    assert "bad.mp4: damaged, or not a video" in line
    assert names(out) == ["face.csv", "face.index.csv", "face.json"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["predict", "none.png", "--out", "o"], "none.png: no such file"),
        (["predict", "text.png", "--out", "o"], "text.png: not an image"),
        (["predict", "empty", "--out", "o"], "empty: holds no picture"),
        (["predict", "face.png", "--out", "o", "--drop-frame"], "--drop-frame needs --fps"),
        (["predict"], "required"),
        (["predict", "face.png", "--out", "o", "--values", "best"], "best"),
        (["predict", "face.png", "--out", "o", "--fps", "0"], "'0' is not a positive number"),
        (["predict", "face.png", "--out", "o", "--fps", "nan"], "'nan' is not a positive number"),
        (
            ["predict", "face.png", "--out", "o", "--temperature", "-1"],
            "'-1' is not a number from 0 to 1e+06",
        ),
        (["predict", "face.png", "--out", "o", "--neutral", "text.png"], "text.png: not an image"),
        (["predict", "face.png", "--out", "text.png"], "text.png"),
        (["predict", "face.png", "--out", "o", "--wrong"], "--wrong"),
        (["dance"], "dance"),
        (["train", "dancing"], "no experiment 'dancing'; there are "),
        (["data", "dance"], "no data command 'dance'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    model: FakeModel,
    picture: Callable,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture()
    (tmp_path / "text.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("sf-jax: error: ") and err.count("\n") == 1 and words in err


def test_missing_files_are_reported_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(loading, "load_model", lambda *_: pytest.fail("loaded"))
    assert run("predict", tmp_path / "a.png", tmp_path / "b.png", "--out", tmp_path / "o") == 2
    assert len(errors(capsys)) == 2


def test_an_error_of_several_lines_is_reported_in_one(
    monkeypatch: pytest.MonkeyPatch,
    picture: Callable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("first\n  second")

    monkeypatch.setattr(loading, "load_model", fail)
    assert run("predict", picture(), "--out", tmp_path / "o") == 2
    assert capsys.readouterr().err == "sf-jax: error: first second\n"


def test_without_arguments_help_lists_the_commands(capsys: pytest.CaptureFixture) -> None:
    assert run() == 0
    printed = capsys.readouterr().out
    commands = "predict demo train evaluate card convert serve compile bench schema data"
    for command in commands.split():
        assert f"\n    {command} " in printed


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_pipe_that_nobody_reads_any_more_ends_the_command_quietly(stream: str) -> None:
    """Output as of `| head`; any other broken pipe is an error with a name."""
    code = (
        "import os, sys\nfrom sf_jax import cli\n"
        f"cli._dispatch = lambda argv: print('x' * 10**6, file=sys.{stream})\n"
        "sys.stdin.read()\nsys.exit(cli.main([]))"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:
        getattr(process, stream).close()
        process.stdin.close()
        other = process.stderr if stream == "stdout" else process.stdout
        assert other.read() == ""
    assert process.returncode == 141


def test_another_broken_pipe_is_an_error(
    capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: list[str]) -> int:
        raise BrokenPipeError(32, "Broken pipe", "out/fifo")

    monkeypatch.setattr(cli, "_dispatch", broken)
    assert run() == 2
    assert capfd.readouterr().err == "sf-jax: error: out/fifo: Broken pipe\n"


@pytest.mark.parametrize("command", ["train", "data", "bench"])
def test_commands_of_many_parts_list_them(command: str, capsys: pytest.CaptureFixture) -> None:
    assert run(command) == 0
    listed = capsys.readouterr().out
    assert {"train": "builtin_model", "data": "render", "bench": "checkpoint"}[command] in listed


@pytest.mark.parametrize("command", [["evaluate"], ["data"]])
def test_the_rest_is_handed_on(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"sf_jax.cli.{command[0]}"
    stand_in, given = ModuleType(module), []
    stand_in.main = given.extend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, stand_in)
    assert run(*command, "--count", 3) == 0
    assert given == ["--count", "3"]


def test_a_whole_or_no_json(tmp_path: Path) -> None:
    session = Session(FakeModel())  # type: ignore[arg-type]
    step = session.framed(np.zeros((3, 3, 3), np.uint8))
    action = action_of(step.image)
    write_json(tmp_path / "a.json", as_json(session.answered(step, action), "é.png"))
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["image"] == "é.png"
    assert written["sf_jax"] == {"version": sf_jax.__version__, "weights": "xxh128:0"}
    before = (tmp_path / "a.json").read_text()
    action.spread[3] = np.nan
    with pytest.raises(ValueError, match=r"a\.json"):
        write_json(tmp_path / "a.json", as_json(session.answered(step, action), "é.png"))
    assert names(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_text() == before
    (tmp_path / "taken.json").mkdir()
    with pytest.raises(OSError):
        write_json(tmp_path / "taken.json", {})
    assert names(tmp_path) == ["a.json", "taken.json"]


def test_files_of_one_stem_keep_their_results_apart(
    model: FakeModel, picture: Callable, tmp_path: Path
) -> None:
    files = [picture(name) for name in ("one/a.png", "one/a.jpg", "two/a.png", "one/b.png")]
    out = tmp_path / "out"
    assert run("predict", *files, files[0], "--out", out, "--no-preview") == 0
    assert names(out) == ["a.jpg.json", "a.png-2.json", "a.png.json", "b.json", *TABLE]
    found = json.loads((out / "a.png-2.json").read_text())
    assert found["image"].endswith("two/a.png") and len(model.seen) == 4


def test_a_rate_without_drop_frame_timecode_is_refused_before_the_work(
    model: FakeModel, picture: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clip = write_video(tmp_path / "clip.mp4", 24.0, [counting(i) for i in range(5)])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    code = run("predict", tmp_path / "bad.png", clip, "--out", tmp_path / "o", "--drop-frame")
    assert code == 2 and model.seen == []
    first, second = errors(capsys)
    assert "bad.png: not an image" in first and "clip.mp4: drop-frame" in second


def test_a_video_cut_short_is_reported(
    model: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clip = write_video(tmp_path / "clip.avi", 24.0, [counting(i) for i in range(20)])
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert run("predict", clip, "--out", tmp_path / "o") == 2
    (error,) = errors(capsys)
    assert "clip.avi: damaged: 6 of 20 frames could be read; the file lacks its last" in error
    assert len(livelink.read(tmp_path / "o" / "clip.csv").coefficients) == 6
    assert names(tmp_path / "o") == ["clip.csv", "clip.jsonl", "clip.preview.png"]


def test_of_an_animation_a_note_says_what_was_read(
    model: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first, second = (Image.new("RGB", (30, 30), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert run("predict", tmp_path / "a.gif", "--out", tmp_path / "o", "--no-preview") == 0
    printed = capsys.readouterr()
    assert "a.gif: the first of 2 frames was read" in printed.out + printed.err


def test_what_is_slow_to_import_waits_until_it_is_needed() -> None:
    """Options, names and errors need no jax; a reading without a sheet or --crop no matplotlib,
    numba or scikit-image."""
    code = (
        "import sys; import sf_jax.reader.job, sf_jax.cli.predict; assert 'jax' not in sys.modules;"
        "import sf_jax.reader.files, sf_jax.reader.loading;"
        "print({'matplotlib', 'numba', 'skimage', 'orbax', 'tensorflow'} & sys.modules.keys())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0 and found.stdout == "set()\n", found.stderr


def test_the_demo_prints_true_beside_read(
    model: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what this run has read, although another file has the usual name."""
    monkeypatch.setattr(
        "sf_jax.render.preview.preview", lambda seen, action, path, *found: path.touch()
    )
    (tmp_path / "face.json").write_text("another's")
    assert run("demo", "--out", tmp_path, "--seed", 7) == 0
    rows = [
        line.split() for line in capsys.readouterr().out.partition("true   read")[2].split("\n")
    ]
    read, true = action_of(model.seen[0]).coefficients, sample(7)
    assert ["JawOpen", f"{true[JAW]:.2f}", f"{read[JAW]:.2f}"] in rows
    shown = {row[0] for row in rows if row[:1] and row[0] in channels.INDEX}
    assert set(channels.NAMES[i] for i in np.argsort(-np.abs(true))[:5]) <= shown
    error = np.abs(read - true)[channels.BLENDSHAPES].mean()
    assert rows[-2][:2] == ["mean", "error"] and float(rows[-2][-1]) == pytest.approx(
        error, abs=1e-3
    )
    assert (tmp_path / "face.json").read_text() == "another's"


def test_each_kind_of_cpu_has_compiled_programs_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sf_jax.reader import loading as models

    asked: dict[str, object] = {}
    monkeypatch.setattr("jax.config.update", asked.__setitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    models.compilation_cache()
    folder = Path(str(asked["jax_compilation_cache_dir"]))
    assert folder.parent == tmp_path / "sf_jax" and folder.stat().st_mode & 0o77 == 0
    kinds = set()
    for flags in ("fpu avx2", "fpu avx2 avx512f", None):
        listed = tmp_path / "cpuinfo"
        listed.unlink(missing_ok=True)
        if flags:
            listed.write_text(f"processor\t: 0\nflags\t\t: {flags}\nprocessor\t: 1\n")
        kinds.add(models._cpu_kind(listed))
    assert len(kinds) == 3
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # as if it were not set
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    models.compilation_cache()
    assert Path(str(asked["jax_compilation_cache_dir"])).parents[1] == tmp_path / "home" / ".cache"
