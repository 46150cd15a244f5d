"""A video → Live Link CSV, a JSON line a frame, and a preview sheet."""

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np

from sf_jax.face import livelink
from sf_jax.face.frame_timing import FrameTiming, time_frames
from sf_jax.media import video
from sf_jax.media.errors import printable
from sf_jax.media.interrupts import uninterrupted
from sf_jax.reader.inputs import Input
from sf_jax.reader.job import Job
from sf_jax.reader.output import frame_json
from sf_jax.reader.progress import tracked
from sf_jax.reader.reader import Reader
from sf_jax.reader.results import Writing
from sf_jax.reader.session import Frame, Values


@dataclass
class Read:
    """What is kept of the frames of a video: time and 61 values of each, and one for the sheet."""

    values: list[Values] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    found: int = 0
    sheet: Frame | None = None

    def add(self, frame: Frame, seconds: float, count: int) -> None:
        """A further frame, of so many as the file states."""
        self.values.append(frame.values)
        self.seconds.append(seconds)
        self.found += frame.found
        if self.sheet is None or frame.number == count // 2:  # the stated count may be too high
            self.sheet = frame


def predict_video(reader: Reader, job: Job, file: Input) -> None:
    """One Live Link CSV with the times of the frames, a JSON line a frame, and a preview sheet.

    Frames are read, predicted and dropped one at a time. An interruption leaves what was read by
    then, under other names.

    Raises:
      VideoDamaged: a part of the video cannot be read; the results of the rest are written.
      VideoError: the video cannot be read.
      TimecodeError: its rate has no timecode of the kind asked for.
    """
    suffixes = [".csv", ".jsonl"] + [".preview.png"] * job.options.previews
    if job.done(file, suffixes):
        return
    opened = video.open_video(file.path, reader.options.fps)
    if reader.options.drop_frame:  # before any work is done
        livelink.labels(1, opened.fps, drop_frame=True)
    read = Read()
    stop: BaseException | None = None
    with ExitStack() as saving, job.writing(file) as writing:
        try:
            with writing.path(".jsonl").open("w", encoding="utf-8", newline="\n") as lines:
                _read_frames(reader, opened, read, lines)
        except BaseException as error:
            if not read.values or isinstance(error, OSError):  # nothing can be written
                raise
            saving.enter_context(uninterrupted())
            stop, writing.complete = error, False
            writing.interrupted = not isinstance(error, video.VideoDamaged)
        timing = _write(reader, opened, read, writing)
    if writing.interrupted:
        job.kept.append(_kept(opened, read, job, file))
    else:
        _print_summary(reader, opened, read, timing)
    if stop is not None:
        raise stop


def _read_frames(reader: Reader, opened: video.Video, read: Read, lines: TextIO) -> None:
    """Reads all frames, and writes each at once."""
    session = reader.session(opened.fps)
    for seconds, image in tracked(opened.timed_frames(), "frame", opened.count or None):
        frame = session.frame(image, seconds)
        lines.write(json.dumps(frame_json(frame, seconds), allow_nan=False) + "\n")
        lines.flush()
        read.add(frame, seconds, opened.count)


def _write(reader: Reader, opened: video.Video, read: Read, writing: Writing) -> FrameTiming:
    """CSV and sheet, beside the lines of the frames."""
    drop_frame = reader.options.drop_frame
    timing = time_frames(
        read.seconds, opened.fps, opened.timecode, opened.timecode_counts, drop_frame
    )
    livelink.write(
        writing.path(".csv"),
        np.stack(read.values),
        timecodes=timing.labels(),
        channels=reader.channels,
    )
    if read.sheet and reader.options.previews and not writing.interrupted:  # it takes seconds
        from sf_jax.render.preview import preview  # it takes a second to import

        preview(read.sheet.seen, read.sheet.shown, writing.path(".preview.png"))
    return timing


def _kept(opened: video.Video, read: Read, job: Job, file: Input) -> str:
    path = job.plan.names[file].path(".csv", partial=True)
    count = f"{len(read.values)} of {opened.count}" if opened.count else str(len(read.values))
    return f"{count} frames of {printable(file.path)}, in {printable(path)} and its .jsonl"


def _print_summary(reader: Reader, opened: video.Video, read: Read, timing: FrameTiming) -> None:
    name, count = printable(opened.path), len(read.values)
    if reader.options.crop and read.found < count:
        print(f"{name}: no face found in {count - read.found} frames, which were read whole")
    print(f"{name}: {timing}")
    for text in (*opened.notes, *timing.notes):
        print(f"{name}: {text}")
