"""The same dataset by Apache Beam, on the workers of any of its runners.

    files to make ──▶ render, describe, check, write one ──▶ manifest

An element is a file's numbers, a hundred bytes; nothing that is rendered travels between workers.
The folder must be one that all workers see. Needs the extra `beam`, in an environment of its own,
since Beam wants older releases of some libraries: `pip install -e .[beam] -c constraints-beam.txt`.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from data_pipelines import dataset, manifest
from data_pipelines.dataset import Made, Plan
from data_pipelines.manifest import Manifest
from data_pipelines.rendering import Job, Maker
from sf_jax.media import locks
from sf_jax.media.errors import DataError

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult
except ImportError as missing:
    raise DataError(
        "Apache Beam is not installed: pip install -e .[beam] -c constraints-beam.txt, in an "
        "environment of its own; --runner local needs none"
    ) from missing

NAMESPACE = "sf_jax"  # of the counters that runners show
EVERY = 2.0  # seconds between two looks at the folder


class MakeShard(beam.DoFn):  # type: ignore[misc]
    """Makes one file; counts records that are made, that were there, and refused rationales."""

    def __init__(self, maker: Maker):
        self._maker = maker

    def process(self, job: Job) -> Iterator[Made]:
        made = dataset.make_shard(self._maker, job)
        shard = made.summary.shard
        for name, counted in (("records_kept", made.kept), ("records_made", not made.kept)):
            beam.metrics.Metrics.counter(NAMESPACE, name).inc(shard.records if counted else 0)
        beam.metrics.Metrics.counter(NAMESPACE, "rationales_rejected").inc(shard.rejected)
        yield made


class Finish(beam.DoFn):  # type: ignore[misc]
    """Writes manifest and card of all files together; see `dataset.finish`."""

    def __init__(self, plan: Plan, maker: Maker):
        self._plan, self._maker = plan, maker

    def process(self, made: list[Made]) -> Iterator[int]:
        dataset.finish(self._plan, self._maker, (one.summary for one in made))
        yield len(made)


def make(
    plan: Plan, maker: Maker, runner: str, options: Sequence[str] = ()
) -> tuple[Manifest, int | None]:
    """Makes the dataset; see `dataset.make` about errors.

    Args:
      runner: name of a runner of Beam, such as "DirectRunner".
      options: further options of Beam, such as `--direct_num_workers=2`, for the runner to judge.

    Returns:
      The manifest, and how many records were there before; None where a runner counts nothing.
    """
    with locks.held(plan.out) as lock:
        jobs = list(dataset.prepared(plan, maker))
        flags = [f"--runner={runner}", *options]
        pipeline = beam.Pipeline(options=PipelineOptions(flags, save_main_session=False))
        (
            pipeline
            | "Files to make" >> beam.Create(jobs)
            | "Share out" >> beam.Reshuffle()
            | "Render, describe, check, write" >> beam.ParDo(MakeShard(maker))
            | "Gather" >> beam.combiners.ToList()
            | "Manifest" >> beam.ParDo(Finish(plan, maker))
        )
        with _progress(jobs):
            result = pipeline.run()
            result.wait_until_finish()
        lock.check()
    return manifest.read(plan.out), _counted(result, "records_kept")


def _counted(result: PipelineResult, name: str) -> int | None:
    """A counter of a finished run; None where its runner counts nothing."""
    wanted = beam.metrics.MetricsFilter().with_namespace(NAMESPACE).with_name(name)
    found = result.metrics().query(wanted)["counters"]
    return int(found[0].result) if found else None


@contextmanager
def _progress(jobs: Sequence[Job]) -> Iterator[None]:
    """A bar of the files that are there, which all workers of any runner write to one folder."""
    ended = threading.Event()

    def watch(bar: tqdm) -> None:
        while not ended.is_set():
            ended.wait(EVERY)
            bar.update(sum(Path(job.path).exists() for job in jobs) - bar.n)

    with tqdm(total=len(jobs), desc="files", unit="file") as bar:
        watching = threading.Thread(target=watch, args=(bar,), daemon=True)
        watching.start()
        try:
            yield
        finally:
            ended.set()
            watching.join()
