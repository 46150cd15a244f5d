"""What `sf-jax evaluate` computes with a model that frames faces."""

import numpy as np
import pytest

from sf_jax.face.head_angles import HEAD
from sf_jax.reader.estimator import Model
from sf_jax.systems.semanticface import evaluate
from tests.reader.test_framed_model import directory, image, model  # noqa: F401 (fixtures)


def test_missed_faces_count_as_zeros_and_rolls_are_put_back(
    model: Model,  # noqa: F811
    directory,  # noqa: F811
    image: np.ndarray,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One image has a face in a turned square, the other none."""
    monkeypatch.setattr(evaluate, "TRAINING_FACES", 50)
    nothing = np.zeros_like(image)
    labels = np.zeros((2, 61), np.float32)
    found = [
        {"image": one, "coefficients": label, "known": np.ones(61, bool), "identity": i}
        for i, (one, label) in enumerate(zip((image, nothing), labels, strict=True))
    ]
    readout = directory / "readout.safetensors"
    compared = evaluate.compare(model, found, readout, False, 2)
    assert compared.found == 1 and compared.people == 2 and compared.count == 2
    assert compared.coverage is not None and np.isfinite(compared.coverage.all)
    seen = [model.framed(one["image"]) for one in found]
    values = evaluate.regression(model, seen, readout)
    assert values is not None and not values[1].any() and values[0].any()
    (action, missed) = evaluate.model_answers(model, seen, 2, False)
    alone = model.predict(image, rationale=False)
    np.testing.assert_allclose(action.coefficients, alone.coefficients, atol=1e-4)
    assert not missed.found
    # A label that is the answer itself is, in the square that was read, where the answer was made.
    assert alone.face is not None
    turned = evaluate._as_generated(alone, alone.coefficients)
    if alone.face.box.roll:
        assert (turned[HEAD] != alone.coefficients[HEAD]).any()
