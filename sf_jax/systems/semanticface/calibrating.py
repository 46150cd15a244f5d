"""How much wider a model's distributions should be, on faces that no figure is taken from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sf_jax.face.coverage import Coverage, coverage, pit
from sf_jax.media import files
from sf_jax.reader import calibration, estimator
from sf_jax.systems.semanticface.evaluate import as_generated, model_answers


def calibrate(
    model: estimator.Model, found: Sequence[dict[str, Any]], folder: Path, batch: int
) -> tuple[Coverage, Coverage]:
    """Writes `calibration.json` into a model's directory, over the one of before.

    Args:
      found: face records; a face that is not found has no part. batch: images read together.

    Returns:
      The coverage of the labels of these faces before and after.

    Raises:
      CalibrationError: no face was found.
    """
    model.calibration = None
    seen = [model.framed(record["image"]) for record in tqdm(found, desc="frame")]
    needed = not model.schema.values_first  # else no value depends on the rationale
    actions = model_answers(model, seen, batch, rationale=needed)
    labels, known, distributions = [], [], []
    for record, action in zip(found, actions, strict=True):
        if action.probabilities is not None:
            labels.append(as_generated(action, record["coefficients"]))
            known.append(record["known"])
            distributions.append(action.probabilities)
    if not labels:
        raise calibration.CalibrationError("no face was found in the records")
    targets, counted, probabilities = map(np.stack, (labels, known, distributions))
    share = calibration.fit(probabilities, model.values, targets, counted)
    calibrated = calibration.Calibration(share).apply(probabilities, model.values)
    before, after = (
        coverage(pit(each, model.values, targets), targets, counted)
        for each in (probabilities, calibrated)
    )
    weights = None if model.provenance is None else model.provenance.weights
    content = calibration.stored(share, weights, len(labels))
    files.write_json(folder / calibration.FILE, content.model_dump())
    return before, after
