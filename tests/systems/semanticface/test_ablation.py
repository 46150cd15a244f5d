"""Ablations: arms as data, steps of budgets, read-outs, statistics, reports, and resuming."""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_pipelines import records
from data_pipelines.mixtures import Inputs
from data_pipelines.sampler import sample
from sf_jax.cli import recipes
from sf_jax.cli.arguments import UsageError
from sf_jax.face import metrics
from sf_jax.face.bootstrap import people, weights
from sf_jax.face.channels import mirror
from sf_jax.face.describe import describe, read
from sf_jax.media import locks
from sf_jax.media.errors import DataError
from sf_jax.model import lora
from sf_jax.model.lora import LoraConfig
from sf_jax.sequence.tokenizer import SentencePieceTokenizer
from sf_jax.systems.semanticface import ablation_report as report
from sf_jax.systems.semanticface import ablation_runs, pretraining
from sf_jax.systems.semanticface.ablation import (
    LANGUAGE,
    READ_OUTS,
    READING,
    TOWER,
    Arm,
    FixedSteps,
    Points,
    constant,
    data_seed,
    points,
)
from sf_jax.systems.semanticface.ablation_reading import (
    EvaluationSet,
    Reading,
    load,
    median,
    mode,
    save,
)
from sf_jax.systems.semanticface.ablation_runs import Given, Runs
from sf_jax.systems.semanticface.ablation_scores import scores
from sf_jax.systems.semanticface.recipe import Recipe
from sf_jax.systems.semanticface.sequences import FIELDS, mirrored_text, with_fields
from sf_jax.train.optimizer import schedule

ALL = recipes.load("ablations")
STUDY = ALL.STUDY
FOUND = [recipes.load(f"ablation_{name}").ABLATION for name in ALL.ORDER]
SEMANTIC = STUDY.reference


def test_the_command_of_all_knows_every_ablation() -> None:
    names = {name for name in recipes.names() if name.startswith("ablation_")}
    assert names == {f"ablation_{name}" for name in ALL.ORDER} == {one.name for one in FOUND}


def test_arms_that_are_the_same_are_trained_once() -> None:
    recipe = STUDY.recipe
    by_key: dict[str, list[Arm]] = {}
    for one in FOUND:
        for arm in one.arms:
            assert arm.resolved(recipe, 0).vocabulary >= recipe.vocabulary
            by_key.setdefault(arm.key(recipe), []).append(arm)
    shared = {arm.name for arm in by_key[SEMANTIC.key(recipe)]}
    assert shared >= {"1 decimal", "61 channels", "all four fields", *READ_OUTS}
    assert len(by_key) == 20 and len(by_key[FOUND[0].arms[1].key(recipe)]) == 2
    # The documented budget of those that need no other teacher, and of their bases, is a night.
    own = {key for key, arms in by_key.items() if arms[0].trained and arms[0].data != "teacher"}
    assert len(own) * STUDY.seeds * STUDY.budget / 60 < 8.0
    assert replace(SEMANTIC, name="another").key(recipe) == SEMANTIC.key(recipe)
    assert replace(SEMANTIC, rationale=False).key(recipe) != SEMANTIC.key(recipe)
    assert SEMANTIC.folder(recipe).startswith("rationale-then-coefficients-")


def test_a_vocabulary_has_room_for_all_values() -> None:
    three = Arm("", {}, {"decimals": 3}).resolved(STUDY.recipe, 1)
    assert three.vocabulary == STUDY.recipe.vocabulary + 2001 - 21 and three.seed == 1


def test_adapters_are_in_their_part_alone() -> None:
    declared = STUDY.recipe.config(_Words()).declare()  # type: ignore[arg-type]
    arms = {arm.name: arm.adapter for arm in FOUND[ALL.ORDER.index("adapters")].arms}

    def parts(adapter: str) -> set[str]:
        names = [name for name, *_ in lora.layout(LoraConfig(adapter), declared)]
        assert names
        return {"merger" if "merger" in name else name.split(".")[1] for name in names}

    found = {name: parts(adapter) for name, adapter in arms.items() if adapter is not None}
    assert list(found.values()) == [
        {"language_model"},
        {"visual"},
        {"merger"},
        {"language_model", "visual", "merger"},
    ]


