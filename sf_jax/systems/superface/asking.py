"""What is asked: of images, a folder of pairs for `sf-jax annotate`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice

import numpy as np

from sf_jax.face.regions import PARTS, REGIONS, Region
from sf_jax.media.crop import cut_square
from sf_jax.reader.estimator import Model
from sf_jax.systems.superface import candidates
from sf_jax.systems.superface.folder import Filling
from sf_jax.systems.superface.pairs import Candidate, Pair, Pose, Side, image_hash, render_name
from sf_jax.systems.superface.renders import Renderer, head_of, outlined
from sf_jax.systems.superface.seen import Image, Mask, visible_difference

VISIBLE = 1.0  # docs/preferences.md has how it was measured
FACE_SIDE = (96, 384)  # pixels of a face that is cut out of a larger image, at least and at most
GOLD_FACTOR = 3.0  # a pair whose better one is known differs so much more than is visible
TOGETHER = 8  # images that a model reads at once


@dataclass(frozen=True)
class Asking:
    """How pairs are made.

    Attributes:
      regions: that are judged, each by itself.
      temperatures: one answer is sampled at each.
      proposals: how many perturbed, and how many revived candidates an image and region has.
      least: visible difference below which a pair is not asked.
      gold: share of pairs whose better one is known, as the other is of another image.
      whole: whether images are read whole; None as the model was trained, see `Model.predict`.
      seed: of all that is drawn.
    """

    regions: tuple[Region, ...] = PARTS
    temperatures: tuple[float, ...] = (0.5, 0.8, 1.2)
    proposals: int = 2
    least: float = VISIBLE
    gold: float = 0.04
    whole: bool | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Asked:
    """A pair with what is shown of it."""

    pair: Pair
    image: Image
    first: Image
    second: Image


@dataclass
class Summary:
    """What became of images.

    Attributes:
      images: with pairs; faceless: in which no face was found.
      pairs: that were added; gold: those of them whose better one is known.
      alike: pairs that were left out, since their renders differ too little.
    """

    images: int = 0
    faceless: int = 0
    pairs: int = 0
    gold: int = 0
    alike: int = 0

    def lines(self) -> list[str]:
        """As sentences."""
        found = [
            f"pairs: {self.pairs:,}, of images: {self.images:,}; gold: {self.gold:,}",
            f"not asked, since their renders look the same: {self.alike:,}",
        ]
        if self.faceless:
            found.append(f"images without a face, left out: {self.faceless:,}")
        return found


def face_of(model: Model, image: Image, whole: bool | None = None) -> Image | None:
    """What a model reads of an image, in pixels enough for people: the square of the largest face,
    or the whole image. None where no face is found.

    Args:
      whole: as for `Model.predict`.

    Raises:
      ValueError: a face is to be found, and the model has nothing to find it with.
    """
    if not model.frames(whole):
        return image
    face = model.framer.face(image)
    if face is None:
        return None
    box = face.box
    side = int(np.clip(round(box.side), *FACE_SIDE))
    return cut_square(image, box.x, box.y, box.side, box.roll, side)


def answers_of(
    model: Model,
    faces: Sequence[Image],
    how: Asking,
    numbers: Sequence[int],
    other: tuple[str, Model] | None = None,
) -> list[list[Candidate]]:
    """Of each image its means, which come first, then its sampled answers, then those of another
    checkpoint, given with its name.

    Args:
      numbers: of the images, which with the seed decide what is drawn.
    """
    fitted = [model.fitted(face) for face in faces]
    found = [candidates.means(model, fitted)]
    for i, temperature in enumerate(how.temperatures):
        drawn = (np.random.default_rng([41, how.seed, n, i]) for n in numbers)
        seeds = [int(g.integers(1 << 31)) for g in drawn]
        found.append(candidates.sampled(model, fitted, temperature, seeds))
    if other is not None:
        name, asked = other
        read = candidates.means(asked, [asked.fitted(face) for face in faces], name)
        own = [candidates.on_grid(one.coefficients, model.values) for one in read]
        found.append([replace(one, coefficients=c) for one, c in zip(read, own, strict=True)])
    return [list(each) for each in zip(*found, strict=True)]


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes pairs of the answers for one image after the other.

    Attributes:
      renderer: draws both candidates.
      grid: the values that the slots of the model can take, `Model.values`.
      weights: hash of the model.
    """

    renderer: Renderer
    grid: candidates.Grid
    weights: str
    how: Asking

    def pairs(
        self, image: Image, answers: Sequence[Candidate], region: Region, number: int
    ) -> Iterator[Asked | None]:
        """Pairs for a region of an image, in random order; None for each that is not visible.

        Args:
          answers: the model's means first; see `answers_of`.
          number: of the image.
        """
        g = np.random.default_rng([42, self.how.seed, number, REGIONS.index(region)])
        base = answers[0]
        shown = self.renderer.rig.known
        how = (self.grid, self.how.proposals, g, shown)
        found = candidates.pool(base, answers[1:], region, *how)
        head = head_of(base.coefficients)
        mask = self.renderer.region(region, head)
        drawn: dict[int, Image] = {}
        for i, j in g.permutation(list(combinations(range(len(found)), 2))).tolist():
            for k in (i, j):
                if k not in drawn:
                    drawn[k] = self.renderer(found[k].coefficients, head)
            if g.random() < 0.5:
                i, j = j, i
            two = (found[i], found[j]), (drawn[i], drawn[j])
            yield self._asked(image, region, *two, mask, head, self.how.least)

    def gold(
        self,
        image: Image,
        answers: Sequence[Candidate],
        other: Candidate,
        region: Region,
        number: int,
    ) -> Asked | None:
        """A pair whose better one is known: the model's answer beside that for another image.

        None where these do not differ by far.
        """
        base, head = answers[0], head_of(answers[0].coefficients)
        found = [base, candidates.swapped(base, other, region, self.renderer.rig.known)]
        found[1] = replace(found[1], origin="of another image")
        g = np.random.default_rng([43, self.how.seed, number, REGIONS.index(region)])
        first = int(g.integers(2))
        sides: tuple[Side, Side] = ("first", "second")
        drawn = [self.renderer(one.coefficients, head) for one in found]
        two = (found[first], found[1 - first]), (drawn[first], drawn[1 - first])
        mask = self.renderer.region(region, head)
        least = GOLD_FACTOR * self.how.least
        return self._asked(image, region, *two, mask, head, least, sides[first])

    def _asked(
        self,
        image: Image,
        region: Region,
        both: tuple[Candidate, Candidate],
        drawn: tuple[Image, Image],
        mask: Mask,
        head: Pose,
        least: float,
        gold: Side | None = None,
    ) -> Asked | None:
        difference = visible_difference(*drawn, mask)
        if difference < least:
            return None
        rig, size = self.renderer.hash, self.renderer.height
        named = [
            replace(one, render=render_name(one.coefficients, rig, head, size, region))
            for one in both
        ]
        pair = Pair(
            image=image_hash(image),
            region=region,
            first=named[0],
            second=named[1],
            difference=round(difference, 3),
            rig=rig,
            weights=self.weights,
            pose=head,
            gold=gold,
        )
        edged = [outlined(one, mask) if region != "whole" else one for one in drawn]
        return Asked(pair, image, *edged)


