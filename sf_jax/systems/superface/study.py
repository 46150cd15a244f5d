"""A panel of simulated judges: asks about the answers of a model, and compares two models.

What is asked follows `asking.py`, but for the renders: the judge is shown the sitter of the image,
drawn with each candidate in the light and from the camera of the image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from sf_jax.face.regions import PARTS, Region
from sf_jax.reader.action import FaceAction
from sf_jax.reader.estimator import Model
from sf_jax.systems.superface import candidates
from sf_jax.systems.superface.asking import Asked, Asking, Maker, answers_of
from sf_jax.systems.superface.judges import Judge
from sf_jax.systems.superface.pairs import Candidate, Judgement, Pair, Pose
from sf_jax.systems.superface.renders import Renderer, Values, rig_hash
from sf_jax.systems.superface.rounds import Preference
from sf_jax.systems.superface.seen import Image, Mask, visible_difference
from sf_jax.systems.superface.simulated import Sitter, noise_for, session

Item = TypeVar("Item")
TOGETHER = 50  # images that a model reads at once
CALIBRATED = 200  # images whose pairs the noise of a judge is found on


@dataclass(frozen=True, eq=False)
class SitterRenderer(Renderer):
    """Draws the sitter of an image, in the true pose of the head whatever pose is asked for."""

    sitter: Sitter | None = None
    of_rig: str = ""  # the rig's hash, which takes longer than a picture

    @classmethod
    def of(cls, sitter: Sitter, rig: str) -> "SitterRenderer":
        own = sitter.renderer
        return cls(own.rig, own.height, own.width, own.scene, own.aim, sitter, rig)

    @cached_property
    def hash(self) -> str:
        return self.of_rig

    def __call__(self, coefficients: Values, head: Pose) -> Image:
        assert self.sitter is not None
        return self.sitter.portrait(coefficients)

    def region(self, region: Region, head: Pose) -> Mask:
        assert self.sitter is not None
        return self.sitter.mask(region)


@dataclass(frozen=True, eq=False)
class Session:
    """What was asked and judged.

    Attributes:
      nearer: the share of judgements that chose the render that is nearer to the image.
    """

    pairs: list[Pair]
    judgements: list[Judgement]
    nearer: float


@dataclass(frozen=True, eq=False)
class Panel:
    """Images of known sitters, and a judge who compares renders with them.

    Attributes:
      sitters: by the hash of their image; all of one rig.
      judge: whose noise `calibrated` finds.
      how: pairs are made.
    """

    sitters: Mapping[str, Sitter]
    judge: Judge
    how: Asking
    # By all that decides them: panels made by `replace` ask one model about the same images again.
    _answers: dict[tuple, list[list[Candidate]]] = field(default_factory=dict, repr=False)

    @cached_property
    def rig(self) -> str:
        """The hash of the sitters' rig."""
        return rig_hash(next(iter(self.sitters.values())).renderer.rig)

    def calibrated(self, model: Model, images: Sequence[str], share: float) -> "Panel":
        """The panel with a judge who chooses the nearer render in a share of pairs of a model."""
        pairs = self.pairs(model, images[:CALIBRATED], len(self.how.regions), "calibrate")
        seen = [(self.sitters[pair.image], pair.first, pair.second, pair.region) for pair in pairs]
        return replace(self, judge=noise_for(self.judge, share, seen))

    def ask(self, model: Model, images: Sequence[str], per_image: int, count: int) -> "Session":
        """Pairs of a model's answers and what the judge chose of each.

        Args:
          images: hashes of sitters' images, each asked about at most `per_image` times.
          count: pairs at most.

        Raises:
          ValueError: `per_image` has no pair for each region.
        """
        pairs = self.pairs(model, images, per_image, "ask")[:count]
        judgements = session(pairs, self.sitters, self.judge, f"judge {self.judge.seed}")
        nearer = [self._nearer(*both) for both in zip(pairs, judgements, strict=True)]
        for image in images:
            self.sitters[image].forget()
        return Session(pairs, judgements, sum(nearer) / max(len(nearer), 1))

    def _nearer(self, pair: Pair, judgement: Judgement) -> bool:
        """Whether the render that was chosen is the nearer one."""
        gap = self.sitters[pair.image].gap(pair.first, pair.second, pair.region)
        return judgement.choice == ("first" if gap > 0 else "second")

    def pairs(self, model: Model, images: Sequence[str], per_image: int, label: str) -> list[Pair]:
        """Pairs of a model's answers to images whose renders differ visibly.

        Raises:
          ValueError: `per_image` has no pair for each region.
        """
        each = per_image // len(self.how.regions)
        if not each:
            count = len(self.how.regions)
            raise ValueError(f"{per_image} pairs an image, and {count} regions are judged")
        weights = model.provenance.weights or ""
        asked = (weights, self.how.seed, self.how.temperatures, self.how.whole)
        found = []
        for start in tqdm(range(0, len(images), TOGETHER), desc=label, leave=False, disable=None):
            part = images[start : start + TOGETHER]
            numbers = range(start, start + TOGETHER)
            key = (*asked, start, *part)
            read = self._answers.get(key)
            if read is None:
                faces = [self.sitters[image].image for image in filled(part)]
                read = answers_of(model, faces, self.how, numbers)
                if weights:
                    self._answers[key] = read
            for number, image, answers in zip(numbers, part, read, strict=False):
                sitter = self.sitters[image]
                maker = Maker(SitterRenderer.of(sitter, self.rig), model.values, weights, self.how)
                found += list(self._of_image(maker, sitter, answers, number, each))
        return found

    def _of_image(
        self,
        maker: Maker,
        sitter: Sitter,
        answers: Sequence[Candidate],
        number: int,
        each: int,
    ) -> Iterator[Pair]:
        for region in self.how.regions:
            tried = maker.pairs(sitter.image, answers, region, number)
            visible: Iterator[Asked] = filter(None, tried)
            for asked in islice(visible, each):  # drawn in the sitter's pose, not the model's
                yield replace(asked.pair, pose=sitter.head, key="")

    def compare(self, new: Model, best: Model, images: Sequence[str]) -> Preference:
        """Judgements between the answers of two models, of either region by itself.

        The new model's channels of a region are compared within the best one's answer, so that the
        region decides alone. Answers that look alike are not asked about.
        """
        means = [self.answers(model, images) for model in (best, new)]
        wins = losses = ties = 0
        for number, (image, base, other) in enumerate(zip(images, *means, strict=True)):
            sitter = self.sitters[image]
            for region in PARTS:
                changed, mask = candidates.swapped(base, other, region), sitter.mask(region)
                first, second = (sitter.portrait(one.coefficients) for one in (changed, base))
                if visible_difference(first, second, mask) < self.how.least:
                    continue
                verdict = self.judge.choose(
                    sitter.image,
                    first,
                    second,
                    mask,
                    first_at_left=(number + len(region)) % 2 == 0,
                    number=number,
                )
                wins += verdict.choice == "first"
                losses += verdict.choice == "second"
                ties += verdict.choice == "tie"
            sitter.forget()
        return Preference(wins, losses, ties)

    def answers(self, model: Model, images: Sequence[str]) -> list[Candidate]:
        """A model's own answer to each image."""
        read = answers_to(model, [self.sitters[image].image for image in images])
        grid = model.values
        return [Candidate(candidates.on_grid(one.coefficients, grid), "means") for one in read]


def answers_to(model: Model, images: Sequence[Image]) -> list[FaceAction]:
    """What a model reads of images that are read whole, without rationales."""
    found: list[FaceAction] = []
    for start in range(0, len(images), TOGETHER):
        part = images[start : start + TOGETHER]
        fitted = [model.fitted(image) for image in filled(part)]
        found += model.predict_batch(fitted, rationale=False)[: len(part)]
    return found


def filled(part: Sequence[Item]) -> list[Item]:
    """A batch of `TOGETHER`, so that one program serves all of them."""
    return [*part, *[part[-1]] * (TOGETHER - len(part))]


def shuffled(images: Sequence[str], *seed: int) -> list[str]:
    """Images in a random order, the same for a seed."""
    order = np.random.default_rng([71, *seed]).permutation(len(images))
    return [images[i] for i in order]


def drawn(*seed: int) -> int:
    """A seed that shares nothing with those of other numbers."""
    return int(np.random.default_rng([72, *seed]).integers(1 << 31))
