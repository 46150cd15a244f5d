"""Live Link Face CSV and its timecode: exact round trips, inferred rates, refusals."""

import csv
import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_jax.face import livelink, timecode
from sf_jax.face.channels import INDEX, LOW, NAMES
from sf_jax.face.livelink import LiveLinkError
from sf_jax.face.timecode import Timecode, TimecodeError
from sf_jax.media import files

SHARED = Path(__file__).parents[2] / "../shared"
RATES = [24, 25, 29.97, 30, 50, 59.94, 60]


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name} in ../shared, which is not there")
    return path


def faces(count, seed=0):
    return np.random.default_rng(seed).uniform(LOW, 1.0, (count, 61))


def write(path, values, fps=30, **more):
    livelink.write(path, values, **{"timecodes": livelink.labels(len(values), fps)} | more)


# --- timecode


@given(
    st.integers(0, 10**10),
    st.sampled_from(RATES),
    st.booleans(),
)
def test_a_label_and_its_frame_number_are_the_same_thing(ticks, fps, drop_frame):
    drop_frame = drop_frame and fps in (29.97, 59.94)
    number = Fraction(ticks % (1000 * timecode.frames_per_day(fps, drop_frame)), 1000)
    label = Timecode.at_frame(number, fps, drop_frame)
    assert label.frame(fps) == number
    assert Timecode.parse(str(label)) == label


@pytest.mark.parametrize(
    ("number", "fps", "drop_frame", "label"),
    [
        (1799, 29.97, True, "00:00:59;29.000"),
        (1800, 29.97, True, "00:01:00;02.000"),
        (17982, 29.97, True, "00:10:00;00.000"),
        (107892, 29.97, True, "01:00:00;00.000"),
        (3600, 59.94, True, "00:01:00;04.000"),
        (107892, 29.97, False, "00:59:56:12.000"),
        (Fraction(35999999, 10000), 60, False, "00:01:00:00.000"),
        (24 * 86400 + 1, 24, False, "00:00:00:01.000"),
    ],
)
def test_known_labels(number, fps, drop_frame, label):
    assert str(Timecode.at_frame(number, fps, drop_frame)) == label


def test_drop_frame_keeps_to_the_clock_and_non_drop_does_not():
    hour = 3600 * Fraction(30000, 1001)
    assert str(Timecode.at_frame(hour, 29.97, True)) == "01:00:00;00.108"
    assert str(Timecode.at_frame(hour, 29.97, False)) == "00:59:56:12.108"


def test_subframe_decimals_are_kept():
    for text in ("13:13:04:31.652", "00:00:00:00.1", "23:59:59:59", "01:02:03;04.00010"):
        assert str(Timecode.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "1.5", "00:00:00", "24:00:00:00", "00:60:00:00", "00:00:00:00.", "a0:00:00:00"]
)
def test_what_is_no_timecode(text):
    with pytest.raises(TimecodeError):
        Timecode.parse(text)


def test_labels_that_do_not_exist():
    with pytest.raises(TimecodeError, match="beyond the 24"):
        Timecode.parse("00:00:00:24.000").frame(24)
    with pytest.raises(TimecodeError, match="leaves out"):
        Timecode.parse("00:01:00;01.000").frame(29.97)
    with pytest.raises(TimecodeError, match="29.97 and 59.94 only"):
        Timecode.at_frame(0, 25, True)


def test_rates_are_understood_as_they_are_meant():
    assert timecode.exact_rate(29.97) == Fraction(30000, 1001)
    assert timecode.exact_rate(23.98) == timecode.exact_rate(23.976) == Fraction(24000, 1001)
    assert timecode.exact_rate(30) == 30 and timecode.exact_rate(29.98) != Fraction(30000, 1001)
    assert [timecode.counting_rate(x) for x in (24, 15, 1, 29.98, 59.5)] == [24, 30, 30, 30, 60]
    for wrong in (0, -1, float("nan"), float("inf"), "thirty"):
        with pytest.raises(TimecodeError):
            timecode.exact_rate(wrong)


# --- round trips


