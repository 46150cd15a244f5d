"""ICT-FaceKit's light face model (github.com/ICT-VGL/ICT-FaceKit, MIT) as a Rig.

It is read from one file of arrays, or from the repository's folder FaceXModel of one OBJ a shape.
It has no texture, so skin, lips, brows, irises and hair are distinguished here by vertex range and
by position. Its landmarks are the iBUG ones, subject's right first. The shapes under EyeLook move
the lids alone, so the eyeballs are turned; MouthClose shuts what JawOpen opens.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int

from sf_jax.face.channels import CHANNELS
from sf_jax.media import small_files
from sf_jax.media.npz_files import Declared, read_arrays
from sf_jax.render.rig import MATERIALS, PAINTS, Eye, Rig
from sf_jax.render.rigs import obj
from sf_jax.render.rigs.arrays import RigError
from sf_jax.render.rigs.motion import known_channels

VERTICES = 26719
FILE_LANDMARKS = "ict_facekit.landmarks68.txt"
FIELDS = {
    "vertices": Declared("float", ("vertices", 3)),
    "triangles": Declared("integer", ("triangles", 3)),
    "expression_names": Declared("text", ("expressions",)),
    "expression_deltas": Declared("float", ("expressions", "vertices", 3)),
    "identity_deltas": Declared("float", ("identities", "vertices", 3)),
}
NEUTRAL, INDICES = "generic_neutral_mesh", "vertex_indices.json"  # of the folder
HEAD_PIVOT = (0.0, -3.0, -1.0)

FACE, HEAD, MOUTH = slice(0, 9409), slice(0, 11248), slice(11248, 13294)
GUMS, TEETH = slice(14062, 17039), slice(17039, 21451)
LEFT_EYE, RIGHT_EYE = slice(21451, 23021), slice(23021, 24591)
SCLERA_VERTICES = 770  # of each eye, before those of the iris inside the cornea
CLEAR = slice(24591, 25351)  # tears and shadows about the eye, drawn by ICT as glass
LASHES = slice(25351, 26719)
IRIS_RADIUS, PUPIL_RADIUS = 0.66, 0.28  # cm, on the cornea
LASH_CARD, LASH_LENGTH = 114, 0.22  # vertices of each of the 12 cards, 3 above and 3 below; cm
BY_PARTS = {
    "BrowInnerUp": ("browInnerUp_L", "browInnerUp_R"),
    "CheekPuff": ("cheekPuff_L", "cheekPuff_R"),
    "TongueOut": (),
}


def _smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


class _Indices(small_files.Settings):
    """The file of vertex numbers in the folder."""

    idx_to_landmark_verts: list[int]


@dataclass(frozen=True)
class _Files:
    """What either form of the model holds.

    Attributes:
      shapes: displacement fields [V, 3] of the expressions by ICT's names, cm.
      identity: [I, V, 3] cm.
      landmarks: vertices [68].
    """

    vertices: Float[np.ndarray, "V 3"]
    triangles: Int[np.ndarray, "T 3"]
    shapes: dict[str, np.ndarray]
    identity: Float[np.ndarray, "I V 3"]
    landmarks: Int[np.ndarray, " 68"]


def _parts(name: str, short: str | None) -> tuple[str, ...]:
    return BY_PARTS.get(name, (short or "",))


def _blendshapes(shapes: dict[str, np.ndarray], path: Path) -> np.ndarray:
    """float32 [52, V, 3]; the EyeLook shapes move the lids alone, as a Rig's must."""
    out = np.zeros((52, VERTICES, 3), np.float32)
    for i, channel in enumerate(CHANNELS[:52]):
        for part in _parts(channel.name, channel.short):
            if part not in shapes:
                raise RigError(f"expression {part!r} is missing", path=path, field=part)
            out[i] += shapes[part]
    return out


def _eye_centre(points: np.ndarray) -> np.ndarray:
    """Middle of the sphere fitted to the back of an eyeball, by least squares."""
    back = points[points[:, 2] < np.median(points[:, 2])].astype(np.float64)
    rows = np.column_stack([2 * back, np.ones(len(back))])
    return np.linalg.lstsq(rows, (back**2).sum(1), rcond=None)[0][:3].astype(np.float32)


def _hairline(z: np.ndarray) -> np.ndarray:
    """Height of the hairline by depth, cm: nape, back of and above the ear, temple, forehead."""
    return np.interp(z, [-8, -5, -2.5, 0, 3, 4, 5.5, 8, 10], [-4, -3, 1, 6, 6, 3, 8, 9.8, 10.3])


