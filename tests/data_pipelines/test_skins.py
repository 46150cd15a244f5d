"""`sf-jax data skins`: a folder of portraits to a file of skins, a sheet and reasons."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipelines import skins
from sf_jax.face.landmarks import Square
from sf_jax.media.errors import DataError
from sf_jax.reader.finder import Found
from sf_jax.reader.framing import Framer
from sf_jax.render.draw import draw
from sf_jax.render.head import builtin
from sf_jax.render.scene import plain_scene
from sf_jax.render.skins import SkinsError, read

SIDE = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portrait, one of an open mouth, and a damaged one; listed with landmarks."""
    folder = tmp_path_factory.mktemp("portraits")
    even = replace(plain_scene(), ambient=0.8, key=0.2)
    lines = []
    for name, jaw in (("calm.png", 0.0), ("open.png", 0.9), ("damaged.png", 0.0)):
        coefficients = np.zeros(61, np.float32)
        coefficients[17] = jaw
        drawing = draw(builtin(), coefficients, even, SIDE, SIDE)
        cv2.imwrite(str(folder / name), drawing.image[..., ::-1])
        points = np.round(drawing.landmarks[:68] / SIDE, 4).tolist()
        lines.append(json.dumps({"image": name, "landmarks68": points}))
    (folder / "damaged.png").write_bytes((folder / "calm.png").read_bytes()[:2000])
    (folder / "portraits.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_becomes_a_file_a_sheet_and_reasons(folder: Path, tmp_path: Path):
    out = tmp_path / "skins.npz"
    outcome = skins.make(skins.candidates(folder), builtin(), out)
    assert outcome.accepted == ("calm.png",)
    assert "the mouth is open" in outcome.refused["open.png"]
    assert "damaged" in outcome.refused["damaged.png"]
    assert next(iter(skins.summary(outcome))) == "1 of 3 portraits became skins"
    made = read(out, builtin())
    assert made.portrait == ("calm.png",) and 0 < made.fit_error_cm[0] < 0.1
    sheet = cv2.imread(str(tmp_path / "skins.png"))
    assert sheet is not None and sheet.shape[1] == 4 * skins.CELL
    shown = [sheet[: skins.CELL, i * skins.CELL : (i + 1) * skins.CELL] for i in range(4)]
    for other in shown[2:]:  # turned, and smiling
        assert np.abs(shown[1].astype(int) - other).mean() > 0.5
    with pytest.raises(SkinsError, match=r"skins\.npz: exists already"):
        skins.make(skins.candidates(folder), builtin(), out)


def test_nothing_is_written_where_all_are_refused(folder: Path, tmp_path: Path):
    some = skins.candidates(folder, only=["open"])
    assert [one.path.name for one in some] == ["open.png"]
    with pytest.raises(SkinsError, match=r"all 1 portraits are refused, open\.png because the mou"):
        skins.make(some, builtin(), tmp_path / "skins.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_landmarks_are_found_where_no_list_has_them(folder: Path, tmp_path: Path):
    listed = skins.candidates(folder)[0]
    (tmp_path / "one.png").write_bytes(listed.path.read_bytes())
    (tmp_path / "notes.txt").write_text("no portrait")
    some = skins.candidates(tmp_path)
    assert [one.path.name for one in some] == ["one.png"] and some[0].landmarks is None
    with pytest.raises(SkinsError, match=r"one\.png because no landmarks of it are known"):
        skins.make(some, builtin(), tmp_path / "a.npz")
    with pytest.raises(SkinsError, match=r"one\.png because no face is found"):
        skins.make(some, builtin(), tmp_path / "a.npz", lambda image: None)
    assert listed.landmarks is not None
    marks = listed.landmarks * SIDE
    outcome = skins.make(some, builtin(), tmp_path / "a.npz", lambda image: marks)
    assert outcome.accepted == ("one.png",)


def test_landmarks_are_those_of_the_largest_face() -> None:
    boxes = [Found(Square(30, 30, 20), 0.9), Found(Square(60, 50, 40), 0.8)]
    seen: list[Square] = []

    def read_landmarks(image: np.ndarray, square: Square) -> np.ndarray:
        seen.append(square)
        return np.full((70, 2), square.x) + np.linspace(0, square.side, 70)[:, None]

    image = np.zeros((100, 100, 3), np.uint8)
    find = skins.landmarks_by(Framer(lambda image: boxes, read_landmarks))
    found = find(image)
    assert found is not None and found.shape == (70, 2) and seen[-1].x >= 60
    assert skins.landmarks_by(Framer(lambda image: [], read_landmarks))(image) is None
    with pytest.raises(SkinsError, match="the model reads no landmarks"):
        skins.landmarks_by(Framer(lambda image: boxes))


def test_names_are_read_from_text_and_from_skins(tmp_path: Path):
    (tmp_path / "names.txt").write_text("a.jpg\n\nb\n")
    assert skins.read_names(tmp_path / "names.txt") == ["a.jpg", "b"]
    np.savez(tmp_path / "skins.npz", portrait=np.array(["c.jpg"]))
    assert skins.read_names(tmp_path / "skins.npz") == ["c.jpg"]
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        skins.read_names(tmp_path / "none.txt")


def test_a_folder_to_write_to_is_asked_for_before_the_work(folder: Path, tmp_path: Path):
    with pytest.raises(SkinsError, match=r"none: there is no such folder to write to"):
        skins.make(skins.candidates(folder), builtin(), tmp_path / "none" / "skins.npz")


def test_no_portrait_is_an_error(folder: Path, tmp_path: Path):
    with pytest.raises(SkinsError, match="no such folder"):
        skins.candidates(tmp_path / "none")
    with pytest.raises(SkinsError, match="holds no portrait"):
        skins.candidates(tmp_path)
    with pytest.raises(SkinsError, match="one of the 1 asked for"):
        skins.candidates(folder, only=["other"])


@pytest.mark.slow
def test_the_command_refuses_in_one_line(folder: Path, tmp_path: Path):
    rig = tmp_path / "rig.npz"
    np.savez(rig, vertices=np.zeros((3, 3), np.float32))
    for arguments, words in (
        (["--rig", str(rig), "--out", "skins.txt"], "ends in .npz"),
        (["--rig", str(rig), "--out", "skins.npz"], "rig.npz"),
    ):
        command = [sys.executable, "-m", "sf_jax", "data", "skins", str(folder), *arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 2 and words in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "skins.npz").exists()