@pytest.mark.parametrize("drop_frame", [False, True])
@pytest.mark.parametrize("fps", RATES)
def test_round_trip_of_500_frames_is_exact(tmp_path, fps, drop_frame):
    if drop_frame and fps not in (29.97, 59.94):
        with pytest.raises(TimecodeError):
            livelink.labels(2, fps, drop_frame=True)
        return
    values = np.round(faces(500), 10)
    path, again = tmp_path / "a.csv", tmp_path / "b.csv"
    start = "23:59:52:11.652"  # runs over midnight, and over a minute for drop-frame
    labels = livelink.labels(500, fps, start, drop_frame)
    livelink.write(path, values, timecodes=labels)
    take = livelink.read(path, fps=None if drop_frame or fps == int(fps) else fps)
    rate = timecode.exact_rate(fps)
    assert take.fps == float(rate) and take.timecode_rate == rate
    assert np.array_equal(take.coefficients, values)
    assert take.seconds == pytest.approx(np.arange(500) / float(rate), abs=1e-9)
    assert take.timecodes[0] == start.replace(":11", ";11" if drop_frame else ":11")
    assert take.timecodes == labels
    livelink.write(again, take.coefficients, timecodes=take.timecodes)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("decimals", [1, 3, 10])
def test_written_decimals(tmp_path, decimals):
    values = faces(20)
    values[:, 60] = -1e-12
    write(tmp_path / "a.csv", values, decimals=decimals)
    take = livelink.read(tmp_path / "a.csv")
    assert np.abs(take.coefficients - values).max() <= 0.5001 * 10**-decimals
    assert "-0.0" + "0" * (decimals - 1) + "\n" not in (tmp_path / "a.csv").read_text()


def test_irregular_times_keep_their_subframes(tmp_path):
    seconds = np.cumsum(np.random.default_rng(1).uniform(0.02, 0.05, 100))
    write(tmp_path / "a.csv", faces(100), timecodes=timecode.labels_at(seconds, 30))
    take = livelink.read(tmp_path / "a.csv", fps=30)
    assert take.seconds == pytest.approx(seconds - seconds[0], abs=1.1e-3 / 30)


@pytest.mark.parametrize("fps", [1, 12.5, 15, 29.98])
def test_rates_without_a_timecode_of_their_own(tmp_path, fps):
    write(tmp_path / "a.csv", faces(500), fps)
    take = livelink.read(tmp_path / "a.csv")
    assert take.fps == pytest.approx(fps, rel=1e-5)
    assert take.seconds == pytest.approx(np.arange(500) / fps, abs=1e-4)


def test_sources_are_kept_in_a_last_column(tmp_path):
    sources = ["a,b.png", 'quo"te.png', "ünï.png"]
    write(tmp_path / "a.csv", faces(3), fps=1, sources=sources)
    assert livelink.read(tmp_path / "a.csv").sources == sources
    write(tmp_path / "a.csv", faces(3), fps=1)
    assert livelink.read(tmp_path / "a.csv").sources is None
    header = (tmp_path / "a.csv").read_text().splitlines()[0].split(",")
    assert header == ["Timecode", "BlendShapeCount", *NAMES]


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(TypeError), files.stream(path, newline="") as file:
        file.write("half")
        file.write(1)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# --- reading


def table(count=40, fps=30):
    """Header and rows of a sound file, as lists to be spoilt."""
    rows = [[label, "61", *["0.25"] * 61] for label in livelink.labels(count, fps)]
    return [["Timecode", "BlendShapeCount", *NAMES], *rows]


def saved(tmp_path, rows):
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    path = tmp_path / "take.csv"
    path.write_text(text.getvalue(), encoding="utf-8-sig")
    return path


def test_columns_are_found_by_name_in_any_order_and_spelling(tmp_path):
    rows = table()
    for row in rows[1:]:
        row[2:] = [f"{i / 100}" for i in range(61)]
    rows[0] = [name.lower() for name in rows[0]]
    rows = [list(reversed(row)) for row in rows]
    take = livelink.read(saved(tmp_path, rows))
    assert np.array_equal(take.coefficients[3], np.arange(61) / 100)


