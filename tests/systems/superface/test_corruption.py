"""Faulty labels have the faults that are stated, are the same for a seed, and leave the rest."""

import numpy as np
import pytest

from data_pipelines.sampler import sample
from sf_jax.face.channels import ANGLES, CHANNELS, INDEX, NAMES
from sf_jax.systems.superface.corruption import FLOORED, Corruption, corrupt

TRUE = np.stack([sample(i) for i in range(400)])
TAKES = np.arange(400) // 20
NONE = {"tied": False, "floored": 0.0, "floors": (0.0, 0.0), "gains": (1.0, 1.0)}
NONE |= {"crosstalk": 0.0, "dropped": 0.0}
SIDED = [(c.index, INDEX[c.mirror]) for c in CHANNELS if c.side == "left" and c.index < 52]
SIDED = [(i, j) for i, j in SIDED if not NAMES[i].startswith("EyeLook")]


def only(**fault):
    return corrupt(TRUE, TAKES, 0, Corruption(**NONE | fault))


def test_without_faults_labels_are_the_truth():
    found = only()
    assert np.array_equal(found.labels, TRUE) and not found.dropped.any()


def test_sides_are_forced_together():
    found = only(tied=True).labels
    assert len(SIDED) == 14
    for i, j in SIDED:
        assert np.array_equal(found[:, i], found[:, j])
        assert not np.array_equal(TRUE[:, i], TRUE[:, j])
    for name in ("MouthLeft", "JawRight", "BrowInnerUp"):
        assert np.array_equal(found[:, INDEX[name]], TRUE[:, INDEX[name]])


def test_floors_are_above_a_twentieth():
    found = only(floors=(0.05, 0.12), floored=0.2).labels
    least = found[:, :52].min(0)
    floored = np.flatnonzero(least > 0)
    assert {INDEX[name] for name in FLOORED} <= set(floored) and 6 < len(floored) < 26
    assert (least[floored] >= 0.05).all() and (least[floored] <= 0.12).all()
    assert np.array_equal(np.maximum(TRUE[:, floored], least[floored]), found[:, floored])


def test_gain_scales_a_channel_and_both_its_sides():
    found = only(gains=(0.5, 0.9)).labels
    smile = found[:, INDEX["MouthSmileLeft"]] / np.maximum(TRUE[:, INDEX["MouthSmileLeft"]], 1e-9)
    active = TRUE[:, INDEX["MouthSmileLeft"]] > 0.1
    assert smile[active].min() >= 0.5 and np.ptp(smile[active]) < 1e-5 and smile.max() <= 0.9
    face = np.zeros((1, 61), np.float32)
    face[0, [INDEX["MouthSmileLeft"], INDEX["MouthSmileRight"]]] = 0.5
    one = corrupt(face, [0], 0, Corruption(**NONE | {"gains": (0.5, 0.9)})).labels[0]
    assert one[INDEX["MouthSmileLeft"]] == one[INDEX["MouthSmileRight"]] < 0.5


def test_crosstalk_moves_neighbours_of_the_same_side_alone():
    face = np.zeros((1, 61), np.float32)
    face[0, INDEX["CheekSquintLeft"]] = 1.0
    found = corrupt(face, [0], 0, Corruption(**NONE | {"crosstalk": 0.3})).labels[0]
    moved = {NAMES[i] for i in np.flatnonzero(found)}
    assert moved == {"CheekSquintLeft", "NoseSneerLeft", "EyeSquintLeft"}
    assert 0 < found[INDEX["NoseSneerLeft"]] <= 0.3
    face[:] = 0
    face[0, INDEX["JawOpen"]] = 1.0
    found = corrupt(face, [0], 0, Corruption(**NONE | {"crosstalk": 0.3})).labels[0]
    assert found[INDEX["MouthStretchLeft"]] == found[INDEX["MouthStretchRight"]] > 0


def test_half_of_the_channels_are_dropped_in_a_take_and_are_at_rest_in_all_of_it():
    found = only(dropped=0.5)
    share = found.dropped[:, :52][:, [not n.startswith("EyeLook") for n in NAMES[:52]]].mean()
    assert 0.45 < share < 0.55
    for take in range(20):
        rows = take == TAKES
        assert (found.dropped[rows] == found.dropped[rows][0]).all()
    assert not found.labels[found.dropped].any() and TRUE[found.dropped].any()
    assert np.array_equal(found.labels[~found.dropped], TRUE[~found.dropped])
    assert len({found.dropped[20 * take].tobytes() for take in range(20)}) == 20
    for i, j in SIDED:
        assert np.array_equal(found.dropped[:, i], found.dropped[:, j])


def test_gaze_and_angles_stay_exact():
    found = corrupt(TRUE, TAKES, 3).labels
    exact = [i for i, name in enumerate(NAMES) if name.startswith("EyeLook")]
    assert np.array_equal(found[:, exact], TRUE[:, exact])
    assert np.array_equal(found[:, ANGLES], TRUE[:, ANGLES])


@pytest.mark.parametrize("rows", [slice(0, 400), slice(37, 61), slice(399, 400)])
def test_labels_depend_on_seed_and_take_and_not_on_the_other_rows(rows):
    whole, again = corrupt(TRUE, TAKES, 5), corrupt(TRUE[rows], TAKES[rows], 5)
    assert np.array_equal(whole.labels[rows], again.labels)
    assert np.array_equal(whole.dropped[rows], again.dropped)
    assert not np.array_equal(corrupt(TRUE[rows], TAKES[rows], 6).labels, again.labels)


def test_labels_are_in_range_and_the_truth_is_not_changed():
    before = TRUE.copy()
    found = corrupt(TRUE, TAKES, 1, Corruption(gains=(2.0, 3.0)))
    assert found.labels.dtype == np.float32
    assert found.labels[:, :52].min() >= 0 and found.labels[:, :52].max() == 1
    assert np.array_equal(TRUE, before)
