"""`config.json` of Hugging Face checkpoints: Qwen3-VL, and Qwen3 without images."""

import copy
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sf_jax.convert.tensor_files import CheckpointError
from sf_jax.media import small_files
from sf_jax.media.small_files import Settings, checked, shown
from sf_jax.model.config import Config, TextConfig, VisionConfig
from sf_jax.model.vision import ROPE_THETA

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

# Bounds far above what any model has, and far below what would exhaust a machine.
Width = Annotated[int, Field(ge=1, le=2**24)]
Layers = Annotated[int, Field(ge=1, le=1024)]
Side = Annotated[int, Field(ge=1, le=1024)]
Index = Annotated[int, Field(ge=0, le=2**24)]
Theta = Annotated[float, Field(ge=1, le=1e15)]
Epsilon = Annotated[float, Field(gt=0, le=1)]
ABSENT = 0.0  # a rope_theta that the file does not give


class Rope(Settings):
    """The rotary section of `text_config` or `vision_config`."""

    rope_type: str = "default"
    type: str = "default"  # the name of `rope_type` before
    rope_theta: Theta = ABSENT
    mrope_interleaved: Literal[True] = True


class TextSection(Settings):
    """What is read of `text_config`, or of the whole file of a model of text alone."""

    vocab_size: Width
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Width
    num_key_value_heads: Width
    head_dim: Width
    rms_norm_eps: Epsilon
    rope_theta: Theta | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    hidden_act: Literal["silu"] = "silu"
    attention_bias: Literal[False] = False
    use_sliding_window: Literal[False] = False
    layer_types: list[Literal["full_attention"]] | None = None
    max_position_embeddings: Width | None = None


class VisionSection(Settings):
    """What is read of `vision_config`."""

    depth: Layers
    hidden_size: Width
    intermediate_size: Width
    num_heads: Width
    out_hidden_size: Width
    num_position_embeddings: Width
    patch_size: Side
    temporal_patch_size: Side
    spatial_merge_size: Side
    in_channels: Literal[3] = 3  # released files may leave it out
    deepstack_visual_indexes: list[Index] = Field(max_length=1024)
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    rope_theta: Theta | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None


class Kind(Settings):
    """Which model a file describes."""

    model_type: Literal["qwen3_vl", "qwen3"]
    tie_word_embeddings: bool = False


class Whole(Settings):
    """What is read of a Qwen3-VL model beside its two sections."""

    image_token_id: Index
    vision_start_token_id: Index
    vision_end_token_id: Index
    text_config: dict[str, Any]
    vision_config: dict[str, Any]


class Sections(Settings):
    """How the rotary frequencies are shared by time, height and width."""

    mrope_section: list[Index] = Field(min_length=3, max_length=3)


def _rope_name(section: dict[str, Any]) -> str:
    """The field that holds the rotary section: transformers 5 takes `rope_scaling` where both do.

    (`convert_rope_params_to_dict` of its `modeling_rope_utils`.)
    """
    return "rope_scaling" if section.get("rope_scaling") else "rope_parameters"


def _rope(
    section: dict[str, Any], within: str, types: tuple[str, ...] = ("default",)
) -> tuple[float | None, str, str]:
    """The section's theta, None where it gives none; its field; and the rotary section's.

    Its own `rope_theta` comes before that of the section around it, as in transformers.
    """
    name = _rope_name(section)
    where = f"{within}.{name}" if within else name
    content = section.get(name) or {}
    rope = checked(Rope, content, CheckpointError, where)
    field = "rope_type" if "rope_type" in content else "type"
    kind = getattr(rope, field)
    if kind not in types:
        expected = " or ".join(map(repr, types))
        raise CheckpointError(f"found {kind!r:.60}, expected {expected}", field=f"{where}.{field}")
    for key, value in content.items():  # by type of layer
        if isinstance(value, dict):
            raise CheckpointError("found an object, expected a value", field=f"{where}.{key}")
    if rope.rope_theta != ABSENT:
        return rope.rope_theta, f"{where}.rope_theta", where
    return section.get("rope_theta"), f"{within}.rope_theta".removeprefix("."), where


def _text_config(content: dict[str, Any], tied: bool, within: str) -> TextConfig:
    fields = checked(TextSection, content, CheckpointError, within)
    theta, field, where = _rope(content, within)
    if theta is None:
        raise CheckpointError("is missing", field=field)
    # All three axes of a text token's position agree, so any split of the frequencies is plain
    # rotation; the whole to the first axis is the one that needs no further choice.
    section = [fields.head_dim // 2, 0, 0]
    if within:
        rope = content.get(_rope_name(content)) or {}
        section = checked(Sections, rope, CheckpointError, where).mrope_section
    return TextConfig(
        **{name: getattr(fields, name) for name in TEXT_FIELDS},
        rms_norm_eps=fields.rms_norm_eps,
        mrope_section=tuple(section),  # type: ignore[arg-type]
        rope_theta=theta,
        tie_word_embeddings=tied,
    )


def _vision_config(content: dict[str, Any], within: str) -> VisionConfig:
    fields = checked(VisionSection, content, CheckpointError, within)
    theta, field, _ = _rope(content, within, ("default", "axial"))
    if theta not in (None, ROPE_THETA):
        raise CheckpointError(f"found {theta}, expected {ROPE_THETA}", field=field)
    levels = fields.deepstack_visual_indexes
    if levels != sorted(set(levels)):
        raise CheckpointError(
            f"found {shown(levels)}, expected increasing numbers of blocks",
            field=f"{within}.deepstack_visual_indexes",
        )
    return VisionConfig(
        **{name: getattr(fields, name) for name in VISION_FIELDS},
        deepstack_visual_indexes=tuple(levels),
    )


def config_from_dict(content: Any, file: Path) -> Config:
    """The configuration in a parsed `config.json`; other architectures are refused.

    Where two fields disagree, the one that transformers 5 takes is taken.

    Raises:
      CheckpointError: a field is missing or asks for what the model cannot do.
    """
    try:
        return _config(content)
    except CheckpointError as error:
        error.at(path=file)
        raise
    except ValueError as error:  # of sizes that do not go together
        raise CheckpointError(str(error), path=file) from error


def _config(content: Any) -> Config:
    kind = checked(Kind, content, CheckpointError)
    tied = kind.tie_word_embeddings
    if kind.model_type == "qwen3":
        return Config(None, _text_config(content, tied, ""), NO_TOKEN, NO_TOKEN, NO_TOKEN)
    whole = checked(Whole, content, CheckpointError)
    text = _text_config(whole.text_config, tied, "text_config")
    tower = _vision_config(whole.vision_config, "vision_config")
    if tower.out_hidden_size != text.hidden_size:
        raise CheckpointError(
            f"found {tower.out_hidden_size}, expected {text.hidden_size}, the hidden_size of the "
            "text model",
            field="vision_config.out_hidden_size",
        )
    tokens = [getattr(whole, name) for name in TOKEN_FIELDS]
    for name, token in zip(TOKEN_FIELDS, tokens, strict=True):
        if token >= text.vocab_size:
            problem = f"found {token}, expected less than vocab_size, {text.vocab_size}"
            raise CheckpointError(problem, field=name)
    return Config(tower, text, *tokens)


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
    rope = text.get(_rope_name(text)) or {}
    holder = rope if "rope_theta" in rope else text
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
