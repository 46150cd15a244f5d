"""What a trained arm reads in the evaluation sets: every read-out of its slots, in files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from data_pipelines.views import Views
from sf_jax.face import agreement, channels
from sf_jax.face.bootstrap import people
from sf_jax.media import files, npz_files
from sf_jax.media.npz_files import Declared
from sf_jax.model.config import Config
from sf_jax.reader import estimator
from sf_jax.systems.semanticface import evaluate
from sf_jax.systems.semanticface.ablation import ARGMAX, GENERATED, MEAN, MEDIAN, READ_OUTS
from sf_jax.systems.semanticface.direct_regression import Regression
from sf_jax.systems.semanticface.held_out_views import evaluation_views
from sf_jax.train.losses.readout import WarmupWeights

BATCH = 50  # images read at a time
COUNT = len(channels.NAMES)
Values = Float[np.ndarray, "N 61"]


@dataclass(frozen=True)
class EvaluationSet:
    """Faces framed by their true landmarks, with what is known of them."""

    images: list[UInt8[np.ndarray, "H W 3"]]
    labels: Values
    known: Bool[np.ndarray, "N 61"]
    person: Int[np.ndarray, " N"]

    @classmethod
    def load(cls, folder: Path, count: int, views: Views) -> "EvaluationSet":
        """The first faces of a folder of records."""
        found = evaluation_views(folder, count, views)
        return cls(
            [record["image"] for record in found],
            np.stack([record["coefficients"] for record in found]),
            np.stack([record["known"] for record in found]),
            people([record.get("identity") for record in found]),
        )


@dataclass(frozen=True)
class Reading:
    """What was read in one set.

    Attributes:
      values: by the name of the read-out; 0 in channels that are not read.
      agreement: shares of `agreement.Agreement.summary` of the rationales; empty without any.
    """

    values: Mapping[str, Values]
    agreement: Mapping[str, float]


def median(
    probabilities: Float[np.ndarray, "... V"], values: Float[np.ndarray, "... V"]
) -> Float[np.ndarray, "..."]:
    """The least value up to which a distribution has half of its mass.

    Args:
      values: in rising order; NaN, with NaN as probability, where there are no more.
    """
    mass = np.cumsum(np.nan_to_num(probabilities), axis=-1)
    at = (mass >= 0.5 - 1e-6).argmax(-1)
    return np.take_along_axis(np.broadcast_to(values, mass.shape), at[..., None], -1)[..., 0]


def mode(
    probabilities: Float[np.ndarray, "... V"], values: Float[np.ndarray, "... V"]
) -> Float[np.ndarray, "..."]:
    """The most probable value; arguments as for `median`."""
    at = np.nan_to_num(probabilities, nan=-1.0).argmax(-1)
    return np.take_along_axis(np.broadcast_to(values, probabilities.shape), at[..., None], -1)[
        ..., 0
    ]


def with_model(model: estimator.Model, rationale: bool) -> Callable[[EvaluationSet], Reading]:
    """Reads by constrained decoding, of whole images."""

    def read(faces: EvaluationSet) -> Reading:
        pictures = [model.framed(image, whole=True) for image in faces.images]
        batch = min(BATCH, len(pictures))
        actions = evaluate.model_answers(model, pictures, batch, rationale)
        given = [action.probabilities for action in actions]
        probabilities = np.stack([one for one in given if one is not None])
        found = {
            MEAN: np.stack([action.coefficients for action in actions]),
            MEDIAN: median(probabilities, model.values),
            ARGMAX: mode(probabilities, model.values),
            GENERATED: np.stack([action.answer for action in actions]),
        }
        agreed = agreement.total([action.agreement for action in actions])
        return Reading(
            {name: np.nan_to_num(each).astype(np.float32) for name, each in found.items()},
            {} if agreed is None else _finite(agreed.summary()),
        )

    return read


def with_readout(
    weights: WarmupWeights, config: Config, patches: int
) -> Callable[[EvaluationSet], Reading]:
    """Reads by direct regression, whose one value serves as every read-out.

    Args:
      patches: of the largest image.
    """

    regression = Regression(config, patches)

    def read(faces: EvaluationSet) -> Reading:
        return Reading(dict.fromkeys(READ_OUTS, regression(weights, faces.images)), {})

    return read


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if np.isfinite(value)}


def save(path: Path, readings: Mapping[str, Reading]) -> None:
    """Writes the values of all sets, complete or not at all."""
    arrays = {
        f"{name}/{read_out}": values
        for name, reading in readings.items()
        for read_out, values in reading.values.items()
    }
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        kinds: dict[str, Any] = arrays
        np.savez_compressed(file, **kinds)


def load(path: Path, sets: Sequence[str]) -> dict[str, dict[str, Values]]:
    """Values by set and read-out.

    Raises:
      DataError: the file is damaged, or lacks a set.
    """
    declared = {
        f"{name}/{read_out}": Declared("float", (name, COUNT))
        for name in sets
        for read_out in READ_OUTS
    }
    found = npz_files.read_arrays(path, declared)
    return {
        name: {read_out: found[f"{name}/{read_out}"] for read_out in READ_OUTS} for name in sets
    }
