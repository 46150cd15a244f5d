"""Families of animals that act like people, with muzzles and ears."""

from dataclasses import replace

import numpy as np

from sf_jax.render.drawn.canvas import Colour, mix, scaled
from sf_jax.render.drawn.head import HeadShape
from sf_jax.render.drawn.style import (
    Brows,
    EarKind,
    Extras,
    EyeKind,
    Eyes,
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
    hair,
    near,
    palette,
    pick,
    shape,
    varied,
)

_BALD = Hair("none", "none", line=-0.9, volume=0.0)

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


def _animal_eyes(g: np.random.Generator) -> Eyes:
    size = near(g, 0.19, 0.15)
    kind: EyeKind = pick(g, ("open", "ball", "dot"), (3, 2, 1))
    return Eyes(
        kind=kind,
        x=near(g, 0.37, 0.1),
        y=float(g.uniform(-0.05, 0.12)),
        width=size * (0.85 if kind == "dot" else 1),
        up=size * near(g, 1.0, 0.2),
        down=size * near(g, 0.85, 0.2),
        tilt=float(g.uniform(-0.1, 0.4)),
        square=float(g.uniform(1.9, 2.5)),
        iris=float(g.uniform(0.5, 0.62) if kind == "ball" else g.uniform(0.55, 0.75)),
        tall=float(g.uniform(1.0, 1.4)),
        ring=chance(g, 0.5),
        pupil=float(g.uniform(0.4, 0.7)),
        slit=float(g.uniform(0.25, 0.6)) if chance(g, 0.3) else 1.0,
        highlights=int(g.integers(0, 3)),
        lash=float(g.uniform(1.1, 2.4)),
        lower=float(g.uniform(0.5, 1.0)),
        lashes=int(g.integers(0, 4)) if chance(g, 0.3) else 0,
        lid_shadow=pick(g, (0.0, 0.2)),
        closed=float(g.uniform(0.5, 1.1)),
        travel=near(g, 1.2, 0.1),
    )


def animal(g: np.random.Generator) -> Style:
    """Cats, dogs, bears, foxes and mice that act like people."""
    ears: EarKind = pick(g, ("cat", "dog", "bear", "fox", "mouse"), (2, 2, 1, 1, 1))
    head = HeadShape(0.8, 0.84, 0.6, 0.24, 0.36, 0.72, 0.6, 0.9, 0.62)
    return Style(
        head=shape(g, head, 0.12),
        eyes=_animal_eyes(g),
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
            rest=float(g.uniform(-0.1, 0.22)),
            curl=float(g.uniform(1.2, 2.0)),
            fill=pick(g, ("dark", "red", "black")),
            teeth=chance(g, 0.6),
            move=near(g, 1.35, 0.06),
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
