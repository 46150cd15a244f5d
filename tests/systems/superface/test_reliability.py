"""Agreement and reliability: published and known values, and a library's."""

import math
from itertools import product

import numpy as np
import pytest

from sf_jax.face.regions import REGIONS
from sf_jax.systems.superface import candidates
from sf_jax.systems.superface.pairs import Candidate, Judgement, Pair
from sf_jax.systems.superface.reliability import dawid_skene, kind_of, krippendorff_alpha, report
from tests.systems.superface.answering import GRID
from tests.systems.superface.folders import pair

PAIRS: dict[str, Pair] = {one.key: one for one, _ in map(pair, range(40))}
KEYS = list(PAIRS)


def judged(
    number: int, annotator: str, choice: str, repeat: bool = False, left: str = "first"
) -> Judgement:
    one = PAIRS[KEYS[number]]
    at = "2026-01-01T00:00:00Z"
    gold = one.gold is not None
    return Judgement(one.key, annotator, choice, 2.0, left, repeat, gold, at)  # type: ignore[arg-type]


def test_alpha_of_krippendorff_s_own_example() -> None:
    """Four observers, twelve units; nominal alpha is 0.743 (Computing Krippendorff's
    Alpha-Reliability, 2011, section C)."""
    rows = [
        (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
        (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
        (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
        (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
    ]
    table = [[x for x in unit if x is not None] for unit in zip(*rows, strict=True)]
    assert krippendorff_alpha(table) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_the_extremes() -> None:
    assert krippendorff_alpha([[0, 0], [1, 1], [2, 2]]) == 1
    assert krippendorff_alpha([[0, 1], [1, 0]]) < 0
    assert math.isnan(krippendorff_alpha([[0], [1]]))
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    rng = np.random.default_rng(0)
    assert abs(krippendorff_alpha(rng.integers(0, 3, (3000, 3)).tolist())) < 0.03


def crowd(items: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Annotators who are correct with 0.95, 0.8, 0.6 and 1/3; items, annotators, classes, truth."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, items)
    item, annotator = map(np.ravel, np.meshgrid(range(items), range(4), indexing="ij"))
    correct = rng.random(item.shape) < np.array([0.95, 0.8, 0.6, 1 / 3])[annotator]
    wrong = (truth[item] + rng.integers(1, 3, item.shape)) % 3
    return item, annotator, np.where(correct, truth[item], wrong), truth


def test_reliability_of_annotators_that_err_as_is_known() -> None:
    item, annotator, classes, truth = crowd()
    found, confusions = dawid_skene(item, annotator, classes, {})
    diagonal = confusions[:, range(3), range(3)].mean(1)
    assert diagonal == pytest.approx([0.95, 0.8, 0.6, 1 / 3], abs=0.08)
    majority = np.array([np.bincount(classes[item == i]).argmax() for i in range(len(truth))])
    assert (found.argmax(1) == truth).mean() > (majority == truth).mean() + 0.02
    known = {0: int(truth[0] + 1) % 3}
    assert dawid_skene(item, annotator, classes, known)[0][0].argmax() == known[0]


@pytest.mark.slow
def test_reliability_as_crowd_kit_finds_it() -> None:
    aggregation = pytest.importorskip("crowdkit.aggregation", reason="crowd-kit is not installed")
    pandas = pytest.importorskip("pandas")
    item, annotator, classes, _ = crowd(100)
    table = pandas.DataFrame({"task": item, "worker": annotator, "label": classes})
    fitted = aggregation.DawidSkene(n_iter=200, tol=1e-9).fit(table)
    found, confusions = dawid_skene(item, annotator, classes, {}, prior=0)
    assert np.allclose(found, fitted.probas_.sort_index()[[0, 1, 2]].to_numpy(), atol=1e-3)
    errors = fitted.errors_  # rows (worker, chosen), columns true classes
    for worker, chosen, true in product(range(4), range(3), range(3)):
        expected = errors.loc[(worker, chosen), true]
        assert confusions[worker, true, chosen] == pytest.approx(expected, abs=1e-3)


def test_a_report_separates_careful_annotators_from_others() -> None:
    rng = np.random.default_rng(0)
    judgements = []
    for number in range(40):
        better = ("first", "second")[number % 2]
        if (gold := PAIRS[KEYS[number]].gold) is not None:
            better = gold
        left = ("first", "second")[int(rng.integers(2))]
        judgements += [
            judged(number, "careful", better, left=left),
            judged(number, "good", better if number % 8 else "tie", left=left),
            judged(number, "to the left", left, left=left),
        ]
        other = "second" if left == "first" else "first"
        if number % 5 == 0:
            judgements.append(judged(number, "careful", better, repeat=True, left=other))
            judgements.append(judged(number, "to the left", other, repeat=True, left=other))
    found = report(judgements, PAIRS)
    careful, good, lefty = found.annotators
    assert (careful.judgements, careful.consistent.value, careful.gold.value) == (48, 1, 1)
    assert lefty.left.value == 1 and lefty.consistent.value == 0 and lefty.gold.value < 0.9
    assert good.ties.of == 40 and good.ties.part == 5 and str(good.consistent) == "–"
    assert careful.accuracy > good.accuracy > lefty.accuracy
    assert careful.accuracy > 0.9 and lefty.accuracy < 0.75
    assert found.shared == 40 and 0.2 < found.alpha < 0.7
    assert careful.agreeing.of == 80
    text = "\n".join(found.lines())
    assert "100 % of 8" in text and "Krippendorff's alpha: 0." in text


def test_pairs_that_one_annotator_judged_confirm_nobody() -> None:
    found = report([judged(number, "alone", "first") for number in range(3)], PAIRS)
    (alone,) = found.annotators
    assert math.isnan(alone.accuracy) and math.isnan(found.alpha) and found.shared == 0
    assert "–" in found.lines()[1]


def test_unclear_is_no_choice() -> None:
    judgements = [judged(0, "a", "unclear"), judged(0, "b", "first"), judged(1, "a", "unclear")]
    found = report(judgements, PAIRS)
    assert found.shared == 0 and found.annotators[0].unclear.value == 1


def test_kinds_of_candidates_that_win() -> None:
    pytest.importorskip("choix", reason="choix is not installed")
    judgements = [judged(number, "a", "second") for number in range(0, 30)]
    judgements += [judged(number, "b", "first") for number in range(0, 10)]
    found = report(judgements, PAIRS).strengths
    assert list(found) == ["sampled, temperature 0.7", "means"]
    assert found["sampled, temperature 0.7"] == pytest.approx(1 - found["means"])
    ties = report([judged(number, "a", "tie") for number in range(10)], PAIRS).strengths
    assert list(ties.values()) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    "origin, kind",
    [
        ("perturbed JawOpen", "perturbed"),
        ("sampled, temperature 0.7", "sampled, temperature 0.7"),
        ("checkpoint lower JawOpen", "checkpoint lower JawOpen"),
        ("means", "means"),
    ],
)
def test_kinds(origin: str, kind: str) -> None:
    assert kind_of(origin) == kind
    values = np.linspace(-0.5, 0.5, 61, dtype=np.float32).clip(0)
    base, other = Candidate(np.zeros(61), "means"), Candidate(values, origin)
    for region in REGIONS:
        made = candidates.swapped(base, other, region)
        assert made.origin != origin or region == "whole"
        assert kind_of(made.origin) == kind


def test_kinds_of_proposals() -> None:
    base = Candidate(np.full(61, 0.5), "means")
    rest = Candidate(np.zeros(61), "means")
    for region in REGIONS:
        g = np.random.default_rng(0)
        perturbed = candidates.perturbed(base, region, GRID, g)
        revived = candidates.revived(rest, region, GRID, g)
        assert perturbed is not None and kind_of(perturbed.origin) == "perturbed"
        assert revived is not None and kind_of(revived.origin) == "revived"


def test_nothing_judged() -> None:
    found = report([], PAIRS)
    assert found.annotators == () and "–" in "\n".join(found.lines())
