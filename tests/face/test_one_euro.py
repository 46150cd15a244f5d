"""The One-Euro filter: range, streaming, less jitter without much lag."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sf_jax.face import livelink
from sf_jax.face.one_euro import OneEuro, smooth

TAKE = Path(__file__).parents[2] / "../shared/takes/range_of_motion.csv"


def walk(count, seed):
    steps = np.random.default_rng(seed).normal(0, 0.05, (count, 61))
    return np.clip(0.5 + np.cumsum(steps, axis=0), 0, 1).astype(np.float32)


@given(
    st.integers(0, 1000),
    st.sampled_from([24, 29.97, 60, 240]),
    st.floats(0.1, 10),
    st.floats(0, 10),
)
@settings(max_examples=25)
def test_output_stays_within_the_input(seed, fps, min_cutoff, beta):
    frames = walk(30, seed)
    smoothed = smooth(frames, fps, min_cutoff=min_cutoff, beta=beta)
    assert smoothed.shape == frames.shape and smoothed.dtype == frames.dtype
    assert np.all(smoothed <= np.maximum.accumulate(frames, axis=0) + 1e-6)
    assert np.all(smoothed >= np.minimum.accumulate(frames, axis=0) - 1e-6)


def test_still_face_stays_and_first_frame_passes():
    still = np.tile(walk(1, 0), (10, 1))
    assert np.array_equal(smooth(still, 30), still)
    assert np.array_equal(smooth(walk(5, 1), 30)[0], walk(5, 1)[0])


def test_streaming_is_the_same_and_resets():
    frames = walk(40, 2)
    whole = smooth(frames, 30)
    stream = OneEuro(30)
    for _ in range(2):
        assert np.array_equal(np.stack([stream(frame) for frame in frames]), whole)
        stream.reset()


def test_times_instead_of_a_rate():
    frames = walk(40, 3)
    assert smooth(frames, 24, np.arange(40) / 60) == pytest.approx(smooth(frames, 60), abs=1e-6)
    repeated = smooth(np.repeat(frames, 2, axis=0), 60, np.repeat(np.arange(40) / 60, 2))
    assert np.array_equal(repeated[1:], np.repeat(repeated[::2], 2, axis=0)[1:])


def test_equal_to_the_low_pass_filter_where_beta_is_zero():
    frames = walk(40, 4).astype(np.float64)
    expected, turn = [frames[0]], 2 * np.pi * 1.5 / 30
    for frame in frames[1:]:
        expected.append(expected[-1] + turn / (1 + turn) * (frame - expected[-1]))
    assert smooth(frames, 30, min_cutoff=1.5, beta=0) == pytest.approx(np.array(expected))


def test_channels_do_not_touch_each_other():
    frames = walk(30, 5)
    changed = frames.copy()
    changed[:, 7] = 0
    assert np.array_equal(np.delete(smooth(changed, 30), 7, 1), np.delete(smooth(frames, 30), 7, 1))


def test_less_jitter_at_rest_and_less_lag_in_motion():
    """Noise of 0.03 at rest, then a jump: beta must buy back the lag that smoothing costs."""
    random = np.random.default_rng(6)
    truth = np.repeat([0.2, 0.9], 60)[:, None]
    noisy = truth + random.normal(0, 0.03, (120, 61))
    smoothed, plain = smooth(noisy, 30), smooth(noisy, 30, beta=0)
    assert smoothed[20:60].std() < 0.5 * noisy[20:60].std()
    after = slice(60, 66)
    lag, plain_lag = (np.abs(x - truth)[after].mean() for x in (smoothed, plain))
    assert lag < 0.6 * plain_lag


def test_noise_on_the_real_take_gets_less():
    if not TAKE.exists():
        pytest.skip("needs takes/range_of_motion.csv in ../shared, which is not there")
    take = livelink.read(TAKE)
    clean = take.coefficients[:1000, :52]
    noisy = clean + np.random.default_rng(7).normal(0, 0.03, clean.shape)
    smoothed = smooth(noisy, take.fps, take.seconds[:1000])
    assert np.abs(smoothed - clean).mean() < 0.7 * np.abs(noisy - clean).mean()
    jitter = [np.abs(np.diff(x, 2, axis=0)).mean() for x in (smoothed, noisy)]
    assert jitter[0] < 0.25 * jitter[1]


def test_refusals():
    for wrong in ({"fps": 0}, {"min_cutoff": -1}, {"beta": -1}, {"derivative_cutoff": np.nan}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            OneEuro(**{"fps": 30} | wrong)
    stream = OneEuro(30)
    stream(np.zeros(61), 1.0)
    with pytest.raises(ValueError, match="backwards"):
        stream(np.zeros(61), 0.5)
    with pytest.raises(ValueError, match="every frame or of none"):
        stream(np.zeros(61))
    with pytest.raises(ValueError, match="not finite"):
        stream(np.full(61, np.nan), 2.0)
    with pytest.raises(ValueError, match="2 times for 3 frames"):
        smooth(np.zeros((3, 61)), 30, [0, 1])
