"""Families of East Asian comics and animation."""

from dataclasses import replace

import numpy as np

from sf_jax.render.drawn.canvas import mix
from sf_jax.render.drawn.head import HeadShape
from sf_jax.render.drawn.style import (
    Brows,
    Eyes,
    Finish,
    Ink,
    Mouth,
    Nose,
    NoseKind,
    Shading,
    Style,
)
from sf_jax.render.drawn.traits import chance, extras, grey, hair, near, palette, pick, shape


def _anime_eyes(g: np.random.Generator, size: float) -> Eyes:
    """Tall irises, a heavy upper lid, a light lower one."""
    return Eyes(
        x=near(g, 0.36, 0.08),
        y=float(g.uniform(0.12, 0.3)),
        width=0.185 * near(g, size, 0.12),
        up=0.165 * size * float(g.uniform(0.8, 1.35)),
        down=0.13 * size * float(g.uniform(0.8, 1.3)),
        tilt=float(g.uniform(-0.1, 0.35)),
        skew=float(g.uniform(0.75, 1.1)),
        square=float(g.uniform(2.0, 3.6)),
        iris=float(g.uniform(0.52, 0.74)),
        tall=float(g.uniform(1.15, 1.6)),
        ring=chance(g, 0.75),
        pupil=float(g.uniform(0.35, 0.6)) if chance(g, 0.85) else 0.0,
        highlights=int(g.integers(0, 4)),
        gradient=chance(g, 0.7),
        lash=float(g.uniform(1.6, 3.2)),
        lower=float(g.uniform(0.4, 1.1)),
        lashes=int(g.integers(0, 4)),
        below_lashes=int(g.integers(0, 3)) if chance(g, 0.3) else 0,
        crease=float(g.uniform(0.8, 1.3)) if chance(g, 0.55) else 0.0,
        lid_shadow=float(g.uniform(0.1, 0.35)) if chance(g, 0.7) else 0.0,
        closed=float(g.uniform(0.4, 1.1)),
        heavy=float(g.uniform(0.08, 0.2)) if chance(g, 0.12) else 0.0,
        slit=0.4 if chance(g, 0.06) else 1.0,
        travel=float(g.uniform(0.95, 1.2)),
    )


def _anime_mouth(g: np.random.Generator) -> Mouth:
    return Mouth(
        y=float(g.uniform(0.66, 0.74)),
        width=float(g.uniform(0.2, 0.3)),
        open=float(g.uniform(0.28, 0.4)),
        drop=float(g.uniform(0.1, 0.22)),
        rest=float(g.uniform(-0.12, 0.18)),
        curl=float(g.uniform(1.3, 2.2)),
        square=float(g.uniform(1.8, 3.0)),
        fill=pick(g, ("dark", "red"), (1, 1)),
        teeth=chance(g, 0.75),
        tongue=chance(g, 0.8),
        move=near(g, 1.25, 0.1),
        under=chance(g, 0.4),
    )


def _anime_nose(g: np.random.Generator) -> Nose:
    return Nose(
        kind=pick(
            g, ("none", "dot", "line", "wedge", "button", "nostrils"), (0.6, 2, 3, 2, 1, 0.5)
        ),
        y=float(g.uniform(0.44, 0.54)),
        size=float(g.uniform(0.06, 0.12)),
        long=float(g.uniform(0.06, 0.25)),
        lift=float(g.uniform(0.1, 0.2)),
    )


def anime(g: np.random.Generator) -> Style:
    """Modern television animation: large eyes, small nose and mouth, two or three tones."""
    mature = chance(g, 0.4)  # smaller eyes, longer face
    head = HeadShape(0.75, 0.7, 0.5, 0.15, 0.4, 0.7, 0.54, 1.0, 0.6)
    eyes = _anime_eyes(g, 0.98 if mature else 1.22)
    colours = palette(g, bright_hair=0.5, pale=0.6)
    return Style(
        head=shape(g, head),
        eyes=eyes,
        brows=Brows(
            kind=pick(g, ("line", "ribbon"), (2, 1)),
            gap=near(g, 0.13, 0.3),
            width=near(g, 0.19, 0.12),
            thick=float(g.uniform(0.04, 0.075)),
            tilt=float(g.uniform(-0.03, 0.06)),
            arch=float(g.uniform(0.02, 0.07)),
            move=near(g, 1.3, 0.1),
            over_hair=chance(g, 0.8),
        ),
        nose=_anime_nose(g),
        mouth=_anime_mouth(g),
        hair=hair(g, spiky=0.5, bald=0.01),
        extras=replace(
            extras(g, beards=0.04, folds=float(g.uniform(0.4, 0.8))),
            neck=near(g, 0.24, 0.2),
            fold_shade=float(g.uniform(0.3, 1)),
        ),
        palette=colours,
        ink=Ink(near(g, 0.022, 0.3), near(g, 1.2, 0.2), coloured=pick(g, (0.0, 0.4, 0.8))),
        shading=Shading(int(g.integers(1, 4)), float(g.uniform(-1, 1)), near(g, 1.0, 0.5)),
        backdrop=pick(g, ("flat", "gradient", "shapes", "burst")),
        finish=Finish(warmth=float(g.uniform(-0.5, 1)), blur=0.5 * float(chance(g, 0.3))),
        gamma=float(g.uniform(0.8, 1.1)),
    )


