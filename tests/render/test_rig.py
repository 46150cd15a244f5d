"""The built-in head: symmetric, shapes visible and distinct, eyes and head turn as documented."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sf_jax.face.channels import CHANNELS, INDEX, MIRROR, NAMES, mirror
from sf_jax.render.head import builtin
from sf_jax.render.head_surface import EYE, EYE_RADIUS
from sf_jax.render.rig import MATERIALS, PAINTS, RigShapeError, eye_angles, pose

RIG = builtin()
FLIP = np.array([-1, 1, 1], np.float32)
SHAPES = NAMES[:52]


def face(**values: float) -> np.ndarray:
    coefficients = np.zeros(61, np.float32)
    for name, value in values.items():
        coefficients[INDEX[name]] = value
    return coefficients


def of(material: str) -> np.ndarray:
    return RIG.material == MATERIALS.index(material)


def gaze(vertices: np.ndarray, eye: int) -> np.ndarray:
    """Unit vector from the eyeball's middle to its pupil."""
    chosen = np.zeros(len(RIG.neutral), bool)
    chosen[RIG.eyes[eye].vertices] = True
    away = vertices[chosen & of("pupil")].mean(0) - vertices[chosen & of("sclera")].mean(0)
    return away / np.linalg.norm(away)


def test_arrays_have_the_stated_shapes_and_are_finite():
    count = len(RIG.neutral)
    assert RIG.blendshapes.shape == (52, count, 3) and RIG.identity.shape[1:] == (count, 3)
    assert len(RIG.identity) >= 24
    assert RIG.paint.shape == (count, len(PAINTS)) and RIG.material.max() < len(MATERIALS)
    assert RIG.paint.min() >= 0 and RIG.paint.max() <= 1 and (RIG.paint.max(0) > 0.9).all()
    assert RIG.triangles.min() >= 0 and RIG.triangles.max() < count
    assert len(RIG.triangles) < 12_000
    assert len(RIG.landmarks) == len(set(RIG.landmarks.tolist())) == 70
    for array in (RIG.neutral, RIG.blendshapes, RIG.identity, RIG.head_weight):
        assert array.dtype == np.float32 and np.isfinite(array).all()


def test_neutral_head_is_its_own_mirror_image():
    assert (RIG.mirror[RIG.mirror] == np.arange(len(RIG.mirror))).all()
    np.testing.assert_array_equal(RIG.neutral[RIG.mirror] * FLIP, RIG.neutral)
    np.testing.assert_array_equal(RIG.material[RIG.mirror], RIG.material)
    assert (RIG.neutral[RIG.eyes[0].vertices, 0] > 0).all()


