"""Looks: how surfaces are lit and drawn, from photographs to clay and cel shading."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

NOISE_SIDE = 256  # texels of the skin's noise


@dataclass(frozen=True)
class Light:
    """A light far away.

    Attributes:
      direction: [3], towards it (x to the subject's left, y up, z out of the face).
      colour: RGB, of any brightness.
    """

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """A manner of drawing; the defaults are smooth shading.

    Attributes:
      tones: brightness of flat tones from dark to light, for cel shading; empty for smooth shading.
      limits: light from which each next tone begins, relative to full light, one less than tones.
      softness: width of the steps between tones.
      shade: colour of the darkest tone relative to the surface's.
      outline: width of dark lines as a share of the face's height; ink: their colour relative to
        the surface's.
      flat: facets in place of smooth surfaces.
      clay: RGB that replaces all colours; None for the person's own. detail: by how much features
        still differ from it.
      wrap: by how much light reaches around the skin, as in flesh, 0 to 1.
      shadow: strength of the shadow that the first light casts, 0 to 1.
      rim: RGB of light along the silhouette.
      pores, freckles, blotches: strength of the skin's noise, 0 to 1; noise_seed: of it.
    """

    tones: tuple[float, ...] = ()
    limits: tuple[float, ...] = ()
    softness: float = 0.02
    shade: tuple[float, float, float] = (1.0, 1.0, 1.0)
    outline: float = 0.0
    ink: tuple[float, float, float] = (0.25, 0.25, 0.25)
    flat: bool = False
    clay: tuple[float, float, float] | None = None
    detail: float = 0.3
    wrap: float = 0.0
    shadow: float = 0.0
    rim: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pores: float = 0.0
    freckles: float = 0.0
    blotches: float = 0.0
    noise_seed: int = 0


TOON = Look(tones=(0.75, 1.05), limits=(0.6,), outline=0.01)


@cache
def _noises() -> np.ndarray:
    """Pores, freckles and blotches: float32 [3, N, N], about 0 to 1, each repeating."""
    generator = np.random.default_rng(7)

    def octave(sigma: float) -> np.ndarray:
        white = generator.standard_normal((NOISE_SIDE, NOISE_SIDE)).astype(np.float32)
        smooth = cv2.GaussianBlur(np.tile(white, (3, 3)), (0, 0), sigma)
        smooth = smooth[NOISE_SIDE : 2 * NOISE_SIDE, NOISE_SIDE : 2 * NOISE_SIDE]
        return smooth / smooth.std()

    pores = 0.6 * octave(1.0) + 0.4 * octave(2.5)
    freckles = np.clip(octave(2.2) - 1.1, 0, 1.2) + 0.7 * np.clip(octave(1.4) - 1.5, 0, 1)
    blotches = 0.7 * octave(12) + 0.5 * octave(5)
    return np.stack([pores, freckles, blotches])


def skin_noise(look: Look) -> np.ndarray:
    """Relative change of the skin's colour, float32 [N, N, 3], which repeats."""
    if not (look.pores or look.freckles or look.blotches):
        return np.zeros((1, 1, 3), np.float32)
    pores, freckles, blotches = _noises()
    turn = np.random.default_rng(look.noise_seed).integers(NOISE_SIDE, size=2)
    tile = np.zeros((NOISE_SIDE, NOISE_SIDE, 3), np.float32)
    for field, strength, colour in (
        (pores, look.pores, (0.08, 0.10, 0.10)),
        (freckles, look.freckles, (-0.25, -0.42, -0.5)),
        (blotches, look.blotches, (0.04, -0.08, -0.07)),
    ):
        if strength:
            tile += np.float32(strength) * field[..., None] * np.array(colour, np.float32)
    return np.roll(tile, turn, (0, 1))
