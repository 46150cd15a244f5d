"""Scenes of photo skins: the person's own, moderate more often than not, and of the light asked."""

import numpy as np

from sf_jax.render.head import builtin
from sf_jax.render.scene import random_scene
from sf_jax.render.skin_looks import FOLD_WEIGHTS, Skin
from sf_jax.render.skin_scenes import photographed


def person() -> Skin:
    lines = len(FOLD_WEIGHTS)
    return Skin(
        identity=np.zeros(len(builtin().identity), np.float32),
        colours=np.full((len(builtin().neutral), 3), 0.6, np.float32),
        hair=np.array([0.2, 0.1, 0.05], np.float32),
        people=("a.jpg",),
        folds=np.zeros((lines, 0), np.float32),
        vertices=np.zeros(0, int),
        depth=np.zeros(lines, np.float32),
        range=np.zeros(lines, np.float32),
    )


def test_a_scene_is_of_the_person_and_drawn_from_the_generator():
    skin, scene = person(), random_scene(5)
    one, again = (photographed(np.random.default_rng(1), scene, skin) for _ in range(2))
    other = photographed(np.random.default_rng(2), scene, skin)
    assert one.identity is skin.identity and one.colours["hair"] == tuple(skin.hair.tolist())
    assert (one.light, one.key, one.effects) == (again.light, again.key, again.effects)
    assert one.light != other.light
    assert (one.items, one.background) == (scene.items, scene.background)


def test_most_scenes_are_lit_from_the_front_and_in_natural_colours():
    skin = person()
    scenes = [photographed(np.random.default_rng(i), random_scene(i), skin) for i in range(120)]
    full = np.array([scene.ambient + scene.key for scene in scenes])
    assert 0.85 < np.median(full) < 1.5
    assert np.mean([scene.light[2] > 0 for scene in scenes]) > 0.85
    assert np.mean([0.85 < scene.effects.saturation < 1.35 for scene in scenes]) > 0.6
    assert np.mean([bool(scene.lights) for scene in scenes]) < 0.15
    assert not any(scene.look.tones for scene in scenes)
    assert 0 < np.mean([scene.effects.saturation == 0 for scene in scenes]) < 0.2
