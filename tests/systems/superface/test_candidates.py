"""Candidates: on the grid of the model, in the region that is judged, and named by origin."""

import numpy as np
import pytest

from data_pipelines.sampler import sample
from data_pipelines.synthetic import face_record
from sf_jax.convert.processor import FittedImage
from sf_jax.face import regions
from sf_jax.face.channels import ANGLES, HIGH, INDEX, LOW, NAMES
from sf_jax.reader import loading
from sf_jax.systems.superface import candidates
from sf_jax.systems.superface.pairs import Candidate
from tests.systems.superface.answering import GRID, Answering

PICTURES = [FittedImage(np.full((8, 8, 3), level, np.uint8)) for level in (10, 200)]


def base(seed: int = 3) -> Candidate:
    return Candidate(candidates.on_grid(sample(seed), GRID), "means")


def on_its_grid(one: Candidate) -> bool:
    near = np.nanmin(np.abs(GRID - one.coefficients[:, None]), 1)
    return bool((near < 1e-6).all())


def test_values_are_the_nearest_that_slots_can_take():
    found = candidates.on_grid(np.full(61, 0.26), GRID)
    assert found == pytest.approx(np.full(61, 0.3)) and found.dtype == np.float32
    assert candidates.on_grid(np.full(61, -3.0), GRID) == pytest.approx(LOW)
    part = GRID.copy()
    part[5] = np.nan
    assert candidates.on_grid(np.full(61, 0.9), part)[5] == 0
    assert not np.signbit(candidates.on_grid(np.full(61, -0.01), GRID)).any()


def test_means_and_samples_of_a_model():
    model = Answering()
    found = candidates.means(model, PICTURES)
    assert [one.origin for one in found] == ["means", "means"]
    assert not np.array_equal(found[0].coefficients, found[1].coefficients)
    assert candidates.means(model, PICTURES, "later")[0].origin == "checkpoint later"
    one, two = (candidates.sampled(model, PICTURES, 0.7, seeds) for seeds in ([1, 2], [1, 3]))
    assert one[0].origin == "sampled, temperature 0.7"
    assert np.array_equal(one[0].coefficients, two[0].coefficients)
    assert not np.array_equal(one[1].coefficients, two[1].coefficients)
    assert all(map(on_its_grid, [*found, *one, *two]))
    assert model.asked[-1] == {"rationale": False, "temperature": 0.7, "seed": [1, 3]}


@pytest.mark.parametrize("region", regions.PARTS)
def test_a_swap_changes_the_region_alone(region):
    one, other = base(3), Candidate(base(8).coefficients, "sampled, temperature 0.5")
    found = candidates.swapped(one, other, region)
    here = regions.channels(region)
    assert np.array_equal(found.coefficients[here], other.coefficients[here])
    assert np.array_equal(found.coefficients[~here], one.coefficients[~here])
    assert found.origin == f"swapped {region}: sampled, temperature 0.5"


def test_the_whole_face_is_swapped_but_for_the_head():
    one, other = base(3), base(8)
    found = candidates.swapped(one, other, "whole").coefficients
    head = slice(ANGLES.start, ANGLES.start + 3)
    assert np.array_equal(found[head], one.coefficients[head])
    assert (one.coefficients[head] != other.coefficients[head]).any()
    assert np.array_equal(
        np.delete(found, range(52, 55)), np.delete(other.coefficients, range(52, 55))
    )


@pytest.mark.parametrize("region", regions.REGIONS)
def test_proposals_change_what_they_name_and_nothing_outside_the_region(region):
    here = regions.channels(region)
    names = set()
    for seed in range(40):
        g, one = np.random.default_rng(seed), base(seed)
        for propose, what in ((candidates.perturbed, "perturbed"), (candidates.revived, "revived")):
            found = propose(one, region, GRID, g)
            if found is None:
                continue
            how, name = found.origin.split()
            assert how == what and here[INDEX[name]] and not name.startswith("Head")
            changed = found.coefficients != one.coefficients
            assert changed[INDEX[name]] and not changed[~here].any() and on_its_grid(found)
            before = one.coefficients[INDEX[name]]
            assert (abs(before) >= 0.05) == (what == "perturbed")
            if what == "revived":
                assert found.coefficients[INDEX[name]] >= 0.3
            names.add(name)
    assert len(names) > 12


