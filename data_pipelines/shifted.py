"""The built-in head's people again, each time with one thing beyond what training shows.

Record n of each of these sources has the person, expression and light of record n of "builtin", so
that the change alone makes the difference. The labels stay those of the whole face, also of what an
object hides.
"""

from dataclasses import dataclass, replace

import numpy as np

from data_pipelines.held_out import Split
from data_pipelines.rigged import BuiltinSource
from sf_jax.face.channels import INDEX
from sf_jax.render.outfits import Item
from sf_jax.render.scene import Scene

# Kind and style of what hides part of the face.
OBJECTS = (
    ("hand", ""),
    ("hand", ""),
    ("microphone", ""),
    ("cup", ""),
    ("telephone", ""),
    ("face mask", ""),
    ("face mask", ""),
    ("glasses", "dark"),
)
BLUR = (1.0, 2.2)  # standard deviation at a side of 96 pixels; training has up to 0.8
SCALE = (0.1, 0.2)  # of the sides; training has 0.4 and more
YAW, PITCH = (0.75, 1.0), (0.55, 0.75)  # radians; training has up to 0.7 and 0.5


@dataclass(frozen=True)
class OccludedSource(BuiltinSource):
    """Something in front of the face, in every image."""

    name: str = "occluded"

    def shifted(self, scene: Scene, number: int) -> Scene:
        g = np.random.default_rng([30, number])
        kind, style = OBJECTS[int(g.integers(len(OBJECTS)))]
        kept = tuple(item for item in scene.items if item.kind != kind)
        return replace(scene, items=(*kept, Item(kind, int(g.integers(1 << 31)), style)))


@dataclass(frozen=True)
class BlurredSource(BuiltinSource):
    """Out of focus."""

    name: str = "blurred"

    def shifted(self, scene: Scene, number: int) -> Scene:
        blur = float(np.random.default_rng([31, number]).uniform(*BLUR))
        return replace(scene, effects=replace(scene.effects, blur=blur))


@dataclass(frozen=True)
class LowResolutionSource(BuiltinSource):
    """A face of 10 to 30 pixels, enlarged."""

    name: str = "low resolution"

    def shifted(self, scene: Scene, number: int) -> Scene:
        scale = float(np.random.default_rng([32, number]).uniform(*SCALE))
        return replace(scene, effects=replace(scene.effects, scale=scale))


@dataclass(frozen=True)
class TurnedSource(BuiltinSource):
    """A head turned farther than any in training, to a side (two in three) or up or down."""

    name: str = "turned"

    def expression(self, number: int, split: Split, known: np.ndarray) -> np.ndarray:
        face = super().expression(number, split, known).copy()
        g = np.random.default_rng([33, number])
        name, most = ("HeadYaw", YAW) if g.random() < 2 / 3 else ("HeadPitch", PITCH)
        face[INDEX[name]] = g.choice([-1, 1]) * g.uniform(*most)
        return face
