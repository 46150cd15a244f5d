"""Faces to train on: in range, of all kinds, consistent, nothing where a channel is not known."""

import numpy as np
import pytest

from data_pipelines import expressions
from data_pipelines.expressions import varied
from data_pipelines.sampler import GAZE_RADIANS
from sf_jax.face.channels import HIGH, INDEX, LOW, NAMES

COUNT = 1500


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.stack([varied(seed) for seed in range(COUNT)])


def test_values_are_in_range_and_of_their_seed(faces: np.ndarray) -> None:
    assert faces.dtype == np.float32 and faces.shape == (COUNT, 61)
    assert ((faces >= LOW) & (faces <= HIGH)).all()
    np.testing.assert_array_equal(varied(7), faces[7])


def test_every_kind_is_met(faces: np.ndarray) -> None:
    active = (faces[:, :52] > 0.02).sum(1)
    assert 0.05 < (active > 30).mean() < 0.3  # dense
    assert 0.05 < ((active > 0) & (active < 3)).mean() < 0.3  # single channels
    alone = faces[(active == 1)]
    assert len(np.unique(alone[:, :52].argmax(1))) > 20
    assert (faces[:, :52] == 1).any(0).sum() > 40


def test_every_blendshape_is_strong_at_times(faces: np.ndarray) -> None:
    assert ((faces[:, :52] > 0.6).mean(0) > 0.002).all()


def test_gaze_and_eye_angles_agree(faces: np.ndarray) -> None:
    for side, outward in (("Left", 1), ("Right", -1)):
        out, into = (faces[:, INDEX[f"EyeLook{way}{side}"]] for way in ("Out", "In"))
        assert (np.minimum(out, into) == 0).all()
        expected = GAZE_RADIANS * outward * (out - into)
        np.testing.assert_allclose(faces[:, INDEX[f"{side}EyeYaw"]], expected, atol=1e-6)


def test_neither_side_is_preferred(faces: np.ndarray) -> None:
    for left, right in expressions.PAIRS:
        assert abs(faces[:, left].mean() - faces[:, right].mean()) < 0.03, NAMES[left]


def test_what_is_not_known_is_zero() -> None:
    known = np.arange(61) % 3 > 0
    found = np.stack([varied(seed, known) for seed in range(60)])
    assert not found[:, ~known].any() and found[:, known].any(0).sum() > 30


def test_single_channels_are_known_ones(faces: np.ndarray) -> None:
    known = np.zeros(61, bool)
    known[[INDEX["JawOpen"], INDEX["CheekPuff"], INDEX["TongueOut"], INDEX["BrowInnerUp"]]] = True
    active = (faces[:, :52] > 0.02).sum(1)
    single = [seed for seed in np.flatnonzero(active == 1) if not varied(seed, known).any()]
    assert len(single) < 0.35 * (active == 1).sum()  # of 52 channels, 4 are known
