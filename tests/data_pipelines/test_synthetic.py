"""Rendered records: the same every time, people kept apart, rendering resumed."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines import mixtures, records, rendering, synthetic
from data_pipelines.sampler import sample
from data_pipelines.sources import OFFSET
from sf_jax import cli
from sf_jax.cli import data
from sf_jax.face.describe import describe
from sf_jax.render.draw import BACKGROUND


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("split", ["train", "evaluation"])
def test_a_record_is_the_same_every_time(split: str) -> None:
    one = synthetic.face_record(4, 1, split)
    assert_equal(synthetic.face_record(4, 1, split), one)
    for other in (synthetic.face_record(5, 1, split), synthetic.face_record(4, 2, split)):
        assert (other["coefficients"] != one["coefficients"]).any()


def test_fields_belong_together() -> None:
    found = [synthetic.face_record(i, 0, "train") for i in range(96)]
    for record in found:
        height, width = record["image"].shape[:2]
        assert (height, width) in ((96, 96), (64, 128), (128, 64))
        assert record["dense"] == (height == width)
        assert record["parts"].shape == (24, 24) and record["parts"].dtype == np.uint8
        assert (record["parts"] != BACKGROUND).any() == record["dense"]
        assert np.median(np.abs(record["landmarks"] - 0.5)) < 0.4  # shares of the sides
        np.testing.assert_array_equal(record["coefficients"], sample(record["seed"]))
        words = describe(record["coefficients"], record["seed"]).text
        assert record["rationale"] == words
    assert 0 < sum(not record["dense"] for record in found) < 18


def test_people_of_the_splits_are_disjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    class Undrawn(Exception):
        pass

    people: dict[str, set[int]] = {"train": set(), "evaluation": set()}
    seeds: dict[str, set[int]] = {"train": set(), "evaluation": set()}

    def note(number: int, person: int, identities: int) -> None:
        people[split].add(person)
        seeds[split].add(number)
        raise Undrawn

    monkeypatch.setattr(synthetic, "random_scene", note)
    for split in people:
        for seed in (0, 1):
            for index in (*range(1500), OFFSET - 1):
                with pytest.raises(Undrawn):
                    synthetic.face_record(index, seed, split)
    assert not people["train"] & people["evaluation"]
    assert not seeds["train"] & seeds["evaluation"]
    assert all(len(numbers) == 3002 for numbers in seeds.values())


def test_a_record_outside_its_split_is_refused() -> None:
    for index in (-1, OFFSET):
        with pytest.raises(ValueError, match=f"record {index} of split train"):
            synthetic.face_record(index, 0, "train")
    with pytest.raises(ValueError, match="'train' or 'evaluation', not 'test'"):
        synthetic.face_record(0, 0, "test")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "SHARD", 2)
    monkeypatch.setattr(
        rendering, "ProcessPoolExecutor", lambda workers, *_: ThreadPoolExecutor(workers)
    )


def contents(folder: Path) -> list[dict[str, Any]]:
    return [record for path in records.files(folder) for record in records.read(path)]


def test_rendering_resumes(tmp_path: Path, small_shards: None) -> None:
    synthetic.render(tmp_path, 5, seed=3)
    paths = [Path(path) for path in records.files(tmp_path)]
    assert [path.name for path in paths] == [f"train-0000{i}.array_record" for i in range(3)]
    times = [path.stat().st_mtime_ns for path in paths]
    first = contents(tmp_path)
    for i, record in enumerate(first):
        assert_equal(record, synthetic.face_record(i, 3, "train"))

    paths[1].unlink()
    synthetic.render(tmp_path, 5, seed=3)
    again = contents(tmp_path)
    assert len(again) == 5
    for a, b in zip(first, again, strict=True):
        assert_equal(a, b)
    assert [paths[i].stat().st_mtime_ns for i in (0, 2)] == [times[0], times[2]]


def test_a_short_or_damaged_file_is_rendered_again(tmp_path: Path, small_shards: None) -> None:
    synthetic.render(tmp_path, 3)
    (tmp_path / "train-00000.array_record").write_bytes(b"cut off")
    synthetic.render(tmp_path, 4)
    seeds = [record["seed"] for record in contents(tmp_path)]
    assert seeds == [0, 1, 2, 3]


def test_faces_of_another_seed_are_not_replaced(tmp_path: Path, small_shards: None) -> None:
    synthetic.render(tmp_path, 3)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="holds other faces: the first is number 0, --seed 1 begi"):
        synthetic.render(tmp_path, 5, seed=1)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_main_renders_in_processes(tmp_path: Path) -> None:
    split = ["--split", "evaluation"]
    data.main(["render", "--out", str(tmp_path), "--count", "2", *split, "--workers", "1"])
    (path,) = records.files(tmp_path)
    assert Path(path).name == "evaluation-00000.array_record"
    mixture = mixtures.build(mixtures.default_weights(mixtures.Inputs()), mixtures.Inputs())
    for i, record in enumerate(records.read(path)):
        expected = records.decode(mixture.packed(i, "evaluation"))
        assert_equal(record, expected)


def test_data_of_a_run_that_has_begun_is_not_rendered_anew(tmp_path: Path, capsys) -> None:
    """A mistaken --images would change it, and the run could not be resumed."""
    data = tmp_path / "run" / "data" / "train"
    synthetic.check_unchanged(data, 3)
    data.mkdir(parents=True)
    faces = (synthetic.face_record(number, 0, "train") for number in range(3))
    records.write(data / "train-00000.array_record", faces)
    synthetic.check_unchanged(data, 3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.array_record")}
    for name, recipe in (("checkpoints", "sft builtin"), ("warmup/checkpoints", "builtin_model")):
        (tmp_path / "run" / name / "2").mkdir(parents=True)
        command = ["train", *recipe.split(), "--tiny", "--images", "4", "--out"]
        if recipe != "builtin_model":
            command[3:3] = ["--faces", "0"]
        assert cli.main([*command, str(tmp_path / "run")]) == 2
        (error,) = capsys.readouterr().err.splitlines()[-1:]
        assert "data/train: the run began with 3 faces, 4 are asked for; give --images 3" in error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.array_record")} == before


def children(parent: int) -> list[int]:
    found = [path.read_text().split() for path in Path(f"/proc/{parent}/task").glob("*/children")]
    return [int(number) for numbers in found for number in numbers]


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends them on Linux alone")
def test_processes_that_render_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    script = "from data_pipelines import synthetic; import sys; synthetic.render(sys.argv[1], 2000)"
    run = subprocess.Popen([sys.executable, "-c", script, tmp_path], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".*train-00000*")) and time.monotonic() < until:
        time.sleep(0.05)
    started = children(run.pid)
    assert len(started) > 1  # two that render, and one that keeps track of them
    run.kill()
    run.wait()
    until = time.monotonic() + 10
    while any(map(alive, started)) and time.monotonic() < until:
        time.sleep(0.05)
    left = [process for process in started if alive(process)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left
