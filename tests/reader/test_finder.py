"""Finding faces: canvases, boxes from what the network says, files of finders, the cascade."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sf_jax.convert.tensor_files import CheckpointError
from sf_jax.face.landmarks import MOUTH_LEFT, NOSE_TIP, PUPILS, Square, overlap
from sf_jax.model import detector
from sf_jax.model.declared import initialise
from sf_jax.model.detector import PADDING, STRIDE, TYPICAL_SIDE, Detections, DetectorConfig
from sf_jax.reader import finder
from sf_jax.reader.finder import Finder, Found, without_duplicates

TINY = DetectorConfig((4, 4, 4, 4), (1, 1, 1, 1), neck=4, head=4)


@pytest.fixture
def tiny() -> Finder:
    return Finder(initialise(detector.declare(TINY), 0), finder.settings(TINY))


@pytest.mark.parametrize(
    "size", [(480, 640), (640, 480), (256, 320), (1, 1), (3000, 4000), (60, 900), (500, 500)]
)
def test_every_image_has_one_of_two_canvases(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    canvas, scale = finder.fitted(image)
    assert canvas.shape in ((256, 320, 3), (320, 256, 3))
    height, width = (max(1, round(side * scale)) for side in size)
    assert (canvas[:height, :width] == 200).all()
    assert (canvas[height:] == PADDING).all() and (canvas[:, width:] == PADDING).all()
    assert scale == finder.MOST_ENLARGED or (height, width)[size[0] < size[1] * 0.8] > 250


def answers(
    monkeypatch: pytest.MonkeyPatch, faces: list[tuple[int, int, float, float, float]]
) -> None:
    """The network answers with faces: row, column, logit, side in canvas pixels, roll."""

    def run(weights: object, images: np.ndarray, config: object) -> Detections:
        rows, columns = (side // STRIDE for side in images.shape[1:3])
        score = np.full((1, rows, columns), -9.0, np.float32)
        side = np.zeros((1, rows, columns), np.float32)
        points = np.zeros((1, rows, columns, 6, 2), np.float32)
        for row, column, logit, length, roll in faces:
            score[0, row, column] = logit
            side[0, row, column] = np.log(length / TYPICAL_SIDE)
            eye = 0.2 * np.array([np.cos(roll), -np.sin(roll)])
            points[0, row, column, 0] = 0.01, -0.02
            points[0, row, column, 1] = -eye
            points[0, row, column, 2] = eye
        return Detections(jnp.asarray(score), jnp.asarray(side), jnp.asarray(points))

    monkeypatch.setattr(finder, "_run", run)


def test_boxes_are_in_pixels_of_the_image(monkeypatch: pytest.MonkeyPatch, tiny: Finder) -> None:
    answers(monkeypatch, [(10, 20, 3.0, 60.0, 0.3), (3, 4, 1.0, 24.0, 0.0), (3, 5, 0.9, 24.0, 0.0)])
    found = tiny(np.zeros((480, 640, 3), np.uint8))  # half of its size on the canvas
    assert [round(each.score, 3) for each in found] == [0.953, 0.731]  # and no duplicate
    box = found[0].box
    assert (box.x, box.y) == pytest.approx((2 * (164 + 0.6), 2 * (84 - 1.2)))
    assert (box.side, box.roll) == pytest.approx((120.0, 0.3))
    assert found[0].landmarks is not None
    right, left = found[0].landmarks[PUPILS]
    assert left[0] - right[0] == pytest.approx(120 * 0.4 * np.cos(0.3), rel=1e-4)
    assert np.isfinite(found[0].landmarks[[NOSE_TIP, MOUTH_LEFT]]).all()
    assert not np.isfinite(found[0].landmarks[0]).any()


def test_what_is_below_the_threshold_or_in_the_padding_is_no_face(
    monkeypatch: pytest.MonkeyPatch, tiny: Finder
) -> None:
    answers(monkeypatch, [(10, 20, -1.0, 60.0, 0.0), (31, 20, 5.0, 60.0, 0.0)])
    image = np.zeros((480, 640, 3), np.uint8)
    assert tiny(image) == []
    assert len(tiny.candidates(image, 0.2)) == 1
    lower = finder.calibrated(tiny, slope=2.0, offset=3.0, threshold=0.7)
    assert lower(image)[0].score == pytest.approx(1 / (1 + np.exp(-1.0)))


def test_a_box_within_another_is_the_same_face() -> None:
    def found(x: float, side: float, score: float) -> Found:
        return Found(Square(x, 50.0, side), score)

    kept = without_duplicates([found(50, 40, 0.9), found(54, 80, 0.8), found(90, 40, 0.7)])
    assert [each.score for each in kept] == [0.9, 0.7]
    assert overlap(Square(0, 0, 10), Square(5, 0, 10)) == pytest.approx(1 / 3)
    assert overlap(Square(0, 0, 10), Square(20, 0, 10)) == 0


def test_files_are_read_as_they_were_written(tmp_path: Path, tiny: Finder) -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    changed = finder.calibrated(tiny, slope=0.7, offset=0.1, threshold=0.0)
    finder.save(tmp_path / finder.FILE, changed.weights, changed.config, {"data": "none"})
    loaded = finder.load(tmp_path / finder.FILE)
    assert loaded.config == changed.config
    one, other = changed(image), loaded(image)
    assert len(one) == len(other) > 0
    assert one[0].score == pytest.approx(other[0].score, abs=2e-3)


@pytest.mark.parametrize("damage", ["missing", "shape", "config", "field", "none"])
def test_damaged_files_are_refused(tmp_path: Path, tiny: Finder, damage: str) -> None:
    path = tmp_path / finder.FILE
    finder.save(path, tiny.weights, tiny.config)
    tensors = load_file(path)
    config = tiny.config.model_dump_json()
    if damage == "missing":
        del tensors["neck.head.weight"]
    elif damage == "shape":
        tensors["neck.head.weight"] = np.zeros((3, 3), np.float16)
    elif damage == "config":
        config = "{"
    elif damage == "field":
        config = config.replace('"neck":4', '"neck":"wide"')
    save_file(tensors, path, {} if damage == "none" else {"config": config})
    with pytest.raises(CheckpointError, match=r"finder\.safetensors"):
        finder.load(path)


def test_the_cascades_square_is_centred_below_its_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "face_box", lambda image: (10, 20, 100, 100))
    (found,) = finder.cascade(np.zeros((200, 200, 3), np.uint8))
    assert (found.box.x, found.box.side) == (70.0, 100.0)
    assert found.box.y == pytest.approx(60.0 + 21.0)


def test_an_image_without_a_face_has_none() -> None:
    assert finder.find(np.full((60, 80, 3), 128, np.uint8)) == []
