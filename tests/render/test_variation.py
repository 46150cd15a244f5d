"""Random heads out of a rig: nearly symmetric, without folds, with expressions that stay right."""

from dataclasses import replace

import numpy as np
import pytest

from sf_jax.face import landmarks
from sf_jax.face.channels import INDEX, MIRROR
from sf_jax.render.draw import draw
from sf_jax.render.head import builtin
from sf_jax.render.rig import MATERIALS, Rig, pose
from sf_jax.render.scene import plain_scene
from sf_jax.render.shape_style import MOST, random_style
from sf_jax.render.variation import KINDS, NAMES, Anchors, character_warp, random_character

RIG = builtin()
FLIP = np.array([-1, 1, 1], np.float32)
FACE = (RIG.neutral[:, 1] > -9) & (RIG.neutral[:, 2] > 0)


def face(**values: float) -> np.ndarray:
    coefficients = np.zeros(61, np.float32)
    for name, value in values.items():
        coefficients[INDEX[name]] = value
    return coefficients


def variants(count: int) -> list[Rig]:
    """Heads of all kinds in turn."""
    kinds = list(KINDS)
    return [RIG.vary(np.random.default_rng(i), kinds[i % len(kinds)]) for i in range(count)]


def determinants(rig: Rig, points: np.ndarray) -> np.ndarray:
    """Of the warp's Jacobian at points: how volumes change, negative where space is folded."""
    assert rig.warp is not None
    step = 0.02
    columns = [
        (rig.warp(points + step * axis) - rig.warp(points - step * axis)) / (2 * step)
        for axis in np.eye(3, dtype=np.float32)
    ]
    return np.linalg.det(np.stack(columns, -1))


def test_space_is_not_folded() -> None:
    smallest = [determinants(rig, RIG.neutral[FACE][::5]).min() for rig in variants(60)]
    assert np.quantile(smallest, 0.1) > 0 and np.mean(np.array(smallest) > 0) > 0.95


def test_no_amounts_change_nearly_nothing() -> None:
    warp = character_warp(
        RIG.marks(RIG.neutral), dict.fromkeys(NAMES, 0.0), np.random.default_rng(0)
    )
    moved = np.linalg.norm(warp(RIG.neutral) - RIG.neutral, axis=1)
    assert 0 < moved.max() < 0.03 * RIG.height()  # a little asymmetry is never missing


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_differ_and_are_nearly_symmetric(kind: str) -> None:
    rig = RIG.vary(np.random.default_rng(5), kind)
    assert rig.warp is not None
    warped = rig.warp(RIG.neutral)[FACE]
    mirrored = rig.warp(RIG.neutral * FLIP)[FACE] * FLIP
    moved = np.linalg.norm(warped - RIG.neutral[FACE], axis=1)
    asymmetry = np.linalg.norm(warped - mirrored, axis=1)
    assert moved.max() > 0.3 and 0 < asymmetry.max() < 0.12 * RIG.height()
    assert np.median(asymmetry) < 0.3 * np.median(moved)


def test_the_same_generator_gives_the_same_head() -> None:
    one, again, other = (pose(RIG.vary(np.random.default_rng(s)), face()) for s in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.3


def test_kinds_are_drawn_by_their_shares() -> None:
    drawn = [random_character(np.random.default_rng(i))[0] for i in range(400)]
    for kind, each in KINDS.items():
        assert drawn.count(kind) / 400 == pytest.approx(each.share, abs=0.08)


def area(rig: Rig, coefficients: np.ndarray, *names: str) -> int:
    drawing = draw(rig, coefficients, replace(plain_scene(), face_share=0.6), 96, 96)
    return int(np.isin(drawing.material, [MATERIALS.index(name) for name in names]).sum())


def test_eyes_and_lips_still_shut() -> None:
    ball = ("iris", "pupil", "sclera")
    for rig in variants(14):
        open_, shut = (area(rig, face(EyeBlinkLeft=b, EyeBlinkRight=b), *ball) for b in (0, 1))
        assert shut <= 0.12 * open_
        mouth = [area(rig, face(JawOpen=j), "teeth", "mouth", "tongue") for j in (0, 0.8)]
        assert mouth[0] < 8 < 20 < mouth[1]


def test_eyes_turn_as_before() -> None:
    """Pupils move left and down, whatever became of the head."""
    look = face(EyeLookOutLeft=1, EyeLookInRight=1, EyeLookDownLeft=0.5, EyeLookDownRight=0.5)
    for rig in variants(14):
        moved = (pose(rig, look) - pose(rig, face()))[RIG.landmarks[landmarks.PUPILS]]
        assert (moved[:, 0] > 0.1).all() and (moved[:, 1] < -0.02).all()


def test_larger_irises_keep_their_middle() -> None:
    rig = RIG.vary(np.random.default_rng(0), "anime")
    assert rig.warp is not None
    wide = replace(rig.warp, iris=1.5)
    for eye in RIG.eyes:
        ball = RIG.neutral[eye.vertices]
        iris = RIG.material[eye.vertices] == MATERIALS.index("iris")
        out = wide.scale_iris(ball, eye.centre)
        sizes = [np.ptp(points[iris], axis=0)[0] for points in (ball, out)]
        assert 1.3 < sizes[1] / sizes[0] < 1.6
        np.testing.assert_allclose(out[iris].mean(0)[:2], ball[iris].mean(0)[:2], atol=0.01)
        lengths = [np.linalg.norm(points - eye.centre, axis=1) for points in (ball, out)]
        np.testing.assert_allclose(*lengths, rtol=1e-4)


def test_a_head_of_unknown_landmarks_is_refused() -> None:
    marks = RIG.marks(RIG.neutral)
    marks[landmarks.JAW] = np.nan
    marks[landmarks.CHIN] = RIG.neutral[RIG.landmarks[landmarks.CHIN]]
    assert np.isfinite(Anchors(marks).ear).all()
    marks[landmarks.NOSE_TIP] = np.nan
    with pytest.raises(ValueError, match="not known"):
        Anchors(marks)


def test_styles_are_the_same_on_both_sides() -> None:
    style = random_style(np.random.default_rng(2))
    values = np.random.default_rng(3).random(52).astype(np.float32)
    opposite = MIRROR[:52]
    np.testing.assert_allclose(style @ values[opposite], (style @ values)[opposite], atol=1e-6)
    np.testing.assert_array_equal(random_style(np.random.default_rng(2), 0.0), np.eye(52))
    assert np.abs(style - np.eye(52)).max() > 0.1


def test_styles_keep_each_shape_the_largest_of_what_it_moves() -> None:
    for seed in range(20):
        style = random_style(np.random.default_rng(seed))
        own = np.diag(style)
        assert (own > 0.6).all() and (own < 1.6).all()
        assert (np.abs(style - np.diag(own)).max(0) <= MOST).all()
        for name in ("EyeBlinkLeft", "MouthClose", "EyeLookUpRight"):
            assert own[INDEX[name]] == 1 and (style[INDEX[name]] > 0).sum() == 1


def test_a_style_changes_what_a_shape_moves_and_no_neutral_face() -> None:
    plain, styled = (RIG.vary(np.random.default_rng(1), "person", style=s) for s in (0, 1))
    assert plain.style is None and styled.style is not None
    np.testing.assert_array_equal(pose(plain, face()), pose(styled, face()))
    assert (
        np.abs(pose(plain, face(MouthSmileLeft=1)) - pose(styled, face(MouthSmileLeft=1))).max()
        > 0.02
    )
