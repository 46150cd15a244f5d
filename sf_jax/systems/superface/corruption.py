"""True coefficients → labels with the faults that capture software was measured to have.

The recorded take of a telephone (4,030 frames, `bench flaws` measures any other) has these:

- left and right forced together: of EyeBlink, EyeSquint, EyeWide, BrowDown and BrowOuterUp both
  sides agree to 0.003 on average (r 0.997 and more), of NoseSneer, MouthPress, MouthLowerDown,
  MouthSmile and CheekSquint to 0.01;
- floors: MouthFunnel never falls below 0.08, MouthStretch below 0.10, MouthShrugUpper below 0.05;
- crosstalk: BrowOuterUp follows BrowInnerUp (r 0.98), NoseSneer CheekSquint (0.96), MouthStretch
  JawOpen (0.88), and so on, see `NEIGHBOURS`;
- magnitudes of its own, here a gain a channel; and channels that hardly move in a whole take, here
  dropped with probability 0.5 a take.

Gaze and the angles of the head and eyes stay exact: they come from another part of such software.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from sf_jax.face.channels import BLENDSHAPES, CHANNELS, INDEX, NAMES, PAIRS

FACE = np.array([not name.startswith("EyeLook") for name in NAMES[BLENDSHAPES]])  # all but gaze
TIED = tuple((i, j) for i, j in PAIRS if CHANNELS[i].side != "both" and FACE[i])
FLOORED = ("MouthFunnel", "MouthStretchLeft", "MouthStretchRight", "MouthShrugUpper")  # always
NEIGHBOURS = (
    ("BrowInnerUp", "BrowOuterUp"),
    ("CheekSquint", "NoseSneer"),
    ("JawOpen", "MouthStretch"),
    ("JawOpen", "MouthLowerDown"),
    ("MouthSmile", "MouthUpperUp"),
    ("MouthUpperUp", "MouthShrugUpper"),
    ("MouthPress", "MouthShrugLower"),
    ("MouthPress", "MouthDimple"),
    ("BrowDown", "NoseSneer"),
    ("BrowDown", "EyeSquint"),
    ("CheekSquint", "EyeSquint"),
    ("MouthClose", "MouthRollUpper"),
    ("MouthPucker", "CheekPuff"),
    ("JawLeft", "MouthLeft"),
    ("JawRight", "MouthRight"),
)  # stems without a side mean both sides; each moves the other


@dataclass(frozen=True)
class Corruption:
    """How faulty labels are.

    Attributes:
      tied: whether left and right become their mean.
      floors: range of the least label of a channel that has one.
      floored: share of channels that have one, besides those of `FLOORED`.
      gains: range of the factor of a channel, the same for both sides.
      crosstalk: what a channel takes of its neighbour at most.
      dropped: probability that a channel, with its other side, is at rest in a whole take.
    """

    tied: bool = True
    floors: tuple[float, float] = (0.05, 0.12)
    floored: float = 0.15
    gains: tuple[float, float] = (0.6, 1.2)
    crosstalk: float = 0.3
    dropped: float = 0.5


@dataclass(frozen=True, eq=False)
class Corrupted:
    """Faulty labels.

    Attributes:
      labels: in canonical order, in the channels' ranges.
      dropped: which channels were dropped in the take of each row; part of the truth.
    """

    labels: Float32[np.ndarray, "N 61"]
    dropped: Bool[np.ndarray, "N 61"]


def corrupt(
    coefficients: Float[np.ndarray, "N 61"],
    takes: Int[np.ndarray, " N"] | Sequence[int],
    seed: int,
    how: Corruption | None = None,
) -> Corrupted:
    """Faulty labels of true coefficients, the same for a seed.

    Gains, floors and crosstalk are the software's, and so depend on the seed alone; what is dropped
    depends on the take too. So any part of a set gets the labels it has in the whole.

    Args:
      takes: the number of the take that each row is of.
    """
    how = how or Corruption()
    out = np.array(coefficients, np.float64)
    face = out[:, BLENDSHAPES]
    if how.tied:
        for i, j in TIED:
            face[:, i] = face[:, j] = (face[:, i] + face[:, j]) / 2
    face[:] = (face + face @ _crosstalk(seed, how.crosstalk)) * _gains(seed, how.gains)
    dropped = np.zeros(out.shape, bool)
    for take in np.unique(np.asarray(takes)):
        dropped[np.asarray(takes) == take] = _dropped(seed, int(take), how.dropped)
    out[dropped] = 0.0
    face[:] = np.clip(np.maximum(face, _floors(seed, how)), 0.0, 1.0)
    return Corrupted(out.astype(np.float32), dropped)


def _members(stem: str) -> list[int]:
    """The channels of a stem: itself, or both sides."""
    names = [stem] if stem in INDEX else [f"{stem}Left", f"{stem}Right"]
    return [INDEX[name] for name in names]


def _same_for_sides(values: np.ndarray) -> np.ndarray:
    """Values [52] with the left side's on the right."""
    out = values.copy()
    for i, j in TIED:
        out[j] = out[i]
    return out


def _gains(seed: int, between: tuple[float, float]) -> np.ndarray:
    drawn = np.random.default_rng([21, seed]).uniform(*between, len(FACE))
    return np.where(FACE, _same_for_sides(drawn), 1.0)


def _crosstalk(seed: int, most: float) -> np.ndarray:
    """[52, 52], what each channel (row) adds to each other (column)."""
    g = np.random.default_rng([22, seed])
    out = np.zeros((len(FACE), len(FACE)))
    for one, other in NEIGHBOURS:
        for giver, taker in ((one, other), (other, one)):
            share = g.uniform(0, most)
            for i in _members(giver):
                for j in _reached(i, _members(taker)):
                    out[i, j] = share / (len(_members(giver)) if len(_members(taker)) == 1 else 1)
    return out


def _reached(giver: int, takers: list[int]) -> list[int]:
    """Those of the giver's side, or all where either has none."""
    side = CHANNELS[giver].side
    same = [j for j in takers if CHANNELS[j].side == side]
    return same if side != "both" and same else takers


def _floors(seed: int, how: Corruption) -> np.ndarray:
    g = np.random.default_rng([23, seed])
    least = g.uniform(*how.floors, len(FACE))
    has = g.random(len(FACE)) < how.floored
    has[[INDEX[name] for name in FLOORED]] = True
    return np.where(FACE & _same_for_sides(has), _same_for_sides(least), 0.0)


def _dropped(seed: int, take: int, share: float) -> np.ndarray:
    """[61], which channels a take lacks."""
    drawn = np.random.default_rng([24, seed, take]).random(len(FACE)) < share
    out = np.zeros(len(NAMES), bool)
    out[BLENDSHAPES] = FACE & _same_for_sides(drawn)
    return out
