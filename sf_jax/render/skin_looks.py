"""Random people from photo skins: two mixed, tone and hair changed, make-up, beard, wrinkles.

Nothing here needs a renderer: the result is an identity and a colour a vertex. Fold lines deepen
with the expression, so a person's colours are asked for with coefficients.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from sf_jax.face.channels import INDEX
from sf_jax.render.rig import Rig, Surface
from sf_jax.render.skin_paint import (
    Eyes,
    Mouth,
    Palette,
    paint_brows,
    paint_eyes,
    paint_hair,
    paint_lids,
    paint_makeup,
    paint_marks,
    paint_mouth,
    paint_neck,
)
from sf_jax.render.skin_regions import Regions
from sf_jax.render.skins import Skins

# What deepens each fold, by the stem of the channel; a sided channel acts on its own side.
FOLDS: dict[str, str] = {
    "nasolabial": "MouthSmile 0.9 NoseSneer 0.7 CheekSquint 0.5 MouthUpperUp 0.5 MouthDimple 0.3",
    "marionette": "MouthFrown 0.7 MouthStretch 0.4 MouthShrugLower 0.2",
    "crow": "EyeSquint 0.7 CheekSquint 0.7 MouthSmile 0.3 EyeBlink 0.2",
    "bag": "CheekSquint 0.6 EyeSquint 0.7 MouthSmile 0.2",
    "forehead": "BrowInnerUp 0.6 BrowOuterUp 0.7",
    "glabella": "BrowDown 1.0 NoseSneer 0.3",
    "bunny": "NoseSneer 1.0",
    "dimple": "MouthDimple 1.0 MouthStretch 0.3 MouthPress 0.5 MouthSmile 0.3",
    "chin": "MouthShrugLower 0.9 MouthFrown 0.3",
    "purse": "MouthPucker 0.9 MouthFunnel 0.3 MouthPress 0.2",
}
FOLD_COLOUR = np.array([0.75, 1.0, 1.05], np.float32)  # a fold is redder than the skin around
SHAPE_NOISE = 0.45  # standard deviations added to each identity coefficient
FREE_SHAPE = 0.8  # the same where skins have no shape of their own
LEAST_GAMMA, MOST_GAMMA = 0.55, 1.8  # of a change of tone


@dataclass(frozen=True)
class Skin:
    """A person to be drawn on a rig.

    Attributes:
      identity: float32 [I], standard deviations.
      colours: float32 [V, 3] in [0, 1], sRGB, of the face at rest.
      hair: [3], the colour of hair, for whatever is drawn over the head.
      people: names of the portraits that were mixed.
      folds: float32 [L, F], masks of the fold lines over `vertices` [F].
      depth: float32 [L], how dark each fold is at rest; range: [L], how much it deepens.
    """

    identity: Float[np.ndarray, " I"]
    colours: Float[np.ndarray, "V 3"]
    hair: Float[np.ndarray, "3"]
    people: tuple[str, ...]
    folds: Float[np.ndarray, "L F"]
    vertices: np.ndarray
    depth: Float[np.ndarray, " L"]
    range: Float[np.ndarray, " L"]

    def on(self, rig: Rig, coefficients: Float[np.ndarray, " 61"]) -> Rig:
        """The rig in this person's colours, to be drawn with `Scene.identity = self.identity`."""
        return replace(rig, surface=Surface(self.colours_at(coefficients)))

    def colours_at(self, coefficients: Float[np.ndarray, " 61"]) -> Float[np.ndarray, "V 3"]:
        """Colours [V, 3] with the folds that an expression makes."""
        action = np.clip(FOLD_WEIGHTS @ np.asarray(coefficients, np.float32), 0, 1.2)
        dark = (self.depth + self.range * action) @ self.folds
        out = self.colours.copy()
        out[self.vertices] *= np.clip(1 - dark[:, None] * FOLD_COLOUR, 0.2, 1.2)
        return out


def _fold_weights() -> np.ndarray:
    """float32 [L, 61]: how much each channel deepens each fold, left and right of each in turn."""
    rows = []
    for text in FOLDS.values():
        words = text.split()
        strengths = dict(zip(words[::2], map(float, words[1::2]), strict=True))
        for side in ("Left", "Right"):
            row = np.zeros(len(INDEX), np.float32)
            for stem, strength in strengths.items():
                row[INDEX[stem if stem in INDEX else stem + side]] = strength
            rows.append(row)
    return np.stack(rows)


FOLD_WEIGHTS = _fold_weights()


