"""LoRA adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

Tensors are named `base_model.model.<module>.lora_A.weight` [R, I] and `lora_B.weight` [O, R], the
module as in the checkpoint of the base. Whatever else PEFT can do to a model is refused by name:
an adapter read in part would give wrong answers without an error.
"""

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import PyTree
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sf_jax.convert import checksums
from sf_jax.convert.tensor_files import CheckpointError, read_json
from sf_jax.media import files, safetensors_files
from sf_jax.model import lora
from sf_jax.model.declared import Weight
from sf_jax.model.lora import ALL_LINEAR, Adapter, LoraConfig

CONFIG_FILE, TENSOR_FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
READ = (
    "r lora_alpha target_modules exclude_modules rank_pattern alpha_pattern use_rslora "
    "layers_to_transform layers_pattern"
).split()
# Where an adapter came from and how it was trained; they change nothing that it computes.
WITHOUT_EFFECT = (
    "auto_mapping base_model_name_or_path ensure_weight_tying eva_config inference_mode "
    "lora_dropout megatron_core peft_version qalora_group_size revision runtime_config task_type"
).split()
# Other initialisations (PiSSA, OLoRA, CorDA, LoftQ, ...) change the weights of the base as well.
INITIALISATIONS = (None, True, False, "gaussian", "orthogonal", "eva")


def _chooser(value: object, name: str, file: Path) -> Any:
    if isinstance(value, str):
        return ALL_LINEAR if value.lower() == ALL_LINEAR else value
    return _names(value, name, file)


