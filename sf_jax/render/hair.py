"""Hair of many shapes, grown on any head: sheets of locks that follow it and then hang.

A shape is where the locks end around the head, how thick the hair is, and how the ends look.
"""

from dataclasses import dataclass, replace

import numpy as np

from sf_jax.render.head_map import HeadMap
from sf_jax.render.meshes import Piece, ball, grid, piece, tube
from sf_jax.render.shading import TILE_CM

LOCKS, STEPS = 46, 15
# Azimuths at which a shape says how low the locks end: front, brow's end, temple, before the
# ear, ear, after it, back. Heights are 1 at the crown, 0 at the brows, -1 at the chin.
ANCHORS = np.deg2rad([0.0, 25.0, 45.0, 62.0, 80.0, 110.0, 180.0])
PATH = 40  # points of a lock's way over the head and down
FLAT = 0.45  # cm of hair under a hat


@dataclass(frozen=True)
class Shape:
    """A haircut.

    Attributes:
      ends: heights [7] at which the locks end at ANCHORS.
      thickness: cm at the crown, at the sides.
      waves, locks: cm by which the sheet is uneven: finely, and from lock to lock.
      jagged: by how much the ends differ from lock to lock, in heights.
      part: radians by which the fringe's opening is turned; slant: heights by which its ends are
        lower on one side.
      flare: by how much hanging hair spreads (negative: curls in), cm.
      knots: "bun", "tails", "tail" or "", hair tied up.
    """

    ends: tuple[float, float, float, float, float, float, float]
    thickness: tuple[float, float] = (1.0, 0.8)
    waves: float = 0.0
    locks: float = 0.12
    jagged: float = 0.0
    part: float = 0.0
    slant: float = 0.0
    flare: float = 0.0
    knots: str = ""


SHAPES: dict[str, Shape] = {
    "crop": Shape((0.55, 0.55, 0.5, 0.3, 0.1, -0.35, -0.5), (0.7, 0.45)),
    "short": Shape((0.5, 0.48, 0.4, 0.1, -0.1, -0.4, -0.6), (1.5, 0.9), locks=0.25, jagged=0.06),
    "quiff": Shape((0.62, 0.58, 0.5, 0.2, 0.0, -0.4, -0.6), (3.0, 0.7), locks=0.3),
    "fringe": Shape((0.1, 0.1, 0.1, -0.1, -0.3, -0.6, -0.7), (1.4, 1.1), locks=0.2, jagged=0.08),
    "heavy": Shape((-0.08, -0.08, -0.05, -0.5, -0.8, -1.0, -1.0), (1.6, 1.4), jagged=0.05),
    "bob": Shape((0.45, 0.4, 0.2, -0.75, -1.0, -1.05, -1.0), (1.5, 1.5), flare=-0.5),
    "fringed bob": Shape((0.05, 0.06, 0.05, -0.8, -1.05, -1.1, -1.0), (1.5, 1.5), flare=-0.4),
    "long": Shape((0.5, 0.42, 0.25, -1.6, -2.1, -2.2, -2.2), (1.4, 1.3), flare=0.6, locks=0.2),
    "curtain": Shape((0.55, 0.3, -0.2, -1.4, -2.0, -2.2, -2.2), (1.4, 1.2), flare=0.5, locks=0.2),
    "long fringe": Shape((0.05, 0.06, 0.0, -1.5, -2.2, -2.3, -2.3), (1.4, 1.2), locks=0.2),
    "curly": Shape((0.4, 0.38, 0.25, -0.7, -1.1, -1.3, -1.3), (2.6, 2.4), waves=0.5, jagged=0.1),
    "long curly": Shape((0.45, 0.4, 0.2, -1.4, -1.9, -2.0, -2.0), (2.2, 2.2), waves=0.6),
    "afro": Shape((0.5, 0.48, 0.42, 0.0, -0.4, -0.7, -0.8), (4.5, 4.5), waves=0.3),
    "spikes": Shape((0.1, 0.1, 0.05, -0.2, -0.3, -0.6, -0.8), (2.4, 1.6), locks=0.9, jagged=0.3),
    "swept": Shape((0.25, 0.25, 0.15, 0.0, -0.2, -0.5, -0.6), (1.7, 1.0), slant=0.3, locks=0.25),
    "bun": Shape((0.55, 0.52, 0.42, 0.1, -0.1, -0.3, -0.5), (0.7, 0.6), knots="bun"),
    "tail": Shape((0.52, 0.5, 0.4, 0.1, -0.1, -0.3, -0.5), (0.8, 0.7), knots="tail"),
    "tails": Shape((0.1, 0.1, 0.08, -0.1, -0.2, -0.4, -0.6), (1.0, 0.9), knots="tails"),
}


