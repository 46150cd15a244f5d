"""Images → JSON, preview sheet and Live Link CSV, or text."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sf_jax.face import livelink
from sf_jax.media import images
from sf_jax.media.errors import printable
from sf_jax.media.files import write_json
from sf_jax.media.interrupts import uninterrupted
from sf_jax.reader.inputs import Input
from sf_jax.reader.job import Job
from sf_jax.reader.output import as_json, unnamed
from sf_jax.reader.progress import note, tracked
from sf_jax.reader.reader import PICTURE_FPS, Reader
from sf_jax.reader.report import report
from sf_jax.reader.results import Writing
from sf_jax.reader.session import Frame, Values
from sf_jax.render.preview import preview


@dataclass
class Table:
    """The rows of one Live Link CSV: values of images, and the image of each."""

    values: list[Values] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def add(self, file: Input, values: Values) -> None:
        """A further row."""
        self.values.append(values)
        self.sources.append(printable(file.path.name))

    def write(self, reader: Reader, writing: Writing) -> None:
        """The CSV, one row an image."""
        livelink.write(
            writing.path(".csv"),
            np.stack(self.values),
            fps=reader.options.fps or PICTURE_FPS,
            sources=self.sources,
            drop_frame=reader.options.drop_frame,
            channels=reader.channels,
        )


def predict_pictures(reader: Reader, job: Job) -> None:
    """JSON and preview of each image, and one Live Link CSV with a row for each.

    Whatever ends the work, the rows of what was read are written.
    """
    pictures, table = job.pictures, Table()
    several = len(pictures) > 1
    complete = False
    try:
        for file in tracked(pictures, "picture", hidden=not several):
            with job.failing(file):
                values = _predict_picture(reader, job, file)
                if values is not None:
                    table.add(file, values)
            if job.ended:
                return
        complete = True
    finally:
        if several and table.values:
            with uninterrupted():
                _write_table(reader, job, table, complete)


def _predict_picture(reader: Reader, job: Job, file: Input) -> Values | None:
    """Reads one image and writes its results; its row of the table, if there is one."""
    single = len(job.pictures) == 1
    suffixes = [".json"] + [".preview.png"] * job.options.previews + [".csv"] * single
    if job.done(file, suffixes):
        content = json.loads(job.plan.names[file].path(".json").read_bytes())["coefficients"]
        return unnamed(content, tuple(content))
    frame = _frame(reader, file.path)
    if single or job.results is None:
        print(report(frame.action, frame.values, str(file.path)))
    if job.results is None:
        return None
    with job.writing(file) as writing:
        content = as_json(frame.action, printable(file.path), frame.values)
        write_json(writing.path(".json"), content)
        if job.options.previews:
            preview(frame.seen, frame.action, writing.path(".preview.png"))
        if single:
            Table([frame.values], [printable(file.path.name)]).write(reader, writing)
    return frame.values


def _frame(reader: Reader, path: Path) -> Frame:
    """What one image shows."""
    image, notes = images.read_noted(path)
    frame = reader.read(image)
    for text in notes:
        note(text)
    if not frame.found:
        note(f"{printable(path)}: no face found, the whole picture was read")
    return frame


def _write_table(reader: Reader, job: Job, table: Table, complete: bool) -> None:
    """The table of several images, under the name of an interrupted one unless it is complete."""
    try:
        with job.writing_table() as writing:
            writing.interrupted = not complete
            table.write(reader, writing)
    except OSError as error:
        job.failures.append(error)
        return
    assert job.plan.table is not None
    path = printable(job.plan.table.path(".csv", partial=not complete))
    job.kept.append(f"{len(table.values)} of {len(job.pictures)} pictures, with rows in {path}")
