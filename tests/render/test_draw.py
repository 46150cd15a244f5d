"""Rendered images: deterministic, correctly oriented, consistent with maps and landmarks."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from sf_jax.face.channels import INDEX, NAMES, mirror
from sf_jax.render.draw import BACKGROUND, Drawing, draw
from sf_jax.render.effects import Effects
from sf_jax.render.head import builtin
from sf_jax.render.looks import Look
from sf_jax.render.raster import rasterise, vertex_normals
from sf_jax.render.rig import MATERIALS, Rig, pose
from sf_jax.render.scene import Scene, plain_scene, random_scene
from tests.render.shared_rigs import ict_facekit

RIG = builtin()
TOON = Look(tones=(0.75, 1.05), limits=(0.6,), outline=0.01)
FRONT = replace(plain_scene(), light=(0.0, 0.5, 0.8), fill=0.0)  # as light as its mirror image
SIZE = (120, 160)  # rows, columns


def face(**values: float) -> np.ndarray:
    coefficients = np.zeros(61, np.float32)
    for name, value in values.items():
        coefficients[INDEX[name]] = value
    return coefficients


def some_face(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    coefficients = random.random(61) * (random.random(61) < 0.3)
    coefficients[52:] = random.uniform(-0.3, 0.3, 9)
    return coefficients.astype(np.float32)


@pytest.fixture(scope="module")
def ict() -> Rig:
    return ict_facekit()


def area(drawing: Drawing, material: str) -> int:
    return int((drawing.material == MATERIALS.index(material)).sum())


def middle(drawing: Drawing, material: str) -> np.ndarray:
    rows, columns = np.nonzero(drawing.material == MATERIALS.index(material))
    return np.array([columns.mean(), rows.mean()]) + 0.5


def pupils(drawing: Drawing) -> np.ndarray:
    """Middles [2, 2] of the pupils in the picture's left and right half."""
    seen = drawing.material == MATERIALS.index("pupil")
    half = seen.shape[1] // 2
    sides = [np.argwhere(seen[:, :half]), np.argwhere(seen[:, half:])]
    return np.array([side.mean(0)[::-1] for side in sides])


# ---- the rasteriser ---------------------------------------------------------------------------

SQUARE = np.array([[2, 2], [8, 2], [8, 8], [2, 8]], np.float32)
TWO = np.array([[0, 3, 2], [0, 2, 1]], np.int32)  # counter-clockwise with y up


def test_rasterise_fills_the_pixels_whose_centres_are_inside():
    index, depth = rasterise(SQUARE, np.full(4, 5, np.float32), TWO, 10, 10)
    assert (index[2:8, 2:8] >= 0).all() and (index >= 0).sum() == 36
    np.testing.assert_allclose(depth[2:8, 2:8], 1 / 5, rtol=1e-6)
    assert not depth[index < 0].any()


@pytest.mark.parametrize("order", [1, -1])
def test_nearer_triangles_win_whatever_the_order(order: int):
    points = np.concatenate([SQUARE, SQUARE])
    depths = np.repeat(np.float32([9, 4]), 4)
    triangles = np.ascontiguousarray(np.concatenate([TWO, TWO + 4])[::order])
    index, _ = rasterise(points, depths, triangles, 10, 10)
    assert (triangles[index[2:8, 2:8]] >= 4).all()


def test_back_faces_and_triangles_at_the_back_of_the_camera_are_not_drawn():
    depths = np.full(4, 5, np.float32)
    backs = np.ascontiguousarray(TWO[:, ::-1])
    assert (rasterise(SQUARE, depths, backs, 10, 10)[0] < 0).all()
    assert (rasterise(SQUARE, -depths, TWO, 10, 10)[0] < 0).all()
    through = depths * np.float32([0.1, 1, 1, 1])
    assert (rasterise(SQUARE, through, TWO, 10, 10)[0] < 0).all()
    assert (rasterise(SQUARE, depths, backs, 10, 10, one_sided=0)[0] >= 0).sum() == 36


def test_triangles_larger_than_the_picture_are_clipped():
    points = (SQUARE - 5) * 1000
    index, _ = rasterise(points, np.full(4, 5, np.float32), TWO, 7, 13)
    assert (index >= 0).all()


