"""LoRA adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

Tensors are named `base_model.model.<module>.lora_A.weight` [R, I] and `lora_B.weight` [O, R], the
module as in the checkpoint of the base. Whatever else PEFT can do to a model is refused by name:
an adapter read in part would give wrong answers without an error.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import PyTree
from pydantic import AfterValidator, Field
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sf_jax.convert import checksums
from sf_jax.convert.tensor_files import DTYPES, CheckpointError, read_json
from sf_jax.media import files, safetensors_files
from sf_jax.media.small_files import Settings, checked, shown
from sf_jax.model import lora
from sf_jax.model.declared import Weight
from sf_jax.model.lora import ALL_LINEAR, Adapter, LoraConfig

CONFIG_FILE, TENSOR_FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# Where an adapter came from and how it was trained; they change nothing that it computes.
WITHOUT_EFFECT = (
    "auto_mapping base_model_name_or_path ensure_weight_tying eva_config inference_mode "
    "lora_dropout megatron_core peft_version qalora_group_size revision runtime_config task_type"
).split()
# Other initialisations (PiSSA, OLoRA, CorDA, LoftQ, ...) change the weights of the base as well.
INITIALISATIONS = (None, True, False, "gaussian", "orthogonal", "eva")


def _texts(value: object) -> object:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise ValueError(f"found {shown(value)}, expected text or a list of it")
    return value


def _numbers(value: object) -> object:
    listed = value if isinstance(value, list) else [value]
    if not all(isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in listed):
        raise ValueError(f"found {shown(value)}, expected a whole number or a list of them")
    return value


Rank = Annotated[int, Field(ge=1, le=2**16)]
Alpha = Annotated[float, Field(ge=-1e9, le=1e9)]
Texts = Annotated[object, AfterValidator(_texts)]
Numbers = Annotated[object, AfterValidator(_numbers)]


class Stored(Settings):
    """What is read of `adapter_config.json`; null is as absent."""

    r: Rank
    lora_alpha: Alpha
    target_modules: Texts
    exclude_modules: Texts | None = None
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, Alpha] | None = None
    use_rslora: bool | None = None
    layers_to_transform: Numbers | None = None
    layers_pattern: Texts | None = None


def _chooser(value: object) -> lora.Chooser:
    if isinstance(value, str):
        return ALL_LINEAR if value.lower() == ALL_LINEAR else value
    return _listed(value)


def _listed(value: Any) -> tuple[Any, ...]:
    """One value, several or none, as a tuple."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _refuse_unsupported(content: dict[str, Any], file: Path) -> None:
    if content.get("peft_type") != "LORA":
        raise CheckpointError(
            f"peft_type is {content.get('peft_type')!r:.60}, expected 'LORA'", path=file
        )
    if content.get("bias", "none") != "none":
        raise CheckpointError(f"bias is {content['bias']!r:.60}, expected 'none'", path=file)
    if content.get("init_lora_weights") not in INITIALISATIONS:
        raise CheckpointError(
            f"init_lora_weights is {content['init_lora_weights']!r:.60}, which changes the "
            "base's weights; convert the adapter to plain LoRA with PEFT first",
            path=file,
        )
    known = {*Stored.model_fields, *WITHOUT_EFFECT, "peft_type", "bias", "init_lora_weights"}
    for name, value in content.items():
        if value and name not in known:
            raise CheckpointError(
                f"field {name!r} is {value!r:.60}; only plain LoRA is supported, so it must "
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
    try:
        found = checked(Stored, content, CheckpointError)
        return LoraConfig(
            targets=_chooser(found.target_modules),
            rank=found.r,
            alpha=found.lora_alpha,
            rank_pattern=tuple((found.rank_pattern or {}).items()),
            alpha_pattern=tuple((found.alpha_pattern or {}).items()),
            rank_stabilised=bool(found.use_rslora),
            exclude=_chooser(found.exclude_modules),
            layers=_listed(found.layers_to_transform) or None,
            layers_pattern=_listed(found.layers_pattern),
        )
    except CheckpointError as error:
        error.at(path=file)
        raise
    except ValueError as error:
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
    opened = safetensors_files.open_tensors(file, CheckpointError)
    stored = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
    _check_tensors(file, stored, lora_config, declared)

    def read(name: str) -> np.ndarray:
        array = opened.get_tensor(name).astype(np.float32)
        if not np.isfinite(array).all():
            raise CheckpointError(f"tensor {name!r} holds NaN or infinity", path=file, field=name)
        return array.T

    def make(module: str, *_: int) -> tuple[np.ndarray, np.ndarray]:
        a, b = _tensor_names(module)
        return read(a), read(b)

    try:
        return lora.build(lora_config, declared, make, dtype)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"not a readable safetensors file: {error}", path=file) from error


def _tensor_names(module: str) -> tuple[str, str]:
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def _check_tensors(
    file: Path, stored: dict[str, Any], lora_config: LoraConfig, declared: PyTree[Weight]
) -> None:
    """The file holds the tensors of the modules that are adapted, and no other, unread yet."""
    unread = set(stored)
    for module, inputs, rank, outputs in lora.layout(lora_config, declared):
        names = _tensor_names(module)
        for name, shape in zip(names, ((rank, inputs), (outputs, rank)), strict=True):
            if name not in unread:
                raise CheckpointError(
                    f"tensor {name!r} is missing, expected shape {shape}", path=file, field=name
                )
            unread.discard(name)
            found = tuple(stored[name].get_shape())
            if found != shape:
                problem = f"tensor {name!r} has shape {found}, expected {shape}"
                raise CheckpointError(problem, path=file, field=name)
            if stored[name].get_dtype() not in DTYPES:
                problem = f"tensor {name!r} is of type {stored[name].get_dtype()}, expected one of "
                raise CheckpointError(problem + ", ".join(DTYPES), path=file, field=name)
    if unread:
        raise CheckpointError(
            f"unexpected tensor {sorted(unread)[0]!r}: this base has no such module, or "
            f"target_modules in {CONFIG_FILE} do not choose it",
            path=file,
        )


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
