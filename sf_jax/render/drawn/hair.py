"""Hair: what is beyond the head, and the fringe and locks before it."""

import numpy as np

from sf_jax.render.drawn.canvas import mix, scaled
from sf_jax.render.drawn.curves import Points, ellipse, spline
from sf_jax.render.drawn.head import Head
from sf_jax.render.drawn.sheet import HAIR, SKIN, Sheet

_BACK = -0.35  # depth of hair that hangs


def _skull(sheet: Sheet, extra: float = 0.0) -> Head:
    volume = sheet.style.hair.volume + extra
    return sheet.head.inflated(volume, 0.9 * volume, back=volume)


def _random(sheet: Sheet) -> np.random.Generator:
    return np.random.default_rng(sheet.style.hair.seed)


def draw_back(sheet: Sheet) -> None:
    """Draws hair that the head covers."""
    kind, colour = sheet.style.hair.back, scaled(sheet.style.palette.hair, 0.82)
    if kind == "none":
        return
    if kind in ("bob", "long", "pony", "tails", "bun"):
        for shape in _hanging(sheet):
            sheet.shape(shape, colour, HAIR)
    elif kind == "afro":
        sheet.shape(_afro(sheet), colour, HAIR)
    elif kind == "spiky":
        sheet.shape(_spikes(sheet), colour, HAIR)
    low = 0.1 if kind == "short" else -0.1
    sheet.shape(_skull(sheet).silhouette(high=low), colour, HAIR)


def _hanging(sheet: Sheet) -> list[Points]:
    """Curtains to the jaw or the chest, tails at the sides or the back, a bun."""
    kind, head, hair = sheet.style.hair.back, sheet.head, sheet.style.hair
    wide = float(head.width.max()) + hair.volume
    random = _random(sheet)

    def solid(points: list) -> Points:
        curve = spline(np.array([[x, y, _BACK] for x, y in points]), closed=True, per=5)
        return head.solid(curve)

    if kind == "bun":
        size = random.uniform(0.25, 0.4)
        return [
            head.solid(
                np.column_stack([ellipse(0, -1.05 - 0.5 * size, size, size), np.full(24, -0.2)])
            )
        ]
    if kind == "pony":
        side = 1 if hair.part > 0 else -1
        return [
            solid(
                [
                    (side * 0.2, -0.9),
                    (side * 0.8, -0.95),
                    (side * 1.15, -0.4),
                    (side * 1.1, 0.5),
                    (side * 0.95, 0.1),
                    (side * 0.7, -0.4),
                ]
            )
        ]
    if kind == "tails":
        long = random.uniform(0.6, 1.6)
        high = random.uniform(-0.8, 0.0)
        return [
            solid(
                [
                    (s * 0.55, high),
                    (s * (wide + 0.3), high - 0.1),
                    (s * (wide + 0.45), high + 0.6 * long),
                    (s * (wide + 0.15), high + long),
                    (s * (wide + 0.05), high + 0.5 * long),
                ]
            )
            for s in (-1, 1)
        ]
    low = random.uniform(0.75, 1.1) if kind == "bob" else random.uniform(1.4, 2.4)
    flare = wide * random.uniform(1.02, 1.3)
    return [
        solid(
            [
                (-0.6 * wide, -0.8),
                (0, -1.0),
                (0.6 * wide, -0.8),
                (wide, -0.1),
                (flare, 0.6 * low),
                (0.85 * flare, low),
                (0, low * 0.95),
                (-0.85 * flare, low),
                (-flare, 0.6 * low),
                (-wide, -0.1),
            ]
        )
    ]


def _afro(sheet: Sheet) -> Points:
    random, wide = _random(sheet), float(sheet.head.width.max())
    size = random.uniform(0.3, 0.6)
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = 1 + 0.03 * np.abs(np.sin(9 * angle + random.uniform(0, 6)))
    circle = np.stack(
        [(wide + size) * radius * np.cos(angle), -0.35 + (0.75 + size) * radius * np.sin(angle)], 1
    )
    return sheet.head.solid(np.column_stack([circle, np.full(60, -0.2)]))


def _spikes(sheet: Sheet) -> Points:
    """Spikes all around the skull."""
    random, wide = _random(sheet), float(sheet.head.width.max()) + sheet.style.hair.volume
    count = int(random.integers(7, 13))
    angle = np.linspace(-1.15 * np.pi, 0.15 * np.pi, 2 * count + 1)
    tips = np.arange(2 * count + 1) % 2 == 1
    lean = random.uniform(-0.15, 0.15)
    radius = np.where(tips, random.uniform(1.12, 1.5, 2 * count + 1), 0.96)
    angle = angle + np.where(tips, lean, 0)
    points = np.stack([wide * radius * np.cos(angle), -0.28 + 0.85 * radius * np.sin(angle)], 1)
    return sheet.head.solid(np.column_stack([points, np.full(len(points), -0.15)]))


