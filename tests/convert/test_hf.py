"""Hugging Face directories: round trip, errors, and equality with transformers where installed."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sf_jax.convert import hf
from sf_jax.model import text, vision, vlm


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
    with pytest.raises(hf.CheckpointError, match="'head_dim' is missing"):
        hf.load(directory)


def test_equal_to_transformers(directory, tiny_config, tiny_weights, pictures) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'porting'")
    transformers = pytest.importorskip("transformers", reason="needs the extra 'porting'")
    reference = transformers.Qwen3VLForConditionalGeneration.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32
    ).eval()
    ids = np.array([[1, 2, 8] + [7] * 6 + [9, 11, 12, 13, 14]] * 2)
    grids = [(2, 3), (3, 2)]
    positions = np.stack(
        [vlm.mrope_positions(row, [g], tiny_config) for row, g in zip(ids, grids, strict=True)], 1
    )
    places = np.array([[3, 4, 5, 6, 7, 8, 99, 99]] * 2)
    patches = vision.collate(pictures[:2], tiny_config.vision, 32)
    states = vlm.forward(
        tiny_weights, ids, positions, np.ones_like(ids), patches, places, tiny_config
    )
    ours = np.asarray(text.logits(tiny_weights.text, states))
    pixels = np.concatenate([vision.patchify(p, tiny_config.vision) for p in pictures[:2]])
    with torch.no_grad():
        theirs = reference(
            input_ids=torch.tensor(ids),
            attention_mask=torch.ones_like(torch.tensor(ids)),
            pixel_values=torch.tensor(pixels),
            image_grid_thw=torch.tensor([[1, 4, 6], [1, 6, 4]]),
            mm_token_type_ids=torch.tensor(ids == 7).int(),
        ).logits.numpy()
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
