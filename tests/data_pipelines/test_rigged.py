"""Rigs and skins as sources: people held out, channels that are known, clear errors."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import held_out, records, rigged
from data_pipelines.rigged import BuiltinSource, RigSource, SkinSource, everyday, expression
from data_pipelines.sampler import sample
from data_pipelines.shifted import (
    BLUR,
    OBJECTS,
    SCALE,
    BlurredSource,
    LowResolutionSource,
    OccludedSource,
)
from data_pipelines.sources import Framing
from sf_jax.media.errors import DataError
from sf_jax.render.draw import Drawing, draw
from sf_jax.render.effects import Effects
from sf_jax.render.looks import Look
from sf_jax.render.outfits import Item
from sf_jax.render.rig import Rig
from sf_jax.render.rigs import RigError
from sf_jax.render.scene import Scene
from tests.data_pipelines.test_records import assert_equal

RIGS = Path(__file__).parents[2] / "../shared/rigs"
SKINS = RIGS / "photo_skins/skins.npz"


@pytest.fixture(scope="module")
def skins() -> SkinSource:
    if not SKINS.is_file():
        pytest.skip(f"no skins in {RIGS}")
    return SkinSource(folder=RIGS, file=SKINS)


def test_people_of_the_splits_are_disjoint() -> None:
    source = BuiltinSource()
    people = {
        split: {source.sitter(first + i, split).identity for i in range(300)}
        for split, first in (("train", 0), ("evaluation", 1_000_000))
    }
    assert not people["train"] & people["evaluation"] and len(people["train"]) > 250


def test_measured_sets_have_the_faces_of_the_sampler() -> None:
    known = np.ones(61, bool)
    np.testing.assert_array_equal(expression(1_000_003, "evaluation", known), sample(1_000_003))
    differ = [(expression(n, "train", known) != sample(n)).any() for n in range(60)]
    assert 0.2 < np.mean(differ) < 0.8
    known[5:9] = False
    assert not expression(1_000_003, "evaluation", known)[5:9].any()


def test_measured_faces_are_everyday_unless_asked_for() -> None:
    effects = Effects(posterise=5, sepia=0.5, noise=0.07, gain=1.6)
    items = (Item("hair", 1), Item("hand", 2), Item("glasses", 3, "dark"))
    hard = Scene(effects=effects, items=items, look=Look(clay=(1, 1, 1)), ambient=0.1)
    found = everyday(hard, cel=True)
    assert [item.kind for item in found.items] == ["hair"] and found.ambient == 0.3
    assert found.look == Look() and found.effects == Effects(noise=0.03, gain=1.3)
    toon = replace(hard, look=Look(tones=(0.5, 1.0)))
    assert everyday(toon, cel=True).look == toon.look and everyday(toon, cel=False).look == Look()

    def image(source: BuiltinSource, number: int) -> np.ndarray:
        return source.record(number, "evaluation", Framing(48))["image"]

    numbers = range(1_000_000, 1_000_006)
    assert any(
        (image(BuiltinSource(), n) != image(BuiltinSource(hard=True), n)).any() for n in numbers
    )


def test_faces_in_the_dark_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def contrast(record: dict) -> float:
        size = np.array(record["image"].shape[1::-1])
        low, high = ((f(record["landmarks"], 0) * size).astype(int) for f in (np.min, np.max))
        return float(np.ptp(record["image"][low[1] : high[1], low[0] : high[0]].mean(-1)))

    def dark(seed: int, person: int, identities: int) -> Scene:
        return Scene(effects=Effects(gain=0.02, bias=-0.49))

    monkeypatch.setattr(rigged, "random_scene", dark)
    assert contrast(BuiltinSource().record(0, "train", Framing(64))) > rigged.LEAST_CONTRAST
    monkeypatch.setattr(rigged, "legible", lambda drawing: True)
    assert contrast(BuiltinSource().record(0, "train", Framing(64))) < rigged.LEAST_CONTRAST


@pytest.mark.parametrize(
    "kind, changed",
    [
        (OccludedSource, lambda scene: scene.items[-1].kind in dict(OBJECTS)),
        (BlurredSource, lambda scene: scene.effects.blur >= BLUR[0]),
        (LowResolutionSource, lambda scene: scene.effects.scale <= SCALE[1]),
    ],
)
def test_faces_that_are_drawn_again_stay_hard(
    monkeypatch: pytest.MonkeyPatch, kind: type[BuiltinSource], changed: Callable[[Scene], bool]
) -> None:
    drawn: list[Scene] = []

    def noted(rig: Rig, coefficients: np.ndarray, scene: Scene, *side: int) -> Drawing:
        drawn.append(scene)
        return draw(rig, coefficients, scene, *side)

    monkeypatch.setattr(rigged, "legible", lambda drawing: False)
    monkeypatch.setattr(rigged, "draw", noted)
    kind().record(1_000_000, "evaluation", Framing(48))
    assert [changed(scene) for scene in drawn] == [True, True] and drawn[0] != drawn[1]


def test_held_out_skins_are_in_no_training_picture(skins: SkinSource) -> None:
    names = {split: skins.skins(split).portrait for split in ("train", "evaluation")}
    stems = {split: {held_out.stem(name) for name in found} for split, found in names.items()}
    assert stems["evaluation"] == held_out.SKINS and not stems["train"] & held_out.SKINS
    assert len(stems["train"]) == 46


def test_a_skin_is_drawn_with_what_its_rig_can_show(skins: SkinSource) -> None:
    source = pickle.loads(pickle.dumps(skins))
    found = source.record(3, "train", Framing(64))
    assert_equal(source.record(3, "train", Framing(64)), found)
    assert_equal(records.decode(records.encode(found)), found)
    assert not found["known"].all() and found["known"].sum() > 45
    assert not found["coefficients"][~found["known"]].any()
    assert np.isfinite(found["landmarks"][:68]).all()
    assert (found["source"], found["style"] in held_out.SKIN_PORTRAITS) == ("skins", True)


def test_a_painted_rig_is_drawn() -> None:
    if not RIGS.is_dir():
        pytest.skip(f"no rigs in {RIGS}")
    found = RigSource(folder=RIGS).record(1, "train", Framing(64))
    assert found["source"] == "rigs" and found["style"] and found["dense"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RigError, match="no rig in this folder"):
        RigSource(folder=tmp_path).check("train")
    if SKINS.is_file():
        with pytest.raises(DataError, match=r"none\.npz"):
            SkinSource(folder=RIGS, file=tmp_path / "none.npz").check("train")


def test_held_out_rigs_are_in_no_training_picture() -> None:
    if not (RIGS / "rocketbox/Male_Adult_08.npz").is_file():
        pytest.skip(f"no Rocketbox heads in {RIGS}")
    source = RigSource(folder=RIGS)
    names = {split: {rig.name for rig in source.rigs(split)} for split in ("train", "evaluation")}
    assert names["evaluation"] == held_out.RIGS and not names["train"] & held_out.RIGS
    assert len(names["train"]) > 1
    found = source.record(1_000_000, "evaluation", Framing(64))  # without identity directions
    assert (found["style"], found["dense"]) == ("Male_Adult_08", True)
