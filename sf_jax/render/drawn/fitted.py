"""Fits the parts of a style to each other, so that none covers or leaves what it belongs to."""

from dataclasses import replace

from sf_jax.render.drawn.canvas import Colour, scaled
from sf_jax.render.drawn.style import Brows, Eyes, Hair, Mouth, Nose, Palette, Style

_BOLD = 0.034  # width of a bold line
_BROW_REACH = 0.18  # how far a brow rises


def fitted(style: Style) -> Style:
    """The style with parts that do not collide."""
    eyes = _eyes(style)
    mouth = _mouth(style)
    nose = _nose(style.nose, eyes, mouth)
    hair = _hair(style, eyes)
    fringe_at_brows = hair.fringe != "none" and hair.line + hair.low > _top(eyes, style.brows) - 0.2
    palette = _palette(style.palette)
    brows = style.brows
    if fringe_at_brows:
        bold = style.ink.width > _BOLD and not style.ink.none
        halo = bold or _contrast(palette.brow, palette.hair) < 70
        brows = replace(brows, over_hair=True, halo=halo)
    return replace(
        style, eyes=eyes, mouth=mouth, nose=nose, hair=hair, palette=palette, brows=brows
    )


def _top(eyes: Eyes, brows: Brows) -> float:
    """Height of the brows."""
    return eyes.y - eyes.up - brows.gap


def _eyes(style: Style) -> Eyes:
    """Eyes inside the face, and not into each other."""
    e = style.eyes
    room = 0.5 * (style.head.cranium + style.head.cheek) * 0.93
    width = min(e.width, 0.48 * room)
    low = width * (0.98 if e.kind == "ball" else 1.12)
    return replace(e, width=width, x=min(max(e.x, low), room - width))


def _mouth(style: Style) -> Mouth:
    """A mouth that opens inside the face and is no wider than it."""
    m = style.mouth
    width = min(m.width, 0.62 * style.head.jaw + 0.06)
    drop = max(m.drop, m.y + 0.84 * m.open + m.lower - 0.92)
    return replace(m, width=width, drop=drop)


def _nose(nose: Nose, eyes: Eyes, mouth: Mouth) -> Nose:
    """A nose between eyes and mouth."""
    y = min(max(nose.y, eyes.y + 0.12), mouth.y - 0.12 - mouth.upper - 0.3 * nose.size)
    return replace(nose, y=y)


def _hair(style: Style, eyes: Eyes) -> Hair:
    """A hairline over the brows; a fringe may reach the brows, not the eyes."""
    hair, top = style.hair, _top(eyes, style.brows)
    line = min(hair.line, top - _BROW_REACH - 0.1)
    low = min(hair.low, max(0.05, eyes.y - 0.6 * eyes.up - line))
    bold = style.ink.width > _BOLD and not style.ink.none  # outlines that brows are lost in
    if bold or hair.seed % 10 < 6:  # most fringes leave the brows free
        low = min(low, max(0.05, top - 0.08 - line))
    return replace(hair, line=line, low=low)


def _contrast(a: Colour, b: Colour) -> float:
    """Difference in lightness, as the eye weighs the colours."""
    return abs(sum(w * (x - y) for w, x, y in zip((0.3, 0.59, 0.11), a, b, strict=True)))


def _palette(palette: Palette) -> Palette:
    """Brows that differ from the skin."""
    brow = palette.brow
    if _contrast(brow, palette.skin) < 45:
        brow = scaled(palette.skin, 0.45) if sum(palette.skin) > 240 else palette.ink
    if _contrast(brow, palette.skin) < 45:
        brow = (15, 15, 20) if sum(palette.skin) > 380 else (240, 240, 235)
    return replace(palette, brow=brow)
