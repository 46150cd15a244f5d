"""Rigs out of glTF files (.glb, .gltf) and VRM avatars with ARKit morph targets.

Every mesh of the scene is taken in its bind pose, under its node's transform. Shapes are known by
the names of morph targets, in any spelling (`naming.channel_of`), or by the names of a VRM's
expressions, which bind them (perfect sync). Bones or meshes that are named as eyes turn.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sf_jax.face.channels import BLENDSHAPES, CHANNELS
from sf_jax.render.rig import MATERIALS, Rig, Surface
from sf_jax.render.rigs import naming
from sf_jax.render.rigs.arrays import RigError
from sf_jax.render.rigs.assemble import SKIN, Mesh, assemble, subdivided
from sf_jax.render.rigs.gltf_file import File

TRIANGLES = 4  # the mode of a primitive
MOST_VERTICES = 1_000_000
MOST_NODES = 10_000
TEXTURE_SIDE = 1024  # pixels; larger textures are shrunk
COVERING = tuple(MATERIALS.index(name) for name in ("hair", "lash", "cloth"))
UNIFORM = 0.02  # of colours that differ by less, a model has none
COARSE = 6000  # triangles of skin, fewer are divided to be painted
CLEAR = 0.3  # opacity below which a blended material is not drawn

Binds = dict[tuple[int, int], list[tuple[int, float]]]  # (mesh, target) → channels and weights


@dataclass
class _Part:
    """One primitive in the space of the scene."""

    vertices: np.ndarray
    triangles: np.ndarray
    shapes: dict[int, np.ndarray]
    uv: np.ndarray
    colours: np.ndarray
    texture: tuple[int, bool] | None  # image, and whether its alpha counts
    material: int
    eye: np.ndarray
    covering: bool = field(default=False)


def _matrix(node: Any) -> np.ndarray:
    """A node's own transform [4, 4]."""
    if node.matrix:
        return np.array(node.matrix, np.float64).reshape(4, 4).T
    out = np.eye(4)
    x, y, z, w = node.rotation or (0, 0, 0, 1)
    size = x * x + y * y + z * z + w * w
    scale = 2 / size if size else 0.0
    out[:3, :3] = [
        [1 - scale * (y * y + z * z), scale * (x * y - z * w), scale * (x * z + y * w)],
        [scale * (x * y + z * w), 1 - scale * (x * x + z * z), scale * (y * z - x * w)],
        [scale * (x * z - y * w), scale * (y * z + x * w), 1 - scale * (x * x + y * y)],
    ]
    out[:3, :3] *= np.array(node.scale or (1, 1, 1))
    out[:3, 3] = node.translation or (0, 0, 0)
    return out


def _worlds(file: File) -> dict[int, np.ndarray]:
    """The transform [4, 4] of each node of the scene."""
    gltf = file.json
    scene = gltf.scenes[gltf.scene or 0] if gltf.scenes else None
    children = {child for node in gltf.nodes for child in node.children or []}
    roots = scene.nodes if scene else [i for i in range(len(gltf.nodes)) if i not in children]
    worlds: dict[int, np.ndarray] = {}
    waiting = [(root, np.eye(4)) for root in roots or []]
    while waiting:
        index, above = waiting.pop()
        if index in worlds or len(worlds) > MOST_NODES:
            raise file.error("its nodes are no tree")
        worlds[index] = above @ _matrix(gltf.nodes[index])
        waiting += [(child, worlds[index]) for child in gltf.nodes[index].children or []]
    return worlds


def _target_names(mesh: Any) -> list[str]:
    """Names of a mesh's morph targets, in their order."""
    for extras in (mesh.extras, *(primitive.extras for primitive in mesh.primitives)):
        names = (extras or {}).get("targetNames") if isinstance(extras, dict) else None
        if isinstance(names, list):
            return [str(name) for name in names]
    return []


def _named_binds(file: File) -> Binds:
    """What the names of morph targets bind; the first of two whole shapes of one name counts."""
    binds: Binds = {}
    for index, mesh in enumerate(file.json.meshes):
        taken = set()
        for target, name in enumerate(_target_names(mesh)):
            found = naming.channel_of(name)
            if found is None:
                continue
            channel, half = found
            if (channel.index, half and name) not in taken and (channel.index, False) not in taken:
                taken.add((channel.index, half and name))
                binds[index, target] = [(channel.index, 1.0)]
    return binds


