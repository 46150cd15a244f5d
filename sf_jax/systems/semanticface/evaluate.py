"""How well a model reads faces, beside every baseline: what `sf-jax evaluate` computes.

What is compared is listed in `cli/evaluate.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from data_pipelines.sampler import sample
from sf_jax.face import agreement, channels, metrics
from sf_jax.face.agreement import Agreement
from sf_jax.face.bootstrap import Interval, intervals, people
from sf_jax.face.coverage import Coverage, coverage, pit
from sf_jax.face.head_angles import turn_image
from sf_jax.reader import estimator, readout
from sf_jax.reader.framing import Framed
from sf_jax.render import face_error
from sf_jax.render.effects import compressed
from sf_jax.render.head import builtin
from sf_jax.systems.semanticface.direct_regression import Regression
from sf_jax.train.losses.readout import WarmupWeights

Image = UInt8[np.ndarray, "H W 3"]
MEANS = "model, mean"  # the read-out that is compared with others
OTHERS = "predictions"  # those of a file
TRAINING_FACES = 20_000  # from which mean and median are taken
RENDERS = 100  # faces whose renders are compared
REPEATED, QUALITIES = 100, (60, 90)  # images read again, as JPEG of these qualities


def model_answers(
    model: estimator.Model, images: Sequence[Image | Framed], batch: int, rationale: bool
) -> list[estimator.FaceAction]:
    """Actions of all images, in batches of one size (the last one filled up)."""
    seen = [one if isinstance(one, Framed) else model.framed(one) for one in images]
    read = [i for i, one in enumerate(seen) if one.picture is not None]
    actions = [model.no_face()] * len(seen)
    for start in tqdm(range(0, len(read), batch), desc="read", unit="batch"):
        part = read[start : start + batch]
        filled = part + part[-1:] * (batch - len(part))
        found = model.predict_batch([seen[i] for i in filled], rationale=rationale)
        for i, action in zip(part, found, strict=False):
            actions[i] = action
    return actions


def regression(model: estimator.Model, seen: Sequence[Framed], file: Path) -> np.ndarray | None:
    """The direct-regression head on the model's own tower, [N, 61]; zeros where no face was found.

    None where it was not exported.
    """
    if not file.is_file():
        return None
    weights = WarmupWeights(model.weights.vision, readout.load(file))
    fitted = {i: one.picture.pixels for i, one in enumerate(seen) if one.picture is not None}
    areas = [pixels.shape[0] * pixels.shape[1] for pixels in fitted.values()]
    patches = max(areas, default=0) // model.config.vision.patch_size**2
    out = np.zeros((len(seen), len(channels.NAMES)), np.float32)
    read = Regression(model.config, patches)(weights, list(fitted.values()))
    for i, values in zip(fitted, read, strict=True):
        face = seen[i].face
        out[i] = values if face is None else turn_image(values, face.box.roll)
    return out


def zeros_where_missed(values: Sequence[np.ndarray]) -> np.ndarray:
    """Answers [61] as [N, 61], those of faces that were not found as zeros."""
    return np.nan_to_num(np.stack(values), nan=0.0)


def covered(
    model: estimator.Model,
    actions: Sequence[estimator.FaceAction],
    labels: np.ndarray,
    known: np.ndarray,
) -> Coverage:
    """Coverage of the model's distributions; faces that were not found have none."""
    values = model.values
    transformed = np.full(labels.shape, np.nan)
    for i, action in enumerate(actions):
        if action.probabilities is not None:
            label = as_generated(action, labels[i])
            transformed[i] = pit(action.probabilities[None], values, label[None], seed=i)[0]
    return coverage(transformed, labels, known)


def as_generated(action: estimator.FaceAction, label: np.ndarray) -> np.ndarray:
    """A label in the square that the face was read in, of which the distributions are."""
    return label if action.face is None else turn_image(label, -action.face.box.roll)


