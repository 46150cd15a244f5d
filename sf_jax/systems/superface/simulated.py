"""Simulated judgements of rendered images, whose faces are known to who renders and to nobody else.

A sitter is an image with all that was in front of the camera but the expression: the head, its
light and the camera itself, of which the point that it is aimed at is kept, and not the face there.
So nothing that asks or trains finds the true expression in a sitter. Candidates are drawn on that
same head, in the head's true pose, and a judge (`judges`) is shown the pictures.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data_pipelines.synthetic import Sitting
from sf_jax.face.regions import REGIONS, Region
from sf_jax.render.draw import draw
from sf_jax.systems.superface.judges import Judge
from sf_jax.systems.superface.pairs import Candidate, Judgement, Pair, Pose, Side
from sf_jax.systems.superface.renders import Renderer, Values, head_of
from sf_jax.systems.superface.seen import Image, Mask, distance

PORTRAITS = 32  # of a sitter that are kept
BEGIN = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)  # of a simulated session


@dataclass(eq=False)
class Sitter:
    """An image that candidates are compared with.

    Attributes:
      image: as it was taken.
      renderer: draws the sitter with other coefficients, without the camera's noise.
      head: the true angles of the head, radians.
    """

    image: Image
    renderer: Renderer
    head: Pose
    _masks: dict[Region, Mask] = field(default_factory=dict, repr=False)
    _portraits: dict[bytes, Image] = field(default_factory=dict, repr=False)

    def portrait(self, coefficients: Values) -> Image:
        """The sitter with these coefficients; kept, since a candidate is in several pairs."""
        key = np.asarray(coefficients, np.float32).tobytes()
        if key not in self._portraits:
            while len(self._portraits) >= PORTRAITS:
                del self._portraits[next(iter(self._portraits))]
            self._portraits[key] = self.renderer(coefficients, self.head)
        return self._portraits[key]

    def forget(self) -> None:
        """Drops the pictures that are kept: those of thousands of sitters fill gigabytes."""
        self._portraits.clear()

    def mask(self, region: Region) -> Mask:
        """The pixels of a region."""
        if not self._masks:
            self._masks = self.renderer.regions(REGIONS, self.head)
        return self._masks[region]

    def distance(self, coefficients: Values, region: Region) -> float:
        """How far the sitter with these coefficients is from the image; see `seen.distance`.

        Its negative is a reward of an answer that needs no judgement.
        """
        return distance(self.image, self.portrait(coefficients), self.mask(region))

    def gap(self, first: Candidate, second: Candidate, region: Region) -> float:
        """How much farther the second candidate is from the image; in units of
        `seen.distance`."""
        return self.gap_of(first.coefficients, second.coefficients, region)

    def gap_of(self, first: Values, second: Values, region: Region) -> float:
        """The same of coefficients."""
        return self.distance(second, region) - self.distance(first, region)

    def judgement(self, pair: Pair, judge: Judge, annotator: str, number: int = 0) -> Judgement:
        """What a judge chooses of a pair; which is shown at the left is random.

        Args:
          number: of the judgement in the session of this annotator.
        """
        g = np.random.default_rng([51, judge.seed, number, int(pair.key[:12], 16)])
        left: Side = "first" if g.random() < 0.5 else "second"
        verdict = judge.choose(
            self.image,
            self.portrait(pair.first.coefficients),
            self.portrait(pair.second.coefficients),
            self.mask(pair.region),
            first_at_left=left == "first",
            number=number,
        )
        at = (BEGIN + datetime.timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Judgement(
            pair=pair.key,
            annotator=annotator,
            choice=verdict.choice,
            seconds=1.0,
            left=left,
            repeat=False,
            gold=pair.gold is not None,
            at=at,
        )


def sitter_of(shown: Sitting) -> Sitter:
    """The sitter of an image of the built-in head."""
    picture = draw(shown.rig, shown.coefficients, shown.scene, shown.height, shown.width).image
    clean = replace(shown.scene.effects, noise=0.0, jpeg=None, posterise=0)
    scene = replace(shown.scene, effects=clean)
    renderer = Renderer(shown.rig, shown.height, shown.width, scene)
    aimed = replace(renderer, aim=renderer.aim_at(shown.coefficients))
    return Sitter(picture, aimed, head_of(shown.coefficients))


def noise_for(
    judge: Judge, share: float, seen: Sequence[tuple[Sitter, Candidate, Candidate, Region]]
) -> Judge:
    """A judge that chooses the nearer render in a stated share of such pairs; see
    `Judge.with_agreement`."""
    return judge.with_agreement(
        [s.gap(one, other, region) for s, one, other, region in seen], share
    )


def session(
    pairs: Iterable[Pair], sitters: Mapping[str, Sitter], judge: Judge, annotator: str
) -> list[Judgement]:
    """What a judge chooses of pairs, one after the other, as in a session of a person.

    Args:
      sitters: by the hash of their image, as the pairs name it.

    Raises:
      KeyError: a pair is of another image.
    """
    return [
        sitters[pair.image].judgement(pair, judge, annotator, number)
        for number, pair in enumerate(pairs)
    ]
