"""The strict parser: every layout reads, every fault is named, nothing is filled in."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sf_jax.face import answers
from sf_jax.face.answers import AnswerError, parse, to_json
from sf_jax.face.channels import CHANNELS, HIGH, INDEX, LOW, NAMES, lookup

SHARED = Path(__file__).parents[2] / "../shared"

rows = st.tuples(
    *(
        st.integers(round(c.low * 1000), round(c.high * 1000)).map(lambda x: x / 1000)
        for c in CHANNELS
    )
).map(np.float32)
prose = st.text(st.characters(exclude_characters="{", exclude_categories=["Cs"]), max_size=80)


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name} in ../shared, which is not there")
    return path


def sound(**changes):
    """A complete flat answer as a dict, with changes by channel name; None leaves one out."""
    members = {name: (i % 10) / 10 for i, name in enumerate(NAMES)} | changes
    return {name: value for name, value in members.items() if value is not None}


@given(rows, prose, st.sampled_from(["flat", "nested", "keyframe"]), st.integers(3, 8))
@settings(max_examples=60)
def test_written_answers_are_read_back(row, words, layout, decimals):
    text = words + "\n\n" + to_json(row, layout, decimals, analysis="raised brows {x}")
    answer = parse(text)
    assert np.abs(answer.coefficients - row).max() <= 1e-6
    assert answer.layout == layout and answer.coefficients.dtype == np.float32
    assert answer.keyframe == ("Keyframe_one" if layout == "keyframe" else None)
    assert ("raised brows {x}" in answer.rationale) == (layout == "nested")


@given(st.permutations(range(61)), st.data())
@settings(max_examples=30)
def test_order_and_spelling_do_not_matter(order, data):
    members = {}
    for i in order:
        channel = CHANNELS[i]
        spellings = [channel.name, channel.name.lower(), channel.arkit, channel.short]
        name = data.draw(st.sampled_from([x for x in spellings if x]))
        members[name] = i / 100
    answer = parse(json.dumps(members))
    assert answer.coefficients == pytest.approx(np.arange(61) / 100)


def test_rationale_is_kept_and_fences_are_not():
    answer = parse("**Smile** {strong}.\n```json\n" + json.dumps(sound()) + "\n```\n")
    assert answer.rationale == "**Smile** {strong}." and answer.notes == []


def test_text_after_the_json_is_noted():
    text = "A smile.\n\n" + json.dumps(sound()) + "\nDone."
    assert parse(text).notes == ["text after the JSON was not read"]


def test_the_rationale_may_follow_the_values():
    answer = parse(json.dumps(sound()) + "\n\n1. Expression: smile.")
    assert answer.rationale == "1. Expression: smile." and answer.notes == []


def test_nested_analysis_becomes_lines():
    analysis = {"expression_category": "smile", "muscle_movements": {"jaw": "open"}}
    answer = parse({"analysis": analysis, "arkit": sound()})
    assert answer.rationale == "expression_category: smile\nmuscle_movements: jaw: open"
    assert answer.coefficients[INDEX["EyeLookDownLeft"]] == np.float32(0.1)


def test_negative_zero_is_zero():
    answer = parse(json.dumps(sound()).replace('"HeadRoll": 0.4', '"HeadRoll": -0.0'))
    roll = answer.coefficients[INDEX["HeadRoll"]]
    assert roll == 0 and not np.signbit(roll)
    assert "-0.0" not in to_json(np.full(61, -0.0)) + to_json(np.full(61, -1e-9).clip(LOW, HIGH))


@pytest.mark.parametrize("wrap", [
    lambda x: x, lambda x: {"analysis": "", "arkit": x}, lambda x: {"Keyframe_two": x},
])  # fmt: skip
@pytest.mark.parametrize("name", ["EyeBlinkLeft", "MouthPucker", "RightEyeRoll"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "1 of 61 channels are missing: {name}"),
        ("0.5", "{name} is '0.5', expected a number"),
        (True, "{name} is 'True', expected a number"),
        ([0.5], r"{name} is '\[0.5\]', expected a number"),
        (float("nan"), "{name} is 'nan', expected"),
        (float("inf"), "{name} is 'inf', expected"),
        (1.001, "{name} is '1.001', expected"),
        (-1.001, "{name} is '-1.001', expected"),
    ],
)
def test_faults_name_the_channel(wrap, name, value, message):
    record = wrap(sound(**{name: value}))
    for answer in (record, json.dumps(record)):
        with pytest.raises(AnswerError, match=message.format(name=name)):
            parse(answer)


def test_null_is_no_number():
    text = json.dumps(sound()).replace('"JawOpen": 0.7', '"JawOpen": null')
    with pytest.raises(AnswerError, match="JawOpen is 'None', expected a number"):
        parse(text)


@pytest.mark.parametrize("again", ["JawOpen", "jawOpen", "jaw_open"])
def test_twice_the_same_channel(again):
    text = json.dumps(sound())[:-1] + f', "{again}": 0.7}}'
    with pytest.raises(AnswerError, match="JawOpen is given twice"):
        parse(text)


def test_unknown_channel():
    with pytest.raises(AnswerError, match="unknown channel: 'MouthSmile'"):
        parse(sound(MouthSmile=0.1))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "no JSON object"),
        ("I cannot see a face.", "no JSON object"),
        ("{}", "no JSON object"),
        ("{unquoted: 1}", "no JSON object"),
        (json.dumps(sound()) * 2, "2 JSON objects"),
        ([0.0] * 61, "expected text or an object"),
        ({"arkit": [0.0] * 61}, "'arkit' holds .* expected the channels"),
        ({"Keyframe_one": sound(), "Keyframe_two": sound()}, "expected one keyframe"),
        ({"Keyframe_one": 3}, "'Keyframe_one' holds '3'"),
        ({"arkit": sound(), "extra": 1}, 'expected "analysis" and "arkit" once'),
        ("[" * 100000 + '{"a":' * 100000, "cannot be read|breaks off"),
        ('{"JawOpen": ' + "9" * 5000 + "}", "cannot be read"),
    ],
)
def test_what_is_no_answer(answer, message):
    with pytest.raises(AnswerError, match=message):
        parse(answer)


@given(st.sampled_from(["flat", "nested", "keyframe"]), st.integers(1, 10**6))
def test_every_truncation_is_an_error(layout, cut):
    text = to_json(np.full(61, 0.5), layout)
    with pytest.raises(AnswerError):
        parse(text[: cut % len(text)])


@given(prose | st.text(max_size=200))
def test_any_other_text_is_an_answer_error(text):
    with pytest.raises(AnswerError):
        parse(text)


def test_answers_of_52():
    blendshapes = dict(list(sound().items())[:52])
    answer = parse(blendshapes, channels=52)
    assert answer.coefficients.shape == (52,)
    assert json.loads(to_json(answer.coefficients, decimals=1)) == blendshapes
    with pytest.raises(AnswerError, match="9 of 61 channels are missing: HeadYaw"):
        parse(blendshapes)
    with pytest.raises(AnswerError, match="HeadYaw is given, but only the 52"):
        parse(sound(), channels=52)
    with pytest.raises(ValueError, match="61 or 52"):
        parse(blendshapes, channels=51)


def test_writer_refuses_what_the_reader_would():
    values = np.zeros(61)
    for bad in (np.nan, 1.01, -0.01):
        values[INDEX["JawOpen"]] = bad
        with pytest.raises(AnswerError, match="JawOpen"):
            to_json(values)
    with pytest.raises(AnswerError, match=r"expected \[61\] or \[52\]"):
        to_json(np.zeros((1, 61)))
    with pytest.raises(ValueError, match="'yaml'"):
        to_json(np.zeros(61), "yaml")


# --- MS-SWIFT files


def test_semanticface_results_read():
    results = answers.read_results(shared("formats/semanticface_result.jsonl"))
    assert [r.line.images for r in results] == [["example_img/35.jpg"], ["example_img/91.jpg"]]
    first = results[0].answer
    assert first.layout == "flat" and first.notes == []
    assert first.coefficients[INDEX["MouthSmileLeft"]] == np.float32(0.6)
    assert first.coefficients[INDEX["HeadYaw"]] == np.float32(-0.1)
    assert first.rationale.startswith("1. **Facial Expression Category**")
    assert first.rationale.endswith("on the right side).")
    assert [m["role"] for m in results[0].line.messages] == ["system", "user"]


def test_keyframeface_results_read_and_convert():
    path = shared("formats/keyframeface_example_result.jsonl")
    as_written = answers.read_results(path)[0].answer
    assert as_written.layout == "keyframe" and as_written.keyframe == "Keyframe_one"
    assert as_written.coefficients[INDEX["LeftEyePitch"]] == np.float32(-0.2)
    assert any("eye pitch" in note for note in as_written.notes)
    converted = answers.read_results(path, eye_pitch="up")[0].answer
    assert converted.coefficients[INDEX["LeftEyePitch"]] == np.float32(0.2)
    assert converted.coefficients[INDEX["HeadPitch"]] == np.float32(-0.1)
    assert converted.notes == []


@pytest.mark.parametrize("name", ["semanticface_request", "keyframeface_example"])
def test_requests_read_and_hold_no_answer(name):
    path = shared(f"formats/{name}.jsonl")
    lines = list(answers.read_lines(path))
    assert lines and all(line.response is None and len(line.messages) == 2 for line in lines)
    with pytest.raises(AnswerError, match="line 1: no response"):
        answers.read_results(path)


def written(tmp_path, *records):
    path = tmp_path / "lines.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in records))
    return path


def test_training_lines_hold_their_answer(tmp_path):
    text = "A smile.\n" + json.dumps(sound())
    messages = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": text}]
    (result,) = answers.read_results(written(tmp_path, {"messages": messages, "images": ["a.png"]}))
    assert result.answer.rationale == "A smile." and result.line.images == ["a.png"]
    assert result.line.messages == messages[:1]


def test_faulty_lines_keep_their_place(tmp_path):
    good, bad = {"response": json.dumps(sound())}, {"response": json.dumps(sound(JawOpen=7))}
    path = written(tmp_path, good, "", bad, good)
    with pytest.raises(AnswerError, match=r"lines\.jsonl, line 3: JawOpen is '7'"):
        answers.read_results(path)
    results = answers.read_results(path, strict=False)
    assert [r.line.number for r in results] == [1, 3, 4]
    assert [r.answer is None for r in results] == [False, True, False]
    assert "line 3: JawOpen" in str(results[1].error)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[]", 'line 2: expected an object with "messages"'),
        ({"images": []}, 'line 2: expected an object with "messages"'),
        ({"messages": "hello"}, 'line 2: "messages" is no list'),
        ({"response": 3}, "line 2: \"response\" is '3', expected text"),
        ({"response": "", "images": [None]}, 'line 2: "images" holds'),
    ],
)
def test_lines_that_are_no_records(tmp_path, line, message):
    path = written(tmp_path, {"response": json.dumps(sound())}, line)
    with pytest.raises(AnswerError, match=message):
        list(answers.read_lines(path))


def test_lookup_is_the_only_source_of_names():
    text = to_json(np.zeros(61))
    assert [lookup(name).name for name in json.loads(text)] == list(NAMES)
