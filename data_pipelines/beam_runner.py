"""The same dataset by Apache Beam, on the workers of any of its runners.

    files to make ──▶ render, describe, check, write one ──▶ manifest

An element is a file's numbers, a hundred bytes; nothing that is rendered travels between workers.
The folder must be one that all workers see. Needs the extra `beam`, in an environment of its own,
since Beam wants older releases of some libraries: `pip install -e .[beam] -c constraints-beam.txt`.
"""

from collections.abc import Iterator, Sequence

from data_pipelines import dataset, manifest
from data_pipelines.dataset import Made, Plan
from data_pipelines.manifest import Manifest
from data_pipelines.rendering import Job, Maker
from sf_jax.media import locks
from sf_jax.media.errors import DataError

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as missing:
    raise DataError(
        "Apache Beam is not installed: pip install -e .[beam] -c constraints-beam.txt, in an "
        "environment of its own; --runner local needs none"
    ) from missing

NAMESPACE = "sf_jax"  # of the counters that runners show


class MakeShard(beam.DoFn):  # type: ignore[misc]
    """Makes one file; counts records that are made, that were there, and refused rationales."""

    def __init__(self, maker: Maker):
        self._maker = maker

    def process(self, job: Job) -> Iterator[Made]:
        made = dataset.make_shard(self._maker, job)
        shard = made.summary.shard
        name = "records_kept" if made.kept else "records_made"
        beam.metrics.Metrics.counter(NAMESPACE, name).inc(shard.records)
        beam.metrics.Metrics.counter(NAMESPACE, "rationales_rejected").inc(shard.rejected)
        yield made


class Finish(beam.DoFn):  # type: ignore[misc]
    """Writes manifest and card of all files together; see `dataset.finish`."""

    def __init__(self, plan: Plan, maker: Maker):
        self._plan, self._maker = plan, maker

    def process(self, made: list[Made]) -> Iterator[int]:
        dataset.finish(self._plan, self._maker, (one.summary for one in made))
        yield len(made)


def make(plan: Plan, maker: Maker, runner: str, options: Sequence[str] = ()) -> Manifest:
    """Makes the dataset; see `dataset.make` about errors.

    Args:
      runner: name of a runner of Beam, such as "DirectRunner".
      options: further options of Beam, such as `--direct_num_workers=2`, for the runner to judge.
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
        pipeline.run().wait_until_finish()
        lock.check()
    return manifest.read(plan.out)
