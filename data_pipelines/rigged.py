"""Sources that render rigs: the built-in head, and rigs and skins that a user supplies."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import held_out
from data_pipelines.expressions import varied
from data_pipelines.faceless import background
from data_pipelines.figures import Figure, cut_out
from data_pipelines.held_out import Split
from data_pipelines.sampler import sample
from data_pipelines.sources import (
    WIDE,
    Framing,
    SourceError,
    drawn_record,
    identity_of,
    person_of,
)
from sf_jax.face.head_angles import HEAD
from sf_jax.render import rigs, skins
from sf_jax.render.draw import Drawing, draw, render
from sf_jax.render.effects import Effects
from sf_jax.render.head import builtin
from sf_jax.render.looks import Look
from sf_jax.render.rig import Rig
from sf_jax.render.scene import Scene, random_scene
from sf_jax.render.skin_looks import Skin, random_skin
from sf_jax.render.skin_scenes import photographed
from sf_jax.render.skins import Skins, SkinsError

OWN_SHAPE = 0.3  # share of training faces with a head as its rig has it
LEAST_CONTRAST = 32  # of 255 grey levels, within a face
OUTSIDE = 0.55  # share of faces before `faceless.background` where there are photographs, else
CLUTTER = 0.15  # of faces before clutter; the others are before backgrounds of their scenes
WORN = ("hair", "glasses", "earrings")  # what hides next to nothing of a face


@dataclass(frozen=True)
class Sitter:
    """Who is rendered, and in which light.

    Attributes:
      style, identity: as in records.
      skin: colours that follow the expression, in place of the rig's; None for a painted rig.
    """

    rig: Rig
    scene: Scene
    style: str
    identity: int
    skin: Skin | None = None

    def coloured(self, coefficients: np.ndarray) -> Rig:
        """The rig with the colours of an expression."""
        if self.skin is None:
            return self.rig
        return self.skin.on(self.rig, coefficients)


@dataclass(frozen=True)
class RenderedSource:
    """What sources of rendered faces share: records and figures of a sitter.

    Attributes:
      backgrounds: folder of photographs without faces, or None.
      hard: whether measured faces are as hard to read as those that are trained on: partly hidden,
        in any light and of any quality; else they are as most photographs are (`everyday`).
    """

    backgrounds: Path | None = None
    hard: bool = False

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def sitter(self, number: int, split: Split) -> Sitter:
        """Who sits for a number."""

    def record(self, number: int, split: Split, framing: Framing = WIDE) -> dict[str, Any]:
        """One record; what the rig can show is known."""
        sitter = self.sitter(number, split)
        known = sitter.rig.known
        coefficients = self.expression(number, split, known)
        side = framing.side
        scene = self._scene(sitter, split)
        scene = self._before(framed(scene, number, framing), number, split, side)
        scene = self.shifted(scene, number)
        rig = sitter.coloured(coefficients)
        drawing = draw(rig, coefficients, scene, side, side)
        if not legible(drawing):
            scene = replace(everyday(scene, cel=True), effects=Effects())
            scene = self.shifted(scene, number)
            drawing = draw(rig, coefficients, scene, side, side)
        return drawn_record(drawing, coefficients, known, number) | {
            "source": self.name,
            "style": sitter.style,
            "identity": sitter.identity,
        }

    def figure(self, number: int, split: Split, side: int) -> Figure:
        """See `sources.Source`."""
        sitter = self.sitter(number, split)
        coefficients = posed(expression(number, split, sitter.rig.known), number)
        rig, scene = sitter.coloured(coefficients), figure_scene(self._scene(sitter, split))
        layer = render(rig, coefficients, scene, side, side)
        return cut_out(layer, side, self.name, sitter.style, sitter.identity)

    def expression(self, number: int, split: Split, known: np.ndarray) -> np.ndarray:
        """The coefficients of a record; see the function."""
        return expression(number, split, known)

    def shifted(self, scene: Scene, number: int) -> Scene:
        """The scene as it is rendered: as it is, but for sources of harder images."""
        return scene

    def _scene(self, sitter: Sitter, split: Split) -> Scene:
        if split == "train" or self.hard:
            return sitter.scene
        return everyday(sitter.scene, cel=sitter.rig.name == builtin().name)

    def _before(self, scene: Scene, number: int, split: Split, side: int) -> Scene:
        """The scene before a photograph or clutter, in part of the pictures."""
        share = 1 - OUTSIDE if self.backgrounds is not None else 1 - CLUTTER
        if np.random.default_rng([16, number]).random() < share:
            return scene
        image = background(number, split, side, side, self.backgrounds)
        return replace(scene, background=image)


def legible(drawing: Drawing) -> bool:
    """Whether the face is neither black, white nor a single shade."""
    marks = drawing.landmarks[np.isfinite(drawing.landmarks).all(1)]
    most = np.array(drawing.image.shape[1::-1])
    low, high = (np.clip(edge, 0, most).astype(int) for edge in (marks.min(0), marks.max(0)))
    face = drawing.image[low[1] : high[1], low[0] : high[0]].mean(-1)
    if not face.size:
        return True
    dark, bright = np.percentile(face[::2, ::2], (5, 95))
    return bool(bright - dark > LEAST_CONTRAST)


def expression(number: int, split: Split, known: np.ndarray) -> np.ndarray:
    """The coefficients of a record, float32 [61]: measured sets have those of the sampler alone."""
    if split == "train":
        return varied(number, known)
    return np.where(known, sample(number), 0).astype(np.float32)


def framed(scene: Scene, number: int, framing: Framing) -> Scene:
    """A scene framed so, a little sharper than photographs are, and not compressed."""
    g = np.random.default_rng([10, number])
    centre = tuple(g.uniform(-framing.shift, framing.shift, 2).tolist())
    effects = replace(scene.effects, jpeg=None, blur=0.7 * scene.effects.blur)
    share = float(g.uniform(*framing.share))
    return replace(scene, face_share=share, centre=centre, effects=effects)


def everyday(scene: Scene, cel: bool) -> Scene:
    """The scene without what hides the face, evenly lit at least in part, and of fair quality.

    Args:
      cel: whether cel shading stays; clay and facets become natural.
    """
    effects = replace(
        scene.effects,
        posterise=0,
        sepia=0.0,
        motion=(0.0, 0.0),
        scale=1.0,
        gain=float(np.clip(scene.effects.gain, 0.75, 1.3)),
        bias=float(np.clip(scene.effects.bias, -0.08, 0.08)),
        blur=0.5 * scene.effects.blur,
        noise=min(scene.effects.noise, 0.03),
    )
    items = tuple(item for item in scene.items if item.kind in WORN and item.style != "dark")
    changed = scene.look.clay is not None or scene.look.flat or (not cel and scene.look.tones)
    look = Look() if changed else scene.look
    return replace(scene, items=items, effects=effects, look=look, ambient=max(scene.ambient, 0.3))


def figure_scene(scene: Scene) -> Scene:
    """A scene with the whole head and shoulders in view, and no effect of a camera."""
    return replace(scene, face_share=0.42, centre=(0.0, 0.0), effects=Effects())


def reshaped(rig: Rig, number: int, split: Split, mostly: str | None = None) -> Rig:
    """The rig as another head far from its own identities, in most training pictures.

    Args:
      mostly: the kind of character (`Rig.vary`) that three in four of them are.
    """
    g = np.random.default_rng([17, number])
    if split != "train" or g.random() < OWN_SHAPE:
        return rig
    return rig.vary(g, mostly if g.random() < 0.75 else None)


def posed(coefficients: np.ndarray, number: int) -> np.ndarray:
    """Coefficients with a head that turns farther than those of faces that are read."""
    g = np.random.default_rng([12, number])
    out = coefficients.copy()
    most = np.array([1.0, 0.6, 0.6])
    out[HEAD] = np.clip(g.normal(0, [0.4, 0.22, 0.2]), -most, most)
    return out


@dataclass(frozen=True)
class BuiltinSource(RenderedSource):
    """The built-in head, each person of its own shape and colours."""

    name: str = "builtin"

    def check(self, split: Split) -> None:
        """Needs no file."""

    def sitter(self, number: int, split: Split) -> Sitter:
        person = person_of(np.random.default_rng([3, number]), split)
        rig = builtin()
        scene = random_scene(number, person, len(rig.identity))
        return Sitter(reshaped(rig, number, split), scene, rig.name, person)


@dataclass(frozen=True)
class RigSource(RenderedSource):
    """The rigs in a folder, painted or in their own colours, each equally often.

    A rig that `held_out.RIGS` names is in the evaluation split alone. Rigs that are in neither are
    for training; where none is held out, the evaluation split has other people of the same rigs.
    """

    folder: Path = Path()
    name: str = "rigs"

    def check(self, split: Split) -> None:
        """Raises RigError where the folder has no rig, or one is damaged."""
        self.rigs(split)

    def rigs(self, split: Split) -> tuple[Rig, ...]:
        """Those of a split; see `check` about errors."""
        found = _rigs(self.folder)
        kept = tuple(rig for rig in found if held_out.split_of(rig.name, held_out.RIGS) == split)
        if not kept and split == "train":
            raise SourceError("holds rigs for evaluation alone", path=self.folder)
        return kept or found

    def sitter(self, number: int, split: Split) -> Sitter:
        candidates = self.rigs(split)
        rig = candidates[int(np.random.default_rng([14, number]).integers(len(candidates)))]
        person = person_of(np.random.default_rng([3, number]), split)
        scene = random_scene(number, person, len(rig.identity))
        who = identity_of(rig.name, person)
        return Sitter(reshaped(rig, number, split), scene, rig.name, who)


@dataclass(frozen=True)
class SkinSource(RenderedSource):
    """People with skins of photographs, on the rig of the folder that the skins were made for.

    The skins of `held_out.SKINS` are in the evaluation split alone. Where none of them is in the
    file, the evaluation split has other mixtures of the same people.
    """

    folder: Path = Path()
    file: Path = Path()
    name: str = "skins"

    def check(self, split: Split) -> None:
        """Raises DataError where rigs or skins are missing, damaged or do not belong together."""
        self.skins(split)

    def skins(self, split: Split) -> Skins:
        """Those of a split; see `check` about errors."""
        return _skins(self.folder, self.file, split)

    def people(self, number: int, split: Split) -> Skins:
        """The skins that a number's person is mixed of, on the rig that is rendered."""
        return self.skins(split)

    def sitter(self, number: int, split: Split) -> Sitter:
        found = self.people(number, split)
        g = np.random.default_rng([15, number])
        skin = random_skin(g, found)
        scene = random_scene(number, int(g.integers(1 << 31)), len(found.rig.identity))
        drawn = scene.look
        scene = photographed(g, scene, skin)
        if split == "train" and g.random() < 0.15:
            scene = replace(scene, look=drawn)
        style = held_out.stem(skin.people[0])
        rig = reshaped(found.rig, number, split, "person")
        return Sitter(rig, scene, style, identity_of("skins", style), skin)


@lru_cache(2)
def _rigs(folder: Path) -> tuple[Rig, ...]:
    return tuple(rigs.load_folder(folder))


@lru_cache(4)
def _skins(folder: Path, file: Path, split: Split) -> Skins:
    found = _all_skins(folder, file)
    if split == "train":
        return found.without({x for x in found.portrait if not held_out.portrait_trainable(x)})
    names = {x for x in found.portrait if held_out.split_of(x, held_out.SKINS) == "evaluation"}
    return found.only(names) if names else found


@lru_cache(2)
def _all_skins(folder: Path, file: Path) -> Skins:
    """All skins of a file, on the first rig of the folder that they fit."""
    error: SkinsError | None = None
    for rig in _rigs(folder):
        try:
            return skins.read(file, rig)
        except SkinsError as fault:
            error = error or fault
    assert error is not None  # a folder without rigs has raised
    raise error
