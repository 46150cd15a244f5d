"""What the built-in model reads off the frames of a take."""

import numpy as np

from data_pipelines.synthetic import face_record
from data_pipelines.take_frames import model_reader
from sf_jax.reader import loading


def test_the_model_reads_values_and_landmarks_where_there_is_a_face() -> None:
    model = loading.load()
    record = face_record(1, 9, "evaluation")
    image = record["image"]
    height, width = image.shape[:2]
    read = model_reader(model)
    seen = read(image, 0.0)
    alone = model.predict(image, rationale=False)
    assert alone.found and seen.square is not None and seen.landmarks is not None
    np.testing.assert_allclose(seen.values, alone.coefficients, atol=1e-4)
    away = np.linalg.norm(seen.landmarks - record["landmarks"] * [width, height], axis=1)
    assert np.median(away) < 0.08 * seen.square.side
    nothing = model_reader(model)(np.full_like(image, 127), 0.0)
    assert nothing.square is None and np.isnan(nothing.values).all()
