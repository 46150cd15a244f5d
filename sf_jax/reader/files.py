"""Files in, files out: what `sf-jax predict` does with pictures, folders and videos."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from sf_jax.face import channels, livelink
from sf_jax.face.frame_timing import time_frames
from sf_jax.media import images, video
from sf_jax.media.errors import DataError
from sf_jax.media.files import write_json
from sf_jax.reader.action import FaceAction
from sf_jax.reader.estimator import Model
from sf_jax.reader.output import as_json
from sf_jax.reader.session import Frame, Session, SessionOptions, Values
from sf_jax.render.preview import preview

PICTURE_FPS = 30  # of a CSV made from unrelated pictures, where no time exists

Messages = Sequence[Mapping[str, Any]]


class PredictError(DataError):
    """Inputs that leave nothing to do."""


@dataclass(frozen=True)
class PredictOptions:
    """The flags of `sf-jax predict`; see its help."""

    out: Path
    crop: bool = False
    values: Literal["mean", "answer"] = "mean"
    smooth: bool = False
    neutral: Path | None = None
    fps: float | None = None
    drop_frame: bool = False
    rationale: bool = True
    previews: bool = True
    temperature: float = 0.0
    seed: int = 0
    max_rationale: int | None = None
    prompt: Messages | None = None


def collect(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Pictures and videos among files and folders, folders in name order, not searched deeper.

    Raises:
      PredictError: a folder without either.
    """
    pictures: list[Path] = []
    videos: list[Path] = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        known = [p for p in inside if p.suffix.lower() in images.EXTENSIONS | video.EXTENSIONS]
        if path.is_dir() and not known:
            raise PredictError("holds no picture and no video", path=path)
        for file in known if path.is_dir() else inside:
            (videos if file.suffix.lower() in video.EXTENSIONS else pictures).append(file)
    return pictures, videos


