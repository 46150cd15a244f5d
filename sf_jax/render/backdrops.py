"""Drawn backgrounds of many kinds: what is around faces in photographs, films and drawings."""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

POOL_SIDE, POOL = 256, 6  # of noise tiles, which repeat


@cache
def _tiles() -> np.ndarray:
    """Noise whose spectrum falls as in photographs: float32 [POOL, N, N], deviation 1."""
    generator = np.random.default_rng(11)
    frequency = np.hypot(np.fft.fftfreq(POOL_SIDE)[:, None], np.fft.rfftfreq(POOL_SIDE)[None])
    frequency[0, 0] = 1.0
    tiles = []
    for i in range(POOL):
        white = np.fft.rfft2(generator.standard_normal((POOL_SIDE, POOL_SIDE)))
        white[0, 0] = 0
        tile = np.fft.irfft2(white / frequency ** (0.8 + 0.2 * i))
        tiles.append(tile / tile.std())
    return np.stack(tiles).astype(np.float32)


def noise(g: np.random.Generator, height: int, width: int, zoom: float = 1.0) -> np.ndarray:
    """Natural noise float32 [height, width], deviation about 1."""
    tile = _tiles()[g.integers(POOL)]
    side = max(4, int(POOL_SIDE / zoom))
    top, left = g.integers(0, POOL_SIDE, 2)
    rows, columns = (np.arange(side) + top) % POOL_SIDE, (np.arange(side) + left) % POOL_SIDE
    return cv2.resize(tile[rows[:, None], columns], (width, height), interpolation=cv2.INTER_LINEAR)


def _palette(g: np.random.Generator, count: int) -> np.ndarray:
    """Colours float32 [count, 3], related to each other and seldom garish."""
    base, spread = g.uniform(0.05, 0.95, 3), g.uniform(0.05, 0.5)
    colours = base + g.normal(0, spread, (count, 3))
    grey = colours.mean(1, keepdims=True)
    return np.clip(grey + g.uniform(0.0, 1.0) ** 1.7 * (colours - grey), 0, 1).astype(np.float32)


