"""Composed scenes: labels where the faces are, faces that stay visible, records that read back."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipelines import records, scenes
from data_pipelines.figures import Figure, paste, resized
from data_pipelines.held_out import Split
from data_pipelines.loader import RecordSource
from data_pipelines.records import RecordError
from data_pipelines.rigged import BuiltinSource
from data_pipelines.scenes import SceneRecord, Scenes
from data_pipelines.sources import Framing, Mixture
from sf_jax import cli
from sf_jax.face.landmarks import PUPILS, bounding_square


class Discs:
    """White discs with landmarks on their rims: what a face covers is known exactly."""

    name = "discs"

    def check(self, split: Split) -> None: ...

    def figure(self, number: int, split: Split, side: int) -> Figure:
        cover = np.zeros((side, side), np.float32)
        cv2.circle(cover, (side // 2, side // 2), side // 4, 1.0, -1)
        turn = np.linspace(0, 2 * np.pi, 70, endpoint=False)
        landmarks = side // 2 + 0.5 + side // 4 * np.stack([np.cos(turn), np.sin(turn)], 1)
        landmarks[PUPILS] = np.nan
        image = np.full((side, side, 3), 255, np.uint8)
        marks = landmarks.astype(np.float32)
        return Figure(image, cover, marks, self.name, "", number, stands=False)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Scenes:
    """Scenes of discs on black, without a camera's effects."""

    def black(number: int, split: Split, height: int, width: int, folder: object) -> np.ndarray:
        return np.zeros((height, width, 3), np.uint8)

    monkeypatch.setattr(scenes, "background", black)
    monkeypatch.setattr(scenes, "photographed", lambda image, g: image)
    return Scenes(Mixture((Discs(),), {"discs": 1}))


def made(maker: Scenes, count: int) -> Iterator[SceneRecord]:
    return (maker.scene(index, "train") for index in range(count))


def test_squares_are_where_the_faces_are(plain: Scenes) -> None:
    counts = []
    for scene in made(plain, 40):
        counts.append(len(scene.faces))
        expected = np.zeros(scene.image.shape[:2], bool)
        for face in scene.faces:
            square = face.square
            assert 39 < square.side < 401
            for centre, length in zip((square.x, square.y), scene.image.shape[1::-1], strict=True):
                assert square.side / 2 - 1.5 < centre < length - square.side / 2 + 1.5
            y, x = np.indices(expected.shape) + 0.5
            expected |= np.hypot(x - square.x, y - square.y) < square.side / 2 - 2
        lit = scene.image[..., 0] > 128
        assert lit[expected].all()
        assert abs(lit.sum() - expected.sum()) < 0.25 * lit.sum() + 1
    assert set(counts) == {0, 1, 2, 3, 4}


def test_other_faces_stay_visible(plain: Scenes) -> None:
    for scene in made(plain, 40):
        for i, one in enumerate(scene.faces):
            for other in scene.faces[i + 1 :]:
                rim = one.landmarks[:68] - [other.square.x, other.square.y]
                inside = np.linalg.norm(rim, axis=1) < other.square.side / 2
                assert inside.mean() <= scenes.HIDDEN + 0.05


def test_a_scene_reads_back(plain: Scenes, tmp_path: Path) -> None:
    found = list(made(plain, 6))
    path = tmp_path / "a.array_record"
    records.write_encoded(path, (scenes.encode(scene, exact=True) for scene in found))
    source = RecordSource([str(path)], scenes.decode)
    for i, (one, again) in enumerate(zip(found, scenes.read(path), strict=True)):
        np.testing.assert_array_equal(again.image, one.image)
        assert again.number == one.number == source[i].number
        for face, stored in zip(one.faces, again.faces, strict=True):
            np.testing.assert_array_equal(stored.landmarks, face.landmarks)
            for name in ("square", "source", "style", "identity"):
                assert getattr(stored, name) == getattr(face, name)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"faces": 5}, "'faces' is not a list"),
        ({"faces": [5]}, "'faces' lacks 70 landmarks"),
        ({"faces": [{"landmarks": np.zeros((68, 2), np.float32)}]}, "lacks 70 landmarks"),
        ({"faces": [{"landmarks": np.full((70, 2), np.nan, np.float32)}]}, "without landmarks"),
        ({"image": b"none"}, "'image' is not a readable image"),
    ],
)
def test_a_damaged_scene_is_named(tmp_path: Path, fields: dict, problem: str) -> None:
    image = records.encode_image(np.zeros((8, 8, 3), np.uint8))
    path = tmp_path / "a.array_record"
    sound = {"image": image, "faces": [], "seed": 0}
    records.write_encoded(path, [records.packed(sound | fields)])
    with pytest.raises(RecordError, match=rf"a\.array_record, record 0: .*{problem}"):
        list(scenes.read(path))


def test_a_record_of_a_face_is_no_scene(tmp_path: Path) -> None:
    path = tmp_path / "a.array_record"
    records.write(path, [BuiltinSource().record(0, "train", Framing(64))])
    with pytest.raises(RecordError, match="record 0: field 'faces' is missing"):
        list(scenes.read(path))


def test_a_head_has_its_size_and_goes_on_below() -> None:
    figure = resized(BuiltinSource().figure(0, "train", 128), 50)
    assert abs(bounding_square(figure.landmarks).side - 50) < 1
    assert 0.15 < figure.cover.mean() < 0.8
    x, y = np.clip(figure.landmarks, 0, len(figure.cover) - 1).astype(int).T
    assert (figure.cover[y, x] > 0.5).mean() > 0.8
    canvas = np.zeros((300, 200, 3), np.uint8)
    cover = paste(canvas, figure, 20, 30)
    assert cover[-1].max() > 0.9 and not cover[:30].any()
    assert canvas[cover == 0].max() == 0


def test_sizes_of_another_form_are_refused(tmp_path: Path, capsys) -> None:
    assert cli.main(["data", "scenes", "--out", str(tmp_path / "out"), "--size", "5"]) == 2
    assert "--size" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
