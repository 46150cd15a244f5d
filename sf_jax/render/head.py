"""The built-in head: a rig modelled in code, with all 52 blendshapes and its own identities."""

from functools import cache

import numpy as np

from sf_jax.render import head_parts as parts
from sf_jax.render.head_identity import build_identity
from sf_jax.render.head_parts import MATERIAL, Part
from sf_jax.render.head_shapes import build_blendshapes
from sf_jax.render.head_surface import EYE, MOUTH_Y, Skin, build_skin, from_front, smoothstep
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
    """68 vertices: jaw 17, brows 10, nose 9, lids 12, lips 18, pupils 2; subject's right first."""

    def nearest(targets: np.ndarray) -> list[int]:
        away = np.linalg.norm(skin.points[None] - np.asarray(targets)[:, None], axis=-1)
        return away.argmin(axis=1).tolist()

    def opposite(ids: list[int]) -> list[int]:
        return head.mirror[ids].tolist()

    turn = np.linspace(0, np.pi / 2, 9)[:-1]  # ear to chin
    rim = np.stack(
        [
            6.9 * np.cos(turn) ** 0.6,
            1.0 - 9.4 * np.sin(turn) ** 1.1,
            0.8 + 7.0 * np.sin(turn) ** 1.6,
        ],
        axis=1,
    )
    jaw = nearest(rim)
    chin = nearest(np.array([[0, -8.4, 8.0]]))
    brow = [where["brow"].start + 2 * 15 + i for i in (0, 3, 7, 11, 14)]
    bridge = nearest(from_front(np.zeros(4), np.array([2.4, 1.4, 0.4, -0.8])))
    wings = nearest(from_front(np.array([1.5, 0.8]), np.array([-1.6, -1.95])))
    base = nearest(from_front(np.zeros(1), np.array([-2.0])))
    lid = skin.margins[0][[0, 5, 9, 14, 19, 23]].tolist()
    slit = skin.slit[:27].tolist()
    first, count = slit[0], len(slit)
    border = [first + 3 * count + i for i in (0, 4, 8, 18, 22, 26)]  # the ring of step 1
    lips = [border[0], *border[1:3], slit[13], *border[3:5], border[5]]
    inner = [slit[0], slit[5], slit[21], slit[26]]
    pupils = [where["eye"].start, head.mirror[where["eye"].start]]
    sided = jaw + brow + wings + lid + lips[1:-1] + inner[1:3]
    middle = chin + bridge + base + [lips[0], lips[-1], inner[0], inner[-1]]
    return np.array(opposite(sided) + middle + sided + pupils[::-1], np.int32)


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
    return Rig(
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
