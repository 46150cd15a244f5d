"""Skins from portraits: what is known of a rendered one comes back; others are refused."""

from dataclasses import replace

import numpy as np
import pytest

from sf_jax.face import landmarks as table
from sf_jax.face.channels import INDEX
from sf_jax.render import skin_colours, skin_fit
from sf_jax.render.draw import Drawing, draw
from sf_jax.render.head import builtin
from sf_jax.render.rig import Surface
from sf_jax.render.scene import Scene, plain_scene
from sf_jax.render.skin_colours import encoded, linear
from sf_jax.render.skin_fit import fit
from sf_jax.render.skin_maker import PortraitRefused, SkinMaker, check_fit, check_landmarks

SIDE = 256
EVEN = replace(plain_scene(), ambient=0.95, key=0.0, fill=0.0, shine=0.0)


@pytest.fixture(scope="module")
def maker() -> SkinMaker:
    return SkinMaker(builtin())


def face(**values: float) -> np.ndarray:
    coefficients = np.zeros(61, np.float32)
    for name, value in values.items():
        coefficients[INDEX[name]] = value
    return coefficients


def portrait(maker: SkinMaker, scene: Scene = EVEN, **values: float) -> tuple[Drawing, np.ndarray]:
    """A picture of a person with a mottled skin, and the colours that it was drawn with."""
    mottled = 1 + 0.05 * maker.regions.noise[0, 0][:, None]
    colours = np.float32([0.66, 0.50, 0.42]) * mottled
    colours = colours * np.float32([1, 0.98, 0.96]) ** maker.regions.noise[1, 1][:, None]
    colours += maker.regions.mask["lips"][:, None] * np.float32([0, -0.2, -0.15])
    colours += maker.regions.mask["brow"][:, None] * np.float32([-0.4, -0.3, -0.25])
    colours = np.clip(colours, 0.02, 1).astype(np.float32)
    rig = replace(maker.rig, surface=Surface(colours))
    person = np.random.default_rng(4).normal(0, 0.6, len(rig.identity)).astype(np.float32)
    scene = replace(scene, identity=person)
    return draw(rig, face(**values), scene, SIDE, SIDE), colours


# ---- the fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("yaw, pitch", [(0.0, 0.0), (0.25, 0.0), (-0.2, 0.15)])
def test_a_fit_finds_the_head(maker: SkinMaker, yaw: float, pitch: float):
    drawing, _ = portrait(maker, HeadYaw=yaw, HeadPitch=pitch)
    found = fit(maker.rig, drawing.landmarks[:68])
    assert found.error_cm < 0.15
    assert found.yaw == pytest.approx(yaw, abs=0.06)
    assert found.pitch == pytest.approx(pitch, abs=0.12)
    own = maker.rig.neutral[maker.rig.landmarks[:68]] + np.tensordot(
        found.identity, maker.rig.identity[:, maker.rig.landmarks[:68]], 1
    )
    away = found.project(own)[:, :2] - drawing.landmarks[:68]
    assert np.abs(away).max() < 0.06 * SIDE


def test_a_smile_is_no_wide_mouth(maker: SkinMaker, monkeypatch: pytest.MonkeyPatch):
    drawing, _ = portrait(maker, MouthSmileLeft=0.8, MouthSmileRight=0.8)
    rest, _ = portrait(maker)
    smiling, neutral = (fit(maker.rig, one.landmarks[:68]) for one in (drawing, rest))
    for side in ("Left", "Right"):
        name = INDEX[f"MouthSmile{side}"]
        assert smiling.expression[name] > neutral.expression[name] + 0.3
    monkeypatch.setattr(skin_fit, "EXPRESSIONS", skin_fit.EXPRESSIONS[:1])
    without = fit(maker.rig, drawing.landmarks[:68])
    change = [np.linalg.norm(one.identity - neutral.identity) for one in (smiling, without)]
    assert change[0] < change[1]


def test_unknown_landmarks_are_refused(maker: SkinMaker):
    drawing, _ = portrait(maker)
    landmarks = drawing.landmarks.copy()
    landmarks[30] = np.nan
    with pytest.raises(ValueError, match="68 known landmarks"):
        fit(maker.rig, landmarks[:68])
    with pytest.raises(PortraitRefused, match="not all known"):
        maker.make(drawing.image, landmarks)


# ---- colours ----------------------------------------------------------------------------------


def difference(maker: SkinMaker, colours: np.ndarray, wanted: np.ndarray) -> float:
    """Mean difference of the logarithms, less that of all: how bright a skin is nobody knows."""
    plain = skin_colours.plain_skin(maker.regions) > 0.8
    log = np.log(linear(colours[plain] / 255) + 1e-3) - np.log(linear(wanted[plain]) + 1e-3)
    return float(np.abs(log - np.median(log, axis=0)).mean())


