"""Offsets between curves, ratios of clocks, and where frames were dropped or inserted."""

import numpy as np
import pytest

from sf_jax.face.curve_offset import Curves, Offset, OffsetError, best_ratio, find_offset
from sf_jax.face.curve_steps import find_shifts, viterbi

FPS = 30


def performance(t: np.ndarray, seed: int = 0) -> np.ndarray:
    """[N, 2]: blinks and speech at times `t`."""
    g = np.random.default_rng(seed)
    blink, jaw = np.zeros_like(t), np.zeros_like(t)
    for at in np.cumsum(g.uniform(0.8, 3.0, 60)):
        blink = np.maximum(blink, np.exp(-(((t - at) / 0.07) ** 2)))
    for at in np.cumsum(g.uniform(0.3, 1.0, 150)):
        jaw += g.uniform(0, 0.7) * np.exp(-(((t - at) / 0.15) ** 2))
    return np.stack([blink, np.clip(jaw, 0, 1)], 1)


def read(t: np.ndarray, noise: float, seed: int = 0) -> np.ndarray:
    """What a model reads: half as strong, with noise."""
    values = performance(t) * 0.5
    return values + noise * np.random.default_rng(seed).normal(size=values.shape)


FILE = Curves(np.arange(600) / FPS, performance(5 + np.arange(600) / FPS))


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 0.37, 2.0])
def test_the_offset_is_found(noise: float, shift: float) -> None:
    seconds = np.arange(600) / FPS
    found = find_offset(FILE, Curves(seconds, read(seconds - shift + 5, noise)))
    assert found.clear and abs(found.seconds - shift) < (0.002 if not noise else 0.5 / FPS)


def test_gaps_and_uneven_times_are_allowed() -> None:
    g = np.random.default_rng(3)
    seconds = np.sort(g.uniform(0, 25, 500))
    values = read(seconds - 1.5 + 5, 0.05)
    values[100:160, 0] = np.nan
    found = find_offset(FILE, Curves(seconds, values))
    assert found.clear and abs(found.seconds - 1.5) < 0.5 / FPS


def test_other_performances_and_regular_ones_have_no_clear_offset() -> None:
    seconds = np.arange(600) / FPS
    for seed in range(1, 21):
        other = find_offset(FILE, Curves(seconds, performance(seconds + 5, seed)))
        assert not other.clear, other
    regular = np.sin(2 * np.pi * seconds)[:, None]
    assert not find_offset(Curves(seconds, regular), Curves(seconds, regular)).clear


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("stated", [1.0, 1.001])
def test_the_ratio_of_clocks(noise: float, stated: float) -> None:
    seconds = np.arange(1800) / FPS
    first = Curves(seconds, performance(5 + seconds))
    second = Curves(seconds * 1.001, read(seconds + 5, noise))
    others = [ratio for ratio in (1.0, 1.001, 1 / 1.001) if ratio != stated]
    found = best_ratio(first, second, [stated, *others])
    assert found.ratio == 1.001 and abs(found.seconds) < 0.3 / FPS


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_dropped_and_inserted_frames(noise: float) -> None:
    frames = np.r_[0:150, 153:450, 449, 450:600]  # three dropped, one shown twice
    seconds = np.arange(len(frames)) / FPS
    video = Curves(seconds, read(frames / FPS + 5, noise))
    shifts = find_shifts(FILE, video, find_offset(FILE, video))
    assert [jump for _, jump in shifts.jumps] == [-3, 1]
    true = frames - np.arange(len(frames))
    wrong = shifts.periods + round(shifts.offset.seconds * FPS) != -true
    assert not wrong[shifts.sure].any() and shifts.sure.mean() > 0.6


def test_noise_alone_makes_no_jump() -> None:
    seconds = np.arange(600) / FPS
    for seed in range(5):
        video = Curves(seconds, read(seconds + 5, 0.15, seed))
        shifts = find_shifts(FILE, video, find_offset(FILE, video))
        assert not shifts.jumps and shifts.sure.all()


def test_the_cheapest_path_is_that_of_all_paths() -> None:
    g = np.random.default_rng(0)
    costs, jump = g.uniform(0, 3, (7, 3)), 2.0
    paths = np.array(np.meshgrid(*[range(3)] * 7)).reshape(7, -1).T
    total = costs[np.arange(7), paths].sum(1) + jump * (np.diff(paths, axis=1) != 0).sum(1)
    path, gaps = viterbi(costs, jump)
    assert path.tolist() == paths[total.argmin()].tolist()
    for row in range(7):
        other = total[paths[:, row] != path[row]].min()
        assert gaps[row] == pytest.approx(other - total.min())


def test_what_cannot_be_aligned_is_an_error() -> None:
    still = Curves(FILE.seconds, np.zeros((600, 2)))
    with pytest.raises(OffsetError, match="none of the compared curves moves"):
        find_offset(FILE, still)
    short = Curves(FILE.seconds[:30], FILE.values[:30])
    with pytest.raises(OffsetError, match="less than 2 s"):
        find_offset(FILE, short)
    with pytest.raises(OffsetError, match="do not increase"):
        Curves(np.zeros(3), np.zeros((3, 1)))
    with pytest.raises(OffsetError, match="2 curves of one recording and 1"):
        find_offset(FILE, Curves(FILE.seconds, FILE.values[:, :1]))


def test_an_offset_says_how_sure_it_is() -> None:
    text = str(Offset(0.5, 1.0, 0.8, 0.2, 9.0, 50))
    assert text == "+0.500 s (r 0.80 over 9.0 s; elsewhere at most 0.20)"
