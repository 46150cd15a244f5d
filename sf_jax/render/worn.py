"""What people wear on the head, fitted to any head: glasses, hats, head cloths, headphones."""

import numpy as np

from sf_jax.render.head_map import HeadMap
from sf_jax.render.meshes import Piece, ball, disc, grid, piece, tube

# Samples of a pixel that lenses cover. The first stays free: the material map shows the eyes.
REFLECTION, TINTED, DARK = 0b1000, 0b1010, 0b1110


def _outline(g: np.random.Generator, wide: float, high: float) -> np.ndarray:
    """A lens about the origin, [28, 2]: round, rectangular, drop-shaped, cat-eyed or half."""
    turn = np.arange(28) / 28 * 2 * np.pi
    power = g.choice([1.0, 0.6, 0.4])
    x = wide * np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power
    y = high * np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power
    kind = g.random()
    if kind < 0.2:
        x = x * (1 + 0.18 * y / high)  # wider above
    elif kind < 0.35:
        y = y + 0.3 * high * np.clip(x / wide, 0, 1) ** 2  # pulled up outside
    return np.stack([x, y], 1)


def glasses(head: HeadMap, g: np.random.Generator, lens: str = "clear") -> list[Piece]:
    """Glasses before the eyes.

    Args:
      lens: "clear", "glare" (reflections on a part of it), "tinted" or "dark".
    """
    u = head.unit
    right, left = head.eyes
    nose = head.landmarks[27]
    apart = float(left[0] - right[0])
    wide = g.uniform(0.36, 0.46) * apart
    high = wide * g.uniform(0.55, 1.0)
    front = max(float(head.landmarks[36:48, 2].max()) + 0.9 * u, float(nose[2]) + 0.1 * u)
    radius = float(np.exp(g.uniform(np.log(0.05), np.log(0.28)))) * u
    colour = g.uniform(0.02, 0.2, 3) if g.random() < 0.6 else g.uniform(0, 1, 3)
    shape = _outline(g, wide, high)
    drop = g.uniform(-0.1, 0.25) * high
    glass = g.uniform(0.0, 0.12, 3) if g.random() < 0.7 else g.uniform(0, 0.5, 3)
    pieces, rims = [], []
    for eye, sign in ((right, -1.0), (left, 1.0)):
        rim = np.empty((len(shape), 3))
        rim[:, 0] = eye[0] + sign * (shape[:, 0] + 0.02 * wide)
        rim[:, 1] = eye[1] - drop + shape[:, 1]
        rim[:, 2] = front - 0.06 * (rim[:, 0] - nose[0]) ** 2 / u
        rims.append(rim)
        if g.random() < 0.9 or radius > 0.1 * u:
            pieces.append(piece(*tube(rim, radius, 5, closed=True), colour))
        pieces += _lens(rim, g, lens, glass)
    inner = [rims[0][np.argmax(rims[0][:, 0])], rims[1][np.argmin(rims[1][:, 0])]]
    arch = np.array([0, 0.25 * high, 0.25 * u])
    bridge = np.stack([inner[0], (inner[0] + inner[1]) / 2 + arch, inner[1]])
    pieces.append(piece(*tube(bridge, max(radius, 0.09 * u), 5), colour))
    for rim, side, temple in ((rims[0], -1.0, 1), (rims[1], 1.0, 15)):
        hinge = rim[np.argmax(side * rim[:, 0])] + [0, 0.3 * high, 0]
        ear = head.landmarks[temple] + np.array([side * 0.4, 0.0, -1.5]) * u
        ear[1] = hinge[1] - 0.3 * u
        arm = np.stack([hinge, (hinge + ear) / 2, ear, ear + np.array([0, -1.5, -2]) * u])
        pieces.append(piece(*tube(arm, max(radius, 0.1 * u), 5), colour))
    return pieces


