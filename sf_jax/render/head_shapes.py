"""The 52 blendshapes of the built-in head as displacement fields (cm at coefficient 1).

A left shape is written once and mirrored for the right; a shape of both sides is made symmetric.
Lids and lips are shaped by their rings, everything else by soft masks in space, and the jaw turns
about a hinge before the ears.
"""

from collections.abc import Callable

import numpy as np

from sf_jax.face.channels import BLENDSHAPES, CHANNELS, NAMES
from sf_jax.render import head_surface as surface
from sf_jax.render.head_parts import MATERIAL, Part
from sf_jax.render.head_surface import EYE, LID_RADIUS, MOUTH_HALF_WIDTH, MOUTH_Y, smoothstep

HINGE = np.array([0.0, 0.2, 0.2])
JAW_RADIANS = 0.36
CORNER = (2.45, MOUTH_Y, 8.0)


class Anatomy:
    """The head's vertices with the masks that the shapes share, all [V] or [V, 3].

    Attributes:
      points, part: the neutral head.
      left: 1 on the left, 0 on the right, soft across 1.6 cm at the middle.
      outside: how far a vertex goes with the skin.
      upper_lip, lower_lip: 1 on the lip's red, soft around it.
      off_lid: less than 1 on the lids, which follow brows only in part.
      jaw: how far a vertex turns with the jaw.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self.points = part.points
        self.x, self.y, self.z = part.points.T
        self.left = smoothstep(-0.8, 0.8, self.x)
        self.outside = part.skin
        near_lip = np.exp(-(np.maximum(part.lip_step - 0.9, 0.0) ** 2) / 0.25)
        near_lip = near_lip * (part.lip_step < 8) * part.skin
        corners = np.where(part.lip_side == 0, 0.5, 1.0)
        self.upper_lip = near_lip * np.where(part.lip_side >= 0, corners, 0.0)
        self.lower_lip = near_lip * np.where(part.lip_side <= 0, corners, 0.0)
        self.across_mouth = np.clip(np.abs(self.x) / MOUTH_HALF_WIDTH, 0.0, 1.0)
        self.off_lid = 0.2 + 0.8 * smoothstep(0.15, 0.9, part.lid_step)
        self.jaw = self._jaw_weight()

    def _jaw_weight(self) -> np.ndarray:
        """0 above the mouth, 1 below, with a jump at the slit that fades to its corners."""
        reach = 1.9
        towards_hinge = np.clip((8.5 - self.z) / 8.5, 0.0, 1.0) * 2.2  # the line rises to the ear
        below = MOUTH_Y + towards_hinge - self.y
        jump = np.sqrt(np.maximum(1 - self.across_mouth**2, 0.0)) * reach
        on_line = np.where(self.part.lip_step < 0.1, 0.0, below)
        weight = smoothstep(-reach, reach, on_line - self.part.lip_side * jump)
        before_ear = smoothstep(-1.5, 2.0, self.z)
        moves = np.where(self.part.lip_step < 8, 1.0, self.part.skin)
        return np.maximum(weight * before_ear * moves, self.part.jaw)

    def blob(self, centre: tuple, radii: tuple) -> np.ndarray:
        """A Gaussian mask on the skin, 1 at `centre`, with the given deviations (cm)."""
        scaled = (self.points - centre) / np.asarray(radii, float)
        return np.exp(-0.5 * (scaled**2).sum(axis=1)) * self.outside

    def jaw_turn(self) -> np.ndarray:
        """How each vertex would move if it turned fully with the opening jaw, [V, 3]."""
        y, z = (self.points - HINGE)[:, 1:].T
        cos, sin = np.cos(JAW_RADIANS), np.sin(JAW_RADIANS)
        return np.stack([0 * y, y * cos - z * sin - y, y * sin + z * cos - z], axis=1)


def _along(mask: np.ndarray, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    return mask[:, None] * np.array([x, y, z])


# Eyelids -------------------------------------------------------------------------------------


def _lid(a: Anatomy, upper: float, lower: float, sideways: float = 0.0) -> np.ndarray:
    """Lids of the left eye moved towards (positive) or away from each other.

    `upper` and `lower` are parts of the open height that each margin crosses; the vertices slide
    on the sphere of the lid, further rings less.
    """
    lid = (a.part.lid_step < 8) & (a.x > 0)
    x, y = a.x[lid], a.y[lid]
    share = (1.0 - np.clip(a.part.lid_step[lid], 0, 1)) ** 1.3
    opening = surface.lid_line(x, True) - surface.lid_line(x, False)
    travel = np.where(a.part.lid_side[lid] > 0, -upper, lower) * opening * share
    shift = sideways * share * np.clip(1 - ((x - EYE[0]) / surface.EYE_HALF_WIDTH) ** 2, 0, 1)

    def height(px: np.ndarray, py: np.ndarray) -> np.ndarray:
        radius = (px - EYE[0]) ** 2 + (py - EYE[1]) ** 2
        return np.sqrt(np.maximum(LID_RADIUS**2 - radius, 0.05))

    rise = height(x + shift, y + travel) - height(x, y)
    moved = np.zeros_like(a.points)
    moved[lid] = np.stack([shift, travel, np.clip(rise, -0.4, 0.6) * share], axis=1)
    return moved


def _eye_blink(a: Anatomy) -> np.ndarray:
    brow = a.blob((3.1, 4.1, 8.2), (1.2, 0.5, 2.0))
    return _lid(a, 0.93, 0.10) + _along(brow, y=-0.08)


def _eye_squint(a: Anatomy) -> np.ndarray:
    below = a.blob((3.4, 0.9, 8.0), (1.3, 0.7, 2.0)) * (a.part.lid_side <= 0)
    outer = a.blob((4.9, 2.3, 7.0), (0.6, 0.7, 1.5)) * (a.part.lid_step > 0.2)
    return _lid(a, 0.10, 0.36) + _along(below, 0.05, 0.35, 0.22) + _along(outer, -0.25, 0.05, 0.1)


def _eye_wide(a: Anatomy) -> np.ndarray:
    return _lid(a, -0.42, -0.16) + _along(a.blob((3.0, 4.3, 8.0), (1.4, 0.6, 2.0)), y=0.2)


def _eye_look_down(a: Anatomy) -> np.ndarray:
    return _lid(a, 0.45, -0.1)


def _eye_look_up(a: Anatomy) -> np.ndarray:
    return _lid(a, -0.28, 0.14)


def _eye_look_in(a: Anatomy) -> np.ndarray:
    return _lid(a, 0.05, 0.0, sideways=-0.16)


def _eye_look_out(a: Anatomy) -> np.ndarray:
    return _lid(a, 0.0, 0.06, sideways=0.16)


# Jaw -----------------------------------------------------------------------------------------


def _jaw_open(a: Anatomy) -> np.ndarray:
    hollow = a.blob((5.0, -3.6, 5.5), (1.2, 1.8, 1.6)) + a.blob((-5.0, -3.6, 5.5), (1.2, 1.8, 1.6))
    inward = -np.tanh(a.x)[:, None] * _along(hollow, x=0.3)
    corners = np.exp(-0.5 * ((a.y - MOUTH_Y) / 1.6) ** 2) * np.exp(-0.5 * (a.x / 3.0) ** 4)
    narrower = -0.14 * a.x * corners * smoothstep(5.0, 7.0, a.z) * a.outside
    return a.jaw[:, None] * a.jaw_turn() + inward + _along(narrower, x=1.0)


def _jaw_forward(a: Anatomy) -> np.ndarray:
    return _along(a.jaw, y=0.0, z=1.15)


def _jaw_left(a: Anatomy) -> np.ndarray:
    return _along(a.jaw * smoothstep(-3.0, 8.5, a.z), x=1.25, y=-0.05)


def _mouth_close(a: Anatomy) -> np.ndarray:
    """Brings the lips together over an open jaw: undoes the parting that JawOpen makes."""
    line = np.where(a.part.lip_step < 0.1, 0.0, a.y - MOUTH_Y)
    near = np.exp(-0.5 * (line / 1.15) ** 2) * np.exp(-0.5 * (a.x / 3.1) ** 6)
    near = near * smoothstep(5.5, 7.5, a.z) * a.outside * (a.part.lip_step < 8)
    return (0.6 - a.jaw)[:, None] * a.jaw_turn() * near[:, None]


# Mouth ---------------------------------------------------------------------------------------


def _lips(a: Anatomy) -> np.ndarray:
    return np.clip(a.upper_lip + a.lower_lip, 0.0, 1.0)


def _rounding(a: Anatomy, inward: float) -> np.ndarray:
    """The mouth's corners and the skin around drawn to the middle."""
    mask = np.exp(-0.5 * ((a.y - MOUTH_Y) / 1.5) ** 2) * np.exp(-0.5 * (a.x / 2.9) ** 4)
    mask = mask * a.outside * smoothstep(4.5, 7.0, a.z) * (a.y < -2.4)
    return mask[:, None] * np.stack([-inward * a.x, 0 * a.x, 0 * a.x], axis=1)


