"""Labels of frames at any times: standard rates, strictly increasing, a thousandth of a frame."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_jax.face import timecode
from sf_jax.face.timecode import Timecode, TimecodeError

RATES = [24, 25, 29.97, 30, 50, 59.94, 60, 120]


def frames(labels, rate):
    return [Timecode.parse(label).frame(rate) for label in labels]


@given(
    st.lists(st.floats(0, 0.2, allow_subnormal=False), max_size=40),
    st.sampled_from([*RATES, 29.83, 1, 15, 90, 1000]),
    st.sampled_from(["00:00:00:00.000", "10:59:59:23.999", "01:02:03:04"]),
)
def test_labels_increase_strictly_and_keep_the_times(steps, nominal, start):
    seconds = np.cumsum([1.4, *(0.002 + step for step in steps)]).tolist()
    labels = timecode.labels_at(seconds, nominal, start)
    counting = timecode.counting_rate(nominal)
    assert counting in timecode.STANDARD_RATES
    assert labels[0].startswith(start)
    numbers = frames(labels, counting)
    assert all(b > a for a, b in pairwise(numbers))
    kept = [float((number - numbers[0]) / counting) for number in numbers]
    assert kept == pytest.approx(np.subtract(seconds, seconds[0]), abs=1e-3 / float(counting))


def test_frames_at_one_time_are_a_thousandth_of_a_frame_apart():
    assert timecode.labels_at([0, 0.1, 0.1, 0.2], 30) == [
        "00:00:00:00.000",
        "00:00:00:03.000",
        "00:00:00:03.001",
        "00:00:00:06.000",
    ]
    with pytest.raises(TimecodeError, match="frame 501 .* too many share this time"):
        timecode.labels_at([0.1] * 1000, 30)


def test_labels_run_over_midnight_and_in_drop_frame():
    assert timecode.labels_at([5, 5.04], 25, "23:59:59:24")[1] == "00:00:00:00.000"
    second = Fraction(1001, 30000)
    assert timecode.labels_at([0, second], 29.97, "00:00:59;29")[1] == "00:01:00;02.000"
    assert timecode.labels_at([0, second], 29.97, "00:00:59:29")[1] == "00:01:00:00.000"
    assert timecode.labels_at([0, second], 29.97, drop_frame=True)[1] == "00:00:00;01.000"
    assert timecode.labels_at([], 25) == []
    assert timecode.labels_at([7.0], 30) == ["00:00:00:00.000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 0.2, 0.1], 30), "frame 2 at 0.1 s comes before the one at 0.2 s"),
        (([0, float("nan")], 30), "frame 1 is at nan"),
        (([0, float("inf")], 30), "frame 1 is at inf"),
        (([0, 1], 25, "00:00:59;24"), "29.97 and 59.94 only"),
        (([0, 1], 24, "00:00:00:24"), "beyond the 24"),
        (([0, 1], 24, "yesterday"), "'yesterday' is no timecode"),
        (([0, 1], 0), "a frame rate is a positive number"),
    ],
)
def test_times_and_rates_without_labels_are_refused(arguments, message):
    with pytest.raises(TimecodeError, match=message):
        timecode.labels_at(*arguments)


def test_counting_rates_are_standard():
    counting = {30.01: 30, 29.5: 30, 59.5: 60, 90: 120, 100: 100, 144: 240, 1000: 240, 12.5: 25}
    for rate, expected in counting.items():
        assert timecode.counting_rate(rate) == expected, rate
