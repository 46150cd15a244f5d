"""`sf-jax convert`: checkpoints in and out, adapters merged, and logits held against PyTorch's.

    sf-jax convert import  HF_DIR OUT            Hugging Face → Orbax, to train from on any mesh
    sf-jax convert export  DIR OUT               the way back
    sf-jax convert merge   HF_DIR ADAPTER OUT    base and LoRA adapter → one checkpoint
    sf-jax convert verify  HF_DIR --reference FILE.npz [--adapter ADAPTER]

An imported directory holds `config.json`, the tokenizer's and processor's files, `stored.json`
(types and shapes) and `weights/`, an Orbax tree.
"""

import argparse
import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sf_jax.cli.arguments import Parser, number
from sf_jax.convert import hf, peft
from sf_jax.convert.hf_config import config_from_dict
from sf_jax.convert.tensor_files import CheckpointError, read_json
from sf_jax.media import files
from sf_jax.model import lora
from sf_jax.model.config import Config, Source
from sf_jax.model.weights import Weights, abstract
from sf_jax.train import checkpoint

WEIGHTS, STORED = "weights", "stored.json"
SIDE_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "readout.safetensors",
)
LIMITS = {"float32": 1e-4, "bfloat16": 2e-2}  # of the reference's largest logit


def _copy_side_files(source: Path, out: Path) -> None:
    for name in SIDE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def import_checkpoint(source: Path, out: Path, dtype: Any = None) -> int:
    """Hugging Face directory → imported directory. `dtype` None keeps each tensor's own.

    Returns:
      how many numbers the weights hold.
    """
    with files.folder(out) as folder:
        config, weights = hf.load(source, dtype=dtype)
        assert config.source is not None
        _copy_side_files(source, folder)
        (folder / "config.json").write_bytes(config.source.config_json.encode("utf-8"))
        named = jax.tree.leaves_with_path(weights)
        stored = {
            "tensors": dict(config.source.dtypes),
            "weights": {jax.tree_util.keystr(k): [str(x.dtype), x.shape] for k, x in named},
        }
        (folder / STORED).write_text(json.dumps(stored))
        checkpoint.save_weights(folder / WEIGHTS, weights)
    return sum(leaf.size for leaf in jax.tree.leaves(weights))


def load_imported(directory: Path, like: Any = None) -> tuple[Config, Weights]:
    """An imported directory's configuration and weights.

    Args:
      like: see `train.checkpoint.restore_weights`; None restores each weight as it was saved.

    Raises:
      CheckpointError: a file is missing or cannot be read.
    """
    file = directory / "config.json"
    config = config_from_dict(read_json(file), file)
    stored = read_json(directory / STORED)
    fields = stored.values() if isinstance(stored, dict) else ()
    if set(stored) != {"tensors", "weights"} or not all(isinstance(f, dict) for f in fields):
        raise CheckpointError(f"{directory / STORED}: expected the fields 'tensors' and 'weights'")
    if not (directory / WEIGHTS).is_dir():
        raise CheckpointError(f"{directory / WEIGHTS}: no such folder; an imported model holds one")
    types = tuple(sorted(stored["tensors"].items()))
    config = replace(config, source=Source(file.read_bytes().decode("utf-8"), types))
    like = _expected(config, stored["weights"], directory / STORED) if like is None else like
    try:
        return config, checkpoint.restore_weights(directory / WEIGHTS, like)
    except (ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"{directory / WEIGHTS}: not readable: {error}") from error


