"""How well a model reads faces, beside every baseline: what `sf-jax evaluate` computes.

Compared: zeros, the training mean, the per-channel training median, a direct-regression head on the
same vision features (trained on the same data), and the model's slot means and generated values.
Beside them: how far the rationales agree with the values generated after or before them.
"""

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from tqdm import tqdm

from data_pipelines.sampler import sample
from sf_jax.face import agreement, channels, metrics
from sf_jax.face.agreement import Agreement
from sf_jax.reader import estimator, readout
from sf_jax.train.losses import readout as warmup

TRAINING_FACES = 20_000  # from which mean and median are taken


def model_answers(
    model: estimator.Model, images: list[np.ndarray], batch: int, rationale: bool
) -> list[estimator.FaceAction]:
    """Actions of all pictures, in batches of one size (the last one filled up)."""
    actions: list[estimator.FaceAction] = []
    for start in tqdm(range(0, len(images), batch), desc="read", unit="batch"):
        part = images[start : start + batch]
        filled = part + part[-1:] * (batch - len(part))
        actions += model.predict_batch(filled, rationale=rationale)[: len(part)]
    return actions


def regression(model: estimator.Model, images: list[np.ndarray], file: Path) -> np.ndarray | None:
    """The direct-regression head on the model's own tower; None where it was not exported."""
    if not file.is_file():
        return None
    weights = warmup.WarmupWeights(model.weights.vision, readout.load(file))

    @jax.jit
    def predict(patches):  # type: ignore[no-untyped-def]
        low = jnp.asarray(channels.LOW)
        return warmup.predict(weights, patches, low, model.config.vision, "float32")

    out = []
    for start in range(0, len(images), 50):
        part = images[start : start + 50]
        batch, _ = model.inputs(part + part[-1:] * (50 - len(part)), rationale=False)
        patches = batch.inputs["vision"]
        out.append(np.asarray(predict(patches))[: len(part)])
    return np.concatenate(out)


@dataclass(frozen=True)
class Comparison:
    """What `compare` finds.

    Attributes:
      scores: of every baseline and of the model, by name.
      agreement: of all rationales in the describer's language with the values generated beside
        them; None where there are none.
    """

    scores: Mapping[str, metrics.Scores]
    agreement: Agreement | None


def agreement_line(found: Agreement | None, count: int) -> str:
    """The agreement of the rationales of `count` faces, in words."""
    if found is None:
        return "No rationale in the describer's language, so no agreement with the values."
    share = {name: f"{value:.3f}" for name, value in found.summary().items()}
    return (
        f"Rationale and generated values of {found.rationales} of {count} faces: levels of "
        f"{found.mentions} mentions agree exactly {share['exact']}, within one level "
        f"{share['within_one']}; clear values not mentioned {share['missing']}; emotions agree "
        f"{share['emotion']}"
    )


def as_json(
    compared: Comparison, model: estimator.Model, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that `sf-jax evaluate` finds, for a file; what is not a number is null.

    Args:
      data: how the faces and the answers were made, kept as it is.
    """
    found = compared.agreement

    def finite(values: Mapping[str, float]) -> dict[str, float | None]:
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    def of(score: metrics.Scores) -> dict[str, Any]:
        return {
            "all": finite(score.summary()),
            "regions": {name: finite(each) for name, each in score.by_region().items()},
            "channels": {name: finite(each) for name, each in score.by_channel().items()},
            "constant_labels": list(score.constant_labels),
            "constant_predictions": list(score.constant_predictions),
        }

    return {
        "sf_jax": model.provenance.as_json(),
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "numpy": np.__version__,
        },
        "device": jax.devices()[0].device_kind,
        "product_dtype": model.config.product_dtype,
        **data,
        "scores": {name: of(score) for name, score in compared.scores.items()},
        "agreement": None if found is None else asdict(found) | finite(found.summary()),
    }


def compare(
    model: estimator.Model, found: list[dict], readout_file: Path, rationale: bool, batch: int
) -> Comparison:
    """Scores of every baseline and of the model, and the agreement of its rationales.

    Args:
      found: face records; readout_file: of `readout.save`; no such file, no regression head.
      rationale: whether the model generates its rationale first; batch: images read together.
    """
    images = [record["image"] for record in found]
    labels, known = (np.stack([one[name] for one in found]) for name in ("coefficients", "known"))
    training = np.stack([sample(90_000_000 + i) for i in range(TRAINING_FACES)])
    guesses = metrics.baselines(training, len(labels))
    head = regression(model, images, readout_file)
    if head is not None:
        guesses["regression head"] = head
    actions = model_answers(model, images, batch, rationale)
    guesses["model, mean"] = np.stack([action.coefficients for action in actions])
    guesses["model, generated"] = np.stack([action.answer for action in actions])
    scores = {name: metrics.evaluate(values, labels, known) for name, values in guesses.items()}
    return Comparison(scores, agreement.total([action.agreement for action in actions]))
