"""The landmark table and the squares that frame landmarks."""

import numpy as np
import pytest

from sf_jax.face import landmarks
from sf_jax.face.landmarks import MIRROR


def a_face(roll: float = 0.0) -> np.ndarray:
    """70 points of a symmetric face, 80 high, about (100, 60), turned counter-clockwise by roll."""
    g = np.random.default_rng(0)
    points = g.uniform(-30, 30, (landmarks.COUNT, 2))
    points = (points + points[MIRROR] * [-1, 1]) / 2
    points[landmarks.CHIN] = [0, 40]
    points[[19, 24], 1] = -40
    points[landmarks.RIGHT_EYE] = [-15, -10] + 0.1 * points[landmarks.RIGHT_EYE]
    points[landmarks.LEFT_EYE] = points[MIRROR][landmarks.LEFT_EYE] * [-1, 1]
    cos, sin = np.cos(roll), np.sin(roll)
    return points @ np.array([[cos, sin], [-sin, cos]]).T + [100, 60]


def test_mirroring_twice_changes_nothing() -> None:
    assert (MIRROR[MIRROR] == np.arange(landmarks.COUNT)).all()


def test_the_middle_mirrors_to_itself() -> None:
    assert np.flatnonzero(np.arange(landmarks.COUNT) == MIRROR).tolist() == [
        8, 27, 28, 29, 30, 33, 51, 57, 62, 66,
    ]  # fmt: skip


@pytest.mark.parametrize("roll", [0.0, 0.4, -0.7])
def test_a_turned_face_is_framed_as_an_upright_one_is(roll: float) -> None:
    """Counter-clockwise in the image is positive, as HeadRoll towards the right shoulder is."""
    square = landmarks.framing_square(a_face(roll))
    assert square.roll == pytest.approx(roll, abs=1e-6)
    assert square.side == pytest.approx(100, abs=1e-6)
    assert (square.x, square.y) == pytest.approx((100, 60), abs=1e-6)


def test_an_upright_square_is_not_turned() -> None:
    assert landmarks.framing_square(a_face(0.4), turned=False).roll == 0


def test_unknown_landmarks_are_left_out() -> None:
    points = a_face()
    points[landmarks.JAW] = np.nan
    assert np.isfinite(landmarks.bounding_square(points).side)
    with pytest.raises(ValueError, match="no landmark"):
        landmarks.bounding_square(np.full_like(points, np.nan))
