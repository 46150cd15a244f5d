"""Families of European and American cartoons and illustration."""

from dataclasses import replace

import numpy as np

from sf_jax.render.drawn.head import HeadShape
from sf_jax.render.drawn.style import Brows, EyeKind, Eyes, Finish, Ink, Mouth, Nose, Shading, Style
from sf_jax.render.drawn.traits import chance, extras, hair, near, palette, pick, shape


def flat(g: np.random.Generator) -> Style:
    """Flat vector illustration: shapes without lines, simple eyes, few details."""
    dots = chance(g, 0.35)
    size = near(g, 0.13 if dots else 0.17, 0.15)
    return Style(
        head=shape(g, HeadShape(0.66, 0.66, 0.5, 0.24, 0.3, 0.7, 0.5, 1.0, 0.6), 0.1),
        eyes=Eyes(
            kind="dot" if dots else pick(g, ("open", "ball"), (2, 1)),
            x=near(g, 0.33, 0.1),
            y=float(g.uniform(0.0, 0.15)),
            width=size,
            up=size * float(g.uniform(0.75, 1.25)),
            down=size * float(g.uniform(0.6, 1.0)),
            square=float(g.uniform(1.8, 2.4)),
            iris=float(g.uniform(0.5, 0.7)),
            tall=1.0,
            ring=False,
            pupil=float(g.uniform(0.4, 0.65)) if chance(g, 0.7) else 0.0,
            highlights=int(g.integers(0, 2)),
            lash=float(g.uniform(1.0, 2.4)),
            lower=pick(g, (0.0, 0.6)),
            lashes=int(g.integers(0, 4)) if chance(g, 0.3) else 0,
            lid_shadow=pick(g, (0.0, 0.15)),
            closed=float(g.uniform(0.5, 1.2)),
            travel=near(g, 1.0, 0.15),
        ),
        brows=Brows(
            kind=pick(g, ("ribbon", "line", "block"), (2, 2, 1)),
            gap=near(g, 0.14, 0.2),
            width=near(g, 0.17, 0.2),
            thick=float(g.uniform(0.04, 0.09)),
            arch=float(g.uniform(0.0, 0.08)),
            taper=float(g.uniform(0.3, 0.9)),
        ),
        nose=Nose(
            kind=pick(
                g, ("none", "line", "wedge", "shade", "button", "ball"), (0.5, 1, 2, 2, 1, 1)
            ),
            y=near(g, 0.42, 0.08),
            size=float(g.uniform(0.08, 0.14)),
            long=near(g, 0.22, 0.3),
        ),
        mouth=Mouth(
            y=float(g.uniform(0.62, 0.7)),
            width=float(g.uniform(0.22, 0.32)),
            open=near(g, 0.32, 0.15),
            rest=float(g.uniform(-0.08, 0.2)),
            upper=pick(g, (0.0, 0.05)),
            lower=pick(g, (0.0, 0.07)),
            fill=pick(g, ("dark", "red")),
            teeth=chance(g, 0.8),
        ),
        hair=hair(g, spiky=0.15, bald=0.1),
        extras=extras(g, beards=0.25, folds=near(g, 0.6, 0.3)),
        palette=palette(g, bright_hair=0.15, odd_skin=0.12),
        ink=Ink(near(g, 0.03, 0.3), none=True),
        shading=Shading(int(g.integers(1, 3)), float(g.uniform(-1, 1)), near(g, 1.2, 0.6)),
        backdrop=pick(g, ("flat", "gradient", "shapes", "dots", "stripes")),
    )