def _mouth_funnel(a: Anatomy) -> np.ndarray:
    middle = 1 - 0.75 * a.across_mouth**2
    around = a.blob((0, MOUTH_Y, 9.0), (2.0, 1.3, 2.5))
    return (
        _rounding(a, 0.34)
        + _along(_lips(a) * middle, z=0.75)
        + _along(around, z=0.25)
        + _along(a.upper_lip * middle, y=0.62)
        + _along(a.lower_lip * middle, y=-0.72)
    )


def _mouth_pucker(a: Anatomy) -> np.ndarray:
    middle = 1 - 0.7 * a.across_mouth**2
    around = a.blob((0, MOUTH_Y, 9.0), (1.9, 1.2, 2.5))
    thicker = _along(a.upper_lip * middle * (a.part.lip_step > 0.2), y=0.14)
    thinner = _along(a.lower_lip * middle * (a.part.lip_step > 0.2), y=-0.16)
    return (
        _rounding(a, 0.48)
        + _along(_lips(a) * middle, z=0.95)
        + _along(around, z=0.35)
        + (thicker + thinner)
    )


def _mouth_left(a: Anatomy) -> np.ndarray:
    mask = a.blob((0.3, MOUTH_Y, 8.8), (2.3, 1.5, 2.6))
    return _along(mask, x=1.15, z=-0.12) + _along(a.blob(CORNER, (0.9, 1.0, 1.5)), y=0.2, z=-0.3)


