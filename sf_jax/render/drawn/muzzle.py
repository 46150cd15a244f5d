"""An animal's muzzle: the pad around nose and mouth, the patches of the face, whiskers."""

import numpy as np

from sf_jax.render.drawn.action import SIDES
from sf_jax.render.drawn.curves import ellipse, spline
from sf_jax.render.drawn.sheet import SKIN, Sheet


def draw(sheet: Sheet) -> None:
    """Draws the pad under nose and mouth, which follows the jaw and puffed cheeks."""
    size = sheet.style.muzzle
    if not size:
        return
    n, m, action = sheet.style.nose, sheet.style.mouth, sheet.action
    jaw = m.drop * action.one("JawOpen")
    puff = action.one("CheekPuff")
    aside = 0.06 * (action.one("JawLeft") - action.one("JawRight"))
    top, low = n.y - 0.06, m.y + 0.16 + jaw
    wide = size * (m.width + 0.16) * (1 + 0.15 * puff)
    middle = 0.5 * (top + low)
    points = [
        (0, top),
        (0.55 * wide, top + 0.02),
        (wide, middle + 0.02),
        (0.75 * wide + aside, low - 0.03),
        (aside, low),
        (-0.75 * wide + aside, low - 0.03),
        (-wide, middle + 0.02),
        (-0.55 * wide, top + 0.02),
    ]
    outline = sheet.head.place(spline(np.array(points), closed=True, per=4), lift=0.08)
    sheet.canvas.fill(outline, sheet.style.palette.muzzle, SKIN)


def draw_whiskers(sheet: Sheet) -> None:
    """Draws whiskers where the animal has them; they rise with smiles and sneers."""
    if not sheet.style.muzzle or sheet.style.extras.ears not in ("cat", "mouse", "fox"):
        return
    n, m = sheet.style.nose, sheet.style.mouth
    up = [
        a + 0.6 * b
        for a, b in zip(
            sheet.action.pair("NoseSneer"), sheet.action.pair("MouthSmile"), strict=True
        )
    ]
    for side, raised in zip(SIDES, up, strict=True):
        for i in range(3):
            y = 0.5 * (n.y + m.y) + 0.04 * (i - 1)
            root = (side * (m.width * 0.75), y)
            tip = (side * (m.width + 0.42), y + 0.07 * (i - 1) - 0.12 * raised)
            sheet.mark(sheet.head.place(np.array([root, tip]), lift=0.05), 0.6)


def spot(sheet: Sheet) -> None:
    """A patch of the muzzle's colour around each eye, as some animals have."""
    if not sheet.style.muzzle or sheet.style.seed % 3:
        return
    e = sheet.style.eyes
    for side in SIDES:
        patch = ellipse(side * e.x, e.y, 1.5 * e.width, 0.8 * (e.up + e.down), -0.3 * side)
        sheet.canvas.fill(sheet.head.place(patch), sheet.style.palette.muzzle, SKIN)
