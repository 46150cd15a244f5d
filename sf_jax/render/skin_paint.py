"""Paint on photo skins: eyelids, neck, ears, marks, make-up, brows, beard, hair, eyes and teeth.

Each function changes `colours`, float32 [V, 3] sRGB in [0, 1], in place.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from sf_jax.render.rig import Rig
from sf_jax.render.skin_regions import Regions, smooth

Generator = np.random.Generator

HAIR = np.array(
    [
        [0.06, 0.05, 0.05],
        [0.13, 0.09, 0.07],
        [0.23, 0.15, 0.10],
        [0.36, 0.24, 0.15],
        [0.52, 0.38, 0.24],
        [0.70, 0.58, 0.40],
        [0.44, 0.19, 0.09],
    ],
    np.float32,
)
GREY = np.array([0.62, 0.61, 0.60], np.float32)
IRIS = np.array(
    [
        [0.16, 0.09, 0.06],
        [0.24, 0.14, 0.08],
        [0.34, 0.21, 0.11],
        [0.40, 0.33, 0.17],
        [0.36, 0.42, 0.30],
        [0.36, 0.47, 0.55],
        [0.46, 0.57, 0.66],
        [0.42, 0.45, 0.47],
    ],
    np.float32,
)
IRIS_RADIUS = 0.60  # units
RED = np.array([1.0, 0.45, 0.40], np.float32)


@dataclass(frozen=True)
class Palette:
    """What the parts of a person have in common.

    Attributes:
      age: 0 young to 1 old.
      skin, hair, cloth: colours [3].
      beard: strength in [0, 1], 0 for none.
    """

    age: float
    skin: Float[np.ndarray, "3"]
    hair: Float[np.ndarray, "3"]
    cloth: Float[np.ndarray, "3"]
    beard: float

    @classmethod
    def random(cls, generator: Generator, skin: np.ndarray) -> "Palette":
        """Dark skin has dark hair more often; the old are greyer."""
        age = float(generator.uniform(0, 1))
        darkest = 0.45 if skin.mean() < 0.45 else 1.0
        at = generator.beta(1.0, 1.6) * (len(HAIR) - 1) * darkest
        low = int(at)
        hair = HAIR[low] + (at - low) * (HAIR[min(low + 1, len(HAIR) - 1)] - HAIR[low])
        grey = float(generator.uniform(0, 1) * np.clip(2 * age - 0.9, 0, 1))
        hair = hair + grey * (GREY * generator.uniform(0.6, 1.3) - hair)
        if generator.random() < 0.02:  # dyed
            hair = generator.uniform(0.1, 0.9, 3)
        hair = np.clip(hair * generator.uniform(0.8, 1.2), 0.02, 0.95).astype(np.float32)
        beard = float(generator.uniform(0.1, 1.0)) if generator.random() < 0.35 else 0.0
        grey = generator.uniform(0.05, 0.95)
        cloth = grey + generator.uniform(0, 1) ** 2 * (generator.uniform(0.05, 0.95, 3) - grey)
        cloth = cloth.astype(np.float32)
        return cls(age, skin.astype(np.float32), hair, cloth, beard)


def blend(
    colours: np.ndarray, amount: np.ndarray, colour: np.ndarray, light: np.ndarray | None = None
) -> None:
    """Lays a colour [3] over vertices by `amount` [V], brighter or darker by `light` [V]."""
    rows = np.flatnonzero(amount > 0.004)
    over = np.asarray(colour, np.float32)
    if light is not None:
        over = over * light[rows, None]
    colours[rows] += np.clip(amount[rows], 0, 1)[:, None] * (over - colours[rows])


def _mean(colours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights @ colours) / max(float(weights.sum()), 1e-6)


def _grain(generator: Generator, count: int, spread: float) -> np.ndarray:
    """Independent factors about 1, float32 [count]."""
    noise = generator.standard_normal(count, np.float32)
    return np.clip(1 + spread * noise, 0, 2)


def _blotches(generator: Generator, regions: Regions, band: int) -> np.ndarray:
    """A smooth random field [V] of unit variance: 0 coarse, 1 fine."""
    weights = generator.normal(size=6).astype(np.float32)
    return (weights / np.linalg.norm(weights)) @ regions.noise[band]


def paint_lids(colours: np.ndarray, regions: Regions) -> None:
    """The skin that a shut eye shows, from the skin around: no photograph of open eyes shows it."""
    mask = regions.mask
    around = _mean(colours, mask["lid donor"])
    lid = around * np.array([0.93, 0.88, 0.88], np.float32)
    blend(colours, 0.85 * mask["lid"], lid.astype(np.float32))
    blend(colours, 0.55 * mask["liner"], (0.22 * around).astype(np.float32))


def paint_neck(colours: np.ndarray, regions: Regions, palette: Palette) -> None:
    """Ears, neck and clothes, of which a portrait shows hair and background."""
    mask = regions.mask
    shade = regions.shade
    blend(colours, mask["neck"], palette.skin, shade)
    blend(colours, 0.7 * mask["ear"], palette.skin * (1.04, 0.93, 0.92), shade)
    blend(colours, mask["cloth"], palette.cloth, 0.6 + 0.4 * shade)


def paint_marks(
    generator: Generator, colours: np.ndarray, regions: Regions, palette: Palette
) -> None:
    """Redness, dark rings under the eyes, freckles, moles, and uneven tone."""
    mask = regions.mask
    skin = mask["skin"] * (1 - mask["brow"])
    uneven = generator.uniform(0, 0.04) * _blotches(generator, regions, 0)
    uneven += generator.uniform(0, 0.03) * _blotches(generator, regions, 1)
    tired = max(0.0, generator.normal(0.05, 0.14)) + 0.12 * palette.age
    red = generator.uniform(0, 0.12) * (mask["blush"] + mask["nose"])
    for channel in range(3):  # [V, 3] times [V, 1] takes NumPy several times as long
        ring = tired * np.float32((0.8, 1.0, 0.9)[channel]) * mask["ring"]
        colours[:, channel] *= (1 + skin * uneven) * (1 - ring) * (1 - red * (1 - RED[channel]))
    if generator.random() < 0.12:  # freckles
        spots = generator.random(len(colours), np.float32) < 0.12 * (mask["blush"] + mask["nose"])
        colours[spots] *= generator.uniform(0.85, 0.95) * np.array([1.0, 0.95, 0.9])
    for _ in range(int(generator.poisson(0.8))):  # moles
        here = generator.choice(regions.face_vertices)
        away = ((regions.points - regions.points[here]) ** 2) @ np.ones(3, np.float32)
        spot = np.exp(-0.5 * away / generator.uniform(0.08, 0.2) ** 2) * skin
        blend(colours, generator.uniform(0.3, 0.8) * spot, 0.35 * palette.skin)


def paint_makeup(
    generator: Generator, colours: np.ndarray, regions: Regions, palette: Palette
) -> None:
    """Lips of many natural colours, and on some people lipstick, eye shadow, eye liner, blush."""
    mask = regions.mask
    lips = palette.skin * generator.uniform([0.85, 0.5, 0.5], [1.02, 0.75, 0.8]).astype(np.float32)
    lit = regions.shade
    blend(colours, generator.uniform(0, 0.45) * mask["lips"], lips, lit)
    if generator.random() < 0.22:
        stick = generator.uniform([0.35, 0.03, 0.08], [0.85, 0.35, 0.45]).astype(np.float32)
        blend(colours, generator.uniform(0.4, 0.85) * mask["lips"], stick, lit)
    if generator.random() < 0.2:
        shadow = palette.skin * generator.uniform([0.4, 0.3, 0.3], [0.8, 0.7, 0.9])
        blend(colours, generator.uniform(0.2, 0.6) * mask["shadow"], shadow.astype(np.float32))
    if generator.random() < 0.3:
        dark = np.full(3, 0.06, np.float32)
        blend(colours, generator.uniform(0.4, 0.95) * mask["liner"], dark)
    if generator.random() < 0.2:
        rouge = palette.skin * np.array([1.0, 0.6, 0.62], np.float32)
        blend(colours, generator.uniform(0.15, 0.5) * mask["blush"], rouge)


def paint_brows(
    generator: Generator, colours: np.ndarray, regions: Regions, palette: Palette
) -> None:
    """Brows as photographed, thinned, replaced or made denser; stubble and beards."""
    mask = regions.mask
    brow, kind = mask["brow"], generator.random()
    if kind < 0.25:  # thinned, or plucked
        bare = _mean(colours, mask["lid donor"])
        blend(colours, generator.uniform(0.4, 1.0) * np.sqrt(brow), bare.astype(np.float32))
    if kind < 0.2 or kind > 0.6:
        density = generator.uniform(0.15, 0.95)
        shape = brow ** generator.uniform(0.6, 2.0)
        hair = (0.8 * palette.hair + 0.05 * palette.skin).astype(np.float32)
        blend(colours, density * shape * _grain(generator, len(brow), 0.2), hair)
    if not palette.beard:
        return
    full = palette.beard > 0.5
    parts = {
        "beard": generator.random() < 0.75,
        "moustache": generator.random() < 0.8,
        "goatee": generator.random() < 0.6,
    }
    area = np.zeros(len(brow), np.float32)
    for name, grown in parts.items():
        if grown or not full:
            np.maximum(area, mask[name], out=area)
    density = palette.beard if full else 0.6 * palette.beard
    hair = (0.85 * palette.hair + 0.06 * palette.skin).astype(np.float32)
    area *= _grain(generator, len(brow), 0.12 if full else 0.2)
    blend(colours, 0.9 * density * area, hair)


def paint_hair(
    generator: Generator, colours: np.ndarray, regions: Regions, palette: Palette
) -> None:
    """The scalp: hair, shaved or bald, as the portrait shows little of it. Hair that stands off the
    head, and cloths over it, are items of a scene."""
    scalp = regions.mask["scalp"]
    kind = generator.random()
    lit = regions.shade
    if kind < 0.1:  # bald
        blend(colours, scalp, palette.skin, lit)
        return
    if kind < 0.25:  # shaved
        blend(colours, scalp, palette.skin, lit)
        blend(colours, generator.uniform(0.2, 0.6) * scalp, palette.hair)
        return
    strands = _blotches(generator, regions, 1)
    bright = 0.85 + generator.uniform(0.03, 0.15) * strands + 0.3 * (regions.shade - 0.8)
    blend(colours, scalp, palette.hair, bright)


@dataclass(frozen=True)
class Eyes:
    """How a person's eyes look.

    Attributes:
      iris, white: colours [3], of the iris and of the sclera where nothing shades it.
      pupil, radius: radii of pupil and iris, units.
      rim: how dark the iris is at its border, in [0, 1].
      lash: brightness of the lashes.
    """

    iris: Float[np.ndarray, "3"]
    white: Float[np.ndarray, "3"] = field(default_factory=lambda: np.array([0.84, 0.81, 0.79]))
    pupil: float = 0.26
    radius: float = IRIS_RADIUS
    rim: float = 0.5
    lash: float = 0.06

    @classmethod
    def random(cls, generator: Generator) -> "Eyes":
        return cls(
            iris=IRIS[generator.integers(len(IRIS))] * generator.uniform(0.5, 1.0),
            white=generator.uniform([0.64, 0.60, 0.58], [0.86, 0.84, 0.83]),
            pupil=float(generator.uniform(0.2, 0.34)),
            radius=float(IRIS_RADIUS * generator.uniform(0.92, 1.08)),
            rim=float(generator.uniform(0.25, 0.8)),
            lash=float(generator.uniform(0.02, 0.14)),
        )


def paint_eyes(colours: np.ndarray, rig: Rig, regions: Regions, eyes: Eyes) -> None:
    """Sclera with shaded and redder corners, irises with a dark rim and streaks, pupils, lashes."""
    for eye in rig.eyes:
        ball = (rig.neutral[eye.vertices] - eye.centre) / regions.unit
        off = np.where(ball[:, 2] > 0, np.hypot(ball[:, 0], ball[:, 1]), 9.0)
        lid = (1 - 0.3 * smooth(0.1, 0.75, ball[:, 1]))[:, None]  # its shadow on the eyeball
        sclera = eyes.white * lid * (1 - 0.35 * smooth(0.6, 1.25, off))[:, None]
        sclera = sclera * (1 - np.array([0, 0.08, 0.1]) * smooth(0.7, 1.2, off)[:, None])
        streaks = 1 + 0.15 * np.sin(9 * np.arctan2(ball[:, 1], ball[:, 0]) + 5 * off)
        light = (0.75 + 0.5 * smooth(0.25, 0.45, off)) * streaks
        light = light * (1 - eyes.rim * smooth(0.8 * eyes.radius, eyes.radius, off))
        ring = eyes.iris * lid * np.clip(light, 0.1, 2)[:, None]
        soft = smooth(eyes.radius + 0.06, eyes.radius - 0.04, off)[:, None]
        colour = sclera + soft * (ring - sclera)
        hole = smooth(eyes.pupil + 0.05, eyes.pupil - 0.03, off)[:, None]
        colours[eye.vertices] = np.clip(colour + hole * (0.02 - colour), 0, 1)
    colours[regions.mask["lash"] > 0.5] = eyes.lash


@dataclass(frozen=True)
class Mouth:
    """Colours [3] of what an open mouth shows, where nothing shades it."""

    teeth: Float[np.ndarray, "3"] = field(default_factory=lambda: np.array([0.90, 0.86, 0.77]))
    gum: Float[np.ndarray, "3"] = field(default_factory=lambda: np.array([0.64, 0.35, 0.35]))
    tongue: Float[np.ndarray, "3"] = field(default_factory=lambda: np.array([0.70, 0.38, 0.38]))
    mouth: Float[np.ndarray, "3"] = field(default_factory=lambda: np.array([0.24, 0.08, 0.08]))

    @classmethod
    def random(cls, generator: Generator) -> "Mouth":
        return cls(
            teeth=generator.uniform([0.74, 0.68, 0.56], [0.96, 0.94, 0.91]),
            gum=generator.uniform([0.50, 0.25, 0.25], [0.78, 0.45, 0.45]),
            tongue=generator.uniform([0.60, 0.30, 0.30], [0.80, 0.48, 0.48]),
            mouth=generator.uniform([0.16, 0.04, 0.04], [0.35, 0.14, 0.14]),
        )


def paint_mouth(colours: np.ndarray, regions: Regions, mouth: Mouth) -> None:
    """Teeth, gums, tongue and the dark of the mouth, darker towards the throat."""
    for name in ("teeth", "gum", "tongue", "mouth"):
        blend(colours, regions.mask[name], getattr(mouth, name), regions.mouth_light)
