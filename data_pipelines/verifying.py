"""Is a folder of records what its manifest says? Every problem is named: file, record, line."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_pipelines import manifest, records, shards
from data_pipelines.manifest import Manifest
from data_pipelines.records import RecordError
from data_pipelines.shards import Shard, Summary
from sf_jax.media.errors import DataError

SHOWN = 20  # damaged records of a file that are named one by one


@dataclass
class Report:
    """Attributes:
    problems: a line each; empty for a sound folder.
    files, records: how many were read whole; people: in all of them.
    sealed: whether there is a manifest to compare with.
    """

    problems: list[str] = field(default_factory=list)
    files: int = 0
    records: int = 0
    people: int = 0
    sealed: bool = False


def verify(
    folder: Path, *, images: bool = False, progress: Callable[[str], None] = lambda name: None
) -> Report:
    """Compares the files of a folder with its manifest and with each other.

    Compared are sizes and checksums; that every record can be read and has the number that it
    ought to have, so that none is missing or there twice; that no person is in two splits. Where
    there is no manifest, the files are read and compared with each other.

    Args:
      images: decodes and checks all fields of every record, images too.
      progress: is called with the name of each file before it is read.

    Raises:
      DataError: no such folder, or one without record files and manifest.
    """
    if not folder.is_dir():
        raise DataError("no such folder", path=folder)
    found = {path.name: path for path in sorted(folder.glob("*.array_record"))}
    report, listed = Report(), None
    if (folder / manifest.NAME).exists():
        report.sealed = True
        try:
            listed = manifest.read(folder)
            report.problems += [*listed.problems, *_unlisted(listed, found), *_holes(listed)]
        except DataError as error:
            report.problems.append(str(error))
    elif not found:
        raise DataError(f"holds no *.array_record file and no {manifest.NAME}", path=folder)
    entries = {shard.file: shard for shard in listed.shards} if listed else {}
    summaries = []
    for name in sorted(found.keys() | entries.keys()):
        progress(name)
        problems, summary = _file(folder / name, entries.get(name), images)
        report.problems += problems
        if summary is not None:
            summaries.append(summary)
    report.files = len(summaries)
    report.records = sum(summary.shard.records for summary in summaries)
    report.people = len({person for summary in summaries for person in summary.people})
    if listed is None:
        report.problems += _repeated(summaries)
    report.problems += shards.leaks(summaries)
    return report


def _unlisted(listed: Manifest, found: dict[str, Path]) -> Iterator[str]:
    names = {shard.file for shard in listed.shards}
    for name in sorted(found.keys() - names):
        yield f"{name}: no line of {manifest.NAME} lists it"
    for split, of_split in listed.header.splits.items():
        members = [shard for shard in listed.shards if shard.split == split]
        if len(members) != of_split.files:
            yield (
                f"{manifest.NAME}: lists {len(members)} files of split {split}, its header counts "
                f"{of_split.files}"
            )
        elif sum(shard.records for shard in members) != of_split.records:
            counted = sum(shard.records for shard in members)
            yield (
                f"{manifest.NAME}: its lines have {counted:,} records of split {split}, its header "
                f"counts {of_split.records:,}"
            )


def _holes(listed: Manifest) -> Iterator[str]:
    """Between files of a split whose records are numbered."""
    for split in listed.header.splits:
        members = [shard for shard in listed.shards if shard.split == split]
        yield from _between([shard for shard in members if shard.first is not None])


def _between(members: Sequence[Shard]) -> Iterator[str]:
    ordered = sorted(members, key=lambda shard: shard.first or 0)
    for one, other in itertools.pairwise(ordered):
        assert one.first is not None and other.first is not None
        follows = one.first + one.records
        if other.first > follows:
            yield (
                f"{one.file} ends with number {follows - 1}, {other.file} begins with {other.first}"
            )
        elif other.first < follows:
            yield f"{other.file} repeats numbers of {one.file}, from {other.first} on"


def _repeated(summaries: Sequence[Summary]) -> Iterator[str]:
    """Without a manifest only repetitions can be found: nobody knows how many there should be."""
    members = [one.shard for one in summaries if one.shard.first is not None]
    yield from (line for line in _between(members) if "repeats" in line)


def _file(path: Path, entry: Shard | None, images: bool) -> tuple[list[str], Summary | None]:
    """Problems of a file, and what it holds where all of it can be read."""
    if not path.exists():
        return [f"{path.name}: no such file, but {manifest.NAME} lists it"], None
    if not path.is_file():
        return [f"{path.name}: is a folder, expected a file"], None
    problems: list[str] = []
    summary = None
    try:
        summary = shards.summarise(path)
        if images:
            problems += _damaged(path, records.decode)
    except (RecordError, OSError) as error:
        problems += [*_damaged(path, lambda data: records.unpacked(data, ()))] or [str(error)]
    if entry is not None:
        problems = [*_differences(path, entry, summary), *problems]
    return problems, summary


def _differences(path: Path, entry: Shard, summary: Summary | None) -> Iterator[str]:
    size = path.stat().st_size
    if size != entry.bytes:
        kind = "truncated: " if size < entry.bytes else ""
        yield f"{path.name}: {kind}{size:,} bytes, {manifest.NAME} has {entry.bytes:,}"
    elif summary is not None and summary.shard.hash != entry.hash:
        yield f"{path.name}: content differs: its hash is not that of {manifest.NAME}"
    if summary is None:
        return
    found = summary.shard
    if found.hash == entry.hash and found != entry:
        changed = [
            name for name in Shard.model_fields if getattr(found, name) != getattr(entry, name)
        ]
        yield f"{path.name}: {manifest.NAME} has another {', '.join(changed)}"
    elif entry.first is not None and found.first != entry.first:
        yield f"{path.name}: its records are not numbers {entry.first} and following"


def _damaged(path: Path, decode: Callable[[bytes], object]) -> Iterator[str]:
    """A line for each record that cannot be read, up to `SHOWN`."""
    count = 0
    try:
        for error in records.faults(path, decode):
            count += 1
            if count <= SHOWN:
                yield f"{path.name}, record {error.record}: {error.problem}"
    except RecordError as error:
        yield f"{path.name}: {error.problem}"
    if count > SHOWN:
        yield f"{path.name}: {count - SHOWN:,} more records are damaged"