def _corner(a: Anatomy, x: float, y: float, z: float, reach: float = 1.0) -> np.ndarray:
    """The left corner of the mouth pulled, with lips and cheek following."""
    lips_follow = _lips(a) * np.clip(a.x / MOUTH_HALF_WIDTH, 0, 1) ** 1.7
    around = a.blob(CORNER, (1.15 * reach, 1.15 * reach, 2.2)) * a.left
    return _along(np.maximum(lips_follow, around), x, y, z)


def _mouth_smile(a: Anatomy) -> np.ndarray:
    cheek = a.blob((3.9, -1.6, 7.4), (1.2, 1.1, 1.6)) * a.left
    fold = a.blob((3.2, -3.0, 8.0), (0.5, 0.9, 1.5)) * a.left
    return (
        _corner(a, 0.75, 1.0, -0.55)
        + _along(cheek, 0.3, 0.45, 0.45)
        + _along(fold, 0.05, 0.1, -0.15)
    )


def _mouth_frown(a: Anatomy) -> np.ndarray:
    chin = a.blob((2.3, -6.2, 7.8), (0.9, 0.8, 1.6)) * a.left
    return _corner(a, 0.15, -1.0, -0.2) + _along(chin, 0.1, -0.3, 0.12)


def _mouth_dimple(a: Anatomy) -> np.ndarray:
    pit = a.blob((3.15, MOUTH_Y + 0.05, 7.7), (0.6, 0.7, 1.2)) * a.left
    rim = a.blob((4.4, MOUTH_Y + 0.1, 7.0), (0.7, 1.2, 1.6)) * a.left
    return _corner(a, 0.4, 0.12, -0.6, 0.8) + _along(pit, 0, 0, -0.35) + _along(rim, 0.4, 0, 0.5)


def _mouth_stretch(a: Anatomy) -> np.ndarray:
    neck = a.blob((3.4, -6.3, 6.4), (1.3, 1.1, 1.8)) * a.left
    lower = a.lower_lip * smoothstep(0.2, 1.8, a.x) * (1 - a.across_mouth**4)
    return (
        _corner(a, 1.05, -0.35, -0.55, 1.15)
        + _along(neck, 0.4, -0.35, 0.1)
        + _along(lower, 0.0, -0.28)
    )


def _mouth_roll_lower(a: Anatomy) -> np.ndarray:
    middle = 1 - a.across_mouth**3
    skin = a.blob((0, MOUTH_Y - 1.2, 9.0), (1.8, 0.5, 2.0)) * (a.part.lip_side <= 0)
    red = a.lower_lip * middle
    outward = np.clip(a.part.lip_step, 0, 1)  # the border is drawn to the slit
    return _along(red, y=0.12, z=-0.5) + _along(red * outward, y=0.5) + _along(skin, y=0.2, z=-0.1)


def _mouth_roll_upper(a: Anatomy) -> np.ndarray:
    middle = 1 - a.across_mouth**3
    skin = a.blob((0, MOUTH_Y + 1.1, 9.0), (1.8, 0.5, 2.0)) * (a.part.lip_side >= 0)
    red = a.upper_lip * middle
    outward = np.clip(a.part.lip_step, 0, 1)
    drawn = _along(red, y=-0.14, z=-0.42) + _along(red * outward, y=-0.4)
    return drawn + _along(skin, y=-0.2, z=-0.1)


