"""Every ablation with --tiny, in one folder: its tower and its arms are trained once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import records, rendering
from data_pipelines.rigged import BuiltinSource
from data_pipelines.sources import Mixture
from sf_jax.cli import main, recipes
from sf_jax.convert.hf import CheckpointError
from sf_jax.reader import loading
from sf_jax.systems.semanticface import ablation_report as report
from sf_jax.systems.semanticface import ablation_runs, pretraining
from sf_jax.systems.semanticface.ablation import LANGUAGE, READING, TOWER, Arm, Points, data_seed
from sf_jax.systems.semanticface.ablation_runs import Runs
from sf_jax.systems.semanticface.pretraining import WarmupTask
from sf_jax.train import mesh as meshes
from sf_jax.train.step import TrainState
from tests import compiling

RIGS = Path(__file__).parents[2] / "../shared/rigs"


@pytest.fixture(autouse=True, scope="module")
def in_threads() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "ProcessPoolExecutor", lambda workers, *_: ThreadPoolExecutor(1))
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ablations")


def results(name: str, out: Path, *more: str) -> dict[str, dict]:
    """Of unseen people, by arm."""
    assert main(["train", name, "--tiny", "--out", str(out), *more]) in (0, None)
    assert all((out / f"{name}.{ending}").is_file() for ending in ("md", "png"))
    found = json.loads((out / f"{name}.json").read_text())
    sets = found["results"]["equal steps"]
    own = {"own", "drawings", "occlusion", "blur", "low_resolution", "pose"}
    assert set(sets) | set(found["missing"]) >= own and set(sets) >= own
    assert all(arm["measures"]["mae_52"]["mean"] > 0 for arm in sets["own"].values())
    return sets["own"]


def test_read_outs_share_one_arm(out: Path) -> None:
    assert len(results("ablation_readout", out)) == 4
    assert len(list((out / "arms").iterdir())) == 1


@pytest.mark.slow
def test_content(out: Path) -> None:
    """The others share its tower and its arms."""
    found = results("ablation_content", out)
    assert len(found) == 3
    arms = {path.name[:-11] for path in (out / "arms").iterdir()}  # one may have another's name
    assert len(arms) == 3 and {"another-face-s-rationale", "coefficients-alone"} <= arms


@pytest.mark.slow
def test_rationale(out: Path) -> None:
    found = results("ablation_rationale", out)
    assert next(iter(found)) == "direct regression" and len(found) == 4
    with pytest.raises((CheckpointError, FileNotFoundError)):  # it has no language model
        loading.load(next((out / "arms").glob("direct-regression-*")) / "seed-0/model")


@pytest.mark.slow
@pytest.mark.parametrize("name, arms", [("fields", 5), ("decimals", 3), ("channels", 2)])
def test_text_and_slots(out: Path, name: str, arms: int) -> None:
    assert len(results(f"ablation_{name}", out)) == arms
    if name == "channels":
        (folder,) = (out / "arms").glob("52-blendshapes-*")
        assert len(loading.load(folder / "seed-0/model").schema.names) == 52


@pytest.mark.slow
def test_adapters(tmp_path: Path) -> None:
    if not RIGS.is_dir():
        pytest.skip(f"no rigs in {RIGS}")
    found = results("ablation_adapters", tmp_path, "--rigs", str(RIGS))
    assert len(found) == 6
    text = (tmp_path / "ablation_adapters.md").read_text()
    assert "Unseen rig" in text and "were not given: photo skins" in text


@pytest.mark.slow
def test_teacher(tmp_path: Path) -> None:
    made = tmp_path / "records"
    rendering.render(made, 8, Mixture((BuiltinSource(),), {"builtin": 1}), workers=1)
    (path,) = records.files(made)
    freely = [record | {"rationale": "1. Expression: hm."} for record in records.read(path)]
    records.write(path, freely)
    found = results("ablation_teacher", tmp_path / "out", "--teacher", str(made))
    assert list(found) == ["describer", "language model"]
    (copied,) = records.files(tmp_path / "out/data/describer")
    assert all("Movements" in record["rationale"] for record in records.read(copied))


@pytest.mark.slow
def test_a_killed_run_is_resumed(tmp_path: Path, out: Path) -> None:
    """Killed after its first arm; then it ends as one that was not."""
    whole = results("ablation_content", out)
    command = [sys.executable, "-m", "sf_jax", "train", "ablation_content", "--tiny", "--out"]
    started = subprocess.Popen(
        [*command, str(tmp_path)],
        env=compiling.environment() | {"PYTHONPATH": os.fspath(Path(__file__).parents[2])},
    )
    while not list(tmp_path.glob("arms/*/seed-0/result.json")):
        assert started.poll() is None
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    started.wait()
    first = next(tmp_path.glob("arms/*/seed-0/result.json"))
    at = first.stat().st_mtime_ns
    assert results("ablation_content", tmp_path) == whole and first.stat().st_mtime_ns == at


@pytest.mark.slow
def test_budgets_become_steps_and_orders_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without fixed steps, and with step times that are given instead of measured."""
    timed: list[str] = []
    orders: dict[str, int] = {}
    train_stage = pretraining.train_stage

    def step_seconds(task: ablation_runs.Task, *_: object) -> float:
        kind = "warm-up" if isinstance(task, WarmupTask) else "reading" if task.reading else "words"
        kind = "none" if kind == "words" and not task.recipe.sequences.words else kind
        timed.append(kind)
        return {"warm-up": 30.0, "reading": 30.0, "words": 20.0, "none": 12.0}[kind]

    def noted(*given: Any) -> TrainState:
        orders[given[5]] = given[7]
        return train_stage(*given)

    monkeypatch.setattr(ablation_runs, "step_seconds", step_seconds)
    monkeypatch.setattr(pretraining, "train_stage", noted)
    everything, ablation = (recipes.load(f"ablation{name}") for name in ("s", "_rationale"))
    study = replace(everything.tiny(everything.STUDY), steps=None, seeds=2)
    study = replace(study, budget=1.0, tower_budget=0.5, reading_budget=0.5)
    runs = Runs(study, tmp_path, meshes.make(study.recipe.mesh))
    regression, alone, words, _ = ablation.ABLATION.arms
    runs.run([regression, alone, words])
    assert sorted(timed) == ["none", "reading", "warm-up", "warm-up", "words"]  # once for all seeds
    found = [runs.result(arm, 1) for arm in (regression, alone, words)]
    # Regression makes up for reading keys: one step more, and half a minute.
    assert [one.at for one in found] == [Points(4, 3), Points(3, 5), Points(3, 3)]
    assert [one.seconds for one in found] == [30.0, 12.0, 20.0]
    assert len(json.loads((tmp_path / "plan.json").read_text())) == 5
    for seed in range(2):
        of_arms = {orders[f"{arm.name}, seed {seed}"] for arm in (regression, alone, words)}
        assert of_arms == {data_seed(LANGUAGE, seed)}
        assert orders[f"reading, seed {seed}"] == data_seed(READING, seed)
    assert len(set(orders.values())) == 5 and orders["tower"] == data_seed(TOWER, 0)
    three = replace(ablation.ABLATION, arms=(regression, alone, words))
    assert set(report.table_of(three, runs).compared) == {report.STEPS, report.COMPUTE}