def _plain(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    return np.broadcast_to(_palette(g, 1)[0], (height, width, 3)).copy()


def _gradient(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    cells = _palette(g, 12).reshape(3, 4, 3)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)


def _cloudy(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Natural noise between a few colours: walls, cloth, stone, trees out of focus."""
    colours = _palette(g, 3)
    first, second = (noise(g, height, width, float(g.uniform(1, 8)))[..., None] for _ in range(2))
    share = np.clip(0.5 + 0.4 * first, 0, 1)
    mixed = colours[0] + share * (colours[1] - colours[0])
    return mixed + np.clip(0.3 * second, 0, 1) * (colours[2] - mixed)


def _bokeh(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Lights out of focus before a dark gradient."""
    picture = _gradient(g, height, width) * np.float32(g.uniform(0.1, 0.6))
    side = min(height, width)
    for _ in range(int(g.integers(8, 40))):
        at = (g.uniform(0, 1, 2) * [width, height]).astype(int).tolist()
        radius = max(1, int(side * g.uniform(0.02, 0.12)))
        colour = (g.uniform(0.4, 1.0, 3) * g.uniform(0.3, 1.0)).tolist()
        spot = np.zeros_like(picture)
        cv2.circle(spot, at, radius, colour, -1)
        picture = np.maximum(picture, spot)
    return cv2.GaussianBlur(picture, (0, 0), side * g.uniform(0.005, 0.03))


def _room(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Walls in perspective, a window or picture, furniture of boxes."""
    walls = _palette(g, 5)
    size = np.array([width, height])
    low, high = g.uniform(0.05, 0.35, 2) * size, g.uniform(0.6, 0.95, 2) * size
    (x0, y0), (x1, y1) = low, high
    corners = [[0, 0], [width, 0], [width, height], [0, height]]
    inner = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    picture = np.broadcast_to(walls[4], (height, width, 3)).copy()
    for i in range(4):
        j = (i + 1) % 4
        side = np.array([corners[i], corners[j], inner[j], inner[i]]).astype(np.int32)
        shade = float(g.uniform(0.6, 1.1))
        cv2.fillPoly(picture, [side], (walls[i] * shade).tolist())
    for _ in range(int(g.integers(1, 9))):
        x, y = g.uniform(-0.1, 1.0, 2) * size
        w, h = np.exp(g.uniform(np.log(0.05), np.log(0.5), 2)) * size
        colour = (
            g.uniform(0, 1, 3) if g.random() < 0.4 else walls[g.integers(5)] * g.uniform(0.4, 1.4)
        )
        start, end = (int(x), int(y)), (int(x + w), int(y + h))
        cv2.rectangle(picture, start, end, colour.tolist(), -1)
        if g.random() < 0.5:
            frame = (colour * g.uniform(0.2, 0.8)).tolist()
            cv2.rectangle(picture, start, end, frame, max(1, height // 80))
    return picture + 0.04 * noise(g, height, width)[..., None]


def _foliage(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Leaves: many small ellipses, nearer ones brighter."""
    green = np.array([g.uniform(0.1, 0.5), g.uniform(0.25, 0.6), g.uniform(0.05, 0.25)])
    picture = np.broadcast_to(0.3 * green, (height, width, 3)).astype(np.float32).copy()
    side, count = min(height, width), int(g.integers(60, 200))
    size = side * g.uniform(0.02, 0.09)
    where = g.uniform(0, 1, (count, 2)) * [width, height]
    tones = np.linspace(0.4, 1.4, count) * g.uniform(0.8, 1.2, count)
    angles, lengths = g.uniform(0, 180, count), size * g.uniform(0.5, 1.6, count)
    for at, tone, angle, length in zip(where, tones, angles, lengths, strict=True):
        axes = (max(1, int(length)), max(1, int(0.4 * length)))
        centre = (int(at[0]), int(at[1]))
        cv2.ellipse(picture, centre, axes, float(angle), 0, 360, (green * tone).tolist(), -1)
    return cv2.GaussianBlur(picture, (0, 0), max(0.3, side * g.uniform(0, 0.02)))


def _stripes(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Stripes, checks, dots, bricks or rays."""
    colours = _palette(g, 2)
    angle, period = g.uniform(0, np.pi), min(height, width) * np.exp(g.uniform(-3.5, -1.0))
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(period)
    u = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    v = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    kind = int(g.integers(5))
    if kind == 0:
        share = (np.sin(2 * np.pi * u) > g.uniform(-0.6, 0.6)).astype(np.float32)
    elif kind == 1:
        share = ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)
    elif kind == 2:
        share = (np.hypot(u % 1 - 0.5, v % 1 - 0.5) < g.uniform(0.15, 0.45)).astype(np.float32)
    elif kind == 3:
        row = np.floor(y)
        gap = ((x * 0.5 + 0.5 * (row % 2)) % 1 < 0.05) | (y % 1 < 0.1)
        share = gap.astype(np.float32)
    else:  # rays from a point, as manga draws speed
        middle = g.uniform(0.2, 0.8, 2) * [width, height] / period
        turn = np.arctan2(y - middle[1], x - middle[0])
        share = (np.sin(int(g.integers(10, 60)) * turn) > g.uniform(-0.5, 0.8)).astype(np.float32)
    share = cv2.GaussianBlur(share, (0, 0), float(g.uniform(0.4, 1.2)))[..., None]
    return colours[0] + share * (colours[1] - colours[0])


def _text(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Lines of letters, as on signs, books and screens."""
    paper, ink = _palette(g, 2)
    if g.random() < 0.5:
        paper, ink = np.full(3, 0.95, np.float32), np.full(3, 0.1, np.float32)
    page = np.zeros((height, width), np.uint8)
    size = float(np.exp(g.uniform(np.log(0.25), np.log(2.0)))) * height / 160
    step, font = int(24 * size) + 2, int(g.integers(8))
    for y in range(step, height + step, step):
        letters = g.integers(33, 127, int(g.integers(2, 40)))
        letters = np.where(g.random(len(letters)) < 0.2, 32, letters)
        line, at = "".join(map(chr, letters)), (int(g.integers(-9, 20)), y)
        cv2.putText(page, line, at, font, size, 255, 1, cv2.LINE_AA)
    share = (page / np.float32(255))[..., None]
    return paper + share * (ink - paper)


def _landscape(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A sky with clouds over layers of hills or houses."""
    colours = _palette(g, 6)
    top = np.array([0.35, 0.55, 0.9]) if g.random() < 0.6 else colours[0]
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = top + down * (0.9 - 0.3 * top - top) * 0.8
    clouds = np.clip(noise(g, height, width, 2.0) - 0.5, 0, 1)[..., None]
    picture = (sky + clouds * (1 - sky)).astype(np.float32)
    columns = np.arange(width)
    for layer in range(int(g.integers(1, 5))):
        base = height * (g.uniform(0.4, 0.6) + 0.12 * layer)
        if g.random() < 0.4:
            houses = np.repeat(g.uniform(-0.25, 0.1, 40), width // 8 + 1)[:width]
            line = base + height * houses
        else:
            line = base + height * 0.06 * noise(g, 4, width)[0]
        below = np.arange(height)[:, None] > line[columns]
        picture[below] = colours[1 + layer] * g.uniform(0.4, 1.1)
    return picture + 0.06 * noise(g, height, width)[..., None]


def _shapes(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Discs, boxes, polygons and lines of all sizes: things on a shelf, a desk, a wall."""
    picture = KINDS["gradient" if g.random() < 0.5 else "cloudy"](g, height, width).copy()
    colours, size = _palette(g, 5), np.array([width, height])
    for _ in range(int(g.integers(3, 30))):
        colour = (g.uniform(0, 1, 3) if g.random() < 0.3 else colours[g.integers(5)]).tolist()
        at, extent = g.uniform(-0.1, 1.1, 2) * size, np.exp(g.uniform(-4, -0.9, 2)) * size
        x, y, w, h = (int(v) for v in (*at, *extent))
        thickness = -1 if g.random() < 0.7 else max(1, int(g.uniform(0.005, 0.03) * width))
        kind = int(g.integers(4))
        if kind == 0:
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, thickness)
        elif kind == 1:
            cv2.ellipse(
                picture,
                (x, y),
                (w, h),
                float(g.uniform(0, 180)),
                0,
                360,
                colour,
                thickness,
            )
        elif kind == 2:
            corners = at + g.normal(0, 0.6, (int(g.integers(3, 7)), 2)) * extent
            cv2.fillPoly(picture, [corners.astype(np.int32)], colour)
        else:
            end = (int(x + w * g.normal()), int(y + h * g.normal()))
            cv2.line(picture, (x, y), end, colour, abs(thickness))
    return picture


KINDS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "plain": _plain,
    "gradient": _gradient,
    "cloudy": _cloudy,
    "bokeh": _bokeh,
    "room": _room,
    "foliage": _foliage,
    "stripes": _stripes,
    "text": _text,
    "landscape": _landscape,
    "shapes": _shapes,
}
WEIGHTS = np.array([1.0, 1.5, 2.0, 1.0, 2.0, 1.0, 1.0, 0.7, 1.3, 2.0])


def procedural(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A background of a kind of KINDS, uint8 [height, width, 3], often out of focus."""
    kind = str(g.choice(list(KINDS), p=WEIGHTS / WEIGHTS.sum()))
    picture = np.asarray(KINDS[kind](g, height, width), np.float32)
    if g.random() < 0.25:
        picture *= np.clip(1 + 0.25 * noise(g, height, width, 6.0), 0.3, 1.7)[..., None]
    if g.random() < 0.45:
        sigma = min(height, width) * np.exp(g.uniform(np.log(0.005), np.log(0.05)))
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), float(sigma)), np.float32)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
