"""Results as JSON for one picture, on disk and on the wire.

Sequences go through `sf_jax.face.livelink.write`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sf_jax.face.channels import NAMES

if TYPE_CHECKING:  # the estimator brings jax, which writing a file does not need
    from sf_jax.reader.estimator import FaceAction


NUMBERS = ("coefficients", "answer", "spread", "entropy", "log_likelihood")  # of each channel


def as_json(action: "FaceAction", source: str, values: np.ndarray) -> dict[str, Any]:
    """Everything known of one picture.

    Args:
      source: the picture's path, kept under "image".
      values: float [61], the numbers asked for, kept under "coefficients": slot means or spoken
        values, relative to a neutral face where one was given. "mean", "answer" and "spread" are
        the model's own, untouched.
    """

    def named(numbers: np.ndarray) -> dict[str, float]:
        return {name: round(float(x), 4) for name, x in zip(NAMES, numbers, strict=True)}

    return {
        "image": source,
        "rationale": _fields(action),
        "text": action.text,
        "coefficients": named(values),
        "mean": named(action.coefficients),
        "answer": named(action.answer),
        "spread": named(action.spread),
        "entropy": named(action.entropy),
        "log_likelihood": named(action.log_likelihood),
        "passes": action.passes,
    }


def _fields(action: "FaceAction") -> dict[str, str]:
    words = action.rationale
    return {
        "expression": words.expression,
        "movements": words.movements,
        "emotion": words.emotion,
        "symmetry": words.symmetry,
    }


def exact_json(action: "FaceAction") -> dict[str, Any]:
    """An answer from which `from_json` makes the same `FaceAction` again, to the last bit."""

    numbers = {
        field: dict(zip(NAMES, map(float, getattr(action, field)), strict=True))
        for field in NUMBERS
    }
    return {
        "rationale": _fields(action),
        "text": action.text,
        **numbers,
        "passes": action.passes,
        "words": action.words.tolist(),
    }


def from_json(content: Mapping[str, Any]) -> "FaceAction":
    """The answer that `exact_json` wrote.

    Raises:
      ValueError: a field or a channel is missing or of another kind; says which.
    """
    from sf_jax.face.describe import Description
    from sf_jax.reader.estimator import FaceAction

    try:
        numbers = {
            field: np.array([float(content[field][name]) for name in NAMES], np.float32)
            for field in NUMBERS
        }
        return FaceAction(
            rationale=Description(**content["rationale"]),
            text=str(content["text"]),
            passes=dict(content["passes"]),
            words=np.array(content["words"], np.int32),
            **numbers,
        )
    except KeyError as error:
        raise ValueError(f"the answer lacks {error}") from error
    except TypeError as error:
        raise ValueError(f"no answer of this service: {error}") from error
