"""Families of few strokes: emoji, crayon, rubber hose, pixels."""

from dataclasses import replace

import numpy as np

from sf_jax.render.drawn import animals, eastern, western
from sf_jax.render.drawn.canvas import Colour, mix, scaled
from sf_jax.render.drawn.head import HeadShape
from sf_jax.render.drawn.style import (
    Brows,
    EarKind,
    Extras,
    EyeKind,
    Eyes,
    Finish,
    Hair,
    Ink,
    Mouth,
    Nose,
    Palette,
    Shading,
    Style,
)
from sf_jax.render.drawn.traits import (
    any_colour,
    chance,
    extras,
    grey,
    hair,
    near,
    palette,
    pick,
    shape,
)

_BALD = Hair("none", "none", line=-0.9, volume=0.0)


def _simple_eyes(g: np.random.Generator, size: float) -> Eyes:
    """Dots, ovals or eyeballs."""
    kind: EyeKind = pick(g, ("dot", "ball", "open"), (2, 2, 1))
    size = near(g, size * (0.8 if kind == "dot" else 1.15), 0.15)
    return Eyes(
        kind=kind,
        x=near(g, 0.34, 0.15),
        y=float(g.uniform(-0.12, 0.12)),
        width=size,
        up=size * float(g.uniform(1.0, 1.5)),
        down=size * float(g.uniform(0.9, 1.3)),
        square=2.0,
        iris=float(g.uniform(0.5, 0.68)),
        tall=float(g.uniform(1.0, 1.3)),
        ring=False,
        pupil=pick(g, (0.0, 0.6)),
        highlights=int(g.integers(0, 2)),
        lash=float(g.uniform(1.0, 1.6)),
        lower=float(g.uniform(0.6, 1.0)),
        lid_shadow=0.0,
        closed=float(g.uniform(0.6, 1.2)),
        travel=near(g, 1.0, 0.1),
    )


def _simple_mouth(g: np.random.Generator) -> Mouth:
    return Mouth(
        y=float(g.uniform(0.5, 0.62)),
        width=float(g.uniform(0.28, 0.42)),
        open=float(g.uniform(0.3, 0.42)),
        drop=float(g.uniform(0.0, 0.15)),
        rest=float(g.uniform(-0.12, 0.2)),
        curl=float(g.uniform(1.4, 2.2)),
        square=float(g.uniform(1.8, 3.0)),
        fill=pick(g, ("dark", "red", "black")),
        teeth=chance(g, 0.7),
        tongue=chance(g, 0.8),
        move=near(g, 1.1, 0.1),
    )


def emoji(g: np.random.Generator) -> Style:
    """A disc with eyes, brows and a mouth."""
    colour = pick(g, ((255, 205, 60), (255, 220, 110), any_colour(g, 90), any_colour(g, 140)))
    colours = palette(g)
    colours = replace(
        colours,
        skin=colour,
        shade=scaled(mix(colour, (230, 130, 40), 0.3), 0.9),
        brow=scaled(colour, 0.4),
        blush=mix(colour, (250, 80, 80), 0.5),
        lips=mix(colour, (200, 50, 50), 0.5),
        ink=pick(g, ((70, 45, 20), (20, 20, 20))),
    )
    disc = HeadShape(0.97, 0.93, 0.69, 0.27, 0.36, 0.72, 0.42, 0.95, 0.85)
    return Style(
        head=shape(g, disc, 0.02),
        eyes=_simple_eyes(g, 0.19),
        brows=Brows(
            "line",
            float(g.uniform(0.1, 0.16)),
            near(g, 0.2, 0.2),
            float(g.uniform(0.06, 0.1)),
            arch=0.05,
            move=1.1,
        ),
        nose=Nose("none"),
        mouth=_simple_mouth(g),
        hair=_BALD,
        extras=Extras(
            ears="none",
            body=False,
            folds=near(g, 0.8, 0.2),
            blush=float(g.uniform(0.3, 0.8)) if chance(g, 0.4) else 0.0,
            glasses=pick(g, ("round", "square")) if chance(g, 0.08) else "none",
            hat=pick(g, ("cap", "beanie", "brim")) if chance(g, 0.08) else "none",
        ),
        palette=colours,
        ink=Ink(near(g, 0.04, 0.25), 0.9, none=chance(g, 0.5)),
        shading=Shading(
            int(g.integers(1, 4)),
            float(g.uniform(-0.6, 0.6)),
            near(g, 1.0, 0.5),
            soft=float(chance(g, 0.4)),
        ),
        backdrop=pick(g, ("flat", "flat", "gradient", "dots")),
        gamma=float(g.uniform(0.85, 1.05)),
    )


