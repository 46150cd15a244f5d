"""What a model directory's answers are made with; its checksums are verified on the way."""

from pathlib import Path

from sf_jax.convert import checksums, peft
from sf_jax.media.hashes import NAME
from sf_jax.reader.action import Provenance


def verified(directory: Path, adapter: Path | None = None) -> Provenance:
    """The version and the hashes of a model directory whose files are as they were written.

    Files are read once more for it; they are in memory since the weights were loaded.

    Raises:
      CheckpointError: a file differs from its checksum, where the directory has checksums.
    """
    weights = checksums.weights_hash(directory, checksums.verify(directory))
    added = None
    if adapter is not None:
        checksums.verify(adapter)
        added = checksums.adapter_hash(adapter, (peft.CONFIG_FILE, peft.TENSOR_FILE))
    return Provenance(weights=f"{NAME}:{weights}", adapter=added and f"{NAME}:{added}")
