"""Heads of Microsoft Rocketbox avatars (MIT) with ARKit shapes, stored as arrays.

They are whole bodies, z up and facing -y, in centimetres, without textures. The texture
coordinates, which all avatars share, show what is in the mouth. Their eyeballs are replaced by
those of the built-in head, which have irises.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sf_jax.face.channels import CHANNELS, INDEX
from sf_jax.media.npz_files import Declared, read_arrays
from sf_jax.render import head_parts
from sf_jax.render.head_surface import EYE, EYE_RADIUS
from sf_jax.render.rig import MATERIALS, Rig
from sf_jax.render.rigs import eyeballs
from sf_jax.render.rigs.arrays import RigError
from sf_jax.render.rigs.assemble import Mesh, assemble, subdivided

FIELDS = {
    "vertices": Declared("float", ("vertices", 3)),
    "triangles": Declared("integer", ("triangles", 3)),
    "triangle_material": Declared("integer", ("triangles",)),
    "triangle_uv": Declared("float", ("triangles", 3, 2)),
    "names": Declared("text", ("shapes",)),
    "deltas": Declared("float", ("shapes", "vertices", 3)),
}
BODY, HEAD = 0, 1  # in triangle_material; 2 are lashes and hair
MOUTH_UV = (0.2, 0.38)  # the corner of the head's texture that holds teeth, gums and tongue
TEETH_UV = (0.14, 0.11, 0.27)  # both rows of teeth, and the tongue: to u, from v, to v
EYE_UV = (0.205, 0.33, 0.14)  # from u, to u, to v


def _axes(points: np.ndarray) -> np.ndarray:
    """z up and facing -y → y up and facing z."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1).astype(np.float32)


