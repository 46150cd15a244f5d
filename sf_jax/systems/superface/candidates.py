"""Answers that are judged: what models answer, and proposals that they would not make themselves.

All values are such as the slots of the model can take, so that each answer has a likelihood. A
region is judged by itself: candidates for it share every other channel with the model's own answer
(*counterfactual region swap*), so that nothing else can decide.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Float32

from sf_jax.convert.processor import FittedImage
from sf_jax.face import regions
from sf_jax.face.channels import ANGLES, BLENDSHAPES, CHANNELS, INDEX, NAMES
from sf_jax.face.regions import Region
from sf_jax.reader.action import FaceAction
from sf_jax.systems.superface.pairs import Candidate

BOTH_SIDES = 0.7  # how often a proposal moves the other side too
LEAST_CHANGE, MOST_CHANGE = 0.2, 0.6  # of a coefficient that is perturbed
LEAST_REVIVED, MOST_REVIVED = 0.3, 0.9
SILENT = 0.05  # a coefficient below is at rest
OPPOSITE = {"JawLeft": "JawRight", "MouthLeft": "MouthRight", "EyeBlink": "EyeWide"}

Values = Float32[np.ndarray, "61"]
Shown = Bool[np.ndarray, "61"]
Grid = Float[np.ndarray, "61 V"]  # the values of each channel's slot, NaN where there are no more


class Answers(Protocol):
    """What is needed of a model; `reader.estimator.Model` has it."""

    @property
    def values(self) -> Grid: ...

    def predict_batch(
        self,
        images: Sequence[FittedImage],
        *,
        rationale: bool = True,
        temperature: float | Sequence[float] = 0.0,
        seed: int | Sequence[int] = 0,
    ) -> list[FaceAction]: ...


def on_grid(coefficients: Float[np.ndarray, "61"], grid: Grid) -> Values:
    """The nearest values that the slots can take; 0 of channels that the model does not read."""
    read = np.isfinite(grid).any(1)
    far = np.abs(grid - np.nan_to_num(np.asarray(coefficients, np.float64))[:, None])
    nearest = np.nanargmin(np.where(read[:, None], far, 0.0), 1)
    found = grid[np.arange(len(grid)), nearest]
    return np.where(read, found, 0.0).astype(np.float32) + np.float32(0)


def means(model: Answers, images: Sequence[FittedImage], name: str = "") -> list[Candidate]:
    """Of each image the mean of each slot's distribution, on its grid; without a rationale.

    Args:
      images: read as they are.
      name: of another checkpoint, for the origin.
    """
    grid = model.values
    origin = f"checkpoint {name}" if name else "means"
    found = model.predict_batch(images, rationale=False)
    return [Candidate(on_grid(one.coefficients, grid), origin) for one in found]


def sampled(
    model: Answers,
    images: Sequence[FittedImage],
    temperature: float,
    seeds: Sequence[int],
) -> list[Candidate]:
    """Of each image an answer drawn by constrained sampling; without a rationale.

    Args:
      seeds: one an image.
    """
    grid, origin = model.values, f"sampled, temperature {temperature:g}"
    how = {"temperature": temperature, "seed": list(seeds)}
    found = model.predict_batch(images, rationale=False, **how)  # type: ignore[arg-type]
    return [Candidate(on_grid(one.answer, grid), origin) for one in found]


def swapped(
    base: Candidate, other: Candidate, region: Region, shown: Shown | None = None
) -> Candidate:
    """The base with the other's channels in a region; the head's angles stay the base's.

    A base that differs nowhere else keeps the other's origin.

    Args:
      shown: the channels that the rig can show; of others the base's value stays, since nobody
        could judge them. None for all.
    """
    here = _movable(region, shown)
    values = np.where(here, other.coefficients, base.coefficients)
    same = bool((values == other.coefficients).all())
    return Candidate(values, other.origin if same else f"swapped {region}: {other.origin}")


def perturbed(
    base: Candidate, region: Region, grid: Grid, g: np.random.Generator, shown: Shown | None = None
) -> Candidate | None:
    """The base with an active channel of a region made stronger or weaker; None if none is."""
    active = _movable(region, shown, grid) & (np.abs(base.coefficients) >= SILENT)
    if not active.any():
        return None
    i = int(g.choice(np.flatnonzero(active)))
    change = g.uniform(LEAST_CHANGE, MOST_CHANGE) * g.choice([-1, 1])
    if not CHANNELS[i].low <= base.coefficients[i] + change <= CHANNELS[i].high:
        change = -change
    return _changed(base, i, base.coefficients[i] + change, grid, g, "perturbed")


def revived(
    base: Candidate, region: Region, grid: Grid, g: np.random.Generator, shown: Shown | None = None
) -> Candidate | None:
    """The base with a channel of a region that was at rest made active; None if none was."""
    silent = _movable(region, shown, grid) & (np.abs(base.coefficients) < SILENT)
    silent[ANGLES] = False
    if not silent.any():
        return None
    i = int(g.choice(np.flatnonzero(silent)))
    return _changed(base, i, g.uniform(LEAST_REVIVED, MOST_REVIVED), grid, g, "revived")


def _movable(region: Region, shown: Shown | None, grid: Grid | None = None) -> Shown:
    """The channels of a region that the rig shows and the model reads, but the head's angles."""
    found = regions.channels(region)
    if shown is not None:
        found = found & shown
    if grid is not None:
        found = found & np.isfinite(grid).any(1)
    found[ANGLES.start : ANGLES.start + 3] = False
    return found


def _changed(
    base: Candidate, i: int, value: float, grid: Grid, g: np.random.Generator, how: str
) -> Candidate:
    """With channel `i` at a value, often the other side's too, and what excludes it at rest."""
    values = base.coefficients.copy()
    channel = CHANNELS[i]
    both = channel.side != "both" and i < BLENDSHAPES.stop and g.random() < BOTH_SIDES
    moved = [i, INDEX[channel.mirror]] if both else [i]
    values[moved] = value
    if value > SILENT:
        for j in moved:
            opposite = _opposite(NAMES[j])
            if opposite is not None:
                values[opposite] = 0.0
    return Candidate(on_grid(np.clip(values, -1, 1), grid), f"{how} {channel.name}")


def _opposite(name: str) -> int | None:
    """The channel that cannot be active together with one; None if there is none."""
    for one, other in OPPOSITE.items():
        for here, there in ((one, other), (other, one)):
            if name.startswith(here) and (name == here or here.startswith("Eye")):
                return INDEX[there + name.removeprefix(here)]
    return None


def pool(
    base: Candidate,
    answers: Sequence[Candidate],
    region: Region,
    grid: Grid,
    proposals: int,
    g: np.random.Generator,
    shown: Shown | None = None,
) -> list[Candidate]:
    """Different candidates for a region of one image, the base first.

    Args:
      base: the model's answer, whose other channels all candidates share.
      answers: others for the image; only their channels in the region count.
      proposals: how many perturbed, and how many revived ones, are tried.
      shown: as for `swapped`.
    """
    found = [base, *(swapped(base, one, region, shown) for one in answers)]
    for _ in range(proposals):
        for propose in (perturbed, revived):
            one = propose(base, region, grid, g, shown)
            if one is not None:
                found.append(swapped(base, one, region, shown))
    unique = {one.coefficients.tobytes(): one for one in reversed(found)}
    return [one for one in found if unique[one.coefficients.tobytes()] is one]
