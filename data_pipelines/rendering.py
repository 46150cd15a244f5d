"""Records made by several processes into files of 2,000: resumable, their settings noted."""

import contextlib
import json
import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from data_pipelines import records
from data_pipelines.held_out import Split
from data_pipelines.sources import number_of
from sf_jax.media import files, locks, small_files
from sf_jax.media.child_processes import die_with
from sf_jax.media.errors import DataError

SHARD = 2000  # records a file


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
    shard = shard or SHARD
    jobs = [
        (str(out / f"{split}-{i // shard:05d}.array_record"), i, min(i + shard, count))
        for i in range(0, count, shard)
    ]
    for path, start, _ in jobs:
        if Path(path).exists():
            _check_seed(path, number_of(start, maker.seed, split), maker.seed)
    settings = out / f"{split}.settings.json"
    # A fork would copy the locks of JAX's threads as they happen to be.
    spawned = multiprocessing.get_context("spawn")
    with (
        locks.held(out) as lock,
        ProcessPoolExecutor(workers, spawned, die_with, (os.getpid(),)) as pool,
        tqdm(total=count, desc=f"render {split}", unit="face") as bar,
    ):
        _check_settings(settings, maker)
        for written in pool.map(_write, [(*job, maker, split) for job in jobs]):
            bar.update(written)
            lock.check()


def _write(job: tuple[str, int, int, Maker, Split]) -> int:
    path, start, stop, maker, split = job
    if Path(path).exists():
        with contextlib.suppress(records.RecordError):
            if records.count(path) >= stop - start:
                return stop - start
    packed = (maker.packed(index, split) for index in range(start, stop))
    return records.write_encoded(path, packed)


def _check_seed(path: str, wanted: int, seed: int) -> None:
    """Raises DataError where the first record of a file is not number `wanted`.

    A damaged file is rendered again, and so is one without records.
    """
    found: object = wanted
    with contextlib.suppress(records.RecordError, StopIteration):
        found = next(records.read_as(path, lambda data: records.unpacked(data, ()).get("seed")))
    if found != wanted:
        problem = f"holds other faces: the first is number {found}, --seed {seed} begins with "
        raise DataError(f"{problem}{wanted}; name another folder", path=path)


def _check_settings(path: Path, maker: Maker) -> None:
    """Notes the settings, or raises DataError where others are noted."""
    wanted = json.loads(json.dumps(maker.settings()))
    if not wanted:
        return
    if path.exists():
        found = small_files.read_json(path)
        if found != wanted:
            both = found if isinstance(found, dict) else {}
            fields = [name for name in wanted if both.get(name) != wanted[name]]
            problem = f"the records here were made with another {', '.join(fields) or 'setting'}; "
            raise DataError(f"{problem}name another folder", path=path)
    else:
        files.write_json(path, wanted)
