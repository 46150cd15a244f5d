"""The built-in head: a rig modelled in code, with all 52 blendshapes and its own identities."""

from dataclasses import replace
from functools import cache

import numpy as np

from sf_jax.face import landmarks
from sf_jax.render import head_parts as parts
from sf_jax.render.head_identity import build_identity
from sf_jax.render.head_parts import MATERIAL, Part
from sf_jax.render.head_shapes import build_blendshapes
from sf_jax.render.head_surface import (
    EYE,
    LIP_STEPS,
    MOUTH_Y,
    Skin,
    build_skin,
    from_front,
    smoothstep,
)
from sf_jax.render.occlusion import baked
from sf_jax.render.rig import PAINTS, Eye, Rig

HEAD_PIVOT = np.array([0.0, -3.0, -2.0], np.float32)


def _paint(head: Part) -> np.ndarray:
    """Soft masks [V, len(PAINTS)] for colours on the skin."""
    x, y, z = np.abs(head.points[:, 0]), head.points[:, 1], head.points[:, 2]
    front = smoothstep(4.0, 6.5, z) * head.skin
    lips = (1 - smoothstep(0.85, 1.15, head.lip_step)) * head.skin
    line = parts.brow_line(np.linspace(0, 1, 25))
    to_brow = np.hypot(x[:, None] - line[:, 0], y[:, None] - line[:, 1]).min(axis=1)
    brow = np.exp(-0.5 * (to_brow / 0.26) ** 2) * front
    blush = np.exp(-0.5 * (((x - 4.0) / 1.3) ** 2 + ((y + 0.8) / 1.1) ** 2)) * front
    upper = (head.lid_side > 0) & (head.lid_step < 8)
    lid = np.where(upper, 1 - smoothstep(0.25, 0.8, head.lid_step), 0.0)
    beard = smoothstep(-3.6, -5.2, y + 0.35 * np.clip(x - 4.0, 0, 2)) * smoothstep(0.5, 2.5, z)
    moustache = np.exp(-0.5 * ((y - MOUTH_Y - 1.15) / 0.4) ** 2) * smoothstep(3.0, 2.0, x)
    beard = np.maximum(beard, moustache) * (1 - lips) * head.skin
    masks = {"lips": lips, "brow": brow, "blush": blush, "lid": lid, "beard": beard}
    painted = np.stack([masks[name] for name in PAINTS], axis=1)
    on_skin = np.isin(head.material, [MATERIAL["skin"], MATERIAL["lips"]])
    return (painted * on_skin[:, None]).astype(np.float32)


def _landmarks(skin: Skin, head: Part, where: dict[str, slice]) -> np.ndarray:
    """Vertices int32 [70] of the landmarks: those of the left and the middle, then the others."""

    def nearest(targets: np.ndarray) -> np.ndarray:
        away = np.linalg.norm(skin.points[None] - targets[:, None], axis=-1)
        beside = (targets[:, None, 0] == 0) & (np.abs(skin.points[None, :, 0]) > 1e-6)
        return np.where(beside, np.inf, away).argmin(axis=1)

    turn = np.linspace(np.pi / 2, 0, 9)[1:]  # chin to ear
    rim = np.stack(
        [
            6.9 * np.cos(turn) ** 0.6,
            2.3 - 10.7 * np.sin(turn) ** 1.2,
            0.8 + 7.0 * np.sin(turn) ** 1.6,
        ],
        axis=1,
    )
    count = len(skin.slit) // 2 + 1  # of a half of the slit, both middles included
    border = LIP_STEPS.tolist().index(1.0) * count  # into the rings about the left of the mouth
    marks = np.full(landmarks.COUNT, -1)
    marks[9:17], marks[landmarks.CHIN] = nearest(rim), nearest(np.array([[0, -8.4, 8.0]]))[0]
    marks[22:27] = where["brow"].start + 2 * 15 + np.array([0, 3, 7, 11, 14])
    marks[27:31] = nearest(from_front(np.zeros(4), np.array([2.4, 1.4, 0.4, -0.8])))
    marks[33:36] = nearest(from_front(np.array([0, 0.8, 1.5]), np.array([-2.0, -1.95, -1.6])))
    marks[landmarks.LEFT_EYE] = skin.margins[0][[0, 5, 9, 14, 19, 23]]
    marks[51:58] = skin.slit[0] + border + np.array([0, 4, 8, 13, 18, 22, 26])
    marks[62:67] = skin.slit[[0, 5, 13, 21, 26]]
    marks[69] = where["eye"].start
    return np.where(marks < 0, head.mirror[marks[landmarks.MIRROR]], marks).astype(np.int32)


def _without_unused(head: Part, where: dict[str, slice]) -> np.ndarray:
    """Triangles less those of the scalp that the hair hides."""
    hidden = np.zeros(len(head.points), bool)
    hidden[where["skin"]] = parts.hairline(head.points[where["skin"]]) > 1.2
    return head.triangles[~hidden[head.triangles].all(axis=1)]


@cache
def builtin() -> Rig:
    """The built-in head, made once a process (about a second)."""
    skin = build_skin()
    head, where = parts.join(
        [
            parts.skin_part(skin),
            parts.eyeballs(),
            parts.lid_rims(skin),
            parts.lashes(skin),
            parts.brows(),
            parts.mouth_pocket(skin),
            *parts.teeth(),
            parts.tongue(),
            parts.nostrils(skin),
            parts.ears(),
            parts.hair(skin),
            *parts.neck(),
        ]
    )
    start, stop = where["eye"].start, where["eye"].stop
    half = (start + stop) // 2
    weight = np.ones(len(head.points))
    for name in ("neck", "shoulders"):
        weight[where[name]] = smoothstep(-11.5, -5.0, head.points[where[name], 1])
    rig = Rig(
        name="built-in head",
        neutral=head.points.astype(np.float32),
        blendshapes=build_blendshapes(head),
        identity=build_identity(head, where),
        triangles=_without_unused(head, where).astype(np.int32),
        material=head.material.astype(np.uint8),
        paint=_paint(head),
        eyes=(
            Eye(slice(start, half), EYE.astype(np.float32)),
            Eye(slice(half, stop), (EYE * [-1, 1, 1]).astype(np.float32)),
        ),
        head_weight=weight.astype(np.float32),
        head_pivot=HEAD_PIVOT,
        landmarks=_landmarks(skin, head, where),
        mirror=head.mirror.astype(np.int32),
    )
    return replace(rig, occlusion=baked(rig))
