"""What identifies a pair, and what a candidate may be."""

from dataclasses import replace

import numpy as np
import pytest

from sf_jax.face.channels import INDEX
from sf_jax.systems.superface.pairs import Candidate, image_hash, key_of, render_name, shortest
from tests.systems.superface.folders import candidate, pair


def test_key_changes_with_all_that_identifies_a_pair():
    one, _ = pair()
    others = [
        replace(one, image="c" * 32, key=""),
        replace(one, region="lower", key=""),
        replace(one, first=one.second, second=one.first, key=""),
        replace(one, first=candidate("upper", JawOpen=0.4), key=""),
        replace(one, rig="c" * 32, key=""),
        replace(one, weights="c" * 32, key=""),
        replace(one, pose=(0.1, 0.0, 0.2), key=""),
    ]
    assert len({other.key for other in others} | {one.key}) == len(others) + 1


def test_key_does_not_change_with_origin_and_difference():
    one, _ = pair()
    renamed = replace(one.first, origin="checkpoint other")
    assert replace(one, first=renamed, difference=9.0, gold="second", key="").key == one.key


def test_zeros_have_no_sign():
    negative = np.full(61, -0.0, np.float32)
    zero, minus = Candidate(np.zeros(61, np.float32), "means"), Candidate(negative, "means")
    assert not np.signbit(minus.coefficients).any()
    one, _ = pair()
    assert key_of(replace(one, first=zero)) == key_of(replace(one, first=minus))
    names = [render_name(c, "a" * 32, (0.0, 0.0, 0.0), 8, "upper") for c in (negative, -negative)]
    assert names[0] == names[1]


def test_coefficients_outside_their_range_are_refused_by_name():
    values = np.zeros(61, np.float32)
    values[INDEX["JawOpen"]] = 1.2
    with pytest.raises(ValueError, match="JawOpen is 1.2, expected 0 to 1"):
        Candidate(values, "means")
    values[INDEX["JawOpen"]] = np.nan
    with pytest.raises(ValueError, match="JawOpen is nan"):
        Candidate(values, "means")
    with pytest.raises(ValueError, match=r"\[52\], expected \[61\]"):
        Candidate(values[:52], "means")


def test_a_candidate_cannot_be_changed_through_an_array():
    values = np.zeros(61, np.float32)
    one = Candidate(values, "means")
    values[0] = 1
    assert one.coefficients[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        one.coefficients[0] = 1


def test_fewest_digits_give_the_same_float32():
    values = np.random.default_rng(0).random(500).astype(np.float32)
    assert np.array_equal(np.float32(shortest(values)), values)
    assert shortest(np.float32([0.1, -0.0])) == [0.1, 0.0]


def test_image_hash_is_of_size_and_pixels():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert image_hash(image) == image_hash(np.asfortranarray(image))
    assert image_hash(image) != image_hash(image.reshape(4, 2, 3))
    changed = image.copy()
    changed[1, 2, 0] ^= 1
    assert image_hash(changed) != image_hash(image)
