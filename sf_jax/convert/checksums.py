"""Checksums of a model directory: `sf_jax_checksums.json` holds the hashes of the model's files.

Neither Orbax nor safetensors finds a flipped bit in a weight. What this project writes (imported,
exported and merged checkpoints, trained models and adapters) is sealed with checksums, and loading
verifies them where they are. Directories of others, and those written before, have none. Other
files in the directory, such as notes and evaluations, are no part of the model and may change.
"""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from sf_jax.convert.tensor_files import INDEX, SINGLE, CheckpointError, read_index, read_settings
from sf_jax.media import files, hashes
from sf_jax.media.small_files import Settings

FILE = "sf_jax_checksums.json"


class _Stored(Settings):
    """The fields of the file."""

    algorithm: str
    files: dict[str, str]


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
    "schema.json",
    "readout.safetensors",
    "finder.safetensors",
)
MODEL_FILES = (
    *SIDE_FILES,
    "config.json",
    SINGLE,
    INDEX,
    "draft_heads.safetensors",
    "reward.safetensors",
    "reward.json",
    "stored.json",
    "adapter_config.json",
    "adapter_model.safetensors",
)


def seal(folder: Path, subfolder: str | None = None) -> None:
    """Writes the checksums of a directory whose `MODEL_FILES` are complete.

    Args:
      subfolder: one whose files are all part of the model.
    """
    names = {name for name in MODEL_FILES if (folder / name).is_file()}
    if INDEX in names:
        names |= weight_files(folder)
    if subfolder is not None:
        inside = (path for path in (folder / subfolder).rglob("*") if path.is_file())
        names |= {path.relative_to(folder).as_posix() for path in inside}
    found = hashes.of_files(folder, names)
    files.write_json(folder / FILE, {"algorithm": hashes.NAME, "files": found})


def unseal(folder: Path) -> None:
    """Removes the checksums of a directory whose files are about to change."""
    with contextlib.suppress(FileNotFoundError):
        (folder / FILE).unlink()


def verify(folder: Path) -> dict[str, str] | None:
    """Compares every file with its checksum.

    Returns:
      the hashes by file name; None where the directory has no checksums.

    Raises:
      CheckpointError: a file is missing, cannot be read or differs; names it.
    """
    if not (folder / FILE).is_file():
        return None
    wanted = _read(folder / FILE)
    for name in wanted:
        if not (folder / name).is_file():
            raise CheckpointError(f"no such file, though {FILE} lists it", path=folder / name)
    try:
        found = hashes.of_files(folder, wanted)
    except OSError as error:
        raise CheckpointError(f"not readable: {error}", path=folder) from error
    for name, digest in wanted.items():
        if found[name] != digest:
            raise CheckpointError(
                f"differs from its checksum; write or copy the directory again, or remove {FILE} "
                "if the file was changed on purpose",
                path=folder / name,
            )
    return found


def _read(file: Path) -> dict[str, str]:
    """The checksums by file name."""
    found = read_settings(file, _Stored)
    if found.algorithm != hashes.NAME:
        problem = f"found {found.algorithm!r:.60}, expected {hashes.NAME!r}"
        raise CheckpointError(problem, path=file, field="algorithm")
    listed = found.files
    for name in listed:
        path = PurePosixPath(name)
        if "\0" in name or path.is_absolute() or ".." in path.parts:
            raise CheckpointError(f"{name!r} is no file of this directory", path=file, field=name)
    return listed


def weight_files(folder: Path) -> set[str]:
    """Names of the files that hold a directory's weights.

    Raises:
      CheckpointError: the index of the shards cannot be read.
    """
    single = (folder / SINGLE).is_file()
    return {SINGLE} if single else set(read_index(folder / INDEX).values())


def joint_hash(folder: Path, names: Iterable[str], known: Mapping[str, str] | None = None) -> str:
    """One hash of several files of a folder, such as all shards: see `hashes.joint`.

    Args:
      known: hashes of files that were computed already.

    Raises:
      OSError: a file cannot be read.
    """
    names, known = set(names), known or {}
    found = {name: known[name] for name in names if name in known}
    return hashes.joint(found | hashes.of_files(folder, names - set(found)))
