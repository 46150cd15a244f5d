"""What is held out of training: disjoint by name, and complete over the files that exist."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import held_out

SHARED = Path(__file__).parents[2] / "../shared"


def test_names_are_compared_without_folders_and_endings() -> None:
    for name in ("male_10", "male_10.jpg", "images/male_10.jpg"):
        assert held_out.split_of(name, held_out.SKINS) == "evaluation"
        assert held_out.portrait_split(name) == "skins"
    assert held_out.split_of("male_101", held_out.SKINS) == "train"
    assert held_out.in_split(["a", "male_10.jpg"], "train", held_out.SKINS) == ["a"]


def test_portraits_of_held_out_skins_are_never_trained_on() -> None:
    assert not held_out.FINDER_PORTRAITS & held_out.SKIN_PORTRAITS
    assert held_out.portrait_trainable("male_12") and held_out.portrait_trainable("female_02")
    assert not held_out.portrait_trainable("male_10")  # of a held-out skin
    assert not held_out.portrait_trainable("female_00")  # for tests
    assert held_out.portrait_trainable("someone_else.jpg")  # in no list: a user's own
    assert not held_out.TEST_PORTRAITS & (held_out.SKIN_PORTRAITS | held_out.FINDER_PORTRAITS)


def test_the_lists_cover_the_shared_skins_and_portraits() -> None:
    skins, portraits = SHARED / "rigs/photo_skins/skins.npz", SHARED / "portraits/portraits.jsonl"
    if not skins.is_file() or not portraits.is_file():
        pytest.skip(f"no skins or portraits in {SHARED}")
    with np.load(skins) as file:
        made = {held_out.stem(name) for name in file["portrait"].tolist()}
    assert made == held_out.SKIN_PORTRAITS and made >= held_out.SKINS
    assert len(held_out.SKINS) == 12
    names = [json.loads(line)["image"] for line in portraits.read_text().splitlines()]
    split = [held_out.portrait_split(name) for name in names]
    assert [split.count(kind) for kind in ("skins", "finder", "tests")] == [58, 40, 102]
