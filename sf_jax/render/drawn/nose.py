"""Noses, from none to a ball, and the wrinkles of a sneer."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from sf_jax.render.drawn.action import SIDES
from sf_jax.render.drawn.canvas import mix, scaled
from sf_jax.render.drawn.curves import Points, arc, ellipse, spline
from sf_jax.render.drawn.sheet import SKIN, Sheet


class Place(Protocol):
    """From the frontal face to pixels; `forward` is the share of the nose's own height."""

    def __call__(self, points: Sequence | Points, forward: float = 1.0) -> Points: ...


def _wings(sheet: Sheet) -> tuple[float, float]:
    """How far a sneer raises the right and the left wing."""
    right, left = sheet.action.pair("NoseSneer")
    size = 0.05 + 0.3 * sheet.style.nose.size
    return size * right, size * left


def draw(sheet: Sheet) -> None:
    """Draws the nose."""
    n, head = sheet.style.nose, sheet.head
    right, left = _wings(sheet)
    lift = 0.5 * (right + left)
    side = 1.0 if sheet.action.yaw + 0.001 >= 0 else -1.0
    tip = n.y - 0.5 * lift

    def at(points: Sequence | Points, forward: float = 1.0) -> Points:
        return head.place(np.asarray(points, np.float64), lift=forward * n.lift)

    if n.kind == "dot":
        sheet.canvas.fill(at(ellipse(0, tip, 0.35 * n.size, 0.3 * n.size)), sheet.ink(), SKIN)
    elif n.kind == "line":
        line = at(
            [
                [0.1 * side * n.size, tip - n.long],
                [0.75 * side * n.size, tip],
                [-0.25 * side * n.size, tip + 0.12 * n.size],
            ]
        )
        sheet.mark(spline(line, per=5), 0.9)
    elif n.kind == "wedge":
        points = at(
            [[0.0, tip - 0.6 * n.long], [0.7 * side * n.size, tip], [0, tip + 0.1 * n.size]]
        )
        sheet.canvas.fill(points, sheet.style.palette.shade, SKIN)
        if not sheet.style.ink.none:
            sheet.mark(points[1:], 0.8)
    elif n.kind == "shade":
        _shade(sheet, at, side, tip)
    elif n.kind == "button":
        sheet.mark(at(arc(0, tip, 0.6 * n.size, 0.5 * n.size, 0.05 * np.pi, 0.95 * np.pi)), 1.0)
    elif n.kind == "ball":
        sheet.shape(at(ellipse(0, tip, n.size, 0.85 * n.size)), sheet.style.palette.nose, SKIN, 1.0)
        light = ellipse(-0.35 * n.size, tip - 0.3 * n.size, 0.25 * n.size, 0.18 * n.size)
        sheet.canvas.fill(at(light), mix(sheet.style.palette.nose, (255, 255, 255), 0.6), SKIN)
    elif n.kind == "snout":
        _snout(sheet, at, tip)
    _nostrils(sheet, at, tip, (right, left))
    _wrinkles(sheet, (right, left))


def _shade(sheet: Sheet, at: Place, side: float, tip: float) -> None:
    """A nose modelled by its shadow side, its wings and the light on its tip."""
    n, palette = sheet.style.nose, sheet.style.palette
    tone = mix(palette.skin, palette.shade, 0.8)
    ridge = [
        [0.1 * side * n.size, tip - 1.3 * n.long],
        [0.3 * side * n.size, tip - 0.3 * n.long],
        [0.5 * side * n.size, tip],
        [side * n.size, tip + 0.05],
    ]
    under = [[0.0, tip + 0.35 * n.size], [-0.8 * side * n.size, tip + 0.1 * n.size]]
    sheet.canvas.fill(at(ridge + under, 0.6), tone, SKIN)
    light = mix(palette.skin, (255, 255, 255), 0.4)
    sheet.canvas.fill(at(ellipse(-0.1 * side * n.size, tip - 0.1, 0.2 * n.size, 0.06)), light, SKIN)


