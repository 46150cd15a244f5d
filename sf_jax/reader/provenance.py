"""What a model directory's answers are made with; its checksums are verified on the way."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import sf_jax
from sf_jax.convert import checksums, peft
from sf_jax.media.hashes import NAME
from sf_jax.reader import calibration, reliability
from sf_jax.reader.action import Provenance

# Small files that an answer depends on; draft heads make one faster alone.
SETTINGS = ("config.json", reliability.FILE, calibration.FILE, *checksums.SIDE_FILES)
Stamps = dict[str, tuple[int, int, int]]  # of files: inode, bytes, time of change


def verified(directory: Path, adapter: Path | None = None) -> Provenance:
    """The version and the hashes of a model directory whose files are as they were written.

    Sealed files are read once more for it. The hash of weights that are not sealed is computed
    when it is first named: those of a large model take minutes to read.

    Raises:
      CheckpointError: a file differs from its checksum, where the directory has checksums.
      OSError: a file cannot be read.
    """
    added = None
    if adapter is not None:
        files = (peft.CONFIG_FILE, peft.TENSOR_FILE)
        added = f"{NAME}:{checksums.joint_hash(adapter, files, checksums.verify(adapter))}"
    known = checksums.verify(directory)
    settings = settings_hash(directory, known)
    if known is None:
        return _Unsealed(directory, added, settings)
    weights = checksums.joint_hash(directory, checksums.weight_files(directory), known)
    return Provenance(weights=f"{NAME}:{weights}", adapter=added, settings=settings)


def settings_hash(directory: Path, known: Mapping[str, str] | None = None) -> str:
    """One hash of the files of a model directory that an answer depends on beside its weights.

    Args:
      known: hashes of files that were computed already.

    Raises:
      OSError: a file cannot be read.
    """
    there = [name for name in SETTINGS if (directory / name).is_file()]
    return checksums.joint_hash(directory, there, known)


class _Unsealed(Provenance):
    """That of a directory without checksums, whose weights are hashed when they are first named."""

    _directory: Path
    _loaded: Stamps

    def __init__(self, directory: Path, adapter: str | None, settings: str):
        names = checksums.weight_files(directory)
        fields = {"_directory": directory, "_loaded": _stamps(directory, names)}
        fields |= {"adapter": adapter, "settings": settings}
        vars(self).update(fields, version=sf_jax.__version__)

    @cached_property
    def weights(self) -> str | None:  # type: ignore[override]
        """None where the files have changed since they were loaded, or are gone."""
        names = self._loaded.keys()
        try:
            found = checksums.joint_hash(self._directory, names)
            same = _stamps(self._directory, names) == self._loaded
        except OSError:
            return None
        return f"{NAME}:{found}" if same else None


def _stamps(folder: Path, names: Iterable[str]) -> Stamps:
    found = {name: (folder / name).stat() for name in names}
    return {name: (one.st_ino, one.st_size, one.st_mtime_ns) for name, one in found.items()}
