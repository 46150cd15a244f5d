"""Logits of a model directory, compared with those of another implementation in an NPZ file."""

import math
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from sf_jax.convert import checksums, hf
from sf_jax.convert.tensor_files import CheckpointError
from sf_jax.media import small_files

MOST_ARRAY_BYTES = 16 * 2**30  # of an array of a reference
# What damaged archives raise in the libraries that read them.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    zlib.error,
)
LIMITS = {"float32": 1e-4, "bfloat16": 2e-2}  # of the reference's largest logit


@dataclass(frozen=True)
class RowReport:
    """How one row of logits compares with the reference, over its real tokens.

    Attributes:
      positions: how many were compared.
      worst, worst_at: largest difference, as a share of the reference's largest logit, and where.
      differs_at: the first position beyond the limit, None if there is none.
      same_top: positions at which both have the same likeliest token.
      token, image: the id at `differs_at`, and whether it stands for a part of an image.
    """

    positions: int
    worst: float
    worst_at: int
    differs_at: int | None
    same_top: int
    token: int | None = None
    image: bool = False


def compare(
    ours: np.ndarray, theirs: np.ndarray, real: np.ndarray, limit: float
) -> list[RowReport]:
    """Compares logits [B, T, V] row by row where `real` [B, T]."""
    largest = float(np.abs(theirs[real]).max())
    reports = []
    for row in range(len(ours)):
        at = np.flatnonzero(real[row])
        shares = np.abs(ours[row, at] - theirs[row, at]).max(-1) / largest
        shares = np.where(np.isfinite(shares), shares, np.inf)
        beyond = np.flatnonzero(shares > limit)
        same = ours[row, at].argmax(-1) == theirs[row, at].argmax(-1)
        worst = int(shares.argmax())
        differs_at = int(at[beyond[0]]) if len(beyond) else None
        reports.append(
            RowReport(
                positions=len(at),
                worst=float(shares[worst]),
                worst_at=int(at[worst]),
                differs_at=differs_at,
                same_top=int(same.sum()),
            )
        )
    return reports


def _check_array(archive: zipfile.ZipFile, name: str) -> None:
    """The array's header describes what the archive holds, before memory is taken for it."""
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as opened:
        version = np.lib.format.read_magic(opened)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(opened)
        held = entry.file_size - opened.tell()
    if dtype.kind not in "biuf":
        raise CheckpointError(f"array {name!r} is of type {dtype}, expected numbers", field=name)
    if math.prod(shape) * dtype.itemsize != held or entry.file_size > MOST_ARRAY_BYTES:
        raise CheckpointError(
            f"array {name!r} is to be {dtype} {list(shape)}, the file holds {held} bytes of it "
            f"(at most {MOST_ARRAY_BYTES} are read)",
            field=name,
        )


def read_reference(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a reference: `input_ids` and `logits`, and what else `hf.forward` takes.

    Raises:
      CheckpointError: the file is no such archive, or an array is missing.
    """
    known = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "logits")
    if not file.is_file():
        raise CheckpointError("no such file", path=file)
    if not zipfile.is_zipfile(file):
        with file.open("rb") as opened:
            what = small_files.recognised(opened.read(64))
        raise CheckpointError("not a readable NPZ file" + (f": {what}" if what else ""), path=file)
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name for name in known if f"{name}.npy" in archive.namelist()}
            for name in names:
                _check_array(archive, name)
        with np.load(file) as arrays:
            found = {name: arrays[name] for name in names}
    except CheckpointError as error:
        error.at(path=file)
        raise
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        raise CheckpointError(f"not a readable NPZ file: {error}", path=file) from error
    for name in ("input_ids", "logits"):
        if name not in found:
            raise CheckpointError(f"array {name!r} is missing", path=file, field=name)
    ids = found["input_ids"]
    mask = found.get("attention_mask", np.ones(ids.shape, int))
    if not np.issubdtype(ids.dtype, np.integer) or ids.ndim != 2 or not len(ids):
        raise CheckpointError(
            f"array 'input_ids' is {ids.dtype} {list(ids.shape)}, expected whole numbers "
            "[rows, tokens]",
            path=file,
            field="input_ids",
        )
    if mask.shape != ids.shape or not (mask != 0).any(1).all():
        raise CheckpointError(
            "array 'attention_mask' leaves a row without a token", path=file, field="attention_mask"
        )
    if found["logits"].shape[:-1] != ids.shape:
        raise CheckpointError(
            f"array 'logits' has shape {found['logits'].shape}, expected "
            f"{(*ids.shape, 'vocabulary')}",
            path=file,
            field="logits",
        )
    return found


def verify(
    source: Path, reference: Path, adapter: Path | None, dtype: str, limit: float
) -> list[RowReport]:
    """Compares our logits with a reference's, row by row.

    Args:
      source: Hugging Face directory; reference: see `read_reference`.
      dtype: of weights and products, a key of `LIMITS`.
      limit: share of the reference's largest logit.

    Raises:
      CheckpointError: a file cannot be read, or the reference does not fit the model.
    """
    arrays = read_reference(reference)
    theirs = arrays.pop("logits").astype(np.float32)
    for directory in (source, adapter):
        if directory is not None:
            checksums.verify(directory)
    config, weights = hf.load(source, adapter, dtype=jnp.dtype(dtype))
    config = replace(config, product_dtype=dtype)
    try:
        ours = hf.forward(config, weights, **arrays)
    except ValueError as error:
        raise CheckpointError(str(error), path=reference) from error
    if ours.shape != theirs.shape:
        raise CheckpointError(
            f"array 'logits' has shape {theirs.shape}, expected {ours.shape}",
            path=reference,
            field="logits",
        )
    ids = arrays["input_ids"]
    real = arrays.get("attention_mask", np.ones_like(ids)) != 0
    reports = compare(ours, theirs, real, limit)
    for row, report in enumerate(reports):
        if report.differs_at is not None:
            token = int(ids[row, report.differs_at])
            reports[row] = replace(report, token=token, image=token == config.image_token_id)
    return reports
