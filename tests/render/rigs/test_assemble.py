"""Rigs out of bare meshes: what the file does not say is found from geometry and motion."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from sf_jax.face import landmarks
from sf_jax.face.channels import INDEX, MIRROR, NAMES
from sf_jax.render.draw import draw
from sf_jax.render.head import builtin
from sf_jax.render.rig import MATERIALS, Rig, pose
from sf_jax.render.rigs import RigError
from sf_jax.render.rigs.assemble import HEIGHT, Mesh, assemble, subdivided
from sf_jax.render.scene import plain_scene
from tests.render.shared_rigs import shared

HEAD = builtin()
Z_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32)  # facing -y
COUNT = len(HEAD.neutral)


def bare_mesh(kind: str | None = None, seed: int = 0) -> Mesh:
    """The built-in head, or another one made of it, without any names of its parts."""
    neutral, shapes = HEAD.neutral, HEAD.blendshapes
    if kind:
        warp = HEAD.vary(np.random.default_rng(seed), kind).warp
        assert warp is not None
        neutral = warp(HEAD.neutral)
        shapes = np.stack([warp(HEAD.neutral + shape) - neutral for shape in shapes])
    return Mesh(
        name="bare",
        path="bare.glb",
        vertices=neutral,
        triangles=HEAD.triangles,
        shapes=shapes,
        material=np.zeros(COUNT, np.uint8),
        eyes=np.zeros((2, COUNT), bool),
        covering=np.zeros(len(HEAD.triangles), bool),
    )


def off(rig: Rig, mesh: Mesh) -> np.ndarray:
    """How far each landmark seen from the front is off the built-in one, in heights of the face."""
    true = mesh.vertices[HEAD.landmarks]
    middle = 0.5 * (true + true[landmarks.MIRROR])[:68].mean(0)
    found = rig.neutral[rig.landmarks] * np.ptp(true[:68, 1]) / HEIGHT
    distances = np.linalg.norm((found - true + middle)[:, :2], axis=1)
    return distances / np.ptp(true[:68, 1])


@cache
def turned() -> Rig:
    """The bare head in metres, z up, its names of left and right exchanged."""
    mesh = bare_mesh()
    shapes = mesh.shapes[MIRROR[:52]]
    return assemble(
        replace(mesh, vertices=0.01 * mesh.vertices @ Z_UP.T, shapes=0.01 * shapes @ Z_UP.T)
    )


def test_a_head_is_turned_scaled_and_its_sides_are_corrected() -> None:
    rig = turned()
    assert np.ptp(rig.neutral[rig.landmarks[:68], 1]) == pytest.approx(HEIGHT)
    assert rig.neutral[rig.landmarks[landmarks.NOSE_TIP], 2] > 2
    for name in ("EyeBlinkLeft", "MouthSmileLeft", "BrowOuterUpLeft"):
        size = np.linalg.norm(rig.blendshapes[INDEX[name]], axis=1)
        assert rig.neutral[size.argmax(), 0] > 1
    assert rig.blendshapes[INDEX["JawLeft"], :, 0].sum() > 0
    assert any("left and right are exchanged" in note for note in rig.notes)
    assert assemble(bare_mesh()).notes == ()


def test_eyeballs_are_found_and_turn() -> None:
    rig = turned()
    true = HEAD.eyes[0].vertices
    assert isinstance(true, slice)
    assert len(rig.eyes[0].vertices) == true.stop - true.start  # type: ignore[arg-type]
    assert rig.eyes[0].centre[0] > 2 > -2 > rig.eyes[1].centre[0]
    look = np.zeros(61, np.float32)
    look[[INDEX["EyeLookOutLeft"], INDEX["EyeLookInRight"]]] = 1
    moved = (pose(rig, look) - rig.neutral)[rig.landmarks[landmarks.PUPILS]]
    assert (moved[:, 0] > 0.2).all()
    assert rig.known.all()
    iris = rig.material[rig.eyes[0].vertices] == MATERIALS.index("iris")
    assert 10 < iris.sum() < 200


def test_landmarks_are_found() -> None:
    mean = off(turned(), bare_mesh())
    assert mean.mean() < 0.03 and mean.max() < 0.15


SLOW_KINDS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("child", "elderly", "anime")]


@pytest.mark.parametrize("kind", ["cartoon", *SLOW_KINDS])
def test_landmarks_are_found_on_other_heads(kind: str) -> None:
    mesh = bare_mesh(kind)
    distances = off(assemble(mesh), mesh)
    assert distances[17:68].mean() < 0.04 and np.quantile(distances, 0.9) < 0.1


def test_what_is_in_the_mouth_is_painted() -> None:
    rig = turned()

    def share(name: str, *painted: str) -> float:
        """Of the head's own vertices of a material, as many as there are in the rig."""
        used = np.zeros(COUNT, bool)
        used[HEAD.triangles] = True
        own = (HEAD.material == MATERIALS.index(name)) & used
        found = np.isin(rig.material, [MATERIALS.index(each) for each in painted])
        return float(found.sum() / own.sum())

    assert 0.8 < share("tongue", "tongue") < 1.2 and 0.8 < share("teeth", "teeth") < 1.8
    assert share("mouth", "mouth") > 0.4
    face = np.zeros(61, np.float32)
    face[INDEX["JawOpen"]] = 1
    drawing = draw(rig, face, replace(plain_scene(), face_share=0.6), 128, 128)
    inside = np.isin(drawing.material, [MATERIALS.index(n) for n in ("teeth", "tongue", "mouth")])
    assert inside.sum() > 150


