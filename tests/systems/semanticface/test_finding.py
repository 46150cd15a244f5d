"""The finder's training: composed scenes, what counts as found, calibration, the whole command."""

from pathlib import Path

import numpy as np
import pytest

from data_pipelines import figure_files, records
from data_pipelines.figure_files import FigureFiles
from data_pipelines.figures import Figure
from data_pipelines.records import RecordError
from experiments import finder as recipe
from sf_jax.face.landmarks import COUNT, MOUTH_LEFT, MOUTH_RIGHT, PUPILS, Square, bounding_square
from sf_jax.model import detector
from sf_jax.model.declared import initialise
from sf_jax.model.detector import DetectorConfig
from sf_jax.reader import finder
from sf_jax.reader.finder import Finder, Found
from sf_jax.systems.semanticface import finder_scenes, finder_scores
from sf_jax.systems.semanticface.finder_scenes import FOUND, Materials, SceneConfig
from sf_jax.systems.semanticface.finder_scores import Matches

SCENES = SceneConfig(height=96, width=128, most=80.0, counts=(0.1, 0.4, 0.5), objects=0)


def figure(stands: bool = True) -> Figure:
    """A red disc with two dark eyes, the subject's right one (the left in the image) blue."""
    side, rows = 80, np.arange(80)
    away = np.hypot(*(np.stack(np.meshgrid(rows, rows)) - 40))
    image = np.full((side, side, 3), (230, 30, 30), np.uint8)
    image[28:36, 22:30], image[28:36, 50:58] = (0, 0, 255), (0, 0, 0)
    landmarks = np.full((COUNT, 2), np.nan, np.float32)
    landmarks[:17] = np.stack([np.linspace(10, 70, 17), np.full(17, 45.0)], 1)
    landmarks[8] = 40.0, 70.0
    landmarks[PUPILS] = [[26, 32], [54, 32]]
    landmarks[[MOUTH_RIGHT, MOUTH_LEFT]] = [[30, 60], [50, 60]]
    return Figure(image, (away < 32).astype(np.float32), landmarks, "test", "disc", 1, stands)


@pytest.fixture
def materials(tmp_path: Path) -> Materials:
    packed = [figure_files.encode(figure(stands), i) for i, stands in enumerate((True, False))]
    (tmp_path / "figures").mkdir()
    records.write_encoded(str(tmp_path / "figures" / "train-0.array_record"), packed)
    return Materials(FigureFiles([tmp_path / "figures"]), None)


def test_figures_are_read_as_they_were_stored(materials: Materials) -> None:
    read, stored = materials.figures[1], figure(stands=False)
    assert len(materials.figures) == 2 and not read.stands and read.style == "disc"
    np.testing.assert_array_equal(read.cover, stored.cover)
    np.testing.assert_array_equal(read.landmarks, stored.landmarks)
    assert np.abs(read.image.astype(int) - stored.image).mean() < 4


def test_damaged_figures_are_refused() -> None:
    packed = records.unpacked(figure_files.encode(figure(), 0), ())
    for field, value in (("cover", b""), ("landmarks", np.zeros((3, 2), np.float32))):
        with pytest.raises(RecordError, match=field):
            figure_files.decode(records.packed(packed | {field: value}))


