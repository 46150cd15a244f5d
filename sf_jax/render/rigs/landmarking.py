"""The 70 landmarks of a head of any topology, found from its geometry and the motion of its shapes.

Seen from the front, each shape moves a part of the face: the middles of those parts are anchors
that every rig shares with the built-in head, whose landmarks are known. A smooth map through the
anchors carries them over. What can be seen directly replaces that: the outlines of the eyes, the
slit between the lips, the tip of the nose, the outline of the jaw.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.interpolate import RBFInterpolator

from sf_jax.face import landmarks
from sf_jax.face.channels import CHANNELS, INDEX
from sf_jax.render.head import builtin
from sf_jax.render.raster import vertex_normals
from sf_jax.render.rig import MATERIALS
from sf_jax.render.rigs.front import SIDE, view

CORE = 0.6  # of a shape's largest motion, from which a pixel belongs to its core
LOOSE = {"Jaw", "Tongue", "MouthClose", "MouthLeft", "MouthRight", "EyeLook", "MouthPress"}
FARTHEST = 0.12  # of the square, that an anchor may be off the affine map through all
INNER = [60, 61, 62, 63, 64, 65, 66, 67]
LEAST_PIXELS = 6  # of an eye that is seen


@dataclass(frozen=True)
class Head:
    """A head whose landmarks are asked for, with +x its left, +y up and +z forward.

    Attributes:
      vertices: float32 [V, 3]; triangles: int32 [T, 3]; shapes: float32 [52, V, 3].
      eyes: bool [2, V], the vertices of the left and of the right eye between its lids.
      drawn: bool [T], triangles of the face; hair and the like left out.
      brows: bool [V], vertices of brows that are meshes of their own.
    """

    vertices: Float[np.ndarray, "V 3"]
    triangles: Int[np.ndarray, "T 3"]
    shapes: Float[np.ndarray, "52 V 3"]
    eyes: Bool[np.ndarray, "2 V"]
    drawn: Bool[np.ndarray, " T"]
    brows: Bool[np.ndarray, " V"]


class Seen:
    """A head seen from the front, and the anchors found on it, all in [0, 1] of the square."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.front = view(head.vertices, head.triangles, head.shapes, head.drawn)
        self.pixels = self.front.pixels()
        self.eye = np.stack([eye[self.front.corners].all(-1) for eye in head.eyes])  # [2, n]
        self.anchors = self._cores()
        self.slit = self._slit()

    def size(self, name: str) -> Float[np.ndarray, " n"]:
        """How far a shape moves each pixel, of its most; zeros where it moves nothing."""
        moved = np.linalg.norm(self.front.at(self.head.shapes[INDEX[name]]), axis=1)
        moved[self.eye.any(0)] = 0
        return moved / moved.max() if len(moved) and moved.max() > 0 else moved

    def _middle(self, weight: np.ndarray) -> np.ndarray | None:
        core = np.maximum(weight - CORE, 0)
        return core @ self.pixels / core.sum() if core.sum() > 0 else None

    def _cores(self) -> dict[str, np.ndarray]:
        """Middles of what each shape moves most, by its name; left and right of shapes of both."""
        found: dict[str, np.ndarray | None] = {}
        blinks = [self._middle(self.size(f"EyeBlink{side}")) for side in ("Left", "Right")]
        both = [middle[0] for middle in blinks if middle is not None]
        axis = float(np.mean(both)) if len(both) == 2 else 0.5
        for channel in CHANNELS[:52]:
            if any(channel.name.startswith(loose) for loose in LOOSE):
                continue
            size = self.size(channel.name)
            if channel.side != "both":
                parts = {channel.name: size}
            else:
                left = self.pixels[:, 0] > axis
                parts = {channel.name + "L": size * left, channel.name + "R": size * ~left}
            found |= {name: self._middle(part) for name, part in parts.items()}
        return {name: middle for name, middle in found.items() if middle is not None}

    def _slit(self) -> Float[np.ndarray, "m 4"] | None:
        """x, y of the upper and y of the lower lip's edge and the jump of motion, by column."""
        corners = [self.anchors.get(f"MouthSmile{side}") for side in ("Right", "Left")]
        jaw = self.front.at(self.head.shapes[INDEX["JawOpen"]])[:, 1]
        if any(corner is None for corner in corners) or not len(jaw) or jaw.min() >= 0:
            return None
        falls = np.zeros((SIDE, SIDE), np.float32)
        falls[self.front.rows, self.front.columns] = np.where(self.eye.any(0), 0, jaw / jaw.min())
        right, left = np.array(corners)
        margin, middle = 0.35 * (left[0] - right[0]), 0.5 * (left[1] + right[1])
        columns = np.arange(
            max(int((right[0] - margin) * SIDE), 0), min(int((left[0] + margin) * SIDE), SIDE)
        )
        reach = int(0.6 * (left[0] - right[0]) * SIDE) + 3
        top = max(int((1 - middle) * SIDE) - reach, 0)
        part = falls[top : top + 2 * reach, columns]
        if len(part) < 9 or not len(columns):
            return None
        steps = part[2:] - part[:-2]
        # Where the skin is stretched the motion changes steadily: only what exceeds that is a jump.
        jumps = steps[2:-2] - np.maximum(steps[:-4], steps[4:])
        row = jumps.argmax(0) + 2
        jump = jumps.max(0)
        y = 1 - (top + row + 1.5) / SIDE
        out = np.stack([(columns + 0.5) / SIDE, y + 0.75 / SIDE, y - 0.75 / SIDE, jump], 1)
        out = out[jump > 0.12]
        return out if len(out) >= 6 else None


