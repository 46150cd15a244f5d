"""Looks: how surfaces are lit and drawn, from photographs to clay and cel shading."""

from dataclasses import dataclass, replace
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


def _unit(yaw: float, pitch: float) -> tuple[float, float, float]:
    """The direction of angles to the side and upward, radians."""
    across = np.cos(pitch)
    return float(np.sin(yaw) * across), float(np.sin(pitch)), float(np.cos(yaw) * across)


def _temperature(g: np.random.Generator, spread: float = 1.0) -> tuple[float, float, float]:
    """A colour of light from candle to blue sky, brightest channel 1."""
    warm = float(np.clip(g.normal(0, 0.22 * spread), -1, 1))
    colour = np.array([1 + 0.35 * warm, 1.0, 1 - 0.6 * warm])
    red, green, blue = (colour / colour.max()).tolist()
    return red, green, blue


def _gel(g: np.random.Generator) -> np.ndarray:
    """A saturated colour of light."""
    hue = g.uniform(0, 1) + np.array([0, 1 / 3, 2 / 3])
    return 0.15 + 0.85 * np.clip(np.abs((hue % 1) * 6 - 3) - 1, 0, 1)


def random_lights(g: np.random.Generator) -> dict:
    """Fields of a Scene: lights from any side, hard and soft, white and coloured."""
    kind = g.random()
    yaw, pitch = g.uniform(-1.2, 1.2), g.uniform(-0.3, 1.1)
    ambient, key, fill = g.uniform(0.25, 0.65), g.uniform(0.35, 0.9), g.uniform(0, 0.3)
    lights: list[Light] = []
    if kind < 0.12:  # hard, from the side or above
        yaw, ambient, key, fill = g.choice([-1, 1]) * g.uniform(0.7, 1.7), 0.26, 1.1, 0.0
    elif kind < 0.17:  # from below
        pitch, ambient, key = g.uniform(-1.2, -0.5), g.uniform(0.2, 0.5), 0.8
    elif kind < 0.24:  # from the back, with light along the edges
        yaw, ambient, key = g.choice([-1, 1]) * g.uniform(1.9, 2.9), g.uniform(0.35, 0.6), 0.9
    elif kind < 0.31:  # two colours from two sides
        strength = g.uniform(0.4, 1.0, 2)
        for side, amount in zip((-1, 1), strength, strict=True):
            red, green, blue = (_gel(g) * amount).tolist()
            direction = _unit(side * g.uniform(0.7, 1.8), g.uniform(-0.3, 0.7))
            lights.append(Light(direction, (red, green, blue)))
        ambient, key, fill = g.uniform(0.1, 0.35), g.uniform(0, 0.3), 0.0
    elif kind < 0.39:  # several lamps
        for _ in range(int(g.integers(2, 5))):
            amount = g.uniform(0.15, 0.5)
            red, green, blue = (amount * c for c in _temperature(g))
            lights.append(Light(_unit(g.uniform(-2, 2), g.uniform(-0.4, 1.2)), (red, green, blue)))
        key *= 0.5
    elif kind < 0.55:  # an overcast day
        ambient, key, fill = g.uniform(0.7, 0.95), g.uniform(0.05, 0.3), 0.1
    sky, ground = np.array(_temperature(g, 0.6)), np.array(_temperature(g, 0.6))
    contrast = g.uniform(0.75, 1.25)
    return {
        "light": _unit(yaw, pitch),
        "ambient": float(ambient),
        "key": float(key),
        "fill": float(fill),
        "shine": float(g.uniform(0, 0.3) if g.random() < 0.92 else g.uniform(0.4, 0.9)),
        "light_colour": _temperature(g),
        "sky": tuple((sky * contrast).tolist()),
        "ground": tuple((ground * (2 - contrast)).tolist()),
        "lights": tuple(lights),
    }


def _cel(g: np.random.Generator) -> Look:
    """Cel shading of two or three tones, with lines or without."""
    dark = g.uniform(0.45, 0.85)
    if g.random() < 0.6:
        tones, limits = [dark, g.uniform(0.98, 1.08)], [g.uniform(0.35, 0.7)]
    else:
        low = g.uniform(0.3, 0.5)
        tones = [0.8 * dark, 0.5 + 0.5 * dark, g.uniform(1.0, 1.12)]
        limits = [low, low + g.uniform(0.15, 0.35)]
    ink = g.uniform(0.0, 0.5) if g.random() < 0.7 else g.uniform(0, 0.6, 3)
    red, green, blue = (np.ones(3) * ink).tolist()
    shade = g.uniform(0.8, 1.1, 3) if g.random() < 0.5 else np.ones(3)
    return Look(
        tones=tuple(map(float, tones)),
        limits=tuple(map(float, limits)),
        softness=float(np.exp(g.uniform(np.log(0.01), np.log(0.15)))),
        shade=tuple((shade / shade.max()).tolist()),
        outline=0.0 if g.random() < 0.2 else float(np.exp(g.uniform(np.log(0.006), np.log(0.03)))),
        ink=(red, green, blue),
    )


def _clay(g: np.random.Generator) -> Look:
    """Clay, plaster, bronze or a plain computer model."""
    colour = np.full(3, g.uniform(0.5, 0.95)) * g.uniform(0.92, 1.08, 3)
    if g.random() < 0.4:
        colour = g.uniform(0.25, 0.95, 3)
    red, green, blue = np.clip(colour, 0, 1).tolist()
    flat = bool(g.random() < 0.2)
    return Look(clay=(red, green, blue), detail=float(g.uniform(0.15, 0.6)), flat=flat)


def random_look(g: np.random.Generator) -> Look:
    """A manner of drawing: six in ten natural, three in ten cel-shaded, else clay or facets."""
    kind = g.random()
    if kind < 0.3:
        return _cel(g)
    shadow = float(g.uniform(0.3, 0.9)) if g.random() < 0.5 else 0.0
    if kind < 0.36:
        return replace(_clay(g), shadow=shadow)
    if kind < 0.4:
        return Look(flat=True, outline=float(g.choice([0.0, 0.01])), shadow=shadow)
    rim = g.uniform(0, 0.7, 3) if g.random() < 0.2 else np.zeros(3)
    red, green, blue = rim.tolist()
    return Look(
        wrap=float(g.uniform(0, 0.5)),
        shadow=shadow,
        rim=(red, green, blue),
        pores=float(g.uniform(0.1, 1.0)) if g.random() < 0.6 else 0.0,
        freckles=float(g.uniform(0.2, 1.0)) if g.random() < 0.12 else 0.0,
        blotches=float(g.uniform(0.2, 1.0)) if g.random() < 0.5 else 0.0,
        noise_seed=int(g.integers(1 << 31)),
        outline=float(g.uniform(0.006, 0.015)) if g.random() < 0.06 else 0.0,
    )


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


@cache
def hair_noise() -> np.ndarray:
    """Relative change of the colour of hair, float32 [N, N]: long streaks, columns across them."""
    generator = np.random.default_rng(8)
    white = np.tile(generator.standard_normal((NOISE_SIDE, NOISE_SIDE)), (3, 3)).astype(np.float32)
    middle = slice(NOISE_SIDE, 2 * NOISE_SIDE)
    fine = cv2.GaussianBlur(white, (0, 0), 0.8, sigmaY=20)[middle, middle]
    broad = cv2.GaussianBlur(white, (0, 0), 4, sigmaY=30)[middle, middle]
    return (0.11 * fine / fine.std() + 0.11 * broad / broad.std()).clip(-0.4, 0.35)


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
