"""Images → JSON, preview sheet and Live Link CSV, or text."""

from contextlib import nullcontext
from pathlib import Path

from sf_jax.media import images
from sf_jax.media.errors import DataError, printable
from sf_jax.media.files import write_json
from sf_jax.media.interrupts import uninterrupted
from sf_jax.media.small_files import read_json
from sf_jax.reader import stills
from sf_jax.reader.framing import NoFaceError
from sf_jax.reader.inputs import Input
from sf_jax.reader.job import Job, stamp_of
from sf_jax.reader.output import as_json, unnamed
from sf_jax.reader.progress import note, tracked, waiting
from sf_jax.reader.reader import Reader, read_whole
from sf_jax.reader.report import report
from sf_jax.reader.results import SHEET, Writing, face_suffix
from sf_jax.reader.session import Frame
from sf_jax.reader.stills import Still

LISTED = 10  # images named in a sentence


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
                rows += _predict_picture(reader, job, file)
            if job.ended:
                return
        complete = True
    finally:
        if several and rows:
            with uninterrupted():
                _write_table(reader, job, rows, complete)


def _predict_picture(reader: Reader, job: Job, file: Input) -> list[Still]:
    """Reads one image and writes its results; its rows of the table, one a face.

    Raises:
      NoFaceError: the only image has no face; its results are written.
    """
    single = len(job.pictures) == 1
    rows = _rows_of_before(job, file, single)
    if rows is None:
        rows = _read(reader, job, file, single)
    if single and rows and all(row.values is None for row in rows):
        asked = job.options.face
        number = f" {asked}" if isinstance(asked, int) else ""
        problem = f"no face{number} found; --force reads the whole image then, --whole always"
        raise NoFaceError(problem, path=file.path)
    return rows


def _read(reader: Reader, job: Job, file: Input, single: bool) -> list[Still]:
    """Reads one image and writes its results."""
    stamp = stamp_of(file.path)
    with waiting("reading") if single else nullcontext():
        frames = _frames(reader, file.path)
    if job.results is None or (single and frames[0].found):
        for frame in frames:
            print(_report(frame, file.path, len(frames)))
    shown = printable(file.path)
    rows = [Still.of(shown, frame) for frame in frames]
    if job.results is None:
        return rows if single else []
    with job.writing(file, stamp) as writing:
        writing.sheets = job.options.previews
        for number, frame in enumerate(frames, 1):
            _write_frame(job, writing, frame, shown, number)
        if single:
            _write_rows(reader, writing, rows)
    return rows


def _write_frame(job: Job, writing: Writing, frame: Frame, image: str, number: int) -> None:
    """JSON and sheet of one face."""
    face = face_suffix(number) if job.options.face == "all" and frame.action.face else ""
    write_json(writing.path(face + ".json"), as_json(frame, image))
    if job.options.previews and frame.found:
        from sf_jax.render.preview import preview  # it takes a second to import

        path = writing.path(face + SHEET)
        preview(frame.seen, frame.shown, path, frame.image, frame.box)


def _rows_of_before(job: Job, file: Input, single: bool) -> list[Still] | None:
    """The rows of an image whose results are there, of an earlier run; None where they are not."""
    faces = job.faces_of_before(file)
    suffixes = [".csv", stills.INDEX_SUFFIX] if single else []
    if not faces or not job.done(file, [*suffixes, *(face + ".json" for face in faces)]):
        return None
    return [_row_of_before(file, job.plan.names[file].path(face + ".json")) for face in faces]


def _row_of_before(file: Input, path: Path) -> Still:
    """The row of a result that is as this version wrote it."""
    content = read_json(path)
    number = (content.get("face") or {}).get("number")
    values = unnamed(content["coefficients"], tuple(content["coefficients"]))
    found = values if content.get("found", True) else None
    return Still(printable(file.path), found, number is not None, number)


def _report(frame: Frame, path: Path, count: int) -> str:
    """One face for a person."""
    face = frame.action.face
    name = f"{path}, face {face.number} of {face.count}" if face and count > 1 else str(path)
    if not frame.found:
        return f"{printable(name)}: no face found"
    return report(frame.shown, frame.values, name)


def _frames(reader: Reader, path: Path) -> list[Frame]:
    """What one image shows: of all its faces, or of one."""
    image, notes = images.read_noted(path)
    every = reader.options.face == "all"
    frames = reader.read_faces(image) if every else [reader.read(image)]
    for text in notes:
        note(text)
    if read_whole(reader, frames[0]):
        note(f"{printable(path)}: no face found, the whole picture was read")
    return frames


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
    without = [row.image for row in rows if row.values is None]
    if without:
        print(f"no face found in {len(without)} of {len(job.pictures)} images: {_listed(without)}")
    read = len({row.image for row in rows})
    job.kept.append(f"{read} of {len(job.pictures)} pictures, with rows in {path}")


def _listed(names: list[str]) -> str:
    """Names in a sentence, the first few of many."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
