"""Metrics against numpy and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sf_jax.face import metrics
from sf_jax.face.channels import HIGH, INDEX, LOW, NAMES, mirror
from sf_jax.face.head_angles import rotation_of
from sf_jax.face.metrics import MetricsError, evaluate


def faces(count, seed):
    """Sparse, as labels are."""
    random = np.random.default_rng(seed)
    values = random.uniform(LOW, HIGH, (count, 61))
    return values * (random.uniform(size=values.shape) < 0.5)


def test_correlation_is_numpys():
    predictions, labels = faces(50, 0), faces(50, 1)
    predictions = 0.5 * predictions + 0.5 * labels
    expected = [np.corrcoef(predictions[:, i], labels[:, i])[0, 1] for i in range(61)]
    scores = evaluate(predictions, labels)
    assert scores.correlation == pytest.approx(np.array(expected))
    assert scores.summary()["r_52"] == pytest.approx(np.mean(expected[:52]))
    assert scores.summary()["r_61"] == pytest.approx(np.mean(expected))


def test_constant_channels_count_as_zero_and_are_named():
    labels = faces(30, 2).astype(np.float32)
    labels[:, INDEX["TongueOut"]] = 0.1
    predictions = labels.copy()
    predictions[:, INDEX["JawOpen"]] = 0.3
    scores = evaluate(predictions, labels)
    assert scores.constant_labels == ("TongueOut",)
    assert scores.constant_predictions == ("JawOpen", "TongueOut")
    assert scores.correlation[INDEX["TongueOut"]] == scores.correlation[INDEX["JawOpen"]] == 0
    assert scores.summary()["r_61"] == pytest.approx(59 / 61)
    text = metrics.table({"model": scores})
    assert "constant in the labels, counted as r = 0: TongueOut" in text
    assert "constant in model, counted as r = 0: JawOpen" in text


def test_active_channels_and_sides_by_hand():
    labels, predictions, known = np.zeros((2, 61)), np.zeros((2, 61)), np.ones((2, 61), bool)
    left, right = INDEX["MouthSmileLeft"], INDEX["MouthSmileRight"]
    labels[0, [left, right]] = 0.8, 0.3
    predictions[0, [left, right, INDEX["JawOpen"]]] = 0.6, 0.1, 0.5
    labels[1, INDEX["HeadYaw"]] = 0.9  # angles are not active
    scores = evaluate(predictions, labels, known)
    assert scores.active_f1 == pytest.approx(2 / (2 + 1 + 1))  # the jaw is false, a side is missed
    assert scores.left_right_error == pytest.approx(0)  # 0.5 between the sides, in both
    turned = evaluate(mirror(predictions), labels, known)
    pairs = len(metrics.LEFT_OF_PAIRS)
    assert pairs == 20 and turned.left_right_error == pytest.approx(1.0 / (2 * pairs))
    known[0, right] = False
    masked = evaluate(mirror(predictions), labels, known)
    assert masked.left_right_error == pytest.approx(0) and masked.active_f1 == pytest.approx(0)
    nothing = evaluate(np.zeros((2, 61)), np.zeros((2, 61)))
    assert np.isnan(nothing.active_f1) and nothing.left_right_error == 0


def test_errors_by_hand():
    labels = np.zeros((4, 61))
    labels[0, INDEX["JawOpen"]], labels[1, INDEX["JawOpen"]] = 0.8, 0.2
    labels[2, INDEX["MouthPucker"]] = 0.6
    labels[3, INDEX["HeadYaw"]] = 0.9
    scores = evaluate(np.zeros((4, 61)), labels)
    assert scores.absolute_error[INDEX["JawOpen"]] == pytest.approx(0.25)
    assert scores.active_error[INDEX["JawOpen"]] == pytest.approx(0.8)  # 0.2 is not above 0.2
    assert np.isnan(scores.active_error[INDEX["TongueOut"]])
    assert np.isnan(scores.active_error[INDEX["HeadYaw"]])  # an angle is not active
    assert scores.summary()["active_mae"] == pytest.approx(0.7)
    assert scores.summary()["mae_52"] == pytest.approx(1.6 / (4 * 52))
    assert scores.active_f1 == 0  # two active values, none found
    assert scores.by_region()["jaw"]["active_mae"] == pytest.approx(0.8)
    assert scores.by_region()["jaw"]["mae"] == pytest.approx(0.25 / 4)
    assert scores.by_channel()["MouthPucker"]["mae"] == pytest.approx(0.15)
    assert scores.head_degrees == pytest.approx(np.degrees(0.9) / 12)
    assert scores.head_geodesic_degrees == pytest.approx(np.degrees(0.9) / 4)


def rotation(axis, angle):
    """Right-handed about an axis, by Rodrigues' formula."""
    x, y, z = np.eye(3)[axis]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@given(st.tuples(*[st.floats(-1, 1)] * 3))
