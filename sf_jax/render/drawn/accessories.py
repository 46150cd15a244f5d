"""Beards, glasses, hats, blush and freckles."""

import numpy as np

from sf_jax.render.drawn.action import SIDES
from sf_jax.render.drawn.canvas import mix, scaled
from sf_jax.render.drawn.curves import Points, ellipse, shifted, spline
from sf_jax.render.drawn.lips import Lips
from sf_jax.render.drawn.sheet import CLOTH, HAIR, SKIN, Sheet


def draw_marks(sheet: Sheet) -> None:
    """Blush, freckles and the puffed cheeks' highlights, on the skin before its features."""
    extras, palette, e = sheet.style.extras, sheet.style.palette, sheet.style.eyes
    puff = sheet.action.one("CheekPuff")
    for side in SIDES:
        x, y = side * (e.x + 0.35 * e.width), e.y + e.down + 0.16
        if extras.blush:
            colour = mix(palette.skin, palette.blush, extras.blush)
            spot = ellipse(x, y, 0.13 + 0.03 * puff, 0.07 + 0.03 * puff)
            sheet.canvas.fill(sheet.head.place(spot), colour, SKIN)
        if extras.blush_lines:
            for i in range(3):
                line = np.array(
                    [[x + 0.06 * (i - 1) + 0.02, y - 0.035], [x + 0.06 * (i - 1) - 0.02, y + 0.035]]
                )
                sheet.mark(sheet.head.place(line), 0.6, SKIN, palette.blush)
        random = np.random.default_rng(sheet.style.seed)
        for dx, dy in random.uniform(-1, 1, (extras.freckles, 2)):
            spot = ellipse(x + 0.15 * dx, y - 0.02 + 0.07 * dy, 0.012, 0.012, count=6)
            sheet.canvas.fill(sheet.head.place(spot), scaled(palette.shade, 0.75), SKIN)
        if puff > 0.05:
            _puffed(sheet, side, puff)


def _puffed(sheet: Sheet, side: int, puff: float) -> None:
    """The round edge of a puffed cheek."""
    m, palette = sheet.style.mouth, sheet.style.palette
    x, y = side * (m.width + 0.2), m.y - 0.04
    ball = ellipse(x, y, 0.17 * puff + 0.02, 0.18 * puff + 0.02)
    sheet.canvas.fill(sheet.head.place(ball), mix(palette.skin, palette.blush, 0.35), SKIN)
    light = ellipse(x - 0.03, y - 0.06, 0.06 * puff, 0.04 * puff)
    bright = mix(palette.skin, (255, 255, 255), 0.5)
    sheet.canvas.fill(sheet.head.place(light), bright, SKIN)
    line = ball[8:20] if side > 0 else np.concatenate([ball[16:], ball[:4]])[::-1]
    sheet.fold(sheet.head.place(line), 0.9 * puff * sheet.style.extras.folds)


def draw_beard(sheet: Sheet, mouth: Lips) -> None:
    """A beard, drawn before the mouth."""
    kind, palette = sheet.style.extras.beard, sheet.style.palette
    if kind == "none":
        return
    m = sheet.style.mouth
    if kind in ("full", "stubble"):
        colour = palette.hair if kind == "full" else mix(palette.skin, palette.hair, 0.3)
        sheet.shape(
            _full(sheet, mouth, kind == "full"), colour, HAIR, 1.0 if kind == "full" else 0.01
        )
        ring = np.concatenate(
            [shifted(mouth.upper_edge, 0, -0.05), shifted(mouth.lower_edge, 0, 0.05)[::-1]]
        )
        sheet.canvas.fill(sheet.head.place(ring), palette.skin, SKIN)
    if kind == "goatee":
        x, y = mouth.lower_edge[12]
        chin = 1.04 + float(sheet.head.y[-1] - 1)
        shape = [
            [x - 0.16, y + 0.08],
            [x + 0.16, y + 0.08],
            [x + 0.14, chin - 0.05],
            [x, chin + 0.08],
            [x - 0.14, chin - 0.05],
        ]
        outline = sheet.head.place(spline(np.array(shape), closed=True, per=4), lift=0.03)
        sheet.shape(outline, palette.hair, HAIR, 0.7)
    if kind in ("moustache", "full", "goatee"):
        top = mouth.upper_edge
        x, y = top[12]
        low = top[2:-2] - (0, 0.015)
        high = low - np.stack([0 * low[:, 0], 0.13 * np.cos(np.linspace(-1.4, 1.4, len(low)))], 1)
        edge = np.concatenate([high, low[::-1]])
        edge[:, 0] = x + (edge[:, 0] - x) * (m.width * 1.1 + 0.05) / max(
            np.ptp(top[:, 0]) / 2, 0.05
        )
        sheet.shape(sheet.head.place(edge, lift=0.03), palette.hair, HAIR, 0.7)