@lru_cache(16)
def fold_masks(regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the folds, float32 [L, F], over the vertices [F] that any of them touches."""
    names = [f"{name} {side}" for name in FOLDS for side in ("Left", "Right")]
    masks = np.stack([regions.line[name] for name in names])
    vertices = np.flatnonzero((masks > 0.02).any(0))
    return masks[:, vertices], vertices


def mixed(
    generator: np.random.Generator, skins: Skins
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Identity [I], colours [V, 3] in [0, 1] and names of two people mixed, sides made alike."""
    first, second = generator.choice(len(skins), 2, replace=len(skins) < 2)
    # Half of the pictures keep one person's skin: an average of two is smoother than either.
    share = generator.uniform(0.0, 0.5) if generator.random() < 0.5 else 0.0
    colours = skins.colours[first].astype(np.float32) / 255
    if share:
        colours += share * (skins.colours[second].astype(np.float32) / 255 - colours)
    even = generator.uniform(0, 0.5)
    colours += even * (colours[skins.regions.mirror] - colours)
    blend = generator.uniform(0, 1)
    identity = (1 - blend) * skins.identity[first] + blend * skins.identity[second]
    identity = identity * generator.uniform(0.7, 1.4)
    noise = SHAPE_NOISE if skins.identity.any() else FREE_SHAPE
    identity = identity + noise * generator.normal(size=len(identity))
    people = (skins.portrait[first], skins.portrait[second])
    return np.clip(identity, -4, 4).astype(np.float32), colours, people


def tone(colours: np.ndarray, regions: Regions) -> np.ndarray:
    """The colour [3] of a person's skin: the median over cheeks, nose and forehead."""
    return np.clip(np.median(colours[regions.plain_vertices], axis=0), 0.04, 0.96)


# sRGB of human skin in even light, dark to light.
LOCUS = np.array(
    [
        [0.30, 0.19, 0.14],
        [0.42, 0.28, 0.20],
        [0.56, 0.39, 0.29],
        [0.68, 0.50, 0.39],
        [0.78, 0.60, 0.49],
        [0.86, 0.69, 0.59],
        [0.92, 0.78, 0.70],
        [0.95, 0.85, 0.80],
    ],
    np.float32,
)


def _new_tone(generator: np.random.Generator, own: np.ndarray, skins: Skins) -> np.ndarray:
    """A tone to change to: nearly the person's own, another person's, or any human one."""
    kind = generator.random()
    if kind < 0.4:
        target = own
    elif kind < 0.65:
        other = skins.colours[generator.integers(len(skins))] / np.float32(255)
        target = own + generator.uniform(0.3, 1.0) * (tone(other, skins.regions) - own)
    else:
        at = generator.uniform(0, 1) ** 0.8 * (len(LOCUS) - 1)
        target = np.array([np.interp(at, np.arange(len(LOCUS)), LOCUS[:, i]) for i in range(3)])
    red = np.exp(generator.normal(0, 0.03) * np.array([1.0, -1.0, -1.2]))
    jitter = np.exp(generator.normal(0, [0.02, 0.012, 0.025]) + generator.normal(0, 0.03))
    return np.clip(target * red * jitter, 0.08, 0.95)


def change_tone(colours: np.ndarray, target: np.ndarray, regions: Regions) -> None:
    """Changes the skin's tone in place, by an exponent a channel: black and white stay so."""
    own = tone(colours, regions)
    gamma = np.clip(np.log(target) / np.log(own), LEAST_GAMMA, MOST_GAMMA).astype(np.float32)
    index = np.clip(colours * 255 + 0.5, 0, 255).astype(np.uint8)
    levels = np.arange(256, dtype=np.float32) / 255
    # Hair on the skin keeps its darkness: brows of a pale person are no lighter for it.
    dark = np.maximum(regions.mask["brow"], 0.7 * regions.mask["liner"])
    rows = np.flatnonzero(dark > 0.01)
    for channel in range(3):
        changed = (levels ** gamma[channel])[index[:, channel]]
        darker = (levels ** max(gamma[channel], 1))[index[rows, channel]]
        changed[rows] += dark[rows] * (darker - changed[rows])
        colours[:, channel] = changed


def random_skin(generator: np.random.Generator, skins: Skins) -> Skin:
    """A person like those of a file and none of them; all of it is drawn from `generator`."""
    regions = skins.regions
    identity, colours, people = mixed(generator, skins)
    change_tone(colours, _new_tone(generator, tone(colours, regions), skins), regions)
    palette = Palette.random(generator, tone(colours, regions))
    paint_lids(colours, regions)
    paint_neck(colours, regions, palette)
    paint_marks(generator, colours, regions, palette)
    paint_makeup(generator, colours, regions, palette)
    paint_brows(generator, colours, regions, palette)
    paint_hair(generator, colours, regions, palette)
    paint_eyes(colours, skins.rig, regions, Eyes.random(generator))
    paint_mouth(colours, regions, Mouth.random(generator))
    folds, vertices = fold_masks(regions)
    age = palette.age
    lines = len(FOLD_WEIGHTS)
    depth = 0.16 * age**2 * generator.uniform(0, 1.2, lines // 2).repeat(2)
    deepens = generator.uniform(0.5, 1.3, lines // 2).repeat(2) * (0.14 + 0.3 * age)
    return Skin(
        identity=identity,
        colours=np.clip(colours, 0, 1),
        hair=palette.hair,
        people=people,
        folds=folds,
        vertices=vertices,
        depth=depth.astype(np.float32),
        range=deepens.astype(np.float32),
    )