class _Words:
    """Enough of a tokenizer for a configuration."""

    def __len__(self) -> int:
        return 50

    def symbol(self, text: str) -> int:
        return 3


def test_a_budget_becomes_steps() -> None:
    assert points(1.0, 1.0, 10) == Points(600, 600)
    assert points(1.0, 0.5, 10) == Points(600, 1200)
    assert points(1.0, 2.0, 10) == Points(600, 300)
    assert points(1.0, 0.97, 10) == Points(600, 600)  # as near as timing is exact
    assert points(1.0, 0.5, 10).ascending == [600, 1200] and Points(7, 7).ascending == [7]


def test_the_rate_does_not_depend_on_where_a_run_ends() -> None:
    at = Points(100, 250)
    stage, steps = STUDY.recipe.language, (1, 20, 39, 60, 99)
    both = [schedule(constant(stage, at, length).optimizer) for length in (100, 250)]
    rates = np.array([[float(one(step)) for step in steps] for one in both])
    np.testing.assert_allclose(rates[0], rates[1])
    assert rates[0, -1] == pytest.approx(stage.optimizer.learning_rate)


def test_fields_and_sides_of_a_rationale() -> None:
    text = describe(sample(3), 1).text
    assert with_fields(text, FIELDS) == text
    for name in FIELDS:
        left = with_fields(text, [each for each in FIELDS if each != name])
        assert f"{name}:" not in left and len(left.split("\n")) == 3
        assert all(line in text for line in left.split("\n"))
    for seed in range(30):
        face = sample(seed)
        here, there = (
            read(mirrored_text(describe(face, seed).text)),
            read(describe(mirror(face)).text),
        )
        assert here.levels == there.levels and here.asymmetric == there.asymmetric


