"""Reliability of channels: its file, the model card, and where a reading shows it."""

import json
from pathlib import Path

import numpy as np
import pytest

from sf_jax.face.channels import NAMES
from sf_jax.media import files
from sf_jax.reader import reliability
from sf_jax.reader.reliability import Channel, Reliability, ReliabilityError
from sf_jax.reader.report import report
from sf_jax.systems.semanticface import model_card
from tests.cli.test_cli import action_of, errors, run

BRIGHT = np.full((4, 4, 3), 200, np.uint8)  # opens the jaw of `action_of`


def stored(weights: str | None = "xxh128:0") -> reliability.Stored:
    """JawOpen is read badly on one set and well on another, TongueOut is not measured."""
    good = {name: Channel(r=0.8, faces=10) for name in NAMES}
    good["TongueOut"] = Channel(r=None, faces=0)
    bad = good | {"JawOpen": Channel(r=-0.4, faces=5)}
    return reliability.merged({"a": good, "b": bad}, weights, "model, mean")


def write(folder: Path, weights: str | None = "xxh128:0") -> Path:
    files.write_json(folder / reliability.FILE, stored(weights).model_dump())
    return folder


def test_sets_count_the_same_and_weak_channels_are_named(tmp_path: Path) -> None:
    found = reliability.load(write(tmp_path))
    assert found is not None and found.weak == ("JawOpen",)
    assert found.as_json(("JawOpen", "HeadYaw", "TongueOut")) == {
        "JawOpen": 0.2,
        "HeadYaw": 0.8,
        "TongueOut": None,
    }
    assert found.faces[NAMES.index("JawOpen")] == 15 and not found.faces[NAMES.index("TongueOut")]


def test_it_holds_for_the_measured_weights_alone(tmp_path: Path) -> None:
    assert reliability.load(tmp_path, lambda: pytest.fail("hashed for nothing")) is None
    write(tmp_path)
    assert reliability.load(tmp_path, lambda: "xxh128:1") is None
    assert reliability.load(tmp_path, lambda: "xxh128:0") is not None
    write(tmp_path, None)
    assert reliability.load(tmp_path, lambda: "xxh128:1") is not None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"channels": {"JawWide": {"r": 0.1, "faces": 2}}}, "JawWide"),
        ({"channels": {"JawOpen": {"r": "high", "faces": 2}}}, "channels.JawOpen.r"),
        ({"read_out": None}, "read_out"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: dict, named: str) -> None:
    path = write(tmp_path) / reliability.FILE
    path.write_text(json.dumps(stored().model_dump() | change))
    with pytest.raises(ReliabilityError, match=named) as found:
        reliability.load(tmp_path)
    assert str(path) in str(found.value)


def weak(*names: str) -> Reliability:
    r = np.full(61, 0.9, np.float32)
    r[[NAMES.index(name) for name in names]] = 0.1
    return Reliability(r, np.full(61, 9, np.int32))


def test_a_printed_reading_marks_what_cannot_be_read() -> None:
    action = action_of(BRIGHT)
    plain = report(action, action.coefficients, "a.png")
    assert "?" not in plain
    object.__setattr__(action, "reliability", weak("JawOpen", "TongueOut"))
    lines = report(action, action.coefficients, "a.png").splitlines()
    (jaw,) = [line for line in lines if line.startswith("JawOpen")]
    (yaw,) = [line for line in lines if line.startswith("HeadYaw")]
    assert "?" in jaw and "?" not in yaw
    assert lines[-1] == "? measured to be read badly (r below 0.3): do not rely on it"
    object.__setattr__(action, "reliability", weak("TongueOut"))  # at rest here
    assert report(action, action.coefficients, "a.png") == plain


def evaluation(path: Path, weights: str | None, jaw: float = 0.1) -> Path:
    """What evaluate writes, of one set."""
    each = {name: {"r": 0.7, "faces": 4, "mae": 0.1, "active_mae": None} for name in NAMES}
    each["JawOpen"]["r"] = jaw
    score = {
        "all": {"r_52": 0.61, "mae_52": 0.05, "active_mae": 0.2, "head_degrees": 2.345},
        "intervals": {"r_52": {"low": 0.55, "high": 0.66}},
        "channels": each,
    }
    found = {
        "sf_jax": {"version": "9.9"} | ({} if weights is None else {"weights": weights}),
        "device": "cpu",
        "framed": True,
        "read_out": "model, mean",
        "sets": {
            "own": {
                "faces": 4,
                "people": 3,
                "found": 2,
                "scores": {"model, mean": score, "zeros": {**score, "all": {"mae_52": 0.088}}},
                "agreement": None,
                "coverage": {"all": 0.81, "active": None},
            }
        },
    }
    path.write_text(json.dumps(found))
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory without checksums, whose weights are one file."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_card_and_reliability_come_of_an_evaluation(directory: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.md"
    data.write_text("Renders of our own, MIT.\n")
    command = ["card", directory, "--evaluation", evaluation(tmp_path / "e.json", None)]
    assert run(*command, "--data", data) == 0
    found = reliability.load(directory)
    assert found is not None and found.weak == ("JawOpen",)
    card = (directory / model_card.FILE).read_text()
    assert "# Model card: tiny" in card and "Renders of our own, MIT." in card
    row = "| own | 4 | 3 | 2 | 0.610 | 0.550 to 0.660 | 0.050 | 0.088 | – | – | 0.200 | 2.35 "
    assert row in card or row.replace("2.35", "2.34") in card
    assert "Cannot be read (r below 0.3 over the sets): JawOpen." in card
    assert "| 0.81, – |" in card
    assert run(*command) == 0  # replaced
    assert "Not stated." in (directory / model_card.FILE).read_text()


def test_an_evaluation_of_other_weights_is_refused(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = evaluation(tmp_path / "e.json", "xxh128:1")
    assert run("card", directory, "--evaluation", other) == 2
    assert "of weights xxh128:1, not of" in errors(capsys)[0]
    whole = json.loads(evaluation(tmp_path / "w.json", None).read_text()) | {"framed": False}
    (tmp_path / "w.json").write_text(json.dumps(whole))
    for name in model_card.FRAMING:
        (directory / name).write_bytes(b"")
    assert run("card", directory, "--evaluation", tmp_path / "w.json") == 2
    assert "made with --whole" in errors(capsys)[0]
    other.write_text('{"sets": {}}')
    assert run("card", directory, "--evaluation", other) == 2
    assert str(other) in errors(capsys)[0]
    assert run("card", tmp_path, "--evaluation", other) == 2
    assert "no config.json" in errors(capsys)[0]
    assert not (directory / model_card.FILE).exists()


def test_a_channel_whose_label_is_always_the_same_is_not_measured(tmp_path: Path) -> None:
    """Its r counts as 0 in an evaluation, which is no reason to mark it as badly read."""
    path = evaluation(tmp_path / "e.json", None, jaw=0.0)
    content = json.loads(path.read_text())
    content["sets"]["own"]["scores"]["model, mean"]["constant_labels"] = ["JawOpen"]
    path.write_text(json.dumps(content))
    found = model_card.read_evaluation(path)
    channels = model_card.channels_of(found).channels
    assert channels["JawOpen"].r is None and channels["JawLeft"].r == 0.7
    card = model_card.card("tiny", found)
    assert "Not measured: JawOpen." in card and "| JawOpen | – | 4 | – |" in card
