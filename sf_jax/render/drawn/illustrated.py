"""Families of illustration: faces of natural proportions in pencil, ink, washes and print."""

from dataclasses import replace

import numpy as np

from sf_jax.render.drawn import eastern, western
from sf_jax.render.drawn.canvas import mix
from sf_jax.render.drawn.head import HeadShape
from sf_jax.render.drawn.style import (
    Brows,
    Extras,
    Eyes,
    Finish,
    Ink,
    Mouth,
    Nose,
    Palette,
    Shading,
    Style,
)
from sf_jax.render.drawn.traits import chance, extras, hair, near, palette, pick, shape

_HUMAN = HeadShape(0.68, 0.66, 0.54, 0.26, 0.3, 0.68, 0.5, 1.15, 0.72)


def natural(g: np.random.Generator, eyes: float = 1.0) -> Style:
    """A person of natural proportions; `eyes` scales the eyes, which are large in all drawings."""
    width = 0.178 * near(g, eyes, 0.08)
    female = chance(g, 0.5)
    lips = near(g, 0.09 if female else 0.06, 0.3)
    return Style(
        head=shape(g, _HUMAN, 0.1),
        eyes=Eyes(
            x=near(g, 0.32, 0.06),
            y=float(g.uniform(0.0, 0.1)),
            width=width,
            up=width * float(g.uniform(0.55, 0.8)),
            down=width * float(g.uniform(0.38, 0.52)),
            tilt=float(g.uniform(-0.1, 0.3)),
            skew=float(g.uniform(0.8, 1.1)),
            square=float(g.uniform(1.6, 2.1)),
            iris=float(g.uniform(0.48, 0.58)),
            tall=1.0,
            ring=chance(g, 0.8),
            pupil=float(g.uniform(0.4, 0.6)),
            highlights=int(g.integers(0, 3)),
            lash=float(g.uniform(1.2, 2.4)),
            lower=float(g.uniform(0.4, 0.9)),
            lashes=int(g.integers(1, 4)) if female else 0,
            below_lashes=int(g.integers(0, 3)) if female else 0,
            crease=float(g.uniform(0.7, 1.3)),
            lid_shadow=float(g.uniform(0.1, 0.3)),
            closed=float(g.uniform(0.6, 1.1)),
            travel=near(g, 1.55, 0.1),
        ),
        brows=Brows(
            kind="ribbon",
            gap=near(g, 0.13, 0.2),
            width=near(g, 0.2, 0.1),
            thick=float(g.uniform(0.045, 0.1)),
            tilt=float(g.uniform(-0.03, 0.05)),
            arch=float(g.uniform(0.02, 0.07)),
            move=near(g, 1.15, 0.1),
        ),
        nose=Nose(
            kind=pick(g, ("shade", "line", "nostrils", "wedge", "button"), (3, 2, 2, 1, 1)),
            y=near(g, 0.44, 0.05),
            size=float(g.uniform(0.1, 0.16)),
            long=near(g, 0.28, 0.2),
            lift=float(g.uniform(0.14, 0.24)),
            nostrils=chance(g, 0.7),
        ),
        mouth=Mouth(
            y=float(g.uniform(0.64, 0.7)),
            width=float(g.uniform(0.24, 0.31)),
            open=near(g, 0.32, 0.12),
            rest=float(g.uniform(-0.1, 0.2)),
            upper=lips,
            lower=1.25 * lips,
            tooth_lines=chance(g, 0.25),
            under=chance(g, 0.6),
        ),
        hair=hair(g, spiky=0.12, bald=0.1),
        extras=extras(g, beards=0.0 if female else 0.4, folds=near(g, 0.9, 0.15)),
        palette=palette(g, bright_hair=0.05),
        ink=Ink(near(g, 0.024, 0.3), near(g, 1.2, 0.2)),
        shading=Shading(int(g.integers(2, 4)), float(g.uniform(-1, 1)), near(g, 1.1, 0.4)),
    )


def _any(g: np.random.Generator) -> Style:
    """The proportions of any other family that a technique is applied to."""
    make = pick(g, (natural, eastern.anime, western.western, western.flat), (4, 1.5, 1, 0.7))
    return make(g)