def test_labels_are_where_the_faces_are(
    materials: Materials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each labelled face is red in its middle; one of its eyes is blue and the other black."""
    for name in ("tinted", "developed"):
        monkeypatch.setattr(finder_scenes, name, lambda image, g: image)
    sides = set()
    for number in range(30):
        g = np.random.default_rng(number)
        canvas, faces, kinds = finder_scenes.compose(g, materials, SCENES)
        assert canvas.shape == (96, 128, 3)
        for landmarks, kind in zip(faces, kinds, strict=True):
            if kind != FOUND or bounding_square(landmarks).side < 30:
                continue
            right, left = landmarks[PUPILS]
            mouth = landmarks[[MOUTH_RIGHT, MOUTH_LEFT]].mean(0)
            x, y = ((right + left) / 2 + 0.6 * (mouth - (right + left) / 2)).astype(int)
            assert canvas[y, x, 0] > 180 and canvas[y, x, 2] < 90
            colours = [canvas[int(at[1]), int(at[0])].astype(int) for at in (right, left)]
            assert all(colour[0] < 120 for colour in colours)
            sides.add(int(colours[1][2] > colours[0][2]))
            assert abs(colours[1][2] - colours[0][2]) > 100
    assert sides == {0, 1}  # some are mirrored


def test_a_batch_is_the_same_whenever_it_is_made(materials: Materials) -> None:
    one, other, later = (finder_scenes.batch(n, 3, 5, materials, SCENES) for n in (7, 7, 8))
    for name in ("images", "boxes", "points", "kinds"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (np.asarray(one.images) != np.asarray(later.images)).any()
    assert one.images.dtype == np.uint8 and one.boxes.shape == (3, finder_scenes.MOST, 3)


def test_faces_cut_off_are_ignored_and_those_outside_are_none() -> None:
    landmarks = figure().landmarks
    for shift, kinds in ((0.0, [FOUND]), (-45.0, [finder_scenes.IGNORED]), (-90.0, [])):
        scene = finder_scenes._Scene(np.zeros((96, 128, 3), np.uint8), [], [])
        moved = landmarks + np.float32([shift, 0])
        finder_scenes._label(scene, moved, 60.0, SCENES)
        assert scene.kinds == kinds


def test_covered_faces_are_none() -> None:
    landmarks = figure().landmarks
    for columns, kinds in ((0, [FOUND]), (41, [finder_scenes.IGNORED]), (80, [])):
        scene = finder_scenes._Scene(np.zeros((96, 128, 3), np.uint8), [landmarks], [FOUND])
        covered = np.zeros((96, 128), np.float32)
        covered[:, :columns] = 1
        finder_scenes._hide(scene, covered, SCENES)
        assert scene.kinds == kinds and len(scene.faces) == len(kinds)


def found(x: float, score: float, side: float = 20.0) -> Found:
    return Found(Square(x, 50.0, side), score)


def test_a_face_is_found_once() -> None:
    faces = [Square(50, 50, 20), Square(90, 50, 20)]
    right, best = finder_scores.match([found(52, 0.9), found(48, 0.8), found(120, 0.7)], faces)
    assert right == [True, False, False] and best == [0.9, 0.0]
    assert finder_scores.match([found(50, 0.9, 50.0)], faces[:1]) == ([False], [0.0])
    assert finder_scores.match([found(50, 0.9)], []) == ([False], [])


MATCHES = Matches(
    np.array([0.9, 0.8, 0.6, 0.4]),
    np.array([True, False, True, False]),
    images=10,
    faces=3,
    sides=np.array([20.0, 20, 20]),
    best=np.array([0.9, 0.6, 0.0]),
)


def test_recall_false_faces_and_the_threshold_for_them() -> None:
    assert MATCHES.recall(0.5) == pytest.approx(2 / 3)
    assert MATCHES.false_rate(0.5) == pytest.approx(0.1)
    assert MATCHES.false_rate(0.3) == pytest.approx(0.2)
    assert finder_scores.threshold_for(MATCHES, 0.1) == pytest.approx(0.41)
    assert finder_scores.threshold_for(MATCHES, 0.0) == pytest.approx(0.81)


def test_calibrated_scores_are_chances() -> None:
    g = np.random.default_rng(0)
    logits = g.normal(0, 2, 6000)
    right = g.random(6000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))
    tiny = DetectorConfig((4, 4, 4, 4), (1, 1, 1, 1), neck=4, head=4)
    own = Finder(initialise(detector.declare(tiny), 0), finder.settings(tiny))
    scores = 1 / (1 + np.exp(-logits))
    given = Matches(scores, right, 1, 0, np.zeros(0), np.zeros(0))
    slope, offset = finder_scores.calibration(own, given)
    assert slope == pytest.approx(0.5, abs=0.05) and offset == pytest.approx(-1, abs=0.12)
    scored = finder_scores.rescored(own, given, 0.5, -1.0)
    np.testing.assert_allclose(scored.scores, 1 / (1 + np.exp(1 - 0.5 * logits)), rtol=1e-3)


@pytest.mark.slow
def test_the_command_runs_every_stage_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe.main(["--tiny", "--out", str(out), "--mixture", "builtin=1"])
    loaded = finder.load(out / "model" / finder.FILE)
    assert 0 < loaded.config.threshold <= 0.99 and loaded.config.slope != 1.0
    before = (out / "model" / finder.FILE).read_bytes()
    recipe.main(["--tiny", "--out", str(out), "--mixture", "builtin=1"])
    assert (out / "model" / finder.FILE).read_bytes() == before
