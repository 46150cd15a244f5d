"""`sf-jax predict --requests`: MS-SWIFT lines in, MS-SWIFT lines and Live Link CSV out."""

import csv
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sf_jax
from sf_jax.cli import loading
from sf_jax.face import answers, channels, livelink
from sf_jax.media import small_files
from sf_jax.reader import requests, stills
from sf_jax.reader.action import FaceAction
from sf_jax.reader.schema import channel_schema
from tests.cli.test_cli import JAW, FakeModel, action_of, errors, names, run


class SpeakingModel(FakeModel):
    """Says its numbers as the built-in model does; fails as a broken program on black pictures."""

    def predict(self, picture: np.ndarray, **called: object) -> FaceAction:
        super().predict(picture, **called)
        if not picture.any():
            raise KeyboardInterrupt
        action = action_of(picture)
        answer = channel_schema().format(action.answer)
        return replace(action, text=f"{action.rationale.text}\n\n{answer}")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> SpeakingModel:
    fake = SpeakingModel()
    monkeypatch.setattr(loading, "load_model", lambda *_: fake)
    return fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures whose jaws open by 0.2, 0.4 and 0.6, a black one and a broken one."""
    (tmp_path / "job" / "images").mkdir(parents=True)
    for number in (1, 2, 3):
        picture = Image.new("RGB", (40, 30), (128, 51 * number, 0))
        picture.save(tmp_path / "job" / "images" / f"{number}.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "job" / "images" / "black.png")
    (tmp_path / "job" / "images" / "broken.png").write_bytes(b"no picture")
    return tmp_path


def request(image: str | None = "images/1.png", text: str = "<image>Read.", **more: object) -> dict:
    messages = [{"role": "system", "content": "Output strict JSON"},
                {"role": "user", "content": text}]  # fmt: skip
    return {"messages": messages} | ({} if image is None else {"images": [image]}) | more


def write(folder: Path, *lines: dict | str) -> Path:
    path = folder / "job" / "requests.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def start(path: Path, folder: Path, *more: object) -> int:
    return run("predict", "--requests", path, "--results", folder / "out" / "r.jsonl", *more)


def results(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "out" / "r.jsonl").read_text().splitlines()]


def test_a_result_has_the_form_that_ms_swift_writes(model: FakeModel, folder: Path) -> None:
    assert start(write(folder, request()), folder) == 0
    (found,) = results(folder)
    assert list(found) == ["response", "labels", "logprobs", "messages", "images", "sf_jax"]
    assert found["sf_jax"] == {"version": sf_jax.__version__, "weights": "xxh128:0"}
    assert found["labels"] is None and found["logprobs"] is None
    assert found["messages"] == [
        {"role": "system", "content": "Output strict JSON", "loss": None},
        {"role": "user", "content": "<image>Read.", "loss": None},
        {"role": "assistant", "content": found["response"]},
    ]
    assert found["images"] == [{"bytes": None, "path": "images/1.png"}]
    assert answers.parse(found["response"]).coefficients[JAW] == pytest.approx(0.2)
    assert names(folder / "out") == ["r.jsonl"]


def test_the_released_form_of_request_is_answered(model: FakeModel, folder: Path) -> None:
    """As `shared/formats/semanticface_request.jsonl`: a long question, pictures beside the file."""
    question = '<image>You are an expert in FACS.\n\nPart 1: "analysis"\n- … {"name": value}\n'
    second = request({"bytes": None, "path": "images/2.png"}, id="b", loss=1)
    third = request(str(folder / "job/images/3.png"))
    path = write(folder, request(text=question), "", second, third)
    assert start(path, folder, "--csv", folder / "out" / "r.csv") == 0
    found = results(folder)
    assert [answers.parse(line["response"]).coefficients[JAW] for line in found] == pytest.approx(
        [0.2, 0.4, 0.6]
    )
    assert found[0]["messages"][1]["content"] == question
    assert (found[1]["id"], found[1]["loss"]) == ("b", 1)
    take = livelink.read(folder / "out" / "r.csv", fps=30)
    np.testing.assert_allclose(take.coefficients[:, JAW], [0.2, 0.4, 0.6], atol=1e-6)
    assert take.sources is None
    with (folder / "out" / "r.index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [
        "images/1.png",
        "images/2.png",
        str(folder / "job/images/3.png"),
    ]
    assert [row["kind"] for row in rows] == ["still"] * 3
    read = answers.read_results(folder / "out" / "r.jsonl")  # and back through our own reader
    assert len(read) == 3 and read[1].line.images == ["images/2.png"]


def test_a_training_example_keeps_its_answer_as_the_label(model: FakeModel, folder: Path) -> None:
    example = request()
    example["messages"].append({"role": "assistant", "content": "to learn"})
    assert start(write(folder, example), folder) == 0
    (found,) = results(folder)
    assert found["labels"] == "to learn" and len(found["messages"]) == 3
    assert found["messages"][-1]["content"] == found["response"] != "to learn"


EXACT = {"role": "system", "content": "Be exact."}
ASKED = {"role": "user", "content": "<image>Read."}


@pytest.mark.parametrize(
    ("fields", "messages", "first"),
    [
        ({"system": "Only X."}, [ASKED], "Only X."),
        ({"system": "Only X."}, [EXACT, ASKED], "Be exact."),  # as MS-SWIFT has it
        ({"system_prompt": "Only X."}, [ASKED], "Only X."),
        ({"system_prompt": "Only Y.", "system": "Only X."}, [ASKED], "Only X."),
        ({"system": None}, [ASKED], None),
        ({"system": ""}, [ASKED], None),
    ],
)
def test_a_system_text_beside_the_messages_comes_before_them(
    model: SpeakingModel, folder: Path, fields: dict, messages: list, first: str | None
) -> None:
    model.instructed = True
    line = {"messages": messages, "images": ["images/1.png"], **fields}
    assert start(write(folder, line), folder) == 0
    given = model.called[0]["messages"]
    assert [m["content"] for m in given] == ([first] if first else []) + ["<image>Read."]
    (found,) = results(folder)
    assert [m["content"] for m in found["messages"][:-1]] == [m["content"] for m in given]
    assert not fields.keys() & found.keys()


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"id": NaN, "messages": []}', "line 1, field 'id': found NaN or infinity"),
        ('{"messages": [{"role": "user", "content": "x", "loss": 1e999}]}', "messages[0].loss"),
        ('{"messages": ' + "[" * 3000 + "]" * 3000 + "}", "line 1: nested more than 64 deep"),
        ('{"messages": [], "messages": []}', "line 1, field 'messages': given twice"),
        (json.dumps(request(system=5)), 'line 1: "system" is 5, expected text'),
        (json.dumps(request(images=[{"bytes": "aGk="}])), 'line 1: "images" holds'),
    ],
)
def test_lines_that_are_no_requests_are_one_line(
    model: FakeModel, folder: Path, capsys: pytest.CaptureFixture, line: str, named: str
) -> None:
    assert start(write(folder, line), folder) == 2
    error = capsys.readouterr().err
    assert "requests.jsonl, line 1" in error and named in error
    assert error.count("\n") == 1
    assert not (folder / "out").exists()


FAILING = [
    (request("images/none.png"), "images/none.png: no such file"),
    (request("images/broken.png"), "images/broken.png: not an image"),
    (request(""), "not a file"),
    (request(None, "Keyframe One: the gaze is lowered."), "has 0 pictures, expected one"),
    (request(images=["images/1.png", "images/2.png"]), "has 2 pictures, expected one"),
    (request(text="<image><image>Which?"), "show 2 images, 1 are given"),
    (request(text="<image>Read \ud83d"), "message 2: the text holds U+D83D alone"),
    (request("images/\ud83d.png"), "images/\\ud83d.png: no such file"),
    (request("images/\0.png"), "images/\\x00.png: no such file"),
    ({"messages": [{"role": "robot", "content": "<image>"}], "images": ["images/1.png"]},
     "message 1: the role is 'robot'"),
    (request("https://example.org/face.png"), '"images" holds an address, "https://example.org/'),
    (request("s3://faces/1.png"), '"images" holds an address, "s3://faces/1.png"'),
    (request("data:image/png;base64,iVBORw0KGgo="), '"images" holds the content of an image'),
    (request("iVBORw0KGgo" + "A" * 5000), '"images" holds the content of an image'),
    (request(text="<image>Read.", tools=[{"name": "x"}]), 'the request has "tools"'),
    ({"messages": [{"role": "user", "content": [{"type": "image", "image": "https://a/b.png"}]}],
      "images": ["images/1.png"]}, "message 1: an image is given under 'image'"),
]  # fmt: skip


def test_every_failure_has_its_line_in_its_place(
    model: FakeModel, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = [request("images/1.png")]
    for failing, _ in FAILING:
        lines += [failing, request("images/3.png")]
    path, table = write(folder, *lines), folder / "out" / "r.csv"
    assert start(path, folder, "--csv", table) == 2
    found = results(folder)
    assert len(found) == len(lines) == 2 * len(FAILING) + 1
    reported = errors(capsys)
    for number, (failing, words) in enumerate(FAILING):
        record = found[2 * number + 1]
        assert record["response"] is None and words in record["error"]
        assert [m["role"] for m in record["messages"]] == [m["role"] for m in failing["messages"]]
        assert (
            f"requests.jsonl, line {2 * number + 2}: " in reported[number]
            and words in reported[number]
        )
    for record in found[2::2]:
        assert "error" not in record
        assert answers.parse(record["response"]).coefficients[JAW] == pytest.approx(0.6)
    assert len(reported) == len(FAILING)
    assert names(folder / "out") == ["r.csv", "r.index.csv", "r.jsonl"]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["BlendShapeCount"] for row in rows] == ["61"] + ["0", "61"] * len(FAILING)
    assert all(row["JawOpen"] == "" for row in rows[1::2]) and rows[0]["JawOpen"] != ""
    with pytest.raises(livelink.LiveLinkError, match="r.csv, line 3: holds no values"):
        livelink.read(table)
    assert livelink.read(table, keep_empty=True).empty_lines == list(range(3, len(lines) + 1, 2))
    with (folder / "out" / "r.index.csv").open() as file:
        assert [row["answered"] for row in csv.DictReader(file)] == ["true"] + [
            "false",
            "true",
        ] * len(FAILING)
    # Read back strictly or not, a failed line is an error and never a row of numbers.
    read = answers.read_results(folder / "out" / "r.jsonl", strict=False)
    assert [result.answer is None for result in read] == [False] + [True, False] * len(FAILING)


@pytest.mark.parametrize(
    "line, words",
    [
        ('{"messages": [', "line 2: not JSON"),
        ("[1, 2]", 'line 2: expected an object with "messages"'),
        ('{"messages": "hello"}', 'line 2: "messages" is no list'),
        ('{"messages": []}', 'line 2: "messages" holds no question'),
        ('{"response": "done"}', 'line 2: "messages" holds no question'),
        ('{"messages": [{"role": "user"}], "images": [3]}', 'line 2: "images" holds'),
    ],
)
def test_a_broken_line_is_reported_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    line: str,
    words: str,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(loading, "load_model", lambda *_: pytest.fail("loaded"))
    assert start(write(folder, request(), line, request()), folder) == 2
    (line,) = errors(capsys)
    assert "requests.jsonl, " + words in line
    assert not (folder / "out").exists()


INTERRUPTED = ["r.jsonl", "r.partial.csv", "r.partial.index.csv", "r.partial.jsonl"]


def test_an_interruption_leaves_the_old_results_and_what_was_done(
    model: FakeModel, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert start(write(folder, request("images/3.png")), folder) == 0
    before = results(folder)
    path = write(folder, request(), request("images/black.png"), request())
    assert start(path, folder, "--csv", folder / "out" / "r.csv") == 130
    assert results(folder) == before
    assert names(folder / "out") == INTERRUPTED
    (done,) = (folder / "out" / "r.partial.jsonl").read_text().splitlines()
    assert answers.parse(json.loads(done)["response"]).coefficients[JAW] == pytest.approx(0.2)
    take = livelink.read(folder / "out" / "r.partial.csv", fps=30)
    assert take.coefficients[:, JAW].tolist() == [pytest.approx(0.2)]
    (stopped,) = errors(capsys)
    assert "sf-jax: stopped: kept are 1 of 3 results in " in stopped
    assert "r.partial.jsonl and " in stopped and "r.partial.csv" in stopped
    assert start(write(folder, request()), folder) == 0  # and the next run leaves what was kept
    assert names(folder / "out") == INTERRUPTED


@pytest.mark.parametrize("error", [None, OSError(28, "No space left")])
def test_complete_results_are_kept_whatever_comes_of_the_csv(
    model: FakeModel,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    error: OSError | None,
) -> None:
    """A signal is dropped, as the run is ending; a disk that is full is listed with the rest."""
    whole = stills.write

    def disturbed(*given: object) -> None:
        if error:
            raise error
        os.kill(os.getpid(), signal.SIGINT)
        whole(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(stills, "write", disturbed)
    path = write(folder, request(), request("images/none.png"))
    assert start(path, folder, "--csv", folder / "out" / "r.csv") == 2
    reported = errors(capsys)
    assert "none.png: no such file" in reported[0] and len(results(folder)) == 2
    assert ["No space left" in line for line in reported[1:]] == [True] * bool(error)
    assert names(folder / "out") == ([] if error else ["r.csv", "r.index.csv"]) + ["r.jsonl"]


def test_a_line_is_parsed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold an image in base64."""
    parse, parsed = small_files.parse_json, []

    def counted(text: bytes, *more: object) -> object:
        parsed.append(text)
        return parse(text, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(small_files, "parse_json", counted)
    (found,) = requests.read_requests(write(folder, request(id="b", system="x")))
    assert found.others == {"id": "b"} and len(parsed) == 1


@pytest.mark.parametrize(
    "flag, output, words",
    [
        ("--results", "job/images/1.png", "would be replaced by results"),
        ("--csv", "job/images/1.png", "would be replaced by results"),
        ("--csv", "hard.csv", "would be replaced by results"),
        ("--csv", "neutral.png", "different files"),
        ("--csv", "link.csv", "different files"),
        ("--results", "file/r.jsonl", "file: a file, expected a folder"),
        ("--csv", "R.JSONL", "different files"),  # one file on a disk that ignores case
        ("--csv", "job", "job: a folder, expected a file"),
    ],
)
def test_outputs_meet_no_input_and_no_other_output(
    model: FakeModel,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    flag: str,
    output: str,
    words: str,
) -> None:
    monkeypatch.chdir(folder)
    write(folder, request())
    for name in ("neutral.png", "file"):
        (folder / name).write_bytes((folder / "job" / "images" / "1.png").read_bytes())
    (folder / "hard.csv").hardlink_to(folder / "job" / "images" / "1.png")
    (folder / "link.csv").symlink_to(folder / "job" / "requests.jsonl")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    given = {"--results": "r.jsonl", "--csv": "r.csv", "--neutral": "neutral.png"} | {flag: output}
    flat = [part for pair in given.items() for part in pair]
    assert run("predict", "--requests", "job/requests.jsonl", *flat) == 2
    assert words in errors(capsys)[0] and model.seen == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_file_that_is_named_as_unfinished_results_stays(model: FakeModel, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "r.partial.jsonl").write_text("mine")
    assert start(write(folder, request()), folder) == 0
    assert (folder / "out" / "r.partial.jsonl").read_text() == "mine"
    path = write(folder, request(), request("images/black.png"))
    assert start(path, folder) == 130
    assert (folder / "out" / "r.partial.jsonl").read_text() == "mine"
    assert len((folder / "out" / "r.partial-2.jsonl").read_text().splitlines()) == 1


def test_flags_shape_the_csv(model: FakeModel, folder: Path) -> None:
    path, table = write(folder, request(), request("images/2.png")), folder / "out" / "r.csv"
    flags = ["--csv", table, "--fps", 29.97, "--drop-frame", "--values", "answer", "--no-words"]
    assert start(path, folder, *flags) == 0
    assert [called["rationale"] for called in model.called] == [False, False]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["Timecode"] for row in rows] == ["00:00:00;00.000", "00:00:00;01.000"]
    assert list(rows[0])[2:63] == list(channels.NAMES)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--requests", "q"], "--results is required"),
        (["--results", "r"], "--requests is required"),
        (["--csv", "c"], "--requests is required"),
        (["--requests", "q", "--results", "r", "face.png"], "does not go with an image"),
        (["--requests", "q", "--results", "r", "--out", "o"], "does not go with --out"),
        (["--requests", "q", "--results", "r", "--smooth"], "does not go with --smooth"),
        (["--requests", "q", "--results", "r", "--skip-existing"], "go with --skip-existing"),
        (["--requests", "q", "--results", "./q"], "different files"),
        (["--requests", "q", "--results", "r", "--csv", "r"], "different files"),
        (["--requests", "q", "--results", "taken"], "taken: a folder"),
        (["--requests", "none", "--results", "r"], "none"),
        (["--requests", "empty", "--results", "r"], "empty: holds no requests"),
        (["--requests", "latin", "--results", "r"], "latin, line 1: not a text file"),
        (["--requests", "q", "--results", "r", "--csv", "c", "--drop-frame"], "drop-frame"),
    ],
)
def test_arguments_that_make_no_sense_are_one_line(
    model: FakeModel,
    folder: Path,
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(folder)
    (folder / "q").write_text(json.dumps(request("job/images/1.png")))
    (folder / "empty").write_text("\n\n")
    (folder / "latin").write_bytes(b"\xe9")
    (folder / "taken").mkdir()
    assert run("predict", *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("sf-jax: error: ") and err.count("\n") == 1 and words in err
    assert model.seen == [] and not (folder / "r").exists() and not (folder / "c").exists()


def test_the_built_in_model_answers_in_the_canonical_form(folder: Path) -> None:
    path = write(folder, request("images/1.png"), request("none.png"), request("images/2.png"))
    assert start(path, folder, "--whole") == 2
    first, failed, last = results(folder)
    for record in (first, last):
        answer = answers.parse(record["response"])
        assert answer.layout == "flat" and answer.coefficients.shape == (61,)
        assert answer.rationale.startswith("1. Expression")
    assert failed["response"] is None and "none.png" in failed["error"]