def paper_palette(colours: Palette, tone: int, hair_tone: int | None = None) -> Palette:
    """Nearly everything is paper of a grey `tone`; hair may be darker."""
    paper = (tone, tone - 1, tone - 5)
    low = tuple(max(0, c - 40) for c in paper)
    dim = (low[0], low[1], low[2])
    dark = paper if hair_tone is None else (hair_tone, hair_tone, hair_tone)
    white = mix(paper, (255, 255, 255), 0.6)
    return replace(
        colours,
        skin=paper,
        shade=dim,
        white=white,
        hair=dark,
        lips=mix(paper, dim, 0.8),
        blush=dim,
        mouth=(70, 68, 66),
        tongue=dim,
        nose=dim,
        muzzle=paper,
        cloth=paper,
        hat=dim,
        iris=(105, 105, 105),
        ground=paper,
        second=mix(paper, dim, 0.5),
        brow=(50, 50, 50),
    )


def pencil(g: np.random.Generator) -> Style:
    """Graphite or coloured pencil on paper."""
    style = _any(g)
    colour = chance(g, 0.3)
    tone = int(g.integers(225, 256))
    dark = int(g.integers(70, 190)) if chance(g, 0.7) else None
    colours = style.palette if colour else paper_palette(style.palette, tone, dark)
    lead = int(g.integers(30, 80))
    return replace(
        style,
        palette=replace(colours, ink=(lead, lead, lead + 4)),
        ink=Ink(near(g, 0.026, 0.25), near(g, 1.0, 0.2), wobble=float(g.uniform(0, 0.012))),
        shading=replace(style.shading, tones=2, hatch=chance(g, 0.5)),
        finish=Finish(
            "pencil",
            float(g.uniform(0.02, 0.04)),
            float(g.uniform(0.3, 1)),
            grey=not colour,
            grain=float(g.uniform(0, 0.4)),
            seed=int(g.integers(8)),
        ),
        backdrop=pick(g, ("flat", "scribble", "gradient")),
    )


def ink(g: np.random.Generator) -> Style:
    """Pen and ink: black lines, hatched shadows, solid blacks."""
    style = _any(g)
    tone = int(g.integers(235, 256))
    dark = pick(g, (20, None, None, 60))
    colours = paper_palette(style.palette, tone, dark)
    pen = pick(g, ((15, 15, 20), (60, 40, 25), (25, 35, 80)))
    return replace(
        style,
        palette=replace(colours, ink=pen, brow=pen, mouth=pen, iris=mix(pen, colours.skin, 0.3)),
        ink=Ink(near(g, 0.027, 0.25), near(g, 1.2, 0.2), wobble=float(g.uniform(0, 0.01))),
        shading=replace(style.shading, tones=2, hatch=True),
        finish=Finish(grain=0.2 * float(chance(g, 0.5)), warmth=float(g.uniform(0, 1))),
        backdrop=pick(g, ("flat", "stripes", "scribble", "burst")),
    )


def comic(g: np.random.Generator) -> Style:
    """Printed comic books: heavy contours, flat strong colours, halftone dots."""
    style = natural(g, eyes=1.05)
    return replace(
        style,
        palette=replace(style.palette, ink=(15, 12, 18)),
        ink=Ink(near(g, 0.03, 0.25), near(g, 1.3, 0.2)),
        shading=replace(style.shading, tones=int(g.integers(2, 4)), hatch=chance(g, 0.2)),
        finish=Finish(
            "halftone" if chance(g, 0.75) else "none",
            float(g.uniform(0.018, 0.035)),
            float(g.uniform(0.3, 1)),
            warmth=float(g.uniform(0, 1.2)),
            grain=0.3 * float(chance(g, 0.4)),
        ),
        backdrop=pick(g, ("flat", "burst", "dots", "shapes", "stripes")),
        gamma=float(g.uniform(0.85, 1.05)),
    )


