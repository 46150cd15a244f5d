"""Timecode for the uneven frames of videos."""

import numpy as np
import pytest

from sf_jax.face.frame_labels import time_frames
from sf_jax.face.timecode import Timecode, TimecodeError

NTSC = 30000 / 1001
SLOWING = [*np.arange(30) / 30, *(1 + np.arange(30) / 10)]


@pytest.mark.parametrize(
    ("seconds", "fps", "rate"),
    [
        (SLOWING, 30, 30),
        (np.round(SLOWING, 3), 15.5, 30),  # a mean rate is stated, times are in milliseconds
        (np.arange(300) / NTSC, 29.97, NTSC),
        (np.round(np.arange(300) / NTSC, 3), 29.97, NTSC),
        (np.arange(50) / 25, 25, 25),
        (np.arange(50) / 15, 15, 30),
        (np.delete(np.arange(90) / 60, [7, 8, 30]), 58, 60),
        (np.arange(9) / 7, 7, 30),
    ],
)
def test_frames_on_a_grid_get_whole_labels(seconds, fps: float, rate: float) -> None:
    timing = time_frames(seconds, fps)
    assert float(timing.rate) == pytest.approx(rate) and not timing.notes
    labels = [Timecode.parse(text) for text in timing.labels()]
    found = [float(label.frame(timing.rate) / timing.rate) for label in labels]
    assert np.abs(np.array(found) - seconds).max() <= 0.0011
    if fps != 7:
        assert not any(label.subframe for label in labels)


@pytest.mark.parametrize(("fps", "jitter"), [(29.87, 0.002), (30, 0.006), (25, 0.004), (57, 0.003)])
def test_jittering_frames_keep_their_times_and_share_no_whole_frame(fps, jitter) -> None:
    draw = np.random.default_rng(0)
    seconds = np.arange(200) / fps + np.r_[0, draw.uniform(-jitter, jitter, 199)]
    timing = time_frames(seconds, fps)
    labels = [Timecode.parse(text) for text in timing.labels()]
    found = [float(label.frame(timing.rate) / timing.rate) for label in labels]
    assert np.abs(np.array(found) - seconds).max() < 1e-4
    whole = [(label.hours, label.minutes, label.seconds, label.frames) for label in labels]
    assert len(set(whole)) == 200 and whole == sorted(whole)


@pytest.mark.parametrize(
    ("start", "counts", "fps", "first", "last"),
    [
        ("10:11:12:13", 25, 25, "10:11:12:13.000", "10:11:13:12.000"),
        ("01:00:59;28", 30, NTSC, "01:00:59;28.000", "01:01:00;24.000"),  # 00 and 01 left out
        ("01:00:59;28", None, NTSC, "01:00:59;28.000", "01:01:00;24.000"),
        ("01:00:59;28", 30, 2 * NTSC, "01:00:59;56.000", "01:01:00;24.000"),
        ("01:00:00:12", 24, 60, "01:00:00:30.000", "01:00:00:54.000"),
        ("23:59:59:20", 30, 30, "23:59:59:20.000", "00:00:00:14.000"),
    ],
)
def test_labels_begin_at_the_timecode_of_the_file(start, counts, fps, first, last) -> None:
    timing = time_frames(np.arange(25) / fps, fps, start, counts)
    assert not timing.notes and timing.labels()[0] == first and timing.labels()[-1] == last


@pytest.mark.parametrize(
    ("start", "label", "note"),
    [
        ("01:00:59;28", "01:00:59:28.000", "is drop-frame, its 30 frames a second are not"),
        ("01:00:59:45", "00:00:00:00.000", "was not used: 01:00:59:45 counts beyond"),
        ("31:00:59:05", "00:00:00:00.000", "was not used: '31:00:59:05' is no time"),
        ("soon", "00:00:00:00.000", "was not used: 'soon' is no timecode"),
    ],
)
def test_a_timecode_that_does_not_fit_is_reported(start: str, label: str, note: str) -> None:
    timing = time_frames([0, 1 / 30], 30, start)
    assert timing.labels()[0] == label and note in timing.notes[0]


def test_drop_frame_is_refused_at_other_rates() -> None:
    with pytest.raises(TimecodeError, match="drop-frame"):
        time_frames([0, 0.04], 25, drop_frame=True)
    assert ";" in time_frames([0, 1 / NTSC], 29.97, drop_frame=True).labels()[0]


def test_what_a_person_reads_of_it() -> None:
    assert str(time_frames(np.arange(300) / NTSC, 29.97)) == "300 frames at 29.97 a second"
    assert str(time_frames([0], 30)) == "1 frame"
    text = "60 frames at uneven times, the last at 3.900 s; timecode at 30 a second"
    assert str(time_frames(SLOWING, 15)) == text