def test_read_outs_of_a_distribution() -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan], [-1.0, 0.0, 0.5, 1.0]])
    mass = np.array([[0.45, 0.15, 0.4, np.nan], [0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_array_equal(median(mass, values), [0.5, 0.5])
    np.testing.assert_array_equal(mode(mass, values), [0.0, 1.0])
    batch = np.stack([mass, mass])
    np.testing.assert_array_equal(median(batch, values), [[0.5, 0.5]] * 2)
    unread = np.full((1, 4), np.nan)
    assert np.isnan(mode(unread, unread)).all() and np.isnan(median(unread, unread)).all()


def test_predictions_are_saved_and_loaded(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    values = {name: g.random((3, 61)).astype(np.float32) for name in READ_OUTS}
    save(tmp_path / "a.npz", {"own": Reading(values, {})})
    found = load(tmp_path / "a.npz", ["own"])["own"]
    assert all((found[name] == values[name]).all() for name in READ_OUTS)
    with pytest.raises(DataError, match="blur"):
        load(tmp_path / "a.npz", ["own", "blur"])


def made(count: int = 60, persons: int = 20) -> EvaluationSet:
    labels = np.stack([sample(i) for i in range(count)])
    known = np.ones(labels.shape, bool)
    return EvaluationSet([], labels, known, people([i % persons for i in range(count)]))


def noisy(faces: EvaluationSet, size: float, seed: int) -> np.ndarray:
    g = np.random.default_rng(seed)
    return np.clip(faces.labels + g.normal(0, size, faces.labels.shape), -1, 1).astype(np.float32)


def test_intervals_over_people_and_spread_over_seeds() -> None:
    faces, all_read = made(), np.ones(61, bool)
    predicted = {
        "good": [noisy(faces, 0.05, seed) for seed in range(3)],
        "bad": [noisy(faces, size, seed) for seed, size in enumerate((0.3, 0.35, 0.4))],
        "same": [noisy(faces, 0.05, seed) for seed in range(3)],
    }
    none: dict[str, list[dict[str, float]]] = {name: [{}, {"exact": 0.5}, {}] for name in predicted}
    read_by = dict.fromkeys(predicted, all_read)
    found = scores(predicted, faces, "good", read_by, none)
    good, bad, same = (found[name].measures["r_52"] for name in ("good", "bad", "same"))
    by_hand = [metrics.evaluate(each, faces.labels).summary()["r_52"] for each in predicted["bad"]]
    assert bad.seeds == pytest.approx(by_hand) and bad.mean == pytest.approx(np.mean(by_hand))
    assert bad.spread == pytest.approx(np.std(by_hand, ddof=1))
    assert good.interval and bad.interval and bad.difference_interval
    assert good.interval.low < good.mean < good.interval.high
    assert good.difference is None and good.difference_interval is None
    assert bad.difference == pytest.approx(bad.mean - good.mean, abs=0.02)
    assert bad.difference_interval.high < 0
    assert same.difference == 0 and same.difference_interval is not None  # paired, so exactly
    assert same.difference_interval.low == same.difference_interval.high == 0
    assert found["good"].agreement == {"exact": 0.5}
    assert found["bad"].measures["lips_mm"].mean > 2 * found["good"].measures["lips_mm"].mean


def test_a_resample_draws_people_for_all_seeds_together() -> None:
    """The interval of mean r is that of resampling people's images by hand."""
    faces, all_read = made(40, 8), np.ones(61, bool)
    predicted = [noisy(faces, 0.3, seed) for seed in range(2)]
    found = scores({"a": predicted}, faces, "a", {"a": all_read}, {"a": [{}, {}]})
    drawn = weights(8)[:200]
    by_hand = []
    for row in drawn:
        images = np.concatenate(
            [np.tile(np.flatnonzero(faces.person == one), n) for one, n in enumerate(row)]
        )
        labels = faces.labels[images]
        each = [metrics.correlation(p[images], labels)[:52].mean() for p in predicted]
        by_hand.append(np.mean(each))
    interval = found["a"].measures["r_52"].interval
    assert interval is not None
    low, high = np.quantile(by_hand, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.03)
    assert interval.high == pytest.approx(high, abs=0.03)


def test_channels_that_an_arm_does_not_read_do_not_count() -> None:
    faces = made(12, 12)
    values = faces.labels.copy()
    values[:, 52:] = 0
    blendshapes = np.arange(61) < 52
    found = scores({"a": [values]}, faces, "a", {"a": blendshapes}, {"a": [{}]})["a"].measures
    assert found["mae_52"].mean == 0 and math.isnan(found["head_degrees"].mean)
    assert math.isnan(found["r_52"].spread)  # one seed


# Runs, with reading and training replaced.


class FakeRuns(Runs):
    """Two sets of few faces, without rendering and training."""

    def prepare(self) -> None:
        pass

    @cached_property
    def sets(self) -> dict[str, EvaluationSet]:
        return {"own": made(6, 6), "drawings": made(5, 5)}


def fake_job(trained: list[tuple[str, int]], stop_at: int | None = None) -> type:
    class Job:
        def __init__(self, runs: Runs, arm: Arm, seed: int, where: Path):
            self.arm, self.seed, self.seconds = arm, seed, 0.5
            self.points = Points(2, 2 if arm.rationale else 3)

        def reader(self, step: int) -> Callable[[EvaluationSet], Reading]:
            if len(trained) == stop_at:
                raise KeyboardInterrupt
            trained.append((self.arm.name, step))
            return lambda faces: Reading(
                dict.fromkeys(READ_OUTS, noisy(faces, 0.1, self.seed + 10 * step)), {"exact": 0.5}
            )

    return Job


def test_a_run_that_is_stopped_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = replace(STUDY, seeds=2)
    one = FOUND[ALL.ORDER.index("content")]
    before: list[tuple[str, int]] = []
    monkeypatch.setattr(ablation_runs, "_Job", fake_job(before, stop_at=2))
    with pytest.raises(KeyboardInterrupt):
        FakeRuns(study, tmp_path, None).run(one.arms)  # type: ignore[arg-type]
    assert before == [("coefficients alone", 2), ("coefficients alone", 3)]
    after: list[tuple[str, int]] = []
    monkeypatch.setattr(ablation_runs, "_Job", fake_job(after))
    runs = FakeRuns(study, tmp_path, None)  # type: ignore[arg-type]
    runs.run(one.arms)
    assert len(after) == 6 and after[0] == ("rationale, then coefficients", 2)
    runs.run(one.arms)
    assert len(after) == 6
    check_report(report.table_of(one, runs), tmp_path)


def check_report(table: report.Table, folder: Path) -> None:
    made_by = {"command": "sf-jax train ablation_content", "commit": "0123"}
    paths = report.write(table, folder / "results", made_by)
    assert [path.suffix for path in paths] == [".json", ".md", ".png"]
    content = json.loads(paths[0].read_text())
    results = content["results"]
    assert set(results) == {"equal steps", "equal compute"} and content["commit"] == "0123"
    measure = results["equal steps"]["own"]["another face's rationale"]["measures"]["r_52"]
    assert len(measure["seeds"]) == 2 and measure["sd"] >= 0
    assert measure["interval"]["low"] <= measure["interval"]["high"]
    text = paths[1].read_text()
    missing = "unseen rig, photo skins, occlusion, blur, low resolution, pose beyond training"
    assert f"**Not measured, since rigs or skins were not given: {missing}.**" in text
    assert "share one vision tower" in text and "| coefficients alone | 2 | 3 | 0.500 |" in text
    assert paths[2].read_bytes()[:4] == b"\x89PNG"


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    nothing: Any = None
    Runs(STUDY, tmp_path, nothing)
    Runs(replace(STUDY, seeds=9), tmp_path, nothing)  # more seeds may be added
    with pytest.raises(DataError, match="another budget, steps; give the same"):
        Runs(replace(STUDY, budget=3.0, steps=FixedSteps(1, 1, 1)), tmp_path, nothing)


def test_inputs_are_known_by_their_content(tmp_path: Path) -> None:
    nothing: Any = None

    def given(folder: str, content: str, of: str = "teacher") -> Given:
        path = tmp_path / folder / of
        path.mkdir(parents=True, exist_ok=True)
        (path / "file").write_text(content)
        return Given(teacher=path) if of == "teacher" else Given(Inputs(**{of: path}))

    for name in ("rigs", "backgrounds"):
        out = tmp_path / f"out-{name}"
        Runs(STUDY, out, nothing, given("one", "a", name))
        Runs(STUDY, out, nothing, given("moved", "a", name))
        for other in (given("other", "ab", name), Given()):
            with pytest.raises(DataError, match=f"made with another {name}; give the same"):
                Runs(STUDY, out, nothing, other)
    # Only arms that need a teacher depend on it: others are run without it, before and after.
    for one in (Given(), given("one", "a"), given("moved", "a"), Given()):
        Runs(STUDY, tmp_path / "out", nothing, one)
    with pytest.raises(DataError, match="made with another teacher; give the same"):
        Runs(STUDY, tmp_path / "out", nothing, given("other", "ab"))
    noted = json.loads((tmp_path / "out/study.json").read_text())
    del noted["teacher"]  # as before it was noted
    (tmp_path / "out/study.json").write_text(json.dumps(noted))
    with pytest.raises(DataError, match="made with another teacher"):
        Runs(STUDY, tmp_path / "out", nothing)


def test_settings_are_noted_by_one_process_at_a_time(tmp_path: Path) -> None:
    nothing: Any = None
    with ThreadPoolExecutor(1) as pool:
        with locks.held(tmp_path):
            waiting = pool.submit(Runs, STUDY, tmp_path, nothing)
            time.sleep(0.1)
            assert not (tmp_path / "study.json").exists()
        waiting.result(timeout=60)
    assert (tmp_path / "study.json").exists()


def test_what_trains_nothing_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation_runs, "_Job", fake_job([]))
    runs = FakeRuns(replace(STUDY, seeds=1), tmp_path, None)  # type: ignore[arg-type]
    still, adapted = FOUND[ALL.ORDER.index("adapters")].arms[:2]
    runs.run([still, adapted])
    assert math.isnan(runs.result(still, 0).seconds)
    assert runs.result(adapted, 0).seconds == 0.5


def test_no_two_seeds_or_stages_have_one_order_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = {data_seed(stage, seed) for stage in (TOWER, READING, LANGUAGE) for seed in range(9)}
    assert len(orders) == 27 and data_seed(LANGUAGE, 3) == data_seed(LANGUAGE, 3)
    given: list[int] = []
    monkeypatch.setattr(
        pretraining,
        "train_stage",
        lambda *all: given.append(all[-1]) or SimpleNamespace(weights={}),
    )
    for seed in range(3):
        job: Any = SimpleNamespace(
            task=lambda step: SimpleNamespace(trainable=None),
            runs=SimpleNamespace(data=lambda name: tmp_path, mesh=None),
            arm=SEMANTIC,
            recipe=SimpleNamespace(seed=seed),
            **dict.fromkeys(("first", "where", "tokenizer_folder")),
        )
        ablation_runs._Job._trained(job, 5)
    assert given == [data_seed(LANGUAGE, seed) for seed in range(3)]


@pytest.mark.parametrize("waits", [0.0, 1.0])
def test_a_step_is_timed_with_the_batches_that_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: float
) -> None:
    """A clock that reading a batch and a step move on; the first 10 batches are ready."""
    clock = [0.0]

    def batches() -> Iterator[int]:
        for number in count():
            clock[0] += waits if number > 10 else 0.0
            yield number

    def step(state: int, batch: int) -> tuple[int, int]:
        clock[0] += 0.25 if state else 60.0  # the first compiles
        return state + 1, batch

    task: Any = SimpleNamespace(create=lambda *_: 0, build_step=lambda _: step)
    monkeypatch.setattr(pretraining, "batches_of", lambda *_: (batches(), None))
    monkeypatch.setattr(ablation_runs.meshes, "put", lambda batch, mesh: batch)
    monkeypatch.setattr(ablation_runs.time, "perf_counter", lambda: clock[0])
    nothing: Any = None
    assert ablation_runs.step_seconds(task, nothing, tmp_path, nothing) == 0.25 + waits


def test_a_tokenizer_learns_recorded_words_once_and_without_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, nothing = tmp_path / "teacher", None
    teacher.mkdir()
    stored = [records.packed({"rationale": text, "image": b"none"}) for text in ("a", "", "b")]
    records.write_encoded(teacher / "faces.array_record", stored)
    learnt: list[list[str]] = []

    def make(recipe: Recipe, folder: Path, texts: list[str]) -> None:
        learnt.append(texts)
        (folder / SentencePieceTokenizer.file).touch()

    monkeypatch.setattr(ablation_runs, "make_tokenizer", make)
    monkeypatch.setattr(ablation_runs, "RECORDED", 2)
    recipe = FOUND[ALL.ORDER.index("teacher")].arms[0].resolved(STUDY.recipe, 0)
    runs = Runs(STUDY, tmp_path / "out", nothing, Given(teacher=teacher))  # type: ignore[arg-type]
    runs.tokenizer(recipe)
    assert learnt == [["a"]]
    monkeypatch.setattr(records, "files", lambda _: pytest.fail("read again"))
    runs.tokenizer(recipe)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["adapters"], "ablation_adapters needs --rigs"),
        (["teacher"], "ablation_teacher needs --teacher"),
        (["adapters", "--rigs", "nowhere"], "nowhere: --rigs: no such folder"),
        (["content", "--mixture", "builtin=1,drawn=1"], "unrecognized arguments: --mixture"),
        (["content", "--tiny", "--budget", "2"], "--budget has no effect with --tiny"),
        (["content", "--tiny", "--reading-budget", "0"], "--reading-budget has no effect with"),
    ],
)
def test_what_is_missing_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipes.load(f"ablation_{arguments[0]}").main(arguments[1:])