def _vrm_binds(file: File) -> Binds:
    """What the expressions of a VRM bind, of version 0 or 1."""
    extensions = file.json.extensions or {}
    found: list[tuple[str, Any, str, float]] = []
    groups = extensions.get("VRM", {}).get("blendShapeMaster", {}).get("blendShapeGroups", [])
    for group in groups:
        found += [(str(group.get("name")), bind, "mesh", 0.01) for bind in group.get("binds") or []]
    expressions = extensions.get("VRMC_vrm", {}).get("expressions", {})
    for name, expression in {
        **expressions.get("preset", {}),
        **expressions.get("custom", {}),
    }.items():
        binds = expression.get("morphTargetBinds") or []
        found += [(name, bind, "node", 1.0) for bind in binds]
    out: Binds = {}
    for name, bind, key, unit in found:
        channel = naming.channel_of(name)
        if channel is None:
            continue
        mesh = bind[key] if key == "mesh" else file.json.nodes[bind[key]].mesh
        entry = (channel[0].index, unit * float(bind.get("weight", 1 / unit)))
        out.setdefault((mesh, bind["index"]), []).append(entry)
    return out


def _binds(file: File) -> Binds:
    """Which morph targets show which channels: names first, a VRM's expressions where they do."""
    try:
        named, vrm = _named_binds(file), _vrm_binds(file)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise file.error(f"its names of morph targets cannot be read: {error}") from error

    def channels(binds: Binds) -> int:
        return len({channel for entries in binds.values() for channel, _ in entries})

    return vrm if channels(vrm) > channels(named) else named


def _eye_nodes(file: File) -> set[int]:
    """Nodes, bones among them, that are named as an eyeball, or by a VRM as its eyes."""
    extensions = file.json.extensions or {}
    bones = extensions.get("VRM", {}).get("humanoid", {}).get("humanBones", [])
    found = {bone["node"] for bone in bones if bone.get("bone") in ("leftEye", "rightEye")}
    human = extensions.get("VRMC_vrm", {}).get("humanoid", {}).get("humanBones", {})
    found |= {human[name]["node"] for name in ("leftEye", "rightEye") if name in human}
    if found:
        return found
    return {i for i, node in enumerate(file.json.nodes) if naming.eye_side(node.name)}