def test_two_processes_share_the_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each arm and seed is trained by one of them, and both return when all are done."""
    everything, ablation = (recipes.load(f"ablation{name}") for name in ("s", "_rationale"))
    study = replace(everything.tiny(everything.STUDY), seeds=2)
    trained: list[tuple[str, int]] = []

    def train(self: Runs, arm: Arm, seed: int, where: Path) -> None:
        trained.append((arm.name, seed))
        time.sleep(0.05)
        (where / ablation_runs.RESULT).write_text("{}")

    monkeypatch.setattr(Runs, "prepare", lambda self: None)
    monkeypatch.setattr(Runs, "sets", {})
    monkeypatch.setattr(Runs, "_train_and_read", train)
    monkeypatch.setattr(ablation_runs, "WAIT", 0.01)

    def run(name: str) -> None:
        runs = Runs(study, tmp_path, meshes.make(study.recipe.mesh))
        runs.run([replace(arm, name=f"{name} {arm.name}") for arm in ablation.ABLATION.arms])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, ["one process's", "the other's"]))
    assert len(trained) == 8
    assert len(list((tmp_path / "arms").iterdir())) == 4


def test_every_ablation_is_tried_here() -> None:
    tried = {"content", "rationale", "fields", "decimals", "channels", "readout", "adapters"}
    assert tried | {"teacher"} == set(recipes.load("ablations").ORDER)
