"""Results on disk: JSON for one picture, Live Link CSV for a sequence."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from sf_jax.estimator import FaceAction
from sf_jax.face.channels import NAMES


def as_json(action: FaceAction, source: str, values: np.ndarray) -> dict[str, Any]:
    """Everything known of one picture. `values` float [61] are the numbers asked for."""

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
    """Writes whole or not at all."""
    partial = Path(f"{os.fspath(path)}.partial")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    os.replace(partial, path)
