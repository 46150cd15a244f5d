"""A whole dataset in one run: rendered, described, checked, stored in files with a manifest.

The unit of work is a file of 2,000 records. A file depends on its numbers alone, so it is the same
whoever makes it: processes of one machine (`make`), or the workers of an Apache Beam runner
(`data_pipelines/beam_runner.py`). Files are written whole or not at all, and sound ones are kept,
so that a run that was killed continues without repeating or leaving out a record.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_pipelines import manifest, rendering, shards
from data_pipelines.dataset_card import write_card
from data_pipelines.held_out import Split
from data_pipelines.manifest import Manifest
from data_pipelines.records import RecordError
from data_pipelines.rendering import Job, Maker
from data_pipelines.shards import Summary
from data_pipelines.sources import number_of
from sf_jax.media import locks
from sf_jax.media.errors import DataError

SAMPLED = 6  # records of each split that the estimate of the size is made of
CHUNK_BYTES = 104  # that ArrayRecord adds to a record, measured on files of 2,000
SPARE = 1.1  # times the estimated size that must be free


@dataclass(frozen=True)
class Plan:
    """What to make.

    Attributes:
      out: the dataset's folder.
      counts: records of each split.
      shard: records a file.
    """

    out: Path
    counts: Mapping[Split, int]
    shard: int = rendering.SHARD

    def jobs(self) -> list[Job]:
        """All files."""
        return [
            job
            for split, count in self.counts.items()
            for job in rendering.jobs(self.out, count, split, self.shard)
        ]


@dataclass(frozen=True)
class Made:
    """Attributes:
    summary: of a file; kept: whether it was there already.
    """

    summary: Summary
    kept: bool


@dataclass(frozen=True)
class Estimate:
    """Attributes:
    record: mean bytes of a record; total: bytes of all that is not there yet.
    free: bytes on the disk.
    """

    record: float
    total: int
    free: int

    def check(self, out: Path) -> None:
        """Raises DataError where the disk has not enough room."""
        if self.total * SPARE > self.free:
            raise DataError(
                f"the dataset takes about {gigabytes(self.total)} more, and "
                f"{gigabytes(self.free)} are free; name a folder on another disk, or ask for "
                "fewer or smaller images",
                path=out,
            )


def gigabytes(count: float) -> str:
    """Such as `0.64 GB`."""
    return f"{count / 1e9:,.2f} GB"


def estimate(plan: Plan, maker: Maker) -> Estimate:
    """How much disk the dataset takes, from a few records spread over each split.

    Files that are there already count as made.
    """
    sizes, total = [], 0
    for split, count in plan.counts.items():
        found = [
            len(maker.packed(i * count // SAMPLED, split)) + CHUNK_BYTES
            for i in range(min(SAMPLED, count))
        ]
        sizes += found
        missing = sum(
            job.stop - job.start
            for job in rendering.jobs(plan.out, count, split, plan.shard)
            if not Path(job.path).exists()
        )
        total += round(missing * sum(found) / max(1, len(found)))
    existing = next(path for path in (plan.out, *plan.out.absolute().parents) if path.exists())
    return Estimate(sum(sizes) / max(1, len(sizes)), total, shutil.disk_usage(existing).free)


def make(
    plan: Plan,
    maker: Maker,
    workers: int,
    progress: Callable[[Made], None] = lambda made: None,
) -> Manifest:
    """Makes the dataset by processes of this machine; see `finish` about what is written.

    Args:
      progress: is called for each file, in order.

    Raises:
      BusyError: another process makes records there.
      DataError: the folder holds records of another seed, of other settings or of other numbers;
        or the two splits share people.
    """
    with locks.held(plan.out) as lock:
        jobs = prepared(plan, maker)
        found = []
        for made in rendering.in_processes(partial(make_shard, maker), jobs, workers):
            found.append(made.summary)
            progress(made)
            lock.check()
        return finish(plan, maker, found)


def prepared(plan: Plan, maker: Maker) -> Sequence[Job]:
    """The files to make, once the folder is known to hold no other dataset; notes its settings.

    Raises:
      DataError: it does; names the file.
    """
    jobs = plan.jobs()
    for job in jobs:
        rendering.check_seed(job, maker)
    names = {Path(job.path).name for job in jobs}
    for path in sorted(plan.out.glob("*.array_record")):
        if path.name not in names:
            problem = "is not of the records that are asked for; ask for as many as before, or name"
            raise DataError(f"{problem} another folder", path=path)
    plan.out.mkdir(parents=True, exist_ok=True)
    for split in plan.counts:
        rendering.check_settings(plan.out, split, maker)
    return jobs


def make_shard(maker: Maker, job: Job) -> Made:
    """Makes one file, unless it is there, can be read and has just the numbers it ought to have.

    Raises:
      DataError: it is there and has more records than are asked for, all of them sound.
    """
    wanted = number_of(job.start, maker.seed, job.split), job.stop - job.start
    if Path(job.path).exists():
        try:
            found = shards.summarise(job.path)
        except RecordError:
            found = None  # damaged: made again
        if found is not None and (found.shard.first, found.shard.records) == wanted:
            return Made(found, kept=True)
        if found is not None and found.shard.first == wanted[0] and found.shard.records > wanted[1]:
            problem = f"holds {found.shard.records:,} records, {wanted[1]:,} are asked for; ask for"
            raise DataError(f"{problem} as many as before, or name another folder", path=job.path)
        Path(job.path).unlink()
    _unlist(Path(job.path).parent)
    rendering.write_shard(maker, job)
    return Made(shards.summarise(job.path), kept=False)


def _unlist(folder: Path) -> None:
    """Removes the manifest of an earlier run, which other files than those to come are in."""
    (folder / manifest.NAME).unlink(missing_ok=True)


def finish(plan: Plan, maker: Maker, summaries: Iterable[Summary]) -> Manifest:
    """Writes the manifest and the dataset card, once no person is found in two splits.

    Raises:
      DataError: one is; names the first such source. Files of records stay, no manifest is
        written, and an older one is removed.
    """
    summaries = list(summaries)
    for leak in shards.leaks(summaries):
        _unlist(plan.out)
        problem = f"the splits share people: {leak}; no {manifest.NAME} is written"
        raise DataError(problem, path=plan.out)
    settings = {split: dict(maker.settings()) for split in plan.counts}
    found = manifest.of(summaries, settings)
    manifest.write(plan.out, found)
    write_card(plan.out, found)
    return found
