"""Simulated judges: what they prefer, how surely, with which faults; and that they see pictures."""

import ast
import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.synthetic import sitting
from sf_jax.face.channels import BLENDSHAPES, INDEX
from sf_jax.systems.superface import judges, seen
from sf_jax.systems.superface.judges import Judge, gap
from sf_jax.systems.superface.pairs import Candidate, Pair, image_hash
from sf_jax.systems.superface.simulated import PORTRAITS, session, sitter_of

WHOLE = np.ones((8, 8), bool)


def flat(level: int) -> np.ndarray:
    return np.full((8, 8, 3), level, np.uint8)


IMAGE, NEAR, FAR = flat(120), flat(126), flat(150)
GAP = gap(IMAGE, NEAR, FAR, WHOLE)


def share(judge: Judge, count: int = 600, left: bool = True, start: int = 0) -> float:
    """How often the nearer render is chosen, which is the first."""
    found = [
        judge.choose(IMAGE, NEAR, FAR, WHOLE, first_at_left=left, number=n).choice
        for n in range(start, start + count)
    ]
    return float(np.mean([choice == "first" for choice in found]))


def test_the_nearer_render_has_the_smaller_distance():
    assert GAP > 0 and gap(IMAGE, FAR, NEAR, WHOLE) == -GAP and gap(IMAGE, FAR, FAR, WHOLE) == 0


@pytest.mark.parametrize("noise", [0.3, 1.0, 4.0])
def test_choices_follow_bradley_and_terry(noise):
    judge = Judge(noise * GAP, seed=2)
    expected = 1 / (1 + np.exp(-1 / noise))
    assert judge.probability(GAP) == pytest.approx(expected)
    assert share(judge) == pytest.approx(
        expected, abs=3.5 * np.sqrt(expected * (1 - expected) / 600)
    )
    assert judge.probability(GAP) + judge.probability(-GAP) == pytest.approx(1)


def test_a_sure_judge_is_never_wrong_and_an_even_pair_is_a_coin():
    assert share(Judge(GAP / 100), 50) == 1.0
    assert Judge(1.0).probability(0.0) == 0.5


def test_choices_are_the_same_for_a_seed_and_differ_between_judges():
    def choices(judge: Judge) -> list[str]:
        return [judge.choose(IMAGE, NEAR, FAR, WHOLE, number=n).choice for n in range(60)]

    assert choices(Judge(GAP, seed=1)) == choices(Judge(GAP, seed=1))
    assert choices(Judge(GAP, seed=1)) != choices(Judge(GAP, seed=2))


def test_lapses_are_random_choices():
    judge = Judge(GAP / 100, lapse=0.4)
    assert judge.probability(GAP) == pytest.approx(0.8)
    assert share(judge) == pytest.approx(0.8, abs=0.06)
    assert share(Judge(GAP / 100, lapse=1.0)) == pytest.approx(0.5, abs=0.08)


def test_fatigue_adds_lapses_as_a_session_goes_on():
    judge = Judge(GAP / 100, fatigue=0.2)
    assert [judge.lapses(n) for n in (0, 100, 1000)] == [0.0, 0.2, 1.0]
    assert share(judge, 300) > share(judge, 300, start=700) + 0.2


def test_a_biased_judge_favours_the_left():
    judge = Judge(GAP * 5, left_bias=1.0)
    assert share(judge, left=True) > share(judge, left=False) + 0.2
    assert judge.probability(GAP, True) + judge.probability(-GAP, False) == pytest.approx(1)


def test_ties_are_called_where_the_difference_is_small():
    assert Judge(GAP, tie=1.1).choose(IMAGE, NEAR, FAR, WHOLE).choice == "tie"
    assert Judge(GAP, tie=0.9).choose(IMAGE, NEAR, FAR, WHOLE).choice != "tie"


@pytest.mark.parametrize("stated", [0.6, 0.75, 0.95])
def test_noise_is_found_for_a_stated_agreement(stated):
    gaps = np.random.default_rng(0).normal(0, 2, 200).tolist()
    judge = Judge(1.0, lapse=0.02).with_agreement(gaps, stated)
    assert np.mean([judge.probability(abs(one)) for one in gaps]) == pytest.approx(stated, abs=1e-6)


def test_an_agreement_that_cannot_be_reached_is_refused():
    with pytest.raises(ValueError, match="agreement is 0.95, expected above 0.5 and below 0.9"):
        Judge(1.0, lapse=0.2).with_agreement([0.5, 2.0], 0.95)
    with pytest.raises(ValueError, match="no two renders"):
        Judge(1.0).with_agreement([0.0, 0.0], 0.8)
    with pytest.raises(ValueError, match="noise is 0"):
        Judge(0.0)
    with pytest.raises(ValueError, match="lapse"):
        Judge(1.0, lapse=1.5)


