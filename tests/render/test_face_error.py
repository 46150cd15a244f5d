"""Vertex errors and similarity of renders."""

from dataclasses import replace

import numpy as np
import pytest

from data_pipelines.sampler import sample
from sf_jax.face.channels import INDEX
from sf_jax.render import face_error
from sf_jax.render.head import builtin
from sf_jax.render.rig import Rig, RigShapeError, pose

KNOWN = np.ones((3, 61), bool)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return builtin()


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.stack([sample(i) for i in range(3)])


def test_vertex_errors_are_those_of_posed_rigs(rig: Rig, faces: np.ndarray) -> None:
    other = np.roll(faces, 1, 0)
    still = (faces.copy(), other.copy())
    for values in still:
        values[:, 52:] = 0
    errors = face_error.vertex_error(rig, faces, other, KNOWN)
    for name, vertices in face_error.regions(rig).items():
        assert len(vertices) > 100
        first, second = (np.stack([pose(rig, one)[vertices] for one in part]) for part in still)
        expected = 10 * np.linalg.norm(first - second, axis=-1).mean(1)
        np.testing.assert_allclose(errors[name], expected, atol=1e-3)


def test_each_region_moves_by_its_own_channels(rig: Rig) -> None:
    for name, channel in (
        ("lips", "MouthPucker"),
        ("lids", "EyeBlinkLeft"),
        ("brows", "BrowInnerUp"),
    ):
        labels = np.zeros((3, 61))
        predicted = labels.copy()
        predicted[:, INDEX[channel]] = [0.0, 0.5, 1.0]
        errors = face_error.vertex_error(rig, predicted, labels, KNOWN)
        assert max(errors, key=lambda each: errors[each][2]) == name and errors[name][2] > 1
        np.testing.assert_allclose(errors[name][1] * 2, errors[name][2])
        unknown = KNOWN.copy()
        unknown[:, INDEX[channel]] = False
        assert not face_error.vertex_error(rig, predicted, labels, unknown)[name].any()


def test_similarity_of_renders_falls_with_the_error(rig: Rig) -> None:
    labels = np.zeros((3, 61))
    predicted = labels.copy()
    predicted[:, INDEX["JawOpen"]] = [0.0, 0.3, 0.9]
    predicted[:, INDEX["HeadYaw"]] = 0.5  # has no part
    found = face_error.render_similarity(rig, predicted, labels, KNOWN)
    assert found[0] == 1 and 1 > found[1] > found[2] > 0.3
    means = face_error.summary(rig, predicted, labels, KNOWN, renders=2)
    assert means["ssim"] == pytest.approx(found[:2].mean())
    assert means["brows_mm"] == pytest.approx(0, abs=1e-3)


def test_rigs_that_cannot_be_measured_on_are_refused(rig: Rig) -> None:
    nothing = np.zeros((3, 61))
    with pytest.raises(RigShapeError, match="no landmarks of the lips"):
        blind = replace(rig, landmarks=np.full(70, -1, np.int32))
        face_error.vertex_error(blind, nothing, nothing, KNOWN)
    with pytest.raises(RigShapeError, match="not varied"):
        varied = replace(rig, style=np.eye(52, dtype=np.float32))
        face_error.vertex_error(varied, nothing, nothing, KNOWN)
