"""What families of styles have in common: random colours, hair, accessories."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from sf_jax.render.drawn.canvas import Colour, mix, scaled
from sf_jax.render.drawn.head import HeadShape
from sf_jax.render.drawn.style import BackKind, Extras, FringeKind, Hair, Palette

Choice = TypeVar("Choice")
Generator = np.random.Generator

SKINS: tuple[Colour, ...] = (
    (255, 228, 208),
    (250, 214, 186),
    (240, 196, 160),
    (222, 170, 130),
    (186, 132, 94),
    (146, 98, 68),
    (104, 68, 48),
)
HAIRS: tuple[Colour, ...] = (
    (30, 26, 30),
    (60, 42, 34),
    (104, 66, 40),
    (158, 104, 56),
    (222, 182, 104),
    (246, 222, 150),
    (176, 70, 40),
    (150, 150, 155),
    (232, 230, 226),
)
BRIGHT: tuple[Colour, ...] = (
    (240, 120, 160),
    (110, 170, 230),
    (120, 200, 150),
    (160, 110, 210),
    (230, 80, 70),
    (80, 90, 170),
    (250, 190, 80),
    (90, 200, 210),
    (205, 205, 225),
    (170, 220, 90),
)
IRISES: tuple[Colour, ...] = (
    (80, 50, 35),
    (120, 80, 45),
    (70, 120, 190),
    (80, 150, 95),
    (120, 125, 130),
    (150, 110, 50),
)


def pick(g: Generator, options: Sequence[Choice], weights: Sequence[float] | None = None) -> Choice:
    """One of the options."""
    if weights is None:
        return options[int(g.integers(len(options)))]
    p = np.asarray(weights, np.float64)
    return options[int(g.choice(len(options), p=p / p.sum()))]


def chance(g: Generator, probability: float) -> bool:
    """True with a probability."""
    return bool(g.random() < probability)


def near(g: Generator, value: float, spread: float) -> float:
    """`value`, changed by up to a share `spread` of itself."""
    return float(value * (1 + spread * g.uniform(-1, 1)))


def any_colour(g: Generator, low: int = 40, high: int = 255) -> Colour:
    """A random colour."""
    r, green, b = g.integers(low, high, 3).tolist()
    return r, green, b


def varied(g: Generator, colour: Colour, amount: int = 12) -> Colour:
    """A colour close to another."""
    r, green, b = np.clip(np.array(colour) + g.integers(-amount, amount + 1, 3), 0, 255).tolist()
    return r, green, b


def palette(
    g: Generator, bright_hair: float = 0.1, odd_skin: float = 0.0, pale: float = 0.0
) -> Palette:
    """Colours of a person; `odd_skin` and `pale`: chances of a skin of any, of a light colour."""
    skin = varied(g, pick(g, SKINS, (4, 5, 4, 3, 2, 2, 1)), 8)
    if chance(g, pale):
        skin = varied(g, pick(g, SKINS[:3]), 6)
    if chance(g, odd_skin):
        skin = mix(any_colour(g), (255, 255, 255), 0.25)
    hair = varied(g, pick(g, BRIGHT if chance(g, bright_hair) else HAIRS))
    shade = mix(scaled(skin, g.uniform(0.74, 0.88)), any_colour(g, 60, 200), 0.08)
    shade = mix(shade, (225, 130, 130), 0.12)
    lips = mix(skin, (200, 70, 80), g.uniform(0.25, 0.75))
    ground = mix(any_colour(g), (255, 255, 255), g.uniform(0, 0.7))
    iris = any_colour(g, 30, 230) if chance(g, bright_hair) else varied(g, pick(g, IRISES))
    return Palette(
        skin=skin,
        shade=shade,
        hair=hair,
        brow=mix(scaled(hair, 0.75), (40, 30, 30), g.uniform(0, 0.7)),
        iris=iris,
        white=mix((255, 255, 255), skin, g.uniform(0, 0.12)),
        lips=lips,
        blush=mix(skin, (250, 90, 100), 0.5),
        mouth=varied(g, pick(g, ((120, 40, 45), (80, 25, 30), (160, 60, 60)))),
        tongue=varied(g, (235, 125, 125), 15),
        nose=mix(skin, (230, 110, 90), g.uniform(0.1, 0.4)),
        muzzle=mix(skin, (255, 255, 255), g.uniform(0.3, 0.8)),
        cloth=any_colour(g),
        hat=any_colour(g),
        ink=varied(g, pick(g, ((20, 16, 20), (45, 30, 35), (60, 40, 40), (30, 30, 60))), 10),
        ground=ground,
        second=mix(ground, any_colour(g), g.uniform(0.15, 0.6)),
    )


def grey(p: Palette, contrast: float = 1.0) -> Palette:
    """The palette in greys."""

    def tone(colour: Colour) -> Colour:
        value = round(0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2])
        value = min(255, max(0, round(128 + contrast * (value - 128))))
        return value, value, value

    return Palette(**{name: tone(getattr(p, name)) for name in p.__dataclass_fields__})


def hair(g: Generator, spiky: float = 0.2, bald: float = 0.05) -> Hair:
    """A hair style; `spiky` is the weight of spiky fringes and backs."""
    if chance(g, bald):
        return Hair("none", "none", line=-0.5, volume=0.0)
    fringe: FringeKind = pick(
        g,
        ("cap", "straight", "spiky", "swept", "parted", "peak", "curly", "bangs"),
        (0.8, 1, 5 * spiky, 1.5, 1.2, 0.7, 0.7, 5 * spiky),
    )
    back: BackKind = pick(
        g,
        ("short", "bob", "long", "tails", "spiky", "afro", "bun", "pony"),
        (3, 1.2, 1.6, 0.5, 4 * spiky, 0.4, 0.4, 0.6),
    )
    hanging = back in ("bob", "long", "tails", "pony")
    return Hair(
        fringe=fringe,
        back=back,
        line=float(g.uniform(-0.62, -0.4)),
        low=float(g.uniform(0.12, 0.4)),
        volume=float(g.uniform(0.03, 0.16)),
        strands=int(g.integers(3, 11)),
        sides=float(g.uniform(0.1, 1.0)) if chance(g, 0.7 if hanging else 0.35) else 0.0,
        part=float(g.uniform(-0.7, 0.7)),
        shine=float(g.uniform(0.3, 1.0)) if chance(g, 0.35) else 0.0,
        seed=int(g.integers(1 << 30)),
    )


def extras(g: Generator, beards: float = 0.15, folds: float = 0.7) -> Extras:
    """Ears, beard, glasses, hat and marks."""
    return Extras(
        ears=pick(g, ("human", "pointed"), (12, 1)),
        ear_size=float(g.uniform(0.12, 0.2)),
        beard=pick(g, ("stubble", "full", "goatee", "moustache")) if chance(g, beards) else "none",
        glasses=pick(g, ("round", "square", "half")) if chance(g, 0.15) else "none",
        hat=pick(g, ("cap", "beanie", "brim", "band")) if chance(g, 0.12) else "none",
        blush=float(g.uniform(0.2, 0.9)) if chance(g, 0.4) else 0.0,
        blush_lines=chance(g, 0.12),
        freckles=int(g.integers(4, 14)) if chance(g, 0.1) else 0,
        folds=folds,
        fold_shade=float(g.uniform(0, 0.6)),
        neck=float(g.uniform(0.2, 0.4)),
        shoulders=float(g.uniform(0.7, 1.2)),
        body=not chance(g, 0.06),
        earrings=chance(g, 0.07),
    )


def shape(g: Generator, base: HeadShape, spread: float = 0.08) -> HeadShape:
    """A head's proportions near those of its family."""
    jaw = near(g, base.jaw, 1.8 * spread)
    return HeadShape(
        cranium=near(g, base.cranium, spread),
        cheek=near(g, base.cheek, spread),
        jaw=jaw,
        chin=min(near(g, base.chin, 4 * spread), 0.8 * jaw),
        cheek_y=base.cheek_y + float(g.uniform(-0.06, 0.06)),
        jaw_y=base.jaw_y + float(g.uniform(-0.04, 0.04)),
        crown=near(g, base.crown, spread),
        depth=near(g, base.depth, spread),
        front=near(g, base.front, 0.1),
        soft=base.soft,
    )
