"""Sources and mixtures: the same record for a number, splits that share nothing, clear errors."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_pipelines import faceless, held_out, mixtures, portraits, records, rendering
from data_pipelines.mixtures import Inputs
from data_pipelines.portraits import PortraitSource
from data_pipelines.rigged import BuiltinSource
from data_pipelines.sources import (
    CELLS,
    Framing,
    Mixture,
    SourceError,
    number_of,
    parse_weights,
)
from sf_jax import cli
from sf_jax.face.landmarks import CHIN, framing_square
from tests.data_pipelines.test_records import assert_equal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four portraits: of each kind that may be trained on, of a held-out skin, for tests."""
    folder = tmp_path / "portraits"
    folder.mkdir()
    lines = []
    for i, name in enumerate(("male_12", "female_02", "male_10", "female_00")):
        image = np.full((96, 120, 3), 60 * i, np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), image)
        points = np.random.default_rng(i).uniform(0.4, 0.6, (68, 2))
        lines.append(json.dumps({"image": f"{name}.png", "landmarks68": points.tolist()}))
    (folder / portraits.LIST).write_text("\n".join(lines) + "\n")
    return folder


def test_a_record_is_the_same_every_time() -> None:
    source = pickle.loads(pickle.dumps(BuiltinSource()))
    for number in (3, 1_000_004):
        split = "train" if number < 1_000_000 else "evaluation"
        one = source.record(number, split, Framing(64))
        assert_equal(source.record(number, split, Framing(64)), one)
        assert_equal(records.decode(records.encode(one)), one)
        assert one["image"].shape == (64, 64, 3) and one["parts"].shape == (CELLS, CELLS)
        assert (one["source"], one["seed"]) == (source.name, number)
        assert (source.record(number + 1, split, Framing(64))["image"] != one["image"]).any()


def test_faces_leave_room_to_cut() -> None:
    for number in range(12):
        found = BuiltinSource().record(number, "train", Framing(64))
        square = framing_square(found["landmarks"] * 64, 1.0, turned=False)
        assert (
            0.35 < square.side / 64 < 0.85
        )  # an open jaw is longer, a turned head taller or lower
        assert found["known"].all() and found["dense"]


def test_portraits_of_a_split_alone(folder: Path) -> None:
    source = PortraitSource(folder)
    shown = {
        split: {source.record(number, split, Framing(48))["style"] for number in range(20)}
        for split in ("train", "evaluation")
    }
    assert shown == {"train": {"male_12", "female_02"}, "evaluation": {"female_00"}}


def test_nothing_but_landmarks_is_known_of_a_portrait(folder: Path) -> None:
    found = PortraitSource(folder).record(1, "train", Framing(96))
    assert not found["known"].any() and not found["coefficients"].any() and not found["dense"]
    assert found["rationale"] == ""
    assert np.isfinite(found["landmarks"][:68]).all() and np.isnan(found["landmarks"][68:]).all()
    height = np.ptp(found["landmarks"][:68, 1])
    assert 0.4 < height < 0.75
    assert_equal(records.decode(records.encode(found)), found)


def test_landmarks_of_a_portrait_follow_its_frame(tmp_path: Path) -> None:
    """A white dot at the chin stays at the chin."""
    points = np.random.default_rng(0).uniform(0.35, 0.65, (68, 2))
    points[CHIN] = 0.5, 0.7
    image = np.zeros((200, 300, 3), np.uint8)
    cv2.circle(image, (150, 140), 4, (255, 255, 255), -1)
    cv2.imwrite(str(tmp_path / "male_12.png"), image)
    line = {"image": "male_12.png", "landmarks68": points.tolist()}
    (tmp_path / portraits.LIST).write_text(json.dumps(line))
    for number in range(5):
        found = PortraitSource(tmp_path).record(number, "train", Framing(100))
        weight = found["image"][..., 0].astype(float)
        y, x = (np.indices(weight.shape) * weight).sum((1, 2)) / weight.sum()
        np.testing.assert_allclose(found["landmarks"][CHIN] * 100, [x + 0.5, y + 0.5], atol=0.7)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "portraits.jsonl: lists no portrait"),
        ("{", "portraits.jsonl, line 1: not JSON"),
        ('{"image": "a.png"}', "portraits.jsonl, line 1, field 'landmarks68': is missing"),
        ('{"image": "a.png", "landmarks68": [[1, 2]]}', "portraits.jsonl, line 1.*68 or more"),
        (None, "portraits.jsonl: no such file"),
    ],
)
def test_a_damaged_list_is_named(tmp_path: Path, text: str | None, problem: str) -> None:
    if text is not None:
        (tmp_path / portraits.LIST).write_text(text)
    with pytest.raises(SourceError, match=problem):
        PortraitSource(tmp_path).check("train")


