"""Results on disk: JSON for one picture. Sequences go through `sf_jax.face.livelink.write`."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sf_jax.face.channels import NAMES

if TYPE_CHECKING:  # the estimator brings jax, which writing a file does not need
    from sf_jax.estimator import FaceAction


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

    words = action.rationale
    return {
        "image": source,
        "rationale": {
            "expression": words.expression, "movements": words.movements,
            "emotion": words.emotion, "symmetry": words.symmetry,
        },
        "text": action.text,
        "coefficients": named(values),
        "mean": named(action.coefficients),
        "answer": named(action.answer),
        "spread": named(action.spread),
        "passes": action.passes,
    }  # fmt: skip


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes whole or not at all.

    Raises:
      ValueError: a number is NaN or infinite, which JSON cannot hold; names the file.
      OSError: the file cannot be written.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    partial = Path(f"{os.fspath(path)}.partial")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