def _ends(shape: Shape, turn: np.ndarray, g: np.random.Generator) -> np.ndarray:
    """Heights at which locks at these azimuths end."""
    away = np.abs((turn - shape.part + np.pi) % (2 * np.pi) - np.pi)
    ends = np.interp(away, ANCHORS, shape.ends)
    front = np.clip(1 - np.abs(np.sin(turn / 2)) * 1.6, 0, 1)
    ends = ends + shape.slant * np.sin(turn) * front
    return ends + shape.jagged * g.uniform(-1, 1, len(turn)) * np.where(
        np.arange(len(turn)) % 2, 1, 0.4
    )


def _paths(
    head: HeadMap, turn: np.ndarray, lowest: float, flare: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where locks run, [L, PATH, 3]: over the head, then straight down; and outward directions."""
    height = np.linspace(np.pi / 2, -0.1, PATH // 2)
    over = head.surface(turn[:, None], height)
    out = np.stack([np.sin(turn), 0 * turn, np.cos(turn)], -1)
    # Hanging hair keeps clear of the head at its widest.
    across = ((over - head.centre) * out[:, None]).sum(-1)
    widest = np.maximum.accumulate(across, axis=1)
    over = over + ((widest - across) * (height < 0.5))[..., None] * out[:, None]
    down = np.linspace(0, 1, PATH - PATH // 2 + 1)[1:]
    drop = np.minimum(lowest - over[:, -1, 1], -0.1)
    hang = np.repeat(over[:, -1:], len(down), 1)
    hang[..., 1] += drop[:, None] * down
    hang += out[:, None] * (flare * head.unit * down**1.5)[:, None]
    normal = over - head.centre
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    outward = np.concatenate([normal, np.repeat(out[:, None], len(down), 1)], 1)
    return np.concatenate([over, hang], 1), outward


def _cut(paths: np.ndarray, outward: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points and directions [L, STEPS, 3] along paths down to the heights `ends`."""
    below = paths[..., 1] < ends[:, None]
    last = np.where(below.any(1), below.argmax(1), paths.shape[1] - 1).clip(1)
    rows = np.arange(len(paths))
    before, after = paths[rows, last - 1, 1], paths[rows, last, 1]
    part = np.clip((before - ends) / np.maximum(before - after, 1e-6), 0, 1)
    end = last - 1 + part
    at = np.linspace(0, 1, STEPS) ** 0.9 * end[:, None]
    low = np.minimum(at.astype(int), paths.shape[1] - 2)
    share = (at - low)[..., None]
    pick = rows[:, None], low
    nextpick = rows[:, None], low + 1
    points = paths[pick] * (1 - share) + paths[nextpick] * share
    normals = outward[pick] * (1 - share) + outward[nextpick] * share
    return points, normals


def _colours(g: np.random.Generator, colour: np.ndarray, tips: bool) -> np.ndarray:
    """Colours [LOCKS, STEPS, 3]: locks differ, roots are darker, sometimes ends are dyed."""
    lock = np.exp(g.normal(0, 0.12, LOCKS))[:, None, None]
    fine = np.exp(g.normal(0, 0.02, (LOCKS, STEPS)))[..., None]
    along = np.linspace(0, 1, STEPS)[None, :, None]
    base = np.broadcast_to(colour, (LOCKS, STEPS, 3))
    if tips:
        dyed = g.uniform(0.05, 0.95, 3)
        base = base + (dyed - base) * np.clip((along - 0.5) * 3, 0, 1)
    shine = g.uniform(0, 0.4) * np.exp(-(((along - g.uniform(0.2, 0.5)) / 0.12) ** 2))
    return base * lock * fine * (0.8 + 0.25 * along) * (1 + shine)


def _strands(points: np.ndarray, g: np.random.Generator, unit: float) -> np.ndarray:
    """Where streaks run in a sheet of locks [LOCKS, STEPS, 3]: across and along it, cm."""
    along = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    along = np.pad(np.cumsum(along, axis=1), ((0, 0), (1, 0))) / unit
    across = np.broadcast_to(np.arange(LOCKS)[:, None] * TILE_CM * 3 / LOCKS, along.shape)
    shift = g.uniform(0, TILE_CM, 2)
    return np.stack([across + shift[0], along + shift[1]], -1).reshape(-1, 2).astype(np.float32)


def _tail(
    start: np.ndarray, outward: np.ndarray, length: float, size: float, colour: np.ndarray
) -> Piece:
    """A tail of hair that leaves the head at `start` and falls."""
    share = np.linspace(0, 1, 9)
    path = start + outward * (0.35 * length * np.sin(1.6 * share))[:, None]
    path[:, 1] -= length * share**1.5
    radii = size * np.interp(share, [0, 0.1, 0.3, 0.7, 1.0], [0.5, 0.6, 1.0, 0.8, 0.1])
    points, triangles = tube(path, radii, 10)
    along = np.broadcast_to(share[:, None] * length, points.shape[:2])
    across = np.broadcast_to(np.arange(10) * 0.7, points.shape[:2])
    strands = np.stack([across, along], -1).reshape(-1, 2).astype(np.float32)
    return replace(piece(points, triangles, colour, "hair"), strands=strands)


def _knots(shape: Shape, head: HeadMap, g: np.random.Generator, colour: np.ndarray) -> list[Piece]:
    """Hair tied up: balls and tails."""
    u = head.unit
    found = []
    if shape.knots == "bun":
        size = g.uniform(2.0, 3.6) * u
        height = np.deg2rad(g.uniform(45, 85))
        at = head.surface(np.array([np.pi]), np.array([height]), 0.7 * size)[0]
        found.append(piece(*ball(at, (size, 0.85 * size, size)), colour, "hair"))
    elif shape.knots == "tail":
        at = head.surface(np.array([np.pi]), np.array([np.deg2rad(35.0)]), 1.0 * u)[0]
        side = float(g.choice([-1.0, 0.0, 1.0]))
        found.append(_tail(at, np.array([side, 0.0, -0.5]), g.uniform(9, 16) * u, 1.6 * u, colour))
    elif shape.knots == "tails":
        size, drop = g.uniform(1.0, 2.0) * u, g.uniform(7.0, 15.0) * u
        height = np.array([np.deg2rad(g.uniform(0, 40))])
        for side in (-1.0, 1.0):
            at = head.surface(np.array([side * np.deg2rad(115)]), height, 0.5 * u)[0]
            found.append(_tail(at, np.array([side, 0.2, -0.2]), drop, size, colour))
    return found


def grow(
    head: HeadMap, g: np.random.Generator, name: str, colour: np.ndarray, pressed: bool = False
) -> list[Piece]:
    """Hair of a shape of SHAPES, somewhat varied.

    Args:
      colour: RGB [3] in [0, 1]; pressed: flat under a hat.
    """
    shape, u = SHAPES[name], head.unit
    turn = np.pi + np.arange(LOCKS) / LOCKS * 2 * np.pi  # the seam of streaks is at the back
    shift = g.normal(0, 0.05)
    varied = Shape(
        ends=tuple(e + shift + (e < -0.9) * g.normal(0, 0.2) for e in shape.ends),  # type: ignore[arg-type]
        part=shape.part
        + (g.uniform(-0.5, 0.5) if g.random() < 0.4 and shape.ends[0] > 0.2 else 0.0),
        slant=shape.slant * g.choice([-1, 1]) + g.normal(0, 0.04),
        jagged=shape.jagged * g.uniform(0.5, 1.5),
        thickness=shape.thickness,
    )
    brow = head.mean(19, 24)[1]
    chin = head.landmarks[8, 1]
    heights = _ends(varied, turn, g)
    ends = np.where(
        heights > 0, brow + heights * (head.crown - brow), brow + heights * (brow - chin)
    )
    paths, outward = _paths(head, turn, float(ends.min()), shape.flare)
    points, normals = _cut(paths, outward, ends)
    top, side = (value * g.uniform(0.7, 1.3) * u for value in shape.thickness)
    upward = np.clip(normals[..., 1], 0, 1)
    thick = side + (top - side) * upward
    along = np.linspace(0, 1, STEPS)
    on_face = heights[:, None] > 0.3  # these locks grow out of the hairline
    thick = thick * np.where(on_face, 1 - 0.9 * along**3, 1 - 0.35 * along**4)
    loose = along * np.where(on_face, 1 - along**2, 1.0)
    thick = thick + shape.locks * u * g.normal(0, 1, LOCKS)[:, None] * loose
    thick = thick + shape.waves * u * g.normal(0, 1, (LOCKS, STEPS)) * (along > 0.05)
    if pressed:
        under = np.maximum(brow - 2.5 * u - points[..., 1], 0)  # below its edge, hair spreads
        thick = np.minimum(thick, FLAT * u + 0.8 * under)
    points = points + normals * thick[..., None]
    if shape.waves:
        points = (
            points + shape.waves * 0.5 * u * g.normal(0, 1, points.shape) * (along > 0.1)[:, None]
        )
    points[:, 0] = points[:, 0].mean(0)
    colours = _colours(g, colour, g.random() < 0.06)
    triangles = grid(LOCKS, STEPS)
    seam = grid(2, STEPS)
    seam = np.where(seam < STEPS, seam + (LOCKS - 1) * STEPS, seam - STEPS).astype(np.int32)
    strands = _strands(points, g, u)
    sheet = piece(points, np.concatenate([triangles, seam]), colours.reshape(-1, 3), "hair")
    sheet = replace(sheet, strands=strands)
    return [sheet] if pressed else [sheet, *_knots(shape, head, g, colour)]