def test_mirror_channel_is_the_mirrored_displacement():
    for i in range(52):
        mirrored = RIG.blendshapes[i][RIG.mirror] * FLIP
        np.testing.assert_allclose(RIG.blendshapes[MIRROR[i]], mirrored, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_mirrored_coefficients_pose_the_mirrored_head(seed: int):
    random = np.random.default_rng(seed)
    coefficients = random.random(61).astype(np.float32) - np.where(np.arange(61) > 51, 0.5, 0)
    coefficients = coefficients.astype(np.float32)
    posed, other = pose(RIG, coefficients), pose(RIG, mirror(coefficients))
    np.testing.assert_allclose(other, posed[RIG.mirror] * FLIP, atol=2e-4)


@pytest.mark.parametrize("name", [c.name for c in CHANNELS[:52] if c.side == "left"])
def test_left_shapes_leave_the_right_side_alone(name: str):
    right = RIG.neutral[:, 0] < -0.85
    moved = np.linalg.norm(RIG.blendshapes[INDEX[name]], axis=1)
    assert moved[right].max() < 0.02 < moved[~right].max()


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_moves_visible_vertices(name: str):
    """0.12 cm or more on 10 or more vertices of the outside of the front of the face."""
    front = (RIG.neutral[:, 2] > 4) & (of("skin") | of("lips") | of("brow") | of("lash"))
    moved = np.linalg.norm(RIG.blendshapes[INDEX[name]][front], axis=1)
    assert np.sort(moved)[-10] > 0.12


# Looking down half closes the lid, as a blink does: the eyeball tells them apart.
ALIKE = {("EyeBlink", "EyeLookDown"), ("EyeWide", "EyeLookUp"), ("EyeLookDown", "EyeLookUp")}


def test_shapes_are_distinct():
    """No two displacement fields are more than 0.95 correlated, but the named pairs of lids."""
    fields = RIG.blendshapes.reshape(52, -1).astype(np.float64)
    fields /= np.linalg.norm(fields, axis=1)[:, None]
    likeness = np.triu(fields @ fields.T, 1)
    for i, j in zip(*np.where(likeness > 0.95), strict=True):
        stems = {tuple(n.removesuffix("Left").removesuffix("Right") for n in (NAMES[i], NAMES[j]))}
        assert stems & ALIKE or {s[::-1] for s in stems} & ALIKE, (NAMES[i], NAMES[j])


def test_shapes_move_in_the_direction_of_their_names():
    def mean(name: str, near: tuple, reach: float = 0.8, material: str | None = None) -> np.ndarray:
        close = np.linalg.norm(RIG.neutral - np.array(near), axis=1) < reach
        if material:
            close &= of(material)
        return RIG.blendshapes[INDEX[name]][close].mean(axis=0)

    corner, brow_in, brow_out = (2.4, -4.4, 8.3), (1.5, 4.7, 8.7), (4.3, 4.6, 7.6)
    assert mean("MouthSmileLeft", corner)[0] > 0.1 and mean("MouthSmileLeft", corner)[1] > 0.3
    assert mean("MouthFrownLeft", corner)[1] < -0.3
    assert mean("MouthStretchLeft", corner)[0] > 0.3
    assert mean("MouthDimpleLeft", corner)[2] < -0.2
    assert mean("BrowInnerUp", brow_in)[1] > 3 * mean("BrowInnerUp", brow_out)[1] > 0
    assert mean("BrowOuterUpLeft", brow_out)[1] > 3 * mean("BrowOuterUpLeft", brow_in)[1]
    assert mean("BrowDownLeft", brow_in)[1] < -0.3
    assert mean("CheekPuff", (4.8, -3.9, 6.6), 1.2)[0] > 0.5
    assert mean("NoseSneerLeft", (1.2, -1.4, 9.6))[1] > 0.2
    chin = (0, -8.0, 7.5)
    assert mean("JawLeft", chin, 1.5)[0] > 0.6 and mean("JawRight", chin, 1.5)[0] < -0.6
    assert mean("JawForward", chin, 1.5)[2] > 0.6
    assert mean("TongueOut", (0, -5.3, 7.2), 1.0, "tongue")[2] > 2.5


def slit_gap(*names: str) -> float:
    """Largest opening between the lips, cm: the pocket's first ring is the slit, both rows."""
    vertices = pose(RIG, face(**dict.fromkeys(names, 1.0)))
    lips = np.flatnonzero(of("lips"))
    start = RIG.neutral[lips]
    pairs = np.linalg.norm(start[:, None] - start[None], axis=-1) < 1e-4
    i, j = np.nonzero(np.triu(pairs, 1))
    return float(np.linalg.norm(vertices[lips[i]] - vertices[lips[j]], axis=1).max())


def test_mouth_opens_and_mouth_close_shuts_it():
    assert slit_gap() < 1e-4
    assert slit_gap("JawOpen") > 2.0
    assert slit_gap("JawOpen", "MouthClose") < 0.35
    assert slit_gap("MouthLowerDownLeft") > 0.5 and slit_gap("MouthUpperUpLeft") > 0.5
    assert slit_gap("MouthSmileLeft") < 0.01 and slit_gap("CheekPuff") < 0.01


def test_lower_teeth_and_tongue_follow_the_jaw():
    opened = RIG.blendshapes[INDEX["JawOpen"]]
    assert (opened[of("tongue"), 1] < -0.5).all()
    lower = of("teeth") & (RIG.neutral[:, 1] < -4.95)
    upper = of("teeth") & (RIG.neutral[:, 1] > -4.5)
    assert (opened[lower, 1] < -1.0).all() and not opened[upper].any()


@pytest.mark.parametrize("amount, covered", [(0.0, False), (1.0, True)])
def test_lids_cover_the_pupil_at_a_full_blink(amount: float, covered: bool):
    vertices = pose(RIG, face(EyeBlinkLeft=amount, EyeBlinkRight=amount))
    corners = vertices[RIG.triangles[of("skin")[RIG.triangles].all(axis=1)]]
    for eye in RIG.eyes:
        middle = eye.centre[:2]
        a, b, c = (corners[:, i, :2] - middle for i in range(3))
        turns = [p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0] for p, q in ((a, b), (b, c), (c, a))]
        over = (turns[0] > 0) & (turns[1] > 0) & (turns[2] > 0)  # facing us, about the pupil
        in_front = corners[over][:, :, 2].mean(axis=1) > eye.centre[2] + EYE_RADIUS
        assert in_front.any() == covered


