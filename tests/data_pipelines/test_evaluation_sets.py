"""Measured sets: of what is held out alone, framed widely, left out where inputs lack."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipelines import evaluation_sets, records, rendering, scenes
from data_pipelines.evaluation_sets import ROOMY, SETS, WholePortraits
from data_pipelines.mixtures import Inputs
from data_pipelines.portraits import LIST
from data_pipelines.scenes import Scenes
from data_pipelines.sources import OFFSET
from sf_jax import cli


@pytest.fixture(autouse=True)
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        rendering, "ProcessPoolExecutor", lambda workers, *_: ThreadPoolExecutor(workers)
    )


@pytest.fixture
def portraits(tmp_path: Path) -> Path:
    folder = tmp_path / "portraits"
    folder.mkdir()
    lines = []
    for i, name in enumerate(("male_12", "female_00", "female_02", "female_01")):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((60, 80, 3), 50 * i, np.uint8))
        landmarks = [[0.4 + 0.001 * j, 0.5] for j in range(68)]
        lines.append(json.dumps({"image": f"{name}.png", "landmarks68": landmarks}))
    (folder / LIST).write_text("\n".join(lines))
    return folder


def test_sets_are_written_or_left_out(tmp_path: Path, portraits: Path, capsys) -> None:
    names = ["own", "skins", "portraits", "faceless"]
    command = ["data", "sets", "--out", str(tmp_path / "out"), "--count", "2", "--sets", *names]
    assert cli.main([*command, "--portraits", str(portraits)]) in (0, None)
    lines = capsys.readouterr().out.splitlines()
    assert "skins: left out: source 'skins' needs --rigs and --skins" in lines
    assert sum("2 records in" in line for line in lines) == 3

    own = records.first(tmp_path / "out" / "own", 9)
    assert len(own) == 2 and own[0]["image"].shape == (256, 256, 3)
    assert all(record["identity"] >= OFFSET and record["known"].all() for record in own)

    found = records.first(tmp_path / "out" / "portraits", 9)
    assert [record["style"] for record in found] == ["female_00", "female_01"]
    assert found[0]["image"].shape == (60, 80, 3) and (found[0]["image"] == 50).all()
    assert not found[0]["known"].any() and np.isfinite(found[0]["landmarks"][:68]).all()

    (path,) = records.files(tmp_path / "out" / "faceless")
    assert [len(scene.faces) for scene in scenes.read(path)] == [0, 0]


def test_photographs_come_first_and_whole(tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(20):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((30, 40, 3), 10 * i, np.uint8))
    maker = evaluation_sets.Faceless(folder)
    held = [scenes.decode(maker.packed(i, "evaluation")).image for i in range(12)]
    sizes = [image.shape[:2] for image in held]
    count = sizes.count((30, 40))
    assert 1 < count < 12 and sizes[:count] == [(30, 40)] * count


def test_scenes_to_measure_have_faces_and_framings_have_room() -> None:
    maker = SETS["scenes"].make(Inputs())
    assert isinstance(maker, Scenes) and maker.size == (480, 640)
    for index in range(3):
        assert maker.scene(index, "evaluation").faces
    widest = 2.5 * ROOMY.share[1] / 0.8  # of a square, in sides of the picture
    assert widest < 0.9


def test_a_set_that_there_is_not_is_refused(tmp_path: Path, capsys) -> None:
    assert cli.main(["data", "sets", "--out", str(tmp_path / "out"), "--sets", "cats"]) == 2
    assert "no set 'cats'; there are own, skins" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"portraits\.jsonl: no such file"):
        WholePortraits(tmp_path).check("evaluation")
    assert not (tmp_path / "out").exists()
