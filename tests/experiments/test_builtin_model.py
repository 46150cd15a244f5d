"""The built-in model's recipe: what its batches hold."""

import numpy as np
import pytest

from data_pipelines import synthetic
from data_pipelines.sampler import sample
from experiments import builtin_model
from sf_jax.face import channels
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence import tokenizer
from sf_jax.systems.semanticface.sequences import SequenceConfig, Sequences, vocabulary_texts

SCHEMA = channel_schema()


@pytest.mark.parametrize("reading", [True, False])
def test_the_second_half_of_a_batch_mirrors_the_first(reading: bool) -> None:
    faces = np.stack([sample(i) for i in range(300)])
    words = tokenizer.train(vocabulary_texts(faces), SCHEMA.symbols(), 700)
    config = builtin_model.make_config(words)
    options = SequenceConfig(length=300)
    sequences = Sequences(config, words, SCHEMA, options, builtin_model.PATCH_COUNT)
    batches = builtin_model.ModelBatches(sequences, 0, reading)
    records = [synthetic.face_record(i, 0, "train") for i in range(3)]
    batch = batches(records)
    first, second = np.split(batch["coefficients"], 2)
    np.testing.assert_array_equal(first, np.stack([r["coefficients"] for r in records]))
    np.testing.assert_array_equal(second, channels.mirror(first))
    # Of merge blocks of patches.
    pixels = batch["rows"].inputs["vision"].pixels.reshape(6, 9, 2, 2, 3, 2, 16, 16)
    if all(record["dense"] for record in records):
        blocks = pixels.reshape(6, 3, 3, *pixels.shape[2:])
        flipped = blocks[:3, :, ::-1, :, ::-1, ..., ::-1]
        np.testing.assert_array_equal(blocks[3:], flipped)
    left = batch["landmarks"][:3, builtin_model.landmark_mirror(), 0]
    np.testing.assert_allclose(batch["landmarks"][3:, :, 0], 1 - left, atol=1e-6)
