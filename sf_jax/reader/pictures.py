"""Images → JSON, preview sheet and Live Link CSV, or text."""

from contextlib import nullcontext
from pathlib import Path

from sf_jax.media import images
from sf_jax.media.errors import DataError, printable
from sf_jax.media.files import write_json
from sf_jax.media.interrupts import uninterrupted
from sf_jax.media.small_files import read_json
from sf_jax.reader import stills
from sf_jax.reader.inputs import Input
from sf_jax.reader.job import Job, stamp_of
from sf_jax.reader.output import as_json, unnamed
from sf_jax.reader.progress import note, tracked, waiting
from sf_jax.reader.reader import Reader
from sf_jax.reader.report import report
from sf_jax.reader.results import Writing
from sf_jax.reader.session import Frame
from sf_jax.reader.stills import Still


def predict_pictures(reader: Reader, job: Job) -> None:
    """JSON and preview of each image, and one Live Link CSV with a row for each, see `stills`.

    Whatever ends the work, the rows of what was read are written.

    Raises:
      TimecodeError: the given rate has no timecode of the kind asked for.
    """
    stills.check_rate(reader)
    pictures = job.pictures
    rows: list[Still] = []
    several = len(pictures) > 1
    complete = False
    try:
        for file in tracked(pictures, "picture", hidden=not several):
            with job.failing(file):
                still = _predict_picture(reader, job, file)
                if still is not None:
                    rows.append(still)
            if job.ended:
                return
        complete = True
    finally:
        if several and rows:
            with uninterrupted():
                _write_table(reader, job, rows, complete)


def _predict_picture(reader: Reader, job: Job, file: Input) -> Still | None:
    """Reads one image and writes its results; its row of the table, if there is one."""
    single = len(job.pictures) == 1
    suffixes = [".json"] + [".preview.png"] * job.options.previews
    suffixes += [".csv", stills.INDEX_SUFFIX] if single else []
    if job.done(file, suffixes):
        content = read_json(job.plan.names[file].path(".json"))["coefficients"]
        return Still(printable(file.path), unnamed(content, tuple(content)))
    stamp = stamp_of(file.path)
    with waiting("reading") if single else nullcontext():
        frame = _frame(reader, file.path)
    if single or job.results is None:
        print(report(frame.shown, frame.values, str(file.path)))
    if job.results is None:
        return None
    still = Still(printable(file.path), frame.values, frame.found)
    with job.writing(file, stamp) as writing:
        content = as_json(frame, printable(file.path))
        write_json(writing.path(".json"), content)
        if job.options.previews:
            from sf_jax.render.preview import preview  # it takes a second to import

            preview(frame.seen, frame.shown, writing.path(".preview.png"))
        if single:
            _write_rows(reader, writing, [still])
    return still


def _frame(reader: Reader, path: Path) -> Frame:
    """What one image shows."""
    image, notes = images.read_noted(path)
    frame = reader.read(image)
    for text in notes:
        note(text)
    if not frame.found:
        note(f"{printable(path)}: no face found, the whole picture was read")
    return frame


def _write_rows(reader: Reader, writing: Writing, rows: list[Still]) -> None:
    stills.write(reader, writing.path(".csv"), writing.path(stills.INDEX_SUFFIX), rows)


def _write_table(reader: Reader, job: Job, rows: list[Still], complete: bool) -> None:
    """The table of several images, under the name of an interrupted one unless it is complete."""
    try:
        with job.writing_table() as writing:
            writing.interrupted = not complete
            _write_rows(reader, writing, rows)
    except (DataError, OSError) as error:
        job.failures.append(error)
        return
    assert job.plan.table is not None
    path, index = (
        printable(job.plan.table.path(suffix, partial=not complete))
        for suffix in (".csv", stills.INDEX_SUFFIX)
    )
    print(stills.summary(reader, path, index, len(rows)))
    job.kept.append(f"{len(rows)} of {len(job.pictures)} pictures, with rows in {path}")
