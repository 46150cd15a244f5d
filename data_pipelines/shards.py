"""What a file of records holds: its line in a manifest, and the people in it."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines import records
from data_pipelines.records import RecordError
from sf_jax.media import hashes
from sf_jax.media.small_files import Settings

Person = tuple[str, str, int]  # source, style and identity: numbers alone are a source's own
REJECTED = "rejected"  # field of a record: why its rationale was left out


class Shard(Settings):
    """One file, as a line of a manifest.

    Attributes:
      file: its name; split: "train", "evaluation", or as its name begins.
      first: number of the first record, where each has the number that follows; else None.
      records: how many; bytes: of the file; hash: XXH3 of 128 bits of its content, as `xxh128sum`
        prints it.
      rationales: records that have one; rejected: those whose rationale the checker refused.
      sources: records by their source.
      people: different people in the file.
    """

    file: str
    split: str
    first: int | None
    records: int
    bytes: int
    hash: str
    rationales: int
    rejected: int
    sources: dict[str, int]
    people: int


@dataclass(frozen=True)
class Summary:
    """Attributes:
    shard: the manifest's line.
    people: who is in the file, each with the first record of theirs.
    """

    shard: Shard
    people: Mapping[Person, int]


def split_of(path: str | os.PathLike) -> str:
    """The split that a file's name begins with: "train" of `train-00000.array_record`."""
    return Path(path).name.split("-")[0].split(".")[0]


def person_of(record: Mapping[str, Any]) -> Person | None:
    """Who is in a stored record; None where that is not noted."""
    identity = record.get("identity")
    if identity is None:
        return None
    try:
        number = int(identity)
    except (TypeError, ValueError) as error:
        raise RecordError("field 'identity' is not a number", field="identity") from error
    return records.text(dict(record), "source"), records.text(dict(record), "style"), number


def summarise(path: str | os.PathLike) -> Summary:
    """Reads all records of a file, but not their images.

    Raises:
      RecordError: the file or a record is damaged; names both.
      OSError: the file cannot be read.
    """
    stored = records.read_as(path, lambda data: records.unpacked(data, ()))
    found: list[Any] = []
    people: dict[Person, int] = {}
    rationales = rejected = 0
    sources: Counter[str] = Counter()
    for number, record in enumerate(stored):
        with records.located(path, number):
            person = person_of(record)
            sources[records.text(record, "source")] += 1
            rationales += bool(records.text(record, "rationale"))
        found.append(record.get("seed"))
        rejected += REJECTED in record
        if person is not None:
            people.setdefault(person, number)
    shard = Shard(
        file=Path(path).name,
        split=split_of(path),
        first=first_of(found),
        records=len(found),
        bytes=os.path.getsize(path),
        hash=hashes.of_file(path),
        rationales=rationales,
        rejected=rejected,
        sources=dict(sorted(sources.items())),
        people=len(people),
    )
    return Summary(shard, people)


def first_of(numbers: list[Any]) -> int | None:
    """The first of numbers that follow each other; None where they do not, or there are none."""
    if not numbers or type(numbers[0]) is not int:
        return None
    return numbers[0] if numbers == list(range(numbers[0], numbers[0] + len(numbers))) else None


def leaks(summaries: Iterable[Summary]) -> Iterator[str]:
    """A line for each two splits and each source that share people, with one of them as example.

    Records without `identity` are not compared.
    """
    where: dict[str, dict[Person, str]] = {}
    for summary in summaries:
        of_split = where.setdefault(summary.shard.split, {})
        for person, number in summary.people.items():
            of_split.setdefault(person, f"{summary.shard.file}, record {number}")
    splits = sorted(where, reverse=True)
    for i, one in enumerate(splits):
        for other in splits[i + 1 :]:
            shared = sorted(where[one].keys() & where[other].keys())
            for source, count in sorted(Counter(person[0] for person in shared).items()):
                example = next(person for person in shared if person[0] == source)
                yield (
                    f"source {source!r}: {count:,} people of split {one} are in {other} too, such "
                    f"as identity {example[2]} of style {example[1]!r} "
                    f"({where[one][example]}; {where[other][example]})"
                )
