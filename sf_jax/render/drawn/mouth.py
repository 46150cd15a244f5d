"""Mouths: the opening with teeth and tongue, lips or a line, and the folds around them."""

import numpy as np

from sf_jax.render.drawn.action import SIDES
from sf_jax.render.drawn.canvas import Colour, mix, scaled
from sf_jax.render.drawn.curves import Points, arc, ellipse, shifted, smoothstep, spline
from sf_jax.render.drawn.lips import COUNT, Lips
from sf_jax.render.drawn.sheet import LIPS, MOUTH, TEETH, TONGUE, Sheet

_MIDDLE = COUNT // 2


def draw(sheet: Sheet, mouth: Lips) -> None:
    """Draws the mouth."""
    upper, lower = sheet.head.place(mouth.upper), sheet.head.place(mouth.lower)
    opening = np.concatenate([upper, lower[::-1]])
    height = float((lower[:, 1] - upper[:, 1]).max())
    _lip_fills(sheet, mouth, upper, lower)
    if height > 0.35 * sheet.width():
        sheet.canvas.fill(opening, _inside(sheet), MOUTH)
        with sheet.canvas.inside(opening):
            _contents(sheet, mouth)
    _lines(sheet, mouth, upper, lower, height)
    _tongue_out(sheet, mouth)
    _folds(sheet, mouth)


def _inside(sheet: Sheet) -> Colour:
    palette = sheet.style.palette
    return {
        "dark": palette.mouth,
        "red": mix(palette.mouth, (215, 70, 70), 0.6),
        "black": scaled(palette.ink, 0.6),
        "white": palette.white,
    }[sheet.style.mouth.fill]


def _lip_fills(sheet: Sheet, mouth: Lips, upper: Points, lower: Points) -> None:
    """Lips with colour, and the ring of skin that pursed lips of a line mouth become."""
    m, palette = sheet.style.mouth, sheet.style.palette
    if not (m.upper or m.lower or mouth.round > 0.05):
        return
    above, below = sheet.head.place(mouth.upper_edge), sheet.head.place(mouth.lower_edge)
    has_lips = bool(m.upper or m.lower)
    colour = palette.lips if has_lips else mix(palette.skin, palette.lips, 0.55)
    sheet.canvas.fill(np.concatenate([above, upper[::-1]]), scaled(colour, 0.9), LIPS)
    sheet.canvas.fill(np.concatenate([lower, below[::-1]]), colour, LIPS)
    if has_lips and m.lower > 0.04 and sheet.style.shading.tones > 1:
        light = below[8:17] * 0.55 + lower[8:17] * 0.45
        sheet.mark(light, 0.9, LIPS, mix(colour, (255, 255, 255), 0.5))
    if not sheet.style.ink.none and (mouth.round > 0.05 or sheet.style.ink.width > 0.035):
        ring = min(1.0, 3 * mouth.round) if not has_lips else 0.7
        sheet.mark(above, 0.8 * ring, LIPS)
        sheet.mark(below, 0.8 * ring, LIPS)


def _contents(sheet: Sheet, mouth: Lips) -> None:
    """Teeth and tongue, drawn inside the opening."""
    m, palette = sheet.style.mouth, sheet.style.palette
    drop = mouth.lower[_MIDDLE, 1] - mouth.upper[_MIDDLE, 1]
    if m.tongue and m.fill != "white" and drop > 0.08:
        x, y = mouth.lower[_MIDDLE]
        tongue = ellipse(x, y + 0.02, 0.62 * m.width, 0.42 * drop)
        sheet.canvas.fill(sheet.head.place(tongue), palette.tongue, TONGUE)
    if not m.teeth:
        return
    row = 0.2 * m.width + 0.12 * m.width * mouth.teeth_up
    teeth = np.concatenate([shifted(mouth.upper, 0, -0.1), shifted(mouth.upper, 0, row)[::-1]])
    white = mix(palette.white, (255, 250, 235), 0.5)
    sheet.canvas.fill(sheet.head.place(teeth), white, TEETH)
    if mouth.teeth_down > 0.05:
        row = (0.1 + 0.26 * mouth.teeth_down) * m.width
        teeth = np.concatenate([shifted(mouth.lower, 0, 0.1), shifted(mouth.lower, 0, -row)[::-1]])
        sheet.canvas.fill(sheet.head.place(teeth), scaled(white, 0.96), TEETH)
        line = (mouth.upper + mouth.lower)[3:-3] / 2
        if drop < 2.2 * row:
            sheet.mark(sheet.head.place(line), 0.6, TEETH, scaled(white, 0.5))
    if m.tooth_lines:
        for x in np.linspace(-0.6, 0.6, 5) * m.width + mouth.upper[_MIDDLE, 0]:
            y = mouth.upper[_MIDDLE, 1]
            line = np.array([[x, y - 0.1], [x, y + row]])
            sheet.mark(sheet.head.place(line), 0.4, TEETH, scaled(white, 0.7))