def western(g: np.random.Generator) -> Style:
    """Television cartoons: round eyeballs close together, thick outlines, big noses."""
    size = near(g, 0.22, 0.22)
    odd = chance(g, 0.25)
    kind: EyeKind = pick(g, ("ball", "open", "dot"), (4, 1, 0.5))
    pinpoint = kind == "ball" and chance(g, 0.35)  # small black pupils in large eyeballs
    size = near(g, 0.15, 0.15) if kind == "dot" else 0.25 if pinpoint else size
    colours = palette(g, bright_hair=0.2, odd_skin=0.6 if odd else 0.15)
    if pinpoint:
        colours = replace(colours, iris=(15, 12, 12))
    if chance(g, 0.15):
        colours = replace(colours, skin=(255, 215, 70), shade=(235, 180, 50))
    return Style(
        head=shape(g, HeadShape(0.62, 0.62, 0.52, 0.28, 0.35, 0.72, 0.45, 1.05, 0.62), 0.16),
        eyes=Eyes(
            kind=kind,
            x=size * float(g.uniform(0.95, 1.5)),
            y=float(g.uniform(-0.1, 0.12)),
            width=size,
            up=size * float(g.uniform(0.9, 1.4)),
            down=size * float(g.uniform(0.8, 1.1)),
            square=2.0,
            iris=float(g.uniform(0.26, 0.34)) if pinpoint else float(g.uniform(0.35, 0.52)),
            tall=float(g.uniform(1.0, 1.4)),
            ring=chance(g, 0.4),
            pupil=0.0 if pinpoint else pick(g, (0.0, 0.55, 0.8)),
            highlights=int(g.integers(0, 2)),
            lash=float(g.uniform(0.9, 1.5)),
            lower=float(g.uniform(0.7, 1.0)),
            lashes=int(g.integers(2, 4)) if chance(g, 0.3) else 0,
            lid_shadow=0.0,
            closed=float(g.uniform(0.4, 1.0)),
            travel=near(g, 1.1 if pinpoint else 0.9, 0.1),
            heavy=float(g.uniform(0.08, 0.25)) if chance(g, 0.15) else 0.0,
        ),
        brows=Brows(
            kind=pick(g, ("ribbon", "line", "block"), (1, 2, 1)),
            gap=float(g.uniform(0.1, 0.18)),
            width=size * float(g.uniform(0.8, 1.05)),
            thick=float(g.uniform(0.04, 0.1)),
            arch=float(g.uniform(0.0, 0.08)),
            move=near(g, 1.15, 0.15),
        ),
        nose=Nose(
            kind=pick(g, ("ball", "button", "line", "wedge", "nostrils"), (3, 1.5, 1.5, 1, 1)),
            y=near(g, 0.4, 0.12),
            size=float(g.uniform(0.08, 0.2)),
            long=near(g, 0.25, 0.4),
            lift=float(g.uniform(0.1, 0.3)),
        ),
        mouth=Mouth(
            y=float(g.uniform(0.64, 0.72)),
            width=float(g.uniform(0.24, 0.42)),
            open=float(g.uniform(0.3, 0.42)),
            drop=float(g.uniform(0.2, 0.36)),
            rest=float(g.uniform(-0.15, 0.2)),
            curl=float(g.uniform(1.4, 2.6)),
            square=float(g.uniform(1.9, 3.2)),
            upper=0.05 * float(chance(g, 0.2)),
            lower=0.07 * float(chance(g, 0.25)),
            fill=pick(g, ("dark", "red", "black")),
            tooth_lines=chance(g, 0.3),
            move=near(g, 1.1, 0.15),
            under=chance(g, 0.35),
        ),
        hair=hair(g, spiky=0.25, bald=0.12),
        extras=extras(g, beards=0.2, folds=near(g, 0.9, 0.15)),
        palette=colours,
        ink=Ink(near(g, 0.042, 0.4), near(g, 1.15, 0.25), coloured=pick(g, (0.0, 0.0, 0.6))),
        shading=Shading(int(g.integers(1, 3)), float(g.uniform(-1, 1)), near(g, 0.8, 0.5)),
        backdrop=pick(g, ("flat", "gradient", "shapes", "burst", "stripes")),
        finish=Finish(blur=0.5 * float(chance(g, 0.2))),
        strength=near(g, 1.08, 0.08),
        gamma=float(g.uniform(0.75, 1.05)),
    )
