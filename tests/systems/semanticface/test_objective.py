"""One objective: fine-tuning the shipped model starts at the loss that its own recipe gives it."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines import records
from data_pipelines.synthetic import face_record
from sf_jax.cli import recipes
from sf_jax.convert import hf
from sf_jax.reader import loading, training
from sf_jax.sequence import images
from sf_jax.sequence.example import assemble
from sf_jax.systems.semanticface import fine_tuning
from sf_jax.systems.semanticface.dense_targets import dense_targets, initial_readout
from sf_jax.systems.semanticface.pretraining import JointTask
from sf_jax.train import mesh as meshes
from sf_jax.train.hooks import HookConfig
from sf_jax.train.losses.joint import JointBatch, JointWeights
from sf_jax.train.task import RunConfig, mean_loss, run

FACES = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces of people that training never met."""
    folder = tmp_path_factory.mktemp("faces")
    faces = (face_record(i, 0, "evaluation") for i in range(FACES))
    records.write(folder / "faces-00000.array_record", faces)
    return folder


def test_fine_tuning_starts_at_the_loss_of_the_recipe_that_made_the_model(
    data: Path, tmp_path: Path
) -> None:
    mesh = meshes.make({}, jax.devices()[:1])
    recipe = replace(recipes.load("sft").RECIPES["builtin"], rows=2, accumulate=2)
    sft = fine_tuning.task_of(recipe, loading.BUILTIN, mesh)
    sft = replace(sft, optimizer=replace(sft.optimizer, steps=1))
    batches, feed = fine_tuning.feed_of(sft, recipe, data, mesh, seed=0)
    state = training.initial_state(sft, sft.source, mesh, scratch=False, seed=0)
    run(sft, state, feed, mesh, tmp_path, RunConfig(beside=HookConfig(log_every=1)))
    started = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    read = json.loads((tmp_path / "examples-0.jsonl").read_text().splitlines()[0])["examples"]
    examples = [batches.source(number) for row in read for number in row]

    # The same examples, a row each, in the recipe that trained the model.
    tokenizer, _ = loading.load_inputs(loading.BUILTIN, sft.config)
    joint = JointTask(recipes.load("builtin_model").RECIPE, tokenizer)
    rows = assemble(
        [[example] for example in examples],
        images.capacity(joint.config, joint.recipe.sequences.length, joint.recipe.patches, True),
    )
    dense = dense_targets([joint.recipe.example_view()] * len(examples), joint.recipe.views.cells)
    objective = joint.recipe.objective
    head = initial_readout(joint.recipe.vision, objective.readout, joint.recipe.rare, seed=0)
    weights = JointWeights(hf.load(loading.BUILTIN)[1], head)
    found = mean_loss(joint, joint.create(weights, mesh), [JointBatch(rows, dense)], mesh, None)
    squares = objective.supervised.squares
    trained = found["next_token"] + found["slots"] + squares * found["squares"]
    print(f"starts at {started['loss']:.4f}; the recipe's own objective gives {trained:.4f}")
    assert len(examples) >= 8 and np.isfinite(trained)
    assert started["weight"] == pytest.approx(found["weight"])
    assert started["loss"] == pytest.approx(trained, rel=0.01)
