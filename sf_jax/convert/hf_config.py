"""`config.json` of Hugging Face checkpoints: Qwen3-VL, and Qwen3 without images."""

import copy
import json
from pathlib import Path
from typing import Any

from sf_jax.convert.tensor_files import CheckpointError
from sf_jax.media import small_files
from sf_jax.model.config import Config, TextConfig, VisionConfig

ARCHITECTURES = {
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3": "Qwen3ForCausalLM",
}
TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
VISION_FIELDS = (
    "depth",
    "hidden_size",
    "intermediate_size",
    "num_heads",
    "out_hidden_size",
    "num_position_embeddings",
    "patch_size",
    "temporal_patch_size",
    "spatial_merge_size",
    "in_channels",
)
TOKEN_FIELDS = ("image_token_id", "vision_start_token_id", "vision_end_token_id")
NO_TOKEN = -1  # in place of the image tokens of a model that reads text alone
DEFAULTS = {"in_channels": 3}  # fields that released files may leave out


def _field(section: dict[str, Any], name: str, file: Path) -> Any:
    if name in section:
        return section[name]
    if name in DEFAULTS:
        return DEFAULTS[name]
    raise CheckpointError(f"field {name!r} is missing", path=file, field=name)


def _expect(section: dict[str, Any], name: str, expected: object, file: Path) -> None:
    """Refuses a variant that the model does not have; a missing field means the expected."""
    if section.get(name, expected) != expected:
        raise CheckpointError(f"{name} is {section[name]!r}, expected {expected!r}", path=file)


