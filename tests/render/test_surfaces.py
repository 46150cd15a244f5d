"""Colours and textures of surfaces, layers and their composition, ambient occlusion."""

from dataclasses import replace

import numpy as np
import pytest

from sf_jax.face.channels import INDEX
from sf_jax.face.landmarks import framing_square
from sf_jax.render import occlusion
from sf_jax.render.draw import BACKGROUND, draw, render
from sf_jax.render.head import builtin
from sf_jax.render.layers import flatten
from sf_jax.render.rig import MATERIALS, Rig, Surface
from sf_jax.render.scene import plain_scene

RIG = builtin()
FRONT = replace(plain_scene(), light=(0.0, 0.5, 0.8), fill=0.0)


def face(**values: float) -> np.ndarray:
    coefficients = np.zeros(61, np.float32)
    for name, value in values.items():
        coefficients[INDEX[name]] = value
    return coefficients


def textured(image: np.ndarray) -> Rig:
    """The built-in head with a texture over its height, repeated every 4 cm."""
    uv = (RIG.neutral[:, :2] / [4, -4]).astype(np.float32)
    images = np.zeros(len(RIG.triangles), np.int16)
    colours = np.ones((len(RIG.neutral), 3), np.float32)
    return replace(RIG, surface=Surface(colours, uv, (image,), images))


def test_colours_of_a_surface_replace_those_of_materials():
    colours = np.zeros((len(RIG.neutral), 3), np.float32)
    colours[:, 0] = np.where(RIG.neutral[:, 0] > 0, 0.8, 0.2)
    scene = replace(FRONT, ambient=1.0, key=0.0, shine=0.0)
    rig = replace(RIG, surface=Surface(colours), occlusion=None)
    image = draw(rig, face(), scene, 64, 64).image
    assert image[40, 25].tolist() == [51, 0, 0] and image[40, 38].tolist() == [204, 0, 0]


def test_textures_are_sampled_per_pixel_with_v_downward():
    stripes = np.zeros((8, 8, 4), np.uint8)
    stripes[:2] = [255, 0, 0, 255]  # 1 cm of every 4 below a height of 4 n
    stripes[2:, :, 2:] = 255
    drawing = draw(textured(stripes), face(), replace(FRONT, ambient=1.0, key=0.0), 192, 192)
    chin, nose = drawing.landmarks[:, 1].max(), 96
    column = drawing.image[int(nose) - 60 : int(chin), 70].astype(int)
    red = column[:, 0] > column[:, 2]
    assert 0.15 < red.mean() < 0.35 and np.abs(np.diff(red.astype(int))).sum() >= 5


def test_transparent_texels_are_holes():
    image = np.full((8, 8, 4), 255, np.uint8)
    whole, holes = (draw(textured(image), face(), FRONT, 64, 64).material for _ in range(2))
    np.testing.assert_array_equal(whole, holes)
    image[..., 3] = 0
    assert (draw(textured(image.copy()), face(), FRONT, 64, 64).material == BACKGROUND).all()


def test_roll_of_the_camera_is_that_of_the_head():
    camera = draw(RIG, face(), replace(FRONT, roll=0.3), 160, 160).landmarks
    rolled = draw(RIG, face(HeadRoll=0.3), FRONT, 160, 160).landmarks
    rolls = [framing_square(landmarks).roll for landmarks in (camera, rolled)]
    assert rolls == pytest.approx([0.3, 0.3], abs=0.02)


def test_layers_are_composed_by_distance():
    near = replace(FRONT, face_share=0.5, centre=(-0.2, 0.0))
    far = replace(FRONT, face_share=0.3, centre=(0.0, 0.0))
    layers = [render(RIG, face(), scene, 120, 160) for scene in (near, far)]
    white = np.ones((120, 160, 3), np.float32)
    picture, material = flatten(white, layers)
    np.testing.assert_array_equal(picture, flatten(white, layers[::-1])[0])
    alone, _ = flatten(white, layers[:1])
    window = layers[0]
    rows, columns = np.nonzero(window.cover == 1)
    at = rows + window.top, columns + window.left
    np.testing.assert_allclose(picture[at], alone[at], atol=1e-6)
    assert np.ptp(layers[1].landmarks[:, 1]) == pytest.approx(
        0.6 * np.ptp(window.landmarks[:, 1]), rel=0.1
    )
    assert (material != BACKGROUND).sum() > (flatten(white, layers[:1])[1] != BACKGROUND).sum()


def test_small_heads_have_small_windows():
    layer = render(RIG, face(), replace(FRONT, face_share=0.08, centre=(0.3, 0.1)), 480, 640)
    assert layer.cover.size < 0.2 * 480 * 640
    assert layer.top + layer.cover.shape[0] <= 480 and layer.left + layer.cover.shape[1] <= 640


def test_heads_out_of_the_image_leave_it_as_it_was():
    layer = render(RIG, face(), replace(FRONT, centre=(9.0, 0.0)), 64, 64)
    assert not layer.cover.any()


def test_occlusion_is_darkest_where_little_light_reaches():
    open_ = occlusion.baked(RIG)
    nose, mouth = RIG.neutral[:, 2].argmax(), RIG.material == MATERIALS.index("mouth")
    assert open_[nose] > 0.85 > 0.6 > open_[mouth].mean()
    assert open_.min() >= 0 and open_.max() <= 1
    assert np.abs(open_[RIG.mirror] - open_).mean() < 0.02
    assert RIG.occlusion is not None and np.array_equal(open_, RIG.occlusion)