@pytest.mark.parametrize("amount", [0.25, 0.5, 0.75])
def test_closing_lids_stay_outside_the_eyeball(amount: float):
    vertices = pose(RIG, face(EyeBlinkLeft=amount))
    lid = (np.linalg.norm(RIG.neutral - EYE, axis=1) < 1.56) & of("lash")
    assert lid.any()
    assert (np.linalg.norm(vertices[lid] - EYE, axis=1) > EYE_RADIUS).all()


@pytest.mark.parametrize(
    "name, axis, sign, eyes",
    [
        ("LeftEyeYaw", 0, 1, [0]), ("RightEyeYaw", 0, 1, [1]),
        ("LeftEyePitch", 1, -1, [0]), ("RightEyePitch", 1, -1, [1]),
        ("EyeLookOutLeft", 0, 1, [0]), ("EyeLookInLeft", 0, -1, [0]),
        ("EyeLookOutRight", 0, -1, [1]), ("EyeLookInRight", 0, 1, [1]),
        ("EyeLookUpLeft", 1, 1, [0]), ("EyeLookDownRight", 1, -1, [1]),
    ],
)  # fmt: skip
def test_eyes_turn_the_way_the_channel_table_says(name, axis, sign, eyes):
    rest, turned = pose(RIG, face()), pose(RIG, face(**{name: 1.0}))
    for eye in (0, 1):
        change = (gaze(turned, eye) - gaze(rest, eye))[axis] * sign
        assert change > 0.2 if eye in eyes else abs(change) < 1e-5


def test_angle_and_look_channels_agree():
    both = eye_angles(face(LeftEyeYaw=0.6, EyeLookOutLeft=1.0))
    np.testing.assert_allclose(both[0], [0.6, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    "name, moving, axis, sign",
    [("HeadYaw", "pupil", 0, 1), ("HeadPitch", "pupil", 1, -1), ("HeadRoll", "hair", 0, -1)],
)
def test_head_turns_the_way_the_channel_table_says(name, moving, axis, sign):
    rest, turned = pose(RIG, face()), pose(RIG, face(**{name: 0.4}))
    assert ((turned - rest)[of(moving)].mean(axis=0)[axis]) * sign > 1.0
    cloth = of("cloth")
    np.testing.assert_allclose(turned[cloth], rest[cloth], atol=1e-4)


def test_skin_triangles_face_outward():
    corners = RIG.neutral[RIG.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    middle = corners.mean(axis=1)
    face_ = (of("skin")[RIG.triangles].all(axis=1)) & (middle[:, 2] > 3) & (middle[:, 1] > -9)
    outward = (normals * (middle - [0, 0.6, 0])).sum(axis=1)
    area = np.linalg.norm(normals, axis=1)
    assert area[face_ & (outward < 0)].sum() < 0.01 * area[face_].sum()
    for material in ("hair", "pupil", "iris"):
        chosen = of(material)[RIG.triangles].all(axis=1)
        centre = np.array([0, 3, 0]) if material == "hair" else middle * [1, 1, 0] + [0, 0, 5]
        assert ((normals * (middle - centre)).sum(axis=1)[chosen] > -1e-6).mean() > 0.98


def test_identity_moves_eyeballs_as_wholes_and_keeps_the_mouth_shut():
    for shift in RIG.identity:
        for eye in RIG.eyes:
            assert np.ptp(shift[eye.vertices], axis=0).max() < 1e-5
    fields = RIG.identity.reshape(len(RIG.identity), -1).astype(np.float64)
    fields /= np.linalg.norm(fields, axis=1)[:, None]
    assert np.triu(np.abs(fields @ fields.T), 1).max() < 0.9


def test_wrong_lengths_are_refused():
    with pytest.raises(RigShapeError, match=r"expected \(61,\)"):
        pose(RIG, np.zeros(52))
    with pytest.raises(RigShapeError, match="identity"):
        pose(RIG, np.zeros(61), np.zeros(3))
