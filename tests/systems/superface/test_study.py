"""A panel of simulated judges, the measures of a study, and its tables."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import synthetic
from data_pipelines.sampler import sample
from sf_jax.face import regions
from sf_jax.face.channels import BLENDSHAPES, INDEX
from sf_jax.reader.action import FaceAction
from sf_jax.systems.superface import measures, report
from sf_jax.systems.superface.asking import Asking
from sf_jax.systems.superface.judges import Judge
from sf_jax.systems.superface.pairs import image_hash
from sf_jax.systems.superface.simulated import sitter_of
from sf_jax.systems.superface.study import Panel, shuffled
from tests.systems.superface.answering import Answering

HOW = Asking(gold=0.0, whole=True, temperatures=(0.8,))
SURE = Judge(noise=1e-3)
SITTINGS = [synthetic.sitting(n, 3, "train") for n in range(6)]


class Knowing(Answering):
    """A model that answers the truth, or a share of it."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share
        self.true = {
            panel_image: each.coefficients
            for panel_image, each in zip(PANEL.sitters, SITTINGS, strict=True)
        }

    def predict_batch(self, images, **asked):  # type: ignore[no-untyped-def]
        found: list[FaceAction] = super().predict_batch(images, **asked)
        answers = []
        for one, picture in zip(found, images, strict=True):
            values = self.true[image_hash(picture.pixels)].copy()
            values[BLENDSHAPES] *= self.share
            answers.append(replace(one, coefficients=values, answer=np.round(values, 1)))
        return answers


def _panel() -> Panel:
    sitters = [sitter_of(each) for each in SITTINGS]
    return Panel({image_hash(one.image): one for one in sitters}, SURE, HOW)


PANEL = _panel()
IMAGES = list(PANEL.sitters)


def test_pairs_are_of_the_images_asked_about_and_are_judged_by_sight() -> None:
    found = PANEL.ask(Answering(), IMAGES, per_image=4, count=20)
    pairs, judgements = found.pairs, found.judgements
    assert len(pairs) == len(judgements) == 20 and found.nearer == 1.0
    assert {pair.image for pair in pairs} <= set(IMAGES)
    for pair, judgement in zip(pairs, judgements, strict=True):
        assert judgement.pair == pair.key and pair.difference >= HOW.least
        other = ~regions.channels(pair.region)
        first, second = pair.first.coefficients, pair.second.coefficients
        np.testing.assert_array_equal(first[other], second[other])
        gap = PANEL.sitters[pair.image].gap(pair.first, pair.second, pair.region)
        assert judgement.choice == ("first" if gap > 0 else "second")


def test_only_the_regions_asked_for_are_judged() -> None:
    panel = replace(PANEL, how=replace(HOW, regions=("lower",)))
    pairs = panel.ask(Answering(), IMAGES, per_image=2, count=8).pairs
    assert pairs and {pair.region for pair in pairs} == {"lower"}


def test_how_often_the_judge_chose_the_nearer_render_is_counted() -> None:
    panel = replace(PANEL, judge=Judge(noise=1e9))
    assert 0.2 < panel.ask(Answering(), IMAGES, per_image=4, count=24).nearer < 0.8


def answering(weights: str | None) -> Answering:
    """A model of these weights."""
    model = Answering()
    model.provenance = replace(model.provenance, weights=weights)
    return model


def test_arms_that_ask_a_model_about_the_same_images_share_its_answers() -> None:
    lower = replace(PANEL, how=replace(HOW, regions=("lower",)), _answers={})
    whole = replace(lower, how=replace(HOW, regions=("whole",)))
    later = replace(lower, how=replace(HOW, seed=1))
    model, some = answering("a"), IMAGES[:2]
    first = lower.pairs(model, some, 2, "")  # type: ignore[arg-type]
    assert len(model.asked) == 2  # means, and a temperature
    whole.pairs(model, some, 2, "")  # type: ignore[arg-type]
    again = lower.pairs(model, some, 2, "")  # type: ignore[arg-type]
    assert len(model.asked) == 2 and [pair.key for pair in again] == [pair.key for pair in first]
    for changed, images in ((later, some), (lower, some[1:])):
        changed.pairs(model, images, 2, "")  # type: ignore[arg-type]
    assert len(model.asked) == 6
    for weights in ("b", None, None):  # of other weights, or of none that are known
        other = answering(weights)
        lower.pairs(other, some, 2, "")  # type: ignore[arg-type]
        assert len(other.asked) == 2


