"""Where on a rig are lips, brows, eyelids, beard, neck and wrinkles: masks from its landmarks.

All masks are float32 [V] in [0, 1], soft at their edges, and symmetric where the rig is. Lengths
are relative to the rig's own face: a unit is the width between its outer eye corners over 9, about
a centimetre.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from sf_jax.face import landmarks as table
from sf_jax.face.channels import INDEX
from sf_jax.render.rig import MATERIALS, Rig, RigShapeError

# The fold lines of a face, for the subject's left: polylines through points of the frontal plane.
# A point is a landmark (iBUG number, left side) and a shift from it, in units, +x outwards.
LINES: dict[str, list[list[tuple[int, float, float]]]] = {
    "nasolabial": [[(35, 0.35, 0.35), (35, 0.95, -0.5), (54, 0.75, 0.6), (54, 0.95, -0.35)]],
    "marionette": [[(54, 0.35, -0.2), (54, 0.6, -1.0), (54, 0.55, -1.9)]],
    "crow": [
        [(45, 0.35, 0.35), (45, 1.3, 0.95)],
        [(45, 0.45, 0.0), (45, 1.6, 0.1)],
        [(45, 0.35, -0.3), (45, 1.3, -0.75)],
    ],
    "bag": [[(42, 0.0, -0.55), (47, 0.0, -0.8), (46, 0.0, -0.75), (45, 0.1, -0.45)]],
    "forehead": [
        [(22, -1.2, 1.1), (23, 0.0, 1.3), (25, 0.3, 1.3)],
        [(22, -1.2, 2.0), (23, 0.0, 2.2), (25, 0.2, 2.2)],
        [(22, -1.2, 2.9), (23, 0.0, 3.1), (25, 0.0, 3.0)],
    ],
    "glabella": [[(22, -0.55, -0.7), (22, -0.6, 0.2), (22, -0.5, 0.8)]],
    "bunny": [
        [(28, 0.0, 0.6), (28, 0.9, 0.1), (28, 1.1, -0.5)],
        [(28, 0.0, 0.1), (28, 0.8, -0.35), (28, 1.0, -0.9)],
    ],
    "dimple": [[(54, 0.75, 0.5), (54, 0.95, -0.1), (54, 0.85, -0.6)]],
    "chin": [[(57, -1.0, -0.95), (57, 0.0, -0.9), (56, 0.3, -1.0)]],
    "purse": [
        [(51, 0.25, 0.9), (51, 0.2, 0.1)],
        [(52, 0.15, 0.75), (52, 0.0, 0.05)],
        [(53, 0.1, 0.7), (53, -0.1, 0.1)],
        [(56, 0.0, -0.1), (56, 0.1, -0.6)],
        [(55, 0.0, -0.1), (55, 0.2, -0.6)],
    ],
}
WIDTH = 0.2  # standard deviation of a line's profile across, units


@dataclass(frozen=True, eq=False)
class Regions:
    """The masks of a rig; see the module.

    Attributes:
      mask: name → float32 [V]. "face" is what a frontal photograph shows of the skin; "skin" all of
        it, "ear", "neck", "scalp" and "cloth" its other parts.
      line: name → float32 [V], the folds of LINES, each side of its own: "crow Left", ….
      mirror: int32 [V], the nearest vertex to each one's mirror image.
      shade: float32 [V], how much of the sky a vertex of the neutral head sees, about 1 in front.
      points: float32 [V, 3], the neutral head in units.
      mouth_light: float32 [V], about 1 at the lips and less towards the throat.
      noise: float32 [2, 6, V], smooth random fields of unit variance, coarse and fine.
      core: top, bottom and half the width of what hair and cloth seldom cover, in units.
      face_vertices: those of the front of the face, for single marks.
      plain_vertices: some of bare skin in every person, for the tone of it.
      unit: length of a unit in the rig's own.
    """

    mask: dict[str, Float[np.ndarray, " V"]]
    line: dict[str, Float[np.ndarray, " V"]]
    mirror: Int[np.ndarray, " V"]
    shade: Float[np.ndarray, " V"]
    points: Float[np.ndarray, "V 3"]
    mouth_light: Float[np.ndarray, " V"]
    noise: Float[np.ndarray, "2 6 V"]
    core: tuple[float, float, float]
    face_vertices: Int[np.ndarray, " n"]
    plain_vertices: Int[np.ndarray, " m"]
    unit: float


def smooth(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 at `low`, 1 at `high`, a cubic between; `low` may be the larger."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def edges(triangles: Int[np.ndarray, "T 3"]) -> Int[np.ndarray, "E 2"]:
    """The edges of a mesh, each once."""
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    return np.unique(np.sort(pairs, axis=1), axis=0)


def normals(points: Float[np.ndarray, "V 3"], triangles: np.ndarray) -> Float[np.ndarray, "V 3"]:
    """Unit normals, weighted by area."""
    a, b, c = (points[triangles[:, i]].astype(np.float64) for i in range(3))
    across = np.cross(b - a, c - a)
    total = np.zeros((len(points), 3))
    for corner in range(3):
        np.add.at(total, triangles[:, corner], across)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)


def to_line(points: Float[np.ndarray, "n 2"], line: Float[np.ndarray, "m 2"]) -> np.ndarray:
    """Distance [n] from points to a polyline."""
    steps = np.linspace(0, len(line) - 1, 12 * (len(line) - 1) + 1)
    dense = np.stack([np.interp(steps, np.arange(len(line)), line[:, i]) for i in (0, 1)], 1)
    return cKDTree(dense).query(points)[0]


class _Face:
    """What the masks are made from: points in units, outwards from the middle, and landmarks."""

    def __init__(self, rig: Rig):
        marks = rig.landmarks[:68]
        if len(marks) < 68 or (marks < 0).any():
            raise RigShapeError(f"{rig.name}: skins need a rig with the 68 iBUG landmarks")
        points = rig.neutral.astype(np.float64)
        across = points[marks[45], 0] - points[marks[36], 0]
        self.unit = float(across / 9.0)
        self.points = points / self.unit
        self.marks = self.points[marks]
        self.normals = normals(points, rig.triangles)
        self.names = np.array(MATERIALS)[rig.material]
        self.out = np.abs(self.points[:, 0])
        self.y, self.z = self.points[:, 1], self.points[:, 2]
        self.flat = np.stack([self.out, self.y], 1)
        self.skin = np.isin(self.names, ["skin", "lips", "brow"])
        self.front = self.skin * smooth(0.1, 0.4, self.normals[:, 2])
        pairs = edges(rig.triangles)
        length = np.linalg.norm(self.points[pairs[:, 0]] - self.points[pairs[:, 1]], axis=1)
        total = np.bincount(pairs.ravel(), np.repeat(length, 2), len(points))
        self.spacing = total / np.maximum(np.bincount(pairs.ravel(), minlength=len(points)), 1)

    def left(self, index: int | slice | list[int]) -> np.ndarray:
        """Landmarks of the left side in the frontal plane."""
        return self.marks[index, :2]

    def blob(self, centre: np.ndarray, width: float, height: float) -> np.ndarray:
        """A Gaussian on the front of the face."""
        away = ((self.out - centre[0]) / width) ** 2 + ((self.y - centre[1]) / height) ** 2
        return np.exp(-0.5 * away) * self.front

    def near(self, line: np.ndarray, width: float) -> np.ndarray:
        """A soft stripe along a polyline on the front of the face, wide enough for the mesh."""
        sigma = np.maximum(width, 0.6 * self.spacing)
        return np.exp(-0.5 * (to_line(self.flat, line) / sigma) ** 2) * self.front


def _below_jaw(face: _Face) -> np.ndarray:
    """How far each vertex is below the jaw line at its own direction around the neck, units."""
    centre = face.marks[16, 2] - 3.0
    jaw = face.marks[table.JAW][8:]  # chin to the left ear

    def turn(points: np.ndarray) -> np.ndarray:
        return np.arctan2(np.abs(points[:, 0]), points[:, 2] - centre)

    height = np.interp(turn(face.points), turn(jaw)[:6], jaw[:6, 1])
    return height - face.y


def _lids(face: _Face, rig: Rig) -> dict[str, np.ndarray]:
    """The skin around the eyes, from the lid margins, and what blinks move of it."""
    upper, lower = face.left([42, 43, 44, 45]), face.left([42, 47, 46, 45])
    near = to_line(face.flat, np.concatenate([upper, lower[::-1]]))
    middle = 0.5 * (face.left(42) + face.left(45))
    over = np.where(face.y > np.interp(face.out, upper[:, 0], upper[:, 1]), 1.0, 0.0)
    under = np.where(face.y < np.interp(face.out, lower[:, 0], lower[:, 1]), 1.0, 0.0)
    inside = (face.out > upper[0, 0] - 0.2) & (face.out < upper[-1, 0] + 0.3)
    margin = (1 - smooth(0.1, 0.3, near)) * face.skin * smooth(5.0, 6.0, face.z)
    blink = sum(rig.blendshapes[INDEX[f"EyeBlink{side}"]] for side in ("Left", "Right"))
    moved = np.linalg.norm(blink, axis=1) * face.skin
    return {
        "lid": smooth(0.25, 0.55, moved / max(float(moved.max()), 1e-6)),
        "lid donor": face.blob(np.add(middle, (0.3, 1.1)), 1.3, 0.3)
        + face.blob(np.add(middle, (0.6, -2.0)), 1.0, 0.4),
        "upper lid": (1 - smooth(0.35, 0.9, near)) * over * inside * face.skin,
        "shut lid": (1 - smooth(0.3, 0.55, near)) * (near < 2) * face.skin * inside,
        "liner": margin * np.where(over > 0, 1.0, 0.4 * under),
        "shadow": (1 - smooth(0.5, 1.6, near)) * over * face.front,
        "ring": face.blob(middle - [0.25, 1.15], 1.3, 0.5)
        + 0.6 * face.blob(face.left(42) - [0.1, 0.1], 0.5, 0.6),
    }


def _masks(face: _Face, rig: Rig) -> dict[str, np.ndarray]:
    below = _below_jaw(face)
    lips = _lips(face)
    nose, mouth, chin = face.left(33), face.left(51), face.left(57)
    brow = face.near(face.left(slice(22, 27)) - [0.0, 0.15], 0.3)
    beard = smooth(mouth[1] + 0.4, mouth[1] - 1.0, face.y + 0.3 * np.clip(face.out - 3.6, 0, 3))
    sideburn = smooth(5.6, 6.6, face.out) * smooth(face.marks[45, 1] + 1, mouth[1], face.y)
    beard = np.maximum(beard, sideburn) * face.skin * smooth(1.5, 3.0, face.z)
    beard = beard * (1 - smooth(1.5, 3.0, below)) * (1 - lips)
    around = face.blob(np.array([0.0, 0.5 * (nose[1] + mouth[1]) - 0.1]), 1.5, 0.4)
    goatee = face.blob(np.array([0.0, chin[1] - 1.8]), 1.4, 1.2)
    neck = face.skin * smooth(0.2, 1.0, below)
    ear = face.skin * smooth(0.93, 0.97, face.out / face.marks[16, 0])
    ear = ear * smooth(face.marks[16, 2] - 0.2, face.marks[16, 2] - 0.8, face.z) * (below < 0.5)
    masks = {
        "skin": face.skin.astype(np.float64),
        "face": face.front * (1 - neck) * (1 - ear),
        "neck": neck,
        "ear": ear,
        "lips": lips,
        "brow": brow,
        "blush": face.blob(np.array([4.4, 0.5 * (nose[1] + face.left(46)[1])]), 1.4, 1.0),
        "beard": beard,
        "moustache": np.clip(1.3 * around, 0, 1) * (1 - lips),
        "goatee": goatee * (1 - lips),
        "nose": face.blob(face.left(30), 0.9, 0.8),
        "nostrils": np.clip(1.6 * face.blob(face.left(34) + np.array([0.3, 0.3]), 0.85, 0.5), 0, 1),
    } | _lids(face, rig)
    for name in MATERIALS:  # in their order, which a set would not keep
        if name not in ("skin", "lips", "brow", "object"):  # found by landmarks, or none
            masks["scalp" if name == "hair" else name] = (face.names == name).astype(np.float64)
    return {name: np.clip(mask, 0, 1).astype(np.float32) for name, mask in masks.items()}


def _lips(face: _Face) -> np.ndarray:
    """The vermilion, from the outer outline of the lips; what is within the mouth counts as lip."""
    outline = face.left(slice(51, 55)), face.left([54, 55, 56, 57])
    x = face.out
    top = np.interp(x, outline[0][:, 0], outline[0][:, 1])
    low = np.interp(x, outline[1][::-1, 0], outline[1][::-1, 1])
    inside = np.minimum(np.minimum(top - face.y, face.y - low), 0.8 * (outline[0][-1, 0] - x))
    deep = face.z > face.marks[54, 2] - 0.6
    return smooth(-0.08, 0.12, inside) * face.skin * deep


def _lines(face: _Face) -> dict[str, np.ndarray]:
    out = {}
    for name, strokes in LINES.items():
        mask = np.zeros(len(face.points))
        for stroke in strokes:
            line = np.array([np.add(face.left(i), (dx, dy)) for i, dx, dy in stroke])
            mask = np.maximum(mask, face.near(line, WIDTH))
        for side, own in (("Left", face.points[:, 0] >= 0), ("Right", face.points[:, 0] < 0)):
            out[f"{name} {side}"] = (mask * own).astype(np.float32)
    return out


def _noise(points: np.ndarray) -> np.ndarray:
    """Sums of waves in random directions; the same for every rig, as people mix them anew."""
    g = np.random.default_rng(0)
    fields = np.zeros((2, 6, len(points)), np.float32)
    for band, size in enumerate((1.4, 0.45)):
        for row in fields[band]:
            for _ in range(5):
                row += np.sin(points @ g.normal(0, 1 / size, 3) + g.uniform(0, 2 * np.pi))
    return fields * np.float32(np.sqrt(2 / 5))


def regions(rig: Rig) -> Regions:
    """The masks of a rig.

    Raises:
      RigShapeError: the rig lacks one of the 68 iBUG landmarks.
    """
    face = _Face(rig)
    mirror = cKDTree(face.points).query(face.points * [-1, 1, 1])[1].astype(np.int32)
    light = face.normals @ (np.array([0, 0.45, 0.9]) / np.hypot(0.45, 0.9))
    shade = np.clip(0.78 + 0.24 * light, 0.5, 1.0)
    shade = shade * (1 - 0.22 * smooth(0.5, 3.0, _below_jaw(face)) * face.skin)
    mouth_light = 0.35 + 0.6 * smooth(-2.5, 0.2, face.z - face.marks[54, 2])
    masks = _masks(face, rig)
    face_vertices = np.flatnonzero(
        (masks["face"] > 0.8) & (masks["lips"] < 0.1) & (masks["brow"] < 0.1)
    )
    bare = np.zeros(len(face.points), bool)
    bare[face_vertices] = True
    for name, most in (("beard", 0.1), ("shadow", 0.1), ("ring", 0.3)):
        bare &= masks[name] < most
    return Regions(
        masks,
        _lines(face),
        mirror,
        shade.astype(np.float32),
        face.points.astype(np.float32),
        mouth_light.astype(np.float32),
        _noise(face.points),
        (float(face.marks[19, 1]), float(face.marks[57, 1]), float(face.marks[45, 0]) + 0.3),
        face_vertices,
        np.flatnonzero(bare)[::3],
        face.unit,
    )