def _lens(rim: np.ndarray, g: np.random.Generator, lens: str, colour: np.ndarray) -> list[Piece]:
    if lens == "clear":
        return []
    middle = rim.mean(0)
    if lens == "glare":
        share = g.uniform(0.3, 0.6)
        offset = g.uniform(-0.3, 0.3, 3) * np.ptp(rim, 0)
        rim = middle + offset * [1, 1, 0] + share * (rim - middle)
        return [piece(*disc(middle + offset * [1, 1, 0], rim), (1.0, 1.0, 1.0), samples=REFLECTION)]
    samples = DARK if lens == "dark" else TINTED
    return [piece(*disc(middle, rim), colour, samples=samples)]


def _cap_edge(head: HeadMap, brow_share: float, back: float, turn: np.ndarray) -> np.ndarray:
    """Elevations at which a hat's edge runs: at `brow_share` of the way from brows to crown in
    front, at the elevation `back` at the back."""
    brow = head.mean(19, 24)
    rise = brow[1] + brow_share * (head.crown - brow[1]) - head.centre[1]
    front = np.arctan2(rise, brow[2] - head.centre[2])
    share = 0.5 + 0.5 * np.cos(turn)
    return back + (front - back) * share


def _dome(
    head: HeadMap, turn: np.ndarray, edge: np.ndarray, above: np.ndarray | float, rows: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """A shell [rows, columns, 3] over the crown down to the elevations `edge`."""
    share = np.linspace(0, 1, rows)[:, None]
    height = np.pi / 2 - share * (np.pi / 2 - edge)
    points = head.surface(turn, height, above)
    return points, grid(rows, len(turn), True)


def hat(head: HeadMap, g: np.random.Generator) -> list[Piece]:
    """A beanie, a cap with a peak, a hat with a brim, a helmet, a turban or a band."""
    u = head.unit
    turn = np.arange(36) / 36 * 2 * np.pi
    colour, other = g.uniform(0.02, 0.98, (2, 3))
    kind = g.choice(["beanie", "cap", "brim", "helmet", "turban", "band"])
    edge = _cap_edge(head, g.uniform(0.12, 0.5), g.uniform(-0.35, 0.1), turn)
    if kind == "band":
        low = head.surface(turn, edge, 0.95 * u)
        high = head.surface(turn, edge + g.uniform(0.1, 0.3), 1.05 * u)
        return [piece(np.stack([low, high]), grid(2, len(turn), True), colour)]
    above = {"beanie": 1.0, "cap": 1.0, "brim": 0.9, "helmet": 2.2, "turban": 1.6}[kind] * u
    share = np.linspace(0, 1, 10)[:, None]
    lift = above + (g.uniform(0, 3.5) * u * (kind in ("beanie", "brim")) * (1 - share) ** 2)
    if kind == "turban":
        lift = lift + 1.6 * u * np.sin(np.pi * share) + 0.35 * u * np.sin(14 * share + 2 * turn)
    points, triangles = _dome(head, turn, edge, lift)
    stripes = g.random() < 0.3
    shades = np.where(np.arange(10) % 3 == 0, 1.0, 0.0)[:, None, None] if stripes else 0.0
    colours = colour + (other - colour) * np.broadcast_to(shades, (10, len(turn), 1))
    pieces = [piece(points, triangles, colours.reshape(-1, 3))]
    if kind == "beanie":
        cuff = np.stack([points[-1], head.surface(turn, edge + 0.22, above + 0.5 * u)])
        cuff[0] += (cuff[1] - head.centre) * 0.02
        pieces.append(piece(cuff, grid(2, len(turn), True), other))
    elif kind == "cap":
        pieces.append(_peak(head, g, points[-1], turn, colour if g.random() < 0.5 else other))
    elif kind == "brim":
        rim = points[-1]
        flat = np.stack([np.sin(turn), 0 * turn, np.cos(turn)], -1)
        outer = rim + flat * g.uniform(2.5, 7.0) * u + [0, -g.uniform(-0.5, 1.5) * u, 0]
        pieces.append(piece(np.stack([rim, outer]), grid(2, len(turn), True), colour))
    return pieces


def _peak(
    head: HeadMap, g: np.random.Generator, rim: np.ndarray, turn: np.ndarray, colour: np.ndarray
) -> Piece:
    """The peak of a cap: forward, rarely to the back."""
    away = np.abs((turn + np.pi) % (2 * np.pi) - np.pi)
    order = np.argsort((turn + np.pi) % (2 * np.pi))
    front = order[away[order] < 0.95]
    inner = rim[front]
    if g.random() < 0.15:
        inner = rim[(front + len(turn) // 2) % len(turn)]
    out = inner - head.centre
    out[:, 1] = 0
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    ahead = out.mean(0)
    bulge = (out @ ahead)[:, None] ** 3
    outer = inner + ahead * bulge * g.uniform(4.5, 7.0) * head.unit
    outer[:, 1] -= g.uniform(-0.5, 2.0) * head.unit
    return piece(np.stack([inner, outer]), grid(2, len(inner)), colour)


def _face_opening(head: HeadMap, g: np.random.Generator, turn: np.ndarray) -> np.ndarray:
    """The edge [n, 3] of a cloth around the face: at these angles about the line of sight, from
    straight down."""
    u, chin, brow = head.unit, head.landmarks[8], head.mean(19, 24)
    sides = head.landmarks[[1, 15]]
    middle = (chin + brow) / 2
    half_wide = 0.5 * float(sides[1, 0] - sides[0, 0]) * g.uniform(0.93, 1.03)
    half_high = 0.5 * float(brow[1] - chin[1])
    over = g.uniform(1.2, 3.8) * u
    down = np.cos(turn)  # 1 under the chin, -1 above the brows
    y = middle[1] - np.where(down > 0, half_high + 0.8 * u, half_high + over) * down
    depths = [brow[2] - 1.2 * u, sides[:, 2].mean() + 1.0 * u, chin[2] - 2 * u]
    z = np.interp(down, [-1, 0, 1], depths)
    return np.stack([middle[0] + half_wide * np.sin(turn), y, z], -1)


def head_cloth(head: HeadMap, g: np.random.Generator) -> list[Piece]:
    """A cloth around the face, over hair, ears and neck, as a hijab or a hood."""
    u, columns, rows = head.unit, 40, 12
    turn = np.arange(columns) / columns * 2 * np.pi
    opening = _face_opening(head, g, turn)
    towards = opening - (head.centre + np.array([0, -1.0, -0.2]) * u)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    # From the opening over the sides of the head to a point low at the back.
    share, pole = np.linspace(0, 1, rows)[:, None, None], np.array([0.0, -0.15, -1.0])
    sideways = towards - pole * (towards @ pole)[:, None]
    direction = towards + share * (pole - towards) + 1.6 * share * (1 - share) * sideways
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    height = np.arcsin(np.clip(direction[..., 1], -1, 1))
    around = np.arctan2(direction[..., 0], direction[..., 2])
    folds = np.sin(5 * turn + g.uniform(0, 6)) * np.sin(np.pi * share[..., 0])
    points = head.surface(around, height, (1.0 + 0.25 * folds) * u)
    points[0] = opening
    colour = g.uniform(0.02, 0.98, 3)
    return [piece(points, grid(rows, columns, True), colour), _drape(head, colour, g)]


def _drape(head: HeadMap, colour: np.ndarray, g: np.random.Generator) -> Piece:
    """Cloth from the jaw down over the neck to the shoulders."""
    u, columns = head.unit, 32
    turn = np.arange(columns) / columns * 2 * np.pi
    chin = head.landmarks[8]
    heights = np.array([0.8, -1.5, -4.0, -7.5, -12.0]) * u
    wide = np.array([6.6, 6.8, 7.4, 10.0, 16.0]) * u
    deep = np.array([6.8, 6.6, 6.6, 7.2, 8.5]) * u
    axis = np.array([head.centre[0], chin[1], 0.5 * (head.centre[2] + chin[2]) - 2.5 * u])
    front = 1 - 0.12 * np.clip(np.cos(turn), 0, 1)
    points = axis + np.stack(
        [
            wide[:, None] * np.sin(turn),
            heights[:, None]
            + 0.8 * u * np.sin(3 * turn + g.uniform(0, 6)) * (np.arange(5) / 4)[:, None],
            deep[:, None] * np.cos(turn) * front,
        ],
        -1,
    )
    return piece(points, grid(len(heights), columns, True), colour)


def headphones(head: HeadMap, g: np.random.Generator) -> list[Piece]:
    """A band over the head and a cup on each ear, sometimes with a microphone at the mouth."""
    u = head.unit
    colour, other = g.uniform(0.02, 0.9, (2, 3))
    height = np.concatenate([np.linspace(0.0, np.pi / 2, 9), np.linspace(np.pi / 2, 0.0, 9)[1:]])
    turn = np.where(np.arange(17) < 8, np.pi / 2, -np.pi / 2)
    band = head.surface(turn, height, g.uniform(0.8, 1.8) * u)
    pieces = [piece(*tube(band, g.uniform(0.3, 0.9) * u, 6), colour)]
    size = g.uniform(2.2, 3.8) * u
    ears = head.surface(np.array([np.pi / 2, -np.pi / 2]), np.array([-0.2, -0.2]), 0.6 * u)
    for ear in ears:
        pieces.append(piece(*ball(ear, (1.4 * u, size, size)), other))
    if g.random() < 0.35:
        mouth = head.mean(48, 54)
        side = int(g.integers(2))
        aside, start = (1 - 2 * side) * g.uniform(2.2, 4.5), ears[side]
        end = mouth + np.array([aside, -1.0, 1.5]) * u
        path = start + np.linspace(0, 1, 6)[:, None] * (end - start)
        pieces.append(piece(*tube(path, 0.15 * u, 5), colour))
        pieces.append(piece(*ball(end, 0.6 * u), (0.03, 0.03, 0.03)))
    return pieces


def face_mask(head: HeadMap, g: np.random.Generator) -> list[Piece]:
    """A medical mask over nose and mouth."""
    u, rows, columns = head.unit, 9, 15
    top, chin = head.mean(28, 29)[1], head.landmarks[8]
    sides = head.landmarks[[3, 13]]
    across, down = np.linspace(-1, 1, columns), np.linspace(0, 1, rows)
    x = np.interp(across, [-1, 1], sides[:, 0]) * np.ones((rows, 1))
    y = top + down[:, None] * (chin[1] - 0.5 * u - top) * (1 - 0.12 * across**2)
    ahead = head.landmarks[[30, 33, 51, 57, 8]]
    middle = np.interp(-y, -ahead[:, 1], np.maximum(ahead[:, 2], ahead[0, 2] - 1.5 * u)) + 0.8 * u
    edge = float(sides[:, 2].mean()) + 1.0 * u
    z = middle - (middle - edge) * np.abs(across) ** 1.7
    colour = (0.6, 0.8, 0.9) if g.random() < 0.5 else g.uniform(0, 1, 3)
    return [piece(np.stack([x, y, z], -1), grid(rows, columns), colour)]


def earrings(head: HeadMap, g: np.random.Generator) -> list[Piece]:
    """A ball or a hoop under each ear."""
    u = head.unit
    colour = g.choice(np.array([[0.9, 0.75, 0.3], [0.85, 0.85, 0.88], [0.1, 0.1, 0.1]]))
    size, hoop = g.uniform(0.3, 1.8) * u, g.random() < 0.5
    pieces = []
    for turn in (np.pi / 2, -np.pi / 2):
        at = head.surface(np.array([turn]), np.array([-0.55]), 0.6 * u)[0]
        if hoop:
            around = np.arange(14) / 14 * 2 * np.pi
            ring = at + size * np.stack([0 * around, np.cos(around) - 1, np.sin(around)], -1)
            pieces.append(piece(*tube(ring, 0.12 * u, 5, closed=True), colour))
        else:
            pieces.append(piece(*ball(at - [0, size, 0], 0.6 * size), colour))
    return pieces
