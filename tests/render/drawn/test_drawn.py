"""Drawn faces: orientation, landmarks, framing, what each style shows."""

from dataclasses import replace

import numpy as np
import pytest

from sf_jax.face import landmarks as table
from sf_jax.face.channels import INDEX, NAMES, mirror
from sf_jax.render.draw import BACKGROUND
from sf_jax.render.drawn import FAMILIES, Framing, draw_drawn, draw_layer, random_style
from sf_jax.render.drawn.cartoonist import CoefficientsError
from sf_jax.render.drawn.families import FamilyError
from sf_jax.render.drawn.style import Style
from sf_jax.render.layers import flatten
from sf_jax.render.rig import MATERIALS
from tests.render.drawn.measure import face, moved

SIZE = 128
MOVED = 0.02  # of the face's pixels, by a channel that a style shows
PLAIN = Style()
ANGLES = ("HeadYaw", "HeadPitch", "HeadRoll")


def some_face(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    coefficients = random.random(61) * (random.random(61) < 0.3)
    coefficients[52:] = random.uniform(-0.4, 0.4, 9)
    return coefficients.astype(np.float32)


def points(style: Style, **values: float) -> np.ndarray:
    return draw_drawn(face(**values), style, SIZE, SIZE).landmarks


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_draws_the_same_picture(family: str) -> None:
    first, again, other = (
        draw_drawn(some_face(1), random_style(seed, family), SIZE, 96) for seed in (4, 4, 5)
    )
    assert first.image.shape == (SIZE, 96, 3) and first.image.dtype == np.uint8
    assert first.material.shape == (SIZE, 96) and first.landmarks.shape == (70, 2)
    assert np.array_equal(first.image, again.image)
    assert np.abs(first.image.astype(int) - other.image).mean() > 5


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_shows_thirty_channels(family: str) -> None:
    """Every fourth channel of a style; the slow test measures all of many styles."""
    style = random_style(1, family)
    assert style.known.sum() >= 30
    names = [name for name, known in zip(NAMES, style.known, strict=True) if known]
    shares = {name: moved(style, name) for name in names[::4]}
    assert np.mean([share >= MOVED for share in shares.values()]) > 0.9, shares
    assert min(shares.values()) > 0.6 * MOVED, shares


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_styles_show_thirty_channels(family: str) -> None:
    """Each style moves 2 % of the face by at least 30 channels, and nearly so by all it knows."""
    weak, count = [], 0
    for seed in range(1000, 1010):
        style = random_style(seed, family)
        shares = {n: moved(style, n) for n, k in zip(NAMES, style.known, strict=True) if k}
        assert sum(share >= MOVED for share in shares.values()) >= 30, shares
        weak += [(seed, name, share) for name, share in shares.items() if share < MOVED]
        count += len(shares)
        assert min(shares.values()) > 0.5 * MOVED, shares
    assert len(weak) < 0.04 * count, weak


def test_channels_that_are_not_known_do_not_move_the_drawing() -> None:
    style = replace(random_style(2, "flat"), known=np.zeros(61, bool))
    still, moving = (draw_drawn(c, style, SIZE, SIZE) for c in (face(), some_face(3)))
    assert np.array_equal(still.image, moving.image)


@pytest.mark.parametrize("family", FAMILIES)
def test_landmarks_of_a_mirrored_face_are_mirrored(family: str) -> None:
    style = random_style(3, family)
    style = replace(style, ink=replace(style.ink, wobble=0.0))
    coefficients = some_face(5)
    here = draw_drawn(coefficients, style, SIZE, SIZE).landmarks
    there = draw_drawn(mirror(coefficients), style, SIZE, SIZE).landmarks
    mirrored = there[table.MIRROR] * (-1, 1) + (SIZE, 0)
    assert np.nanmax(np.abs(here - mirrored)) < 0.01


def test_left_is_the_subjects() -> None:
    """The subject's left is to the right in the image."""
    rest = points(PLAIN)
    assert (rest[table.LEFT_EYE, 0] > SIZE / 2).all() and (
        rest[table.RIGHT_EYE, 0] < SIZE / 2
    ).all()
    blink = points(PLAIN, EyeBlinkLeft=1)
    assert np.ptp(blink[table.LEFT_EYE, 1]) < 0.7 * np.ptp(rest[table.LEFT_EYE, 1])
    assert np.allclose(blink[table.RIGHT_EYE], rest[table.RIGHT_EYE])
    smile = points(PLAIN, MouthSmileLeft=1)
    assert smile[table.MOUTH_LEFT, 1] < rest[table.MOUTH_LEFT, 1] - 3
    assert smile[table.MOUTH_LEFT, 0] > rest[table.MOUTH_LEFT, 0] + 1
    jaw = points(PLAIN, JawLeft=1)
    assert jaw[table.CHIN, 0] > rest[table.CHIN, 0] + 3


def test_the_head_turns_as_the_table_says() -> None:
    rest = points(PLAIN)
    eyes = rest[table.PUPILS].mean(0)
    yaw, pitch, roll = (points(PLAIN, **{name: 0.4}) for name in ANGLES)
    nose = table.NOSE_TIP
    assert (yaw[nose] - yaw[table.PUPILS].mean(0))[0] > (rest[nose] - eyes)[0] + 1
    right, left = (np.ptp(yaw[eye, 0]) for eye in (table.RIGHT_EYE, table.LEFT_EYE))
    assert left < right  # the side that turns away narrows
    chin = rest[table.CHIN, 1]
    assert (pitch[nose, 1] - pitch[table.CHIN, 1]) > (rest[nose, 1] - chin) + 1  # nearer the chin
    across = roll[table.PUPILS][1] - roll[table.PUPILS][0]
    assert np.arctan2(-across[1], across[0]) == pytest.approx(0.4, abs=0.05)
    assert roll[table.PUPILS][1][1] < roll[table.PUPILS][0][1]  # counter-clockwise


def test_landmarks_follow_an_unsteady_hand() -> None:
    """The pupil's mark is on the pupil, where a drawing has one dark spot in an eye."""
    eyes = replace(PLAIN.eyes, kind="dot", highlights=0, width=0.06, up=0.06, down=0.06)
    style = replace(PLAIN, eyes=eyes, ink=replace(PLAIN.ink, wobble=0.05))
    drawing = draw_drawn(face(), style, 256, 256)
    steady = draw_drawn(face(), replace(style, ink=PLAIN.ink), 256, 256)
    for pupil in drawing.landmarks[table.PUPILS]:
        spot = np.argwhere(drawing.material == MATERIALS.index("pupil"))[:, ::-1]
        near = spot[np.abs(spot - pupil).max(1) < 20]
        assert np.abs(near.mean(0) + 0.5 - pupil).max() < 3.5  # undisplaced: 6.7
    assert np.nanmax(np.abs(drawing.landmarks - steady.landmarks)) > 2


def test_a_gaze_moves_the_pupils() -> None:
    rest, yaw, pitch = (
        points(PLAIN, **values) for values in ({}, {"LeftEyeYaw": 0.5}, {"LeftEyePitch": 0.5})
    )
    right, left = 68, 69
    assert yaw[left, 0] > rest[left, 0] + 1 and np.allclose(yaw[right], rest[right])
    assert pitch[left, 1] > rest[left, 1] + 1


@pytest.mark.parametrize(
    "name, point, axis, sign",
    [
        ("JawOpen", table.CHIN, 1, 1),
        ("MouthSmileLeft", table.MOUTH_LEFT, 1, -1),
        ("BrowInnerUp", 22, 1, -1),
        ("BrowOuterUpRight", 18, 1, -1),
        ("BrowDownLeft", 22, 1, 1),
        ("EyeBlinkRight", 37, 1, 1),
        ("EyeWideRight", 37, 1, -1),
        ("MouthStretchLeft", 54, 0, 1),
        ("MouthLowerDownLeft", 64 + 1, 1, 1),
        ("MouthUpperUpLeft", 63, 1, -1),
        ("CheekPuff", 12, 0, 1),
    ],
)
def test_motion_grows_with_the_coefficient(name: str, point: int, axis: int, sign: int) -> None:
    positions = [points(PLAIN, **{name: x})[point, axis] for x in (0, 0.25, 0.5, 0.75, 1)]
    assert (np.diff(positions) * sign > 0.1).all(), positions


@pytest.mark.parametrize("family", FAMILIES)
def test_framing(family: str) -> None:
    """Brows to chin are the given share; the face follows centre and roll."""
    style = random_style(6, family)
    style = replace(style, ink=replace(style.ink, wobble=0.0))
    plain = draw_drawn(face(), style, SIZE, 160).landmarks
    moved_face = Framing(centre=(0.1, -0.05), face_share=0.4, roll=0.3)
    other = draw_drawn(face(), style, SIZE, 160, moved_face).landmarks
    brows, chin = np.nanmean(plain[table.BROWS, 1]), plain[table.CHIN, 1]
    assert chin - brows == pytest.approx(0.55 * SIZE, rel=0.2)
    across = other[69] - other[68]
    assert np.arctan2(-across[1], across[0]) == pytest.approx(0.3, abs=1e-3)
    assert np.hypot(*across) / (plain[69] - plain[68])[0] == pytest.approx(0.4 / 0.55, rel=1e-3)
    middle = (other[27] + other[table.CHIN]) / 2 if np.isfinite(other[27, 0]) else other[62]
    assert np.abs(middle - (80 + 0.1 * SIZE, 64 - 0.05 * SIZE)).max() < 0.17 * SIZE


def test_a_background_stays_where_there_is_no_figure() -> None:
    background = np.zeros((32, 40, 3), np.uint8)
    background[:] = (1, 200, 3)
    drawing = draw_drawn(face(), PLAIN, SIZE, 160, Framing(face_share=0.3, background=background))
    empty = drawing.material == BACKGROUND
    assert 0.3 < empty.mean() < 0.95
    inner = empty & np.roll(empty, 2, 1) & np.roll(empty, -2, 1) & np.roll(empty, 2, 0)
    assert (drawing.image[inner & np.roll(empty, -2, 0)] == (1, 200, 3)).all(1).mean() > 0.99
    assert (drawing.material[~empty] < len(MATERIALS)).all()


def test_a_layer_composes_to_the_same_picture() -> None:
    style = replace(random_style(8, "western"), backdrop="flat")
    layer = draw_layer(some_face(2), style, SIZE, SIZE)
    ground = np.full((SIZE, SIZE, 3), np.float32(style.palette.ground) / 255, np.float32)
    composed, material = flatten(ground, [layer])
    whole = draw_drawn(some_face(2), style, SIZE, SIZE)
    assert np.array_equal(material, whole.material)
    assert np.array_equal(layer.landmarks, whole.landmarks)
    assert np.abs(composed * 255 - whole.image)[layer.cover == 1].max() <= 1
    assert np.abs(composed * 255 - whole.image).mean() < 1


def test_bad_input() -> None:
    with pytest.raises(CoefficientsError, match="61 finite"):
        draw_drawn(np.zeros(52), PLAIN, 32, 32)
    with pytest.raises(CoefficientsError, match="61 finite"):
        draw_drawn(np.full(61, np.nan), PLAIN, 32, 32)
    with pytest.raises(FamilyError, match=r"no family of drawings is called 'cubism'.*manga"):
        random_style(0, "cubism")


def test_known_channels_are_never_those_without_a_drawing() -> None:
    for family in FAMILIES:
        known = random_style(0, family).known
        assert known.dtype == bool and known.shape == (61,)
        assert not known[[INDEX[name] for name in ("JawForward", "LeftEyeRoll")]].any()
