"""`sf-jax bench finder`: what it counts on sets of either kind of record, and what it prints."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import records, scenes
from data_pipelines.scenes import SceneFace, SceneRecord
from sf_jax.bench import finder as bench
from sf_jax.face.landmarks import COUNT, Square, bounding_square
from sf_jax.model import detector
from sf_jax.model.declared import initialise
from sf_jax.model.detector import DetectorConfig
from sf_jax.reader import finder
from sf_jax.reader.finder import Found
from sf_jax.systems.semanticface.finder_scores import Matches

LANDMARKS = np.stack([np.linspace(20, 60, COUNT), np.linspace(10, 50, COUNT)], 1).astype(np.float32)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """A scene of one face and one without, and a face record with landmarks."""
    image = np.full((64, 96, 3), 90, np.uint8)
    face = SceneFace(LANDMARKS, bounding_square(LANDMARKS), "test", "", 1)
    one, other = tmp_path / "scenes", tmp_path / "faces"
    for folder in (one, other):
        folder.mkdir()
    packed = [scenes.encode(SceneRecord(image, faces, i)) for i, faces in enumerate(((face,), ()))]
    records.write_encoded(str(one / "evaluation-0.array_record"), packed)
    record = {"image": image, "coefficients": np.zeros(61, np.float32), "rationale": ""}
    landmarks = (LANDMARKS / [96, 64]).astype(np.float32)
    records.write(other / "evaluation-0.array_record", [{**record, "landmarks": landmarks}])
    return one, other


def test_both_kinds_of_records_give_squares(sets: tuple[Path, Path]) -> None:
    square = Square(40.0, 30.0, 40.0)
    (_, first), (_, none) = bench.labelled(sets[0])
    ((image, third),) = bench.labelled(sets[1])
    assert none == [] and image.shape == (64, 96, 3)
    for found in (first, third):
        assert [found[0].x, found[0].y, found[0].side] == pytest.approx([40, 30, 40], abs=1e-3)
    assert finder.overlap(first[0], square) == pytest.approx(1, abs=1e-3)


def test_the_table_has_recall_by_size_and_the_roc() -> None:
    found = Matches(
        np.array([0.9, 0.45]),
        np.array([True, False]),
        images=4,
        faces=2,
        sides=np.array([50.0, 150.0]),
        best=np.array([0.9, 0.0]),
    )
    lines = "\n".join(bench.table(found, 0.5))
    assert "recall 0.500, false faces an image 0.0000" in lines
    assert "0 to 60    px: recall 1.000 of 1" in lines
    assert "100 to 200   px: recall 0.000 of 1" in lines
    assert "0.30   0.500       0.2500" in lines


def test_the_command(
    sets: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny = DetectorConfig((4, 4, 4, 4), (1, 1, 1, 1), neck=4, head=4)
    weights = initialise(detector.declare(tiny), 0)
    finder.save(tmp_path / finder.FILE, weights, finder.settings(tiny))
    true = Found(bounding_square(LANDMARKS), 0.8)

    def candidates(self: object, image: np.ndarray, least: float) -> list[Found]:
        return [true] if image.shape[:2] == (64, 96) else []

    monkeypatch.setattr(finder.Finder, "candidates", candidates)
    out = tmp_path / "roc.json"
    bench.main([*map(str, sets), "--model", str(tmp_path), "--out", str(out)])
    printed = capsys.readouterr().out
    assert "recall 1.000, false faces an image 0.5000" in printed  # the second scene has no face
    assert "a cat" in printed and "640 x 480" in printed
    stored = json.loads(out.read_text())["sets"]
    assert stored[str(sets[0])]["roc"][0] == [0.5, 1.0, 0.5]
