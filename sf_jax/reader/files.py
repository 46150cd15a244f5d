"""Files in, files out: what `sf-jax predict` does with images, folders and videos."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sf_jax.media.errors import DataError, printable
from sf_jax.media.interrupts import Stopped
from sf_jax.reader.estimator import Model
from sf_jax.reader.job import Job, prepare
from sf_jax.reader.pictures import predict_pictures
from sf_jax.reader.progress import note
from sf_jax.reader.reader import PredictOptions, Reader
from sf_jax.reader.videos import predict_video


def predict_files(
    model: Model, paths: Sequence[Path], options: PredictOptions
) -> list[DataError | OSError]:
    """Reads files and folders, see `prepare` and `run`; returns what failed."""
    with closing(prepare(paths, options)) as job:
        return run(model, job)


def run(model: Model, job: Job) -> list[DataError | OSError]:
    """Reads the files of a job and writes or prints what they show; returns what failed.

    Raises:
      Stopped: the process was asked to stop; the text says what was kept, and `job.failures` holds
        what had failed by then.
    """
    reader = Reader(model, job.options)
    job.provenance = model.provenance
    if reader.frames and job.results is not None:
        job.framer = model.framer.source
    for text in job.inputs.notes:
        note(text)
    try:
        if job.pictures:
            predict_pictures(reader, job)
        for file in job.videos:
            with job.failing(file):
                predict_video(reader, job, file)
            if job.ended:
                break
    except KeyboardInterrupt as stop:
        kept = _kept(job)
        raise Stopped(f"kept are {kept}" if kept else "nothing was read yet") from stop
    if job.ended and (kept := _kept(job)):
        note(f"kept are {kept}")
    if job.results is not None:
        if job.skipped:
            print(f"{job.skipped} files skipped, whose results are complete")
        print(f"results in {printable(job.results.out)}/")
    return job.failures


def _kept(job: Job) -> str:
    """What there is of a run that ends early."""
    videos = [f"{job.complete} of {len(job.videos)} videos, complete"] if job.complete else []
    return "; ".join([*job.kept, *videos])
