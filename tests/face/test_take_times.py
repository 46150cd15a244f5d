"""When frames were recorded: rates, rounded frame numbers, real gaps."""

from pathlib import Path

import numpy as np
import pytest

from sf_jax.face import timecode
from sf_jax.face.take_times import timing
from sf_jax.face.timecode import Timecode, TimecodeError

HERE = Path("take.csv")
RATES = [24, 25, 30, 50, 60, 120]


def of(texts, **options):
    return timing(HERE, list(range(2, 2 + len(texts))), texts, **options)


def label(number, rate, drop_frame=False):
    return str(Timecode.at_frame(int(number), rate, drop_frame, decimals=0))


def gaps(found):
    return [note for note in found.notes if "missing" in note]


def rounded(numbers, kind, seed=0):
    draw = np.random.default_rng(seed)
    moves = {"down": [-1, 0], "both": [-1, 0, 1], "up": [0, 1]}[kind]
    return numbers + draw.choice(moves, len(numbers))


@pytest.mark.parametrize("kind", ["down", "both", "up"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("start", [60, 86400 * 240 - 7])  # also over midnight
def test_rounded_frame_numbers_are_evenly_spaced(rate, kind, start):
    start = start if start < 100 else 86400 * rate - 7
    found = of([label(n, rate) for n in rounded(start + np.arange(10 * rate), kind)])
    assert found.counting == rate and found.fps == rate
    assert found.seconds == pytest.approx(np.arange(10 * rate) / rate)
    assert not gaps(found) and any("rounded" in note for note in found.notes)


@pytest.mark.parametrize("rate", RATES)
def test_frames_dropped_among_rounded_numbers_are_gaps(rate):
    numbers = np.arange(10 * rate)
    numbers[2 * rate :] += 3
    numbers[5 * rate :] += 5
    found = of([label(n, rate) for n in rounded(numbers, "down")])
    assert found.counting == rate
    assert found.seconds == pytest.approx(numbers / rate, abs=1.1 / rate)
    assert gaps(found) == ["frames are missing at 2 positions"]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("drops", [0, 1, 9])
def test_exact_labels_keep_their_times(rate, drops):
    draw = np.random.default_rng(rate)
    numbers = np.sort(draw.choice(np.arange(1, 10 * rate), 10 * rate - 1 - drops, replace=False))
    numbers = np.concatenate([[0], numbers])
    found = of([label(n, rate) for n in numbers])
    assert found.counting == rate
    assert found.seconds == pytest.approx(numbers / rate, abs=1e-9)
    assert bool(gaps(found)) == bool(drops)


def test_numbers_rounded_up_to_the_wrap():
    """A frame number of 60 at 60 frames a second is the first of the next second."""
    numbers = np.arange(600)
    texts = [label(n, 60) for n in numbers]
    for second in (1, 2, 4, 7, 8):
        texts[60 * second] = f"00:00:{second - 1:02}:60"
    found = of(texts)
    assert found.counting == 60 and found.seconds == pytest.approx(numbers / 60)
    from_one = [f"00:00:{n // 30:02}:{n % 30 + 1:02}" for n in range(300)]
    found = of(from_one)
    assert found.counting == 30 and found.seconds == pytest.approx(np.arange(300) / 30)
    assert not gaps(found)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("start", [0, 86395, 47584.517])
@pytest.mark.parametrize("gap", [0, 4])
def test_decimals_that_are_milliseconds_of_the_second(rate, start, gap):
    """Frame number and millisecond of a time side by side, the number rounded down by chance."""
    draw = np.random.default_rng(rate)
    numbers = np.arange(10 * rate)
    numbers[5 * rate :] += gap
    texts = []
    for time in (start + numbers / rate + 1e-7) % 86400:
        second, part = divmod(time, 1)
        frame = max(0, int(part * rate - (draw.random() < 0.1)))
        label = str(Timecode.at_frame(int(second) * rate + frame, rate, decimals=0))
        texts.append(f"{label}.{int(part * 1000):03}")
    found = of(texts)
    assert found.counting == rate
    assert found.seconds == pytest.approx(numbers / rate, abs=2e-3)
    assert len(gaps(found)) == bool(gap)


@pytest.mark.parametrize(("fps", "rate"), [(24, 30), (25, 30), (24, 60), (25, 60), (50, 60)])
def test_a_rhythm_of_whole_labels_is_a_rate_and_no_gaps(fps, rate):
    found = of([label(n * rate // fps, rate) for n in range(300)])
    assert found.counting == rate and found.fps == fps and not gaps(found)
    assert found.seconds == pytest.approx(np.arange(300) / fps)


@pytest.mark.parametrize("rate", [29.97, 59.94])
@pytest.mark.parametrize("kind", [None, "down"])
def test_drop_frame_labels(rate, kind):
    exact = timecode.exact_rate(rate)
    numbers = 1790 + np.arange(400)
    moved = numbers if kind is None else rounded(numbers, kind)
    found = of([label(n, exact, True) for n in moved])
    assert found.counting == exact and not gaps(found)
    assert found.seconds == pytest.approx(np.arange(400) / float(exact))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", range(3))
def test_a_varying_rate_is_kept_and_no_gaps_are_invented(seed, rate):
    seconds = np.cumsum(np.random.default_rng(seed).uniform(0.6, 1.5, 300)) / rate
    found = of(timecode.labels_at(seconds, rate))
    assert found.counting == rate
    assert found.seconds == pytest.approx(seconds - seconds[0], abs=1e-3 / rate)
    assert not gaps(found) and any("rate varies" in note for note in found.notes)


@pytest.mark.parametrize(
    ("texts", "rate", "seconds"),
    [
        (["01:00:00:00"], 30, [0]),
        (["01:00:00:59.5"], 60, [0]),
        (["00:00:00:29", "00:00:01:00"], 30, [0, 1 / 30]),
        (["00:00:00:23", "00:00:01:00"], 24, [0, 1 / 24]),
        (["00:00:00:24", "00:00:01:00"], 25, [0, 1 / 25]),
        (["23:59:59:59", "00:00:00:00"], 60, [0, 1 / 60]),
        (["00:00:00:10", "00:00:02:10"], 30, [0, 2]),
        (["00:00:00:10,5", "00:00:00:11,5"], 30, [0, 1 / 30]),
        ([f"00:00:0{n // 15}:{n % 15:02}" for n in range(60)], 15, [n / 15 for n in range(60)]),
    ],
)
def test_few_rows(texts, rate, seconds):
    found = of(texts)
    assert found.counting == rate and found.seconds == pytest.approx(seconds)


def test_rounded_labels_at_a_given_rate():
    texts = [label(n, 30) for n in rounded(np.arange(30, 330), "down")]
    assert of(texts, fps=30).seconds == pytest.approx(np.arange(300) / 30)
    assert of(texts, fps=29.97).seconds == pytest.approx(np.arange(300) * 1001 / 30000)
    assert of(texts, fps=12.5).seconds == pytest.approx(np.arange(300) / 12.5)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["00:00:05:00", "00:00:01:00"], "line 3, .*comes before the line above"),
        (["00:00:00:05", "00:00:00:05"], "line 2, .*every line has the same timecode"),
        (["00:00:59;29", "00:01:00;00"], "line 3, .*leaves out"),
        (["00:00:00;75", "00:00:01;00"], "line 2, .*drop-frame"),
        (["00:00:00:00", "00:00:00"], "line 3, .*is no timecode"),
        (["25:00:00:00"], "line 2, .*no time of a day"),
    ],
)
def test_labels_that_make_no_sense_are_named(texts, message):
    with pytest.raises(TimecodeError, match=rf"take\.csv, {message}"):
        of(texts)
