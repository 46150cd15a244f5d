"""A video → Live Link CSV, a JSON line a frame, and a preview sheet."""

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sf_jax.face import livelink
from sf_jax.face.frame_labels import FrameTiming, time_frames
from sf_jax.media import video
from sf_jax.media.errors import DataError, printable
from sf_jax.media.interrupts import delayed, uninterrupted
from sf_jax.reader.framing import NoFaceError
from sf_jax.reader.inputs import Input
from sf_jax.reader.job import Job, stamp_of
from sf_jax.reader.output import frame_json
from sf_jax.reader.progress import tracked
from sf_jax.reader.reader import Reader, read_whole
from sf_jax.reader.results import SHEET, Writing
from sf_jax.reader.session import Frame, Values

SHOWN_CHANGES = 10  # of a video, on the terminal


@dataclass
class Read:
    """What is kept of the frames of a video.

    Attributes:
      values, seconds: the 61 values and the time of each.
      found: number of frames in which a face was found; whole: of those read whole without one.
      changes: a sentence on each frame in which the image cuts, or another face takes over.
      sheet: the frame to draw.
      ended: whether there are no more.
    """

    values: list[Values] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    found: int = 0
    whole: int = 0
    changes: list[str] = field(default_factory=list)
    sheet: Frame | None = None
    ended: bool = False

    def add(self, frame: Frame, seconds: float, count: int) -> None:
        """A further frame, of so many as the file states."""
        self.values.append(frame.values)
        self.seconds.append(seconds)
        self.found += frame.found
        if frame.change is not None:
            self.changes.append(f"{frame.change} at frame {frame.number} ({seconds:.2f} s)")
        if not frame.found:
            return
        if self.sheet is None or frame.number == count // 2:  # the stated count may be too high
            self.sheet = frame


def predict_video(reader: Reader, job: Job, file: Input) -> None:
    """One Live Link CSV with the times of the frames, a JSON line a frame, and a preview sheet.

    Frames are read, predicted and dropped one at a time. An interruption leaves what was read by
    then, under other names. A sheet that cannot be drawn, or that an interruption cuts short, costs
    nothing else; nor does a CSV that cannot be written cost the lines.

    Raises:
      VideoDamaged: a part of the video cannot be read; the results of the rest are written.
      VideoError: the video cannot be read.
      TimecodeError: its rate has no timecode of the kind asked for.
    """
    if job.done(file, [".csv", ".jsonl"]):
        return
    stamp = stamp_of(file.path)
    opened = video.open_video(file.path, reader.options.fps)
    if reader.options.drop_frame:  # before any work is done
        livelink.labels(1, opened.fps, drop_frame=True)
    read, timing = Read(), None
    stop: BaseException | None = None
    with ExitStack() as saving:
        with job.writing(file, stamp) as writing:
            try:
                stop = _read_frames(reader, opened, read, writing.path(".jsonl"))
                read.ended = True
                if reader.options.previews:
                    writing.sheets = _draw_sheet(job, read, writing)
                saving.enter_context(delayed())
            except BaseException as error:
                saving.enter_context(uninterrupted())
                if not read.values or (isinstance(error, OSError) and not read.ended):
                    raise  # nothing can be written
                stop = error
            try:
                timing = _write_csv(reader, opened, read, writing.path(".csv"))
            except Exception as error:  # the lines of the frames are kept
                stop = writing.named(error)
            writing.complete = stop is None
            writing.interrupted = timing is None or not read.ended
        if stop is None:
            job.complete += 1
            if not read.found:
                job.failures.append(NoFaceError("no face found in any frame", path=file.path))
        elif writing.interrupted or isinstance(stop, KeyboardInterrupt):
            job.kept.append(_kept(opened, read, writing))
        if timing is not None and not writing.interrupted:
            _print_summary(reader, opened, read, timing)
    if stop is not None:
        raise stop


def _read_frames(
    reader: Reader, opened: video.Video, read: Read, path: Path
) -> video.VideoDamaged | None:
    """Reads all frames, and writes each at once; returns what ended a damaged video early."""
    session = reader.session(opened.fps)
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        try:
            for seconds, image in tracked(opened.timed_frames(), "frame", opened.count or None):
                frame = session.frame(image, seconds)
                line = frame_json(frame, seconds)
                lines.write(json.dumps(line, allow_nan=False) + "\n")
                lines.flush()
                read.add(frame, seconds, opened.count)
                read.whole += read_whole(reader, frame)
        except video.VideoDamaged as error:
            if not read.values:
                raise
            return error
    return None


def _write_csv(reader: Reader, opened: video.Video, read: Read, path: Path) -> FrameTiming:
    """The CSV, a row a frame."""
    drop_frame = reader.options.drop_frame
    timing = time_frames(
        read.seconds, opened.fps, opened.timecode, opened.timecode_counts, drop_frame
    )
    values = np.stack(read.values)
    failed = np.isnan(values).all(1)
    livelink.write(
        path,
        np.where(failed[:, None], 0, values),
        timecodes=timing.labels(),
        failed=failed.tolist(),
        channels=reader.channels,
    )
    return timing


def _draw_sheet(job: Job, read: Read, writing: Writing) -> bool:
    """The preview sheet of a face, if there is one; where it cannot be drawn, that is listed.

    Returns:
      whether the sheet is complete.
    """
    from sf_jax.render.preview import preview  # it takes a second to import

    if read.sheet is None:
        return True
    path = writing.path(SHEET)
    try:
        sheet = read.sheet
        preview(sheet.seen, sheet.shown, path, sheet.image, sheet.box)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if not isinstance(error, OSError | DataError):
            raise
        job.failures.append(writing.named(error))
        return False
    return True


def _kept(opened: video.Video, read: Read, writing: Writing) -> str:
    path = printable(writing.final(writing.path(".jsonl")))
    count = f"{len(read.values)} of {opened.count}" if opened.count else str(len(read.values))
    return f"{count} frames of {printable(opened.path)}, in {path} and its .csv"


def _print_summary(reader: Reader, opened: video.Video, read: Read, timing: FrameTiming) -> None:
    name, count = printable(opened.path), len(read.values)
    if missed := count - read.found:
        print(f"{name}: no face found in {missed} of {count} frames, whose rows are empty")
    if read.whole:
        print(f"{name}: no face found in {read.whole} frames, which were read whole")
    for text in read.changes[:SHOWN_CHANGES]:
        print(f"{name}: {text}")
    if len(read.changes) > SHOWN_CHANGES:
        print(f"{name}: {len(read.changes) - SHOWN_CHANGES} further changes, see its .jsonl")
    print(f"{name}: {timing}")
    for text in (*opened.notes, *timing.notes):
        print(f"{name}: {text}")
