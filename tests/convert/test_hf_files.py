"""Shards, types, shardings, unknown fields and damaged checkpoints; no logits are computed."""

import dataclasses
import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sf_jax.convert import hf, tensor_files
from sf_jax.convert.hf_config import TEXT_FIELDS, TOKEN_FIELDS, VISION_FIELDS
from sf_jax.model import declared, sizes
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights
from tests.small import small_config

SHARD = 30_000  # bytes; small enough for several shards of the model below


@pytest.fixture(scope="module")
def small() -> tuple[Config, Weights]:
    """A model of two layers, its weights drawn with numpy alone."""
    config = small_config()
    generator = np.random.default_rng(3)
    shapes = declared.abstract(config.declare())
    draw = lambda leaf: generator.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
    return config, jax.tree.map(draw, shapes)


def stored(directory) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of every tensor, read by our reader."""
    _, tensors = tensor_files.open_directory(directory)
    return {name: (tensor.tag, tensor.array().tobytes()) for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
def test_shards_of_every_type_return(tmp_path, small, dtype) -> None:
    config, weights = small
    hf.save(tmp_path / "one", config, weights, dtype)
    assert not (tmp_path / "one" / tensor_files.INDEX).exists()
    loaded = hf.load(tmp_path / "one")
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded[1]))
    hf.save(tmp_path / "many", *loaded, max_shard_bytes=SHARD)
    assert len(list((tmp_path / "many").glob("model-*-of-*.safetensors"))) > 2
    again = hf.load(tmp_path / "many", dtype=None)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(again[1]))
    hf.save(tmp_path / "back", *again)
    assert stored(tmp_path / "one") == stored(tmp_path / "many") == stored(tmp_path / "back")


def test_the_reference_reader_agrees(tmp_path, small) -> None:
    hf.save(tmp_path, *small)
    theirs = load_file(tmp_path / "model.safetensors")
    ours = stored(tmp_path)
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == ("F32", array.tobytes()) for name, array in theirs.items())
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_an_earlier_save_leaves_no_files(tmp_path, small) -> None:
    hf.save(tmp_path, *small, max_shard_bytes=SHARD)
    hf.save(tmp_path, *small)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    hf.save(tmp_path, *small, max_shard_bytes=SHARD)
    assert not (tmp_path / "model.safetensors").exists()
    hf.load(tmp_path)


def test_a_tied_head_stored_twice_returns(tmp_path, small) -> None:
    weights = small[1]
    name = "model.language_model.embed_tokens.weight"
    extra = {"lm_head.weight": weights.text.embed}
    add_tensors(tmp_path, small, extra)
    hf.save(tmp_path / "copy", *hf.load(tmp_path))
    copy = stored(tmp_path / "copy")
    assert copy["lm_head.weight"] == copy[name]
    add_tensors(tmp_path, small, {"lm_head.weight": weights.text.embed + 1})
    with pytest.raises(hf.CheckpointError, match="differs from .*embed_tokens"):
        hf.load(tmp_path)


def add_tensors(directory, small, extra: dict[str, np.ndarray]) -> None:
    hf.save(directory, *small)
    file = directory / "model.safetensors"
    save_file(load_file(file) | extra, file)


def test_unknown_fields_return_and_the_configuration_stays_hashable(tmp_path, small) -> None:
    hf.save(tmp_path, *small)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    content["transformers_version"] = "4.57.0"
    content["text_config"]["unheard_of"] = [1, {"a": None}]
    file.write_text(json.dumps(content))
    config, weights = hf.load(tmp_path)
    assert config == small[0]
    assert hash(config) == hash(small[0])
    hf.save(tmp_path / "copy", config, weights)
    assert (tmp_path / "copy" / "config.json").read_bytes() == file.read_bytes()
    text = dataclasses.replace(config.text, rope_theta=1e4)
    changed = hf.config_to_dict(dataclasses.replace(config, text=text))
    content["text_config"]["rope_theta"] = 1e4
    assert changed == content


def test_weights_go_straight_to_their_sharding(tmp_path, small) -> None:
    hf.save(tmp_path, *small)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("tensor",))

    def sharding(weight):
        if "mlp" not in weight.axes:
            return None
        spec = ("tensor" if axis == "mlp" else None for axis in weight.axes)
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))

    _, weights = hf.load(tmp_path, sharding=sharding)
    assert isinstance(weights.text.layers.gate.weight.sharding, jax.sharding.NamedSharding)
    jax.tree.map(np.testing.assert_array_equal, weights, small[1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncate", r"00002-of-\d+.safetensors: .* ends within tensor '.*' of shape"),
        ("remove", r"00002-of-\d+.safetensors: no such file, though model.safetensors.index"),
        ("unlist", r"index.json: tensor '.*' is missing, expected shape"),
        ("misplace", r"tensor '.*' is missing, though model.safetensors.index.json lists it here"),
    ],
)
def test_damaged_shards_are_named(tmp_path, small, damage, message) -> None:
    hf.save(tmp_path, *small, max_shard_bytes=SHARD)
    shard = sorted(tmp_path.glob("model-00002-*"))[0]
    index = tmp_path / tensor_files.INDEX
    content = json.loads(index.read_text())
    file_of = content["weight_map"]
    if damage == "truncate":
        shard.write_bytes(shard.read_bytes()[:-40])
    elif damage == "remove":
        shard.unlink()
    elif damage == "unlist":
        content["weight_map"] = {n: file for n, file in file_of.items() if file != shard.name}
    else:
        file_of["phantom"] = shard.name
    index.write_text(json.dumps(content))
    with pytest.raises(hf.CheckpointError, match=message) as error:
        hf.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        (None, "model_type", "llama", "'model_type': found .llama., expected 'qwen3_vl' or"),
        ("text_config", "attention_bias", True, "text_config.attention_bias': found true, exp"),
        ("text_config", "rope_scaling", {"rope_type": "yarn", "mrope_section": [4, 2, 2]},
         "text_config.rope_scaling.rope_type': found 'yarn', expected 'default'"),
        ("vision_config", "hidden_act", "relu", "hidden_act': found .relu., expected 'gelu_pyt"),
        ("text_config", "rope_scaling", {"type": "yarn", "mrope_section": [4, 2, 2]},
         "text_config.rope_scaling.type': found 'yarn', expected 'default'"),
        (None, "text_config", 5, "field 'text_config': found 5, expected an object"),
        (None, "vision_config", None, "field 'vision_config': found null, expected an object"),
        (None, "image_token_id", None, "'image_token_id': found null, expected a whole number"),
        ("vision_config", "deepstack_visual_indexes", 3, "indexes': found 3, expected a list"),
        ("vision_config", "deepstack_visual_indexes", [9], "names block 9, the depth is 2"),
        ("vision_config", "num_heads", 0, "'vision_config.num_heads': found 0, expected 1 or more"),
        ("vision_config", "num_heads", 3, "hidden_size 32 is no multiple of num_heads 3"),
        ("text_config", "hidden_size", "32", "'text_config.hidden_size': found .32., expected a w"),
        ("text_config", "rms_norm_eps", 0, "'text_config.rms_norm_eps': found 0, expected more"),
    ],
)  # fmt: skip
def test_other_architectures_are_refused(tmp_path, small, section, field, value, message) -> None:
    hf.save(tmp_path, *small)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    (content[section] if section else content)[field] = value
    file.write_text(json.dumps(content))
    with pytest.raises(hf.CheckpointError, match=message) as error:
        hf.load(tmp_path)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


FIELDS = [("text_config", name) for name in TEXT_FIELDS]
FIELDS += [("vision_config", name) for name in VISION_FIELDS]
FIELDS += [(None, name) for name in TOKEN_FIELDS]


@pytest.mark.parametrize(("section", "field"), FIELDS)
def test_every_size_is_a_whole_number_within_bounds(small, section, field) -> None:
    sound = hf.config_to_dict(small[0])
    for value in (10**9, 10**30, -1, 2.0, True, "3", None, [], {}):
        content = json.loads(json.dumps(sound))
        (content[section] if section else content)[field] = value
        name = f"{section}.{field}" if section else field
        with pytest.raises(hf.CheckpointError, match=f"config.json, field '{name}': found "):
            hf.config_from_dict(content, Path("config.json"))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "..", "", "a\0b", "a/b", "x" * 256, "\ud800", 3]
)
def test_an_index_names_files_beside_it(tmp_path, small, name) -> None:
    hf.save(tmp_path, *small, max_shard_bytes=SHARD)
    index = tmp_path / tensor_files.INDEX
    content = json.loads(index.read_text())
    content["weight_map"]["lm_head"] = name
    index.write_text(json.dumps(content))
    with pytest.raises(hf.CheckpointError, match="index.json, field 'weight_map.*lm_head"):
        hf.load(tmp_path)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("vision_config", "out_hidden_size", 48, "out_hidden_size': found 48, expected 24"),
        ("vision_config", "num_heads", 16, "hidden_size 32 / num_heads 16 is 2, expected a mult"),
        ("vision_config", "in_channels", 4, "in_channels': found 4, expected 3"),
        ("vision_config", "deepstack_visual_indexes", [1, 0], "found .*, expected increasing"),
        ("text_config", "head_dim", 17, "head_dim is 17, expected an even number"),
        (None, "image_token_id", 50, "image_token_id': found 50, expected less than vocab_size"),
        (None, "tie_word_embeddings", 1, "tie_word_embeddings': found 1, expected true or false"),
    ],
)
def test_sizes_that_do_not_go_together_are_named(small, section, field, value, message) -> None:
    content = json.loads(json.dumps(hf.config_to_dict(small[0])))
    (content[section] if section else content)[field] = value
    with pytest.raises(hf.CheckpointError, match=message):
        hf.config_from_dict(content, Path("config.json"))


@pytest.mark.parametrize("field", ["num_hidden_layers", "hidden_size", "vocab_size"])
def test_sizes_beyond_the_weights_take_no_memory(tmp_path, small, field) -> None:
    hf.save(tmp_path, *small)
    content = json.loads((tmp_path / "config.json").read_text())
    content["text_config"][field] = {"num_hidden_layers": 1024}.get(field, 2**24)
    content["vision_config"]["out_hidden_size"] = content["text_config"]["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(hf.CheckpointError, match="tensor '.*' (has shape .*|is missing), expected"):
        hf.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "count"),
    [("2B", 2_127_532_032), ("4B", 4_437_815_808), ("8B", 8_767_123_696), ("32B", 33_357_390_064)],
)
def test_parameter_counts(name, count) -> None:
    """Totals of the declared shapes at full size, held so that a changed declaration shows."""
    assert declared.count(sizes.QWEN3_VL[name].declare()) == count
