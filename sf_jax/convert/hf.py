"""Hugging Face checkpoint directories: `config.json` and `model.safetensors`, in and out."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sf_jax.model.config import Config, TextConfig, VisionConfig
from sf_jax.model.weights import Weight, Weights, declare

ARCHITECTURE = "Qwen3VLForConditionalGeneration"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message names file, and tensor or field."""


def config_to_dict(config: Config) -> dict[str, Any]:
    """The content of `config.json`."""
    text, vision = config.text, config.vision
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "qwen3_vl",
        "image_token_id": config.image_token_id,
        "vision_start_token_id": config.vision_start_token_id,
        "vision_end_token_id": config.vision_end_token_id,
        "video_token_id": config.image_token_id,
        "tie_word_embeddings": text.tie_word_embeddings,
        "text_config": {
            "model_type": "qwen3_vl_text",
            **{
                name: getattr(text, name)
                for name in (
                    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                    "num_attention_heads", "num_key_value_heads", "head_dim", "rope_theta",
                    "rms_norm_eps", "tie_word_embeddings",
                )
            },
            "hidden_act": "silu",
            "attention_bias": False,
            "max_position_embeddings": 4096,
            "rope_scaling": {
                "rope_type": "default",
                "mrope_interleaved": True,
                "mrope_section": list(text.mrope_section),
            },
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            **{
                name: getattr(vision, name)
                for name in (
                    "depth", "hidden_size", "intermediate_size", "num_heads", "out_hidden_size",
                    "num_position_embeddings", "patch_size", "temporal_patch_size",
                    "spatial_merge_size", "in_channels",
                )
            },
            "deepstack_visual_indexes": list(vision.deepstack_visual_indexes),
            "hidden_act": "gelu_pytorch_tanh",
        },
    }  # fmt: skip


def _field(section: dict[str, Any], name: str, file: Path) -> Any:
    if name not in section:
        raise CheckpointError(f"{file}: field {name!r} is missing")
    return section[name]


def config_from_dict(content: dict[str, Any], file: Path) -> Config:
    """The configuration in a parsed `config.json`; other architectures are refused."""
    if content.get("model_type") != "qwen3_vl":
        raise CheckpointError(
            f"{file}: model_type is {content.get('model_type')!r}, expected 'qwen3_vl'"
        )
    text, vision = (_field(content, f"{part}_config", file) for part in ("text", "vision"))
    rope = text.get("rope_parameters") or _field(text, "rope_scaling", file)
    names = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
        "num_key_value_heads head_dim rms_norm_eps"
    ).split()
    tied = content.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    theta = text.get("rope_theta", rope.get("rope_theta"))
    if theta is None:
        raise CheckpointError(f"{file}: field 'rope_theta' is missing")
    text_config = TextConfig(
        **{name: _field(text, name, file) for name in names},
        mrope_section=tuple(_field(rope, "mrope_section", file)),
        rope_theta=float(theta),
        tie_word_embeddings=bool(tied),
    )
    names = (
        "depth hidden_size intermediate_size num_heads out_hidden_size num_position_embeddings "
        "patch_size temporal_patch_size spatial_merge_size in_channels"
    ).split()
    vision_config = VisionConfig(
        **{name: _field(vision, name, file) for name in names},
        deepstack_visual_indexes=tuple(_field(vision, "deepstack_visual_indexes", file)),
    )
    ids = ("image_token_id", "vision_start_token_id", "vision_end_token_id")
    return Config(vision_config, text_config, *(_field(content, name, file) for name in ids))


def _is_weight(leaf: Any) -> bool:
    return isinstance(leaf, Weight)


def _source_shape(weight: Weight) -> tuple[int, ...]:
    shape = weight.shape[1:] if "{}" in weight.name else weight.shape
    return weight.source_shape or (shape[::-1] if weight.transposed else shape)


def _from_source(array: np.ndarray, weight: Weight) -> np.ndarray:
    flat = array.reshape(array.shape[0], -1) if weight.source_shape else array
    return flat.T if weight.transposed else flat


def _to_source(array: np.ndarray, weight: Weight) -> np.ndarray:
    array = array.T if weight.transposed else array
    return np.ascontiguousarray(array.reshape(_source_shape(weight)))


def load(directory: str | os.PathLike, dtype: Any = jnp.float32) -> tuple[Config, Weights]:
    """Reads a Qwen3-VL checkpoint of one safetensors file.

    Raises:
      CheckpointError: a file, field or tensor is missing, superfluous, misshapen or not finite.
    """
    directory = Path(directory)
    file = directory / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; a checkpoint directory holds one")
    try:
        config = config_from_dict(json.loads(file.read_text()), file)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file}: not JSON: {error}") from error
    return config, _read_weights(directory / "model.safetensors", config, dtype)


def _read_weights(file: Path, config: Config, dtype: Any) -> Weights:
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file")
    try:
        with safe_open(file, framework="np") as source:
            unread = set(source.keys())

            def read(name: str, weight: Weight) -> np.ndarray:
                if name not in unread:
                    raise CheckpointError(
                        f"{file}: tensor {name!r} is missing, expected shape "
                        f"{_source_shape(weight)}"
                    )
                unread.discard(name)
                array = source.get_tensor(name)
                if array.shape != _source_shape(weight):
                    raise CheckpointError(
                        f"{file}: tensor {name!r} has shape {array.shape}, expected "
                        f"{_source_shape(weight)}"
                    )
                if not np.isfinite(array.astype(np.float32)).all():
                    raise CheckpointError(f"{file}: tensor {name!r} holds NaN or infinity")
                return _from_source(array, weight)

            def gather(weight: Weight) -> jax.Array:
                if "{}" not in weight.name:
                    return jnp.asarray(read(weight.name, weight), dtype)
                rows = [read(weight.name.format(i), weight) for i in range(weight.shape[0])]
                return jnp.asarray(np.stack(rows), dtype)

            weights = jax.tree.map(gather, declare(config), is_leaf=_is_weight)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file: {error}") from error
    unread.discard("lm_head.weight")  # tied checkpoints may store the embedding twice
    if unread:
        raise CheckpointError(f"{file}: unexpected tensor {sorted(unread)[0]!r}")
    return weights


def save(
    directory: str | os.PathLike, config: Config, weights: Weights, dtype: Any = np.float32
) -> None:
    """Writes `config.json` and `model.safetensors`; each file appears whole or not at all."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray] = {}

    def collect(weight: Weight, value: jax.Array) -> None:
        array = np.asarray(value).astype(dtype)
        if "{}" not in weight.name:
            tensors[weight.name] = _to_source(array, weight)
            return
        for i in range(weight.shape[0]):
            tensors[weight.name.format(i)] = _to_source(array[i], weight)

    jax.tree.map(collect, declare(config), weights, is_leaf=_is_weight)
    partial = directory / "model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, directory / "model.safetensors")
    partial = directory / "config.json.partial"
    partial.write_text(json.dumps(config_to_dict(config), indent=2) + "\n")
    os.replace(partial, directory / "config.json")
