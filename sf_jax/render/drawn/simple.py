"""Families of few strokes, and of animals: emoji, crayon, pixels, rubber hose, muzzles."""

from dataclasses import replace

import numpy as np

from sf_jax.render.drawn import eastern, western
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
    varied,
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
        rest=float(g.uniform(-0.1, 0.5)),
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
    disc = HeadShape(0.97, 0.94, 0.68, 0.25, 0.35, 0.73, 0.44, 0.95, 0.85)
    return Style(
        head=shape(g, disc, 0.03),
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
            float(g.uniform(0.05, 0.08)),
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


def rubber_hose(g: np.random.Generator) -> Style:
    """Film cartoons of the 1930s: pie-cut pupils, big ovals, ball noses, white faces."""
    size = near(g, 0.19, 0.12)
    sepia = chance(g, 0.5)
    colours = grey(palette(g)) if sepia else palette(g, odd_skin=0.1)
    white: Colour = (250, 248, 240)
    ears: EarKind = pick(g, ("mouse", "bear", "human", "cat", "none"))
    fur = pick(g, ((20, 20, 20), (70, 60, 55), white))
    colours = replace(
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
    head = HeadShape(0.78, 0.82, 0.66, 0.32, 0.4, 0.72, 0.6, 0.95, 0.75)
    return Style(
        head=shape(g, head, 0.1),
        eyes=Eyes(
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
        ),
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
            rest=float(g.uniform(0, 0.5)),
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
        palette=colours,
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


_FURS: tuple[Colour, ...] = (
    (235, 150, 70),
    (120, 85, 60),
    (80, 80, 90),
    (240, 235, 225),
    (200, 165, 120),
    (60, 50, 48),
    (190, 190, 195),
    (215, 100, 60),
    (250, 205, 140),
)


def _fur_palette(g: np.random.Generator) -> Palette:
    fur = varied(g, pick(g, _FURS)) if chance(g, 0.8) else any_colour(g, 80)
    colours = palette(g)
    return replace(
        colours,
        skin=fur,
        shade=scaled(fur, 0.8),
        hair=scaled(fur, g.uniform(0.55, 0.9)),
        brow=scaled(fur, 0.35),
        nose=pick(g, ((35, 28, 30), (90, 55, 50), (225, 130, 140))),
        muzzle=mix(fur, (255, 252, 245), float(g.uniform(0.5, 0.95))),
        lips=mix(fur, (160, 60, 60), 0.4),
        blush=mix(fur, (240, 140, 150), 0.6),
        iris=pick(g, ((70, 45, 25), (90, 150, 60), (60, 110, 180), (200, 150, 40))),
    )


def animal(g: np.random.Generator) -> Style:
    """Cats, dogs, bears, foxes and mice that act like people."""
    ears: EarKind = pick(g, ("cat", "dog", "bear", "fox", "mouse"))
    size = near(g, 0.17, 0.18)
    head = HeadShape(0.8, 0.84, 0.6, 0.24, 0.36, 0.72, 0.6, 0.9, 0.62)
    kind: EyeKind = pick(g, ("open", "ball", "dot"), (3, 2, 1))
    return Style(
        head=shape(g, head, 0.12),
        eyes=Eyes(
            kind=kind,
            x=near(g, 0.37, 0.1),
            y=float(g.uniform(-0.05, 0.12)),
            width=size * (0.85 if kind == "dot" else 1),
            up=size * near(g, 1.0, 0.2),
            down=size * near(g, 0.85, 0.2),
            tilt=float(g.uniform(-0.1, 0.4)),
            square=float(g.uniform(1.9, 2.5)),
            iris=float(g.uniform(0.5, 0.75)),
            tall=float(g.uniform(1.0, 1.4)),
            ring=chance(g, 0.5),
            pupil=float(g.uniform(0.4, 0.7)),
            highlights=int(g.integers(0, 3)),
            lash=float(g.uniform(1.1, 2.4)),
            lower=float(g.uniform(0.5, 1.0)),
            lashes=int(g.integers(0, 4)) if chance(g, 0.3) else 0,
            lid_shadow=pick(g, (0.0, 0.2)),
            closed=float(g.uniform(0.5, 1.1)),
            travel=near(g, 1.05, 0.1),
        ),
        brows=Brows(
            pick(g, ("line", "ribbon", "block")),
            near(g, 0.12, 0.2),
            near(g, 0.18, 0.15),
            float(g.uniform(0.05, 0.09)),
            arch=0.05,
            move=1.2,
        ),
        nose=Nose(
            "snout",
            float(g.uniform(0.36, 0.44)),
            float(g.uniform(0.1, 0.17)),
            lift=float(g.uniform(0.2, 0.4)),
        ),
        mouth=Mouth(
            y=float(g.uniform(0.64, 0.7)),
            width=float(g.uniform(0.24, 0.36)),
            open=near(g, 0.34, 0.12),
            drop=near(g, 0.24, 0.2),
            rest=float(g.uniform(-0.05, 0.45)),
            curl=float(g.uniform(1.2, 2.0)),
            fill=pick(g, ("dark", "red", "black")),
            teeth=chance(g, 0.6),
            move=near(g, 1.15, 0.1),
        ),
        hair=_BALD if chance(g, 0.6) else replace(hair(g, spiky=0.5), back="short", sides=0.0),
        extras=Extras(
            ears=ears,
            ear_size=near(g, 0.2, 0.2),
            folds=near(g, 0.85, 0.15),
            hat=pick(g, ("cap", "beanie", "band")) if chance(g, 0.08) else "none",
            glasses=pick(g, ("round", "square")) if chance(g, 0.1) else "none",
            neck=0.34,
            blush=0.4 * float(chance(g, 0.3)),
        ),
        palette=_fur_palette(g),
        ink=Ink(
            near(g, 0.032, 0.3),
            near(g, 1.1, 0.2),
            coloured=pick(g, (0.0, 0.6)),
            none=chance(g, 0.2),
        ),
        shading=Shading(
            int(g.integers(1, 4)),
            float(g.uniform(-1, 1)),
            near(g, 1.0, 0.4),
            soft=float(chance(g, 0.25)),
        ),
        backdrop=pick(g, ("flat", "gradient", "shapes", "stripes", "dots")),
        muzzle=near(g, 1.0, 0.15),
        gamma=float(g.uniform(0.85, 1.05)),
    )


def pixel(g: np.random.Generator) -> Style:
    """Pixel art: another family's face in few large pixels."""
    style = pick(g, (eastern.anime, western.western, western.flat, animal, eastern.chibi))(g)
    return replace(
        style,
        ink=replace(style.ink, width=max(style.ink.width, 0.03)),
        finish=Finish("pixels", float(g.uniform(1 / 72, 1 / 44)), float(g.uniform(0, 1))),
        backdrop=pick(g, ("flat", "gradient", "shapes", "stripes")),
    )
