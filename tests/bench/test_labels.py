"""MediaPipe's labels as a file, by a stand-in for the library; and the faults of a take."""

import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import records
from data_pipelines.sampler import sample
from data_pipelines.sources import number_of
from sf_jax import cli
from sf_jax.bench import flaws
from sf_jax.face import labels
from sf_jax.face.channels import INDEX, NAMES
from sf_jax.systems.superface import flawed
from sf_jax.systems.superface.pairs import image_hash
from tests.bench import test_peers

image, stand_in = test_peers.image, test_peers.stand_in
STUDY = Path(__file__).parents[2] / "experiments" / "results" / "superface_mediapipe.csv"
TAKE = Path(__file__).parents[3] / "shared" / "takes" / "range_of_motion.csv"


def face(level: int) -> dict:
    return {"image": image(level), "coefficients": np.zeros(61, np.float32), "rationale": ""}


def test_a_file_has_a_line_an_image_that_our_reader_understands(
    stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records.write(tmp_path / "a.array_record", [face(20), face(102), face(204), face(102)])
    out = tmp_path / "labels.jsonl"
    given = ["bench", "mediapipe_labels", str(tmp_path), "--mediapipe-python", sys.executable]
    given += ["--task", str(stand_in), "--out", str(out)]
    assert cli.main(given) == 0
    assert "finds a face in 2 of 3 images" in capsys.readouterr().out
    found = labels.read(out)
    assert found.tracker == "mediapipe"
    assert found.images == [image_hash(image(level)) for level in (20, 102, 204)]
    assert found.coefficients[:, INDEX["JawOpen"]] == pytest.approx([np.nan, 0.4, 0.8], nan_ok=True)
    assert not found.known[0].any() and found.known[1].sum() == 51
    before = out.read_bytes()
    assert cli.main(given) == 2 and "exists already" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_table_has_the_same_labels_by_number(
    stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = [face(level) | {"seed": 7 + level} for level in (20, 102, 204)]
    records.write(tmp_path / "a.array_record", faces)
    out = tmp_path / "labels.csv"
    given = ["bench", "mediapipe_labels", str(tmp_path), "--mediapipe-python", sys.executable]
    given += ["--task", str(stand_in), "--out", str(out), "--by-number"]
    assert cli.main(given) == 0
    found = labels.read(out, tracker="mediapipe", pseudo=True)
    assert found.images == ["27", "109", "211"]
    assert found.coefficients[:, INDEX["JawOpen"]] == pytest.approx([np.nan, 0.4, 0.8], nan_ok=True)
    assert not found.known[0].any() and found.known[2].sum() == 51
    written = flawed.labelled(tmp_path, tmp_path / "new", tmp_path / "truth.npz", found)
    assert written.records == 2 and len(written.without) == 1
    records.write(tmp_path / "b.array_record", [face(60)])
    out.unlink()
    capsys.readouterr()
    assert cli.main(given) == 2
    assert "b.array_record, record 0, field 'seed': was rendered" in capsys.readouterr().err
    assert not out.exists()


def test_the_faults_of_labels_are_found() -> None:
    values = np.random.default_rng(0).random((200, 61)) * 0.5
    values[:, INDEX["EyeBlinkRight"]] = values[:, INDEX["EyeBlinkLeft"]]
    values[:, INDEX["MouthFunnel"]] += 0.08
    values[:, INDEX["NoseSneerLeft"]] = 0.9 * values[:, INDEX["CheekSquintLeft"]]
    values[0, [i for i in range(52) if NAMES[i] != "MouthFunnel"]] = 0
    found = flaws.lines(values)
    assert "EyeBlink: left and right differ by 0.0000, r 1.000" in found
    floors = [line for line in found if "never below" in line]
    assert len(floors) == 1 and floors[0].startswith("MouthFunnel: never below 0.0")
    together = [line for line in found if "move together" in line]
    assert together == ["CheekSquintLeft and NoseSneerLeft move together, r 1.00"]


@pytest.mark.skipif(not TAKE.is_file(), reason="the recorded take is not there")
def test_a_recorded_take_has_the_faults_that_labels_are_corrupted_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["bench", "flaws", str(TAKE)]) == 0
    found = capsys.readouterr().out
    assert "EyeSquint: left and right differ by 0.0002" in found
    for name in ("MouthFunnel", "MouthStretchLeft", "MouthShrugUpper"):
        assert f"{name}: never below 0." in found
    assert "BrowInnerUp and BrowOuterUpLeft move together, r 0.98" in found


def test_the_labels_that_are_kept_for_the_study_are_of_its_faces() -> None:
    """MediaPipe's, by the number that each face is rendered from: they follow what it can read."""
    found = labels.read(STUDY, tracker="mediapipe", pseudo=True)
    assert found.images is not None and len(found.images) == 4000
    faces = found.known.any(1)
    assert 0.85 < faces.mean() < 1.0
    rows = np.flatnonzero(faces)[:300]
    true = np.stack([sample(int(found.images[row])) for row in rows])
    for name, least in (("JawOpen", 0.35), ("EyeBlinkLeft", 0.5), ("EyeLookInLeft", 0.4)):
        i = INDEX[name]
        assert np.corrcoef(found.coefficients[rows, i], true[:, i])[0, 1] > least
    number = number_of(3999, 21, "train")
    assert found.images[0] == str(number - 3999) and found.images[-1] == str(number)