def repeatability(
    model: estimator.Model,
    images: Sequence[Image],
    actions: Sequence[estimator.FaceAction],
    batch: int,
    rationale: bool,
    whole: bool | None,
) -> float:
    """How far answers to one image differ: the mean standard deviation of a blendshape over the
    image and two JPEG copies of it, over the first images in which all three show a face.

    Args:
      actions: of the images as they are. NaN where no face is found in any.
      rationale: whether those were read with a rationale: so are the copies.
    """
    copies = [
        [model.framed(compressed(image, quality), whole=whole) for image in images[:REPEATED]]
        for quality in QUALITIES
    ]
    again = [model_answers(model, each, batch, rationale) for each in copies]
    values = np.stack([[one.coefficients for one in each] for each in (actions[:REPEATED], *again)])
    seen = np.isfinite(values).all((0, 2))
    spread = values[:, seen][..., channels.BLENDSHAPES].std(0)
    return float(spread.mean()) if seen.any() else float("nan")


@dataclass(frozen=True)
class Comparison:
    """What `compare` finds on one set.

    Attributes:
      scores: of every baseline and of the model, by name.
      agreement: of all rationales in the describer's language with the values generated beside
        them; None where there are none.
      intervals: of each measure of each predictor, over people; none where all images are of one.
      people: how many there are.
      found: in how many images the model found a face; None where it reads whole images.
      coverage: of the distributions of the model; None where it was not measured.
      faces: what `face_error.summary` finds on the built-in head, by the names of `scores`.
      repeatability: see the function; None where it was not measured.
      read_out: which of the scores are the model's, or those of a file of predictions.
    """

    scores: Mapping[str, metrics.Scores]
    agreement: Agreement | None
    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    people: int = 0
    found: int | None = None
    coverage: Coverage | None = None
    faces: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    repeatability: float | None = None
    read_out: str = MEANS

    @property
    def count(self) -> int:
        """How many faces there are."""
        return next(iter(self.scores.values())).count


def baselines(count: int) -> dict[str, np.ndarray]:
    """Zeros, training mean and training median for so many faces."""
    training = np.stack([sample(90_000_000 + i) for i in range(TRAINING_FACES)])
    return metrics.baselines(training, count)


def compare(
    model: estimator.Model,
    found: list[dict],
    readout_file: Path,
    rationale: bool,
    batch: int,
    whole: bool | None = None,
) -> Comparison:
    """Scores of every baseline and of the model, and the agreement of its rationales.

    Args:
      found: face records; readout_file: of `readout.save`; no such file, no regression head.
      rationale: whether the model generates its rationale too; batch: images read together.
      whole: as in `Model.predict`. Where faces are framed, one that is not found counts as zeros.
    """
    labels, known = (np.stack([one[name] for one in found]) for name in ("coefficients", "known"))
    guesses = baselines(len(labels))
    images = [record["image"] for record in found]
    seen = [model.framed(image, whole=whole) for image in tqdm(images, desc="frame")]
    head = regression(model, seen, readout_file)
    if head is not None:
        guesses["regression head"] = head
    actions = model_answers(model, seen, batch, rationale)
    guesses[MEANS] = zeros_where_missed([action.coefficients for action in actions])
    guesses["model, generated"] = zeros_where_missed([action.answer for action in actions])
    return replace(
        _compared(guesses, found),
        agreement=agreement.total([action.agreement for action in actions]),
        found=sum(action.found for action in actions) if model.frames(whole) else None,
        coverage=covered(model, actions, labels, known),
        repeatability=repeatability(model, images, actions, batch, rationale, whole),
    )


def compare_predictions(
    predicted: Float[np.ndarray, "N 61"], found: Sequence[dict[str, Any]]
) -> Comparison:
    """Scores of every baseline and of another system's answers to face records.

    Args:
      predicted: of `predictions.read`. What is NaN counts as zero.
    """
    guesses = baselines(len(found)) | {OTHERS: np.nan_to_num(predicted, nan=0.0)}
    there = int(np.isfinite(predicted).any(1).sum())
    return replace(_compared(guesses, found), found=there, read_out=OTHERS)


def _compared(guesses: Mapping[str, np.ndarray], found: Sequence[dict[str, Any]]) -> Comparison:
    """Everything that depends on the predicted coefficients alone."""
    labels, known = (np.stack([one[name] for one in found]) for name in ("coefficients", "known"))
    person, rig = people([record.get("identity") for record in found]), builtin()
    return Comparison(
        {name: metrics.evaluate(values, labels, known) for name, values in guesses.items()},
        agreement=None,
        intervals={
            name: intervals(values, labels, known, person) for name, values in guesses.items()
        },
        people=int(person.max()) + 1,
        faces={
            name: face_error.summary(rig, values, labels, known, RENDERS)
            for name, values in guesses.items()
        },
    )
