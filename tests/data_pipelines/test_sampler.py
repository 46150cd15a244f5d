"""Sampled faces: in range, every channel in use, coupled as faces are, neither side preferred."""

import numpy as np
import pytest

from data_pipelines.sampler import GAZE_RADIANS, mirror_name, sample
from sf_jax.face.channels import BLENDSHAPES, CHANNELS, HIGH, INDEX, LOW, NAMES, mirror

COUNT = 3000


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.stack([sample(seed) for seed in range(COUNT)])


def column(faces: np.ndarray, name: str) -> np.ndarray:
    return faces[:, INDEX[name]]


def test_values_are_in_range(faces: np.ndarray) -> None:
    assert faces.dtype == np.float32 and faces.shape == (COUNT, 61)
    assert ((faces >= LOW) & (faces <= HIGH)).all()


def test_a_seed_gives_one_face(faces: np.ndarray) -> None:
    np.testing.assert_array_equal(sample(17), faces[17])
    assert len(np.unique(faces, axis=0)) > 0.95 * COUNT  # a few are wholly at rest


def test_every_blendshape_is_active_neither_never_nor_always(faces: np.ndarray) -> None:
    share = (faces[:, BLENDSHAPES] > 0.2).mean(0)
    wrong = [(n, float(s)) for n, s in zip(NAMES, share, strict=False) if not 0.015 <= s <= 0.4]
    assert not wrong


def test_every_angle_varies(faces: np.ndarray) -> None:
    assert (faces[:, 52:].std(0) > 0.01).all()


@pytest.mark.parametrize("part", ["Jaw", "Mouth"])
def test_jaw_and_mouth_move_to_one_side(faces: np.ndarray, part: str) -> None:
    left, right = column(faces, f"{part}Left"), column(faces, f"{part}Right")
    assert (np.minimum(left, right) == 0).all()
    assert left.max() > 0.5 and right.max() > 0.5


def test_lips_close_no_further_than_the_jaw_opens(faces: np.ndarray) -> None:
    close = column(faces, "MouthClose")
    assert (close <= column(faces, "JawOpen")).all() and close.max() > 0.5


@pytest.mark.parametrize(("side", "outward"), [("Left", 1), ("Right", -1)])
def test_looks_and_eye_angles_agree(faces: np.ndarray, side: str, outward: int) -> None:
    yaw = column(faces, f"EyeLookOut{side}") - column(faces, f"EyeLookIn{side}")
    pitch = column(faces, f"EyeLookDown{side}") - column(faces, f"EyeLookUp{side}")
    for angle, look in ((f"{side}EyeYaw", outward * yaw), (f"{side}EyePitch", pitch)):
        np.testing.assert_allclose(column(faces, angle), GAZE_RADIANS * look, atol=1e-6)
        assert look.std() > 0.1
    assert GAZE_RADIANS == 0.6


def test_both_eyes_look_one_way(faces: np.ndarray) -> None:
    for angle in ("Yaw", "Pitch"):
        pair = column(faces, f"LeftEye{angle}"), column(faces, f"RightEye{angle}")
        assert np.corrcoef(*pair)[0, 1] > 0.9


def test_an_eye_that_closes_is_not_wide(faces: np.ndarray) -> None:
    for side in ("Left", "Right"):
        closed = column(faces, f"EyeBlink{side}") > 0.7
        assert closed.any() and (column(faces, f"EyeWide{side}")[closed] == 0).all()


def test_neither_side_is_preferred(faces: np.ndarray) -> None:
    other = mirror(faces)
    np.testing.assert_allclose(faces.mean(0), other.mean(0), atol=0.02)
    np.testing.assert_allclose(faces.std(0), other.std(0), atol=0.03)
    share, opposite = (faces[:, :52] > 0.2).mean(0), (other[:, :52] > 0.2).mean(0)
    np.testing.assert_allclose(share, opposite, atol=0.03)


def test_names_of_the_other_side() -> None:
    assert [mirror_name(channel.name) for channel in CHANNELS[:52]] == [
        channel.mirror for channel in CHANNELS[:52]
    ]
