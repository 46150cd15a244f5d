"""Photo skins on all rigs that there are, not only the one that they were made for."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_pipelines.held_out import Split
from data_pipelines.rigged import RigSource, SkinSource
from sf_jax.face.landmarks import PUPILS
from sf_jax.render.head import builtin
from sf_jax.render.rig import Rig, RigShapeError
from sf_jax.render.skin_transfer import transferred
from sf_jax.render.skins import Skins


@dataclass(frozen=True)
class SkinnedSource(SkinSource):
    """The people of `SkinSource` on the built-in head and on the other rigs of the folder."""

    name: str = "skinned"

    def check(self, split: Split) -> None:
        """Also raises SourceError where all rigs of the folder are held out."""
        super().check(split)
        hosts(self.folder, split)

    def people(self, number: int, split: Split) -> Skins:
        """On a rig drawn by chance."""
        count = len(hosts(self.folder, split))
        chosen = int(np.random.default_rng([24, number]).integers(count))
        return _on(self, chosen, split)


@lru_cache(4)
def hosts(folder: Path, split: Split) -> tuple[Rig, ...]:
    """The built-in head and the rigs of a folder that have all 68 landmarks.

    Rigs of the evaluation split are measured in their own colours, so that it has the first alone.
    """
    others: tuple[Rig, ...] = ()
    if split == "train":
        others = RigSource(folder=folder).rigs(split)
    return (builtin(), *(rig for rig in others if _has_landmarks(rig)))


def _has_landmarks(rig: Rig) -> bool:
    return bool((rig.landmarks[: PUPILS.start] >= 0).all())


@lru_cache(32)
def _on(source: SkinnedSource, chosen: int, split: Split) -> Skins:
    people, rig = source.skins(split), hosts(source.folder, split)[chosen]
    try:
        return people if rig.name == people.rig.name else transferred(people, rig)
    except RigShapeError:  # a rig whose landmarks bend no space
        return people
