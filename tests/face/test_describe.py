"""Words and numbers can be checked against each other."""

import numpy as np
import pytest

from sf_jax.face.channels import BLENDSHAPES, HIGH, INDEX, LOW, NAMES, mirror
from sf_jax.face.checking import check
from sf_jax.face.describe import (
    Description,
    DescriptionError,
    channels_of,
    describe,
    head_level,
    level,
    read,
)
from sf_jax.face.phrases import ACTIONS, EMOTIONS

EDGES = (0.0, 0.149, 0.15, 0.35, 0.351, 0.65, 0.651, 1.0)


def faces(count: int) -> np.ndarray:
    """Sparse, dense and borderline faces."""
    g = np.random.default_rng(0)
    values = np.where(g.random((count, 61)) < g.uniform(0.05, 0.9, (count, 1)), 1, 0)
    values = values * g.beta(1.2, 1.5, (count, 61))
    borderline = g.random((count, 61)) < 0.1
    values = np.where(borderline, g.choice(EDGES, (count, 61)), values)
    values[:, 52:] = g.uniform(-1, 1, (count, 9)) * (g.random((count, 9)) < 0.6)
    same = g.random(count) < 0.4  # both sides alike, so that clauses merge
    values[same] = (values[same] + mirror(values[same])) / 2
    return np.clip(values, LOW, HIGH)


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    return faces(5000)


def test_reader_recovers_every_channel_at_its_level(many) -> None:
    for seed, face in enumerate(many):
        found = read(describe(face, seed).text).levels
        expected = {name: level(face[INDEX[name]]) for name in NAMES[BLENDSHAPES]}
        heads = ("HeadYaw", "HeadPitch", "HeadRoll")
        expected |= {name: head_level(face[INDEX[name]]) for name in heads}
        assert found == {name: n for name, n in expected.items() if n}
        assert all(name in found for name in NAMES[BLENDSHAPES] if face[INDEX[name]] > 0.351)
        assert check(describe(face, seed).text, face) == ()


def test_a_value_has_the_level_of_the_tenth_nearest_to_it_in_either_precision() -> None:
    for tenth in range(11):
        nearest = tenth / 10
        for measure in (level, head_level):
            expected = measure(nearest)
            for off in (-0.049, 0.0, 0.049):
                value = min(max(nearest + off, 0.0), 1.0)
                assert measure(value) == measure(float(np.float32(value))) == expected
            assert measure(float(np.float32(nearest))) == expected


def supported(name: str, face: np.ndarray) -> bool:
    """The rule table read again, on numbers instead of levels."""
    least = {1: 0.15, 2: 0.35 + 1e-6, 3: 0.65 + 1e-6}

    def holds(need) -> bool:
        values = [face[INDEX[channel]] for channel in channels_of(need.stem)]
        if need.sides == "one":
            return max(values) >= least[need.level] and min(values) < 0.15
        return (max if need.sides == "either" else min)(values) >= least[need.level]

    rule = next(rule for rule in EMOTIONS if rule.name == name)
    needed = all(any(holds(need) for need in group) for group in rule.groups)
    return needed and not any(holds(need) for need in rule.forbidden)


def test_no_emotion_without_its_movements(many) -> None:
    named = set()
    for seed, face in enumerate(many):
        emotion = read(describe(face, seed).text).emotion
        if emotion is None:
            assert not any(supported(rule.name, face) for rule in EMOTIONS)
        else:
            assert supported(emotion, face)
            named.add(emotion)
    assert len(named) >= 4  # the sample does reach the rules


@pytest.mark.parametrize(
    ("actions", "emotion"),
    [
        ({"MouthSmile": 0.8, "CheekSquint": 0.4}, "happiness"),
        ({"MouthSmile": 0.5}, None),
        ({"BrowInnerUp": 0.7, "MouthFrown": 0.5}, "sadness"),
        ({"MouthLowerDown": 0.9}, None),  # a bared lower lip alone is no sadness
        ({"BrowDown": 0.7, "NoseSneer": 0.4}, "anger"),
        ({"BrowOuterUp": 0.7, "JawOpen": 0.5}, "surprise"),
        ({"BrowInnerUp": 0.7, "EyeWide": 0.5, "MouthStretch": 0.5}, "fear"),
        ({"NoseSneer": 0.7, "MouthUpperUp": 0.5}, "disgust"),
        ({"MouthSmileLeft": 0.5}, "contempt"),
        ({}, None),
    ],
)
def test_emotions_by_example(actions, emotion) -> None:
    face = np.zeros(61)
    for stem, value in actions.items():
        for name in channels_of(stem) if stem not in INDEX else (stem,):
            face[INDEX[name]] = value
    assert read(describe(face).text).emotion == emotion