def watercolour(g: np.random.Generator) -> Style:
    """Washes on paper, with or without lines."""
    style = _any(g)
    return replace(
        style,
        ink=Ink(
            near(g, 0.02, 0.2),
            1.0,
            wobble=0.008,
            coloured=float(g.uniform(0.3, 0.9)),
            none=chance(g, 0.25),
        ),
        shading=replace(style.shading, tones=int(g.integers(2, 4)), hatch=False),
        finish=Finish(
            "watercolour",
            amount=float(g.uniform(0.1, 0.7)),
            warmth=float(g.uniform(-0.3, 1)),
            seed=int(g.integers(8)),
        ),
        backdrop=pick(g, ("flat", "gradient", "shapes")),
    )


def storybook(g: np.random.Generator) -> Style:
    """Soft shading and rosy cheeks, as in picture books and computer animation."""
    style = natural(g, eyes=float(g.uniform(1.05, 1.4)))
    big = float(g.uniform(1.0, 1.5))
    eyes = replace(
        style.eyes,
        up=style.eyes.up * big,
        down=style.eyes.down * big,
        y=0.12,
        iris=float(g.uniform(0.5, 0.68)),
        highlights=int(g.integers(1, 3)),
    )
    rosy: Extras = replace(style.extras, blush=float(g.uniform(0.1, 0.6)), folds=near(g, 0.7, 0.2))
    return replace(
        style,
        eyes=eyes,
        extras=rosy,
        nose=replace(style.nose, kind=pick(g, ("button", "shade", "ball", "nostrils"))),
        ink=Ink(near(g, 0.022, 0.2), 0.9, coloured=float(g.uniform(0.6, 1.0)), none=chance(g, 0.4)),
        shading=replace(style.shading, tones=3, soft=1.0, strength=near(g, 1.3, 0.3)),
        finish=Finish(blur=float(g.uniform(0, 0.5)), warmth=float(g.uniform(-0.2, 1))),
        backdrop=pick(g, ("gradient", "shapes", "flat")),
    )


def line(g: np.random.Generator) -> Style:
    """Lines alone, on white, on coloured paper, or light lines on a dark ground."""
    style = _any(g)
    colours = paper_palette(style.palette, int(g.integers(225, 256)))
    pen = pick(g, ((20, 20, 22), (30, 50, 120), (120, 30, 40), (40, 80, 50)))
    colours = replace(colours, ink=pen, brow=pen, iris=pen)
    if chance(g, 0.4):
        sheet = palette(g).ground
        light = 0.3 * sheet[0] + 0.6 * sheet[1] + 0.1 * sheet[2] > 120
        pen = (20, 20, 30) if light else (245, 245, 240)
        names = (
            "skin",
            "shade",
            "hair",
            "white",
            "lips",
            "cloth",
            "hat",
            "ground",
            "second",
            "nose",
            "muzzle",
            "blush",
            "tongue",
        )
        colours = replace(
            colours,
            **dict.fromkeys(names, sheet),
            ink=pen,
            brow=pen,
            iris=pen,
            mouth=mix(sheet, pen, 0.4),
        )
    return replace(
        style,
        palette=colours,
        ink=Ink(near(g, 0.03, 0.25), near(g, 1.1, 0.2), wobble=float(g.uniform(0, 0.012))),
        shading=replace(style.shading, tones=1, fringe_shadow=False),
        mouth=replace(style.mouth, teeth=chance(g, 0.5)),
        finish=Finish(grain=0.3 * float(chance(g, 0.3))),
        backdrop=pick(g, ("flat", "scribble")),
    )


def paper(g: np.random.Generator) -> Style:
    """Cut paper: angular sheets of colour that cast small shadows."""
    style = western.flat(g) if chance(g, 0.6) else natural(g, 1.1)
    return replace(
        style,
        head=replace(style.head, soft=float(chance(g, 0.4))),
        mouth=replace(style.mouth, square=float(g.uniform(1.2, 2.5)), curl=float(g.uniform(1, 2))),
        brows=replace(style.brows, kind="block"),
        ink=Ink(near(g, 0.026, 0.2), none=True),
        shading=replace(style.shading, tones=int(g.integers(1, 4)), hatch=False),
        finish=Finish("paper", amount=float(g.uniform(0.4, 1)), seed=int(g.integers(8))),
        backdrop=pick(g, ("flat", "shapes", "stripes")),
    )