def _skinning(
    file: File, node: Any, primitive: Any, count: int, worlds: dict[int, np.ndarray], eyes: set[int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Matrices [V, 4, 4] of the bind pose, and how far each vertex hangs on eye bones [V]."""
    if node.skin is None or primitive.attributes.JOINTS_0 is None:
        return None
    skin = file.json.skins[node.skin]
    joints = file.array(primitive.attributes.JOINTS_0).astype(np.int64)
    weights = file.array(primitive.attributes.WEIGHTS_0).astype(np.float64)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-9)
    bones = np.array([worlds.get(joint, np.eye(4)) for joint in skin.joints])
    if skin.inverseBindMatrices is not None:
        inverse = file.array(skin.inverseBindMatrices).astype(np.float64)
        bones = bones @ inverse.reshape(-1, 4, 4).transpose(0, 2, 1)
    matrices = np.zeros((count, 4, 4))
    for i in range(joints.shape[1]):
        matrices += weights[:, i, None, None] * bones[joints[:, i]]
    is_eye = np.array([joint in eyes for joint in skin.joints])
    return matrices, (weights * is_eye[joints]).sum(1)


def _appearance(file: File, primitive: Any, count: int) -> tuple[np.ndarray, Any, np.ndarray, bool]:
    """uv [V, 2], (image, alpha counts), colours [V, 3] as displayed, and whether it is drawn."""
    colours, uv = np.ones((count, 3)), np.zeros((count, 2), np.float32)
    if primitive.attributes.COLOR_0 is not None:
        colours = np.clip(file.array(primitive.attributes.COLOR_0)[:, :3].astype(float), 0, 1)
    texture, shown = None, True
    if primitive.material is not None:
        material = file.json.materials[primitive.material]
        base = material.pbrMetallicRoughness
        factor = list(base.baseColorFactor or (1, 1, 1, 1)) if base else [1, 1, 1, 1]
        colours = colours * factor[:3]
        blended = material.alphaMode in ("MASK", "BLEND")
        shown = material.alphaMode != "BLEND" or factor[3] >= CLEAR
        info = base.baseColorTexture if base else None
        if info is not None:
            source = _image_of(file.json.textures[info.index])
            texture = None if source is None else (source, blended)
            name = f"TEXCOORD_{info.texCoord or 0}"
            accessor = getattr(primitive.attributes, name, None)
            uv = uv if accessor is None else file.array(accessor).astype(np.float32)
            uv = _transformed(uv, (info.extensions or {}).get("KHR_texture_transform"))
    return uv, texture, np.clip(colours, 0, 1) ** (1 / 2.2), shown


def _image_of(texture: Any) -> int | None:
    """The image of a texture: a WebP or AVIF one that an extension names, or the plain one."""
    for name in ("EXT_texture_webp", "EXT_texture_avif"):
        source = ((texture.extensions or {}).get(name) or {}).get("source")
        if source is not None:
            return source
    return texture.source


def _transformed(uv: np.ndarray, transform: dict | None) -> np.ndarray:
    if not transform:
        return uv
    angle = transform.get("rotation", 0.0)
    cos, sin = np.cos(angle), np.sin(angle)
    uv = uv * np.array(transform.get("scale", (1, 1)))
    uv = uv @ np.array([[cos, -sin], [sin, cos]]) + np.array(transform.get("offset", (0, 0)))
    return uv.astype(np.float32)


def _part(
    file: File, at: int, primitive: Any, worlds: dict[int, np.ndarray], binds: Binds, eyes: set[int]
) -> _Part | None:
    node = file.json.nodes[at]
    mode = TRIANGLES if primitive.mode is None else primitive.mode
    if mode != TRIANGLES or primitive.attributes.POSITION is None:
        return None
    points = file.array(primitive.attributes.POSITION).astype(np.float64)
    count = len(points)
    if primitive.indices is None:
        triangles = np.arange(count - count % 3).reshape(-1, 3)
    else:
        index = file.array(primitive.indices)[:, 0].astype(np.int64)
        triangles = index[: len(index) - len(index) % 3].reshape(-1, 3)
    if count == 0 or not len(triangles) or triangles.max() >= count:
        return None
    uv, texture, colours, shown = _appearance(file, primitive, count)
    if not shown:
        return None
    skinning = _skinning(file, node, primitive, count, worlds, eyes)
    matrices = worlds[at][None] if skinning is None else skinning[0]
    turn = np.broadcast_to(matrices[:, :3, :3], (count, 3, 3))
    shapes: dict[int, np.ndarray] = {}
    for target, attributes in enumerate(primitive.targets or []):
        bound = binds.get((node.mesh, target))
        position = _position(attributes)
        if bound and position is not None:
            moved = np.einsum("vij,vj->vi", turn, file.array(position).astype(np.float64))
            for channel, weight in bound:
                shapes[channel] = shapes.get(channel, 0) + weight * moved
    names = [None if primitive.material is None else file.json.materials[primitive.material].name]
    names += [file.json.meshes[node.mesh].name, node.name]
    material = naming.material_of(*names)
    named_eye = naming.eye_side(node.name) or naming.eye_side(file.json.meshes[node.mesh].name)
    eye = np.full(count, named_eye) if skinning is None else skinning[1] > 0.5
    return _Part(
        vertices=np.einsum("vij,vj->vi", turn, points) + matrices[:, :3, 3],
        triangles=triangles,
        shapes=shapes,
        uv=uv,
        colours=colours,
        texture=texture,
        material=MATERIALS.index("skin") if material is None else material,
        eye=eye | named_eye,
        covering=not shapes and material in COVERING,
    )


def _position(attributes: Any) -> int | None:
    """The accessor of a morph target's positions, which the library leaves as a mapping."""
    if isinstance(attributes, dict):
        return attributes.get("POSITION")
    return getattr(attributes, "POSITION", None)


def _parts(file: File, binds: Binds) -> Iterator[_Part]:
    worlds, eyes = _worlds(file), _eye_nodes(file)
    for at in sorted(worlds):
        node = file.json.nodes[at]
        if node.mesh is not None:
            for primitive in file.json.meshes[node.mesh].primitives:
                part = _part(file, at, primitive, worlds, binds, eyes)
                if part is not None:
                    yield part


def _textures(file: File, parts: list[_Part]) -> tuple[list[np.ndarray], list[int]]:
    """The images that the parts use, shrunk, and for each part the number of its image or -1."""
    loaded: dict[tuple[int, bool], int] = {}
    kept: list[np.ndarray] = []
    numbers = []
    for part in parts:
        if part.texture is not None and part.texture not in loaded:
            found = file.image(part.texture[0])
            loaded[part.texture] = -1 if found is None else len(kept)
            if found is not None:
                kept.append(_fitted(found, part.texture[1]))
        numbers.append(-1 if part.texture is None else loaded[part.texture])
    return kept, numbers


def _fitted(image: np.ndarray, alpha: bool) -> np.ndarray:
    factor = -(-max(image.shape[:2]) // TEXTURE_SIDE)
    if factor > 1:
        image = np.ascontiguousarray(image[::factor, ::factor])
    if not alpha:
        image = image.copy()
        image[..., 3] = 255
    return image


def _surface(parts: list[_Part], images: list[np.ndarray], image: np.ndarray) -> Surface | None:
    """The colours of all parts; None where they are all the same, as of an untextured model."""
    colours = np.concatenate([part.colours for part in parts]).astype(np.float32)
    if not images and np.ptp(colours, axis=0).max() < UNIFORM:
        return None
    uv = np.concatenate([part.uv for part in parts]).astype(np.float32)
    return Surface(colours, uv, tuple(images), image.astype(np.int16))


def _joined(file: File, parts: list[_Part]) -> Mesh:
    counts = [len(part.vertices) for part in parts]
    if sum(counts) > MOST_VERTICES:
        raise file.error(f"{sum(counts)} vertices, at most {MOST_VERTICES} are read")
    starts = np.cumsum([0, *counts[:-1]])
    shapes = np.zeros((len(CHANNELS[BLENDSHAPES]), sum(counts), 3), np.float32)
    for part, start in zip(parts, starts, strict=True):
        for channel, moved in part.shapes.items():
            shapes[channel, start : start + len(part.vertices)] = moved
    kept, numbers = _textures(file, parts)
    lengths = [len(part.triangles) for part in parts]
    eye = np.concatenate([part.eye for part in parts])
    return Mesh(
        name=file.path.stem,
        path=str(file.path),
        vertices=np.concatenate([part.vertices for part in parts]).astype(np.float32),
        triangles=np.concatenate(
            [part.triangles + start for part, start in zip(parts, starts, strict=True)]
        ).astype(np.int32),
        shapes=shapes,
        material=np.repeat([part.material for part in parts], counts).astype(np.uint8),
        eyes=np.stack([eye, eye]),
        covering=np.repeat([part.covering for part in parts], lengths),
        surface=_surface(parts, kept, np.repeat(numbers, lengths)),
    )


def load(path: str | os.PathLike) -> Rig:
    """The rig of a .glb, .gltf or .vrm file.

    Raises:
      RigError: the file cannot be read, is compressed, or has no ARKit shapes.
    """
    file = File(Path(path))
    binds = _binds(file)
    if not binds:
        names = [name for mesh in file.json.meshes for name in _target_names(mesh)]
        shown = ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
        problem = f"no ARKit shapes among its {len(names)} morph targets"
        raise file.error(f"{problem} ({shown})" if names else "it has no named morph targets")
    try:
        parts = list(_parts(file, binds))
        mesh = _joined(file, parts)
    except RigError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise file.error(f"no readable glTF: {error}") from error
    skin = mesh.material[mesh.triangles].max(1) == SKIN
    if mesh.surface is None and skin.sum() < COARSE:
        mesh = subdivided(mesh, skin)
    return assemble(mesh)
