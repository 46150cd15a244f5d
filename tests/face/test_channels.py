"""The table of the 61 channels against independent statements about it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_jax.face import channels
from sf_jax.face.channels import CHANNELS, INDEX, NAMES, UnknownChannel, lookup

coefficient_rows = st.lists(st.floats(-1, 1, width=32), min_size=61, max_size=61).map(np.float32)


def test_counts_and_order_of_a_live_link_file():
    assert len(NAMES) == len(set(NAMES)) == 61
    assert NAMES[0] == "EyeBlinkLeft" and NAMES[7] == "EyeBlinkRight"
    assert NAMES[14:18] == ("JawForward", "JawRight", "JawLeft", "JawOpen")
    assert INDEX["MouthLeft"] == INDEX["MouthRight"] + 1
    assert NAMES[51:53] == ("TongueOut", "HeadYaw") and NAMES[-1] == "RightEyeRoll"


def test_udp_order_differs_in_the_four_directions_only():
    differing = {a for a, b in zip(NAMES, channels.UDP_ORDER, strict=True) if a != b}
    assert differing == {"JawLeft", "JawRight", "MouthLeft", "MouthRight"}
    assert sorted(channels.UDP_ORDER) == sorted(NAMES)


def test_ranges():
    assert np.all(channels.LOW[:52] == 0) and np.all(channels.LOW[52:] == -1)
    assert np.all(channels.HIGH == 1)


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.name)
def test_every_spelling_finds_its_channel(channel):
    spellings = [channel.name, channel.name.upper(), f" {channel.name} ", f"node.{channel.name}"]
    if channel.arkit:
        spellings += [channel.arkit, channel.short, channel.short.lower(), f"m.{channel.short} "]
    for spelling in spellings:
        assert lookup(spelling) is channel, spelling


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("mouthSmile_L", "MouthSmileLeft"),
        ("mouth_smile_r", "MouthSmileRight"),
        ("blendShape1.jawOpen", "JawOpen"),
        ("eye_look_in_left", "EyeLookInLeft"),
        ("jawLeft", "JawLeft"),
        ("left_eye_yaw", "LeftEyeYaw"),
    ],
)
def test_spellings_met_in_the_wild(spelling, name):
    assert lookup(spelling).name == name


@pytest.mark.parametrize("name", ["", "_neutral", "MouthSmile", "JawOpenLeft", "JawOpen2"])
def test_unknown_names_are_not_guessed(name):
    with pytest.raises(UnknownChannel, match="not one of the 61"):
        lookup(name)


@given(coefficient_rows)
def test_mirroring_twice_changes_nothing(row):
    assert np.array_equal(channels.mirror(channels.mirror(row)), row)


def test_mirror_swaps_sides_and_turns_yaw_and_roll():
    face = np.zeros(61, np.float32)
    for name, value in {
        "MouthSmileLeft": 0.5,
        "JawRight": 0.25,
        "HeadYaw": 0.75,
        "HeadPitch": 0.125,
        "LeftEyeRoll": 0.375,
    }.items():
        face[INDEX[name]] = value
    mirrored = channels.mirror(face)
    found = {NAMES[i]: float(mirrored[i]) for i in np.flatnonzero(mirrored)}
    assert found == {"MouthSmileRight": 0.5, "JawLeft": 0.25, "HeadYaw": -0.75,
                     "HeadPitch": 0.125, "RightEyeRoll": -0.375}  # fmt: skip


@given(coefficient_rows)
def test_eye_pitch_is_converted_alone(row):
    converted = channels.eye_pitch_downward(row, "up")
    changed = np.isin(NAMES, ["LeftEyePitch", "RightEyePitch"])
    assert np.array_equal(converted[~changed], row[~changed])
    assert np.array_equal(converted[changed], -row[changed])
    assert channels.eye_pitch_downward(row, "down") is row


def test_disagreeing_eye_pitch_is_noticed():
    face = np.zeros(61)
    face[[INDEX["EyeLookDownLeft"], INDEX["EyeLookDownRight"]]] = 0.4
    assert not channels.eye_pitch_disagrees(face)
    face[channels.EYE_PITCH] = 0.2
    assert not channels.eye_pitch_disagrees(face)
    assert channels.eye_pitch_disagrees(channels.eye_pitch_downward(face, "up"))
    with pytest.raises(ValueError, match="sideways"):
        channels.eye_pitch_downward(face, "sideways")
