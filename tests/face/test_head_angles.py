"""Angles of the head as rotations."""

import numpy as np
import pytest

from sf_jax.face.channels import INDEX
from sf_jax.face.head_angles import HEAD, angles_of, rotation_of, turn_image
from sf_jax.render.rig import rotation


def some_angles(count: int = 50) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.9, 0.9, (count, 3))


def test_rotation_is_yaw_after_pitch_after_roll() -> None:
    for angles, found in zip(some_angles(), rotation_of(some_angles()), strict=True):
        assert found == pytest.approx(rotation(*angles), abs=1e-6)


def test_angles_come_back() -> None:
    assert angles_of(rotation_of(some_angles())) == pytest.approx(some_angles(), abs=1e-12)


def test_turning_the_image_of_a_frontal_head_adds_to_its_roll() -> None:
    face = np.zeros(61, np.float32)
    face[INDEX["HeadRoll"]], face[INDEX["JawOpen"]] = 0.1, 0.7
    turned = turn_image(face, 0.3)
    assert turned[HEAD] == pytest.approx([0, 0, 0.4], abs=1e-6)
    assert turned[INDEX["JawOpen"]] == np.float32(0.7)


def test_turning_an_image_by_a_quarter_makes_a_yaw_a_pitch() -> None:
    """A head that faces the right of the image (its left) faces up once that is turned."""
    face = np.zeros(61, np.float32)
    face[INDEX["HeadYaw"]] = 0.5
    yaw, pitch, _ = turn_image(face, np.pi / 2)[HEAD]
    assert (yaw, pitch) == pytest.approx((0, -0.5), abs=1e-6)


def test_turning_back_is_nothing_and_no_face_stays_none() -> None:
    face = np.zeros(61, np.float32)
    face[HEAD] = [0.3, -0.2, 0.1]
    assert turn_image(turn_image(face, 0.4), -0.4) == pytest.approx(face, abs=1e-6)
    assert np.isnan(turn_image(np.full(61, np.nan, np.float32), 0.2)).all()