def fill(
    adding: Filling,
    images: Iterable[Image],
    model: Model,
    renderer: Renderer,
    how: Asking,
    count: int,
    per_image: int,
    other: tuple[str, Model] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Summary:
    """Adds pairs to a folder until there are enough, or no more images.

    Args:
      count: pairs to add; per_image: of one image at most. Those that the folder has do not count.
      other: name and model of another checkpoint, whose answers become candidates too.
      progress: is called after each image.

    Raises:
      OSError: a file cannot be written.
    """
    summary = Summary()
    maker = Maker(renderer, model.values, model.provenance.weights or "", how)
    before: Candidate | None = None
    for number, image, answers in _read(images, model, how, other, summary):
        left = min(per_image, count - summary.pairs)
        new = 0
        for one in _some(maker, image, answers, number, summary, before):
            if adding.add(one.pair, one.image, one.first, one.second):
                new += 1
                summary.gold += one.pair.gold is not None
            if new == left:
                break
        before = answers[0]
        summary.pairs += new
        summary.images += bool(new)
        progress()
        if summary.pairs >= count:
            break
    return summary


def _read(
    images: Iterable[Image],
    model: Model,
    how: Asking,
    other: tuple[str, Model] | None,
    summary: Summary,
) -> Iterator[tuple[int, Image, list[Candidate]]]:
    """Number, face and answers of each image with a face."""
    numbered = enumerate(images)
    while batch := list(islice(numbered, TOGETHER)):
        faces = [(number, face_of(model, image, how.whole)) for number, image in batch]
        found = [(number, face) for number, face in faces if face is not None]
        summary.faceless += len(faces) - len(found)
        if not found:
            continue
        numbers = [number for number, _ in found]
        read = answers_of(model, [face for _, face in found], how, numbers, other)
        for (number, face), answers in zip(found, read, strict=True):
            yield number, face, answers


def _some(
    maker: Maker,
    image: Image,
    answers: Sequence[Candidate],
    number: int,
    summary: Summary,
    before: Candidate | None,
) -> Iterator[Asked]:
    """The pairs of an image, its regions in turn; each region has one gold pair at most."""
    g = np.random.default_rng([44, maker.how.seed, number])
    regions = [maker.how.regions[i] for i in g.permutation(len(maker.how.regions))]
    waiting = {region: maker.pairs(image, answers, region, number) for region in regions}
    without_gold = set(regions)
    while waiting:
        for region in list(waiting):
            if before is not None and g.random() < maker.how.gold and region in without_gold:
                without_gold.remove(region)
                sure = maker.gold(image, answers, before, region, number)
                if sure is not None:
                    yield sure
                    continue
            one = _next(waiting[region], summary)
            if one is None:
                del waiting[region]
                continue
            yield one


def _next(found: Iterator[Asked | None], summary: Summary) -> Asked | None:
    """The next pair that is visible."""
    for one in found:
        if one is not None:
            return one
        summary.alike += 1
    return None
