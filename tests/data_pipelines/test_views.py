"""Views: one similarity moves image, landmarks, materials and head alike."""

from typing import Any

import numpy as np
import pytest

from data_pipelines.views import UNKNOWN, Views, random_square, random_view, view
from sf_jax.face import landmarks
from sf_jax.face.channels import INDEX
from sf_jax.face.landmarks import Square

VIEWS = Views(size=96, cells=24, colours=0)


def record() -> dict[str, Any]:
    """A dark image with a bright dot at each of three landmarks, in cells of materials of its own.

    The eyes are level, so that the face is upright.
    """
    image = np.full((160, 160, 3), 20, np.uint8)
    parts = np.zeros((40, 40), np.uint8)
    points = np.full((landmarks.COUNT, 2), np.nan, np.float32)
    points[landmarks.RIGHT_EYE], points[landmarks.LEFT_EYE] = (60, 60), (100, 60)
    points[landmarks.CHIN] = 80, 120
    for number, (x, y) in enumerate([(60, 60), (100, 60), (80, 120)]):
        image[y - 2 : y + 2, x - 2 : x + 2] = 250
        parts[y // 4 - 1 : y // 4 + 1, x // 4 - 1 : x // 4 + 1] = number + 1
    coefficients = np.zeros(61, np.float32)
    coefficients[INDEX["HeadRoll"]], coefficients[INDEX["JawOpen"]] = 0.1, 0.5
    return {
        "image": image,
        "coefficients": coefficients,
        "rationale": "a face",
        "landmarks": points / 160,
        "parts": parts,
    }


@pytest.mark.parametrize("roll", [0.0, 0.4, -0.3])
def test_landmarks_and_materials_stay_where_the_image_shows_them(roll: float) -> None:
    seen = view(record(), Square(82, 85, 120, roll), VIEWS)
    at = seen["landmarks"] * 96
    for number, landmark in enumerate((36, 42, landmarks.CHIN)):
        x, y = at[landmark]
        bright = np.argwhere(seen["image"][..., 0] > 120)
        assert np.abs(bright + 0.5 - [y, x]).max(1).min() < 1.5
        assert seen["parts"][int(y / 4), int(x / 4)] == number + 1
    assert seen["coefficients"][INDEX["HeadRoll"]] == pytest.approx(0.1 - roll, abs=1e-6)
    assert seen["coefficients"][INDEX["JawOpen"]] == 0.5
    assert np.isnan(seen["landmarks"][landmarks.JAW][0]).all()


def test_outside_the_image_materials_are_unknown() -> None:
    seen = view(record(), Square(0, 0, 96, 0.0), VIEWS)
    assert (seen["parts"][:11] == UNKNOWN).all() and (seen["parts"][13:, 13:] != UNKNOWN).all()


def test_views_of_the_reader_s_framing_are_close_to_it() -> None:
    g = np.random.default_rng(0)
    points = record()["landmarks"] * 160
    best = landmarks.framing_square(points)
    found = [random_square(points, VIEWS.framed, g) for _ in range(400)]
    shares = np.array([0.8 * best.side / square.side for square in found])
    assert (shares.min(), shares.max()) == pytest.approx(VIEWS.framed.share, abs=0.01)
    assert np.std([square.roll for square in found]) == pytest.approx(0.06, abs=0.01)
    away = [(square.x - best.x) / square.side for square in found]
    assert np.std(away) == pytest.approx(0.025, abs=0.005)


def test_a_generator_gives_the_same_view_and_half_are_mirrored() -> None:
    views = Views(size=96, cells=24)
    first, again = (random_view(record(), views, np.random.default_rng(5)) for _ in range(2))
    for name in ("image", "landmarks", "parts", "coefficients"):
        np.testing.assert_array_equal(first[name], again[name])
    seen = [random_view(record(), views, np.random.default_rng(i)) for i in range(100)]
    assert 30 < sum(not one["rationale"] for one in seen) < 70
    assert all(one["image"].shape == (96, 96, 3) for one in seen)


def test_a_mirrored_view_shows_its_landmarks_where_they_are() -> None:
    views = Views(size=96, cells=24, mirrored=1.0, framed_share=1.0, colours=0)
    seen = random_view(record(), views, np.random.default_rng(2))
    assert seen["rationale"] == ""
    bright = np.argwhere(seen["image"][..., 0] > 120)
    for landmark in (36, 42, landmarks.CHIN):  # the eyes have been exchanged; they look alike
        x, y = seen["landmarks"][landmark] * 96
        assert np.abs(bright + 0.5 - [y, x]).max(1).min() < 1.5
    assert seen["landmarks"][36, 0] < seen["landmarks"][42, 0]  # the subject's right first
    column, row = (seen["landmarks"][36] * 24).astype(int)
    assert seen["parts"][row, column] == 2  # what the left eye was
