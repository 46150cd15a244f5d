"""Hugging Face directories: round trip and errors."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sf_jax.convert import hf


@pytest.fixture
def directory(tmp_path, tiny_config, tiny_weights):
    hf.save(tmp_path, tiny_config, tiny_weights)
    return tmp_path


def test_round_trip(directory, tiny_config, tiny_weights) -> None:
    config, weights = hf.load(directory)
    assert config == tiny_config
    jax.tree.map(np.testing.assert_array_equal, weights, tiny_weights)


def damage_tensors(directory, change) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


NAME = "model.language_model.layers.2.self_attn.k_norm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NAME), "layers.2.self_attn.k_norm.weight' is missing, expected shape"),
        (lambda t: t.update({NAME: np.ones(3, np.float32)}), r"shape \(3,\), expected \(16,\)"),
        (lambda t: t.update(extra=np.ones(1, np.float32)), "unexpected tensor 'extra'"),
        (lambda t: t.update({NAME: np.full(16, np.nan, np.float32)}), "NaN"),
    ],
)
def test_bad_tensors_are_named(directory, change, message) -> None:
    damage_tensors(directory, change)
    with pytest.raises(hf.CheckpointError, match=message):
        hf.load(directory)


def test_truncated_file_and_missing_field(directory) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(hf.CheckpointError, match="not a readable safetensors"):
        hf.load(directory)
    content = json.loads((directory / "config.json").read_text())
    del content["text_config"]["head_dim"]
    (directory / "config.json").write_text(json.dumps(content))
    with pytest.raises(hf.CheckpointError, match="field 'text_config.head_dim': is missing"):
        hf.load(directory)
