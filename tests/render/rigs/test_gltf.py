"""glTF and VRM files as rigs: names, transforms, several meshes, skins, textures, and bad files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sf_jax.face.channels import INDEX, NAMES
from sf_jax.render import rigs
from sf_jax.render.draw import draw
from sf_jax.render.rig import MATERIALS, Rig, pose
from sf_jax.render.rigs import RigError, gltf_file, naming
from sf_jax.render.scene import plain_scene
from tests.render.rigs.glb_files import HEAD, Writer, eyes_of, face_triangles, simple


def camel(name: str) -> str:
    return name[0].lower() + name[1:]


def short(name: str) -> str:
    """`mouthSmile_L`."""
    stem = camel(name)
    if name in ("JawLeft", "JawRight", "MouthLeft", "MouthRight"):
        return stem
    return stem.replace("Left", "_L").replace("Right", "_R")


SPELLINGS: dict[str, Callable[[str], str]] = {
    "PascalCase": str,
    "Maya": lambda name: "blendShape1." + camel(name),
    "short": short,
    "prefixed": lambda name: "Head_ARKit_" + camel(name),
    "snake": lambda name: "".join("_" + c.lower() if c.isupper() else c for c in name)[1:],
    "side first": lambda name: (
        ("L_" + camel(name.removesuffix("Left")))
        if name.endswith("Left") and name not in ("JawLeft", "MouthLeft")
        else camel(name)
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_shapes_are_known_in_any_spelling(spelling: str) -> None:
    for name in NAMES[:52]:
        found = naming.channel_of(SPELLINGS[spelling](name))
        assert found is not None and found[0].name == name and not found[1], name


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("browInnerUp_L", ("BrowInnerUp", True)),
        ("cheekPuffRight", ("CheekPuff", True)),
        ("EyeBlink_L", ("EyeBlinkLeft", False)),
        ("JawFwd", ("JawForward", False)),
        ("BrowsD_R", ("BrowDownRight", False)),
        ("Sneer_L", ("NoseSneerLeft", False)),
        ("Fcl_MTH_Joy", None),
        ("viseme_aa", None),
        ("mouthOpenWide", None),
        ("", None),
    ],
)
def test_names_of_other_conventions(name: str, channel: tuple[str, bool] | None) -> None:
    found = naming.channel_of(name)
    assert (found and (found[0].name, found[1])) == channel


def test_names_of_eyes_and_materials() -> None:
    for name in ("LeftEye", "eye_R", "J_Adj_L_FaceEye", "EyeLeft", "eyeball.l", "lEye", "lefteye"):
        assert naming.eye_side(name), name
    for name in ("LeftEyeLid", "eye", "Eyes", "L_brow", "LeftEyelash", None, "Key"):
        assert not naming.eye_side(name), name
    for name, material in (
        ("FaceEyelash", "lash"),
        ("EyeWhite", "sclera"),
        ("Wolf3D_Hair", "hair"),
    ):
        assert naming.material_of(name) == MATERIALS.index(material)
    assert naming.material_of(None, "Wolf3D_Skin") is None


def same_head(rig: Rig) -> None:
    """The rig is the built-in head: its left is left, its jaw falls, its eyes turn."""
    assert (rig.landmarks >= 0).all() and rig.known.all() and rig.notes == ()
    for name, landmark, axis, sign in (
        ("JawOpen", 8, 1, -1),
        ("MouthSmileLeft", 54, 1, 1),
        ("EyeBlinkRight", 37, 1, -1),
        ("BrowOuterUpLeft", 25, 1, 1),
        ("EyeLookOutLeft", 69, 0, 1),
        ("JawLeft", 8, 0, 1),
    ):
        face = np.zeros(61, np.float32)
        face[INDEX[name]] = 1
        moved = (pose(rig, face) - pose(rig, 0 * face))[rig.landmarks]
        assert sign * moved[landmark, axis] > 0.25, name
    marks = rig.marks(rig.neutral)
    true = HEAD.neutral[HEAD.landmarks]
    size = 13 / np.ptp(true[:68, 1])
    off = (marks - marks[:68].mean(0)) - size * (true - true[:68].mean(0))
    assert np.quantile(np.linalg.norm(off[:, :2], axis=1), 0.9) < 1.0


def test_a_plain_file(tmp_path: Path) -> None:
    rig = rigs.load(simple(tmp_path / "head.glb", camel))
    same_head(rig)
    lips = rig.material == MATERIALS.index("lips")
    assert rig.surface is None and lips.sum() > 30  # a model without colours is painted


def test_several_meshes_under_transforms(tmp_path: Path) -> None:
    """Eyes of their own nodes, sparse shapes, a scaled and turned parent, and something else."""
    writer = Writer()
    triangles = face_triangles()
    left, right = eyes_of(triangles, 0), eyes_of(triangles, 1)
    head = writer.mesh("Head", triangles[~left & ~right], short, sparse=True)
    parts = [writer.node(root=False, mesh=head, name="Head_Mesh")]
    for name, chosen in (("EyeLeft", left), ("EyeRight", right)):
        mesh = writer.mesh(name, triangles[chosen], None)
        parts.append(writer.node(root=False, mesh=mesh, name=name))
    half = float(np.sqrt(0.5))
    writer.node(children=parts, scale=[2, 2, 2], rotation=[0, half, 0, half], translation=[5, 1, 0])
    rig = rigs.load(writer.save(tmp_path / "avatar.glb"))
    same_head(rig)
    assert len(rig.eyes[0].vertices) == len(np.unique(triangles[left]))  # type: ignore[arg-type]


def test_a_skinned_mesh_is_in_its_bind_pose(tmp_path: Path) -> None:
    """Bones move the mesh away from its stored positions, and bones named as eyes turn."""
    writer = Writer()
    count = len(HEAD.neutral)
    joints, weights = np.zeros((count, 4), np.uint8), np.zeros((count, 4), np.float32)
    weights[:, 0] = 1
    for i, eye in enumerate(HEAD.eyes):
        joints[eye.vertices, 0] = 1 + i
    mesh = writer.mesh(
        "Body", face_triangles(), camel, extra={"JOINTS_0": joints, "WEIGHTS_0": weights}
    )
    matrix = np.diag([1, 1, 1, 1]).astype(np.float32)
    inverse = np.stack([matrix.T] * 3).reshape(3, 16)
    bones = [
        writer.node(root=False, name=name, translation=[0, 1.5, 0] if name == "Head" else [0, 0, 0])
        for name in ("Head", "J_Adj_L_FaceEye", "J_Adj_R_FaceEye")
    ]
    writer.json["nodes"][bones[0]]["children"] = bones[1:]
    writer.json["scenes"][0]["nodes"].append(bones[0])
    writer.json["skins"] = [{"joints": bones, "inverseBindMatrices": writer.array(inverse)}]
    writer.node(mesh=mesh, skin=0, scale=[9, 9, 9])  # a skinned mesh has no transform of its own
    same_head(rigs.load(writer.save(tmp_path / "skinned.glb")))


def test_compressed_meshes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer()
    writer.node(mesh=writer.mesh("head", face_triangles(), camel))
    writer.compress()
    path = writer.save(tmp_path / "packed.glb")
    same_head(rigs.load(path))
    monkeypatch.setattr(gltf_file, "meshopt", None)
    with pytest.raises(RigError, match=r"pip install 'sf_jax\[meshopt\]'"):
        rigs.load(path)


def test_expressions_of_a_vrm_name_its_shapes(tmp_path: Path) -> None:
    writer = Writer()
    node = writer.node(mesh=writer.mesh("Face", face_triangles(), lambda name: f"Fcl_{name[::-1]}"))
    custom = {
        camel(name): {"morphTargetBinds": [{"node": node, "index": i, "weight": 1.0}]}
        for i, name in enumerate(NAMES[:52])
    }
    writer.json["extensions"] = {"VRMC_vrm": {"expressions": {"preset": {}, "custom": custom}}}
    same_head(rigs.load(writer.save(tmp_path / "one.vrm")))
    groups = [
        {"name": name, "binds": [{"mesh": 0, "index": i, "weight": 100}]}
        for i, name in enumerate(NAMES[:52])
    ]
    writer.json["extensions"] = {"VRM": {"blendShapeMaster": {"blendShapeGroups": groups}}}
    same_head(rigs.load(writer.save(tmp_path / "zero.vrm")))


@pytest.mark.parametrize("kind", ["WEBP", pytest.param("PNG", marks=pytest.mark.slow)])
def test_textures_and_colours_are_drawn(tmp_path: Path, kind: str) -> None:
    """A texture that is green above and blue below, and a red factor on the eyes."""
    writer = Writer()
    image = np.zeros((8, 8, 3), np.uint8)
    image[:4, :, 1] = image[4:, :, 2] = 255
    texture = {"index": writer.texture(image, kind)}
    writer.json["materials"] = [
        {
            "pbrMetallicRoughness": {"baseColorTexture": texture},
            "extensions": {"KHR_materials_unlit": {}},
        },
        {"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}},
        {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.1]}, "alphaMode": "BLEND"},
    ]
    triangles = face_triangles()
    ball = eyes_of(triangles, 0) | eyes_of(triangles, 1)
    y = HEAD.neutral[:, 1]
    uv = np.stack([0 * y, (0.5 - 0.04 * y).clip(0.05, 0.95)], 1).astype(np.float32)
    for part, extra, material in ((~ball, {"TEXCOORD_0": uv}, 0), (ball, {}, 1), (~ball, {}, 2)):
        mesh = writer.mesh(
            f"part {material}", triangles[part], camel, extra=extra, material=material
        )
        writer.node(mesh=mesh)
    rig = rigs.load(writer.save(tmp_path / "colours.glb"))
    assert rig.surface is not None and len(rig.surface.images) == 1
    assert len(rig.triangles) <= len(triangles)  # the clear part is left out
    picture = draw(rig, np.zeros(61, np.float32), plain_scene(), 96, 96)
    colours = picture.image.astype(int)
    x, y = picture.landmarks[[19, 57, 8, 27]].astype(int).T
    brow, lip, chin, bridge = colours[y, x]
    assert brow[1] > 2 * max(brow[0], brow[2]) and bridge[1] > 2 * bridge[2]
    assert lip[2] > 2 * lip[1] and chin[2] > 2 * max(chin[0], chin[1])
    red = (colours[..., 0] > 2 * colours[..., 1]) & (colours[..., 0] > 2 * colours[..., 2])
    assert red.sum() > 20


def damaged(path: Path, change: Callable[[dict], None]) -> Path:
    writer = Writer()
    writer.node(mesh=writer.mesh("head", face_triangles()[:40], camel))
    change(writer.json)
    return writer.save(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g["meshes"][0].pop("extras"), "has no named morph targets"),
        (
            lambda g: g["meshes"][0]["extras"].update(targetNames=["smile!", "a"] * 26),
            r"no ARKit shapes among its 52 morph targets \(smile!, a",
        ),
        (lambda g: g.update(extensionsRequired=["KHR_draco_mesh_compression"]), "Draco"),
        (lambda g: g["bufferViews"][0].update(byteLength=10**9), "buffer view 0 is cut off"),
        (lambda g: g["accessors"][0].update(count=10**6), "is cut off|cannot be read"),
        (lambda g: g["accessors"][0].update(bufferView=9999), "accessor 0 cannot be read"),
        (lambda g: g["nodes"][0].update(children=[0]), "no tree"),
        (lambda g: g["nodes"][0].update(mesh=7), "no readable glTF"),
        (lambda g: None, "face is not found|move something|move nothing"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, change: Callable, message: str) -> None:
    path = damaged(tmp_path / "bad.glb", change)
    with pytest.raises(RigError, match=message) as caught:
        rigs.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"glTF\x02\x00\x00\x00", "no readable glTF"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b'{"asset": 3}', "no readable glTF|no glTF"),
        (b"{]", "no readable glTF"),
        (b'{"asset":{"version":"2.0"}}', "has no named morph targets"),
    ],
)
def test_files_that_are_no_gltf(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.gltf"
    path.write_bytes(content)
    with pytest.raises(RigError, match=message):
        rigs.load(path)


def test_files_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.gltf"
    path.parent.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(100))
    writer = Writer()
    writer.node(mesh=writer.mesh("head", face_triangles()[:4], camel))
    writer.json["buffers"] = [{"byteLength": 100, "uri": "../secret.bin"}]
    path.write_text(json.dumps(writer.json))
    with pytest.raises(RigError, match="outside its folder"):
        rigs.load(path)
