"""Renders of candidates: one camera, regions where their channels move, neutral outlines."""

from dataclasses import replace

import numpy as np
import pytest

from sf_jax.face import regions
from sf_jax.face.channels import INDEX, NAMES
from sf_jax.render.draw import draw
from sf_jax.render.head import builtin
from sf_jax.render.rig import Rig, RigShapeError
from sf_jax.systems.superface import renders
from sf_jax.systems.superface.renders import OUTLINE, Renderer, outlined, rig_hash
from sf_jax.systems.superface.seen import colour_difference, distance, visible_difference
from tests.render.shared_rigs import ict_facekit

HEADS = [(0.0, 0.0, 0.0), (0.3, 0.15, -0.2)]
RENDERER = Renderer(builtin(), 96, 96)


def face(**values: float) -> np.ndarray:
    out = np.zeros(61, np.float32)
    for name, value in values.items():
        out[INDEX[name]] = value
    return out


@pytest.fixture(scope="module", params=["built-in", "ICT-FaceKit"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return Renderer(builtin() if request.param == "built-in" else ict_facekit(), 96, 96)


@pytest.mark.parametrize("head", HEADS)
def test_the_camera_stays_while_the_jaw_opens(renderer, head):
    rest, opened = (renderer(face(JawOpen=value), head) for value in (0.0, 1.0))
    upper, lower = (renderer.region(part, head) for part in regions.PARTS)
    assert visible_difference(rest, opened, upper) < 2.0
    assert visible_difference(rest, opened, lower) > 8.0


def test_a_camera_that_follows_the_landmarks_would_move_the_eyes():
    """What the corrected framing is for: `draw` alone fails the test above."""
    head = HEADS[0]
    both = [
        draw(RENDERER.rig, face(JawOpen=value), RENDERER.scene, 96, 96).image
        for value in (0.0, 1.0)
    ]
    assert visible_difference(*both, RENDERER.region("upper", head)) > 3.0


@pytest.mark.parametrize("region", regions.PARTS)
def test_what_a_region_has_moves_within_its_outline(region):
    """Each channel alone: the better part of what changes is within its region's outline."""
    other = "lower" if region == "upper" else "upper"
    head = HEADS[1]
    masks = {part: RENDERER.region(part, head) for part in regions.PARTS}
    rest = RENDERER(face(), head)
    inside = []
    for i in np.flatnonzero(regions.channels(region)[:52]):
        near = {"MouthClose": {"JawOpen": 0.5}}.get(NAMES[i], {})
        before = RENDERER(face(**near), head) if near else rest
        changed = colour_difference(before, RENDERER(face(**near | {NAMES[i]: 1.0}), head)) ** 2
        inside.append(changed[masks[region]].sum() / changed.sum())
        assert changed[masks[region]].sum() > 3 * changed[masks[other] & ~masks[region]].sum()
    assert np.mean(inside) > 0.85 and min(inside) > 0.5


def test_the_head_is_in_the_pose_that_is_asked_for_whatever_a_candidate_has():
    turned = face(HeadYaw=0.5, HeadRoll=-0.4, JawOpen=0.3)
    for head in HEADS:
        assert np.array_equal(RENDERER(turned, head), RENDERER(face(JawOpen=0.3), head))
    one, other = (RENDERER(turned, head) for head in HEADS)
    assert np.abs(one.astype(int) - other).mean() > 3


def test_aimed_at_a_face_its_picture_is_as_drawn():
    shown = face(JawOpen=0.8, MouthSmileLeft=0.5, HeadYaw=0.2)
    framed = replace(RENDERER, aim=RENDERER.aim_at(shown))
    scene = RENDERER.scene
    assert np.array_equal(
        framed(shown, (0.2, 0.0, 0.0)), draw(builtin(), shown, scene, 96, 96).image
    )


def test_outlines_depend_on_pose_and_region_alone():
    head = HEADS[1]
    mask = RENDERER.region("lower", head)
    for one in (face(), face(JawOpen=1.0, MouthPucker=0.5)):
        picture = RENDERER(one, head)
        edged = outlined(picture, mask)
        changed = (edged != picture).any(-1)
        inner = np.zeros_like(mask)
        inner[2:-2, 2:-2] = mask[4:, 2:-2] & mask[:-4, 2:-2] & mask[2:-2, 4:] & mask[2:-2, :-4]
        assert changed.any() and not changed[inner].any()
        assert (np.abs(edged.astype(int) - OUTLINE).max(-1) < 20).sum() > 20
    assert np.array_equal(picture, RENDERER(one, head)), "the render itself is not drawn on"
    assert not np.array_equal(mask, RENDERER.region("lower", HEADS[0]))


def test_the_whole_face_is_both_regions_and_what_is_between():
    masks = {region: RENDERER.region(region, HEADS[1]) for region in regions.REGIONS}
    both = masks["upper"] | masks["lower"]
    assert (both & ~masks["whole"]).sum() < 0.02 * both.sum()
    assert masks["whole"].sum() > both.sum()
    assert (masks["upper"] & masks["lower"]).sum() < 0.1 * masks["upper"].sum()


def test_a_rig_without_landmarks_is_refused_by_name():
    blind = replace(builtin(), name="blind", landmarks=np.full(70, -1, np.int32))
    with pytest.raises(RigShapeError, match="blind: has no landmarks"):
        Renderer(blind, 32, 32)(face(), HEADS[0])


def test_unknown_landmarks_of_a_region_are_reported():
    marks = np.full((70, 2), np.nan, np.float32)
    marks[:17] = np.random.default_rng(0).random((17, 2))
    with pytest.raises(ValueError, match="landmarks of the upper face are not known"):
        renders.region_polygon(marks, "upper")


def test_the_hash_of_a_rig_is_of_its_shapes():
    rig: Rig = builtin()
    moved = rig.blendshapes.copy()
    moved[3, 5, 1] += 1e-4
    assert rig_hash(rig) == rig_hash(builtin())
    assert rig_hash(replace(rig, blendshapes=moved)) != rig_hash(rig)
    assert rig_hash(replace(rig, name="other")) != rig_hash(rig)


def test_differences_are_zero_where_equal_and_of_the_region_alone():
    one = RENDERER(face(), HEADS[0])
    other = one.copy()
    other[:40] = 255 - other[:40]
    below = np.zeros(one.shape[:2], bool)
    below[60:] = True
    assert visible_difference(one, other, below) < 1e-3 and distance(one, other, below) < 1e-3
    assert visible_difference(one, other, ~below) > 20 and distance(one, other, ~below) > 20
    grey = [np.full((8, 8, 3), level, np.uint8) for level in (119, 129)]
    assert visible_difference(*grey, np.ones((8, 8), bool)) == pytest.approx(3.93, rel=0.06)
