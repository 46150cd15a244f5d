"""Times of frames: from time stamps that are missing, repeated, out of order or restarted."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from sf_jax.media.video_times import PresentationTimes

TENTH = Fraction(1, 10)


def times_of(stamps: list, **how) -> tuple[list[float], PresentationTimes]:
    """Times of frames with these stamps, in tenths of a second, of frames a tenth long."""
    times = PresentationTimes(TENTH, **how)
    exact = [None if stamp is None else Fraction(stamp) / 10 for stamp in stamps]
    return [float(10 * time) for time, _ in times((stamp, 0) for stamp in exact)], times


@pytest.mark.parametrize(
    ("stamps", "expected", "mended"),
    [
        ([5, 6, 9, 12], [0, 1, 4, 7], 0),
        ([-3, -2, -1, 0], [0, 1, 2, 3], 0),
        ([0, 1, None, 3], [0, 1, 2, 3], 1),
        ([0, None, 1, 2], [0, 0.5, 1, 2], 1),  # between its neighbours
        ([0, 1, 1, 2], [0, 1, 1.5, 2], 1),
        ([0, 1, 3, 2, 4], [0, 1, 1.5, 2, 4], 1),
        ([0, 1, 99999, 3, 4], [0, 1, 2, 3, 4], 1),  # a damaged stamp
        ([20, 21, 0, 23, 24], [0, 1, 2, 3, 4], 1),
        ([None, None, None], [0, 1, 2], 2),
        ([None, 7, 8], [0, 1, 2], 0),
        ([0, 1, 2, 2, 2, 2], [0, 1, 2, 3, 4, 5], 3),
        ([7], [0], 0),
        ([], [], 0),
    ],
)
def test_times_increase(stamps: list, expected: list[float], mended: int) -> None:
    found, times = times_of(stamps)
    assert found == pytest.approx(expected) and times.mended == mended
    assert all(a < b for a, b in pairwise(found)) and times.spliced == []


def test_a_restarted_clock_goes_on() -> None:
    found, times = times_of([100, 101, 102, 0, 1, 2])
    assert found == pytest.approx([0, 1, 2, 3, 4, 5])
    assert times.spliced == pytest.approx([0.3]) and times.mended == 0


def test_a_long_step_is_a_pause_except_in_mpeg_streams() -> None:
    stamps = [0, 1, 2000, 2001]
    assert times_of(stamps)[0] == pytest.approx([0, 1, 2000, 2001])
    assert times_of(stamps, restarts=True)[0] == pytest.approx([0, 1, 2, 3])
    assert times_of([0, 1, 500_000, 500_001])[0] == pytest.approx([0, 1, 2, 3])  # 14 hours


def test_rounding_of_the_time_base_goes_and_real_unevenness_stays() -> None:
    exact = [Fraction(1001 * i, 30000) for i in range(40)]
    rounded = [Fraction(round(time * 1000), 1000) for time in exact]
    grid, tick = Fraction(30000, 1001), Fraction(1, 1000)
    times = PresentationTimes(1 / grid, grid, tick)
    assert [time for time, _ in times((stamp, 0) for stamp in rounded)] == exact
    uneven = [time + Fraction(i % 7, 500) for i, time in enumerate(exact)]
    times = PresentationTimes(1 / grid, grid, tick)
    found = [float(time) for time, _ in times((stamp, 0) for stamp in uneven)]
    assert np.abs(np.array(found) - np.array(uneven, float)).max() <= 0.001
    assert np.abs(np.array(found) - np.array(exact, float)).max() > 0.01


def test_any_stamps_give_increasing_times() -> None:
    draw = np.random.default_rng(0)
    for _ in range(100):
        stamps = [None if x < 0 else int(x) for x in draw.integers(-5, 40, 50)]
        found, _ = times_of(stamps, restarts=bool(draw.integers(2)), grid=Fraction(10))
        assert len(found) == 50 and all(a < b for a, b in pairwise(found))
        assert max(np.diff(found)) <= 41