def _mouth_shrug_lower(a: Anatomy) -> np.ndarray:
    chin = a.blob((0, -6.9, 8.5), (1.7, 0.9, 2.0))
    middle = 1 - 0.8 * a.across_mouth**2
    return (
        _along(chin, y=0.65, z=0.35)
        + _along(a.lower_lip * middle, y=0.62, z=0.4)
        + _along(a.upper_lip * middle, y=0.5, z=0.05)
    )


def _mouth_shrug_upper(a: Anatomy) -> np.ndarray:
    middle = 1 - 0.7 * a.across_mouth**2
    above = a.blob((0, -3.0, 9.2), (1.5, 0.6, 2.0))
    return (
        _along(a.upper_lip * middle, y=0.55, z=0.55)
        + _along(above, y=0.3, z=0.25)
        + _along(a.lower_lip * middle, y=0.38, z=-0.1)
    )


def _mouth_press(a: Anatomy) -> np.ndarray:
    side = smoothstep(-0.4, 1.2, a.x)
    outward = np.clip(a.part.lip_step, 0, 1) * (1 - a.across_mouth**4)
    bulge = a.blob((2.4, MOUTH_Y - 1.3, 8.0), (1.0, 0.6, 1.6)) * a.left
    bulge = bulge + a.blob((2.4, MOUTH_Y + 1.15, 8.2), (1.0, 0.6, 1.6)) * a.left
    return (
        _along(a.upper_lip * outward * side, y=-0.32)
        + _along(a.lower_lip * outward * side, y=0.42)
        + _along(_lips(a) * side, z=-0.3)
        + _along(bulge, 0.1, 0.0, 0.3)
    )


def _half_lip(a: Anatomy, lip: np.ndarray) -> np.ndarray:
    """The left part of a lip without its corner."""
    return lip * smoothstep(-0.5, 0.9, a.x) * np.clip(1 - a.across_mouth**4, 0, 1)


def _mouth_lower_down(a: Anatomy) -> np.ndarray:
    below = a.blob((1.5, MOUTH_Y - 1.5, 8.6), (1.0, 0.7, 1.8)) * a.left * (a.part.lip_side <= 0)
    return _along(_half_lip(a, a.lower_lip), 0.1, -0.85, 0.1) + _along(below, 0.1, -0.3, 0.05)


def _mouth_upper_up(a: Anatomy) -> np.ndarray:
    above = a.blob((1.9, MOUTH_Y + 1.6, 8.7), (0.9, 0.8, 1.8)) * a.left * (a.part.lip_side >= 0)
    return _along(_half_lip(a, a.upper_lip), 0.1, 0.75, 0.1) + _along(above, 0.1, 0.35, 0.15)


# Brows, cheeks, nose, tongue --------------------------------------------------------------------


def _brow_down(a: Anatomy) -> np.ndarray:
    inner = a.blob((1.7, 4.2, 8.6), (1.1, 0.85, 2.0)) * a.left
    whole = a.blob((3.1, 4.6, 8.2), (1.6, 0.85, 2.2)) * a.left
    move = _along(inner, -0.28, -0.5, 0.15) + _along(whole, -0.1, -0.45, 0.1)
    return move * a.off_lid[:, None]


def _brow_inner_up(a: Anatomy) -> np.ndarray:
    inner = a.blob((1.5, 4.5, 8.6), (1.05, 1.0, 2.2)) + a.blob((-1.5, 4.5, 8.6), (1.05, 1.0, 2.2))
    return _along(inner * a.off_lid, y=1.05, z=-0.05)


def _brow_outer_up(a: Anatomy) -> np.ndarray:
    outer = a.blob((4.2, 4.8, 7.4), (1.35, 1.1, 2.4)) * a.left
    return _along(outer * a.off_lid, 0.05, 1.05, -0.15)


def _cheek_puff(a: Anatomy) -> np.ndarray:
    left = a.blob((4.4, -3.9, 6.6), (1.35, 1.6, 2.0))
    left = left + 0.4 * a.blob((2.6, -2.8, 8.2), (0.8, 0.7, 1.0))
    right = a.part.mirror
    puff = (left + left[right]) * (1 - 0.9 * a.blob((0, MOUTH_Y, 9.2), (1.9, 0.9, 3)))
    outward = (a.points - [0, -3.5, 2.0]) * [1, 0.35, 1]
    outward = outward / np.maximum(np.linalg.norm(outward, axis=1), 1e-9)[:, None]
    return 1.35 * puff[:, None] * outward