def _lines(sheet: Sheet, mouth: Lips, upper: Points, lower: Points, height: float) -> None:
    m, style = sheet.style.mouth, sheet.style
    press = max(sheet.action.pair("MouthPress"))
    roll = max(sheet.action.one("MouthRollUpper"), sheet.action.one("MouthRollLower"))
    colour = mix(style.palette.ink, style.palette.mouth, 0.35) if m.upper else style.palette.ink
    bold = 1.0 + 0.5 * press + (0.0 if m.upper else 0.6 * roll)
    if height > 0.35 * sheet.width():
        if style.ink.none and m.upper:
            return
        outline = np.concatenate([upper, lower[::-1]])
        sheet.canvas.line(outline, sheet.width(0.9), colour, LIPS, closed=True)
    else:
        sheet.mark(upper, 1.3 * bold, LIPS, colour, (0.4, 0.4))
    if m.under:
        x, y = mouth.lower_edge[_MIDDLE]
        y = y + 0.055 + 0.03 * sheet.action.one("MouthShrugLower")
        line = arc(x, y - 0.03, 0.3 * m.width, 0.04, 0.2 * np.pi, 0.8 * np.pi, 8)
        sheet.mark(sheet.head.place(line), 0.9)


def _tongue_out(sheet: Sheet, mouth: Lips) -> None:
    amount = sheet.action.one("TongueOut")
    if amount < 0.05:
        return
    m, palette = sheet.style.mouth, sheet.style.palette
    x, y = mouth.lower[_MIDDLE]
    top = mouth.upper[_MIDDLE, 1] + 0.5 * (y - mouth.upper[_MIDDLE, 1])
    half, tip = 0.42 * m.width, y + amount * (0.1 + 0.5 * m.width)
    half = min(half, 0.8 * (mouth.upper[-1, 0] - mouth.upper[0, 0]) / 2)
    shape = [
        [x - half, top],
        [x - 1.05 * half, 0.4 * top + 0.6 * tip],
        [x - 0.6 * half, tip],
        [x, tip + 0.15 * half],
        [x + 0.6 * half, tip],
        [x + 1.05 * half, 0.4 * top + 0.6 * tip],
        [x + half, top],
    ]
    points = sheet.head.place(spline(np.array(shape), per=4), lift=0.05)
    sheet.shape(points, palette.tongue, TONGUE, 0.8)
    line = np.array([[x, top + 0.02], [x, 0.3 * top + 0.7 * tip]])
    sheet.mark(sheet.head.place(line, lift=0.05), 0.7, TONGUE, scaled(palette.tongue, 0.7))


def _folds(sheet: Sheet, mouth: Lips) -> None:
    """Folds beside the mouth, dents at its corners, creases of the chin and the upper lip."""
    strength, m = sheet.style.extras.folds, sheet.style.mouth
    if strength < 0.05:
        return
    smile, dimple, press, up, stretch = (
        sheet.action.pair("Mouth" + name)
        for name in ("Smile", "Dimple", "Press", "UpperUp", "Stretch")
    )
    for index, (side, end) in enumerate(zip(SIDES, (0, -1), strict=True)):
        x, y = mouth.upper[end]
        fold = strength * max(0.9 * smile[index] - 0.2, 0.8 * up[index], 0.7 * stretch[index])
        if fold > 0.08 and sheet.style.muzzle == 0:
            _mark(
                sheet,
                [[x - 0.02, y - 0.24], [x + 0.07, y - 0.12], [x + 0.08, y + 0.02]],
                side,
                x,
                1.1 * fold,
            )
        if dimple[index] * strength > 0.05:
            a = 0.12 * float(smoothstep(dimple[index], 0, 1))
            _mark(
                sheet,
                [[x + 0.05, y - a], [x + 0.1, y], [x + 0.04, y + a]],
                side,
                x,
                2.3 * dimple[index] * strength,
            )
        if press[index] * strength > 0.05:
            for dy in (-0.07, 0.07):
                _mark(
                    sheet,
                    [[x - 0.11, y + 1.2 * dy], [x, y + dy], [x + 0.05, y + 0.1 * dy]],
                    side,
                    x,
                    2.1 * press[index] * strength,
                )
    low, high = sheet.action.one("MouthShrugLower"), sheet.action.one("MouthShrugUpper")
    x, y = mouth.lower_edge[_MIDDLE]
    if low * strength > 0.05:
        chin = arc(x, y + 0.15, 0.6 * m.width, 0.07, 1.1 * np.pi, 1.9 * np.pi)
        sheet.fold(sheet.head.place(chin), 1.6 * low * strength)
    if high * strength > 0.05:
        top = mouth.upper_edge[_MIDDLE, 1]
        for side in SIDES:
            line = np.array([[x + side * 0.05, top - 0.03], [x + side * 0.035, top - 0.12]])
            sheet.fold(sheet.head.place(line), 1.5 * high * strength)


def _mark(sheet: Sheet, points: list, side: int, x: float, factor: float) -> None:
    """A fold given for the left side, mirrored about the corner at `x` for the right."""
    line = np.array(points, np.float64)
    line[:, 0] = x + side * (line[:, 0] - x)
    sheet.fold(sheet.head.place(spline(line, per=4)), factor)


def landmarks(sheet: Sheet, mouth: Lips) -> Points:
    """The 20 points of the lips in pixels, in the landmark table's order."""
    outer = [0, 4, 9, 12, 15, 20, 24]
    points = [
        mouth.upper_edge[outer],
        mouth.lower_edge[[20, 15, 12, 9, 4]],
        mouth.upper[[2, 8, 12, 16, 22]],
        mouth.lower[[16, 12, 8]],
    ]
    return sheet.head.place(np.concatenate(points))