def manga(g: np.random.Generator) -> Style:
    """Black ink on white paper with screentone."""
    style = anime(g)
    tone = grey(style.palette)
    dark = pick(g, ((15, 15, 15), (255, 255, 255), tone.hair))
    colours = replace(
        tone,
        skin=(255, 255, 255),
        shade=pick(g, ((190, 190, 190), (215, 215, 215), (160, 160, 160))),
        hair=dark,
        brow=(15, 15, 15),
        ink=(12, 12, 12),
        white=(255, 255, 255),
        mouth=pick(g, ((30, 30, 30), (235, 235, 235), (120, 120, 120))),
        tongue=(190, 190, 190),
        blush=(205, 205, 205),
        lips=(200, 200, 200),
        ground=pick(g, ((255, 255, 255), (225, 225, 225), (90, 90, 90))),
        second=pick(g, ((240, 240, 240), (170, 170, 170), (20, 20, 20))),
        iris=mix(tone.iris, (0, 0, 0), float(g.uniform(0.3, 0.85))),
    )
    return replace(
        style,
        palette=colours,
        ink=Ink(near(g, 0.031, 0.2), near(g, 1.3, 0.2)),
        shading=replace(style.shading, hatch=chance(g, 0.3)),
        finish=Finish(
            kind="screentone" if chance(g, 0.75) else "none",
            cell=float(g.uniform(0.02, 0.035)),
            amount=float(g.uniform(0.4, 1.0)),
            grey=True,
            grain=0.2 * float(chance(g, 0.4)),
        ),
        backdrop=pick(g, ("flat", "burst", "stripes", "shapes", "dots", "scribble")),
    )


def chibi(g: np.random.Generator) -> Style:
    """Small figures with large round heads, huge low eyes and hardly a nose."""
    style = anime(g)
    head = HeadShape(0.92, 0.88, 0.62, 0.2, 0.42, 0.72, 0.66, 0.95, 0.7)
    size = near(g, 0.23, 0.1)
    eyes = replace(
        style.eyes,
        kind="dot" if chance(g, 0.15) else "open",
        x=near(g, 0.43, 0.08),
        y=float(g.uniform(0.2, 0.34)),
        width=size,
        up=size * near(g, 1.1, 0.15),
        down=size * near(g, 0.85, 0.15),
        iris=float(g.uniform(0.6, 0.82)),
        highlights=int(g.integers(1, 4)),
    )
    mouth = replace(
        style.mouth,
        y=float(g.uniform(0.68, 0.74)),
        width=float(g.uniform(0.17, 0.28)),
        rest=float(g.uniform(-0.12, 0.2)),
        move=near(g, 1.65, 0.06),
        drop=0.1,
        open=near(g, 0.28, 0.1),
    )
    kind: NoseKind = pick(g, ("none", "dot", "button"), (2, 1, 1))
    return replace(
        style,
        head=shape(g, head, 0.05),
        eyes=eyes,
        mouth=mouth,
        nose=replace(style.nose, kind=kind, y=0.52, size=0.07),
        extras=replace(
            style.extras,
            ears=pick(g, ("human", "none", "cat", "bear"), (3, 1, 1, 0.5)),
            beard="none",
            neck=0.13,
            shoulders=float(g.uniform(0.45, 0.7)),
            blush=float(g.uniform(0.3, 0.9)) if chance(g, 0.6) else 0.0,
        ),
        gamma=float(g.uniform(0.8, 1.0)),
    )


def retro(g: np.random.Generator) -> Style:
    """Television animation of the 1980s: big hair, sparkling eyes, strong shadows, film grain."""
    style = anime(g)
    eyes = replace(
        style.eyes,
        square=float(g.uniform(2.6, 4.0)),
        tall=float(g.uniform(1.3, 1.7)),
        highlights=3,
        lash=float(g.uniform(2.2, 3.4)),
        lashes=int(g.integers(1, 4)),
        lower=float(g.uniform(0.8, 1.2)),
        tilt=float(g.uniform(0, 0.3)),
    )
    return replace(
        style,
        eyes=eyes,
        hair=replace(
            style.hair, volume=float(g.uniform(0.14, 0.26)), shine=float(g.uniform(0.4, 1))
        ),
        nose=replace(style.nose, kind=pick(g, ("line", "wedge")), long=float(g.uniform(0.15, 0.3))),
        brows=replace(style.brows, kind="ribbon", thick=float(g.uniform(0.06, 0.09))),
        ink=Ink(near(g, 0.026, 0.2), near(g, 1.3, 0.15)),
        shading=replace(style.shading, tones=2, strength=near(g, 1.4, 0.2)),
        finish=Finish(
            warmth=float(g.uniform(0.3, 1.4)),
            grain=float(g.uniform(0.05, 0.25)),
            blur=float(g.uniform(0.3, 0.7)),
        ),
    )
