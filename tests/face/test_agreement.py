"""A rationale is compared level by level with the values generated beside it."""

import numpy as np
import pytest

from sf_jax.face.agreement import Agreement, agreement, sentence, total
from sf_jax.face.channels import HIGH, INDEX, LOW
from sf_jax.face.describe import Description, describe


def face_of(**values: float) -> np.ndarray:
    face = np.zeros(61, np.float32)
    for name, value in values.items():
        face[INDEX[name]] = value
    return face


SMILE = {"MouthSmileLeft": 0.8, "MouthSmileRight": 0.8, "CheekSquintLeft": 0.4}


def test_a_description_agrees_with_the_values_that_it_is_of() -> None:
    generator = np.random.default_rng(0)
    for seed in range(200):
        values = generator.uniform(LOW, HIGH) * (generator.random(61) < 0.4)
        spoken = np.round(values, 1).astype(np.float32)
        found = agreement(describe(spoken, seed), spoken)
        assert found is not None and found.mentions == found.exact == found.within_one
        assert found.missing == 0 and found.emotions == 1


@pytest.mark.parametrize(
    ("change", "exact", "within_one"),
    [
        ({"MouthSmileLeft": 0.7}, 3, 3),
        ({"MouthSmileLeft": 0.6}, 2, 3),
        ({"MouthSmileLeft": 0.3}, 2, 2),  # strong where slight was generated
        ({"MouthSmileLeft": 0.0, "MouthSmileRight": 0.0}, 1, 1),
        ({"CheekSquintLeft": 0.2}, 2, 3),
    ],
)
def test_each_mention_is_compared_with_its_value(change, exact, within_one) -> None:
    found = agreement(describe(face_of(**SMILE)), face_of(**(SMILE | change)))
    assert found is not None
    assert (found.mentions, found.exact, found.within_one) == (3, exact, within_one)


def test_a_head_that_turns_the_other_way_is_two_levels_off() -> None:
    found = agreement(describe(face_of(HeadYaw=0.2)), face_of(HeadYaw=-0.2))
    assert found is not None and (found.mentions, found.within_one) == (1, 0)


def test_values_without_a_mention_and_emotions_count_apart() -> None:
    rest = describe(face_of())
    found = agreement(rest, face_of(**SMILE, JawOpen=0.3, HeadRoll=-0.3))
    assert found == Agreement(1, 0, 0, 0, notable=4, missing=4, emotions=0)
    assert np.isnan(found.summary()["exact"]) and found.summary()["missing"] == 1.0


def test_what_is_not_the_describers_gives_none_and_not_zero() -> None:
    face = face_of(**SMILE)
    for text in ("", "The person smiles broadly.", describe(face).text.replace("raised", "nice")):
        assert agreement(Description.parse(text), face) is None
    assert total([None, None]) is None and sentence(None) == ""


def test_channels_that_are_not_read_count_nowhere() -> None:
    face = face_of(**SMILE)
    face[INDEX["MouthSmileLeft"]] = np.nan
    found = agreement(describe(face_of(**SMILE)), face)
    assert found is not None and (found.mentions, found.exact, found.notable) == (2, 2, 2)


def test_each_mention_counts_the_same_in_a_total() -> None:
    whole = total(
        [
            agreement(describe(face_of(**SMILE)), face_of(**SMILE)),
            None,
            agreement(describe(face_of(JawOpen=0.9)), face_of()),
        ]
    )
    assert whole is not None and whole.rationales == 2
    assert whole.summary() == pytest.approx(
        {"exact": 0.75, "within_one": 0.75, "missing": 0.0, "emotion": 1.0}
    )


def test_the_sentence_names_what_disagrees() -> None:
    fine = sentence(agreement(describe(face_of(**SMILE)), face_of(**SMILE)))
    assert "3 of 3 mentions" in fine and ";" not in fine
    poor = sentence(agreement(describe(face_of(**SMILE)), face_of(JawOpen=0.9)))
    assert "0 of 3 mentions" in poor and "1 of 1 clear values" in poor and "emotion" in poor
