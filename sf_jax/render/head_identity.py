"""Whose face it is: identity directions of the built-in head (cm per standard deviation)."""

import numpy as np

from sf_jax.render.head_parts import Part, hairline
from sf_jax.render.head_surface import EYE, EYE_HALF_WIDTH, MOUTH_Y, smoothstep


class Points:
    """Positions at which the directions are evaluated, with the masks they share."""

    def __init__(self, points: np.ndarray, shoulders: np.ndarray) -> None:
        self.points = points
        self.x, self.y, self.z = points.T
        self.side = np.tanh(self.x / 0.8)
        self.head = 1 - shoulders

    def blob(self, centre: tuple, radii: tuple) -> np.ndarray:
        """A Gaussian about `centre` and its mirror image, 1 at their peaks."""
        scaled = (np.abs(self.points) * [1, 0, 0] + self.points * [0, 1, 1] - centre) / radii
        return np.exp(-0.5 * (scaled**2).sum(axis=1)) * self.head

    def move(self, mask: np.ndarray, out: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
        """`mask` [V] times a direction whose sideways part points away from the middle."""
        return np.stack([mask * out * self.side, mask * y, mask * z], axis=1)


def _directions(p: Points) -> list[np.ndarray]:
    """The symmetric directions, then the asymmetric ones."""
    h, blob, move = p.head, p.blob, p.move
    zero = np.zeros_like(p.x)
    below_eyes, above_eyes = smoothstep(3.0, -8.0, p.y) * h, smoothstep(3.0, 12.0, p.y) * h
    jaw = smoothstep(-1.5, -6.5, p.y) * smoothstep(-4.0, 2.0, p.z) * h
    return [
        np.stack([0.045 * p.x * h, zero, zero], 1),  # width of the head
        np.stack([zero, 0.05 * (p.y - 2.4) * h * (p.y < 14), zero], 1),  # length of the head
        np.stack([zero, zero, -0.04 * (p.z - 8.0) * h], 1),  # depth
        np.stack([zero, -0.4 * below_eyes, zero], 1),  # length of the lower face
        np.stack([0.05 * p.x * jaw, zero, zero], 1),  # width of the jaw
        np.stack([zero, -0.3 * smoothstep(-4.8, -8.8, p.y) * h, zero], 1),  # length of the chin
        move(blob((0, -7.4, 8.3), (1.8, 1.2, 2.0)), z=0.35),  # chin forward
        move(blob((1.6, -7.6, 7.8), (1.3, 1.0, 2.0)), out=0.25),  # width of the chin
        move(blob((4.4, -2.8, 6.4), (1.5, 1.8, 2.2)), out=0.3, z=0.25),  # cheek fullness
        move(blob((4.4, 0.3, 7.2), (1.5, 1.0, 2.0)), out=0.35, z=0.3),  # cheekbones
        move(blob((0, -0.9, 10.6), (1.2, 1.5, 2.0)), z=0.5),  # nose stands out
        move(blob((0.9, -1.3, 9.8), (0.9, 0.9, 1.6)), out=0.32),  # width of the nose
        move(blob((0, -1.4, 10.0), (1.5, 1.1, 2.2)), y=-0.3),  # length of the nose
        move(blob((0, 1.6, 9.4), (0.7, 1.2, 1.6)), z=0.4),  # bridge
        move(blob((0, -0.8, 11.2), (0.8, 0.7, 1.2)), y=0.35, z=0.1),  # tip turned up
        move(blob((0.6, 1.2, 9.2), (0.6, 1.4, 1.4)), out=0.18),  # width of the bridge
        move(blob((3.15, 2.4, 8.0), (1.8, 1.6, 2.5)), out=0.22),  # eyes apart
        move(blob((3.15, 2.4, 8.0), (1.9, 1.6, 2.5)), y=0.25),  # eyes high
        move(blob((3.0, 4.5, 8.0), (2.0, 0.9, 2.4)), y=0.35),  # brows high
        move(blob((2.6, 4.2, 8.4), (2.0, 0.8, 1.8)), z=0.3),  # brow ridge
        move(blob((4.6, 4.4, 7.2), (1.2, 1.0, 2.4)), y=0.3),  # brows slanted
        move(blob((2.2, MOUTH_Y, 8.4), (1.1, 1.0, 2.0)), out=0.3),  # width of the mouth
        move(blob((0, MOUTH_Y, 9.0), (2.4, 1.3, 3.0)), y=0.25),  # mouth high
        move(blob((0, MOUTH_Y + 0.1, 9.2), (2.0, 1.2, 2.4)), z=0.3),  # mouth stands out
        move(blob((0, 7.5, 7.5), (4.0, 2.2, 3.0)), z=0.4),  # forehead bulges
        np.stack([zero, 0.8 * above_eyes, zero], 1),  # height of the skull
        move(blob((7.6, 0.9, -1.0), (1.6, 2.6, 2.0)), out=0.4),  # ears stand out
        np.stack([0.2 * jaw, zero, zero], 1),  # jaw to one side
        np.stack([0.15 * blob((0, -0.6, 10.0), (1.3, 1.6, 2.4)), zero, zero], 1),  # nose aside
        np.stack([zero, 0.08 * p.side * blob((2.9, 3.2, 8.0), (2.2, 1.7, 2.4)), zero], 1),  # eyes
        np.stack([zero, 0.1 * p.side * blob((2.3, MOUTH_Y, 8.4), (1.4, 1.2, 2.0)), zero], 1),
    ]


def _local(head: Part, where: dict[str, slice]) -> list[np.ndarray]:
    """Directions of single parts: lips, lids, brows, ears, hair, neck."""
    p = head.points
    side = np.sign(p[:, 0])
    zero = np.zeros(len(p))
    made = []
    taper = np.clip(1 - (np.abs(p[:, 0]) / 2.6) ** 3, 0, 1) * (head.lip_step < 8)
    taper = taper * np.clip(head.lip_step * 3, 0, 1)  # the slit stays shut
    border = np.exp(-(((head.lip_step - 1.0) / 0.6) ** 2)) * taper * (head.skin > 0.9)
    red = np.exp(-(((head.lip_step - 0.7) / 0.4) ** 2)) * taper * (head.skin > 0.9)
    for upper in (1, -1):
        mine = head.lip_side == upper
        made.append(np.stack([zero, 0.2 * upper * border * mine, 0.18 * red * mine], 1))
    lid = (1 - np.clip(head.lid_step, 0, 1)) * (head.lid_step < 8)
    from_eye = (np.abs(p[:, 0]) - EYE[0]) / EYE_HALF_WIDTH
    open_ = np.clip(1 - from_eye**2, 0, 1) * lid * head.lid_side
    made.append(np.stack([zero, 0.09 * open_, -0.03 * np.abs(open_)], 1))  # eyes wide or narrow
    made.append(np.stack([zero, 0.10 * np.clip(from_eye, -1.2, 1.2) * lid, zero], 1))  # slant
    brow = np.zeros(len(p))
    brow[where["brow"]] = 1
    across = np.repeat(np.array([-1, -0.55, 0, 0.55, 1]), 15)
    thick = np.zeros(len(p))
    thick[where["brow"]] = np.tile(across, 2)
    made.append(np.stack([zero, 0.09 * thick, 0.03 * brow], 1))  # thickness of the brows
    ear = np.zeros(len(p))
    ear[where["ear"]] = 1
    made.append(np.stack([0.06 * side * ear, 0.12 * (p[:, 1] - 1.5) * ear, zero], 1))  # ears
    hair = np.zeros(len(p))
    hair[where["hair"]] = smoothstep(0.3, 5.0, hairline(p[where["hair"]]))
    ray = (p - [0, 2, 0]) / np.linalg.norm(p - [0, 2, 0], axis=1)[:, None]
    made.append(0.4 * hair[:, None] * ray)  # volume of the hair
    neck = np.zeros(len(p))
    neck[where["neck"]] = smoothstep(-14.0, -11.0, p[where["neck"], 1])
    made.append(np.stack([0.08 * p[:, 0] * neck, zero, 0.05 * p[:, 2] * neck], 1))
    return made


def build_identity(head: Part, where: dict[str, slice]) -> np.ndarray:
    """All directions, float32 [I, V, 3].

    The eyeballs move as wholes, and the skin just around them with them, so that lids stay snug;
    teeth and tongue move as one with the mouth.
    """
    points = head.points
    shoulders = smoothstep(-8.0, -12.0, points[:, 1])
    mouth = np.array([0.0, MOUTH_Y, 9.0])
    anchors = np.stack([EYE, EYE * [-1, 1, 1], mouth])
    made = _directions(Points(np.concatenate([points, anchors]), np.append(shoulders, [0, 0, 0])))
    fields = np.stack(made)
    field, at_eyes, at_mouth = fields[:, :-3], fields[:, -3:-1], fields[:, -1]
    in_eye = np.zeros(len(points))
    in_eye[where["eye"]] = 1
    in_eye = np.maximum(in_eye, (1 - smoothstep(0.3, 1.0, head.lid_step)) * (head.lid_step < 8))
    own = np.where((points[:, 0] > 0)[None, :, None], at_eyes[:, :1], at_eyes[:, 1:])
    field = field + in_eye[:, None] * (own - field)
    in_mouth = np.zeros(len(points))
    for name in ("upper teeth", "lower teeth", "tongue"):
        in_mouth[where[name]] = 1
    field = field + in_mouth[:, None] * (at_mouth[:, None] - field)
    return np.concatenate([field, np.stack(_local(head, where))]).astype(np.float32)
