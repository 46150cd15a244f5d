"""`sf-jax bench framing`: the framings, and the figures of answers to them."""

import numpy as np
import pytest

from sf_jax.bench import framing
from sf_jax.face.landmarks import Square, framing_square
from sf_jax.media.crop import to_square


def landmarks() -> np.ndarray:
    g = np.random.default_rng(3)
    marks = g.uniform([180, 150], [320, 330], (70, 2))
    marks[36:42], marks[42:48] = [220, 200], [280, 212]  # eyes that are not level
    marks[68:] = np.nan
    return marks


def test_framings_hold_all_landmarks_and_differ() -> None:
    marks = landmarks()
    ideal, found = framing_square(marks), framing.views(marks, 7, 200)
    for view in found:
        square = view.square
        matrix = to_square(square.x, square.y, square.side, square.roll, 1)
        inside = marks[:68] @ matrix[:, :2].T + matrix[:, 2]
        assert inside.min() >= -1e-9 and inside.max() <= 1 + 1e-9
        assert abs(square.roll - ideal.roll) <= framing.ROLL
        assert square.side == pytest.approx(ideal.side * view.scale)
    scales = [view.scale for view in found]
    assert min(scales) < 1.3 and 2.2 < max(scales) <= 2.5 and min(scales) >= 0.9
    assert found[:12] == framing.views(marks, 7) and found[0] != framing.views(marks, 8)[0]


def test_a_square_is_cut_at_the_resolution_of_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    assert (framing.cut(image, Square(40, 30, 20)) == image[20:40, 30:50]).all()
    assert framing.compressed(image, 95).shape == image.shape
    losses = [
        np.abs(framing.compressed(image, q).astype(int) - image.astype(int)).mean()
        for q in (30, 95)
    ]
    assert losses[0] > losses[1] > 0


def test_answers_that_follow_the_framing_cost_correlation() -> None:
    g = np.random.default_rng(0)
    labels = g.random((40, 61))
    known = np.ones(labels.shape, bool)
    known[:, 5] = False
    scales = g.uniform(0.9, 2.5, (40, 12))
    exact = np.repeat(labels[:, None], 12, 1)
    found = framing.figures(exact, labels, labels, known, scales)
    assert found.mean_deviation < 1e-12 and found.r == pytest.approx(found.r_ideal) == 1.0
    assert np.isnan(found.deviation[[5, 60]]).all()
    noisy = exact + 0.3 * (scales - 1)[..., None] * g.normal(size=exact.shape)
    worse = framing.figures(noisy, labels, labels, known, scales, found=470)
    assert worse.r < worse.r_ideal and worse.by_scale[0] > worse.by_scale[1] > worse.by_scale[2]
    assert 0.1 < worse.mean_deviation < 0.5
    text = "\n".join(framing.lines(worse, "faces", 40))
    assert "480 images; found in 470" in text and "difference" in text