def test_of_two_models_the_nearer_is_preferred() -> None:
    near, far = Knowing(1.0), Knowing(0.2)
    found = PANEL.compare(near, far, IMAGES)  # type: ignore[arg-type]
    assert found.better and found.wins >= 8
    back = PANEL.compare(far, near, IMAGES)  # type: ignore[arg-type]
    assert not back.better and back.count == found.count
    assert not PANEL.compare(near, near, IMAGES).count  # type: ignore[arg-type]


def test_a_judge_is_as_often_right_as_it_should_be() -> None:
    panel = PANEL.calibrated(Answering(), IMAGES, 0.8)  # type: ignore[arg-type]
    assert panel.judge.noise != SURE.noise
    gaps = [
        panel.sitters[pair.image].gap(pair.first, pair.second, pair.region)
        for pair in panel.pairs(Answering(), IMAGES, 2, "")  # type: ignore[arg-type]
    ]
    right = np.mean([panel.judge.probability(abs(gap)) for gap in gaps])
    assert right == pytest.approx(0.8, abs=0.01)


def test_orders_are_the_same_for_a_seed() -> None:
    names = [str(n) for n in range(20)]
    assert shuffled(names, 1) == shuffled(names, 1) != shuffled(names, 2)
    assert sorted(shuffled(names, 1)) == sorted(names)


def test_measures_of_the_truth_and_of_faults() -> None:
    true = np.stack([sample(n) for n in range(30)]).astype(np.float32)
    exact = measures.measures(true, true, None)
    assert exact["upper_mm"] == exact["lower_mm"] == exact["mae"] == exact["false"] == 0
    assert exact["recall"] == 1 and exact["r"] > 0.95  # a channel may be at rest in all of them
    missed = true.copy()
    missed[:, regions.channels("lower")] = 0
    found = measures.measures(missed, true, None)
    assert found["upper_mm"] < 0.05 < found["lower_mm"]
    assert 0.2 < found["recall"] < 0.9 and found["false"] == 0
    dreamt = true.copy()
    dreamt[:, INDEX["CheekPuff"]] = 0.5
    assert measures.measures(dreamt, true, None)["false"] > 0.01
    among = np.zeros(true.shape, bool)
    assert np.isnan(measures.recall(true, true, among))
    among[:, INDEX["JawOpen"]] = True
    assert measures.recall(true, true, among) == 1 and measures.recall(missed, true, among) == 0
    weak = true.copy()
    weak[:, BLENDSHAPES] *= 0.49
    assert measures.measures(weak, true, None)["recall"] == 0


def results() -> dict[str, list[dict]]:
    """Three seeds of three arms; the second arm closes half of the distance of the lower face."""

    def one(upper: float, lower: float, dropped: float = 0.1) -> dict:
        scores = {"upper_mm": upper, "lower_mm": lower, "recall": 0.5, "dropped": dropped}
        return {"scores": scores | {"false": dropped / 10}}

    rounds = {"rounds": [one(1, 2)["scores"]] * 3, "preferred": [0.6, 0.4], "best": 1}
    judged = [{"judgements": 3000, "nearer": 0.85}, {"judgements": 5000, "nearer": 0.8}]
    rounds |= {"reason": "Halted.", "judged": judged, "compared": 900}
    return {
        "faulty": [one(1.0 + d, 3.0) for d in (0.0, 0.1, 0.2)],
        "judged": [one(1.0, 2.0, 0.45) | rounds] * 3,
        "true": [one(0.9 + d, 1.0) for d in (0.0, 0.1, 0.2)],
    }


def test_distances_that_are_not_clear_are_in_brackets() -> None:
    found = report.closed(results(), "faulty", "true", ["judged", "left out"])
    head, _, row = found.splitlines()
    assert head.endswith("| change in recall of dropped | change in false actions |")
    assert row == "| judged | (100%) | 50% | +0.350 | +0.035 |"
    assert report.closed(results(), "faulty", "missing", ["judged"]) == ""


def test_tables_and_a_plot_are_written(tmp_path: Path) -> None:
    report.write(tmp_path, "sf-jax train superface", results(), "distances")
    text = (tmp_path / "superface.md").read_text()
    cells = "1.100 ± 0.100 | 3.000 ± 0.000 | 0.500 ± 0.000 | 0.100 ± 0.000 | 0.010 ± 0.000 |"
    assert f"| faulty | {cells}" in text
    assert "| judged | 0 | 1 | 1.000 | 2.000 | 60% | – | yes |" in text
    asked = "8,000 judgements to train on (85%, 80% of the nearer render), 900 to compare."
    assert f"- judged, seed 0: Halted. {asked}" in text
    assert (tmp_path / "superface.png").read_bytes()[:4] == b"\x89PNG"
