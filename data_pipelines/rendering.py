"""Records made by several processes into files of 2,000: resumable, their settings noted."""

import contextlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from data_pipelines import records
from data_pipelines.held_out import Split
from data_pipelines.sources import number_of
from sf_jax.media import files, locks, small_files
from sf_jax.media.child_processes import die_with
from sf_jax.media.errors import DataError

SHARD = 2000  # records a file
Item = TypeVar("Item")
Made = TypeVar("Made")


class Maker(Protocol):
    """What makes packed records by their index. It is pickled for the processes that make them.

    Attributes:
      seed: of all records, which are numbered by `sources.number_of`; the field `seed` of each
        packed record is its number.
    """

    @property
    def seed(self) -> int: ...

    def check(self, split: Split) -> None:
        """Loads what the records are made of; raises DataError where it is missing or damaged."""

    def packed(self, index: int, split: Split) -> bytes:
        """Record `index` of a split."""

    def settings(self) -> Mapping[str, Any]:
        """What the records depend on, as JSON; files that were made with others are not resumed."""


@dataclass(frozen=True)
class Job:
    """One file of records to make.

    Attributes:
      path: of the file.
      start, stop: indices of its records in the split, `stop` excluded.
    """

    path: str
    split: Split
    start: int
    stop: int


def jobs(out: str | Path, count: int, split: Split, shard: int | None = None) -> list[Job]:
    """The files of `count` records of a split, each of `shard` (2,000) but for the last."""
    shard = shard or SHARD
    return [
        Job(
            str(Path(out) / f"{split}-{i // shard:05d}.array_record"),
            split,
            i,
            min(i + shard, count),
        )
        for i in range(0, count, shard)
    ]


def render(
    out: str | Path,
    count: int,
    maker: Maker,
    *,
    split: Split = "train",
    workers: int = 2,
    shard: int | None = None,
) -> None:
    """Makes `count` records into files of `shard` (2,000); whole files are kept, so it resumes.

    The processes that render end with this one, and, on Linux, with the thread that calls it.

    Raises:
      BusyError: another process renders there.
      DataError: the folder holds records of another seed or of other settings.
    """
    out = Path(out)
    wanted = jobs(out, count, split, shard)
    for job in wanted:
        check_seed(job, maker)
    if all(map(whole, wanted)):  # spare starting processes
        with locks.held(out):
            check_settings(out, split, maker)
        return
    with (
        locks.held(out) as lock,
        tqdm(total=count, desc=f"render {split}", unit="face") as bar,
    ):
        check_settings(out, split, maker)
        for written in in_processes(partial(write_shard, maker), wanted, workers):
            bar.update(written)
            lock.check()


def in_processes(
    function: Callable[[Item], Made], items: Iterable[Item], workers: int
) -> Iterator[Made]:
    """What a function gives for each item, in order, by several processes that end with this one.

    Args:
      function: is pickled, as items are.
    """
    # A fork would copy the locks of JAX's threads as they happen to be.
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawned, die_with, (os.getpid(),)) as pool:
        yield from pool.map(function, items)


def write_shard(maker: Maker, job: Job) -> int:
    """Makes one file unless it is there with all of its records; returns their number."""
    if whole(job):
        return job.stop - job.start
    packed = (maker.packed(index, job.split) for index in range(job.start, job.stop))
    return records.write_encoded(job.path, packed)


def whole(job: Job) -> bool:
    """Whether a file is there with all of its records."""
    if Path(job.path).exists():
        with contextlib.suppress(records.RecordError):
            return records.count(job.path) >= job.stop - job.start
    return False


def check_seed(job: Job, maker: Maker) -> None:
    """Raises DataError where a file is there whose first record is not the job's first.

    A damaged file is rendered again, and so is one without records.
    """
    if not Path(job.path).exists():
        return
    wanted = number_of(job.start, maker.seed, job.split)
    found: object = wanted
    with contextlib.suppress(records.RecordError, StopIteration):
        found = next(records.read_as(job.path, lambda data: records.unpacked(data, ()).get("seed")))
    if found != wanted:
        problem = (
            f"holds other faces: the first is number {found}, --seed {maker.seed} begins with "
        )
        raise DataError(f"{problem}{wanted}; name another folder", path=job.path)


def check_settings(out: Path, split: Split, maker: Maker) -> None:
    """Notes a split's settings in the folder, or raises DataError where others are noted."""
    wanted = maker.settings()
    if wanted:
        note_settings(out / f"{split}.settings.json", wanted)


def note_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Writes what records depend on beside them, or raises DataError where the file has others."""
    wanted = json.loads(json.dumps(settings))
    if not path.exists():
        files.write_json(path, wanted)
        return
    found = small_files.read_json(path)
    if found != wanted:
        both = found if isinstance(found, dict) else {}
        fields = [name for name in {**wanted, **both} if both.get(name) != wanted.get(name)]
        problem = f"the records here were made with another {', '.join(fields) or 'setting'}; "
        raise DataError(f"{problem}name another folder", path=path)