def test_mirrored_face_swaps_sides(many) -> None:
    for seed, face in enumerate(many[:300]):
        here, there = read(describe(face, seed).text), read(describe(mirror(face), seed).text)
        swapped = np.zeros(61)
        for name, number in here.levels.items():
            swapped[INDEX[name]] = number
        expected = mirror(swapped)
        found = np.zeros(61)
        for name, number in there.levels.items():
            found[INDEX[name]] = number
        np.testing.assert_array_equal(found, expected)
        other = {"left": "right", "right": "left"}
        assert there.asymmetric == {stem: other[side] for stem, side in here.asymmetric.items()}


def test_wording_varies_with_the_seed_and_only_with_it() -> None:
    face = faces(30)[7]
    texts = {describe(face, seed).text for seed in range(30)}
    assert len(texts) > 5
    assert describe(face, 3) == describe(face, 3)


def test_every_action_is_readable_alone() -> None:
    for stem in ACTIONS:
        for name in channels_of(stem):
            face = np.zeros(61)
            face[INDEX[name]] = 0.5
            assert read(describe(face).text).levels == {name: 2}


def test_unknown_words_are_named() -> None:
    text = describe(np.zeros(61)).text
    assert read(text).levels == {}
    with pytest.raises(DescriptionError, match="ears clearly wiggled"):
        read(text.replace("at rest", "Ears: both ears clearly wiggled"))
    with pytest.raises(DescriptionError, match="emotion 'ennui'"):
        read(text.replace("not clearly observable", "ennui"))


def test_contradictions_are_found() -> None:
    face = np.zeros(61)
    face[INDEX["JawOpen"]] = 0.9
    text = describe(face).text
    face[INDEX["JawOpen"]] = 0.2
    face[INDEX["CheekPuff"]] = 0.7
    found = [(one.kind, one.name) for one in check(text, face)]
    assert found == [("level", "JawOpen"), ("missing", "CheekPuff")]


def test_parse_keeps_what_a_model_wrote() -> None:
    parsed = Description.parse("1. **Expression**: a smile.\n3. Emotion: joy. Perhaps.")
    assert (parsed.expression, parsed.emotion) == ("a smile", "joy. Perhaps")
    assert parsed.movements == parsed.symmetry == ""
    whole = describe(faces(3)[2])
    assert Description.parse(whole.text) == whole


def test_headings_of_other_models_are_understood() -> None:
    text = (
        "1. **Facial Expression Category**: A smile.  \n"
        "2. **Detailed Facial Muscle Movements**:  \n   - **Eyes**: open.  \n"
        "3. **Emotional Implication**: Joy.  \n4. **Symmetry**: Even."
    )
    found = Description.parse(text)
    assert (found.expression, found.emotion, found.symmetry) == ("A smile", "Joy", "Even")
    assert "open" in found.movements and "Emotional" not in found.movements


def test_headings_within_a_field_are_part_of_it() -> None:
    text = (
        "1. Expression: a yawn.\n2. Movements: eyes shut.\n- Jaw movement: wide open.\n"
        "Mouth expression: stretched.\n3. Emotion: none.\n4. Symmetry: even."
    )
    found = Description.parse(text)
    assert found.expression == "a yawn" and found.emotion == "none" and found.symmetry == "even"
    assert found.movements == (
        "eyes shut.\n- Jaw movement: wide open.\nMouth expression: stretched"
    )
    lines = "Movements: eyes shut.\n- Jaw movement: wide open.\nEmotion: none."
    found = Description.parse(lines)
    assert found.movements == "eyes shut.\n- Jaw movement: wide open" and found.emotion == "none"
    listed = "Expression: a yawn.\nMovements:\n1. Jaw movement: wide open.\nEmotion: none."
    found = Description.parse(listed)
    assert found.movements == "1. Jaw movement: wide open" and found.emotion == "none"


@pytest.mark.parametrize(
    "text, fields",
    [
        ('{"analysis": "a face"}', ("a face", "", "")),
        ('{"analysis": "1. Expression: a grin.\\n3. Emotion: joy."}', ("a grin", "", "joy")),
        ('{"analysis": ["Expression: a grin.", "Emotion: joy."]}', ("a grin", "", "joy")),
        (
            '{"expression": "a grin", "movements": {"Eyes": "shut", "Jaw": ["open", "forward"]},'
            ' "emotion": null}',
            ("a grin", "Eyes: shut; Jaw: open; forward", ""),
        ),
        ('{"analysis": {"expression": ["a grin"], "emotion": "joy"}}', ("a grin", "", "joy")),
        ('{"analysis": 3, "expression": "a grin"}', ("a grin", "", "")),
    ],
)
def test_objects_of_fields(text: str, fields: tuple[str, str, str]) -> None:
    found = Description.parse(text)
    assert (found.expression, found.movements, found.emotion) == fields
