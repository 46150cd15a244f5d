"""Brows, and the folds between and above them."""

import numpy as np

from sf_jax.render.drawn.action import SIDES
from sf_jax.render.drawn.curves import Points, arc, ribbon, shifted, spline, taper
from sf_jax.render.drawn.sheet import BROW, SKIN, Sheet

_T = np.linspace(0, 1, 5)  # from the inner end to the outer one


def brow(sheet: Sheet, side: int) -> Points:
    """The middle line [5, 2] of a brow on the frontal face, from its inner to its outer end."""
    b, e, index = sheet.style.brows, sheet.style.eyes, (side + 1) // 2
    down, outer = (sheet.action.pair(stem)[index] for stem in ("BrowDown", "BrowOuterUp"))
    inner = sheet.action.one("BrowInnerUp")
    squint = sheet.action.pair("EyeSquint")[index]
    sneer = sheet.action.pair("NoseSneer")[index]
    reach = b.move * (0.55 * b.gap + 0.09)
    x = e.x + b.width * (2 * _T - 0.95)
    y = e.y - e.up - b.gap + b.tilt * (1 - 2 * _T) - b.arch * np.sin(np.pi * _T**0.8)
    y = y + reach * down * (1.0 - 0.75 * _T) - reach * inner * 1.15 * (1 - _T) ** 1.2
    y = y - reach * 1.3 * outer * (0.25 + 0.75 * np.sin(np.pi * np.minimum(0.5, 0.62 * _T)))
    y = y + 0.15 * reach * (squint + 0.8 * sneer * (1 - _T))
    x = x - 0.05 * down * (1 - _T) * b.move
    return np.stack([side * x, y], 1)


def brows(sheet: Sheet) -> tuple[Points, Points]:
    """Both brows' lines, the subject's right first."""
    return brow(sheet, SIDES[0]), brow(sheet, SIDES[1])


def draw(sheet: Sheet, pair: tuple[Points, Points]) -> None:
    """Draws both brows."""
    b, colour = sheet.style.brows, sheet.style.palette.brow
    for points in pair:
        line = sheet.head.place(spline(points, per=4), lift=0.02)
        width = b.thick * sheet.unit
        if b.kind == "none":
            continue
        if b.halo:
            border = np.full(len(line), width + 2 * sheet.width(1.0))
            sheet.canvas.fill(ribbon(line, border), sheet.style.palette.skin, SKIN)
        if b.kind == "line":
            sheet.canvas.stroke(line, width, colour, BROW, (0.5, 0.3))
        elif b.kind == "block":
            sheet.shape(ribbon(line, np.full(len(line), width)), colour, BROW, 0.6)
        else:
            sheet.canvas.fill(
                ribbon(line, width * taper(len(line), 0.9 - 0.3 * b.taper, b.taper)), colour, BROW
            )


def folds(sheet: Sheet) -> None:
    """Lines between lowered brows and above raised ones."""
    strength, e, b = sheet.style.extras.folds, sheet.style.eyes, sheet.style.brows
    top = e.y - e.up - b.gap
    for side, down, outer in zip(
        SIDES, sheet.action.pair("BrowDown"), sheet.action.pair("BrowOuterUp"), strict=True
    ):
        if down * strength > 0.1:
            x = side * max(0.05, e.x - b.width - 0.06)
            line = np.array([[x, top + 0.08], [x * 0.8, top - 0.02], [x * 0.9, top - 0.1]])
            sheet.fold(sheet.head.place(line), 1.1 * down * strength)
        if outer * strength > 0.1 and sheet.style.hair.fringe in ("none", "cap", "peak", "parted"):
            line = arc(side * e.x, top - 0.12, b.width, 0.07, 1.15 * np.pi, 1.85 * np.pi)
            sheet.fold(sheet.head.place(line), 0.9 * outer * strength)
    inner = sheet.action.one("BrowInnerUp")
    if inner * strength > 0.1 and sheet.style.hair.fringe in ("none", "cap", "peak", "parted"):
        for i in range(2):
            line = shifted(
                np.array([[-0.12, 0.0], [0.0, 0.02], [0.12, 0.0]]), 0, top - 0.12 - 0.07 * i
            )
            sheet.fold(sheet.head.place(line), 0.9 * inner * strength)


def landmarks(sheet: Sheet, pair: tuple[Points, Points]) -> Points:
    """The 10 points of the brows in pixels, from the subject's right."""
    right, left = pair
    return sheet.head.place(np.concatenate([right[::-1], left]), lift=0.02)
