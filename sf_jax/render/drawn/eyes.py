"""Eyes: lids that close, squint and widen, irises that follow the gaze."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sf_jax.render.drawn.action import SIDES
from sf_jax.render.drawn.canvas import Colour, mix, scaled
from sf_jax.render.drawn.curves import Points, arc, ellipse, shifted, smoothstep
from sf_jax.render.drawn.sheet import IRIS, LASH, PUPIL, SCLERA, SKIN, Sheet

Place = Callable[[Points], Points]  # from the frontal face to pixels
_T = np.linspace(0, 1, 15)  # along a lid, from the inner to the outer corner


@dataclass(frozen=True)
class Eye:
    """One eye's curves on the frontal face.

    Attributes:
      side: -1 the subject's right, 1 the left.
      upper, lower: [15, 2] lids from the inner to the outer corner.
      pupil: [2], where the iris's centre is.
      openness: 0 closed, 1 as at rest.
      squint: 0 to 1.
    """

    side: int
    upper: Points
    lower: Points
    pupil: np.ndarray
    openness: float
    squint: float


def _bell(power: float, skew: float = 1.0) -> np.ndarray:
    """Height of a lid over its corners, 1 at its peak."""
    along = np.abs(2 * _T**skew - 1)
    return (1 - along**power) ** (1 / power)


def eye(sheet: Sheet, side: int) -> Eye:
    """The curves of one eye under the action."""
    e, index = sheet.style.eyes, (side + 1) // 2
    values = {
        stem: sheet.action.pair(stem)[index]
        for stem in ("EyeBlink", "EyeSquint", "EyeWide", "CheekSquint")
    }
    wide = values["EyeWide"]
    heavy = e.heavy * max(0.0, 1 - wide)
    blink = heavy + (1 - heavy) * min(1.0, values["EyeBlink"])
    squint, cheek = values["EyeSquint"], values["CheekSquint"]
    gaze = sheet.action.gaze[index]
    look = float(np.clip(gaze[1], -1, 1))
    inner = e.x - e.width
    x = side * (inner + 2 * e.width * _T)
    middle = e.y - e.tilt * e.width * (2 * _T - 1)
    growth = 0.8 if e.kind == "dot" else 0.4
    up = (
        e.up
        * (1 + growth * wide)
        * (1 - 0.35 * min(squint, 1.2) - 0.2 * max(look, 0) + 0.15 * max(-look, 0))
    )
    down = e.down * (1 + 0.25 * wide) * (1 - 0.5 * min(squint, 1.2)) * (1 - 0.6 * min(cheek, 1.2))
    upper = middle - up * _bell(e.square, e.skew)
    lower = middle + down * _bell(e.square)
    happy = np.clip(0.8 * cheek + 0.6 * squint, 0, 1)
    sag = e.closed * (1 - 1.7 * happy * (e.closed > 0)) * (0.3 * e.up + 0.7 * e.down)
    line = middle + 0.25 * e.down + sag * (_bell(2.0) - 0.4)
    closing = float(blink)
    upper = upper + (line - upper) * closing
    lower = lower + (line - lower) * closing**2
    free_x = e.width * (1 - 0.75 * e.iris) * e.travel
    free_y = 0.5 * (e.up + e.down) * 0.9 * e.travel
    centre_y = e.y + 0.5 * (e.down - e.up)
    pupil = np.array(
        [side * e.x + free_x * 1.35 * _eased(gaze[0]), centre_y + free_y * _eased(gaze[1])]
    )
    hidden = 0.25 * e.iris * e.width * e.tall  # a lid never covers much more of the iris than half
    pupil[1] = max(pupil[1], min(upper[7] + hidden, lower[7]))
    return Eye(
        side,
        np.stack([x, upper], 1),
        np.stack([x, np.maximum(lower, upper + 1e-3)], 1),
        pupil,
        1 - closing,
        float(np.clip(squint + 0.5 * cheek, 0, 1)),
    )


def _eased(angle: float) -> float:
    """A gaze in units of LOOK_RADIANS, bent so that no gaze leaves the eye."""
    return float(1.35 * np.tanh(angle / 1.35))


def eyes(sheet: Sheet) -> tuple[Eye, Eye]:
    """Both eyes' curves, the subject's right first."""
    return eye(sheet, SIDES[0]), eye(sheet, SIDES[1])


def draw(sheet: Sheet, pair: tuple[Eye, Eye]) -> None:
    """Draws both eyes."""
    for one in pair:
        kind = sheet.style.eyes.kind
        (_draw_dot if kind == "dot" else _draw_ball if kind == "ball" else _draw_open)(sheet, one)


def _draw_open(sheet: Sheet, one: Eye) -> None:
    e, palette, canvas = sheet.style.eyes, sheet.style.palette, sheet.canvas
    upper, lower = sheet.head.place(one.upper), sheet.head.place(one.lower)
    outline = np.concatenate([upper, lower[::-1]])
    if one.openness > 0.04:
        white = palette.white if e.white else palette.skin
        canvas.fill(outline, white, SCLERA)
        with canvas.inside(outline):
            _draw_iris(sheet, one, sheet.head.place)
            if e.lid_shadow:
                depth = np.array([0, 0.28 * (e.up + e.down) * sheet.unit])
                shadow = np.concatenate([upper - depth, (upper + depth)[::-1]])
                canvas.tint(canvas.mask(shadow), scaled((255, 245, 250), 1 - e.lid_shadow))
    _draw_lids(sheet, one, upper, lower)


def _draw_lids(sheet: Sheet, one: Eye, upper: Points, lower: Points) -> None:
    e = sheet.style.eyes
    ink = sheet.ink(sheet.style.palette.brow)
    ends = (0.35, 0.7) if e.lash > 1.2 else (0.5, 0.5)
    closed = 1 - one.openness
    sheet.mark(upper, e.lash * (1 - 0.15 * closed), LASH, ink, ends)
    if e.lower:
        part = lower[3:-1] if e.lower < 0.6 else lower
        sheet.mark(part, e.lower, LASH, ink, (0.3, 0.6))
    size = e.width * sheet.unit
    _lashes(sheet, upper, e.lashes, size, -1 + 1.5 * closed, ink)
    _lashes(sheet, lower, e.below_lashes, 0.7 * size, 1, ink)
    if e.crease:
        gap = (0.35 * e.up * (0.4 + 0.6 * one.openness) + 0.02) * sheet.unit
        line = upper[2:-2] - (0, gap * e.crease)
        sheet.mark(line, 0.6, SKIN, None, (0.2, 0.2))


def _lashes(sheet: Sheet, lid: Points, count: int, size: float, rise: float, ink: Colour) -> None:
    """Spikes from a lid near its outer corner; `rise` -1 points up, 1 down."""
    outward = np.sign(lid[-1, 0] - lid[0, 0]) or 1.0
    for i in range(count):
        root = lid[-1 - 2 * i]
        share = 1 - 0.25 * i
        tip = root + size * share * 0.42 * np.array([outward * (1 - 0.2 * i), 0.75 * rise])
        bend = (root + tip) / 2 + (0, -0.12 * size * rise)
        sheet.mark(np.stack([root, bend, tip]), 0.9, LASH, ink, (1.0, 0.2))


def _draw_iris(sheet: Sheet, one: Eye, place: Place) -> None:
    e, palette, canvas = sheet.style.eyes, sheet.style.palette, sheet.canvas
    x, y = one.pupil
    rx = e.iris * e.width
    ry = rx * e.tall
    outline = place(ellipse(x, y, rx, ry))
    if e.ring:
        canvas.fill(outline, scaled(palette.iris, 0.45), IRIS)
        outline = place(ellipse(x, y, 0.88 * rx, 0.9 * ry))
    canvas.fill(outline, palette.iris, IRIS)
    if e.gradient:
        canvas.fill(
            place(arc(x, y, 0.86 * rx, 0.88 * ry, np.pi, 2 * np.pi, 14)),
            scaled(palette.iris, 0.6),
            IRIS,
        )
        light = mix(palette.iris, (255, 255, 255), 0.45)
        canvas.fill(place(ellipse(x, y + 0.55 * ry, 0.5 * rx, 0.25 * ry)), light, IRIS)
    if e.pupil:
        _draw_pupil(sheet, x, y, rx * e.pupil * e.slit, ry * e.pupil, place)
    shift = -0.35 * rx  # the light comes from one side for both eyes
    for i in range(e.highlights):
        size = (0.34, 0.18, 0.12)[i % 3]
        dx, dy = ((shift, -0.4 * ry), (-1.1 * shift, 0.42 * ry), (shift, 0.5 * ry))[i % 3]
        canvas.fill(place(ellipse(x + dx, y + dy, size * rx, size * ry)), (255, 255, 255), IRIS)


def _draw_pupil(sheet: Sheet, x: float, y: float, rx: float, ry: float, place: Place) -> None:
    dark = scaled(sheet.style.palette.iris, 0.18)
    if not sheet.style.eyes.pie:
        sheet.canvas.fill(place(ellipse(x, y, rx, ry)), dark, PUPIL)
        return
    wedge = arc(x, y, rx, ry, -0.15 * np.pi, 1.5 * np.pi, 24)
    sheet.canvas.fill(place(np.concatenate([wedge, [[x, y]]])), dark, PUPIL)


def _draw_ball(sheet: Sheet, one: Eye) -> None:
    """A round eyeball: the lids are caps of skin that come down over it and up from below."""
    e, palette, canvas = sheet.style.eyes, sheet.style.palette, sheet.canvas
    up, down = e.up, e.down
    wide = sheet.action.pair("EyeWide")[(one.side + 1) // 2]
    grow = 1 + 0.22 * wide
    ball = ellipse(
        one.side * e.x, e.y + (down - up) / 2, e.width * grow, (up + down) / 2 * grow, count=32
    )
    outline = sheet.head.place(ball)
    sheet.shape(outline, palette.white, SCLERA, 0.9)
    cap = mix(palette.skin, palette.shade, 0.5)
    with canvas.inside(outline):
        _draw_iris(sheet, one, sheet.head.place)
        top = np.array([[0, -2.0 * sheet.unit]])
        for lid, shift, amount in ((one.upper, top, 1.0), (one.lower, -top, 0.8)):
            edge = sheet.head.place(_widened(lid))
            canvas.fill(np.concatenate([edge + shift, edge[::-1]]), cap, SKIN)
            if not sheet.style.ink.none or amount == 1.0:
                sheet.canvas.stroke(edge, sheet.width(e.lash * amount), sheet.ink(cap), LASH)
    if not sheet.style.ink.none:
        canvas.line(outline, sheet.width(0.9), sheet.ink(palette.skin), LASH, closed=True)
    upper = sheet.head.place(one.upper)
    _lashes(sheet, upper, e.lashes, e.width * sheet.unit, -one.openness, sheet.ink())


def _widened(lid: Points) -> Points:
    """A lid's edge across the whole ball; at rest it is on the ball's outline."""
    x = lid[:, 0] + (lid[:, 0] - lid[:, 0].mean()) * 0.15
    return np.stack([x, lid[:, 1]], 1)


def _draw_dot(sheet: Sheet, one: Eye) -> None:
    e, canvas = sheet.style.eyes, sheet.canvas
    middle = (one.upper[7] + one.lower[7]) / 2
    height = max(0.0, float(one.lower[7, 1] - one.upper[7, 1]) / 2)
    gaze = one.pupil - (one.side * e.x, e.y + 0.5 * (e.down - e.up))
    x, y = middle[0] + gaze[0], middle[1] + 0.6 * gaze[1]
    ink = sheet.style.palette.ink
    if height > 0.35 * min(e.up, e.width) or one.openness > 0.6:
        dot = sheet.head.place(ellipse(x, y, e.width * 0.8, max(height, 0.03)))
        canvas.fill(dot, ink, PUPIL)
        for i in range(e.highlights):
            light = ellipse(
                x - 0.25 * e.width, y - 0.35 * height, 0.25 * e.width, 0.25 * height + 0.005 * i
            )
            canvas.fill(sheet.head.place(light), (255, 255, 255), PUPIL)
    else:
        lid = shifted(one.upper, gaze[0], 0)
        sheet.mark(sheet.head.place(lid), e.lash, LASH, ink, (0.6, 0.6))
    if e.lashes and one.openness > 0.3:
        _lashes(sheet, sheet.head.place(one.upper), e.lashes, e.width * sheet.unit, -1, ink)


def landmarks(sheet: Sheet, pair: tuple[Eye, Eye]) -> tuple[Points, Points]:
    """The 12 points of the lids and the 2 pupils, in pixels, the subject's right first."""
    right, left = pair
    points = [right.upper[[14, 10, 4, 0]], right.lower[[4, 10]]]
    points += [left.upper[[0, 4, 10, 14]], left.lower[[10, 4]]]
    pupils = sheet.head.place(np.stack([right.pupil, left.pupil]))
    return sheet.head.place(np.concatenate(points)), pupils


def cheek_line(sheet: Sheet, one: Eye, amount: float) -> None:
    """The fold under an eye that a raised cheek or a squint makes."""
    e, strength = sheet.style.eyes, sheet.style.extras.folds * amount
    if strength < 0.05:
        return
    y = e.y + e.down + 0.09 - 0.03 * amount
    x = one.side * e.x
    fold = arc(x, y - 0.03, 0.85 * e.width, 0.09, 0.15 * np.pi, 0.85 * np.pi)
    sheet.fold(sheet.head.place(fold), 2.0 * float(smoothstep(strength, 0, 0.6)))
