"""The manifest of a folder of record files: `manifest.jsonl`, its files with their checksums.

The first line is the header, then comes a line for each file in the order of their names, and the
last line has the hash of all lines before it. Nothing in it depends on when, where or by how many
processes the files were made.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import xxhash

from data_pipelines.shards import Person, Shard, Summary
from sf_jax.media import files, small_files
from sf_jax.media.errors import DataError
from sf_jax.media.small_files import Settings, checked

NAME = "manifest.jsonl"
MOST_BYTES = 1 << 30  # of a manifest: some two million files


class ManifestError(DataError):
    """A manifest that is missing or damaged."""


class Split(Settings):
    """Attributes:
    records, files, people: how many a split has; people of None are not noted in its records.
    """

    records: int
    files: int
    people: int | None


class Header(Settings):
    """Attributes:
    kind: what the file is; version: of its form; checksum: what `hash` is, see `media/hashes.py`.
    splits: by name.
    settings: what the records of each split were made with, as far as that is noted.
    """

    kind: Literal["sf_jax records"] = "sf_jax records"
    version: Literal[1] = 1
    checksum: Literal["xxh128"] = "xxh128"
    splits: dict[str, Split]
    settings: dict[str, Any]


class End(Settings):
    """Attributes:
    lines: how many come before this one; hash: of them.
    """

    lines: int
    hash: str


@dataclass(frozen=True)
class Manifest:
    """Attributes:
    header: of all files; shards: each of them.
    problems: what is wrong with the manifest as a file; empty where nothing is.
    """

    header: Header
    shards: Sequence[Shard]
    problems: Sequence[str] = ()


def of(summaries: Iterable[Summary], settings: Mapping[str, Any]) -> Manifest:
    """The manifest of files; see `Header` about `settings`."""
    found = sorted(summaries, key=lambda summary: summary.shard.file)
    splits = {}
    for name in sorted({summary.shard.split for summary in found}):
        members = [summary for summary in found if summary.shard.split == name]
        people: set[Person] = set().union(*(summary.people for summary in members))
        count = sum(summary.shard.records for summary in members)
        splits[name] = Split(records=count, files=len(members), people=len(people) or None)
    header = Header(splits=splits, settings=dict(settings))
    return Manifest(header, [summary.shard for summary in found])


def write(folder: Path, manifest: Manifest) -> None:
    """Writes it, complete or not at all."""
    lines = [_line(manifest.header), *map(_line, manifest.shards)]
    content = "".join(lines)
    end = End(lines=len(lines), hash=_hash(content.encode()))
    files.write_text(folder / NAME, content + _line(end))


def read(folder: Path) -> Manifest:
    """Reads a manifest. A checksum that does not match is among the `problems`.

    Raises:
      ManifestError: it is missing, or a line is not what it ought to be; names the line.
    """
    path = folder / NAME
    content = small_files.read_bytes(path, ManifestError, MOST_BYTES)
    lines = content.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ManifestError("an empty file", path=path)
    header = _parsed(path, 1, lines[0], Header)
    if len(lines) < 2 or b'"lines"' not in lines[-1]:
        raise ManifestError("truncated: the last line, with the hash, is missing", path=path)
    end = _parsed(path, len(lines), lines[-1], End)
    shards = [_parsed(path, number, line, Shard) for number, line in enumerate(lines[1:-1], 2)]
    return Manifest(header, shards, _problems(content, lines, end))


def absent(folder: Path) -> list[Path]:
    """The files that a folder's manifest lists and that are not there; none without a sound one."""
    if not (folder / NAME).exists():
        return []
    with contextlib.suppress(ManifestError):
        listed = [folder / shard.file for shard in read(folder).shards]
        return [path for path in listed if not path.exists()]
    return []


def _problems(content: bytes, lines: Sequence[bytes], end: End) -> list[str]:
    before = len(lines) - 1
    if end.lines != before:
        what = "lines are missing" if before < end.lines else "lines were added"
        return [f"{NAME}: {what}: {before} before the last, which was written after {end.lines}"]
    if end.hash != _hash(content[: len(content.rstrip(b"\n")) - len(lines[-1])]):
        return [f"{NAME}: a line was changed: the hash of its lines is not that of its last line"]
    return []


def _parsed(path: Path, number: int, line: bytes, kind: type[small_files.Kind]) -> small_files.Kind:
    try:
        return checked(kind, small_files.parse_json(line, ManifestError), ManifestError)
    except ManifestError as error:
        raise error.at(path=path, line=number) from error


def _line(content: Settings) -> str:
    return json.dumps(content.model_dump(), sort_keys=True, allow_nan=False) + "\n"


def _hash(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)
