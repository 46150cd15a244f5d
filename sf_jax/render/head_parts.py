"""The parts of the built-in head beside its skin: eyes, mouth, lashes, brows, ears, hair, neck.

Every part is a `Part`; `join` stacks them. Grids are laid out so that the vertex opposite each one
is known, and positions are made equal to the last bit by mirroring the left half.
"""

from dataclasses import dataclass

import numpy as np

from sf_jax.render import head_surface as surface
from sf_jax.render.head_surface import EYE, EYE_RADIUS, MOUTH_HALF_WIDTH, Skin, smoothstep
from sf_jax.render.rig import MATERIALS

MATERIAL = {name: i for i, name in enumerate(MATERIALS)}
TEETH_Z = 8.05  # front of the dental arch


@dataclass(frozen=True)
class Part:
    """A piece of the head.

    Attributes:
      name: "skin", "eye", "lash", …: what the shapes ask for.
      points [n, 3] cm, triangles [t, 3], mirror [n], material [n].
      lip_side, lip_step, lid_side, lid_step: [n] as in Skin.
      skin: [n] how far the part goes with the skin about it, 0 to 1.
      jaw: [n] how far the part turns rigidly with the lower jaw, 0 to 1.
    """

    name: str
    points: np.ndarray
    triangles: np.ndarray
    mirror: np.ndarray
    material: np.ndarray
    lip_side: np.ndarray
    lip_step: np.ndarray
    lid_side: np.ndarray
    lid_step: np.ndarray
    skin: np.ndarray
    jaw: np.ndarray


def part(
    name: str,
    points: np.ndarray,
    triangles: np.ndarray,
    mirror: np.ndarray,
    material: str | np.ndarray,
    **weights: np.ndarray | float,
) -> Part:
    """A Part whose unnamed weights are at rest, made symmetric from its left half."""
    count = len(points)
    if isinstance(material, str):
        material = np.full(count, MATERIAL[material])
    values = {
        "lip_side": 0.0,
        "lip_step": 9.0,
        "lid_side": 0.0,
        "lid_step": 9.0,
        "skin": 0.0,
        "jaw": 0.0,
    } | weights
    full = {key: np.broadcast_to(np.asarray(value, float), count) for key, value in values.items()}
    right = points[:, 0] < 0
    points = np.where(right[:, None], points[mirror] * [-1, 1, 1], points)
    points[mirror == np.arange(count), 0] = 0.0
    return Part(name, points, np.asarray(triangles), mirror, material, **full)


def join(parts: list[Part]) -> tuple[Part, dict[str, slice]]:
    """One Part of all, and where each went."""
    starts = np.cumsum([0] + [len(p.points) for p in parts])
    offsets = list(zip(parts, starts[:-1], strict=True))
    stacked = {
        key: np.concatenate([getattr(p, key) for p in parts])
        for key in (
            "points",
            "material",
            "lip_side",
            "lip_step",
            "lid_side",
            "lid_step",
            "skin",
            "jaw",
        )
    }
    triangles = np.concatenate([p.triangles + start for p, start in offsets])
    mirror = np.concatenate([p.mirror + start for p, start in offsets])
    where = {p.name: slice(start, start + len(p.points)) for p, start in offsets}
    return Part(name="head", triangles=triangles, mirror=mirror, **stacked), where