def _tips(sheet: Sheet) -> np.ndarray:
    """The lower edge of a fringe on the frontal face, from the right temple to the left one."""
    hair, random = sheet.style.hair, _random(sheet)
    kind, n = hair.fringe, max(3, hair.strands)
    wide = float(np.interp(hair.line + 0.3, sheet.head.y, sheet.head.width))
    temple = [wide * 0.995, hair.line + 0.55 + 0.2 * hair.sides]
    x = np.linspace(-0.94, 0.94, 2 * n + 1) * wide
    tip = np.arange(2 * n + 1) % 2 == 1
    dome = hair.line + 0.28 * (np.abs(x) / wide) ** 2.5  # the hairline itself
    jitter = random.uniform(-1, 1, 2 * n + 1)
    if kind == "straight":
        y = dome * 0 + hair.line + hair.low + 0.03 * jitter - 0.05 * tip
    elif kind == "spiky":
        y = dome + hair.low * np.where(tip, 1.0 + 0.35 * jitter, 0.3 + 0.15 * jitter)
        x = x + tip * 0.1 * hair.part
    elif kind == "bangs":
        y = dome + hair.low * np.where(tip, 1.0 + 0.3 * jitter, 0.05 + 0.15 * jitter)
        x = x + tip * (0.12 * hair.part + 0.06 * jitter) * wide
    elif kind == "swept":
        sweep = 0.5 + 0.5 * np.sign(hair.part) * x / wide
        y = dome + hair.low * (0.15 + 0.9 * sweep) * np.where(tip, 1.0, 0.72 + 0.1 * jitter)
        x = x + tip * 0.09 * np.sign(hair.part)
    elif kind == "parted":
        away = np.abs(x / wide - hair.part)
        y = dome - 0.1 + hair.low * np.minimum(1.3, 1.6 * away) * np.where(tip, 1.0, 0.85)
    elif kind == "peak":
        y = dome + 0.16 * np.exp(-((x / (0.25 * wide)) ** 2)) - 0.02 * tip
    elif kind == "curly":
        y = dome + 0.4 * hair.low + 0.1 * np.where(tip, 1.0, -0.3) + 0.04 * jitter
    else:
        y = dome
    return np.concatenate([[[-temple[0], temple[1]]], np.stack([x, y], 1), [temple]])


def _fringe(sheet: Sheet, drop: float = 0.0) -> Points:
    """The outline of the fringe in pixels; `drop` lowers its edge, for its shadow."""
    hair = sheet.style.hair
    tips = _tips(sheet)
    smooth = hair.fringe in ("cap", "peak", "parted", "curly")
    edge = spline(tips, per=4) if smooth else _strands(tips)
    edge[:, 1] += drop
    lower = sheet.head.place(edge, lift=0.04)
    top = _skull(sheet, -0.5 * drop).silhouette(high=float(tips[0, 1]) - 0.1)
    count = len(top) // 2
    return np.concatenate([top[:count][::-1], top[count:][::-1], lower[::-1]])


def _strands(tips: np.ndarray) -> np.ndarray:
    """Bends each edge of a strand, so that tips are sharp and strands are round."""
    a, b = tips[:-1], tips[1:]
    middle = (a + b) / 2
    middle[:, 0] += 0.12 * (b - a)[:, 1] * np.sign(middle[:, 0] + 1e-6) * 0.5
    middle[:, 1] += 0.1 * np.abs(b - a)[:, 1]
    out = np.empty((len(tips) + len(middle), 2))
    out[::2], out[1::2] = tips, middle
    return out


def draw_fringe_shadow(sheet: Sheet, face: Points) -> None:
    """The shadow of a fringe on the forehead."""
    if sheet.style.hair.fringe == "none" or not sheet.style.shading.fringe_shadow:
        return
    with sheet.canvas.inside(face):
        sheet.canvas.fill(_fringe(sheet, 0.07), sheet.style.palette.shade, SKIN)


def draw_fringe(sheet: Sheet) -> None:
    """Draws hair before the face."""
    hair, palette = sheet.style.hair, sheet.style.palette
    if hair.fringe == "none":
        return
    outline = _fringe(sheet)
    sheet.shape(outline, palette.hair, HAIR)
    if sheet.style.shading.tones > 1 or hair.shine:
        with sheet.canvas.inside(outline):
            _shine(sheet)
    if hair.fringe in ("spiky", "straight", "swept", "bangs") and not sheet.style.ink.none:
        _strand_lines(sheet)
    if hair.sides > 0.05:
        for side in (-1, 1):
            _lock(sheet, side)


def _shine(sheet: Sheet) -> None:
    """A darker lower side and a band of light."""
    hair, palette = sheet.style.hair, sheet.style.palette
    if not hair.shine:
        return
    wide = float(sheet.head.width.max())
    x = np.linspace(-0.75, 0.75, 15) * wide
    zigzag = 0.035 * (np.arange(15) % 2)
    y = -0.72 + 0.18 * (x / wide) ** 2
    band = np.concatenate([np.stack([x, y - zigzag], 1), np.stack([x, y + 0.1 + zigzag], 1)[::-1]])
    light = mix(palette.hair, (255, 255, 255), 0.5 * hair.shine)
    sheet.canvas.fill(sheet.head.place(band, lift=0.05), light, HAIR)


def _strand_lines(sheet: Sheet) -> None:
    tips = _tips(sheet)[2:-2:2]
    ink = sheet.ink(sheet.style.palette.hair)
    for x, y in tips[:: max(1, len(tips) // 4)]:
        line = np.array([[x, y], [0.92 * x, y - 0.12], [0.8 * x, y - 0.26]])
        sheet.mark(sheet.head.place(line, lift=0.05), 0.6, HAIR, ink, (1.0, 0.1))


def _lock(sheet: Sheet, side: int) -> None:
    """A lock of hair before the ear."""
    hair = sheet.style.hair
    top, wide = hair.line + 0.2, float(np.interp(0.0, sheet.head.y, sheet.head.width))
    low = top + 0.3 + 0.9 * hair.sides
    points = np.array(
        [
            [side * (wide + hair.volume), top, 0.05],
            [side * (wide + 0.06), 0.5 * (top + low), 0.15],
            [side * (wide - 0.04), low, 0.2],
            [side * (wide - 0.12), 0.5 * (top + low), 0.25],
            [side * (wide - 0.16), top, 0.2],
        ]
    )
    sheet.shape(
        sheet.head.solid(spline(points, closed=True, per=4)), sheet.style.palette.hair, HAIR
    )
