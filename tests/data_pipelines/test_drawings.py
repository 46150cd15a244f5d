"""Drawings as a source: families held out, what a style shows is known, figures cut out."""

import pickle

import numpy as np

from data_pipelines import held_out, records
from data_pipelines.drawings import DrawnSource
from data_pipelines.sources import Framing
from sf_jax.face.landmarks import bounding_square
from sf_jax.render.drawn import FAMILIES
from tests.data_pipelines.test_records import assert_equal


def test_a_third_of_the_families_is_held_out() -> None:
    assert set(FAMILIES) > held_out.STYLES
    assert 0.3 < len(held_out.STYLES) / len(FAMILIES) < 0.4
    source = DrawnSource()
    train, held = (set(source.families(split)) for split in ("train", "evaluation"))
    assert held == held_out.STYLES and train == set(FAMILIES) - held
    for split, first in (("train", 0), ("evaluation", 1_000_000)):
        met = {source.style(first + i, split).family for i in range(12)}
        assert met <= set(source.families(split))


def test_a_drawing_is_the_same_every_time() -> None:
    source = pickle.loads(pickle.dumps(DrawnSource()))
    for number in range(4):
        one = source.record(number, "train", Framing(64))
        assert_equal(source.record(number, "train", Framing(64)), one)
        assert_equal(records.decode(records.encode(one)), one)
        assert not one["coefficients"][~one["known"]].any() and one["known"].sum() >= 30
        assert one["source"] == "drawn" and one["style"] in FAMILIES


def test_wide_heads_are_in_view_too() -> None:
    reach = [
        np.nanmax(np.abs(DrawnSource().record(n, "train", Framing(48))["landmarks"] - 0.5))
        for n in range(40)
    ]
    assert max(reach) < 0.55 and np.median(reach) > 0.3


def test_a_figure_has_no_backdrop() -> None:
    source = DrawnSource()
    figure = source.figure(2, "train", 96)
    assert figure.cover.shape == (96, 96) and 0.1 < figure.cover.mean() < 0.9
    assert not figure.cover[0, [0, -1]].any()
    assert 20 < bounding_square(figure.landmarks).side < 80
    x, y = figure.landmarks[np.isfinite(figure.landmarks).all(1)].astype(int).T
    assert (figure.cover[y, x] > 0.5).mean() > 0.8