def _material(vertices: np.ndarray, lips: np.ndarray, eyes: tuple[Eye, Eye]) -> np.ndarray:
    x, y, z = vertices.T
    names = np.full(len(vertices), "skin", dtype="<U6")
    scalp = (y > _hairline(z)) & (np.abs(x) < 8.2)
    names[HEAD][scalp[HEAD]] = "hair"
    names[HEAD][(y < -12.5 - 0.25 * z)[HEAD]] = "cloth"
    names[FACE][lips[FACE] > 0.5] = "lips"
    names[MOUTH], names[TEETH], names[LASHES] = "mouth", "teeth", "lash"
    away = np.linalg.norm(vertices[GUMS, None] - vertices[TEETH][None, ::12], axis=-1).min(1)
    names[GUMS] = np.where((away > 0.5) & (y[GUMS] < -2.6), "tongue", "gum")
    for eye in eyes:
        ball = vertices[eye.vertices] - eye.centre
        off_axis = np.where(ball[:, 2] > 0, np.hypot(ball[:, 0], ball[:, 1]), np.inf)
        rings = ["pupil", "iris", "sclera"]
        at = np.digitize(off_axis, [PUPIL_RADIUS, IRIS_RADIUS])
        names[eye.vertices] = np.array(rings)[at]
    return np.array([MATERIALS.index(name) for name in names], np.uint8)


