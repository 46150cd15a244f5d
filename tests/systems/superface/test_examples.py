"""Judged pairs as examples: what of an answer counts, and which judgements do."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.decode.program import compile_program
from sf_jax.face import answers as answer_text
from sf_jax.face import regions
from sf_jax.face.channels import INDEX, NAMES
from sf_jax.face.regions import Region
from sf_jax.model.config import Config
from sf_jax.sequence.tokenizer import IM_END
from sf_jax.systems.superface.examples import AnswerExamples, ExampleError, judged
from sf_jax.train.losses.supervised import SlotValues
from sf_jax.train.preference import Dpo, Predictions, PreferenceTask
from tests.systems.superface import judging

REGIONS: tuple[Region, ...] = ("upper", "lower", "whole")


@pytest.fixture(scope="module")
def slots(tiny_config: Config) -> AnswerExamples:
    return judging.answers_of(tiny_config, judging.symbols(), slots=True)


@pytest.fixture(scope="module")
def digits(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> AnswerExamples:
    tokenizer = judging.digits(tmp_path_factory.mktemp("digits"))
    return judging.answers_of(tiny_config, tokenizer, slots=False)


@pytest.fixture(scope="module")
def coefficients() -> np.ndarray:
    return judging.drawn(3)


def image(answers: AnswerExamples) -> object:
    return answers.processor.fit(judging.pair(1)[1])


@pytest.mark.parametrize("region", REGIONS)
def test_slots_of_the_region_count(
    slots: AnswerExamples, coefficients: np.ndarray, region: Region
) -> None:
    example = slots(image(slots), coefficients, region)
    assert example.slots is not None and example.slot_weights is not None
    at = np.flatnonzero(example.slots)
    np.testing.assert_array_equal(example.slots[at], np.arange(1, 62))
    np.testing.assert_array_equal(example.slot_weights[at] > 0, regions.channels(region))
    np.testing.assert_allclose(example.numbers[at], coefficients)
    assert not example.loss_weights.any() and not example.slot_weights[example.slots == 0].any()
    # The state before a value predicts it.
    values = [float(slots.tokenizer.decode([token])) for token in example.tokens[at + 1]]
    np.testing.assert_allclose(values, coefficients, atol=1e-6)


@pytest.mark.parametrize("region", REGIONS)
def test_tokens_of_values_of_the_region_count(
    digits: AnswerExamples, coefficients: np.ndarray, region: Region
) -> None:
    """Of a whole answer all that was generated counts, and the token that ends it."""
    example = digits(image(digits), coefficients, region)
    counted = example.tokens[example.loss_weights > 0].tolist()
    text = digits.tokenizer.decode(counted)
    if region == "whole":
        assert counted[-1] == digits.tokenizer.symbol(IM_END)
        found = answer_text.parse(text.removesuffix(IM_END)).coefficients
        np.testing.assert_allclose(found, coefficients, atol=1e-6)
        return
    wanted = [f"{x + 0.0:.1f}" for x in coefficients[regions.channels(region)]]
    assert text.replace(" ", "") == "".join(wanted)


def test_tokens_are_those_of_the_answer_as_text(
    digits: AnswerExamples, coefficients: np.ndarray
) -> None:
    example = digits(image(digits), coefficients, "whole")
    written = digits.tokenizer.encode(digits.schema.format(coefficients) + IM_END)
    assert example.tokens[-len(written) :].tolist() == written


def test_an_answer_that_the_slots_cannot_give_is_refused(slots: AnswerExamples) -> None:
    between = np.zeros(61, np.float32)
    between[INDEX["JawOpen"]] = 0.34
    with pytest.raises(ExampleError, match=r"pair ab: JawOpen is 0\.34, .* its slot 0\.3$"):
        slots(image(slots), between, "upper", where="pair ab")


def test_a_model_without_the_region_is_refused(slots: AnswerExamples) -> None:
    from sf_jax.reader.schema import channel_schema

    jaw = replace(slots, schema=channel_schema(("JawOpen",)))
    with pytest.raises(ExampleError, match="pair ab: the model reads no channel of the region 'up"):
        jaw(image(slots), np.zeros(61, np.float32), "upper", where="pair ab")


def test_judgements_of_a_pair_are_one_with_what_is_in_doubt() -> None:
    made = [judging.pair(number)[0] for number in range(6)]
    a, b, c, d, e, gold = made
    gold = replace(gold, gold="first", key="")
    given = [
        judging.judgement(a, "second"),
        *[judging.judgement(b, choice) for choice in ("first", "first", "second", "tie")],
        judging.judgement(c, "tie"),
        judging.judgement(d, "unclear"),
        judging.judgement(a, "first", repeat=True),
        judging.judgement(gold, "second", gold=True),
    ]
    found = judged([*made[:5], gold], given)
    assert [(one.pair.key, one.chosen, one.label_smoothing, one.weight) for one in found] == [
        (a.key, "second", 0.0, 1.0),
        (b.key, "first", pytest.approx(1.5 / 4), 4.0),
        (c.key, "first", 0.5, 1.0),
    ]
    assert found[0].chosen_coefficients is a.second.coefficients
    assert found[0].rejected_coefficients is a.first.coefficients
    decided = judged([*made[:5], gold], given, ties=False)
    assert [(one.pair.key, one.weight) for one in decided] == [(a.key, 1.0), (b.key, 3.0)]
    with pytest.raises(ExampleError, match=rf"'Ada' at 2026.* is of pair {e.key}, which is not"):
        judged([a, b], [judging.judgement(e, "first")])


def test_all_pairs_are_seen_once_an_epoch_in_orders_of_their_own(slots: AnswerExamples) -> None:
    groups = judging.groups(slots, 6)
    epochs = [[groups(6 * epoch + i).where for i in range(6)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(one.where for one in groups.judged)
    assert epochs[0] != epochs[1]
    again = judging.groups(slots, 6)
    assert [again(number).where for number in (11, 0, 5)] == [
        epochs[1][5],
        epochs[0][0],
        epochs[0][5],
    ]
    assert groups(7).number == 7


def test_other_pixels_by_the_same_name_are_another_question(slots: AnswerExamples) -> None:
    """So a reference that was asked about an image is not taken for the answer about another."""
    groups = judging.groups(slots, 2)
    same = replace(groups, image=lambda pair: groups.image(pair).copy())
    other = replace(groups, image=lambda pair: 255 - groups.image(pair))
    assert groups.measured[1] == same.measured[1] != other.measured[1]
    asked = [each.group(0).answers[0].inserts[0].patches() for each in (groups, other)]
    assert np.abs(asked[0] - asked[1]).max() > 0.1


def test_changed_pairs_have_an_order_of_their_own(slots: AnswerExamples) -> None:
    groups = judging.groups(slots, 6)
    assert groups(5).number == 5  # the order is known from here on
    for changed in ({"seed": 1}, {"judged": groups.judged[:2]}):
        found = replace(groups, **changed)
        alone = replace(judging.groups(slots, 6), **changed)
        count = len(found)
        assert [found(i).where for i in range(count)] == [alone(i).where for i in range(count)]


def test_kto_compares_with_an_answer_to_another_image(slots: AnswerExamples) -> None:
    groups = judging.groups(slots, 4, unlike=True)  # two pairs an image
    answers = [
        {one.chosen_coefficients.tobytes(), one.rejected_coefficients.tobytes()}
        for one in groups.judged
    ]
    for index in range(4):
        group = groups.group(index)
        third = group.answers[2]
        assert (
            third.inserts[0].patches().tobytes() == group.answers[0].inserts[0].patches().tobytes()
        )
        given = third.numbers[third.slots > 0].tobytes()
        of = [i for i, pair in enumerate(answers) if given in pair]
        assert of and groups.judged[of[0]].pair.image != groups.judged[index].pair.image
    with pytest.raises(ExampleError, match="all judged pairs are of one image"):
        judging.groups(slots, 2, unlike=True)
    with pytest.raises(ExampleError, match="no judged pairs"):
        replace(groups, judged=[])


def gradient_by_slot(answers: AnswerExamples, region: Region) -> np.ndarray:
    """How the loss of a pair changes with the log-probability of each slot's value [2, 61]."""
    groups = judging.groups(answers, 1, lambda _: region)
    group = replace(groups.group(0), reference=np.array([-70.0, -60.0]))
    values = SlotValues.of(compile_program(answers.schema, answers.tokenizer), 1)
    task = PreferenceTask(answers.config, 1, 320, 32, group_count=1, objective=Dpo(), values=values)
    batch = task.build([[group]])
    assert batch.rows.slots is not None and batch.rows.slot_weights is not None
    logs = -np.random.default_rng(0).gamma(1, 1, batch.rows.slots.shape)
    weights, segments = jnp.asarray(batch.rows.slot_weights), jnp.asarray(batch.rows.segments)

    def loss(logs: jax.Array) -> jax.Array:
        return task.loss_of(Predictions(logs, weights, segments), None, batch)[0]

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(logs, jnp.float32)))
    return gradient[batch.rows.slots > 0].reshape(2, 61)


def check_upper(gradient: np.ndarray) -> None:
    """A judgement of the upper face moves its slots, and nothing else at all."""
    upper = regions.channels("upper")
    assert (gradient[0, upper] < 0).all() and (gradient[1, upper] > 0).all()
    np.testing.assert_array_equal(gradient[:, ~upper], 0)


def test_a_judgement_of_the_upper_face_moves_no_slot_of_the_lower(slots: AnswerExamples) -> None:
    check_upper(gradient_by_slot(slots, "upper"))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda region: regions_channels("lower" if region == "upper" else "upper"),
        lambda region: regions_channels("whole"),
        lambda region: regions_channels(region) | (np.array(NAMES) == "JawOpen"),
        lambda region: regions_channels(region) & (np.array(NAMES) != "EyeBlinkLeft"),
    ],
)
def test_judging_the_wrong_region_is_noticed(
    slots: AnswerExamples, monkeypatch: pytest.MonkeyPatch, wrong: Callable
) -> None:
    monkeypatch.setattr("sf_jax.systems.superface.examples.regions.channels", wrong)
    gradient = gradient_by_slot(slots, "upper")
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        check_upper(gradient)


regions_channels = regions.channels
