"""What is judged, and a judgement: two answers for one image, rendered, and which is nearer to it.

Images, rigs, weights and pairs are named by hashes (XXH3 of 128 bits, 32 hexadecimal digits), so
that a judgement stays true of what was seen, wherever it is copied to.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xxhash
from jaxtyping import Float32, UInt8

from sf_jax.face.channels import HIGH, LOW, NAMES
from sf_jax.face.regions import Region
from sf_jax.media import hashes

Side = Literal["first", "second"]
SIDES: tuple[Side, Side] = ("first", "second")
Choice = Literal["first", "second", "tie", "unclear"]
Pose = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One answer that is judged.

    Attributes:
      coefficients: in canonical order, values that the slots of the model can take.
      origin: where it is from, such as "sampled, temperature 0.7", "means", "checkpoint NAME",
        "perturbed JawOpen", "revived MouthPressLeft" or "swapped lower: checkpoint NAME".
      render: the name of its rendered image, without suffix.

    Raises:
      ValueError: a coefficient is not finite or outside its channel's range; names the channel.
    """

    coefficients: Float32[np.ndarray, "61"]
    origin: str
    render: str = ""

    def __post_init__(self) -> None:
        found = np.array(self.coefficients, np.float32) + np.float32(0)  # no negative zeros
        if found.shape != (len(NAMES),):
            raise ValueError(f"coefficients are {list(found.shape)}, expected [{len(NAMES)}]")
        outside = ~((found >= LOW) & (found <= HIGH))
        if outside.any():
            i = int(np.flatnonzero(outside)[0])
            bounds = f"{LOW[i]:g} to {HIGH[i]:g}"
            raise ValueError(f"coefficient {NAMES[i]} is {found[i]:g}, expected {bounds}")
        found.flags.writeable = False
        object.__setattr__(self, "coefficients", found)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two answers for one image, of which a region is judged.

    Attributes:
      key: see `key_of`; made where it is not given.
      image: hash of the image's pixels, `image_hash`.
      region: that is judged, and outlined in both renders.
      first, second: in no particular order.
      difference: how far the two renders differ in the region, see `renders.visible_difference`.
      rig, weights: hashes of the rig of both renders, and of the model that answered.
      pose: HeadYaw, HeadPitch and HeadRoll of both renders, radians.
      gold: the better one, where that is known; such pairs measure annotators and train nothing.
    """

    image: str
    region: Region
    first: Candidate
    second: Candidate
    difference: float
    rig: str
    weights: str
    pose: Pose = (0.0, 0.0, 0.0)
    gold: Side | None = None
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", key_of(self))

    def side(self, which: Side) -> Candidate:
        """The first or the second candidate."""
        return self.first if which == "first" else self.second


@dataclass(frozen=True)
class Judgement:
    """Which of a pair somebody judged to be nearer to the image in the region.

    Attributes:
      pair: key of the pair.
      annotator: who judged; a person, or a simulated judge.
      choice: "tie" where both are equally near, "unclear" where that cannot be seen.
      seconds: from the pair being shown to the choice.
      left: which of the two was shown at the left of the screen.
      repeat: whether the annotator had judged the pair before, without being asked to remember.
      gold: whether the better one of the pair is known.
      at: date and time of the choice, ISO 8601 in UTC, such as "2026-11-30T10:50:34Z".
    """

    pair: str
    annotator: str
    choice: Choice
    seconds: float
    left: Side
    repeat: bool
    gold: bool
    at: str


def image_hash(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """The hash of an image's size and pixels, however they are stored."""
    return hashes.of_arrays(np.asarray(image, np.uint8))


def key_of(pair: Pair) -> str:
    """The hash of all that identifies a pair: image, region, both answers, rig, weights and pose.

    Origins and the measured difference are not part of it, so that a pair found twice is one.
    """
    parts = [pair.image, pair.region, pair.rig, pair.weights, shortest(pair.pose)]
    parts += [shortest(each.coefficients) for each in (pair.first, pair.second)]
    return xxhash.xxh3_128_hexdigest(json.dumps(parts).encode())


def render_name(
    coefficients: Float32[np.ndarray, "61"], rig: str, pose: Pose, size: int, region: Region
) -> str:
    """The name of a rendered image: the hash of all that it shows.

    Args:
      rig: its hash; pose: of the head, radians; size: of a side in pixels.
      region: that is outlined.
    """
    parts = [shortest(coefficients), rig, shortest(pose), size, region]
    return xxhash.xxh3_128_hexdigest(json.dumps(parts).encode())


def shortest(values: Sequence[float] | Float32[np.ndarray, " N"]) -> list[float]:
    """Numbers of single precision with the fewest digits that give the same float32 again."""
    return [float(str(value)) for value in np.asarray(values, np.float32) + np.float32(0)]