def crayon(g: np.random.Generator) -> Style:
    """A child's drawing in wax: round heads, unsteady thick lines, colours that miss the paper."""
    colours = palette(g, bright_hair=0.4, odd_skin=0.2)
    paper = mix((255, 255, 250), any_colour(g, 200), 0.3)
    pen = pick(g, ((40, 40, 45), (60, 60, 160), (170, 50, 50), (50, 120, 70), (110, 60, 30)))
    skin = colours.skin if chance(g, 0.7) else paper
    colours = replace(
        colours,
        ink=pen,
        brow=pen,
        ground=paper,
        skin=skin,
        shade=scaled(skin, 0.86),
        second=any_colour(g, 140),
    )
    head = HeadShape(0.86, 0.82, 0.62, 0.3, 0.3, 0.72, 0.68, 0.9, 0.75)
    return Style(
        head=shape(g, head, 0.1),
        eyes=replace(_simple_eyes(g, 0.17), lashes=int(g.integers(0, 4))),
        brows=Brows(
            "line",
            near(g, 0.13, 0.2),
            near(g, 0.2, 0.15),
            float(g.uniform(0.06, 0.09)),
            tilt=float(g.uniform(-0.05, 0.05)),
            move=1.15,
        ),
        nose=Nose(pick(g, ("dot", "button", "line", "ball", "none")), 0.36, near(g, 0.12, 0.3)),
        mouth=replace(_simple_mouth(g), y=float(g.uniform(0.6, 0.68))),
        hair=hair(g, spiky=0.6, bald=0.1),
        extras=extras(g, beards=0.1, folds=near(g, 0.9, 0.15)),
        palette=colours,
        ink=Ink(near(g, 0.042, 0.25), 1.0, wobble=float(g.uniform(0.01, 0.03))),
        shading=Shading(1, fringe_shadow=False),
        finish=Finish(
            "crayon",
            float(g.uniform(0.03, 0.06)),
            float(g.uniform(0.2, 0.8)),
            seed=int(g.integers(8)),
        ),
        backdrop=pick(g, ("flat", "shapes", "scribble", "stripes")),
        gamma=float(g.uniform(0.85, 1.05)),
    )


def _pie_eyes(g: np.random.Generator) -> Eyes:
    """Tall ovals close together, their pupils often without a wedge."""
    size = near(g, 0.19, 0.12)
    return Eyes(
        kind=pick(g, ("ball", "open"), (3, 1)),
        x=size * near(g, 1.1, 0.1),
        y=float(g.uniform(-0.1, 0.05)),
        width=size,
        up=size * near(g, 1.55, 0.15),
        down=size * near(g, 1.2, 0.1),
        square=2.0,
        iris=near(g, 0.5, 0.12),
        tall=near(g, 1.5, 0.15),
        ring=False,
        pupil=1.0,
        highlights=0,
        lash=1.2,
        lower=0.9,
        lid_shadow=0.0,
        closed=near(g, 0.8, 0.3),
        travel=1.0,
        pie=chance(g, 0.8),
    )


def _film_palette(g: np.random.Generator, sepia: bool) -> Palette:
    """White faces, black or grey fur and ink; greys all over in `sepia`."""
    colours = grey(palette(g)) if sepia else palette(g, odd_skin=0.1)
    white: Colour = (250, 248, 240)
    fur = pick(g, ((20, 20, 20), (70, 60, 55), white))
    return replace(
        colours,
        skin=white if chance(g, 0.7) else colours.skin,
        shade=(205, 200, 192),
        hair=fur,
        ink=(15, 14, 14),
        brow=(15, 14, 14),
        nose=(25, 22, 22),
        white=white,
        iris=(15, 15, 15),
        mouth=(60, 30, 30),
        muzzle=mix(white, (225, 200, 170), 0.4),
        blush=(60, 55, 55),
    )


def rubber_hose(g: np.random.Generator) -> Style:
    """Film cartoons of the 1930s: pie-cut pupils, big ovals, ball noses, white faces."""
    sepia = chance(g, 0.5)
    ears: EarKind = pick(g, ("mouse", "bear", "human", "cat", "none"))
    head = HeadShape(0.78, 0.82, 0.66, 0.32, 0.4, 0.72, 0.6, 0.95, 0.75)
    return Style(
        head=shape(g, head, 0.1),
        eyes=_pie_eyes(g),
        brows=Brows(
            "line",
            near(g, 0.12, 0.2),
            near(g, 0.16, 0.15),
            near(g, 0.07, 0.2),
            arch=0.06,
            move=1.25,
        ),
        nose=Nose(pick(g, ("ball", "snout", "dot"), (3, 1, 1)), 0.4, near(g, 0.13, 0.3), lift=0.3),
        mouth=Mouth(
            y=0.66,
            width=near(g, 0.36, 0.15),
            open=0.38,
            drop=0.26,
            rest=float(g.uniform(-0.05, 0.25)),
            fill=pick(g, ("black", "dark")),
            teeth=chance(g, 0.4),
            move=1.15,
        ),
        hair=replace(
            hair(g, spiky=0.1), fringe=pick(g, ("peak", "cap", "none")), back="short", volume=0.04
        ),
        extras=Extras(
            ears=ears,
            ear_size=near(g, 0.2, 0.25),
            folds=near(g, 0.85, 0.15),
            hat=pick(g, ("none", "none", "brim", "cap")),
            neck=0.14,
            shoulders=0.6,
        ),
        palette=_film_palette(g, sepia),
        ink=Ink(near(g, 0.038, 0.2), 1.1),
        shading=Shading(1),
        finish=Finish(
            grey=sepia,
            warmth=float(g.uniform(0, 1.5)),
            grain=float(g.uniform(0, 0.5)),
            blur=float(g.uniform(0, 0.6)),
        ),
        backdrop=pick(g, ("gradient", "shapes", "flat", "burst")),
        gamma=float(g.uniform(0.8, 1.0)),
    )


def pixel(g: np.random.Generator) -> Style:
    """Pixel art: another family's face in few large pixels."""
    style = pick(g, (eastern.anime, western.western, western.flat, animals.animal, eastern.chibi))(
        g
    )
    return replace(
        style,
        ink=replace(style.ink, width=max(style.ink.width, 0.03)),
        finish=Finish("pixels", float(g.uniform(1 / 72, 1 / 44)), float(g.uniform(0, 1))),
        backdrop=pick(g, ("flat", "gradient", "shapes", "stripes")),
    )