class Reader:
    """A model, and how the files of one command are to be read; the neutral image is read once."""

    def __init__(self, model: Model, options: PredictOptions):
        self.model, self.options = model, options
        self.neutral: Values | None = None
        if options.neutral is not None:
            frame = self.read(images.read_image(options.neutral))
            self.neutral = frame.values

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that the model reads."""
        return self.model.schema.names

    def session(self, fps: float | None = None, messages: Messages | None = None) -> Session:
        """A new session.

        Args:
          fps: of a video; None for one image, where there is nothing to smooth.
          messages: the conversation to answer; None means the prompt of the options.
        """
        asked = self.options
        options = SessionOptions(
            crop=asked.crop,
            values=asked.values,
            smooth=asked.smooth and fps is not None,
            fps=fps or PICTURE_FPS,
        )
        return Session(
            self.model,
            options,
            self.neutral,
            rationale=asked.rationale,
            temperature=asked.temperature,
            seed=asked.seed,
            messages=messages or asked.prompt,
            max_rationale=asked.max_rationale,
        )

    def read(self, image: np.ndarray, messages: Messages | None = None) -> Frame:
        """One image on its own.

        Raises:
          ImageError: the image's shape is absurd.
        """
        return self.session(messages=messages).frame(image)


def report(action: FaceAction, numbers: np.ndarray, name: str) -> str:
    """What a person wants to see of one picture."""
    rows = [f"{name}", "", action.rationale.text, "", f"{'channel':<20} value  spread"]
    for i in np.argsort(-np.abs(numbers))[:12]:
        if abs(numbers[i]) >= 0.05:
            bar = "#" * round(20 * abs(float(numbers[i])))
            rows.append(
                f"{channels.NAMES[i]:<20} {numbers[i]:5.2f}  ±{action.spread[i]:.2f}  {bar}"
            )
    return "\n".join(rows)


def result_names(files: list[Path]) -> list[str]:
    """A name for the results of each file: its stem, or where several share one its whole name, and
    where they share that too, with a number."""
    stems = [file.stem.lower() for file in files]  # some file systems ignore case
    taken: set[str] = set()
    result = []
    for file, stem in zip(files, stems, strict=True):
        first = file.stem if stems.count(stem) == 1 else file.name
        name, number = first, 2
        while name.lower() in taken:
            name, number = f"{first}-{number}", number + 1
        taken.add(name.lower())
        result.append(name)
    return result


def _frames(
    reader: Reader, files: list[Path], failures: list[DataError]
) -> Iterator[tuple[Path, Frame]]:
    """Each readable image file and what it shows; the rest goes to `failures`."""
    for file in tqdm(files, unit="picture", disable=len(files) < 2):
        try:
            image, notes = images.read_noted(file)
            frame = reader.read(image)
        except images.ImageError as error:
            failures.append(error.at(path=file))
            continue
        for note in notes:
            tqdm.write(note)
        if not frame.found:
            tqdm.write(f"{file}: no face found, the whole picture was read")
        yield file, frame


def predict_pictures(reader: Reader, files: list[Path], names: dict[Path, str]) -> list[DataError]:
    """JSON, preview and one Live Link CSV (one row a picture, named in its last column).

    Returns what failed.
    """
    options = reader.options
    failures: list[DataError] = []
    rows, sources = [], []
    for file, frame in _frames(reader, files, failures):
        content = as_json(frame.action, str(file), frame.values)
        write_json(options.out / f"{names[file]}.json", content)
        if options.previews:
            preview(frame.seen, frame.action, options.out / f"{names[file]}.preview.png")
        rows.append(frame.values)
        sources.append(file.name)
        if len(files) == 1:
            print(report(frame.action, frame.values, str(file)))
    if rows:
        name = f"{names[files[0]]}.csv" if len(files) == 1 else "pictures.csv"
        livelink.write(
            options.out / name,
            np.stack(rows),
            fps=options.fps or PICTURE_FPS,
            sources=sources,
            drop_frame=options.drop_frame,
            channels=reader.channels,
        )
    return failures


def predict_video(reader: Reader, file: Path, name: str) -> None:
    """One Live Link CSV with the times of the frames, and the preview of the middle frame.

    Frames are read, predicted and dropped one at a time; 61 numbers a frame are kept.

    Raises:
      VideoDamaged: a part of the video cannot be read; the results of the rest are written.
      VideoError: the video cannot be read.
      TimecodeError: its rate has no timecode of the kind asked for.
    """
    options = reader.options
    opened = video.open_video(file, options.fps)
    if options.drop_frame:  # before any work is done
        livelink.labels(1, opened.fps, drop_frame=True)
    session = reader.session(opened.fps)
    rows: list[Values] = []
    times: list[float] = []
    found = 0
    sheet: Frame | None = None
    damage: video.VideoDamaged | None = None
    try:
        for seconds, image in tqdm(opened.timed_frames(), total=opened.count, unit="frame"):
            frame = session.frame(image, seconds)
            rows.append(frame.values)
            times.append(seconds)
            found += frame.found
            if sheet is None or frame.number == opened.count // 2:  # the count may be too high
                sheet = frame
    except video.VideoDamaged as error:  # what was read before is kept
        damage = error
    if options.crop and found < len(rows):
        print(f"{file}: no face found in {len(rows) - found} frames, which were read whole")
    timing = time_frames(
        times, opened.fps, opened.timecode, opened.timecode_counts, options.drop_frame
    )
    livelink.write(
        options.out / f"{name}.csv",
        np.stack(rows),
        timecodes=timing.labels(),
        channels=reader.channels,
    )
    if sheet and options.previews:
        preview(sheet.seen, sheet.action, options.out / f"{name}.preview.png")
    print(f"{file}: {timing}")
    for note in (*opened.notes, *timing.notes):
        print(f"{file}: {note}")
    if damage:
        raise damage


def predict_files(model: Model, paths: list[Path], options: PredictOptions) -> list[DataError]:
    """Reads everything; returns what failed."""
    pictures, videos = collect(paths)
    options.out.mkdir(parents=True, exist_ok=True)
    reader = Reader(model, options)
    files = list(dict.fromkeys(pictures + videos))  # a file given twice is read once
    names = dict(zip(files, result_names(files), strict=True))
    pictures = [file for file in files if file in set(pictures)]
    failures = predict_pictures(reader, pictures, names) if pictures else []
    for file in files[len(pictures) :]:
        try:
            predict_video(reader, file, names[file])
        except (video.VideoError, livelink.TimecodeError, images.ImageError) as error:
            failures.append(error.at(path=file))
    print(f"results in {options.out}/")
    return failures