def test_unknown_column_is_noted(tmp_path):
    rows = [[*row, "x"] for row in table()]
    take = livelink.read(saved(tmp_path, rows))
    assert any("column 64, 'x'" in note for note in take.notes)


def spoil(line, column, value):
    def change(rows):
        position = rows[0].index(column)
        rows[line - 1][position] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil(7, "JawOpen", "abc"), "line 7, JawOpen: found 'abc'"),
        (spoil(7, "JawOpen", ""), "line 7, JawOpen: found ''"),
        (spoil(7, "JawOpen", "nan"), "line 7, JawOpen: found 'nan'"),
        (spoil(7, "JawOpen", "inf"), "line 7, JawOpen: found 'inf'"),
        (spoil(7, "JawOpen", "1.21"), "line 7, JawOpen: found '1.21', expected a number between 0"),
        (spoil(7, "JawOpen", "-0.06"), "line 7, JawOpen: found '-0.06'"),
        (
            spoil(7, "HeadYaw", "12.5"),
            "line 7, HeadYaw: found '12.5', expected a number between -1",
        ),
        (spoil(7, "Timecode", "00:00:01"), "line 7, Timecode: '00:00:01' is no timecode"),
        (spoil(7, "Timecode", "00:00:00:02.000"), "line 7, Timecode: .* comes before"),
        (spoil(1, "JawOpen", "JawOpened"), "line 1: the header lacks JawOpen"),
        (spoil(1, "JawOpen", "jawforward"), "line 1: the header names JawForward twice"),
        (lambda rows: rows[6].pop(), "line 7: 62 fields, but the header has 63 columns"),
        (lambda rows: rows.__delitem__(slice(1, None)), "holds no frames"),
        (lambda rows: rows.clear(), "is empty"),
    ],
)
def test_faults_are_named_by_file_line_and_column(tmp_path, change, message):
    rows = table()
    change(rows)
    with pytest.raises(LiveLinkError, match=rf"take\.csv.*{message}"):
        livelink.read(saved(tmp_path, rows))


def test_slight_overshoot_is_clamped_and_reported(tmp_path):
    rows = table()
    spoil(5, "JawOpen", "1.003")(rows)
    spoil(6, "EyeLookInRight", "1.1")(rows)
    spoil(6, "MouthClose", "-0.01")(rows)
    spoil(9, "HeadYaw", "-1.5")(rows)
    take = livelink.read(saved(tmp_path, rows))
    assert take.coefficients[4, INDEX["EyeLookInRight"]] == 1
    assert take.coefficients[4, INDEX["MouthClose"]] == 0
    assert take.coefficients[7, INDEX["HeadYaw"]] == -1
    assert take.notes[0].startswith("3 of 2080 coefficients clamped into [0, 1], the farthest")
    assert "EyeLookInRight 1.1000 on line 6" in take.notes[0]
    assert take.notes[1].startswith("1 of 360 angles clamped into [-1, 1]")
    assert "HeadYaw -1.5000 on line 9" in take.notes[1]


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "take.csv"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(LiveLinkError, match="not a CSV"):
        livelink.read(path)


# --- rates


@pytest.mark.parametrize("nominal", [24, 25, 30, 60])
def test_rate_is_seen_where_the_frame_field_wraps(tmp_path, nominal):
    rows = table(count=100, fps=nominal)
    take = livelink.read(saved(tmp_path, rows))
    assert take.timecode_rate == nominal and take.fps == nominal


def test_given_rate_overrides_and_gaps_are_kept(tmp_path):
    rows = table(count=100, fps=30)
    del rows[50]
    path = saved(tmp_path, rows)
    ntsc = livelink.read(path, fps=29.97)
    assert ntsc.seconds[-1] == pytest.approx(99 * 1001 / 30000)
    assert any("missing at 1 positions" in note for note in ntsc.notes)
    evenly = livelink.read(path, fps=10)
    assert evenly.fps == 10 and evenly.seconds == pytest.approx(np.arange(99) / 10)
    assert any("spaced evenly" in note for note in evenly.notes)


