"""Light on the head: flat tones, a gradient in steps, or hatching."""

import numpy as np

from sf_jax.render.drawn.canvas import mix, scaled
from sf_jax.render.drawn.curves import Points
from sf_jax.render.drawn.sheet import SKIN, Sheet

_SOFT_STEPS = 6


def draw(sheet: Sheet, face: Points) -> None:
    """Shades the side of the face that is away from the light, inside its outline."""
    shading, palette = sheet.style.shading, sheet.style.palette
    if shading.tones < 2:
        return
    away = np.array([-shading.side, -0.35]) * 0.2 * sheet.unit * shading.strength
    with sheet.canvas.inside(face):
        if shading.hatch:
            hatch(sheet, face)
            sheet.canvas.fill(face + away, palette.skin, SKIN)
            return
        steps = _SOFT_STEPS if shading.soft else shading.tones - 1
        deep = palette.shade if steps != 2 else scaled(palette.shade, 0.88)
        for i in range(steps + 1):
            tone = mix(deep, palette.skin, i / steps)
            share = i * (1.6 if shading.soft else 1.0) / steps
            sheet.canvas.fill(face + away * share * (1 + 0.5 * (steps > 1)), tone, SKIN)


def hatch(sheet: Sheet, area: Points) -> None:
    """Parallel pen strokes over the extent of an area; clip before the call."""
    low, high = area.min(0), area.max(0)
    gap = max(2.2, 2.6 * sheet.width())
    span = float(high[1] - low[1])
    slope = 0.7 if sheet.style.shading.side > 0 else -0.7
    for x in np.arange(low[0] - abs(slope) * span, high[0] + abs(slope) * span, gap):
        line = np.array([[x, low[1]], [x + slope * span, high[1]]])
        sheet.canvas.line(line, max(0.5, 0.4 * sheet.width()), sheet.style.palette.ink, SKIN)
