"""The built-in model's recipe: what its batches hold."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from data_pipelines import synthetic
from data_pipelines.sampler import sample
from sf_jax.cli import recipes
from sf_jax.convert import checksums
from sf_jax.face import channels, landmarks
from sf_jax.reader import finder, loading
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence import tokenizer
from sf_jax.systems.semanticface import pretraining, sequences
from sf_jax.systems.semanticface.pretraining import JointTask
from sf_jax.systems.semanticface.sequences import vocabulary_texts
from sf_jax.train.checkpoint import CheckpointError

BUILTIN = recipes.load("builtin_model")
RECIPE, at_side = BUILTIN.RECIPE, BUILTIN.at_side


@pytest.mark.parametrize("reading", [True, False])
def test_the_second_half_of_a_batch_mirrors_the_first(reading: bool) -> None:
    faces = np.stack([sample(i) for i in range(300)])
    words = tokenizer.train(vocabulary_texts(faces), channel_schema().symbols(), 700)
    options = replace(RECIPE.sequences, length=300)
    recipe = at_side(replace(RECIPE, sequences=options), 96)
    records = [synthetic.face_record(i, 0, "train") for i in range(3)]
    batch = JointTask(recipe, words, reading).batch(records)
    first, second = np.split(batch.dense.coefficients, 2)
    np.testing.assert_array_equal(first, np.stack([r["coefficients"] for r in records]))
    np.testing.assert_array_equal(second, channels.mirror(first))
    # Of merge blocks of patches.
    pixels = batch.rows.inputs["vision"].pixels.reshape(6, 9, 2, 2, 3, 2, 16, 16)
    if all(record["dense"] for record in records):
        blocks = pixels.reshape(6, 3, 3, *pixels.shape[2:])
        flipped = blocks[:3, :, ::-1, :, ::-1, ..., ::-1]
        np.testing.assert_array_equal(blocks[3:], flipped)
    left = batch.dense.landmarks[:3, landmarks.MIRROR, 0]
    np.testing.assert_allclose(batch.dense.landmarks[3:, :, 0], 1 - left, atol=1e-6)


def test_the_recipes_own_streams_of_data_and_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of the recipe resumes with the streams that it had."""
    seeds: list[int] = []
    monkeypatch.setattr(
        pretraining.loader, "faces", lambda *_, seed, transform: seeds.append(seed) or ((), None)
    )
    recipe, words = replace(RECIPE, seed=7), MagicMock()
    for each in (
        pretraining.WarmupTask(recipe, words),
        JointTask(recipe, words, True),
        JointTask(recipe, words),
    ):
        pretraining.batches_of(each, tmp_path)
        pretraining.batches_of(each, tmp_path, 0)
    assert seeds == [7, 0, 8, 0, 9, 0]


@pytest.mark.parametrize("recorded", [True, False])
def test_texts_are_made_only_where_they_are_learnt(
    monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    faces = np.stack([sample(i) for i in range(300)])
    words = tokenizer.train(vocabulary_texts(faces), channel_schema().symbols(), 700)
    options = replace(RECIPE.sequences, length=300, words=1.0, foreign_words=0.0, recorded=recorded)
    task = JointTask(at_side(replace(RECIPE, sequences=options), 96), words)
    record = synthetic.face_record(0, 0, "train") | {"rationale": "1. Expression: left."}
    unused = (sequences, "describe") if recorded else (pretraining, "mirrored_text")
    monkeypatch.setattr(*unused, lambda *_: pytest.fail("not needed"))
    learnt: list[str] = []
    monkeypatch.setattr(sequences, "with_fields", lambda text, fields: learnt.append(text) or text)
    task.batch([record])
    both = ["1. Expression: left.", "1. Expression: right."]
    assert learnt == both if recorded else all("Movements" in text for text in learnt)


def test_checkpoints_that_cannot_be_read_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Path] = []

    class Unreadable:
        def __init__(self, directory: Path):
            self.directory = directory

        def restore(self, _: object) -> None:
            raise CheckpointError("no checkpoint is sound")

        def close(self) -> None:
            closed.append(self.directory)

    monkeypatch.setattr(pretraining.checkpoint, "Checkpoints", Unreadable)
    stage: Any = SimpleNamespace(abstract_state=lambda mesh: None)
    mesh: Any = None
    with pytest.raises(CheckpointError, match="sound"):
        pretraining.last_state(stage, mesh, tmp_path)
    assert closed == [tmp_path / "checkpoints"]


def test_an_export_reads_framed_faces(tmp_path: Path) -> None:
    """With the built-in finder, or the one that is there already."""
    recipe = recipes.load("builtin_model").tiny(RECIPE)
    words = loading.load_inputs(loading.BUILTIN, loading.hf.load(loading.BUILTIN)[0])[0]
    joint = JointTask(recipe, words)
    state: Any = SimpleNamespace(
        weights=joint.initial(pretraining.WarmupTask(recipe, words).initial())
    )
    joint.export(state, tmp_path)
    sealed = checksums.verify(tmp_path)
    assert sealed is not None and finder.FILE in sealed
    assert (tmp_path / finder.FILE).read_bytes() == finder.OWN.read_bytes()
    assert loading.load(tmp_path).frames()
    (tmp_path / finder.FILE).write_bytes(b"a better one")
    joint.export(state, tmp_path)
    assert (tmp_path / finder.FILE).read_bytes() == b"a better one"


@pytest.mark.parametrize("stages", [("warm-up",), ("reading",), ("language", "export"), ()])
def test_held_out_faces_are_read_for_the_stage_that_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: tuple[str, ...]
) -> None:
    """So that the other stages need no folder of them."""
    read: list[Path] = []
    for name in ("make_tokenizer", "warm_weights", "train_stage", "last_state", "JointTask"):
        monkeypatch.setattr(pretraining, name, MagicMock())
    monkeypatch.setattr(
        pretraining.records, "first", lambda folder, count: read.append(folder) or []
    )
    monkeypatch.setattr(pretraining, "HeldOutViews", MagicMock())
    mesh: Any = None
    pretraining._run(RECIPE, tmp_path, stages, tmp_path / "model", mesh, None)
    assert len(read) == ("warm-up" in stages)
