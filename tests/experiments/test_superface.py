"""The study of SuperFace: its folder is of one study, and goes on wherever it was stopped."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_pipelines import records, synthetic
from sf_jax.cli import main, recipes
from sf_jax.cli.arguments import UsageError
from sf_jax.reader import loading
from sf_jax.systems.superface import study as study_module
from sf_jax.systems.superface.rounds import Preference
from sf_jax.systems.superface.study import Panel
from tests.systems.superface.answering import Answering

STUDY = recipes.load("superface")
MESH: Any = None  # nothing is trained here, but by what is slow
ROOT = Path(__file__).parents[2]
PATIENCE = 1200.0  # seconds until a run must have come to where it is killed


def run_of(out: Path, study: Any, labels: Path = STUDY.MEDIAPIPE) -> Any:
    return STUDY.Run(study, out, loading.BUILTIN, labels, MESH)


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    STUDY.claim(run_of(tmp_path, STUDY.tiny(STUDY.STUDY)))
    STUDY.claim(run_of(tmp_path, STUDY.tiny(STUDY.STUDY)))
    with pytest.raises(UsageError, match="another study; name another --out"):
        STUDY.claim(run_of(tmp_path, STUDY.STUDY))
    (tmp_path / "labels.csv").write_text("image,JawOpen\n")
    with pytest.raises(UsageError, match="another labels"):
        STUDY.claim(run_of(tmp_path, STUDY.tiny(STUDY.STUDY), tmp_path / "labels.csv"))


def test_missing_labels_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "superface", "--out", str(tmp_path), "--labels", "none.csv"]) == 2
    assert "none.csv: no such file" in capsys.readouterr().err


def test_changed_data_are_accepted_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def run(*given: Any) -> None:
        asked.append(given[-1])
        raise Stopped

    monkeypatch.setattr(STUDY, "Run", run)
    for more in ([], ["--accept-changed-data"]):
        with pytest.raises(Stopped):
            STUDY.main(["--tiny", "--out", str(tmp_path), *more])
    assert asked == [False, True]


def test_a_damaged_file_of_a_study_is_named(tmp_path: Path) -> None:
    run = run_of(tmp_path, STUDY.STUDY)
    path = tmp_path / "read" / "the-model-as-it-is-0.json"
    path.parent.mkdir()
    path.write_text('{"held_out": [[[0.1]]], "unasked": "')
    with pytest.raises(STUDY.StudyError, match=f"{path}: .*delete the file, and it is made anew"):
        run.read(STUDY.STUDY.arms[0], 0)


def test_a_rig_that_is_gone_is_named_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, rig = tmp_path / "out", tmp_path / "gone.npz"
    assert main(["train", "superface", "--tiny", "--out", str(out), "--rig", str(rig)]) == 2
    error = capsys.readouterr().err
    assert f"{rig}: no such file" in error and error.count("\n") == 1 and not out.exists()


def test_arms_stay_below_the_judgements_of_the_study() -> None:
    """Two regions are compared on each image of the comparison in every round."""
    study = STUDY.STUDY
    for arm in study.arms:
        if arm.by == "judgements":
            assert arm.most * (study.judgements + 2 * study.compared) <= 12_000


def test_rounds_ask_about_other_images_while_there_are_enough(tmp_path: Path) -> None:
    study = STUDY.STUDY
    run, images = run_of(tmp_path, study), [str(n) for n in range(study.images - study.compared)]
    first, second = (set(run._some(images, number)) for number in (1, 2))
    assert len(first) == len(second) == -(-study.judgements // study.per_image)
    assert not first & second


def test_seeds_share_nothing() -> None:
    assert len({STUDY.drawn(seed, number) for seed in range(9) for number in range(9)}) == 81


class Stopped(BaseException):
    """As when a process is killed: nothing of ours catches it."""


class Pretended:
    """All that takes long, pretended: each part is stopped the first time, half-written."""

    def __init__(self, patch: pytest.MonkeyPatch, stops: bool):
        self.tried: Counter[tuple[str, str]] = Counter()
        self.accepted: set[bool] = set()  # whether changed data were, by all that trains
        self._stops = stops
        for owner, name, of in (
            (STUDY.task, "run", lambda *given, **_: given[4]),
            (STUDY, "train_on_pairs", lambda *given, **_: given[3]),
            (STUDY, "train_reward", lambda *given, **_: given[3]),
            (STUDY.grpo, "train", lambda *given, **_: given[4]),
        ):
            patch.setattr(owner, name, partial(self._trained, name, of))
        nothing: Callable = lambda *_, **__: None  # noqa: E731
        patch.setattr(STUDY.fine_tuning, "task_of", nothing)
        patch.setattr(STUDY.fine_tuning, "feed_of", lambda *_: (None, None))
        patch.setattr(STUDY.training, "initial_state", nothing)
        patch.setattr(STUDY.AnswerExamples, "of", nothing)
        patch.setattr(STUDY.synthetic, "render", rendered)
        patch.setattr(STUDY.loading, "load", self._loaded)
        patch.setattr(STUDY, "load_reward", self._reward_model)
        patch.setattr(STUDY, "answers_to", self._answers)
        patch.setattr(STUDY.measures, "measures", lambda read, *_: {"mae": float(read.mean())})
        patch.setattr(study_module, "TOGETHER", 6)
        patch.setattr(Panel, "compare", lambda _, new, best, images: self._compared(new))

    def _stop(self, what: str, of: Path | str) -> None:
        self.tried[what, str(of)] += 1
        if self._stops and self.tried[what, str(of)] == 1:
            raise Stopped

    def _trained(self, what: str, of: Callable[..., Path], *given: Any, **how: Any) -> None:
        folder = of(*given, **how)
        recipe = given[5] if what == "run" else given[0]
        self.accepted.add(recipe.accept_changed_data)
        (folder / "model").mkdir(parents=True, exist_ok=True)
        self._stop(what, folder)
        shutil.copy(loading.BUILTIN / "config.json", folder / "model")
        (folder / "model" / "whole").touch()

    def _loaded(self, path: Path) -> Any:
        assert path == loading.BUILTIN or (path / "whole").exists()
        model = Answering(shift=len(str(path.relative_to(path.parents[2]))))
        model.path = path  # type: ignore[attr-defined]
        return model

    def _reward_model(self, path: Path) -> Any:
        assert (path / "whole").exists()
        fit = lambda image: image  # noqa: E731
        answers = SimpleNamespace(processor=SimpleNamespace(fit=fit))
        score = lambda image, answers, regions: np.zeros((len(regions), len(answers)))  # noqa: E731
        return SimpleNamespace(answers=answers, by_region=score)

    def _answers(self, model: Any, images: list) -> list:
        self._stop("read", model.path)
        return model.predict_batch([model.fitted(image) for image in images])

    def _compared(self, new: Any) -> Preference:
        self._stop("compare", new.path)
        if "grpo-by-render" in str(new.path):  # whose answers all look alike
            return Preference(0, 0, 0)
        return Preference(9, 1 if "round-1" in str(new.path) else 9, 0)


def rendered(out: Path, count: int, *, seed: int) -> None:
    """A few faces, in this process."""
    if not out.is_dir():
        out.mkdir(parents=True)
        made = [synthetic.face_record(n, seed, "train") for n in range(count)]
        records.write(out / "train.array_record", made)


def test_a_study_goes_on_wherever_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is stopped once, is done over, and nothing that is complete is done again."""
    arms = [
        replace(arm, most=3 if arm.beyond else 2)
        for arm in STUDY.STUDY.arms
        if arm.by is None or arm.name in ("DPO by region", "GRPO by render", "GRPO by reward model")
    ]
    study = replace(STUDY.tiny(STUDY.STUDY), images=6, compared=2, faces=2, arms=tuple(arms))

    def results(out: Path, accept: bool) -> dict[str, Any]:
        out.mkdir(exist_ok=True)
        run = replace(run_of(out, study), accept_changed_data=accept)
        STUDY.claim(run)
        return {arm.name: run.results(arm, 0, None) for arm in study.arms}

    whole = Pretended(monkeypatch, stops=False)
    expected = results(tmp_path / "whole", False)
    assert whole.accepted == {False}
    assert set(whole.tried.values()) == {1}
    kinds = Counter(what for what, _ in whole.tried)
    assert kinds["run"] == 3 and kinds["train_on_pairs"] == 2 and kinds["train_reward"] == 1
    assert kinds["train"] == 1 + 3 and kinds["compare"] == 2 + 1 + 2
    assert kinds["read"] == 4 + 2 + 1 + 3  # the fine-tuned models, that as it is, and rounds
    monkeypatch.undo()
    parted = Pretended(monkeypatch, stops=True)
    for _ in range(100):
        try:
            found = results(tmp_path / "parted", True)
            break
        except Stopped:
            pass
    assert found == expected and parted.accepted == {True}
    reads = {count for (what, _), count in parted.tried.items() if what == "read"}
    assert {count for (what, _), count in parted.tried.items() if what != "read"} == {2}
    assert reads <= {2, 3, 4}  # the rounds of an arm are read together


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole")
    assert main(["train", "superface", "--tiny", "--out", str(out)]) in (0, None)
    return out