def test_a_skin_has_the_colours_of_the_portrait(maker: SkinMaker):
    drawing, wanted = portrait(maker, HeadYaw=0.15)
    made = maker.make(drawing.image, drawing.landmarks)
    assert made.occluded < 0.1 and made.colours.dtype == np.uint8
    assert difference(maker, made.colours, wanted) < 0.1
    masks = maker.regions.mask
    skin = np.median(made.colours[masks["blush"] > 0.5], axis=0)
    brow = made.colours[masks["brow"] > 0.8].mean(0)
    lips = made.colours[masks["lips"] > 0.9].mean(0)
    assert brow.mean() < 0.75 * skin.mean()
    assert lips[0] - lips[1] > skin[0] - skin[1] + 10
    ear = made.colours[masks["ear"] > 0.9].mean(0)
    np.testing.assert_allclose(ear, skin, atol=45)  # the turned head hides one of them
    lid = made.colours[(masks["lid"] > 0.9) & (masks["liner"] < 0.1)].mean()
    assert lid > 0.7 * skin.mean()


def test_light_from_a_side_is_reduced(maker: SkinMaker, monkeypatch: pytest.MonkeyPatch):
    side = replace(EVEN, ambient=0.5, key=0.5, light=(0.9, 0.3, 0.5))
    drawing, wanted = portrait(maker, side)
    reduced = difference(maker, maker.make(drawing.image, drawing.landmarks).colours, wanted)
    monkeypatch.setattr(skin_colours, "EVEN_LIGHT", 0.0)
    monkeypatch.setattr(skin_colours, "EVEN_SIDES", 0.0)
    baked = difference(maker, maker.make(drawing.image, drawing.landmarks).colours, wanted)
    assert reduced < 0.6 * baked


def test_hair_over_the_forehead_is_no_skin(maker: SkinMaker):
    drawing, _ = portrait(maker)
    brows = drawing.landmarks[table.BROWS]
    fringe = drawing.image.copy()
    fringe[: int(brows[:, 1].min()) - 8] = [60, 20, 90]
    made = maker.make(fringe, drawing.landmarks)
    top = maker.regions.core[0] + 1.5
    forehead = (maker.regions.mask["face"] > 0.8) & (maker.regions.points[:, 1] > top)
    assert forehead.sum() > 20
    skin = np.median(made.colours[maker.regions.mask["blush"] > 0.5], axis=0)
    assert np.abs(made.colours[forehead] - skin).mean() < 25


def test_sRGB_there_and_back():
    values = np.linspace(0, 1, 50)
    np.testing.assert_allclose(encoded(linear(values)), values, atol=1e-9)
    assert linear(np.array(0.5)) == pytest.approx(0.2140, abs=1e-4)


# ---- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, reason",
    [
        ({"JawOpen": 0.7}, "the mouth is open"),
        ({"EyeBlinkLeft": 1.0}, "the left eye is shut"),
        ({"EyeBlinkRight": 1.0}, "the right eye is shut"),
        ({"HeadYaw": 0.5}, "yaw 2"),
        ({"HeadPitch": -0.55}, "pitch -"),
    ],
)
def test_expressions_and_turned_heads_are_refused(maker: SkinMaker, values: dict, reason: str):
    drawing, _ = portrait(maker, **values)
    with pytest.raises(PortraitRefused, match=reason):
        maker.make(drawing.image, drawing.landmarks)


def test_small_covered_and_unlike_faces_are_refused(maker: SkinMaker):
    drawing, _ = portrait(maker)
    with pytest.raises(PortraitRefused, match="pixels high"):
        check_landmarks(drawing.landmarks[:68] * 0.2)
    with pytest.raises(PortraitRefused, match="68 of its 68 landmarks are outside"):
        maker.make(drawing.image, drawing.landmarks * SIDE)  # pixels for shares
    with pytest.raises(PortraitRefused, match="mouth is open: nan"):
        check_landmarks(np.tile([[0.0, 0.0], [0.0, 99.0]], (34, 1)))
    cover = drawing.image.copy()
    x, y = drawing.landmarks[table.NOSE_TIP].astype(int)
    cover[y - 30 : y + 60, x - 70 : x + 20] = [30, 90, 200]
    with pytest.raises(PortraitRefused, match="the face is covered"):
        maker.make(cover, drawing.landmarks)
    dark = (drawing.image * 0.05).astype(np.uint8)
    with pytest.raises(PortraitRefused, match="too dark"):
        maker.make(dark, drawing.landmarks)
    found = fit(maker.rig, drawing.landmarks[:68])
    for changed, reason in (
        (replace(found, error_cm=0.4), "fits badly"),
        (replace(found, expression=face(MouthSmileLeft=0.9, MouthSmileRight=0.8)), "smiles"),
    ):
        with pytest.raises(PortraitRefused, match=reason):
            check_fit(changed)
