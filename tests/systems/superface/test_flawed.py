"""Records with faulty labels; and that nothing which trains can reach the truth."""

import ast
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import records
from data_pipelines.loader import ShuffledRecords
from data_pipelines.synthetic import face_record, numbered
from sf_jax import cli
from sf_jax.face import labels as labels_of
from sf_jax.face.channels import CHANNELS, INDEX, NAMES
from sf_jax.face.describe import describe
from sf_jax.media.errors import DataError
from sf_jax.systems.superface import flawed, truth
from sf_jax.systems.superface.corruption import Corruption, corrupt
from sf_jax.systems.superface.pairs import image_hash
from sf_jax.systems.superface.simulated import sitter_of

ROOT = Path(__file__).parents[3]
COUNT = 10
MADE = [face_record(i, 3, "train") for i in range(COUNT)]
FIELDS = {"image", "coefficients", "known", "rationale", "source", "style", "identity"}


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    records.write(folder / "train-0.array_record", MADE[:6])
    records.write(folder / "train-1.array_record", MADE[6:])
    return folder


@pytest.fixture(scope="module")
def made(faces, tmp_path_factory) -> tuple[Path, Path]:
    inside = tmp_path_factory.mktemp("made")
    out, kept = inside / "flawed", inside / "apart" / "truth.npz"
    kept.parent.mkdir()
    flawed.corrupted(faces, out, kept, seed=5, take=4)
    return out, kept


def stored(folder: Path) -> list[dict]:
    return [one for path in records.files(folder) for one in records.read(path)]


def test_labels_are_corrupted_and_the_truth_is_apart(made):
    out, kept = made
    found, true = stored(out), truth.read(kept)
    assert [Path(path).name for path in records.files(out)] == [
        "train-0.array_record",
        "train-1.array_record",
    ]
    assert len(found) == COUNT
    for number, (one, before) in enumerate(zip(found, MADE, strict=True)):
        expected = corrupt(before["coefficients"][None], [number // 4], 5)
        assert np.array_equal(one["coefficients"], expected.labels[0])
        assert np.array_equal(one["image"], before["image"])
        assert one["rationale"] == describe(expected.labels[0], number).text
        assert (one["source"], one["identity"]) == ("corrupted", before["identity"])
        row = true.row(one["image"])
        assert row == true.row(image_hash(before["image"])) == number
        assert np.array_equal(true.coefficients[row], before["coefficients"])
        assert np.array_equal(true.dropped[row], expected.dropped[0])
        shown = numbered(int(true.numbers[row]), "train")
        assert np.array_equal(shown.coefficients, true.coefficients[row])
        assert np.array_equal(sitter_of(shown).image, one["image"])


def test_missed_actions_are_those_that_were_dropped_and_are_active(made):
    true = truth.read(made[1])
    assert 5 < true.missed.sum() < 200
    assert (true.coefficients[true.missed] >= truth.ACTIVE).all()
    labels = np.stack([one["coefficients"] for one in stored(made[0])])
    assert labels[true.missed].max() <= Corruption().floors[1]


def test_records_hold_nothing_that_the_truth_follows_from(made):
    """Neither the number that all was drawn from, nor what else shows the true expression."""
    out, kept = made
    content = b"".join(Path(path).read_bytes() for path in records.files(out))
    for one, before in zip(stored(out), MADE, strict=True):
        assert set(one) - {"landmarks"} == FIELDS
        assert np.isnan(one["landmarks"]).all(), "of a record without landmarks"
        active = before["coefficients"][before["coefficients"] != 0]
        assert active.tobytes() not in content
        assert before["coefficients"].tobytes() not in content
    assert kept.name.encode() not in content
    others = {path.name for path in out.iterdir()} - {Path(p).name for p in records.files(out)}
    assert not others


def test_what_reads_records_opens_no_truth(made, monkeypatch):
    """The loader of a trainer, from start to record: every file that is opened is seen."""
    out, kept = made
    opened: list[str] = []
    watching = [True]

    def hook(event: str, arguments: tuple) -> None:
        if watching and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)  # hooks cannot be taken away again
    feed = ShuffledRecords(out)
    read = [feed(number)[1] for number in range(2 * COUNT)]
    (out / "noted").write_text("a file that is opened is seen")
    watching.clear()
    (out / "noted").unlink()
    assert any(path.endswith("noted") for path in opened)
    assert not any("truth" in Path(path).name or "apart" in path for path in opened)
    kept.rename(kept.with_suffix(".gone"))
    try:
        feed = ShuffledRecords(out)
        again = [feed(number)[1] for number in range(2 * COUNT)]
    finally:
        kept.with_suffix(".gone").rename(kept)
    for one, other in zip(read, again, strict=True):
        assert np.array_equal(one["coefficients"], other["coefficients"])


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_module_that_trains_can_import_the_truth():
    """Nothing in the package or the pipelines imports it, so no chain of imports leads to it; and
    nothing there reads its arrays, whose declaration `flawed` has for writing them alone."""
    readers, truthful = [], "sf_jax.systems.superface.truth"
    for folder in ("sf_jax", "data_pipelines"):
        for path in (ROOT / folder).rglob("*.py"):
            if path == Path(truth.__file__):
                continue
            text = path.read_text()
            assert "truth" not in text or truthful not in imports(path), path
            assert truthful not in text and "superface/truth" not in text, f"{path} names it"
            if "flawed.ARRAYS" in text or "flawed import ARRAYS" in text:
                readers.append(path)
    assert not readers


def test_the_truth_may_not_be_in_the_folder_that_a_trainer_gets(faces, tmp_path):
    for inside in (tmp_path / "out" / "truth.npz", tmp_path / "out" / "a" / ".." / "truth.npz"):
        with pytest.raises(flawed.FlawedError, match="is in the folder that the trainer is given"):
            flawed.corrupted(faces, tmp_path / "out", inside, 0)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_or_half_written(faces, tmp_path):
    kept = tmp_path / "truth.npz"
    kept.write_bytes(b"mine")
    with pytest.raises(flawed.FlawedError, match="truth.npz: exists already"):
        flawed.corrupted(faces, tmp_path / "out", kept, 0)
    with pytest.raises(flawed.FlawedError, match="ends in .npz"):
        flawed.corrupted(faces, tmp_path / "out", tmp_path / "truth.npy", 0)
    kept.unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="exists already"):
        flawed.corrupted(faces, tmp_path / "out", kept, 0)
    assert not kept.exists()
    twice = tmp_path / "twice"
    twice.mkdir()
    records.write(twice / "a.array_record", [MADE[0], MADE[1], MADE[0]])
    with pytest.raises(flawed.FlawedError, match="a.array_record, record 2: the same image"):
        flawed.corrupted(twice, tmp_path / "new", kept, 0)
    assert not kept.exists() and not (tmp_path / "new").exists()


