"""Scenes in which photo skins look like photographs: their light, and a camera's moderate effects.

Over the middle of the faces of 200 portraits the median red is 174 of 255 (122 to 213 at the 10th
and 90th percentile), the standard deviation of brightness 39, red less blue 81. Skins without the
light that was in their portraits have to be lit as strongly.
"""

from dataclasses import replace

import numpy as np

from sf_jax.render.looks import Look
from sf_jax.render.scene import Scene
from sf_jax.render.skin_looks import Skin

OWN_LIGHT = 0.25  # share of the scenes that keep their light, which may be hard and coloured
OWN_EFFECTS = 0.4  # share that keep their effects, which may spoil the picture


def photographed(generator: np.random.Generator, scene: Scene, skin: Skin) -> Scene:
    """A scene of the same items and background for a person of photographed skin.

    Identity and hair become the person's.
    """
    g = generator
    scene = replace(
        scene,
        identity=skin.identity,
        colours=scene.colours | {"hair": tuple(skin.hair.tolist())},
        look=_look(g),
    )
    if g.random() > OWN_LIGHT:
        ambient = float(g.uniform(0.4, 0.85))
        scene = replace(
            scene,
            light=_direction(g),
            ambient=ambient,
            key=(1.3 - ambient) * float(g.uniform(0.6, 1.3)),
            fill=float(g.uniform(0.02, 0.2)),
            shine=float(g.uniform(0.02, 0.18)),
            lights=(),
        )
    if g.random() > OWN_EFFECTS:
        effects = replace(
            scene.effects,
            gamma=float(np.exp(g.normal(0, 0.1))),
            gain=float(g.uniform(0.95, 1.2)),
            bias=float(g.normal(0, 0.02)),
            tint=tuple(g.uniform(0.95, 1.05, 3).tolist()),
            saturation=float(g.uniform(0.9, 1.3)),
            sepia=0.0,
            posterise=0,
            noise=min(scene.effects.noise, 0.015),
        )
        scene = replace(scene, effects=effects)
    return scene


def _direction(g: np.random.Generator) -> tuple[float, float, float]:
    """Towards a window, a lamp or the sun: from above and in front more often than not."""
    yaw, pitch = g.normal(0, 0.65), g.uniform(0.0, 1.0)
    x, y, z = np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)
    return float(x), float(y), float(z)


def _look(g: np.random.Generator) -> Look:
    return Look(
        wrap=float(g.uniform(0, 0.4)),
        shadow=float(g.uniform(0.2, 0.8)) if g.random() < 0.4 else 0.0,
        pores=float(g.uniform(0.1, 0.55)) if g.random() < 0.6 else 0.0,
        blotches=float(g.uniform(0.1, 0.35)) if g.random() < 0.3 else 0.0,
        noise_seed=int(g.integers(1 << 31)),
    )