@pytest.mark.slow
def test_the_study_from_nothing(whole: Path) -> None:
    """A second run has nothing left to train, and writes the same."""
    found = json.loads((whole / "superface.json").read_text())["arms"]
    assert "fine-tuned on truth" in found and len(found["DPO by region"][0]["rounds"]) == 1
    assert found["GRPO by reward model"][0]["judged"] == found["DPO by region"][0]["judged"]
    assert (whole / "superface.png").is_file()
    table = (whole / "superface.md").read_text()
    assert main(["train", "superface", "--tiny", "--out", str(whole)]) in (0, None)
    assert (whole / "superface.md").read_text() == table


KILLS = (  # files that a run writes, in their order
    "tuned/b/seed-0/model",
    "arms/dpo--whole-face/seed-0/round-1/judged.json",
    "arms/grpo-by-render/seed-0/round-1/checkpoints/*",
    "arms/grpo-by-reward-model/seed-0/reward/model",
    "read/fine-tuned-on-a-0.json",
)


@pytest.mark.slow
def test_a_study_that_was_killed_ends_as_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sf_jax",
        "train",
        "superface",
        "--tiny",
        "--out",
        str(tmp_path),
    ]
    for wanted in KILLS:
        assert not list(tmp_path.glob(wanted)), f"the kill before {wanted} came too late"
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as running:
            until = time.monotonic() + PATIENCE
            while not list(tmp_path.glob(wanted)):
                assert running.poll() is None and time.monotonic() < until
                time.sleep(0.02)
            running.send_signal(signal.SIGKILL)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    one, other = (json.loads((out / "superface.json").read_text()) for out in (whole, tmp_path))
    assert one == other