def test_a_damaged_truth_is_refused(made, tmp_path):
    path = tmp_path / "truth.npz"
    content = made[1].read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(flawed.FlawedError, match="truth.npz"):
        truth.read(path)
    np.savez(path, image=np.array(["a"]))
    with pytest.raises(flawed.FlawedError, match="coefficients"):
        truth.read(path)
    with pytest.raises(KeyError):
        truth.read(made[1]).row("0" * 32)


def mediapipe_file(path: Path) -> Path:
    """Labels as `sf-jax bench mediapipe_labels` writes them; of the third image no face."""
    lines = []
    for number, record in enumerate(MADE):
        names = [c.arkit for c in CHANNELS[:52] if c.name != "TongueOut"]
        scores = [{"categoryName": name, "score": 0.01 * number} for name in ("_neutral", *names)]
        shapes = None if number == 2 else scores
        lines.append({"image": image_hash(record["image"]), "faceBlendshapes": shapes})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_labels_of_another_tracker_become_records_with_what_it_knows(faces, tmp_path):
    read = labels_of.read(mediapipe_file(tmp_path / "labels.jsonl"), pseudo=True)
    written = flawed.labelled(faces, tmp_path / "out", tmp_path / "truth.npz", read)
    assert written.records == COUNT - 1 and written.without == [image_hash(MADE[2]["image"])]
    found, true = stored(tmp_path / "out"), truth.read(tmp_path / "truth.npz")
    assert len(true.images) == COUNT - 1 and not true.dropped.any()
    numbers = [n for n in range(COUNT) if n != 2]
    for number, one in zip(numbers, found, strict=True):
        assert one["source"] == "mediapipe"
        assert {NAMES[i] for i in np.flatnonzero(~one["known"])} == {"TongueOut", *NAMES[52:]}
        assert one["coefficients"][INDEX["JawOpen"]] == pytest.approx(0.01 * number)
        before = MADE[number]["coefficients"]
        assert np.array_equal(true.coefficients[true.row(one["image"])], before)


def test_a_file_of_labels_of_other_images_is_refused(faces, tmp_path):
    path = tmp_path / "labels.jsonl"
    line = {"image": "0" * 32, "faceBlendshapes": [{"categoryName": "jawOpen", "score": 0.5}]}
    path.write_text(json.dumps(line) + "\n")
    given = ["data", "flawed", str(faces), "--out", str(tmp_path / "out")]
    given += ["--truth", str(tmp_path / "truth.npz"), "--labels", str(path)]
    assert cli.main(given) == 2
    assert not (tmp_path / "out").exists() and not (tmp_path / "truth.npz").exists()


def test_the_command_writes_both(faces, tmp_path, capsys):
    given = ["data", "flawed", str(faces), "--out", str(tmp_path / "out"), "--seed", "5"]
    given += ["--truth", str(tmp_path / "truth.npz"), "--take", "4"]
    assert cli.main([*given, "--without", "tied", "dropped"]) == 0
    assert "10 records in" in capsys.readouterr().out
    true = truth.read(tmp_path / "truth.npz")
    assert not true.dropped.any()
    how = Corruption(tied=False, dropped=0.0)
    expected = corrupt(true.coefficients, np.arange(COUNT) // 4, 5, how).labels
    assert np.array_equal(np.stack([r["coefficients"] for r in stored(tmp_path / "out")]), expected)