def test_what_excludes_each_other_is_not_active_together():
    values = np.zeros(61, np.float32)
    values[[INDEX["JawLeft"], INDEX["EyeWideLeft"]]] = 0.5
    start = Candidate(values, "means")
    for seed in range(300):
        g = np.random.default_rng(seed)
        for region in regions.PARTS:
            found = candidates.revived(start, region, GRID, g).coefficients
            for one, other in (("JawLeft", "JawRight"), ("EyeWideLeft", "EyeBlinkLeft")):
                assert not (found[INDEX[one]] and found[INDEX[other]])


def test_a_face_at_rest_has_nothing_to_perturb_and_a_full_one_nothing_to_revive():
    rest = Candidate(np.zeros(61, np.float32), "means")
    full = Candidate(np.where(HIGH > 0, 1.0, 0.0).astype(np.float32), "means")
    g = np.random.default_rng(0)
    assert candidates.perturbed(rest, "upper", GRID, g) is None
    assert candidates.revived(full, "lower", GRID, g) is None


def test_channels_that_a_model_does_not_read_are_not_proposed():
    part = GRID.copy()
    unread = [i for i, name in enumerate(NAMES) if not name.startswith("Jaw")]
    part[unread] = np.nan
    rest = Candidate(np.zeros(61, np.float32), "means")
    for seed in range(30):
        found = candidates.revived(rest, "lower", part, np.random.default_rng(seed))
        assert found.origin.startswith("revived Jaw") and not found.coefficients[unread].any()
    assert candidates.revived(rest, "upper", part, np.random.default_rng(0)) is None


@pytest.mark.parametrize("region", regions.REGIONS)
def test_channels_that_a_rig_cannot_show_stay_the_bases(region):
    """Nobody could judge them, so no judgement may train them."""
    shown = np.random.default_rng(1).random(61) < 0.5
    for seed in range(20):
        g = np.random.default_rng(seed)
        for one in candidates.pool(base(3), [base(8), base(9)], region, GRID, 3, g, shown):
            changed = one.coefficients != base(3).coefficients
            assert not (changed & ~shown).any()


def test_a_pool_has_the_base_first_and_nobody_twice():
    g = np.random.default_rng(0)
    answers = [base(8), base(8), base(3)]
    found = candidates.pool(base(3), answers, "lower", GRID, 3, g)
    assert found[0].origin == "means" and 2 < len(found) <= 8
    assert len({one.coefficients.tobytes() for one in found}) == len(found)
    outside = ~regions.channels("lower")
    for one in found:
        assert np.array_equal(one.coefficients[outside], found[0].coefficients[outside])


def test_the_built_in_model_answers_values_of_its_own_grid():
    """The real decoder: constrained sampling, the same for a seed, and the rounded means."""
    model = loading.load()
    image = face_record(2, 0, "evaluation")["image"]
    picture = [model.fitted(image)]
    mean = candidates.means(model, picture)[0]
    drawn = [candidates.sampled(model, picture, 1.0, [seed])[0] for seed in (1, 2, 1)]
    for one in (mean, *drawn):
        near = np.nanmin(np.abs(model.values - one.coefficients[:, None]), 1)
        assert (near < 1e-6).all()
    assert np.array_equal(drawn[0].coefficients, drawn[2].coefficients)
    assert not np.array_equal(drawn[0].coefficients, drawn[1].coefficients)
    action = model.predict_batch(picture, rationale=False)[0]
    assert np.abs(mean.coefficients - action.coefficients).max() <= 0.05 + 1e-5
