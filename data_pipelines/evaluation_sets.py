"""The sets that a model is measured on: labelled records of what is held out of training.

Each set is a folder of record files. Faces are framed widely, at 256 pixels or more, so that
finding and framing them is part of what is measured.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_pipelines import mixtures, records, rendering
from data_pipelines.faceless import background, background_files
from data_pipelines.held_out import Split
from data_pipelines.mixtures import Inputs
from data_pipelines.portraits import Portrait, PortraitSource, unknown
from data_pipelines.rendering import Maker
from data_pipelines.rigged import BuiltinSource
from data_pipelines.scenes import SceneRecord, Scenes, encode
from data_pipelines.shifted import (
    BlurredSource,
    LowResolutionSource,
    OccludedSource,
    TurnedSource,
)
from data_pipelines.sources import Framing, Mixture, SourceError, identity_of, noted, number_of
from sf_jax.media.images import read_image

SPLIT: Split = "evaluation"
OPEN = Framing(side=256, share=(0.36, 0.6), shift=0.1)
# The ideal square is 1.25 faces wide: of 2.5 of it, moved and turned, most is in the picture.
ROOMY = Framing(side=512, share=(0.22, 0.27), shift=0.02)
SEED = 19  # of all sets: record n of each has the same expression and background
SHARD = 125  # records a file, so that several processes share a set
FACELESS_SIZES = ((480, 640), (640, 480), (512, 512))


@dataclass(frozen=True)
class EvaluationSet:
    """One set.

    Attributes:
      about: what it is, in a line.
      count: records where no other number is asked for.
      make: of the inputs what makes its records; raises SourceError where inputs lack.
    """

    about: str
    count: int
    make: Callable[[Inputs], Maker]


def _faces(weights: dict[str, float], framing: Framing = OPEN) -> Callable[[Inputs], Maker]:
    return lambda inputs: mixtures.build(weights, inputs, seed=SEED, framing=framing)


def _shifted(source: type[BuiltinSource]) -> Callable[[Inputs], Maker]:
    """The people of "own", changed as the source does."""

    def make(inputs: Inputs) -> Maker:
        one = source(inputs.backgrounds)
        return Mixture((one,), {one.name: 1}, SEED, OPEN)

    return make


def _all_heads(inputs: Inputs) -> Maker:
    """All sources of labelled faces that the inputs allow, framed with room about them."""
    weights = mixtures.default_weights(inputs)
    return mixtures.build(weights, inputs, seed=SEED, framing=ROOMY)


def _hard(inputs: Inputs) -> Maker:
    """All sources of labelled faces, partly hidden and in any light."""
    inputs = replace(inputs, hard=True)
    weights = mixtures.default_weights(inputs)
    return mixtures.build(weights, inputs, seed=SEED, framing=OPEN)


def _scenes(inputs: Inputs) -> Maker:
    weights = mixtures.default_weights(inputs, scenes=True)
    mixture = mixtures.build(weights, inputs, seed=SEED)
    return Scenes(mixture, inputs.backgrounds, size=(480, 640), empty=False)


@dataclass(frozen=True)
class WholePortraits:
    """The portraits for tests, whole: the record of each is found by its index."""

    folder: Path
    seed: int = SEED

    def check(self, split: Split) -> None:
        """Raises SourceError where the list is damaged or holds no portrait for tests."""
        self.portraits()

    def count(self) -> int:
        """How many there are."""
        return len(self.portraits())

    def portraits(self) -> list[Portrait]:
        """Those for tests; see `check` about errors."""
        return PortraitSource(self.folder).portraits(SPLIT)

    def packed(self, index: int, split: Split) -> bytes:
        """A portrait, stored without loss."""
        portrait = self.portraits()[index]
        return records.encode(
            unknown(read_image(portrait.path), number_of(index, self.seed, split))
            | {
                "landmarks": portrait.landmarks,
                "source": "portraits",
                "style": portrait.name,
                "identity": identity_of("portraits", portrait.name),
            }
        )

    def settings(self) -> dict[str, Any]:
        return {"portraits": noted(self.folder)}


def _portraits(inputs: Inputs) -> Maker:
    if inputs.portraits is None:
        raise SourceError("needs --portraits")
    return WholePortraits(inputs.portraits)


@dataclass(frozen=True)
class Faceless:
    """Scenes without a face: every photograph held out of training whole, then drawn clutter."""

    folder: Path | None
    seed: int = SEED

    def check(self, split: Split) -> None:
        """Raises SourceError where the folder has no image of the split."""
        self._photographs(split)

    def _photographs(self, split: Split) -> list[Path]:
        return [] if self.folder is None else background_files(self.folder, split)

    def packed(self, index: int, split: Split) -> bytes:
        """A scene without faces, stored without loss."""
        number = number_of(index, self.seed, split)
        photographs = self._photographs(split)
        if index < len(photographs):
            image = read_image(photographs[index])
        else:
            height, width = FACELESS_SIZES[index % len(FACELESS_SIZES)]
            image = background(number, split, height, width)
        return encode(SceneRecord(image, (), number), exact=True)

    def settings(self) -> dict[str, Any]:
        return {"backgrounds": noted(self.folder)}


SETS: dict[str, EvaluationSet] = {
    "own": EvaluationSet("people of the built-in head", 1000, _faces({"builtin": 1})),
    "skins": EvaluationSet("held-out photo skins", 1000, _faces({"skins": 1})),
    "rigs": EvaluationSet("held-out rigs", 1000, _faces({"rigs": 1})),
    "drawings": EvaluationSet("held-out families of drawings", 1000, _faces({"drawn": 1})),
    "occlusion": EvaluationSet(
        "people of the built-in head, part of the face hidden", 1000, _shifted(OccludedSource)
    ),
    "blur": EvaluationSet("the same out of focus", 1000, _shifted(BlurredSource)),
    "low_resolution": EvaluationSet(
        "the same at 10 to 30 pixels a face", 1000, _shifted(LowResolutionSource)
    ),
    "pose": EvaluationSet(
        "the same, heads turned farther than in training", 1000, _shifted(TurnedSource)
    ),
    "hard": EvaluationSet("faces of all kinds, partly hidden, in any light", 1000, _hard),
    "framing": EvaluationSet("faces of all kinds with room about them", 300, _all_heads),
    "scenes": EvaluationSet("scenes of one to four faces (scene records)", 1000, _scenes),
    "faceless": EvaluationSet(
        "images without a face (scene records)", 200, lambda inputs: Faceless(inputs.backgrounds)
    ),
    "portraits": EvaluationSet(
        "portraits for tests, whole, with landmarks; no coefficient is known", 1000, _portraits
    ),
}


def write(
    out: Path, inputs: Inputs, names: list[str], count: int | None = None, workers: int = 2
) -> Iterator[str]:
    """Writes sets, each into a folder of its name; whole files are kept, so it resumes.

    Args:
      names: of `SETS`.
      count: records of each set in place of its own number.

    Yields:
      a line on each set, written or left out for lack of inputs.

    Raises:
      SourceError: there is no such set, or an input is damaged.
      DataError: a folder holds records of other settings.
    """
    for name in names:
        if name not in SETS:
            raise SourceError(f"no set {name!r}; there are {', '.join(SETS)}")
    for name in names:
        each = SETS[name]
        try:
            maker = each.make(inputs)
        except SourceError as error:
            yield f"{name}: left out: {error}"
            continue
        maker.check(SPLIT)
        wanted = count or each.count
        if isinstance(maker, WholePortraits):
            wanted = min(wanted, maker.count())
        rendering.render(out / name, wanted, maker, split=SPLIT, workers=workers, shard=SHARD)
        yield f"{name}: {wanted:,} records in {out / name}: {each.about}"