def test_channels_without_motion_are_not_known() -> None:
    mesh = bare_mesh()
    shapes = mesh.shapes.copy()
    still = ["TongueOut", "CheekPuff", "NoseSneerLeft"]
    shapes[[INDEX[name] for name in still]] = 0
    shapes[INDEX["CheekPuff"]] = 1e-4
    shapes[:, HEAD.eyes[0].vertices] = 0
    rig = assemble(replace(mesh, shapes=shapes))
    assert {NAMES[i] for i in np.flatnonzero(~rig.known)} == set(still)
    eyes = np.zeros(COUNT, bool)
    for eye in HEAD.eyes:
        eyes[eye.vertices] = True
    eyeless = ~eyes[HEAD.triangles].any(1)
    rig = assemble(
        replace(mesh, triangles=HEAD.triangles[eyeless], covering=np.zeros(eyeless.sum(), bool))
    )
    unknown = {NAMES[i] for i in np.flatnonzero(~rig.known)}
    assert "EyeLookUpLeft" in unknown and "RightEyeYaw" in unknown and "EyeBlinkLeft" not in unknown


def test_a_head_without_a_jaw_and_with_whites_of_its_own() -> None:
    """As anime avatars are: irises turn, whites do not, and the mouth opens in other ways."""
    mesh = bare_mesh()
    shapes = mesh.shapes.copy()
    jaw = [INDEX[f"Jaw{part}"] for part in ("Open", "Left", "Right", "Forward")]
    shapes[jaw] = 0
    white = HEAD.material == MATERIALS.index("sclera")
    iris = np.isin(HEAD.material, [MATERIALS.index(name) for name in ("iris", "pupil")])
    brow = HEAD.material == MATERIALS.index("brow")
    material = np.select([white, brow], [HEAD.material, HEAD.material], 0).astype(np.uint8)
    rig = assemble(
        replace(mesh, shapes=shapes, material=material, eyes=np.stack([iris, np.zeros_like(iris)]))
    )
    assert len(rig.eyes[0].vertices) == iris.sum() // 2  # type: ignore[arg-type]
    assert {NAMES[i] for i in np.flatnonzero(~rig.known)} == {NAMES[i] for i in jaw}
    distances = off(rig, mesh)
    assert distances[landmarks.EYELIDS].max() < 0.05 and distances[landmarks.BROWS].max() < 0.05
    assert distances[landmarks.LIPS].mean() < 0.05


@pytest.mark.parametrize("moving", [0, 4])
def test_too_few_shapes(moving: int) -> None:
    mesh = bare_mesh()
    shapes = np.zeros_like(mesh.shapes)
    shapes[:moving] = mesh.shapes[:moving]
    with pytest.raises(RigError, match=f"bare.glb: {moving} ARKit shapes move something"):
        assemble(replace(mesh, shapes=shapes))


def test_a_divided_mesh_has_the_same_shape() -> None:
    mesh = bare_mesh()
    chosen = HEAD.material[HEAD.triangles].max(1) == 0
    fine = subdivided(mesh, chosen)
    assert len(fine.triangles) == len(mesh.triangles) + 3 * chosen.sum()

    def area(vertices: np.ndarray, triangles: np.ndarray) -> float:
        a, b, c = (vertices[triangles[:, i]] for i in range(3))
        return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())

    shape = mesh.shapes[INDEX["JawOpen"]], fine.shapes[INDEX["JawOpen"]]
    areas = [area(m.vertices + s, m.triangles) for m, s in zip((mesh, fine), shape, strict=True)]
    assert areas[0] == pytest.approx(areas[1], rel=1e-5)


@pytest.mark.parametrize("name", ["Female_Adult_01", "Male_Adult_08"])
def test_rocketbox_heads(name: str) -> None:
    rig = shared(f"rocketbox/{name}.npz")
    assert rig.known.all() and (rig.landmarks >= 0).all() and rig.notes == ()
    marks = rig.marks(rig.neutral)
    assert np.linalg.norm(marks - marks[landmarks.MIRROR] * [-1, 1, 1], axis=1).max() < 1.5
    assert (marks[landmarks.LEFT_EYE, 0] > 0).all()

    def areas(*names: str, **values: float) -> int:
        face = np.zeros(61, np.float32)
        for channel, value in values.items():
            face[INDEX[channel]] = value
        drawing = draw(rig, face, replace(plain_scene(), face_share=0.6), 128, 128)
        return int(np.isin(drawing.material, [MATERIALS.index(n) for n in names]).sum())

    eye, mouth = ("iris", "pupil", "sclera"), ("teeth", "tongue", "mouth")
    assert areas(*eye, EyeBlinkLeft=1, EyeBlinkRight=1) < 0.2 * areas(*eye)
    assert areas(*mouth) < 15 < 150 < areas(*mouth, JawOpen=1)
    assert areas("tongue", JawOpen=1, TongueOut=1) > 20 and areas("lips") > 80
    cut = areas("skin")
    assert cut > 1500 and areas("hair") > 100