def _split(triangles: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices divided where their corners [T, 3] have different keys: old numbers, triangles."""
    pairs = np.stack([triangles, np.broadcast_to(keys[:, None], triangles.shape)], -1)
    unique, inverse = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
    return unique[:, 0], inverse.reshape(-1, 3).astype(np.int32)


def _part(material: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """What each triangle [T] belongs to: 0 cloth, 1 skin, 2 mouth, 3 eyes, 4 hair, 5 teeth.

    The tongue is between the teeth, see `_is_tongue`.
    """
    centre = uv.mean(1)
    u, v = centre[:, 0], centre[:, 1]
    in_mouth = (u < MOUTH_UV[0]) & (v < MOUTH_UV[1])
    eye = (u > EYE_UV[0]) & (u < EYE_UV[1]) & (v < EYE_UV[2])
    teeth = (u < TEETH_UV[0]) & (v > TEETH_UV[1]) & (v < TEETH_UV[2])
    head = np.select([teeth, in_mouth, eye], [5, 2, 3], 1)
    return np.select([material == BODY, material == HEAD], [0, head], 4)


def _islands(uv: np.ndarray) -> np.ndarray:
    """The number of the connected piece of the texture of each triangle's coordinates [T, 3, 2]."""
    _, corner = np.unique(uv.reshape(-1, 2), axis=0, return_inverse=True)
    corners = corner.reshape(-1, 3)
    edges = np.concatenate([corners[:, :2], corners[:, 1:]])
    count = int(corners.max()) + 1
    graph = coo_matrix((np.ones(len(edges)), edges.T), (count, count))
    return connected_components(graph, directed=False)[1][corners[:, 0]]


def _is_tongue(found: dict[str, np.ndarray], inside: np.ndarray) -> np.ndarray:
    """Triangles [T] of the piece in the mouth that moves most when the tongue is put out."""
    tongue = np.zeros(len(inside), bool)
    names = [str(name) for name in found["names"]]
    if "tongueOut" not in names or not inside.any():
        return tongue
    out = np.square(found["deltas"][names.index("tongueOut")].astype(np.float32)).sum(-1)
    moved = out[found["triangles"][inside]].max(1)
    island = _islands(found["triangle_uv"][inside])
    if moved.max() > 0:
        tongue[inside] = island == island[moved.argmax()]
    return tongue


def _new_eyes(mesh: Mesh, old: np.ndarray) -> Mesh:
    """The mesh with the vertices `old` [2, V] of its eyeballs replaced by the built-in ones."""
    part = head_parts.eyeballs()
    half = len(part.points) // 2
    points, pivots = [], []
    for i, eye in enumerate(old):
        centre, radius, _ = eyeballs.sphere(mesh.vertices[eye])
        unit = part.points[:half] if i == 0 else part.points[half:]
        unit = (unit - EYE * [1 - 2 * i, 1, 1]) / EYE_RADIUS
        points.append(centre + radius * unit)
        pivots.append(centre)
    ball = old[0] | old[1]
    keep = ~ball[mesh.triangles].any(1)
    count = len(mesh.vertices)
    added = part.triangles + count
    is_eye = np.zeros((2, count + 2 * half), bool)
    is_eye[0, count : count + half] = is_eye[1, count + half :] = True
    resting = np.zeros((len(mesh.shapes), 2 * half, 3), np.float32)
    return Mesh(
        name=mesh.name,
        path=mesh.path,
        vertices=np.concatenate([mesh.vertices, *points]).astype(np.float32),
        triangles=np.concatenate([mesh.triangles[keep], added]).astype(np.int32),
        shapes=np.concatenate([mesh.shapes, resting], 1),
        material=np.concatenate([mesh.material, part.material.astype(np.uint8)]),
        eyes=is_eye,
        covering=np.concatenate([mesh.covering[keep], np.zeros(len(added), bool)]),
        pivots=np.stack(pivots),
    )


def _without_lower_lashes(mesh: Mesh) -> Mesh:
    """Lashes are cards for a texture with holes, and hide the eyes below them without it."""
    lash = mesh.material[mesh.triangles[:, 0]] == MATERIALS.index("lash")
    height = mesh.vertices[mesh.triangles, 1].mean(1)
    eyes = mesh.vertices[mesh.eyes.any(0), 1].mean()
    keep = ~lash | (height > eyes)
    return replace(mesh, triangles=mesh.triangles[keep], covering=mesh.covering[keep])


def load(path: str | os.PathLike) -> Rig:
    """The rig of a file of arrays: `vertices`, `triangles`, `triangle_material` (0 body, 1 head,
    2 lashes and hair), `triangle_uv`, `names` and `deltas` of the shapes.

    Raises:
      RigError: the file cannot be read, or is no such head.
    """
    path = Path(path)
    found = read_arrays(path, FIELDS, RigError)
    triangles, uv = found["triangles"], found["triangle_uv"].astype(np.float32)
    if len(triangles) and not 0 <= triangles.min() <= triangles.max() < len(found["vertices"]):
        raise RigError("triangles name vertices that do not exist", path=path, field="triangles")
    shapes = np.zeros((52, *found["vertices"].shape), np.float32)
    names = [str(name) for name in found["names"]]
    for channel in CHANNELS[:52]:
        if channel.arkit in names:
            shapes[channel.index] = _axes(found["deltas"][names.index(channel.arkit)])
    part = _part(found["triangle_material"], uv)
    part[_is_tongue(found, np.isin(part, [2, 5]))] = 6
    old, corners = _split(triangles, part)
    belongs = np.zeros(len(old), int)
    belongs[corners] = part[:, None]
    vertices, shapes = _axes(found["vertices"])[old], np.ascontiguousarray(shapes[:, old])
    blink = np.linalg.norm(
        shapes[
            [
                INDEX["EyeBlinkLeft"],
                INDEX["EyeSquintLeft"],
                INDEX["EyeBlinkRight"],
                INDEX["EyeSquintRight"],
            ]
        ],
        axis=2,
    )
    hair = np.where(blink.max(0) > 0, MATERIALS.index("lash"), MATERIALS.index("hair"))
    parts = ("cloth", "skin", "mouth", "sclera", "hair", "teeth", "tongue")
    numbers = np.array([MATERIALS.index(name) for name in parts])
    material = np.where(belongs == 4, hair, numbers[belongs]).astype(np.uint8)
    eye = (belongs == 3) & (vertices[:, 1] > 0)
    sides = np.stack([eye & (vertices[:, 0] > 0), eye & (vertices[:, 0] < 0)])
    mesh = Mesh(
        name=path.stem,
        path=str(path),
        vertices=vertices,
        triangles=corners,
        shapes=shapes,
        material=material,
        eyes=sides,
        covering=part == 4,
    )
    if not sides.any(1).all():
        raise RigError("no eyeballs at their place in the texture", path=path)
    mesh = _without_lower_lashes(subdivided(mesh, part == 1))
    return assemble(_new_eyes(mesh, mesh.eyes))