def test_normals_of_a_sphere_point_away_from_its_middle():
    u, v = np.meshgrid(np.linspace(0.3, 2.8, 30), np.linspace(-1.2, 1.2, 30))
    ball = np.stack([np.sin(u) * np.sin(v), np.cos(u), np.sin(u) * np.cos(v)], -1)
    cell = np.arange(900).reshape(30, 30)
    a, b, c, d = cell[:-1, :-1], cell[:-1, 1:], cell[1:, 1:], cell[1:, :-1]
    triangles = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    points = ball.reshape(-1, 3).astype(np.float32)
    normals = vertex_normals(points, triangles.astype(np.int32))
    assert ((normals * points).sum(1) > 0.98).all()


# ---- scenes -----------------------------------------------------------------------------------


def equal(a: Scene, b: Scene) -> bool:
    return repr(a) == repr(b)


def test_same_seed_same_bytes_other_seed_other_picture():
    def pictures() -> list[bytes]:
        scenes = [random_scene(seed, None, len(RIG.identity)) for seed in range(12)]
        assert all(any(getattr(s.effects, n) for s in scenes) for n in ("noise", "blur", "jpeg"))
        return [draw(RIG, some_face(1), scene, *SIZE).image.tobytes() for scene in scenes]

    assert pictures() == pictures() and len(set(pictures())) == 12


def test_identity_seed_fixes_the_person_and_seed_the_rest():
    one, other, stranger = random_scene(1, 9, 20), random_scene(2, 9, 20), random_scene(1, 8, 20)
    np.testing.assert_array_equal(one.identity, other.identity)
    assert one.paint == other.paint
    assert (one.focal, one.light) != (other.focal, other.light)
    assert (one.focal, one.light, one.centre) == (stranger.focal, stranger.light, stranger.centre)
    assert not np.array_equal(one.identity, stranger.identity)


def test_identity_seed_fixes_the_colours_within_a_style():
    people = [random_scene(seed, 9, 20) for seed in range(30)]
    for toon in (False, True):
        colours = {repr(p.colours) for p in people if bool(p.look.tones) == toon}
        assert len(colours) == 1


def test_scenes_stay_in_their_ranges():
    scenes = [random_scene(seed, None, 30) for seed in range(400)]
    assert 0.22 < np.mean([bool(s.look.tones) for s in scenes]) < 0.38
    for s in scenes:
        assert np.abs(s.identity).max() <= 2.5 and np.abs(s.centre).max() <= 0.08
        assert abs(s.camera_yaw) < 0.053 and abs(s.camera_pitch) < 0.053
        assert set(s.colours) == set(MATERIALS)
        assert all(0 <= v <= 1 for c in s.colours.values() for v in c)
    lightness = [np.mean(s.colours["skin"]) for s in scenes if not s.look.tones]
    assert min(lightness) < 0.3 and max(lightness) > 0.8  # people of every skin


# ---- pictures ---------------------------------------------------------------------------------


def check_upright(rig: Rig) -> None:
    """Eyes above the mouth, hair above the eyes, skin in the middle of the picture."""
    drawing = draw(rig, face(), FRONT, 160, 160)
    hair, iris, lips = (middle(drawing, name)[1] for name in ("hair", "iris", "lips"))
    assert hair < iris - 20 < lips - 50
    assert drawing.material[80, 80] == MATERIALS.index("skin")


def check_sides(rig: Rig) -> None:
    """The subject's left is at the picture's right."""
    open_eyes = draw(rig, face(), FRONT, 160, 160)
    winking = draw(rig, face(EyeBlinkLeft=1), FRONT, 160, 160)
    eye = np.isin(open_eyes.material, [MATERIALS.index(n) for n in ("iris", "sclera", "pupil")])
    shut = eye & (open_eyes.material != winking.material)
    columns = np.nonzero(shut)[1]
    assert len(columns) > 30 and (columns > 80).mean() > 0.85


def check_turn(rig: Rig) -> None:
    """Positive yaw is to the picture's right, pitch down; roll lowers the subject's right."""
    nose = np.argmax(rig.neutral[rig.landmarks, 2])

    def picture(**angles: float) -> Drawing:
        return draw(rig, face(**angles), FRONT, 160, 160)

    def shift(**angles: float) -> np.ndarray:
        return picture(**angles).landmarks[nose] - picture().landmarks[nose]

    assert shift(HeadYaw=0.4)[0] > 5 and shift(HeadPitch=0.3)[1] > 5
    eyes = picture(HeadRoll=0.3).landmarks[np.argsort(rig.neutral[rig.landmarks, 0])[[0, -1]], 1]
    assert eyes[0] > eyes[1] + 10  # the subject's right, at the picture's left, is lower
    for axis, turn in enumerate(("Yaw", "Pitch")):
        turned = [
            pupils(picture(**{f"LeftEye{turn}": a, f"RightEye{turn}": a})) for a in (-0.4, 0.4)
        ]
        assert (turned[1] - turned[0])[:, axis].min() > 1.5