def _names(value: object, name: str, file: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise CheckpointError(
            f"field {name!r} is {value!r}, expected text or a list of it", path=file, field=name
        )
    return tuple(value)


def _refuse_unsupported(content: dict[str, Any], file: Path) -> None:
    if content.get("peft_type") != "LORA":
        raise CheckpointError(
            f"peft_type is {content.get('peft_type')!r}, expected 'LORA'", path=file
        )
    if content.get("bias", "none") != "none":
        raise CheckpointError(f"bias is {content['bias']!r}, expected 'none'", path=file)
    if content.get("init_lora_weights") not in INITIALISATIONS:
        raise CheckpointError(
            f"init_lora_weights is {content['init_lora_weights']!r}, which changes the "
            "base's weights; convert the adapter to plain LoRA with PEFT first",
            path=file,
        )
    known = {*READ, *WITHOUT_EFFECT, "peft_type", "bias", "init_lora_weights"}
    for name, value in content.items():
        if value and name not in known:
            raise CheckpointError(
                f"field {name!r} is {value!r}; only plain LoRA is supported, so it must "
                "be null, false or empty",
                path=file,
                field=name,
            )


def config_from_dict(content: dict[str, Any], file: Path) -> LoraConfig:
    """The configuration in a parsed `adapter_config.json`.

    Raises:
      CheckpointError: a field is missing or wrong, or asks for more than plain LoRA.
    """
    _refuse_unsupported(content, file)
    for name in ("r", "lora_alpha", "target_modules"):
        if content.get(name) is None:
            raise CheckpointError(f"field {name!r} is missing", path=file, field=name)
    layers = content.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers
    lists = content.get("layers_pattern") or []
    try:
        return LoraConfig(
            targets=_chooser(content["target_modules"], "target_modules", file),
            rank=content["r"],
            alpha=float(content["lora_alpha"]),
            rank_pattern=tuple((content.get("rank_pattern") or {}).items()),
            alpha_pattern=tuple((content.get("alpha_pattern") or {}).items()),
            rank_stabilised=bool(content.get("use_rslora")),
            exclude=_chooser(content.get("exclude_modules") or [], "exclude_modules", file),
            layers=tuple(layers) if layers else None,
            layers_pattern=(lists,) if isinstance(lists, str) else tuple(lists),
        )
    except CheckpointError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(str(error), path=file) from error


def config_to_dict(config: LoraConfig, base: str | None = None) -> dict[str, Any]:
    """The content of `adapter_config.json`. `base` names the base model, for people and tools."""

    def listed(value: object) -> object:
        return list(value) if isinstance(value, tuple) else value

    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "target_modules": listed(config.targets),
        "exclude_modules": listed(config.exclude) or None,
        "rank_pattern": dict(config.rank_pattern),
        "alpha_pattern": dict(config.alpha_pattern),
        "use_rslora": config.rank_stabilised,
        "use_dora": False,
        "layers_to_transform": listed(config.layers),
        "layers_pattern": listed(config.layers_pattern) or None,
        "modules_to_save": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def load(
    directory: str | os.PathLike, declared: PyTree[Weight], dtype: DTypeLike = jnp.float32
) -> Adapter:
    """Reads an adapter for a model of these declared weights.

    Raises:
      CheckpointError: a file, field or tensor is missing, superfluous, misshapen, not finite or
        not supported; an adapter for another base shows as one of these.
    """
    file = Path(directory) / CONFIG_FILE
    if not file.exists():
        raise CheckpointError("no such file; an adapter's directory holds one", path=file)
    content = read_json(file)
    if not isinstance(content, dict):
        raise CheckpointError("holds no object of fields", path=file)
    lora_config = config_from_dict(content, file)
    try:
        lora.families(lora_config, declared)
    except ValueError as error:
        raise CheckpointError(f"target_modules: {error}", path=file) from error
    return _read_tensors(Path(directory) / TENSOR_FILE, lora_config, declared, dtype)


def _read_tensors(
    file: Path, lora_config: LoraConfig, declared: PyTree[Weight], dtype: DTypeLike
) -> Adapter:
    if not file.exists():
        raise CheckpointError("no such file; older adapter_model.bin files are not read", path=file)
    try:
        with safetensors_files.open_tensors(file, CheckpointError) as source:
            unread = set(source.keys())

            def read(name: str, shape: tuple[int, int]) -> np.ndarray:
                if name not in unread:
                    raise CheckpointError(
                        f"tensor {name!r} is missing, expected shape {shape}", path=file, field=name
                    )
                unread.discard(name)
                array = source.get_tensor(name).astype(np.float32)
                if array.shape != shape:
                    raise CheckpointError(
                        f"tensor {name!r} has shape {array.shape}, expected {shape}",
                        path=file,
                        field=name,
                    )
                if not np.isfinite(array).all():
                    raise CheckpointError(
                        f"tensor {name!r} holds NaN or infinity", path=file, field=name
                    )
                return array.T

            def make(
                module: str, inputs: int, rank: int, outputs: int
            ) -> tuple[np.ndarray, np.ndarray]:
                name = PREFIX + module
                a = read(f"{name}.lora_A.weight", (rank, inputs))
                return a, read(f"{name}.lora_B.weight", (outputs, rank))

            adapter = lora.build(lora_config, declared, make, dtype)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"not a readable safetensors file: {error}", path=file) from error
    if unread:
        raise CheckpointError(
            f"unexpected tensor {sorted(unread)[0]!r}: this base has no such module, or "
            f"target_modules in {CONFIG_FILE} do not choose it",
            path=file,
        )
    return adapter


def save(
    directory: str | os.PathLike,
    adapter: Adapter,
    declared: PyTree[Weight],
    base: str | None = None,
    dtype: DTypeLike = np.float32,
) -> None:
    """Writes both files and checksums; each appears whole or not at all. `base` names the base."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    checksums.unseal(directory)
    tensors: dict[str, np.ndarray] = {}
    for module, a, b in lora.modules(adapter, declared):
        tensors[f"{PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(a.T.astype(dtype))
        tensors[f"{PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(b.T.astype(dtype))
    with files.replacing(directory / TENSOR_FILE) as file:
        save_file(tensors, file, metadata={"format": "pt"})
    files.write_json(directory / CONFIG_FILE, config_to_dict(adapter.config, base))
    checksums.seal(directory)
