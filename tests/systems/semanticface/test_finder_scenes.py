"""Composed scenes: what is drawn is where its landmarks are, to a fraction of a pixel."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sf_jax.systems.semanticface import finder_scenes

DOT = np.array([50.0, 60.0])  # the corner that four bright pixels share


def dotted() -> np.ndarray:
    image = np.zeros((100, 100, 3), np.uint8)
    image[58:62, 48:52] = 240
    return image


def middle(picture: np.ndarray) -> np.ndarray:
    """The centre of what is bright, x and y counted from the corner of the first pixel."""
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    weight = picture[..., 0].astype(float)
    return np.array([(weight * (x + 0.5)).sum() for x in (columns, rows)]) / weight.sum()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("scale", [0.4, 1.0, 2.0])
def test_images_go_where_landmarks_go(scale: float, mirrored: bool) -> None:
    side = -1.0 if mirrored else 1.0
    turn = scale * np.diag([side, 1.0])
    matrix = np.column_stack([turn, np.array([90.0, 80.0]) - turn @ DOT])
    picture = np.zeros((160, 180, 3), np.uint8)
    finder_scenes._draw(picture, dotted(), np.ones((100, 100), np.float32), matrix)
    assert middle(picture) == pytest.approx([90, 80], abs=0.1)
    finder_scenes._spread(picture, dotted(), matrix)
    assert middle(picture) == pytest.approx([90, 80], abs=0.1)


def test_small_objects_hide_the_faces_that_they_cover(tmp_path: Path) -> None:
    """A face that is covered is none, one that is covered in part is ignored, the others stay."""
    path = tmp_path / "object.png"
    Image.fromarray(np.full((30, 30, 4), 255, np.uint8)).save(path)
    materials: Any = SimpleNamespace(objects=[path])
    config = finder_scenes.SceneConfig()
    met = set()
    for seed in range(200):
        g = np.random.default_rng(seed)
        marks = (np.mgrid[20:32:4, 20:32:4].reshape(2, -1).T + 0.5).astype(np.float32)
        scene = finder_scenes._Scene(
            np.zeros((50, 50, 3), np.uint8), [marks], [finder_scenes.FOUND]
        )
        finder_scenes._scatter(scene, g, materials, config, small=True)
        x, y = marks.astype(int).T
        seen = float((scene.picture[y, x, 0] < 128).mean())
        kind = scene.kinds[0] if scene.faces else None
        if seen == 1:
            assert kind == finder_scenes.FOUND
        elif seen < config.hidden:
            assert kind is None
        met.add(kind)
    assert met == {finder_scenes.FOUND, finder_scenes.IGNORED, None}
