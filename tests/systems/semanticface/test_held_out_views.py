"""Held-out views: perfect predictions correlate by 1 within every source."""

import numpy as np
import pytest

from data_pipelines.views import Views
from sf_jax.face import landmarks
from sf_jax.systems.semanticface.held_out_views import HeldOutViews

COUNT = 130


def records() -> list[dict]:
    g = np.random.default_rng(0)
    found = []
    for number in range(COUNT):
        known = np.arange(61) != 3 if number % 2 else np.ones(61, bool)
        image = np.full((160, 160, 3), number, np.uint8)  # its number is in every pixel
        points = g.uniform(0.3, 0.7, (landmarks.COUNT, 2)).astype(np.float32)
        points[landmarks.RIGHT_EYE], points[landmarks.LEFT_EYE] = (0.4, 0.5), (0.6, 0.5)
        found.append(
            {
                "image": image,
                "coefficients": np.where(known, g.random(61), 0).astype(np.float32),
                "known": known,
                "landmarks": points,
                "source": "drawn" if number % 2 else "rigs",
            }
        )
    nothing = found[0] | {"known": np.zeros(61, bool), "source": "portraits"}
    return [*found, nothing]


def test_scores_are_by_source_and_of_what_is_known() -> None:
    faces = records()
    views = HeldOutViews(faces, Views(size=32, cells=8))
    assert all(image.shape == (32, 32, 3) for image in views.images)

    def read(images: list[np.ndarray]) -> np.ndarray:
        exact = np.stack([views.labels[int(image[0, 0, 0])] for image in images])
        exact[:, 3] = 0.5  # constant: r counts as 0 where it is known
        return exact

    scores = views.scores(read)
    assert set(scores) == {"r_52/all", "r_52/drawn", "r_52/rigs"}
    assert scores["r_52/drawn"] == pytest.approx(1.0)
    assert scores["r_52/rigs"] == pytest.approx(51 / 52)