def test_photographs_of_one_split_are_in_no_other(tmp_path: Path) -> None:
    for i in range(24):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((40, 50, 3), 10 * i + 5, np.uint8))
    train, held = (
        set(faceless.background_files(tmp_path, split)) for split in ("train", "evaluation")
    )
    assert not train & held and len(train | held) == 24 and len(held) > 2
    for name in ("train", "test"):
        (tmp_path / "named" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "named" / name / "a.bmp"), np.zeros((9, 9, 3), np.uint8))
    for split, name in (("train", "train"), ("evaluation", "test")):
        (found,) = faceless.background_files(tmp_path / "named", split)
        assert found.parent.name == name
    levels = {int(path.stem) * 10 + 5 for path in train}
    images = [faceless.background(number, "train", 32, 32, tmp_path) for number in range(30)]
    flat = [int(image[0, 0, 0]) for image in images if np.ptp(image) == 0]
    assert len(flat) > 8 and set(flat) <= levels
    with pytest.raises(SourceError, match="no image file"):
        faceless.background_files(tmp_path / "none", "train")


class Fixed:
    """A source of one value."""

    def __init__(self, name: str):
        self.name = name

    def check(self, split: str) -> None:
        raise SourceError(f"{self.name} checked")

    def record(self, number: int, split: str, framing: object = None) -> dict[str, Any]:
        return {"number": number, "split": split, "source": self.name}


def test_a_mixture_chooses_by_weight_and_number() -> None:
    mixture = Mixture((Fixed("a"), Fixed("b")), {"a": 3, "b": 1}, seed=2)
    found = [mixture.record(i, "train") for i in range(2000)]
    assert 0.7 < np.mean([one["source"] == "a" for one in found]) < 0.8
    assert found[:5] == [mixture.record(i, "train") for i in range(5)]
    assert {one["number"] for one in found} == set(range(20_000_000, 20_002_000))
    held = {mixture.record(i, "evaluation")["number"] for i in range(2000)}
    assert not held & {one["number"] for one in found}
    with pytest.raises(SourceError, match="a checked"):
        mixture.check("train")


@pytest.mark.parametrize("text", ["", "a", "a=", "a=0", "a=-1", "a=nan", "a=inf", "=1", "a=1,,"])
def test_bad_weights_are_refused(text: str) -> None:
    with pytest.raises(SourceError, match="is no NAME=WEIGHT"):
        parse_weights(text)


def test_weights_are_read() -> None:
    assert parse_weights("builtin=3, skins=0.5") == {"builtin": 3, "skins": 0.5}
    with pytest.raises(SourceError, match="'a' is given twice"):
        parse_weights("a=1,a=2")


def test_what_a_mixture_lacks_is_named() -> None:
    with pytest.raises(SourceError, match="no source 'people'; there are builtin"):
        mixtures.build({"people": 1}, Inputs())
    with pytest.raises(SourceError, match="source 'portraits' needs --portraits"):
        mixtures.build({"portraits": 1}, Inputs())
    assert "builtin" in mixtures.default_weights(Inputs())
    assert "portraits" not in mixtures.default_weights(Inputs())


def test_records_of_another_mixture_are_not_resumed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        rendering, "ProcessPoolExecutor", lambda workers, *_: ThreadPoolExecutor(workers)
    )
    out, inputs = tmp_path / "out", Inputs(portraits=folder)
    mixture = mixtures.build({"portraits": 1}, inputs, framing=Framing(32))
    rendering.render(out, 3, mixture, workers=1)
    before = {path: path.read_bytes() for path in out.iterdir()}
    rendering.render(out, 3, mixture, workers=1)
    for weights, side, changed in (
        ({"portraits": 1}, 48, "framing"),
        ({"builtin": 1}, 32, "weight"),
    ):
        with pytest.raises(ValueError, match=rf"settings\.json: .* with another {changed}"):
            rendering.render(
                out, 3, mixtures.build(weights, inputs, framing=Framing(side)), workers=1
            )
    (folder / "male_12.png").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"settings\.json: .* with another sources"):
        rendering.render(out, 3, mixture, workers=1)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_the_command_names_what_is_wrong(tmp_path: Path, capsys) -> None:
    for options, problem in (
        (["--mixture", "people=1"], "no source 'people'"),
        (["--mixture", "portraits=1", "--portraits", str(tmp_path)], "portraits.jsonl: no such"),
        (["--count", "0"], "--count"),
    ):
        assert cli.main(["data", "render", "--out", str(tmp_path / "out"), *options]) == 2
        assert problem in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_numbers_of_splits_and_seeds_differ() -> None:
    assert number_of(4, 0, "train") == 4
    assert (
        number_of(0, 1, "train")
        > number_of(999_999, 0, "evaluation")
        > number_of(999_999, 0, "train")
    )


def test_styles_and_rigs_that_are_held_out_have_names() -> None:
    assert "Male_Adult_08" in held_out.RIGS