@cache
def _template() -> Seen:
    rig = builtin()
    eyes = np.zeros((2, len(rig.neutral)), bool)
    for i, eye in enumerate(rig.eyes):
        eyes[i, eye.vertices] = True
    every = np.ones(len(rig.triangles), bool)
    brows = rig.material == MATERIALS.index("brow")
    return Seen(Head(rig.neutral, rig.triangles, rig.blendshapes, eyes, every, brows))


def _inner_lips(slit: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "8 2"]:
    """Landmarks 60 to 67 on the slit: corners, and points between on both lips."""
    x = slit[:, 0]
    right, left = x.min(), x.max()
    along = np.array([0, 0.27, 0.5, 0.73, 1, 0.73, 0.5, 0.27])
    at = right + along * (left - right)
    upper, lower = np.interp(at, x, slit[:, 1]), np.interp(at, x, slit[:, 2])
    y = np.where([True, True, True, True, True, False, False, False], upper, lower)
    y[[0, 4]] = 0.5 * (upper + lower)[[0, 4]]
    return np.stack([at, y], 1)


def _eye_outline(pixels: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "6 2"]:
    """The six landmarks of an eye, from the pixels that show its ball.

    In either eye they run from the subject's right over the upper lid and back below.
    """
    x, y = pixels.T
    low, high = x.min(), x.max()
    ends = [[end, y[np.abs(x - end) < 2.5 / SIDE].mean()] for end in (low, high)]
    between = []
    for share in (0.3, 0.7):
        near = np.abs(x - (low + share * (high - low))) < 2 / SIDE
        middle = low + share * (high - low)
        between.append(([middle, y[near].max()], [middle, y[near].min()]))
    (first_up, first_down), (last_up, last_down) = between
    return np.array([ends[0], first_up, last_up, ends[1], last_down, first_down])


def _along(pixels: Float[np.ndarray, "n 2"], count: int) -> Float[np.ndarray, "c 2"]:
    """Points along the middle line of a brow, from its right to its left end."""
    x, y = pixels.T
    at = np.linspace(x.min(), x.max(), count)
    near = np.abs(x - at[:, None]) < 0.1 * np.ptp(x) + 1 / SIDE
    return np.stack([at, (near * y).sum(1) / np.maximum(near.sum(1), 1)], 1)


def _direct(seen: Seen) -> dict[int, np.ndarray]:
    """Landmarks that are seen directly, by number, [2] in the square."""
    found: dict[int, np.ndarray] = {}
    for eye, numbers, pupil in ((1, landmarks.RIGHT_EYE, 68), (0, landmarks.LEFT_EYE, 69)):
        pixels = seen.pixels[seen.eye[eye]]
        if len(pixels) >= LEAST_PIXELS:
            outline = _eye_outline(pixels)
            found |= dict(zip(range(numbers.start, numbers.stop), outline, strict=True))
            found[pupil] = pixels.mean(0)
    brow = seen.head.brows[seen.front.corners].all(-1)
    if brow.any():
        right = seen.pixels[:, 0] < seen.pixels[brow, 0].mean()
        for first, side in ((17, right), (22, ~right)):
            pixels = seen.pixels[brow & side]
            if len(pixels) >= LEAST_PIXELS:
                found |= dict(enumerate(_along(pixels, 5), first))
    if seen.slit is not None:
        inner = _inner_lips(seen.slit)
        found |= dict(zip(INNER, inner, strict=True))
    return found