def test_drop_frame_by_flag(tmp_path):
    start = "00:00:50:00.000"
    labels = livelink.labels(600, 29.97, start, drop_frame=True)
    livelink.write(tmp_path / "a.csv", faces(600), timecodes=labels)
    text = (tmp_path / "a.csv").read_text()
    assert "00:01:00;02" in text and "00:01:00;01" not in text
    (tmp_path / "b.csv").write_text(text.replace(";", ":"))
    take = livelink.read(tmp_path / "b.csv", drop_frame=True)
    assert take.seconds == pytest.approx(np.arange(600) * 1001 / 30000)
    assert take.fps == pytest.approx(30000 / 1001)


@pytest.mark.parametrize("fps", [None, 24])
def test_a_single_frame(tmp_path, fps):
    take = livelink.read(saved(tmp_path, table(count=1)), fps=fps)
    assert take.seconds.tolist() == [0.0] and take.fps == (fps or 30)


def test_same_timecode_on_every_line_needs_a_rate(tmp_path):
    rows = table(count=3)
    for row in rows[1:]:
        row[0] = "00:00:00:00.000"
    path = saved(tmp_path, rows)
    with pytest.raises(LiveLinkError, match="give the frame rate"):
        livelink.read(path)
    assert livelink.read(path, fps=25).seconds == pytest.approx([0, 0.04, 0.08])


# --- writing


def test_writer_refuses_what_the_reader_would(tmp_path):
    values = faces(4)
    for bad in (np.nan, 1.001, -0.001):
        values[2, INDEX["JawOpen"]] = bad
        with pytest.raises(LiveLinkError, match="frame 2, JawOpen"):
            write(tmp_path / "a.csv", values)
    with pytest.raises(LiveLinkError, match=r"expected \[N, 61\]"):
        write(tmp_path / "a.csv", faces(4)[:, :52])
    with pytest.raises(LiveLinkError, match="3 sources for 4 frames"):
        write(tmp_path / "a.csv", faces(4), sources=["a", "b", "c"])
    with pytest.raises(LiveLinkError, match="2 timecodes for 4 frames"):
        write(tmp_path / "a.csv", faces(4), timecodes=livelink.labels(2, 30))
    assert not list(tmp_path.iterdir())


# --- files of others


def test_real_take_reads_whole():
    take = livelink.read(shared("takes/range_of_motion.csv"))
    assert take.coefficients.shape == (4030, 61)
    assert take.timecode_rate == 60 and take.fps == pytest.approx(29.98, abs=0.005)
    assert take.timecodes[0] == "13:13:04:31.652"
    assert np.all(np.diff(take.seconds) > 0)
    assert any("1 of 209560" in n and "EyeLookInRight 1.0033" in n for n in take.notes)
    assert any("counts 60" in n and "runs at 29.98" in n for n in take.notes)
    assert not any("eye pitch" in n for n in take.notes)


def test_real_take_is_written_back_to_the_letter(tmp_path):
    path = shared("takes/range_of_motion.csv")
    take = livelink.read(path)
    livelink.write(tmp_path / "a.csv", take.coefficients, timecodes=take.timecodes)
    old, new = path.read_text().splitlines(), (tmp_path / "a.csv").read_text().splitlines()
    assert [i for i, (a, b) in enumerate(zip(old, new, strict=True), 1) if a != b] == [545]


def test_results_of_released_models_read():
    semantic = livelink.read(shared("formats/semanticface_result.csv"))
    assert semantic.seconds.tolist() == [0.0, 3.0]
    assert semantic.coefficients[0, INDEX["MouthSmileLeft"]] == 0.6
    path = shared("formats/keyframeface_example_result.csv")
    assert any("eye pitch" in note for note in livelink.read(path).notes)
    keyframes = livelink.read(path, eye_pitch="up")
    assert not any("eye pitch" in note for note in keyframes.notes)
    assert keyframes.coefficients[0, INDEX["LeftEyePitch"]] == 0.2
    assert keyframes.fps == 1