CHECKS = [check_upright, check_sides, check_turn]


@pytest.mark.parametrize("check", CHECKS)
def test_builtin_head_is_the_right_way_round(check):
    check(RIG)


@pytest.mark.parametrize("check", CHECKS)
def test_ict_head_is_the_right_way_round(check, ict: Rig):
    check(ict)


@pytest.mark.parametrize("toon", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_mirrored_face_gives_the_mirrored_picture(seed: int, toon: bool):
    scene = replace(FRONT, look=TOON if toon else Look())
    one = draw(RIG, some_face(seed), scene, *SIZE)
    other = draw(RIG, mirror(some_face(seed)), scene, *SIZE)
    difference = np.abs(one.image.astype(int) - other.image[:, ::-1]).max(-1)
    assert difference.mean() < 1.0 and (difference > 40).mean() < 0.01
    unmirrored = np.abs(one.image.astype(int) - other.image).max(-1)
    assert unmirrored.mean() > 8 * difference.mean()


def expected_pixels(rig: Rig, scene: Scene, coefficients: np.ndarray) -> np.ndarray:
    """Pinhole projection [J, 2] written out again, for a camera straight in front."""
    points = pose(rig, coefficients, scene.identity)[rig.landmarks].astype(np.float64)
    points -= points.mean(0)
    size = np.ptp(rig.neutral[rig.landmarks, 1])
    away = scene.focal * size / scene.face_share - points[:, 2:]
    from_middle = points[:, :2] * [1, -1] / away * scene.focal + np.array(scene.centre)
    return from_middle * min(SIZE) + np.array(SIZE[::-1]) / 2


@pytest.mark.parametrize("focal, centre", [(1.5, (0.05, -0.02)), (5.0, (0.0, 0.08))])
def test_landmarks_are_projected_through_a_pinhole(focal: float, centre: tuple):
    scene = replace(FRONT, focal=focal, centre=centre)
    drawing = draw(RIG, some_face(3), scene, *SIZE)
    np.testing.assert_allclose(
        drawing.landmarks, expected_pixels(RIG, scene, some_face(3)), atol=0.02
    )


def test_landmarks_are_on_the_parts_they_mark():
    drawing = draw(RIG, face(), FRONT, 192, 192)
    on_eyes = [i for i, v in enumerate(RIG.landmarks) if RIG.material[v] == 6]  # pupils
    assert len(on_eyes) == 2
    iris_or_pupil = np.isin(drawing.material, [5, 6])
    count, _, _, middles = cv2.connectedComponentsWithStats(iris_or_pupil.astype(np.uint8))
    assert count == 3
    for i in on_eyes:
        distance = np.linalg.norm(middles[1:] + 0.5 - drawing.landmarks[i], axis=1).min()
        assert distance < 1.5
    x, y = drawing.landmarks[RIG.material[RIG.landmarks] == MATERIALS.index("lips")].T
    lips = drawing.material == MATERIALS.index("lips")
    near = cv2.dilate(lips.astype(np.uint8), np.ones((5, 5)))
    assert len(x) and near[y.astype(int), x.astype(int)].all()


def test_material_map_is_in_step_with_the_picture():
    colours = {name: (0.0, 0.0, 0.0) for name in MATERIALS} | {"hair": (1.0, 0.0, 0.0)}
    scene = replace(FRONT, colours=colours, paint={}, shine=0.0)
    drawing = draw(RIG, face(JawOpen=0.5), scene, *SIZE)
    red = (drawing.image[..., 0] > 60) & (drawing.image[..., 1] < 30)
    hair = drawing.material == MATERIALS.index("hair")
    assert hair.sum() > 300 and (red & hair).sum() / (red | hair).sum() > 0.85
    plain = (drawing.image == drawing.image[0, 0]).all(-1)
    outside = drawing.material == BACKGROUND
    assert (plain & outside).sum() / (plain | outside).sum() > 0.97
    assert set(np.unique(drawing.material)) <= {*range(len(MATERIALS)), BACKGROUND}


def test_opening_the_mouth_shows_what_is_in_it():
    shut, wide = (draw(RIG, face(JawOpen=jaw), FRONT, 192, 192) for jaw in (0, 0.9))
    inside = ("mouth", "teeth", "tongue")
    assert sum(area(shut, name) for name in inside) < 30
    assert sum(area(wide, name) for name in inside) > 300


# A round iris looks the same rolled.
@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("EyeRoll")])
def test_every_channel_changes_the_picture(name: str):
    base = face(JawOpen=0.7) if name in ("MouthClose", "TongueOut") else face()
    still, moved = base.copy(), base.copy()
    moved[INDEX[name]] = 0.8
    one, two = (draw(RIG, c, FRONT, 96, 96).image.astype(int) for c in (still, moved))
    changed = np.abs(one - two).max(-1) > 8
    assert changed.sum() >= 20