def _grid(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Triangles of a rows x columns grid of vertices; `closed` joins the last to the first."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns - (not closed)), indexing="ij")
    right = (j + 1) % columns
    a, b = i * columns + j, i * columns + right
    c, d = a + columns, b + columns
    return np.stack([a, c, b, b, c, d], axis=-1).reshape(-1, 3)


def _facing(points: np.ndarray, triangles: np.ndarray, outward: np.ndarray) -> np.ndarray:
    """Triangles turned so that each normal goes along `outward` ([3] or [T, 3])."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    wrong = (np.cross(b - a, c - a) * outward).sum(axis=1) < 0
    return np.where(wrong[:, None], triangles[:, ::-1], triangles)


def _away_from(points: np.ndarray, triangles: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return _facing(points, triangles, points[triangles].mean(axis=1) - centre)


def _ring_mirror(rows: int, columns: int) -> np.ndarray:
    """Mirror of closed rings whose column 0 is at the middle."""
    across = (-np.arange(columns)) % columns
    return (np.arange(rows)[:, None] * columns + across).ravel()


def _strip_mirror(rows: int, columns: int) -> np.ndarray:
    return (np.arange(rows)[:, None] * columns + np.arange(columns)[::-1]).ravel()


def twins(
    name: str,
    left: np.ndarray,
    triangles: np.ndarray,
    material: str | np.ndarray,
    **weights: np.ndarray | float,
) -> Part:
    """A part on the left with its mirror image on the right."""
    count = len(left)
    points = np.concatenate([left, left * [-1, 1, 1]])
    both = np.concatenate([triangles, triangles[:, ::-1] + count])
    mirror = np.concatenate([np.arange(count) + count, np.arange(count)])
    if not isinstance(material, str):
        material = np.tile(material, 2)
    weights = {k: np.tile(v, 2) if np.ndim(v) else v for k, v in weights.items()}
    return part(name, points, both, mirror, material, **weights)


def skin_part(skin: Skin) -> Part:
    """The skin; the lips have their own material."""
    material = np.where(skin.lip_step <= 0.7, MATERIAL["lips"], MATERIAL["skin"])
    return part(
        "skin",
        skin.points,
        skin.triangles,
        skin.mirror,
        material,
        skin=1.0,
        lip_side=skin.lip_side,
        lip_step=skin.lip_step,
        lid_side=skin.lid_side,
        lid_step=skin.lid_step,
    )


def eyeballs() -> Part:
    """Both eyeballs; rows at a border of materials are doubled so that it stays sharp."""
    columns = 24
    bands = (("pupil", (0.5, 11)), ("iris", (11, 16, 22, 28)), ("sclera", (28, 36, 50, 70, 95)))
    rows = [(name, angle) for name, angles in bands for angle in angles]
    polar = np.deg2rad([angle for _, angle in rows])[:, None]
    turn = np.arange(columns) / columns * 2 * np.pi
    bulge = EYE_RADIUS + 0.05 * np.exp(-((polar / 0.45) ** 2))  # the cornea
    x, y = bulge * np.sin(polar) * np.cos(turn), bulge * np.sin(polar) * np.sin(turn)
    ball = np.stack([x, y, np.broadcast_to(bulge * np.cos(polar), x.shape)], -1).reshape(-1, 3)
    triangles = _away_from(ball, _grid(len(rows), columns, True), np.zeros(3))
    names = np.repeat([MATERIAL[name] for name, _ in rows], columns)
    return twins("eye", ball + EYE, triangles, names)


def lid_rims(skin: Skin) -> Part:
    """The thickness of the lids: from each margin back to the eyeball."""
    margin = skin.points[skin.margins[0]]
    ray = margin - EYE
    inner = EYE + ray / np.linalg.norm(ray, axis=1)[:, None] * (EYE_RADIUS - 0.02)
    points = np.concatenate([margin, inner])
    triangles = _away_from(points, _grid(2, len(margin), True), EYE)
    before = EYE * np.array([1, 1, 0]) + np.array([0, 0, 40.0])
    triangles = _facing(points, triangles, before - points[triangles].mean(axis=1))
    side = np.tile(skin.lid_side[skin.margins[0]], 2)
    return twins("rim", points, triangles, "skin", skin=1.0, lid_side=side, lid_step=0.0)


def lashes(skin: Skin) -> Part:
    """A dark line along each upper margin, standing out at its tips."""
    upper = skin.margins[0][1:14]
    root = skin.points[upper]
    along = np.linspace(0, 1, len(root))[:, None]
    out = np.array([0.0, 0.10, 0.22]) + along * [0.16, 0.05, 0.0]
    points = np.concatenate(
        [root + np.array(step) for step in ((0, -0.03, 0.03), (0, 0.06, 0.05), out)]
    )
    triangles = _facing(points, _grid(3, len(root), False), np.array([0, 0.3, 1.0]))
    return twins("lash", points, triangles, "lash", skin=1.0, lid_side=1.0, lid_step=0.0)


def brow_line(along: np.ndarray) -> np.ndarray:
    """x, y of the left brow's middle line; 0 the inner end, 1 the outer."""
    return np.stack(
        [1.25 + 3.7 * along, 4.36 + 0.5 * along + 0.34 * np.sin(np.pi * along) - 0.75 * along**3],
        axis=-1,
    )


def brows() -> Part:
    """Raised strips along the brows."""
    along = np.linspace(0, 1, 15)
    line = brow_line(along)
    half = 0.30 * (1 - along**3) + 0.06
    rows = []
    for across, lift in ((-1.0, -0.05), (-0.55, 0.12), (0.0, 0.16), (0.55, 0.12), (1.0, -0.05)):
        on_skin = surface.from_front(line[:, 0], line[:, 1] + across * half)
        rows.append(on_skin + np.array([0, 0, lift]))
    points = np.concatenate(rows)
    triangles = _facing(points, _grid(5, len(along), False), np.array([0, 0, 1.0]))
    return twins("brow", points, triangles, "brow", skin=1.0)


def mouth_pocket(skin: Skin) -> Part:
    """The mouth's inside, a dark bag that begins at the slit with the lips' inner side."""
    loop = skin.points[skin.slit]
    side = skin.lip_side[skin.slit]
    open_ = np.sqrt(np.maximum(1 - (loop[:, 0] / MOUTH_HALF_WIDTH) ** 2, 0.0))
    rings = (
        (0.0, 0.0, 1.0),
        (0.2, 0.16, 0.99),
        (0.55, 0.5, 0.98),
        (1.0, 1.25, 1.0),
        (2.8, 1.35, 0.9),
        (4.0, 0.5, 0.3),
        (4.1, 0.0, 0.0),
    )
    x, y, z = loop.T
    rows = [
        np.stack([x * wide, y + side * height * open_, z - depth], axis=1)
        for depth, height, wide in rings
    ]
    points = np.concatenate(rows)
    columns = len(loop)
    triangles = _grid(len(rings), columns, True)
    normals = np.cross(*(points[triangles[:, i]] - points[triangles[:, 0]] for i in (1, 2)))
    if (normals * (points[triangles].mean(axis=1) - [0, surface.MOUTH_Y, 6.5])).sum() > 0:
        triangles = triangles[:, ::-1]  # seen from inside
    names = np.repeat([MATERIAL[m] for m in ("lips", "lips", *["mouth"] * 5)], columns)
    depth = np.repeat([ring[0] for ring in rings], columns)
    return part(
        "pocket",
        points,
        triangles,
        _ring_mirror(len(rings), columns),
        names,
        skin=np.exp(-depth * 1.2),
        lip_side=np.tile(side, len(rings)),
        lip_step=0.0,
    )


def _arch(name: str, rows: tuple, jaw: float) -> Part:
    """A dental arch; rows of (height, set-back, material)."""
    columns = 21
    x = np.linspace(2.15, -2.15, columns)
    z = TEETH_Z - 0.16 * np.abs(x) ** 2.4
    points = np.concatenate([np.stack([x, 0 * x + y, z - back], -1) for y, back, _ in rows])
    triangles = _away_from(points, _grid(len(rows), columns, False), np.array([0, rows[0][0], 3.0]))
    names = np.repeat([MATERIAL[m] for _, _, m in rows], columns)
    return part(name, points, triangles, _strip_mirror(len(rows), columns), names, jaw=jaw)


def teeth() -> list[Part]:
    """Upper teeth, fixed to the skull, and lower teeth, which go with the jaw."""
    y = surface.MOUTH_Y
    upper = (
        (y - 0.32, 0.35, "teeth"),
        (y - 0.35, 0.05, "teeth"),
        (y + 0.1, 0.0, "teeth"),
        (y + 0.62, 0.1, "teeth"),
        (y + 0.62, 0.1, "gum"),
        (y + 1.2, 0.3, "gum"),
    )
    lower = (
        (y - 0.3, 0.5, "teeth"),
        (y - 0.28, 0.2, "teeth"),
        (y - 0.6, 0.12, "teeth"),
        (y - 1.0, 0.2, "teeth"),
        (y - 1.0, 0.2, "gum"),
        (y - 1.5, 0.4, "gum"),
    )
    return [_arch("upper teeth", upper, 0.0), _arch("lower teeth", lower, 1.0)]


def tongue() -> Part:
    """The tongue on the floor of the mouth; it goes with the jaw."""
    rows, columns = 9, 16
    polar = np.linspace(0.02, np.pi * 0.8, rows)[:, None]
    turn = np.arange(columns) / columns * 2 * np.pi + np.pi / 2
    x = 1.55 * np.sin(polar) * np.cos(turn)
    y = surface.MOUTH_Y - 0.85 + 0.42 * np.sin(polar) * np.sin(turn)
    z = np.broadcast_to(4.9 + 2.55 * np.cos(polar), x.shape)
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    middle = np.array([0, surface.MOUTH_Y - 0.85, 4.5])
    triangles = _away_from(points, _grid(rows, columns, True), middle)
    return part("tongue", points, triangles, _ring_mirror(rows, columns), "tongue", jaw=1.0)


def nostrils(skin: Skin) -> Part:
    """Dark patches under the nose's wings."""
    columns = 12
    turn = np.arange(columns) / columns * 2 * np.pi
    scale = np.array([0.0, 1.0])[:, None]
    x = 0.62 + 0.1 * np.sin(turn) + scale * 0.3 * np.cos(turn)
    y = -1.88 + scale * 0.15 * np.sin(turn)
    points = surface.from_front(x.ravel(), y.ravel()) + np.array([0, -0.05, 0.06])
    triangles = _facing(points, _grid(2, columns, True), np.array([0, -0.3, 1.0]))
    return twins("nostril", points, triangles, "mouth", skin=1.0)


def ears() -> Part:
    """Ears: a dome with a raised helix and a hollow concha, closed at the back."""
    columns = 20
    rings = (
        (0.0, -0.12),
        (0.22, -0.15),
        (0.42, 0.0),
        (0.55, 0.18),
        (0.68, 0.1),
        (0.82, 0.18),
        (0.92, 0.34),
        (1.0, 0.26),
        (0.97, 0.05),
        (0.7, -0.25),
        (0.45, -0.9),
    )
    turn = np.arange(columns) / columns * 2 * np.pi
    up, back = np.array([0.05, 0.98, -0.17]), np.array([0.45, -0.1, -0.88])
    out = np.cross(back, up) * -1.0
    out *= np.sign(out[0])
    width = np.where(np.cos(turn) > 0, 1.75, 1.3)
    height = np.where(np.sin(turn) > 0, 3.0, 2.9)
    # narrower towards the lobe
    narrowing = 1 - 0.35 * np.clip(-np.sin(turn), 0, 1) ** 1.5
    rows = []
    for radius, lift in rings:
        u, v = radius * width * narrowing * np.cos(turn), radius * height * np.sin(turn)
        rows.append(u[:, None] * back + v[:, None] * up + lift * out)
    points = np.concatenate(rows) + np.array([7.15, 0.9, -0.6])
    triangles = _grid(len(rings), columns, True)
    triangles = _facing(points, triangles, out)
    back = triangles.min(axis=1) >= 7 * columns
    triangles[back] = triangles[back][:, ::-1]
    return twins("ear", points, triangles, "skin", skin=1.0)


def hairline(points: np.ndarray) -> np.ndarray:
    """How far above the hairline each point [n, 3] of the scalp is, cm."""
    z = [-9.5, -6.0, -3.0, -2.0, 0.8, 1.7, 2.4, 3.4, 5.4, 6.6, 8.6]
    y = [-4.6, -3.6, -1.2, 3.9, 4.0, 2.6, 1.2, 4.2, 6.9, 7.9, 8.5]
    return points[:, 1] - np.interp(points[:, 2], z, y)


def hair(skin: Skin) -> Part:
    """A cap over the scalp that rises out of the skin at the hairline."""
    above = hairline(skin.points)
    keep = (above > -0.2)[skin.triangles].any(axis=1)
    used = np.unique(skin.triangles[keep])
    new = np.full(len(skin.points), -1)
    new[used] = np.arange(len(used))
    scalp = skin.points[used]
    ray = scalp - surface.CENTRE
    ray /= np.linalg.norm(ray, axis=1)[:, None]
    thickness = np.clip(0.5 * above[used], -0.3, 0.35) + 0.75 * smoothstep(0.5, 6.0, above[used])
    return part(
        "hair",
        scalp + ray * thickness[:, None],
        new[skin.triangles[keep]],
        new[skin.mirror[used]],
        "hair",
        skin=1.0,
    )


def neck() -> list[Part]:
    """Neck and shoulders."""
    columns = 28
    turn = np.arange(columns) / columns * 2 * np.pi + np.pi / 2
    # height, half width, half depth, middle in z
    rows = [
        (-1.0, 4.6, 3.0, -1.6),
        (-6.0, 4.9, 3.6, -1.8),
        (-9.0, 5.0, 4.7, -2.1),
        (-10.5, 5.1, 4.8, -2.2),
        (-12.5, 6.0, 5.2, -2.6),
        (-15.0, 9.5, 6.0, -2.9),
    ]
    cloth = [
        (-12.5, 5.7, 4.9, -2.6),
        (-13.2, 7.6, 6.3, -2.7),
        (-14.4, 12.0, 7.2, -2.9),
        (-16.2, 16.8, 7.6, -3.0),
        (-19.0, 19.0, 8.4, -3.0),
        (-30, 19.5, 9.5, -3),
    ]
    return [_tube("neck", rows, turn, "skin"), _tube("shoulders", cloth, turn, "cloth")]


def _tube(name: str, rows: list, turn: np.ndarray, material: str) -> Part:
    points = np.concatenate(
        [
            np.stack(
                [wide * np.cos(turn), 0 * turn + y - 0.5 * np.sin(turn), z + deep * np.sin(turn)],
                -1,
            )
            for y, wide, deep, z in rows
        ]
    )
    triangles = _grid(len(rows), len(turn), True)
    axis = points[triangles].mean(axis=1) * [0, 1, 0] + [0, 0, -2.5]
    triangles = _facing(points, triangles, points[triangles].mean(axis=1) - axis)
    return part(name, points, triangles, _ring_mirror(len(rows), len(turn)), material)