def test_a_judge_sees_pictures_alone():
    """No coefficients reach it: its arguments are pictures, and it can import nothing of a face."""
    taken = list(inspect.signature(Judge.choose).parameters)
    assert taken == ["self", "image", "first", "second", "region", "first_at_left", "number"]
    for module in (judges, seen):
        tree = ast.parse(Path(module.__file__).read_text())
        names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        own = {name for name in names if name.startswith("sf_jax")}
        assert own <= {"sf_jax.media", "sf_jax.systems.superface.seen"}


def within(value: object, seen: set[int]) -> list[np.ndarray]:
    """All arrays that an object holds, itself or in what it holds."""
    if id(value) in seen or isinstance(value, str | bytes | type):
        return []
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        parts = list(value.values())
    else:
        parts = list(value) if isinstance(value, list | tuple) else list(vars_of(value).values())
    return [array for part in parts for array in within(part, seen)]


def vars_of(value: object) -> dict[str, object]:
    return vars(value) if hasattr(value, "__dict__") else {}


def test_a_sitter_holds_no_true_expression():
    """What asks and trains has sitters at hand, so nothing but the pictures may show it."""
    shown = sitting(3, 0, "evaluation")
    sitter = sitter_of(shown)
    sitter.mask("upper"), sitter.portrait(np.zeros(61, np.float32))
    found = within(sitter, set())
    assert any(array is sitter.image for array in found)
    assert any(array is sitter.renderer.rig.neutral for array in found)
    expression = shown.coefficients[BLENDSHAPES]
    for array in found:
        assert not np.isin(expression[expression > 0], array).all()


def test_pixels_outside_the_region_do_not_count():
    region = np.zeros((64, 64), bool)
    region[:20] = True
    image, first = (np.full((64, 64, 3), level, np.uint8) for level in (120, 126))
    second = first.copy()
    second[40:] = 255
    assert gap(image, first, second, region) == pytest.approx(0, abs=1e-4)
    assert gap(image, first, second, ~region) > 1


def test_a_sure_judge_prefers_the_truth_in_the_region_that_is_judged():
    shown = sitting(3, 0, "evaluation")
    sitter = sitter_of(shown)
    wrong = shown.coefficients.copy()
    wrong[INDEX["BrowInnerUp"]] = 0.9 if wrong[INDEX["BrowInnerUp"]] < 0.4 else 0.0
    wrong[INDEX["BrowOuterUpLeft"]] = wrong[INDEX["BrowOuterUpRight"]] = 0.9
    one, other = Candidate(shown.coefficients, "truth"), Candidate(wrong, "perturbed BrowInnerUp")
    assert sitter.gap(one, other, "upper") > 0.3
    assert abs(sitter.gap(one, other, "lower")) < 0.1
    pair = Pair("0" * 32, "upper", one, other, 1.0, "1" * 32, "2" * 32)
    judge = Judge(0.01)
    found = [sitter.judgement(pair, judge, "simulated 1", number) for number in range(12)]
    assert {each.choice for each in found} == {"first"}
    assert {each.left for each in found} == {"first", "second"}
    assert found[0].at == "2000-01-01T00:00:00Z" and found[11].pair == pair.key
    swapped = replace(pair, first=other, second=one, key="")
    assert sitter.judgement(swapped, judge, "simulated 1").choice == "second"


def test_a_session_is_of_the_sitters_that_pairs_name():
    sitters, pairs = {}, []
    for index in range(2):
        shown = sitting(index, 1, "evaluation")
        sitter = sitter_of(shown)
        name = image_hash(sitter.image)
        closed = shown.coefficients.copy()
        closed[INDEX["JawOpen"]] = 1.0 - closed[INDEX["JawOpen"]]
        both = Candidate(shown.coefficients, "truth"), Candidate(closed, "perturbed JawOpen")
        pairs.append(Pair(name, "lower", *both, 1.0, "1" * 32, "2" * 32))
        sitters[name] = sitter
        assert sitter.distance(shown.coefficients, "lower") < sitter.distance(closed, "lower")
    found = session(pairs, sitters, Judge(0.01), "simulated")
    assert [one.pair for one in found] == [pair.key for pair in pairs]
    assert [one.choice for one in found] == ["first", "first"]
    assert [one.at[-3:] for one in found] == ["00Z", "01Z"]
    with pytest.raises(KeyError):
        session([replace(pairs[0], image="0" * 32)], sitters, Judge(0.01), "simulated")


def test_few_portraits_are_kept():
    sitter = sitter_of(sitting(0, 1, "evaluation"))
    first = sitter.portrait(np.zeros(61, np.float32))
    assert sitter.portrait(np.zeros(61, np.float32)) is first
    for step in range(PORTRAITS):
        values = np.zeros(61, np.float32)
        values[INDEX["JawOpen"]] = (step + 1) / PORTRAITS
        sitter.portrait(values)
    again = sitter.portrait(np.zeros(61, np.float32))
    assert again is not first and np.array_equal(again, first)
