"""The built-in model's recipe: what its batches hold."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_pipelines import synthetic
from data_pipelines.sampler import sample
from sf_jax.cli import recipes
from sf_jax.face import channels, landmarks
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence import tokenizer
from sf_jax.systems.semanticface import pretraining
from sf_jax.systems.semanticface.pretraining import JointTask
from sf_jax.systems.semanticface.sequences import vocabulary_texts
from sf_jax.train.checkpoint import CheckpointError

RECIPE = recipes.load("builtin_model").RECIPE


@pytest.mark.parametrize("reading", [True, False])
def test_the_second_half_of_a_batch_mirrors_the_first(reading: bool) -> None:
    faces = np.stack([sample(i) for i in range(300)])
    words = tokenizer.train(vocabulary_texts(faces), channel_schema().symbols(), 700)
    small = replace(RECIPE.views, size=96, cells=24)
    sequences = replace(RECIPE.sequences, length=300)
    recipe = replace(RECIPE, sequences=sequences, patches=36, views=small)
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
