"""Backgrounds, camera effects and looks: of every kind, within range, the same for a seed."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from sf_jax.face.channels import INDEX
from sf_jax.render.backdrops import KINDS, noise, procedural
from sf_jax.render.draw import BACKGROUND, draw
from sf_jax.render.effects import Effects, develop, random_effects
from sf_jax.render.head import builtin
from sf_jax.render.looks import Look, random_lights, random_look, skin_noise
from sf_jax.render.scene import plain_scene, random_scene

RIG = builtin()
REST = np.zeros(61, np.float32)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("height, width", [(48, 64), (1, 3), (97, 30)])
def test_backgrounds_of_every_kind_and_size(kind: str, height: int, width: int):
    for seed in range(4):
        picture = KINDS[kind](np.random.default_rng(seed), height, width)
        assert picture.shape == (height, width, 3) and np.isfinite(picture).all()


def test_backgrounds_differ_by_seed_alone():
    def pictures() -> list[bytes]:
        made = [procedural(np.random.default_rng(seed), 40, 50) for seed in range(30)]
        assert {(p.shape, p.dtype) for p in made} == {((40, 50, 3), np.dtype(np.uint8))}
        return [p.tobytes() for p in made]

    assert pictures() == pictures() and len(set(pictures())) == 30


def test_natural_noise_has_more_of_low_frequencies():
    power = np.zeros(33)
    for seed in range(20):
        field = noise(np.random.default_rng(seed), 64, 64)
        power += (np.abs(np.fft.rfft(field, axis=1)) ** 2).mean(0)
    assert power[1:4].mean() > 5 * power[16:32].mean() > 0


def test_scene_backgrounds_are_images_colours_or_seeds():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    drawn = draw(RIG, REST, replace(plain_scene(), background=image), 40, 40)
    outside = drawn.material == BACKGROUND
    assert (drawn.image == image).all(-1)[outside].mean() > 0.85
    one, two = (draw(RIG, REST, replace(plain_scene(), background=i), 40, 40) for i in (1, 2))
    assert (one.image != two.image).any(-1)[outside].mean() > 0.5


GREY = np.full((60, 60, 3), 0.5, np.float32)


def test_effects_by_default_change_nothing():
    steps = np.linspace(0, 1, 60, dtype=np.float32)
    picture = np.broadcast_to(steps[None, :, None], (60, 60, 3))
    np.testing.assert_array_equal(develop(picture, Effects())[0, :, 0], np.rint(steps * 255))


def test_each_effect_does_what_it_is_named_for():
    colours = GREY * np.array([1.4, 1.0, 0.6], np.float32)
    edge = np.where(np.arange(60)[None, :, None] < 30, 0.1, 0.9) * np.ones((60, 1, 3))
    edge = edge.astype(np.float32)
    assert np.ptp(develop(colours, Effects(saturation=0.0)), axis=-1).max() == 0
    sepia = develop(GREY, Effects(sepia=1.0))[0, 0]
    assert sepia[0] > sepia[1] > sepia[2]
    colourful = np.random.default_rng(0).random((60, 60, 3)).astype(np.float32)
    assert len(np.unique(develop(colourful, Effects(posterise=4)))) == 4
    corner, middle = develop(GREY, Effects(vignette=0.5))[[0, 30], [0, 30], 0]
    assert corner < 0.7 * middle
    across, along = (develop(edge, Effects(motion=m))[30, 27:33, 0] for m in ((9, 0), (0, 9)))
    assert len(np.unique(across)) >= 4 and len(set(along)) == 2
    assert len(np.unique(develop(edge, Effects(scale=0.2))[30, :, 0])) > 4
    brighter, darker = (develop(GREY, Effects(gamma=g)).mean() for g in (0.7, 1.4))
    assert brighter > 140 and darker < 110
    alike = develop(GREY, Effects(noise=0.1, grain=1.0)).astype(int)
    assert np.ptp(alike, axis=-1).max() <= 1 and alike.std() > 10


@pytest.mark.parametrize("height, width", [(1, 1), (7, 40), (1200, 9)])
def test_random_effects_keep_the_size(height: int, width: int):
    picture = np.full((height, width, 3), 0.4, np.float32)
    for seed in range(12):
        image = develop(picture, random_effects(np.random.default_rng(seed)))
        assert image.shape == (height, width, 3) and image.dtype == np.uint8


def test_looks_are_natural_cel_shaded_clay_and_facets():
    looks = [random_look(np.random.default_rng(seed)) for seed in range(500)]
    assert 0.22 < np.mean([bool(look.tones) for look in looks]) < 0.38
    assert {len(look.tones) for look in looks} == {0, 2, 3}
    assert all(len(look.limits) == max(0, len(look.tones) - 1) for look in looks)
    assert np.mean([look.clay is not None for look in looks]) > 0.03
    assert np.mean([look.flat for look in looks]) > 0.02
    assert 0.2 < np.mean([look.shadow > 0 for look in looks]) < 0.5


def test_lights_come_from_every_side_and_in_colours():
    lights = [random_lights(np.random.default_rng(seed)) for seed in range(400)]
    directions = np.array([light["light"] for light in lights])
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-6)
    assert (directions[:, 0] > 0.7).any() and (directions[:, 0] < -0.7).any()
    assert (directions[:, 1] < -0.4).any() and (directions[:, 2] < -0.4).any()
    assert max(len(light["lights"]) for light in lights) == 4


def test_faces_are_exposed_as_by_a_camera():
    """However bright or dim the lights are, most faces are neither black nor white."""
    means = []
    for seed in range(40):
        scene = replace(random_scene(seed, None, len(RIG.identity)), effects=Effects(), items=())
        drawing = draw(RIG, REST, scene, 48, 48)
        means.append(drawing.image[drawing.material == 0].mean())
    assert np.percentile(means, 10) > 30 and np.percentile(means, 90) < 225


def test_clay_is_of_one_colour_and_still_shows_the_eyes():
    scene = replace(plain_scene(), look=Look(clay=(0.8, 0.6, 0.4), detail=0.4))
    drawing = draw(RIG, REST, scene, 128, 128)
    drawn = drawing.image[drawing.material != BACKGROUND].astype(float) + 1
    assert np.percentile(np.abs(drawn[:, 1] / drawn[:, 0] - 0.75), 90) < 0.06
    pupils = drawing.image[drawing.material == 6].mean()
    assert pupils < 0.8 * drawing.image[drawing.material == 4].mean()


def test_facets_are_flat():
    smooth, flat = (
        draw(RIG, REST, replace(plain_scene(), paint={}, look=Look(flat=f)), 256, 256)
        for f in (False, True)
    )
    skin = (smooth.material == 0)[:, 1:] & (smooth.material == 0)[:, :-1]
    alike = [(np.diff(d.image.astype(int), axis=1) == 0).all(-1)[skin] for d in (smooth, flat)]
    assert alike[1].mean() > 1.5 * alike[0].mean()


def test_shadows_fall_away_from_the_light():
    """From above, the nose's shadow is on the upper lip, and none on the bridge."""

    def picture(shadow: float) -> np.ndarray:
        scene = replace(plain_scene(), light=(0.1, 0.9, 0.4), look=Look(shadow=shadow))
        return draw(RIG, REST, scene, 192, 192).image.mean(-1)

    lost = picture(0.0) - picture(0.9)
    marks = draw(RIG, REST, plain_scene(), 192, 192).landmarks
    (x, lip), bridge = marks[51].astype(int), int(marks[28, 1])
    sides = slice(x - 3, x + 4)
    assert lost[lip - 6 : lip - 1, sides].mean() > 15
    assert lost[bridge - 2 : bridge + 3, sides].mean() < 3


def test_noise_is_on_the_skin_alone():
    noisy = Look(pores=1.0, freckles=1.0, blotches=1.0)
    plain, marked = (
        draw(RIG, REST, replace(plain_scene(), look=k), 96, 96) for k in (Look(), noisy)
    )
    changed = (plain.image != marked.image).any(-1)
    hair = cv2.erode((plain.material == 11).astype(np.uint8), np.ones((5, 5))) == 1
    assert changed[plain.material == 0].mean() > 0.8 and not changed[hair].any()
    assert skin_noise(Look()).shape == (1, 1, 3)


def test_a_broad_smile_shows_in_every_look():
    smile = REST.copy()
    smile[[INDEX["MouthSmileLeft"], INDEX["MouthSmileRight"], INDEX["JawOpen"]]] = 0.9, 0.9, 0.3
    for seed in range(25):
        scene = replace(random_scene(seed, None, len(RIG.identity)), items=(), effects=Effects())
        one, two = (draw(RIG, c, scene, 64, 64).image.astype(int) for c in (REST, smile))
        assert (np.abs(one - two).max(-1) > 12).sum() > 60, seed