def _smooth_map(source: Seen, target: Seen) -> RBFInterpolator | None:
    """The map from the source's square to the target's through anchors of both."""
    names = [name for name in source.anchors if name in target.anchors]
    start = [source.anchors[name] for name in names]
    end = [target.anchors[name] for name in names]
    stiffness = [0.02] * len(names)
    ours, theirs = _direct(source), _direct(target)
    for number in ours:
        if number in theirs and number < 68:
            start.append(ours[number])
            end.append(theirs[number])
            stiffness.append(0.0005)
    a, b, soft = np.array(start), np.array(end), np.array(stiffness)
    if len(a) < 8:
        return None
    rows = np.column_stack([a, np.ones(len(a))])
    weight = np.ones(len(a))
    for _ in range(10):
        scaled = rows * weight[:, None]
        affine = np.linalg.lstsq(scaled, b * weight[:, None], rcond=None)[0]
        off: np.ndarray = np.sqrt(np.square(rows @ affine - b).sum(1))
        weight = 1 / np.sqrt(1 + (off / 0.03) ** 2)
    keep = np.flatnonzero(off < FARTHEST)
    if len(keep) < 8:
        return None
    return RBFInterpolator(
        a[keep], b[keep], kernel="thin_plate_spline", smoothing=soft[keep], degree=1
    )


def _on_jaw(seen: Seen, marks: Float[np.ndarray, "70 2"]) -> Float[np.ndarray, "17 2"]:
    """Landmarks of the jaw moved along rays from the mouth to the outline of the face."""
    depth = seen.front.image(seen.head.vertices[:, 2])
    normals = vertex_normals(seen.head.vertices, seen.head.triangles)
    facing = seen.front.image(np.abs(normals[:, 2]))
    centre = 0.5 * (marks[landmarks.NOSE_TIP] + marks[51])
    jaw = marks[landmarks.JAW].copy()
    for i, mark in enumerate(jaw):
        shares = np.linspace(0.6, 1.3, 60)
        points = centre + shares[:, None] * (mark - centre)
        rows = np.clip(((1 - points[:, 1]) * SIDE).astype(int), 0, SIDE - 1)
        columns = np.clip((points[:, 0] * SIDE).astype(int), 0, SIDE - 1)
        z = depth[rows, columns] / seen.front.side
        drop = np.append(np.nan_to_num(z[:-1] - z[1:], nan=1.0), 1.0) > 0.03
        edge = drop | np.isnan(z) | (facing[rows, columns] < 0.3)
        if edge.any():
            jaw[i] = points[max(int(edge.argmax()) - 1, 0)]
    return jaw


def _symmetric(marks: Float[np.ndarray, "70 2"]) -> Float[np.ndarray, "70 2"]:
    """Landmarks averaged with their mirror images, about the axis through their middle."""
    axis = np.median(0.5 * (marks + marks[landmarks.MIRROR])[:, 0])
    mirrored = marks[landmarks.MIRROR] * [-1, 1] + [2 * axis, 0]
    return 0.5 * (marks + mirrored)


def positions(seen: Seen) -> Float[np.ndarray, "70 2"] | None:
    """Landmarks in the square of a front view; None where too few shapes move."""
    source = _template()
    carry = _smooth_map(source, seen)
    if carry is None:
        return None
    rig = builtin()
    marks = carry(source.front.to_square(rig.neutral[rig.landmarks]))
    direct = _direct(seen)
    for number, at in direct.items():
        marks[number] = at
    if seen.slit is not None:
        off = 0.05 * (marks[64] - marks[60])
        marks[48], marks[54] = marks[60] - off, marks[64] + off
    marks = _symmetric(marks)
    marks[landmarks.JAW] = _on_jaw(seen, marks)
    tip = np.linalg.norm(seen.pixels - marks[landmarks.NOSE_TIP], axis=1) < 0.06
    if tip.any():
        z = np.where(tip, seen.front.at(seen.head.vertices[:, 2]), -np.inf)
        marks[landmarks.NOSE_TIP] = seen.pixels[z.argmax()]
    return marks


def find(head: Head) -> Int[np.ndarray, " 70"]:
    """The vertices of the landmarks; -1 where they cannot be found."""
    seen = Seen(head)
    found = np.full(landmarks.COUNT, -1, np.int32)
    marks = positions(seen)
    if marks is None:
        return found
    ball = head.eyes.any(0)
    shown = np.zeros(len(head.vertices), bool)
    shown[seen.front.corners] = True
    flat = seen.front.to_square(head.vertices)
    falls = head.shapes[INDEX["JawOpen"], :, 1]
    fall = falls / falls.min() if falls.min() < 0 else np.zeros(len(falls))
    for number, mark in enumerate(marks):
        allowed = shown & ~ball
        if number >= 68:
            allowed = shown & head.eyes[69 - number]
        elif number in (49, 50, 51, 52, 53, 61, 62, 63):
            allowed &= fall < 0.35
        elif number in (55, 56, 57, 58, 59, 65, 66, 67) and falls.min() < 0:
            allowed &= fall > (0.05 if number in (55, 59) else 0.2)
        if allowed.any():
            away = np.where(allowed, np.linalg.norm(flat - mark, axis=1), np.inf)
            found[number] = away.argmin()
    return found