@pytest.mark.parametrize("height, width", [(96, 96), (64, 128), (128, 64), (33, 47), (1, 1)])
def test_any_size_is_drawn(height: int, width: int):
    scene = random_scene(4, None, len(RIG.identity))
    drawing = draw(RIG, some_face(4), scene, height, width)
    assert drawing.image.shape == (height, width, 3) and drawing.image.dtype == np.uint8
    assert drawing.material.shape == (height, width) and drawing.material.dtype == np.uint8
    assert drawing.landmarks.shape == (70, 2) and drawing.landmarks.dtype == np.float32


def test_toon_is_flat():
    toon, natural = (draw(RIG, face(), replace(FRONT, look=look), *SIZE) for look in (TOON, Look()))
    hair = toon.material == MATERIALS.index("hair")
    shades = [len(np.unique(drawing.image[hair], axis=0)) for drawing in (toon, natural)]
    assert np.ptp(toon.image[hair]) > 20 and shades[0] < shades[1] / 2


def test_toon_outlines_go_all_the_way_round():
    """In a scene of one white and no shadows nothing but outlines is dark."""
    white = dict.fromkeys(MATERIALS, (1.0, 1.0, 1.0))
    scene = replace(FRONT, colours=white, paint={}, ambient=1.0, key=0.0, look=TOON)
    drawing = draw(RIG, face(), scene, *SIZE)
    drawn = drawing.material != BACKGROUND
    for row in range(40, 90):
        left, right = np.flatnonzero(drawn[row])[[0, -1]]
        assert drawing.image[row, left - 1 : left + 2].min() < 180
        assert drawing.image[row, right - 1 : right + 2].min() < 180


def test_blur_noise_and_compression_leave_their_marks():
    clean = draw(RIG, face(), FRONT, *SIZE).image.astype(int)

    def change(**effect) -> np.ndarray:
        scene = replace(FRONT, effects=Effects(**effect))
        return draw(RIG, face(), scene, *SIZE).image.astype(int) - clean

    assert np.std(change(noise=0.04)[:10, :10]) > 5
    assert np.abs(change(blur=1.0)).mean() > 0.2 and not change(blur=1.0)[:5, :5].any()
    assert 0.1 < np.abs(change(jpeg=40)).mean() < 10
    assert (
        change(tint=(1.1, 1.0, 0.9))[0, 0].tolist()[0] > 0 > change(tint=(1.1, 1.0, 0.9))[0, 0, 2]
    )


# ---- ICT-FaceKit ------------------------------------------------------------------------------


def test_ict_expressions_all_move_but_the_tongue(ict: Rig):
    moved = np.abs(ict.blendshapes).max(axis=(1, 2))
    still = [NAMES[i] for i in np.flatnonzero(moved < 0.1)]
    assert still == ["TongueOut"]
    for eye in ict.eyes:
        assert not ict.blendshapes[:, eye.vertices].any()


def test_ict_sides_and_parts(ict: Rig):
    assert (ict.neutral[ict.eyes[0].vertices, 0] > 0).all()
    assert (ict.neutral[ict.eyes[1].vertices, 0] < 0).all()
    for name in NAMES[:52]:
        if name.endswith("Left") and name not in ("JawLeft", "MouthLeft"):
            moved = np.abs(ict.blendshapes[INDEX[name]]).max(1)
            assert moved[ict.neutral[:, 0] > 1].max() > 3 * moved[ict.neutral[:, 0] < -3].max()
    drawing = draw(ict, face(JawOpen=0.8), FRONT, 160, 160)
    for name in ("skin", "lips", "sclera", "iris", "pupil", "teeth", "tongue", "hair"):
        assert area(drawing, name) >= 5, name
    x, y = drawing.landmarks[48:60].T.astype(int)  # of the outer lips
    lips = (drawing.material == MATERIALS.index("lips")).astype(np.uint8)
    assert cv2.dilate(lips, np.ones((7, 7)))[y, x].all()
