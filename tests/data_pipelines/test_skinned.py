"""Photo skins on several rigs as a source: the same every time, held-out people apart."""

from pathlib import Path

import numpy as np
import pytest

from data_pipelines import held_out, skinned
from data_pipelines.skinned import SkinnedSource
from data_pipelines.sources import Framing

RIGS = Path(__file__).parents[2] / "../shared/rigs"
SKINS = RIGS / "photo_skins/skins.npz"


@pytest.fixture(scope="module")
def source() -> SkinnedSource:
    if not SKINS.is_file():
        pytest.skip(f"no skins in {RIGS}")
    return SkinnedSource(folder=RIGS, file=SKINS)


@pytest.mark.slow
def test_people_are_on_all_rigs_but_the_held_out(source: SkinnedSource) -> None:
    names = {
        split: [rig.name for rig in skinned.hosts(RIGS, split)] for split in ("train", "evaluation")
    }
    assert names["evaluation"] == ["built-in head"]
    assert "ICT-FaceKit" in names["train"] and len(names["train"]) > 1
    assert not held_out.RIGS & set(names["train"])
    used = {source.people(number, "train").rig.name for number in range(12)}
    assert len(used) > 1 and used <= set(names["train"])


def test_a_record_is_of_the_split_and_the_same_every_time(source: SkinnedSource) -> None:
    one, again = (source.record(1_000_003, "evaluation", Framing(64)) for _ in range(2))
    np.testing.assert_array_equal(one["image"], again["image"])
    assert one["source"] == "skinned" and one["style"] in held_out.SKINS
    assert one["known"].all() and np.isfinite(one["landmarks"]).all()