def _expected(config: Config, stored: dict[str, Any], file: Path) -> Weights:
    """The tree that was saved, checked against the configuration, to go to the first device."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def leaf(path: Any, weight: Any) -> jax.ShapeDtypeStruct:
        name = jax.tree_util.keystr(path)
        if name not in stored:
            raise CheckpointError(f"{file}: weight {name!r} is missing")
        dtype, shape = stored[name]
        if tuple(shape) != weight.shape:
            raise CheckpointError(
                f"{file}: weight {name!r} has shape {tuple(shape)}, expected {weight.shape} by "
                "config.json"
            )
        return jax.ShapeDtypeStruct(weight.shape, jnp.dtype(dtype), sharding=here)

    return jax.tree_util.tree_map_with_path(leaf, abstract(config))


def export_checkpoint(source: Path, out: Path, dtype: Any = None) -> int:
    """Imported directory → Hugging Face directory. `dtype` None: as the tensors were stored."""
    with files.folder(out) as folder:
        config, weights = load_imported(source)
        _copy_side_files(source, folder)
        hf.save(folder, config, weights, dtype)
    return sum(leaf.size for leaf in jax.tree.leaves(weights))


def merge_adapter(source: Path, adapter: Path, out: Path, dtype: Any = None) -> int:
    """Hugging Face directory and LoRA adapter → one Hugging Face directory.

    Sums are made in float32 and stored in the base's types, or in `dtype`. Base and sum are in
    memory together.
    """
    with files.folder(out) as folder:
        # To be rounded once, sums in another type start from all that is stored.
        config, weights = hf.load(source, dtype=None if dtype is None else jnp.float32)
        merged = lora.merge(weights, peft.load(adapter, config), config)
        _copy_side_files(source, folder)
        hf.save(folder, config, merged, dtype)
    return sum(leaf.size for leaf in jax.tree.leaves(merged))


@dataclass(frozen=True)
class RowReport:
    """How one row of logits compares with the reference, over its real tokens.

    Attributes:
      positions: how many were compared.
      worst, worst_at: largest difference, as a share of the reference's largest logit, and where.
      parts_at: the first position beyond the limit, None if there is none.
      same_top: positions at which both have the same likeliest token.
    """

    positions: int
    worst: float
    worst_at: int
    parts_at: int | None
    same_top: int


def compare(
    ours: np.ndarray, theirs: np.ndarray, real: np.ndarray, limit: float
) -> list[RowReport]:
    """Compares logits [B, T, V] row by row where `real` [B, T]."""
    largest = float(np.abs(theirs[real]).max())
    reports = []
    for row in range(len(ours)):
        places = np.flatnonzero(real[row])
        shares = np.abs(ours[row, places] - theirs[row, places]).max(-1) / largest
        shares = np.where(np.isfinite(shares), shares, np.inf)
        beyond = np.flatnonzero(shares > limit)
        same = ours[row, places].argmax(-1) == theirs[row, places].argmax(-1)
        worst = int(shares.argmax())
        parts_at = int(places[beyond[0]]) if len(beyond) else None
        reports.append(
            RowReport(
                positions=len(places),
                worst=float(shares[worst]),
                worst_at=int(places[worst]),
                parts_at=parts_at,
                same_top=int(same.sum()),
            )
        )
    return reports


def read_reference(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a reference: `input_ids` and `logits`, and what else `hf.forward` takes.

    Raises:
      CheckpointError: the file is no such archive, or an array is missing.
    """
    known = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "logits")
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file")
    if not zipfile.is_zipfile(file):
        raise CheckpointError(f"{file}: not a readable NPZ file")
    try:
        with np.load(file) as arrays:
            found = {name: arrays[name] for name in known if name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{file}: not a readable NPZ file: {error}") from error
    for name in ("input_ids", "logits"):
        if name not in found:
            raise CheckpointError(f"{file}: array {name!r} is missing")
    ids = found["input_ids"]
    mask = found.get("attention_mask", np.ones(ids.shape, int))
    if not np.issubdtype(ids.dtype, np.integer) or ids.ndim != 2 or not len(ids):
        raise CheckpointError(
            f"{file}: array 'input_ids' is {ids.dtype} {list(ids.shape)}, expected whole numbers "
            "[rows, tokens]"
        )
    if mask.shape != ids.shape or not (mask != 0).any(1).all():
        raise CheckpointError(f"{file}: array 'attention_mask' leaves a row without a token")
    if found["logits"].shape[:-1] != ids.shape:
        raise CheckpointError(
            f"{file}: array 'logits' has shape {found['logits'].shape}, expected "
            f"{(*ids.shape, 'vocabulary')}"
        )
    return found


def verify(
    source: Path, reference: Path, adapter: Path | None, dtype: str, limit: float | None = None
) -> bool:
    """Prints how far our logits are from a reference's, and where they part; whether all agree."""
    limit = LIMITS[dtype] if limit is None else limit
    arrays = read_reference(reference)
    theirs = arrays.pop("logits").astype(np.float32)
    config, weights = hf.load(source, adapter, dtype=jnp.dtype(dtype))
    config = replace(config, product_dtype=dtype)
    try:
        ours = hf.forward(config, weights, **arrays)
    except ValueError as error:
        raise CheckpointError(f"{reference}: {error}") from error
    if ours.shape != theirs.shape:
        raise CheckpointError(
            f"{reference}: array 'logits' has shape {theirs.shape}, expected {ours.shape}"
        )
    ids = arrays["input_ids"]
    real = arrays.get("attention_mask", np.ones_like(ids)) != 0
    reports = compare(ours, theirs, real, limit)
    for row, report in enumerate(reports):
        print(
            f"row {row}: {report.positions} positions, largest difference {report.worst:.1e} of "
            f"the largest logit, at position {report.worst_at}; same likeliest token at "
            f"{report.same_top}"
        )
        if report.parts_at is not None:
            token = int(ids[row, report.parts_at])
            image = ", an image token" if token == config.image_token_id else ""
            print(f"  parts from the reference at position {report.parts_at} (id {token}{image})")
    agree = all(report.parts_at is None for report in reports)
    worst = max(report.worst for report in reports)
    print(f"{'agrees' if agree else 'DIFFERS'}: {worst:.1e}, limit {limit:.0e}, {dtype}")
    return agree


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sf-jax convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    ways = {
        "import": "Hugging Face directory → Orbax weights",
        "export": "imported directory → Hugging Face directory",
        "merge": "base and LoRA adapter → one Hugging Face directory",
        "verify": "logits against a reference dumped from PyTorch",
    }
    for name, text in ways.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("source", type=Path, metavar="DIR")
        if name == "merge":
            command.add_argument("adapter", type=Path, metavar="ADAPTER")
        if name == "verify":
            command.add_argument(
                "--reference",
                type=Path,
                required=True,
                metavar="FILE.npz",
                help="input_ids, logits and, where used, attention_mask, pixel_values, "
                "image_grid_thw",
            )
            command.add_argument("--adapter", type=Path, help="LoRA adapter in PEFT's layout")
            command.add_argument(
                "--limit",
                type=number(0, True, "a positive number"),
                help="share of the largest logit (default: 1e-4, bfloat16: 2e-2)",
            )
            command.add_argument("--dtype", choices=tuple(LIMITS), default="float32")
            continue
        command.add_argument("out", type=Path, metavar="OUT")
        command.add_argument(
            "--dtype",
            choices=("float32", "bfloat16", "float16"),
            help="of the weights written (default: each tensor's own)",
        )
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs the command; 1 if a verification finds a difference."""
    options = build_parser().parse_args(argv)
    if options.command == "verify":
        chosen = options.adapter, options.dtype, options.limit
        return 0 if verify(options.source, options.reference, *chosen) else 1
    dtype = jnp.dtype(options.dtype) if options.dtype else None
    if options.command == "merge":
        numbers = merge_adapter(options.source, options.adapter, options.out, dtype)
    else:
        work = {"import": import_checkpoint, "export": export_checkpoint}[options.command]
        numbers = work(options.source, options.out, dtype)
    print(f"{numbers:,} numbers in {options.out}/")
    return 0