def _section(content: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    section = _field(content, name, file)
    if not isinstance(section, dict):
        raise CheckpointError(
            f"field {name!r} is {section!r}, expected an object", path=file, field=name
        )
    return section


def _whole(section: dict[str, Any], name: str, file: Path, least: int = 1) -> int:
    return _check_whole(_field(section, name, file), name, file, least)


def _check_whole(value: object, name: str, file: Path, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CheckpointError(
            f"field {name!r} is {value!r}, expected a whole number of {least} or more",
            path=file,
            field=name,
        )
    return value


def _wholes(section: dict[str, Any], name: str, file: Path) -> tuple[int, ...]:
    values = _field(section, name, file)
    if not isinstance(values, list):
        raise CheckpointError(
            f"field {name!r} is {values!r}, expected a list", path=file, field=name
        )
    return tuple(_check_whole(value, name, file, 0) for value in values)


def _real(section: dict[str, Any], name: str, file: Path) -> float:
    value = _field(section, name, file)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise CheckpointError(
            f"field {name!r} is {value!r}, expected a number greater than 0", path=file, field=name
        )
    return float(value)


def _rope(text: dict[str, Any]) -> dict[str, Any]:
    """The rotary section under either of its names; transformers 5 writes the first."""
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    return rope if isinstance(rope, dict) else {}


def _text_config(
    text: dict[str, Any], tied: bool, section: tuple[int, ...], file: Path
) -> TextConfig:
    rope = _rope(text)
    _expect(text, "hidden_act", "silu", file)
    _expect(text, "attention_bias", False, file)
    _expect(text, "use_sliding_window", False, file)
    _expect(rope, "rope_type", "default", file)
    if "rope_type" not in rope:  # its name of old
        _expect(rope, "type", "default", file)
    try:
        return TextConfig(
            **{name: _whole(text, name, file) for name in TEXT_FIELDS},
            rms_norm_eps=_real(text, "rms_norm_eps", file),
            mrope_section=section,  # type: ignore[arg-type]
            rope_theta=_real(text if "rope_theta" in text else rope, "rope_theta", file),
            tie_word_embeddings=tied,
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(str(error), path=file) from error


def config_from_dict(content: Any, file: Path) -> Config:
    """The configuration in a parsed `config.json`; other architectures are refused.

    Raises:
      CheckpointError: a field is missing or asks for what the model cannot do.
    """
    if not isinstance(content, dict):
        raise CheckpointError("holds no object of fields", path=file)
    kind = content.get("model_type")
    if kind not in ARCHITECTURES:
        raise CheckpointError(
            f"model_type is {kind!r}, expected one of {', '.join(ARCHITECTURES)}", path=file
        )
    if kind == "qwen3":
        # All three axes of a text token's position agree, so any split of the frequencies is
        # plain rotation; the whole to the first axis is the one that needs no further choice.
        section: tuple[int, ...] = (_whole(content, "head_dim", file) // 2, 0, 0)
        tied = bool(content.get("tie_word_embeddings", False))
        text_config = _text_config(content, tied, section, file)
        return Config(None, text_config, NO_TOKEN, NO_TOKEN, NO_TOKEN)
    text, vision = (_section(content, f"{part}_config", file) for part in ("text", "vision"))
    section = _wholes(_rope(text), "mrope_section", file)
    _expect(_rope(text), "mrope_interleaved", True, file)
    _expect(vision, "hidden_act", "gelu_pytorch_tanh", file)
    tied = bool(content.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    image, start, end = (_whole(content, name, file, least=0) for name in TOKEN_FIELDS)
    try:
        vision_config = VisionConfig(
            **{name: _whole(vision, name, file) for name in VISION_FIELDS},
            deepstack_visual_indexes=_wholes(vision, "deepstack_visual_indexes", file),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(str(error), path=file) from error
    return Config(vision_config, _text_config(text, tied, section, file), image, start, end)


def _text_to_dict(text: TextConfig) -> dict[str, Any]:
    return {
        **{name: getattr(text, name) for name in TEXT_FIELDS},
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_theta,
        "tie_word_embeddings": text.tie_word_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
    }


def _fresh(config: Config) -> dict[str, Any]:
    """The content of `config.json` for a model of our own."""
    text, vision = config.text, config.vision
    if vision is None:
        return {
            "architectures": [ARCHITECTURES["qwen3"]],
            "model_type": "qwen3",
            **_text_to_dict(text),
            "max_position_embeddings": 4096,
        }
    return {
        "architectures": [ARCHITECTURES["qwen3_vl"]],
        "model_type": "qwen3_vl",
        **{name: getattr(config, name) for name in TOKEN_FIELDS},
        "video_token_id": config.image_token_id,
        "tie_word_embeddings": text.tie_word_embeddings,
        "text_config": {
            "model_type": "qwen3_vl_text",
            **_text_to_dict(text),
            "max_position_embeddings": 4096,
            "rope_scaling": {
                "rope_type": "default",
                "mrope_interleaved": True,
                "mrope_section": list(text.mrope_section),
            },
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            **{name: getattr(vision, name) for name in VISION_FIELDS},
            "deepstack_visual_indexes": list(vision.deepstack_visual_indexes),
            "hidden_act": "gelu_pytorch_tanh",
        },
    }


def _write_rope(text: dict[str, Any], config: TextConfig, sections: bool) -> None:
    """Puts the rotary fields where this file keeps them."""
    rope = _rope(text)
    holder = text if "rope_theta" in text or "rope_theta" not in rope else rope
    holder["rope_theta"] = config.rope_theta
    if sections:
        rope["mrope_section"] = list(config.mrope_section)


def config_to_dict(config: Config) -> dict[str, Any]:
    """The content of `config.json`: what was read, with the fields changed since put in."""
    if config.source is None:
        return _fresh(config)
    content = small_files.parse_json(config.source.config_json)
    if config_from_dict(content, Path("config.json")) == _without_local(config):
        return content
    content = copy.deepcopy(content)
    text = content if config.vision is None else content["text_config"]
    text.update({name: getattr(config.text, name) for name in TEXT_FIELDS})
    text["rms_norm_eps"] = config.text.rms_norm_eps
    content["tie_word_embeddings"] = config.text.tie_word_embeddings
    _write_rope(text, config.text, sections=config.vision is not None)
    if config.vision is not None:
        vision = content["vision_config"]
        vision.update({name: getattr(config.vision, name) for name in VISION_FIELDS})
        vision["deepstack_visual_indexes"] = list(config.vision.deepstack_visual_indexes)
        content.update({name: getattr(config, name) for name in TOKEN_FIELDS})
    return content


def _without_local(config: Config) -> Config:
    """The configuration as a file can hold it: the type of products is not in `config.json`."""
    return Config(config.vision, config.text, *(getattr(config, name) for name in TOKEN_FIELDS))


def config_text(config: Config) -> str:
    """`config.json` to write: the very text that was read where nothing has changed."""
    content = config_to_dict(config)
    if config.source is not None and content == small_files.parse_json(config.source.config_json):
        return config.source.config_json
    return json.dumps(content, indent=2) + "\n"