def test_head_rotation_is_yaw_after_pitch_after_roll(angles):
    yaw, pitch, roll = angles
    expected = rotation(1, yaw) @ rotation(0, pitch) @ rotation(2, roll)
    assert rotation_of(np.array([angles]))[0] == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_geodesic_agrees_with_the_trace_and_with_its_mirror(seed):
    predictions, labels = faces(20, seed), faces(20, seed + 1)
    head = [INDEX[name] for name in ("HeadYaw", "HeadPitch", "HeadRoll")]
    a, b = (rotation_of(x[:, head]) for x in (predictions, labels))
    cosine = (np.einsum("nij,nij->n", a, b) - 1) / 2
    scores = evaluate(predictions, labels)
    expected = np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()
    assert scores.head_geodesic_degrees == pytest.approx(expected, abs=1e-5)
    mirrored = evaluate(mirror(predictions), mirror(labels)).summary()
    assert mirrored == pytest.approx(scores.summary())


@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=20)
def test_correlation_ignores_scale_and_offset(seed, scale, offset):
    x, y = faces(30, seed), faces(30, seed + 1)
    r = metrics.correlation(x, y)
    assert np.all(np.abs(r) <= 1)
    assert metrics.correlation(x * scale + offset, y) == pytest.approx(r, abs=1e-9)
    assert metrics.correlation(-x, y) == pytest.approx(-r, abs=1e-9)


def test_baselines_are_best_at_what_they_minimise():
    labels = faces(200, 3)
    baselines = metrics.baselines(labels, 200)
    assert list(baselines) == ["zeros", "mean", "median"]
    scores = {name: evaluate(values, labels) for name, values in baselines.items()}
    mae = {name: score.absolute_error for name, score in scores.items()}
    assert np.all(mae["median"] <= mae["mean"] + 1e-12)
    assert np.all(mae["median"] <= mae["zeros"] + 1e-12)
    assert baselines["mean"].mean(axis=0) == pytest.approx(labels.mean(axis=0))
    assert metrics.baselines(labels, 7)["median"].shape == (7, 61)
    assert scores["mean"].summary()["r_61"] == 0


def test_tables_hold_every_predictor_and_line():
    labels = faces(40, 4)
    scores = {
        "model": evaluate(0.9 * labels, labels),
        "zeros": evaluate(np.zeros_like(labels), labels),
    }
    lines = metrics.table(scores).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["model", "zeros"]
    assert "1.000" in lines[1] and "constant in zeros, counted as r = 0: every channel" in lines
    regions = metrics.region_table(scores, "mae").splitlines()
    assert regions[0].split() == ["mae", "model", "zeros"]
    assert [line.split()[0] for line in regions[1:]] == list(metrics.REGIONS)
    per_channel = metrics.channel_table(scores, "active_mae").splitlines()
    assert [line.split()[0] for line in per_channel[1:]] == list(NAMES)
    assert per_channel[-1].split()[1:] == ["–", "–"]


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (np.zeros((2, 52)), np.zeros((2, 61)), r"predictions of shape \(2, 52\)"),
        (np.zeros((2, 61)), np.zeros((0, 61)), r"labels of shape \(0, 61\)"),
        (np.zeros((2, 61)), np.zeros((3, 61)), "2 predictions for 3 labels"),
        (np.full((1, 61), np.nan), np.zeros((1, 61)), "EyeBlinkLeft of face 0 is nan"),
    ],
)
def test_what_cannot_be_compared(predictions, labels, message):
    with pytest.raises(MetricsError, match=message):
        evaluate(predictions, labels)


def test_labels_that_are_not_known_have_no_part():
    """As if each channel's faces were those where it is known."""
    predictions, labels = faces(60, 1), faces(60, 2)
    known = np.random.default_rng(3).random(labels.shape) < 0.7
    known[:, INDEX["TongueOut"]] = False
    noise = np.where(known, labels, 0.9)
    scores = evaluate(predictions, labels, known)
    assert scores.summary() == evaluate(predictions, noise, known).summary()
    for name in ("JawOpen", "HeadYaw"):
        i = INDEX[name]
        rows = known[:, i]
        alone = evaluate(predictions[rows], labels[rows])
        assert scores.correlation[i] == pytest.approx(alone.correlation[i])
        assert scores.absolute_error[i] == pytest.approx(alone.absolute_error[i])
        assert scores.known_count[i] == rows.sum()
    tongue = scores.by_channel()["TongueOut"]
    assert np.isnan([tongue["r"], tongue["mae"]]).all()
    assert "TongueOut" not in scores.constant_labels + scores.constant_predictions
    others = np.delete(scores.correlation[:52], INDEX["TongueOut"])
    assert scores.summary()["r_52"] == pytest.approx(others.mean())
    assert np.isnan(scores.by_region()["tongue"]["r"])


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(MetricsError, match="mask of shape"):
        evaluate(faces(3, 0), faces(3, 1), np.ones((3, 52), bool))
