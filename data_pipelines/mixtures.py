"""The sources that there are, by name, and mixtures of them over a user's files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.drawings import DrawnSource
from data_pipelines.portraits import PortraitSource
from data_pipelines.rigged import BuiltinSource, RigSource, SkinSource
from data_pipelines.skinned import SkinnedSource
from data_pipelines.sources import WIDE, Framing, Mixture, Source, SourceError


@dataclass(frozen=True)
class Inputs:
    """A user's files; None: not given.

    Attributes:
      rigs: folder of rigs.
      skins: the file that `sf-jax data skins` writes.
      backgrounds: folder of photographs without faces.
      portraits: folder with `portraits.jsonl`.
      hard: whether measured faces are as hard to read as those that are trained on.
    """

    rigs: Path | None = None
    skins: Path | None = None
    backgrounds: Path | None = None
    portraits: Path | None = None
    hard: bool = False


@dataclass(frozen=True)
class _Kind:
    """How a source is made, and the inputs that it needs.

    Attributes:
      weight: in the mixture of all faces that are read; scene_weight: of all heads in scenes.
    """

    make: Callable[[Inputs], Source]
    weight: float
    scene_weight: float = 0
    needs: tuple[str, ...] = ()


def _rigs(inputs: Inputs) -> Source:
    assert inputs.rigs is not None
    return RigSource(inputs.backgrounds, inputs.hard, folder=inputs.rigs)


def _skins(inputs: Inputs) -> Source:
    assert inputs.rigs is not None and inputs.skins is not None
    return SkinSource(inputs.backgrounds, inputs.hard, folder=inputs.rigs, file=inputs.skins)


def _skinned(inputs: Inputs) -> Source:
    assert inputs.rigs is not None and inputs.skins is not None
    return SkinnedSource(inputs.backgrounds, folder=inputs.rigs, file=inputs.skins)


def _portraits(inputs: Inputs) -> Source:
    assert inputs.portraits is not None
    return PortraitSource(inputs.portraits)


KINDS: dict[str, _Kind] = {
    "builtin": _Kind(lambda inputs: BuiltinSource(inputs.backgrounds, inputs.hard), 3, 2),
    "rigs": _Kind(_rigs, 2, 2, ("rigs",)),
    "skins": _Kind(_skins, 3, 3, ("rigs", "skins")),
    "skinned": _Kind(_skinned, 2, 2, ("rigs", "skins")),
    "drawn": _Kind(lambda inputs: DrawnSource(inputs.backgrounds), 3, 3),
    "portraits": _Kind(_portraits, 0, 3, ("portraits",)),
}


def missing(kind: _Kind, inputs: Inputs) -> list[str]:
    """The inputs that a source needs and are not given."""
    return [name for name in kind.needs if getattr(inputs, name) is None]


def default_weights(inputs: Inputs, scenes: bool = False) -> dict[str, float]:
    """The weights of all sources of faces that the inputs allow, for faces or for scenes."""
    weights = {
        name: kind.scene_weight if scenes else kind.weight
        for name, kind in KINDS.items()
        if not missing(kind, inputs)
    }
    return {name: weight for name, weight in weights.items() if weight}


def build(
    weights: Mapping[str, float], inputs: Inputs, *, seed: int = 0, framing: Framing = WIDE
) -> Mixture:
    """A mixture of sources over a user's files.

    Args:
      weights: by the name of the source.

    Raises:
      SourceError: a source is unknown, or needs files that are not given; names it.
    """
    sources = []
    for name in weights:
        if name not in KINDS:
            raise SourceError(f"no source {name!r}; there are {', '.join(KINDS)}")
        lacking = missing(KINDS[name], inputs)
        if lacking:
            options = " and ".join(f"--{field}" for field in lacking)
            raise SourceError(f"source {name!r} needs {options}")
        sources.append(KINDS[name].make(inputs))
    return Mixture(tuple(sources), dict(weights), seed, framing)