def _full(sheet: Sheet, mouth: Lips, outside: bool) -> Points:
    """The outline of a full beard: along the jaw, up the cheeks, under the nose."""
    head = sheet.head.inflated(0.05, 0) if outside else sheet.head
    right, left = head.contour(low=0.25)
    x, y = mouth.upper[12]
    cheek = sheet.head.place(
        np.array(
            [
                [0.62, 0.38],
                [0.45, 0.55],
                [x + 0.25, y - 0.12],
                [x, y - 0.15],
                [x - 0.25, y - 0.12],
                [-0.45, 0.55],
                [-0.62, 0.38],
            ]
        )
    )
    return np.concatenate([right, left[::-1], cheek])


def draw_glasses(sheet: Sheet) -> None:
    """Draws glasses before the eyes."""
    kind, e = sheet.style.extras.glasses, sheet.style.eyes
    if kind == "none":
        return
    size = max(e.width * 1.25, 0.5 * (e.up + e.down) * 1.25, 0.19)
    size = min(size, e.x - 0.03)
    ink, width = scaled(sheet.style.palette.ink, 0.8), sheet.width(1.1)
    y = e.y + 0.02
    for side in SIDES:
        lens = ellipse(side * e.x, y, size, size if kind == "round" else 0.75 * size)
        if kind != "round":
            unit = (lens - (side * e.x, y)) / (size, 0.75 * size)
            lens = (side * e.x, y) + np.sign(unit) * np.abs(unit) ** 0.45 * (size, 0.75 * size)
        points = sheet.head.place(lens, lift=0.1)
        if kind == "half":
            sheet.canvas.line(points[:13], width, ink, CLOTH)
        else:
            sheet.canvas.line(points, width, ink, CLOTH, closed=True)
        temple = sheet.head.place(
            np.array([[side * (e.x + size), y], [side * 0.74, y - 0.03]]), 0.02
        )
        sheet.canvas.line(temple, width, ink, CLOTH)
    bridge = np.array([[-e.x + size, y], [0, y - 0.04], [e.x - size, y]])
    sheet.canvas.line(sheet.head.place(bridge, lift=0.14), width, ink, CLOTH)


def draw_hat(sheet: Sheet) -> None:
    """Draws a hat over the hair."""
    kind, palette = sheet.style.extras.hat, sheet.style.palette
    if kind == "none":
        return
    over = sheet.style.eyes.y - sheet.style.eyes.up - sheet.style.brows.gap
    line = min(sheet.style.hair.line + 0.06, over - 0.33)  # brows rise under it
    skull = sheet.head.inflated(sheet.style.hair.volume + 0.05, sheet.style.hair.volume + 0.04, 0.1)
    wide = float(np.interp(line, skull.y, skull.width))
    x = np.linspace(-1, 1, 15) * wide
    edge = np.stack([x, line + 0.1 * (x / wide) ** 2], 1)
    lower = skull.place(edge, lift=0.02)
    if kind == "band":
        upper = skull.place(edge - (0, 0.2), lift=0.02)
        sheet.shape(np.concatenate([upper, lower[::-1]]), palette.hat, CLOTH)
        return
    top = skull.silhouette(high=line)
    count = len(top) // 2
    crown = np.concatenate([top[:count][::-1], top[count:][::-1], lower[::-1]])
    sheet.shape(crown, palette.hat, CLOTH)
    if kind == "beanie":
        cuff = skull.place(edge - (0, 0.18), lift=0.02)
        sheet.shape(np.concatenate([cuff, lower[::-1]]), scaled(palette.hat, 0.85), CLOTH)
    elif kind in ("cap", "brim"):
        reach = 0.45 if kind == "cap" else 0.25
        flare = 1.0 if kind == "cap" else 1.5
        front = edge * (flare, 1) + np.stack([0 * x, 0.12 * (1 - (x / wide) ** 2)], 1)
        brim = skull.solid(skull.on(edge * 0.999) * (flare, 1, 1) + (0, 0.08, reach))
        del front
        sheet.shape(np.concatenate([lower, brim[::-1]]), scaled(palette.hat, 0.8), CLOTH)
