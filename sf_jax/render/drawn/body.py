"""What carries and surrounds the face: neck, shoulders, ears."""

import numpy as np

from sf_jax.render.drawn.action import SIDES
from sf_jax.render.drawn.canvas import mix
from sf_jax.render.drawn.curves import ellipse, spline
from sf_jax.render.drawn.sheet import CLOTH, SKIN, Sheet

_ANIMALS = ("cat", "bear", "dog", "fox", "mouse")


def draw(sheet: Sheet) -> None:
    """Draws neck and shoulders, which do not turn with the head."""
    extras, palette, still = sheet.style.extras, sheet.style.palette, sheet.head.still
    if not extras.body:
        return
    neck, wide = extras.neck, extras.shoulders
    low = 1.0 + 0.25 * min(1.0, neck / 0.3)
    throat = sheet.rest.solid(np.array([[0.0, 0.75, -0.25]]))[0]
    throat = throat - still(np.array([[0.0, 0.75]]))[0]  # how the neck's top follows the head
    shape = still(np.array([[-neck, 0.4], [neck, 0.4], [neck, low + 0.6], [-neck, low + 0.6]]))
    shape[:2] += throat
    sheet.shape(shape, palette.skin, SKIN)
    if sheet.style.shading.tones > 1:
        shadow = still(
            np.array([[-neck, 0.4], [neck, 0.4], [neck, 1.12], [0, 1.22], [-neck, 1.08]])
        )
        shadow[:2] += throat
        sheet.canvas.fill(shadow, palette.shade, SKIN)
    trunk = [
        (-neck * 1.1, low),
        (-0.55 * wide, low + 0.14),
        (-wide, low + 0.5),
        (-1.08 * wide, low + 1.6),
        (1.08 * wide, low + 1.6),
        (wide, low + 0.5),
        (0.55 * wide, low + 0.14),
        (neck * 1.1, low),
        (0, low + 0.25),
    ]
    sheet.shape(still(spline(np.array(trunk), closed=True, per=4)), palette.cloth, CLOTH)
    collar = spline(np.array([[-neck * 1.1, low], [0, low + 0.25], [neck * 1.1, low]]), per=4)
    sheet.mark(still(collar), 1.6, CLOTH, sheet.ink(palette.cloth), (1.0, 1.0))


def draw_ears(sheet: Sheet) -> None:
    """Draws ears at the sides of the head, or an animal's on top."""
    kind, size = sheet.style.extras.ears, sheet.style.extras.ear_size
    if kind == "none":
        return
    for side in SIDES:
        if kind in _ANIMALS:
            _animal_ear(sheet, side, kind, size)
        else:
            _human_ear(sheet, side, size, kind == "pointed")


def _human_ear(sheet: Sheet, side: int, size: float, pointed: bool) -> None:
    palette = sheet.style.palette
    y = 0.5 * (sheet.style.eyes.y + sheet.style.nose.y)
    wide = float(np.interp(y, sheet.head.y, sheet.head.width))
    x = wide + 0.25 * size
    if pointed:
        shape = [(0, 0.9), (0.5, 0.3), (2.0, -1.5), (0.4, -0.9), (-0.5, -0.6), (-0.5, 0.6)]
        flat = np.array(shape) * (size, size)
    else:
        flat = np.array(
            [(0.2, 1.0), (0.6, 0.2), (0.7, -0.6), (0.1, -1.0), (-0.6, -0.7), (-0.6, 0.7)]
        )
        flat = spline(flat * (0.8 * size, size), closed=True, per=4)
    points = np.column_stack([side * (x + flat[:, 0]), y + flat[:, 1], np.full(len(flat), -0.1)])
    sheet.shape(sheet.head.solid(points), palette.skin, SKIN, 1.0)
    inner = np.column_stack(
        [
            side * (x + 0.1 * size + 0.5 * flat[:, 0]),
            y + 0.55 * flat[:, 1],
            np.full(len(flat), -0.1),
        ]
    )
    sheet.canvas.fill(sheet.head.solid(inner), mix(palette.skin, palette.shade, 0.7), SKIN)
    if sheet.style.extras.earrings:
        ring = ellipse(side * x, y + 1.2 * size, 0.25 * size, 0.25 * size)
        ring = sheet.head.solid(np.column_stack([ring, np.full(24, -0.1)]))
        sheet.shape(ring, (235, 200, 90), CLOTH, 0.6)


_OUTLINES = {
    "cat": [(-0.75, 0.55), (-0.45, -0.5), (0.1, -1.5), (0.55, -0.6), (0.8, 0.6)],
    "fox": [(-0.75, 0.55), (-0.4, -0.8), (0.25, -2.0), (0.65, -0.8), (0.85, 0.6)],
    "bear": [(-0.7, 0.5), (-0.85, -0.3), (-0.3, -1.0), (0.4, -1.0), (0.95, -0.2), (0.7, 0.7)],
    "mouse": [(-0.8, 0.7), (-1.3, -0.6), (-0.5, -1.7), (0.7, -1.6), (1.4, -0.5), (0.8, 0.8)],
    "dog": [(-0.5, 0.0), (0.0, -0.5), (0.9, -0.1), (1.3, 1.4), (1.0, 2.2), (0.5, 1.8), (0.3, 0.8)],
}


def _animal_ear(sheet: Sheet, side: int, kind: str, size: float) -> None:
    palette = sheet.style.palette
    wide = float(np.interp(-0.6, sheet.head.y, sheet.head.width))
    flat = spline(np.array(_OUTLINES[kind]) * size * 1.6, closed=kind in ("bear", "mouse"), per=4)
    centre = np.array([0.82 * wide, -0.72])
    depth = 0.1 if kind == "dog" else -0.1

    def place(points: np.ndarray) -> np.ndarray:
        return sheet.head.solid(
            np.column_stack(
                [
                    side * (centre[0] + points[:, 0]),
                    centre[1] + points[:, 1],
                    np.full(len(points), depth),
                ]
            )
        )

    colour = palette.hair if kind == "dog" else palette.skin
    sheet.shape(place(flat), colour, SKIN, 1.0)
    if kind != "dog":
        middle = flat.mean(0)
        sheet.canvas.fill(place(middle + 0.6 * (flat - middle)), palette.blush, SKIN)