def _snout(sheet: Sheet, at: Place, tip: float) -> None:
    """An animal's nose: a rounded triangle and the line down to its mouth."""
    n = sheet.style.nose
    corners = [
        [-n.size, tip - 0.35 * n.size],
        [0, tip - 0.55 * n.size],
        [n.size, tip - 0.35 * n.size],
        [0.45 * n.size, tip + 0.45 * n.size],
        [0, tip + 0.65 * n.size],
        [-0.45 * n.size, tip + 0.45 * n.size],
    ]
    nose = at(spline(np.array(corners), closed=True, per=4))
    sheet.shape(nose, sheet.style.palette.nose, SKIN, 0.8)
    light = ellipse(-0.3 * n.size, tip - 0.25 * n.size, 0.25 * n.size, 0.12 * n.size)
    sheet.canvas.fill(at(light), mix(sheet.style.palette.nose, (255, 255, 255), 0.5), SKIN)
    below = at(
        [
            [0, tip + 0.6 * n.size],
            [0, 0.5 * (tip + 0.6 * n.size + sheet.style.mouth.y)],
            [0, sheet.style.mouth.y - 0.01],
        ]
    )
    sheet.mark(below, 0.9)


def _nostrils(sheet: Sheet, at: Place, tip: float, wings: tuple[float, float]) -> None:
    """Nostrils where the style draws them, and wings that rise with a sneer."""
    n = sheet.style.nose
    if n.kind == "none":
        return
    shown = n.nostrils or n.kind == "nostrils"
    for side, raised in zip(SIDES, wings, strict=True):
        y = tip + 0.1 * n.size - 0.8 * raised
        if shown:
            hole = ellipse(side * 0.45 * n.size, y, 0.2 * n.size, 0.11 * n.size, side * -0.4)
            sheet.canvas.fill(at(hole, 0.8), scaled(sheet.style.palette.shade, 0.45), SKIN)
        if n.nostrils or raised > 0.02:
            reach = 0.5 * n.size + 0.5 * raised
            wing = arc(0.75 * n.size, y - 0.02, 0.4 * n.size, reach, -0.45 * np.pi, 0.5 * np.pi)
            sheet.mark(at(wing * (side, 1), 0.5), 0.9 + 4 * raised)


def _wrinkles(sheet: Sheet, wings: tuple[float, float]) -> None:
    """Lines across the bridge of a nose that sneers, and the fold beside it."""
    n, e = sheet.style.nose, sheet.style.eyes
    strength = sheet.style.extras.folds
    for side, raised in zip(SIDES, sheet.action.pair("NoseSneer"), strict=True):
        if raised * strength < 0.05 or n.kind == "none":
            continue
        for i in range(3):
            y = n.y - n.long - 0.02 - 0.075 * i
            line = np.array([[side * 0.03, y], [side * 0.1, y - 0.03], [side * 0.15, y + 0.0]])
            sheet.fold(sheet.head.place(line, lift=0.5 * n.lift), 1.3 * raised * strength)
        x = side * max(n.size + 0.06, 0.14)
        fold = [
            [x, n.y - 0.08 * raised],
            [x + side * 0.09, n.y + 0.04],
            [x + side * 0.13, n.y + 0.14],
        ]
        sheet.fold(sheet.head.place(np.array(fold)), 1.5 * raised * strength)
        bag = arc(
            side * (e.x - 0.4 * e.width), e.y + e.down + 0.02, 0.5 * e.width, 0.06, 0.1, 2.6, 8
        )
        sheet.fold(sheet.head.place(bag), 0.9 * raised * strength)


def landmarks(sheet: Sheet) -> Points:
    """The 9 points of the nose in pixels; NaN where the style has no nose."""
    n = sheet.style.nose
    if n.kind == "none":
        return np.full((9, 2), np.nan)
    right, left = _wings(sheet)
    top = sheet.style.eyes.y
    ridge = [[0, top + (n.y - top) * i / 3] for i in range(4)]
    base = [[0.8 * n.size * (i - 2) / 2, n.y + 0.3 * n.size] for i in range(5)]
    base[0][1] -= 0.8 * right
    base[4][1] -= 0.8 * left
    over = np.concatenate(
        [
            sheet.head.on(np.array([point]), lift=share * n.lift)
            for point, share in zip(ridge, (0.1, 0.4, 0.7, 1.0), strict=True)
        ]
        + [sheet.head.on(np.array(base), lift=0.6 * n.lift)]
    )
    return sheet.head.solid(over)