def _cheek_squint(a: Anatomy) -> np.ndarray:
    cheek = a.blob((3.7, 0.0, 8.0), (1.4, 0.9, 1.8)) * a.left
    free = np.where(a.part.lid_side < 0, smoothstep(0.0, 0.9, a.part.lid_step), 1.0)
    below = free * np.where((a.part.lid_side > 0) & (a.part.lid_step < 8), 0.0, 1.0)
    return _along(cheek * below, 0.2, 0.75, 0.9) + _lid(a, 0.0, 0.2)


def _nose_sneer(a: Anatomy) -> np.ndarray:
    wing = a.blob((1.15, -1.5, 9.4), (0.75, 0.85, 1.4)) * a.left
    fold = a.blob((1.6, -0.3, 8.8), (0.6, 0.9, 1.4)) * a.left
    bridge = a.blob((0.7, 2.0, 9.0), (0.5, 0.6, 1.2)) * a.left
    lip = _half_lip(a, a.upper_lip) * np.exp(-(((a.x - 1.2) / 0.8) ** 2))
    lip = lip * np.clip(a.part.lip_step, 0, 1)
    return (
        _along(wing, 0.15, 0.62, 0.1)
        + _along(fold, 0.05, 0.3, 0.3)
        + _along(bridge, 0.0, 0.15, 0.3)
        + _along(lip, 0.0, 0.3, 0.1)
    )


def _tongue_out(a: Anatomy) -> np.ndarray:
    tongue = (a.part.jaw > 0) & (np.abs(a.x) < 1.7) & (a.part.material == MATERIAL["tongue"])
    forward = smoothstep(3.0, 7.2, a.z) * tongue
    droop = forward * smoothstep(5.5, 7.4, a.z)
    lift = _along(forward, y=0.75, z=4.6) + _along(droop, y=-1.0)
    middle = np.exp(-0.5 * (a.x / 1.3) ** 4)
    part = _along(a.lower_lip * middle, y=-0.5, z=0.15) + _along(a.upper_lip * middle, y=0.22)
    return lift + part


_LEFT: dict[str, Callable[[Anatomy], np.ndarray]] = {
    "EyeBlinkLeft": _eye_blink, "EyeLookDownLeft": _eye_look_down, "EyeLookInLeft": _eye_look_in,
    "EyeLookOutLeft": _eye_look_out, "EyeLookUpLeft": _eye_look_up, "EyeSquintLeft": _eye_squint,
    "EyeWideLeft": _eye_wide, "JawLeft": _jaw_left, "MouthLeft": _mouth_left,
    "MouthSmileLeft": _mouth_smile, "MouthFrownLeft": _mouth_frown,
    "MouthDimpleLeft": _mouth_dimple, "MouthStretchLeft": _mouth_stretch,
    "MouthPressLeft": _mouth_press, "MouthLowerDownLeft": _mouth_lower_down,
    "MouthUpperUpLeft": _mouth_upper_up, "BrowDownLeft": _brow_down,
    "BrowOuterUpLeft": _brow_outer_up, "CheekSquintLeft": _cheek_squint,
    "NoseSneerLeft": _nose_sneer,
}  # fmt: skip
_BOTH: dict[str, Callable[[Anatomy], np.ndarray]] = {
    "JawForward": _jaw_forward, "JawOpen": _jaw_open, "MouthClose": _mouth_close,
    "MouthFunnel": _mouth_funnel, "MouthPucker": _mouth_pucker,
    "MouthRollLower": _mouth_roll_lower, "MouthRollUpper": _mouth_roll_upper,
    "MouthShrugLower": _mouth_shrug_lower, "MouthShrugUpper": _mouth_shrug_upper,
    "BrowInnerUp": _brow_inner_up, "CheekPuff": _cheek_puff, "TongueOut": _tongue_out,
}  # fmt: skip


def mirrored(displacement: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """The mirror image of a field of displacements [V, 3]."""
    return displacement[mirror] * np.array([-1, 1, 1])


def build_blendshapes(head: Part) -> np.ndarray:
    """All blendshapes, float32 [52, V, 3] in canonical order."""
    anatomy = Anatomy(head)
    fields = {}
    for name, shape in _LEFT.items():
        fields[name] = shape(anatomy)
        partner = next(c.mirror for c in CHANNELS if c.name == name)
        fields[partner] = mirrored(fields[name], head.mirror)
    for name, shape in _BOTH.items():
        one = shape(anatomy)
        fields[name] = 0.5 * (one + mirrored(one, head.mirror))
    return np.stack([fields[name] for name in NAMES[BLENDSHAPES]]).astype(np.float32)
