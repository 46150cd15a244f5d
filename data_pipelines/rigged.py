"""Sources that render rigs: the built-in head, and rigs that a user supplies."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_pipelines.figures import Figure, cut_out
from data_pipelines.held_out import Split
from data_pipelines.sampler import sample
from data_pipelines.sources import FACE_SHARE, OFFSET, SIDE, drawn_record
from sf_jax.face.channels import INDEX
from sf_jax.render.draw import draw
from sf_jax.render.effects import Effects
from sf_jax.render.head import builtin
from sf_jax.render.scene import Scene, random_scene

HEAD = slice(INDEX["HeadYaw"], INDEX["HeadRoll"] + 1)
TRAIN_PEOPLE = 20_000  # as many as a rig's identity directions make in the training split


def person_of(number: int, split: Split) -> int:
    """The seed of a record's person; no person is in both splits."""
    person = int(np.random.default_rng([3, number]).integers(TRAIN_PEOPLE))
    return person + (OFFSET if split == "evaluation" else 0)


def framed(scene: Scene, number: int) -> Scene:
    """A scene with the face at the size that the loader cuts from, and not yet compressed."""
    g = np.random.default_rng([10, number])
    centre = tuple(g.uniform(-0.04, 0.04, 2).tolist())
    effects = replace(scene.effects, jpeg=None)
    share = float(g.uniform(*FACE_SHARE))
    return replace(scene, face_share=share, centre=centre, effects=effects)


def figure_scene(scene: Scene) -> Scene:
    """A scene with the whole head and shoulders in view, and no effect of a camera."""
    return replace(scene, face_share=0.42, centre=(0.0, 0.0), effects=Effects())


def posed(coefficients: np.ndarray, number: int) -> np.ndarray:
    """Coefficients with a head that turns farther than those of faces that are read."""
    g = np.random.default_rng([12, number])
    out = coefficients.copy()
    most = np.array([1.0, 0.6, 0.6])
    out[HEAD] = np.clip(g.normal(0, [0.4, 0.22, 0.2]), -most, most)
    return out


@dataclass(frozen=True)
class BuiltinSource:
    """The built-in head, each person of its own shape and colours."""

    name: str = "builtin"

    def check(self, split: Split) -> None:
        """Needs no file."""

    def figure(self, number: int, split: Split, side: int) -> Figure:
        """See `figures.FigureSource`."""
        rig = builtin()
        person = person_of(number, split)
        scene = figure_scene(random_scene(number, person, len(rig.identity)))
        drawing = draw(rig, posed(sample(number), number), scene, 2 * side, 2 * side)
        return cut_out(drawing, self.name, rig.name, person)

    def record(self, number: int, split: Split, side: int = SIDE) -> dict[str, Any]:
        """One record; everything is known."""
        rig = builtin()
        person = person_of(number, split)
        scene = framed(random_scene(number, person, len(rig.identity)), number)
        coefficients = sample(number)
        drawing = draw(rig, coefficients, scene, side, side)
        return drawn_record(drawing, coefficients, np.ones(61, bool), number) | {
            "source": self.name,
            "style": rig.name,
            "identity": person,
        }
