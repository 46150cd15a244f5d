"""How well a finder finds: matches with the true squares, ROC, calibrated scores, a threshold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8

from sf_jax.face.landmarks import Square, overlap
from sf_jax.reader.finder import Finder, Found

MATCHED = 0.5  # intersection over union
LEAST = 0.01  # score of what is counted at all


@dataclass(frozen=True)
class Matches:
    """What a finder found in a number of images.

    Attributes:
      scores: of everything found, however low. right: which of them are faces not yet found.
      images: how many there were; faces: in all of them.
      sides: of each face in pixels; best: the score of what found it, 0 where nothing did.
    """

    scores: Float[np.ndarray, " N"]
    right: Bool[np.ndarray, " N"]
    images: int
    faces: int
    sides: Float[np.ndarray, " F"]
    best: Float[np.ndarray, " F"]

    def recall(self, threshold: float) -> float:
        """Share of the faces that are found; NaN where there is none."""
        return float((self.best >= threshold).mean()) if self.faces else float("nan")

    def false_rate(self, threshold: float) -> float:
        """False faces an image; a face that is found twice counts as one of them."""
        return float(((self.scores >= threshold) & ~self.right).sum() / max(1, self.images))


def match(found: Sequence[Found], faces: Sequence[Square]) -> tuple[list[bool], list[float]]:
    """Which of `found`, in order of score, are faces; the score of each face, 0 where missed."""
    best = [0.0] * len(faces)
    right = []
    for each in found:
        shared = [0.0 if best[i] else overlap(each.box, face) for i, face in enumerate(faces)]
        nearest = int(np.argmax(shared)) if shared else -1
        right.append(bool(shared) and shared[nearest] >= MATCHED)
        if right[-1]:
            best[nearest] = each.score
    return right, best


def matches(
    finder: Finder, images: Iterable[tuple[UInt8[np.ndarray, "H W 3"], Sequence[Square]]]
) -> Matches:
    """What a finder finds in images with known faces, and how much of it is right."""
    scores: list[float] = []
    right: list[bool] = []
    best: list[float] = []
    sides: list[float] = []
    count = 0
    for image, faces in images:
        found = finder.candidates(image, LEAST)
        correct, scored = match(found, faces)
        scores += [each.score for each in found]
        right += correct
        best += scored
        sides += [face.side for face in faces]
        count += 1
    return Matches(
        np.array(scores), np.array(right, bool), count, len(best), np.array(sides), np.array(best)
    )


def threshold_for(found: Matches, false_rate: float, least: float = 0.1) -> float:
    """The lowest threshold, in hundredths from `least` on, with at most so many false faces an
    image; 0.99 where none is low enough."""
    steps = np.arange(round(least * 100), 100) / 100
    return next((float(x) for x in steps if found.false_rate(float(x)) <= false_rate), 0.99)


def rescored(finder: Finder, found: Matches, slope: float, offset: float) -> Matches:
    """The same matches with the scores of another slope and offset; no image is searched again."""

    def score(before: np.ndarray) -> np.ndarray:
        scaled = slope * _logits(finder, before) + offset
        return np.where(before > 0, 1 / (1 + np.exp(-scaled)), 0.0)

    return replace(found, scores=score(found.scores), best=score(found.best))


def _logits(finder: Finder, scores: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """What the network gave where a finder's scores are these."""
    scores = np.clip(scores, 1e-6, 1 - 1e-6)
    return (np.log(scores / (1 - scores)) - finder.config.offset) / finder.config.slope


def calibration(finder: Finder, found: Matches) -> tuple[float, float]:
    """Slope and offset after which scores are chances, by logistic regression (Platt scaling).

    Args:
      found: by `finder`, whose own slope and offset are taken into account.
    """
    logits = _logits(finder, found.scores)
    wanted = found.right.astype(float)
    weights = np.array([1.0, 0.0])
    inputs = np.stack([logits, np.ones_like(logits)], 1)
    for _ in range(50):  # Newton's method, with a little decay towards what there was
        chance = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (chance - wanted) + 0.1 * (weights - [1.0, 0.0])
        curvature = (inputs.T * (chance * (1 - chance))) @ inputs + 0.1 * np.eye(2)
        weights = weights - np.linalg.solve(curvature, gradient)
    return max(float(weights[0]), 0.05), float(weights[1])
