"""ICT-FaceKit's light face model as a Rig: someone else's head, only ever used for testing.

Its file holds vertices, triangles and float16 displacement fields under ICT's names. It has no
texture, so skin, lips, brows, irises and hair are distinguished here by vertex range and by place.
"""

from pathlib import Path

import cv2
import numpy as np

from sf_jax.face.channels import NAMES
from sf_jax.render.rig import MATERIALS, PAINTS, Eye, Rig

RIG = Path(__file__).parents[2] / "../shared/rigs/ict_facekit.npz"
HEAD_PIVOT = (0.0, -3.0, -1.0)

FACE, HEAD, MOUTH = slice(0, 9409), slice(0, 11248), slice(11248, 13294)
GUMS, TEETH = slice(14062, 17039), slice(17039, 21451)
LEFT_EYE, RIGHT_EYE = slice(21451, 23021), slice(23021, 24591)
SCLERA_VERTICES = 770  # of each eye, before those of the iris inside the cornea
CLEAR = slice(24591, 25351)  # tears and shadows about the eye, drawn by ICT as glass
LASHES = slice(25351, 26719)
IRIS_RADIUS, PUPIL_RADIUS = 0.66, 0.28  # cm, on the cornea
LASH_CARD, LASH_LENGTH = 114, 0.22  # vertices of each of the 12 cards, 3 above and 3 below; cm
BY_PARTS = {"BrowInnerUp": ("browInnerUp_L", "browInnerUp_R"),
            "CheekPuff": ("cheekPuff_L", "cheekPuff_R"), "TongueOut": ()}  # fmt: skip


def _smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _ict_name(name: str) -> str:
    """`MouthSmileLeft` → `mouthSmile_L`; `JawLeft` and `MouthLeft` are directions."""
    name = name[0].lower() + name[1:]
    if name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
        return name
    return name.removesuffix("Left").removesuffix("Right") + (
        "_L" if name.endswith("Left") else "_R" if name.endswith("Right") else ""
    )


def _blendshapes(names: list[str], deltas: np.ndarray) -> np.ndarray:
    """float32 [52, V, 3]; the file's EyeLook shapes move the lids alone, as a Rig's must."""
    out = np.zeros((52, *deltas.shape[1:]), np.float32)
    for i, name in enumerate(NAMES[:52]):
        for part in BY_PARTS.get(name, (_ict_name(name),)):
            out[i] += deltas[names.index(part)]
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


def _seen(vertices: np.ndarray, triangles: np.ndarray, eyes: tuple[Eye, Eye]) -> np.ndarray:
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
    for eye in eyes:
        inner = triangles >= eye.vertices.start + SCLERA_VERTICES
        keep &= ~(inner & (triangles < eye.vertices.stop)).any(axis=1)
    return np.ascontiguousarray(triangles[keep], np.int32)


def _lid_margin(vertices: np.ndarray) -> np.ndarray:
    """Vertices of the face near where the upper lashes grow, [n, 3]."""
    skin = vertices[FACE]
    low, high = vertices[LASHES].min(0), vertices[LASHES].max(0)
    return skin[((skin > low) & (skin < high)).all(axis=1)]


def load(path: str | Path = RIG) -> Rig:
    """Reads `ict_facekit.npz`, with the landmark file `ict_facekit.landmarks68.txt` beside it.

    Raises:
      FileNotFoundError: either is missing.
    """
    path = Path(path)
    with np.load(path) as file:
        vertices = file["vertices"].astype(np.float32)
        names = [str(name) for name in file["expression_names"]]
        blendshapes = _blendshapes(names, file["expression_deltas"])
        identity = file["identity_deltas"].astype(np.float32)
        triangles = file["triangles"].astype(np.int32)
    text = path.with_name("ict_facekit.landmarks68.txt").read_text()
    landmarks = np.array(text.replace(",", " ").split(), np.int32)
    eyes = (
        Eye(LEFT_EYE, _eye_centre(vertices[LEFT_EYE][:SCLERA_VERTICES])),
        Eye(RIGHT_EYE, _eye_centre(vertices[RIGHT_EYE][:SCLERA_VERTICES])),
    )
    paint = _paint(vertices, landmarks)
    above_neck = vertices[:, 1] + 6.0 + 0.18 * vertices[:, 2]  # from a plane, chin to nape
    return Rig(
        name="ICT-FaceKit",
        neutral=vertices,
        blendshapes=blendshapes,
        identity=identity,
        triangles=_seen(vertices, triangles, eyes),
        material=_material(vertices, paint[:, PAINTS.index("lips")], eyes),
        paint=paint,
        eyes=eyes,
        head_weight=_smoothstep(-5.5, 0.0, above_neck).astype(np.float32),
        head_pivot=np.array(HEAD_PIVOT, np.float32),
        landmarks=landmarks,
    )
