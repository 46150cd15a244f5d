"""What may be in front of a face: hands, microphones, cups, telephones, other things."""

import numpy as np

from sf_jax.render.head_map import HeadMap
from sf_jax.render.meshes import Piece, ball, box, capsule, grid, piece, tube


def _turned(points: np.ndarray, yaw: float, pitch: float, roll: float) -> np.ndarray:
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return points @ (about_z @ about_x @ about_y).T


def _hand_parts(g: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """A right hand about the middle of its palm, fingers up, palm to the front, cm."""
    parts = [ball(np.zeros(3), (3.9, 4.4, 1.2), 8, 12)]
    bend, spread = g.uniform(0.0, 1.3), g.uniform(0.0, 0.16)
    for i, length in enumerate((6.2, 7.4, 7.9, 7.0)):
        x = -3.0 + 2.0 * i
        lean = (i - 1.5) * spread
        curl = np.cumsum(np.full(3, max(0.0, bend + g.normal(0, 0.12)) * 0.6))
        steps = (
            np.stack([np.full(3, np.sin(lean)), np.cos(curl) * np.cos(lean), np.sin(curl)], -1)
            * (length * np.array([0.45, 0.32, 0.23]))[:, None]
        )
        knuckle = np.array([x, 3.6 - 0.15 * (i - 1.5) ** 2, 0.0])
        parts.append(capsule(np.concatenate([knuckle[None], knuckle + np.cumsum(steps, 0)]), 0.95))
    thumb = np.array([[3.0, -2.2, 0.3], [5.2, 0.0, 1.0], [6.2, 2.6, 1.4]])
    if g.random() < 0.5:
        thumb = np.array([[3.0, -2.2, 0.3], [3.6, 0.6, 1.8], [2.2, 2.6, 2.4]])
    parts.append(capsule(thumb, 1.05))
    wrist = np.array([[0, -3.2, 0.0], [0, -8, -0.6], [0, -18, -2.0]])
    parts.append(tube(wrist, np.array([2.7, 2.5, 3.2]), 10))
    return parts


def hand(
    head: HeadMap, g: np.random.Generator, skin: np.ndarray, at: np.ndarray, roll: float
) -> list[Piece]:
    """A hand whose fingers' middle is at a point [3], turned by `roll` from upright."""
    u = head.unit
    side = g.choice([-1.0, 1.0])
    yaw, pitch = g.normal(0, 0.4), g.normal(0.1, 0.3)
    back = np.pi if g.random() < 0.7 else 0.0  # the back of the hand is seen
    sleeve = g.uniform(0, 1, 3)
    pieces = []
    for number, (points, triangles) in enumerate(_hand_parts(g)):
        flat = points.reshape(-1, 3) - [0, 4.0, 0]
        colour: np.ndarray = np.broadcast_to(skin, flat.shape)
        if number == 6:
            colour = np.where(flat[:, 1:2] < -14.0, sleeve, colour)
        placed = _turned(flat * [side, 1, 1], back + yaw, pitch, roll) * u * 0.92 + at
        pieces.append(piece(placed, triangles, colour))
    return pieces


def hands(head: HeadMap, g: np.random.Generator, skin: np.ndarray) -> list[Piece]:
    """A hand at the cheek, the chin, the brow, before the mouth, or raised beside the face."""
    u, chin, mouth = head.unit, head.landmarks[8], head.mean(48, 54)
    side = g.choice([-1.0, 1.0])
    cheek = head.landmarks[13 if side > 0 else 3]
    kind = g.choice(["cheek", "chin", "brow", "mouth", "beside"], p=[0.3, 0.3, 0.15, 0.1, 0.15])
    if kind == "cheek":
        at, roll = cheek + np.array([side * 1.2 * u, 1.0 * u, 2.5 * u]), side * g.uniform(-0.3, 0.5)
    elif kind == "chin":
        at, roll = chin + np.array([g.normal(0, 1.5) * u, -1.5 * u, 2.0 * u]), g.normal(0, 0.8)
    elif kind == "brow":
        at = head.mean(19, 24) + np.array([side * 3.5, 3.0, 2.5]) * u
        roll = side * g.uniform(0.8, 1.6)
    elif kind == "mouth":
        at, roll = mouth + np.array([side * 2.5 * u, -1.0 * u, 3.0 * u]), side * g.uniform(0.3, 1.4)
    else:
        at, roll = cheek + np.array([side * 6.0 * u, 2.0 * u, 5.0 * u]), g.normal(0, 0.4)
    return hand(head, g, skin, at, float(roll))


def microphone(head: HeadMap, g: np.random.Generator, skin: np.ndarray) -> list[Piece]:
    """A microphone below the mouth, sometimes with the hand that holds it."""
    u, mouth = head.unit, head.mean(48, 54)
    slant = g.normal(0, 0.5)
    top = mouth + np.array([g.normal(0, 1.8), g.uniform(-4.5, -1.8), g.uniform(4.0, 7.0)]) * u
    away = np.array([np.sin(slant), -np.cos(slant), 0.35])
    head_colour = (0.15, 0.15, 0.16) if g.random() < 0.6 else g.uniform(0, 1, 3)
    path = top + away * np.array([[1.5], [6.0], [18.0]]) * u
    pieces = [
        piece(*ball(top, g.uniform(1.7, 2.8) * u), head_colour),
        piece(*tube(path, np.array([1.5, 1.2, 1.1]) * u, 10), g.uniform(0, 0.4, 3)),
    ]
    if g.random() < 0.5:
        grip = top + away * 9.0 * u
        pieces += hand(head, g, skin, grip + np.array([0, 0.5, 0.8]) * u, 1.57 * g.choice([-1, 1]))
    return pieces


def cup(head: HeadMap, g: np.random.Generator, skin: np.ndarray) -> list[Piece]:
    """A cup or glass at the chin."""
    u, mouth = head.unit, head.mean(48, 54)
    turn = np.arange(20) / 20 * 2 * np.pi
    low, high, tall = g.uniform(2.2, 3.2) * u, g.uniform(3.0, 4.2) * u, g.uniform(7, 11) * u
    middle = mouth + np.array([g.normal(0, 1.0), g.uniform(-4.0, -2.0), 5.5]) * u
    rows = []
    for share in (0.0, 0.5, 1.0):
        radius = high + (low - high) * share
        ring = np.stack([radius * np.sin(turn), 0 * turn - share * tall, radius * np.cos(turn)], -1)
        rows.append(ring)
    shell = _turned(np.stack(rows).reshape(-1, 3), 0.0, g.uniform(-0.2, 0.5), g.normal(0, 0.15))
    pieces = [piece(shell + middle, grid(3, 20, True), g.uniform(0.05, 1, 3))]
    if g.random() < 0.6:
        side = g.choice([-1.0, 1.0])
        at = middle + np.array([side * 2.5 * u, -0.4 * tall, 3.2 * u])
        pieces += hand(head, g, skin, at, side * 1.3)
    return pieces


def telephone(head: HeadMap, g: np.random.Generator, skin: np.ndarray) -> list[Piece]:
    """A telephone at an ear, or held up beside the face."""
    u, side = head.unit, g.choice([-1.0, 1.0])
    cheek = head.landmarks[15 if side > 0 else 1]
    at = cheek + np.array([side * 1.5, -1.5, 2.5]) * u
    points, triangles = box(np.zeros(3), np.array([3.6, 7.5, 0.45]) * u)
    placed = _turned(points, side * g.uniform(0.5, 1.3), 0.0, -side * g.uniform(0.0, 0.4)) + at
    colour = g.uniform(0.0, 0.2, 3) if g.random() < 0.6 else g.uniform(0, 1, 3)
    pieces = [piece(placed, triangles, colour)]
    grip = at + np.array([side * 0.8, -1.0, 0.6]) * u
    return pieces + hand(head, g, skin, grip, -side * g.uniform(0.2, 0.7))


def foreground(head: HeadMap, g: np.random.Generator, skin: np.ndarray) -> list[Piece]:
    """Bars, leaves or balls nearer to the camera, mostly at the face's border."""
    u, pieces = head.unit, []
    middle = head.mean(30, 8, 27)
    for _ in range(int(g.integers(1, 5))):
        turn = g.uniform(0, 2 * np.pi)
        away = np.array([np.cos(turn), np.sin(turn), 0]) * g.uniform(7.0, 14.0) * u
        at = middle + away + [0, 0, g.uniform(5, 9) * u]
        colour = g.uniform(0.02, 0.98, 3)
        if g.random() < 0.4:
            along = np.array([np.cos(turn + 1.5), np.sin(turn + 1.5), g.normal(0, 0.2)])
            path = at + along * np.linspace(-20, 20, 5)[:, None] * u
            pieces.append(piece(*tube(path, g.uniform(0.2, 1.5) * u, 8), colour))
        else:
            radii = g.uniform(0.6, 4.5, 3) * u
            pieces.append(piece(*ball(at, radii), colour))
    return pieces