def _to_line(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distance from each point [n, 2] to a polyline [m, 2]."""
    t = np.linspace(0, len(line) - 1, 60)
    dense = np.stack([np.interp(t, np.arange(len(line)), line[:, i]) for i in (0, 1)], 1)
    return np.linalg.norm(points[:, None] - dense, axis=-1).min(1)


def _paint(vertices: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Soft masks [V, len(PAINTS)] from the 68 landmarks, in the usual order of those."""
    x, y, z = vertices.T
    flat, marks = vertices[:, :2], vertices[landmarks, :2]
    outline = marks[48:60].astype(np.float32)
    inside = [cv2.pointPolygonTest(outline, (float(a), float(b)), True) for a, b in flat[FACE]]
    lips, brow, lid = np.zeros((3, len(vertices)))
    lips[FACE] = np.clip(0.5 + np.array(inside) / 0.16, 0, 1) * (z[FACE] > 8.5)
    front = _smoothstep(5.5, 7.5, z)[FACE]
    for line in (marks[17:22], marks[22:27]):
        brow[FACE] += np.exp(-0.5 * (_to_line(flat[FACE], line) / 0.3) ** 2) * front
    for line in (marks[36:40], marks[42:46]):
        over = _smoothstep(0, 0.15, y[FACE] - np.interp(x[FACE], line[:, 0], line[:, 1]))
        lid[FACE] += (1 - _smoothstep(0.1, 0.7, _to_line(flat[FACE], line))) * over * front
    away = ((np.abs(x) - 4.8) / 1.5) ** 2 + ((y - 0.2) / 1.2) ** 2
    blush = np.exp(-0.5 * away) * _smoothstep(5.0, 7.0, z)
    beard = _smoothstep(-3.0, -4.5, y + 0.35 * np.clip(np.abs(x) - 4, 0, 2))
    beard *= _smoothstep(3.0, 5.0, z) * _smoothstep(-10.5, -9.0, y)
    moustache = np.exp(-0.5 * ((y + 1.9) / 0.4) ** 2) * _smoothstep(3.0, 2.0, np.abs(x))
    beard = np.maximum(beard, moustache * (z > 8)) * (1 - lips)
    masks = {"lips": lips, "brow": brow, "blush": blush, "lid": lid, "beard": beard}
    painted = np.stack([masks[name] for name in PAINTS], axis=1)
    painted[HEAD.stop :] = 0
    return np.clip(painted, 0, 1).astype(np.float32)


def _seen(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Triangles less the clear ones, the irises inside the corneas and most of the lashes.

    ICT's lashes are broad cards for a texture with holes in it. Painted black they hide the eye, so
    only the roots of the upper ones are kept.
    """
    lashes = vertices[LASHES]
    to_skin = np.linalg.norm(lashes[:, None] - _lid_margin(vertices), axis=-1).min(axis=1)
    drawn = np.ones(len(vertices), bool)
    drawn[CLEAR] = False
    drawn[LASHES] = (to_skin < LASH_LENGTH) & (np.arange(len(lashes)) // LASH_CARD % 6 < 3)
    keep = drawn[triangles].all(axis=1)
    for eye in (LEFT_EYE, RIGHT_EYE):
        inner = triangles >= eye.start + SCLERA_VERTICES
        keep &= ~(inner & (triangles < eye.stop)).any(axis=1)
    return np.ascontiguousarray(triangles[keep], np.int32)


def _lid_margin(vertices: np.ndarray) -> np.ndarray:
    """Vertices of the face near where the upper lashes grow, [n, 3]."""
    skin = vertices[FACE]
    low, high = vertices[LASHES].min(0), vertices[LASHES].max(0)
    return skin[((skin > low) & (skin < high)).all(axis=1)]


def _from_arrays(path: Path) -> _Files:
    found = read_arrays(path, FIELDS, RigError)
    beside = path.with_name(FILE_LANDMARKS)
    try:
        landmarks = np.array(beside.read_text("utf-8").replace(",", " ").split(), np.int32)
    except (OSError, ValueError) as error:
        raise RigError(f"no file of its landmarks: {error}", path=beside) from error
    names = [str(name) for name in found["expression_names"]]
    shapes = dict(zip(names, found["expression_deltas"], strict=True))
    identity = found["identity_deltas"].astype(np.float32)
    vertices = found["vertices"].astype(np.float32)
    return _Files(vertices, found["triangles"].astype(np.int32), shapes, identity, landmarks)


def _from_folder(folder: Path) -> _Files:
    vertices, triangles = obj.read(folder / f"{NEUTRAL}.obj")
    wanted = [part for c in CHANNELS[:52] for part in _parts(c.name, c.short)]
    shapes = {name: obj.positions(folder / f"{name}.obj", len(vertices)) for name in wanted}
    people = sorted(folder.glob("identity[0-9]*.obj"))
    identity = np.zeros((len(people), *vertices.shape), np.float32)
    for i, person in enumerate(people):
        identity[i] = obj.positions(person, len(vertices)) - vertices
    content = small_files.read_json(folder / INDICES, RigError)
    try:
        marks = small_files.checked(_Indices, content, RigError)
    except RigError as error:
        raise error.at(path=folder / INDICES) from error
    return _Files(
        vertices,
        triangles,
        {name: posed - vertices for name, posed in shapes.items()},
        identity,
        np.array(marks.idx_to_landmark_verts, np.int32),
    )


def _checked(files: _Files, path: Path) -> _Files:
    if len(files.vertices) != VERTICES:
        problem = f"{len(files.vertices)} vertices, expected the model's {VERTICES}"
        raise RigError(problem, path=path, field="vertices")
    if files.landmarks.shape != (68,):
        raise RigError(f"{len(files.landmarks)} landmarks, expected 68", path=path)
    for name, ids in (("landmarks", files.landmarks), ("triangles", files.triangles)):
        if ids.min() < 0 or ids.max() >= VERTICES:
            raise RigError(f"{name} name vertices that do not exist", path=path, field=name)
    return files


def load(path: str | os.PathLike) -> Rig:
    """The rig of a file of arrays, or of the folder FaceXModel.

    Args:
      path: an .npz of `vertices` [V, 3] cm, `triangles` [T, 3], `expression_names`,
        `expression_deltas` [E, V, 3] and `identity_deltas` [I, V, 3], with the vertices of the
        landmarks in `ict_facekit.landmarks68.txt` beside it; or a folder of OBJ files.

    Raises:
      RigError: a file is missing, cannot be read or is of another model.
    """
    path = Path(path)
    files = _checked(_from_folder(path) if path.is_dir() else _from_arrays(path), path)
    vertices, blendshapes = files.vertices, _blendshapes(files.shapes, path)
    eyes = (
        Eye(LEFT_EYE, _eye_centre(vertices[LEFT_EYE][:SCLERA_VERTICES])),
        Eye(RIGHT_EYE, _eye_centre(vertices[RIGHT_EYE][:SCLERA_VERTICES])),
    )
    for eye in eyes:
        blendshapes[:, eye.vertices] = 0
    paint = _paint(vertices, files.landmarks)
    above_neck = vertices[:, 1] + 6.0 + 0.18 * vertices[:, 2]  # from a plane, chin to nape
    triangles = _seen(vertices, files.triangles)
    drawn = np.zeros(len(vertices), bool)
    drawn[triangles] = True
    heights = vertices[files.landmarks, 1]
    pupils = [
        _pupil(vertices, ball, eye.centre, drawn)
        for ball, eye in ((RIGHT_EYE, eyes[1]), (LEFT_EYE, eyes[0]))
    ]
    return Rig(
        name="ICT-FaceKit",
        neutral=vertices,
        blendshapes=blendshapes,
        identity=files.identity,
        triangles=triangles,
        material=_material(vertices, paint[:, PAINTS.index("lips")], eyes),
        paint=paint,
        eyes=eyes,
        head_weight=_smoothstep(-5.5, 0.0, above_neck).astype(np.float32),
        head_pivot=np.array(HEAD_PIVOT, np.float32),
        landmarks=np.array([*files.landmarks, *pupils], np.int32),
        known=known_channels(blendshapes, drawn, float(np.ptp(heights)), eyeballs=True),
    )


def _pupil(vertices: np.ndarray, ball: slice, centre: np.ndarray, drawn: np.ndarray) -> int:
    """The vertex drawn in the middle of the front of an eyeball."""
    from_centre = vertices[ball] - centre
    off_axis = np.hypot(from_centre[:, 0], from_centre[:, 1])
    off_axis[(from_centre[:, 2] < 0) | ~drawn[ball]] = np.inf
    return ball.start + int(off_axis.argmin())
