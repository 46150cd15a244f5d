"""The frames of a take: their times, what a model reads off them, and which are repeats."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from tqdm import tqdm

from sf_jax.face.landmarks import Square
from sf_jax.face.timecode import Timecode, TimecodeError, counting_rate
from sf_jax.media import kinds, video
from sf_jax.media.errors import DataError
from sf_jax.media.images import read_image
from sf_jax.reader.session import Session

if TYPE_CHECKING:  # it brings jax
    from sf_jax.reader.estimator import Model

Image = UInt8[np.ndarray, "H W 3"]
THUMBNAIL = 64  # pixels across, in which frames are compared
# A frame that repeats the one before differs by what its encoder refines: 4 grey levels at most,
# 0.4 on average, at a tenth of the differences around it (x264, CRF 20).
SAME = 8.0  # grey levels by which a repeated frame differs anywhere, at most
STILLER = 0.25  # of the usual mean difference around it
AROUND = 5  # frames to either side


class TakeError(DataError):
    """A take whose labels and frames cannot be brought together."""


@dataclass(frozen=True)
class Seen:
    """What is read off one frame.

    Attributes:
      values: of each channel; NaN where not read.
      square: that the face was read in, pixels; None where the whole frame was, or no face found.
      landmarks: in pixels, as the model reads them; None where it reads none.
    """

    values: Float[np.ndarray, "61"]
    square: Square | None = None
    landmarks: Float[np.ndarray, "70 2"] | None = None


FrameReader = Callable[[Image, float], Seen]  # of the frames of one take, in order


def model_reader(model: "Model") -> FrameReader:
    """Reads frames with a model, which follows the face from frame to frame."""
    session = Session(model, rationale=False)

    def read(image: Image, seconds: float) -> Seen:
        frame = session.frame(image, seconds)
        square = frame.box
        if square is None or model.framer.landmarks is None:
            return Seen(frame.values, square)
        return Seen(frame.values, square, model.framer.landmarks(image, square))

    return read


@dataclass(frozen=True)
class Frames:
    """The F frames of a video or folder, without their pixels.

    Attributes:
      path: of the video or folder. names: of images; empty for a video.
      seconds: from the first frame, increasing strictly; of images their numbers.
      seen: what was read off each.
      change: largest and mean grey difference of a thumbnail from the frame before; infinite for
        the first.
      fps: frames a second as the container states them; 0 of images.
      clock: seconds since midnight of the first frame, by timecode; None without.
    """

    path: Path
    seconds: Float[np.ndarray, " F"]
    seen: list[Seen]
    change: Float[np.ndarray, "F 2"]
    fps: float = 0.0
    clock: float | None = None
    names: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def values(self) -> Float[np.ndarray, "F 61"]:
        """What was read off all frames."""
        return np.stack([one.values for one in self.seen])

    @property
    def repeats(self) -> Bool[np.ndarray, " F"]:
        """Frames that show the one before again: the same pixels while frames around differ."""
        most, mean = self.change.T
        out = np.zeros(len(mean), bool)
        for i in np.flatnonzero(most < SAME):
            around = np.r_[mean[max(1, i - AROUND) : i], mean[i + 1 : i + 1 + AROUND]]
            out[i] = len(around) > 0 and mean[i] < STILLER * np.median(around)
        return out


class Source(Protocol):
    """Where frames are from. Each call of `images` decodes them anew."""

    def scan(self, reader: FrameReader) -> Frames:
        """Reads every frame once."""

    def images(self) -> Iterator[Image]:
        """All frames in order."""


@dataclass(frozen=True)
class VideoSource:
    """A video.

    Attributes:
      fps: at which its frames are evenly spaced, in place of the times in the file.
    """

    path: Path
    fps: float | None = None

    def scan(self, reader: FrameReader) -> Frames:
        """Reads every frame once; a damaged end is a note.

        Raises:
          VideoError: the video cannot be read.
        """
        opened = video.open_video(self.path, self.fps)
        seconds, seen, change = [], [], _Changes()
        timed = tqdm(opened.timed_frames(), "read", opened.count or None, unit="frame")
        damage: list[str] = []
        try:
            for time, image in timed:
                seconds.append(time)
                seen.append(reader(image, time))
                change.add(image)
        except video.VideoDamaged as error:
            damage = [error.problem]
        if len(seconds) < 2:
            raise TakeError("holds fewer than two frames", path=self.path)
        times, notes = np.array(seconds), [*opened.notes, *damage]
        clock = _clock(opened)
        return Frames(
            self.path, times, seen, np.array(change.found), opened.fps, clock, notes=notes
        )

    def images(self) -> Iterator[Image]:
        """All frames up to a damage."""
        try:
            yield from video.open_video(self.path, self.fps).frames()
        except video.VideoDamaged:
            return


@dataclass(frozen=True)
class FolderSource:
    """Images of a folder and the folders in it, in the order of their names."""

    path: Path

    @property
    def files(self) -> list[Path]:
        """The image files.

        Raises:
          TakeError: there are none.
        """
        found = [file for file in self.path.rglob("*") if kinds.kind_of(file) == "picture"]
        if not found:
            raise TakeError("holds no image", path=self.path)
        return sorted(found)

    def scan(self, reader: FrameReader) -> Frames:
        """Reads every image once.

        Raises:
          ImageError: one cannot be read.
        """
        files = self.files
        seen = [
            reader(read_image(file), float(i))
            for i, file in enumerate(tqdm(files, "read", unit="image"))
        ]
        names = [file.relative_to(self.path).as_posix() for file in files]
        count = len(files)
        change = np.full((count, 2), np.inf)
        return Frames(self.path, np.arange(count, dtype=float), seen, change, names=names)

    def images(self) -> Iterator[Image]:
        """All images in order."""
        return map(read_image, self.files)


def source_of(path: Path, fps: float | None = None) -> Source:
    """The frames of a video or of a folder of images.

    Raises:
      TakeError: it is neither.
    """
    if path.is_dir():
        return FolderSource(path)
    if not path.is_file():
        raise TakeError("no such file or folder", path=path)
    return VideoSource(path, fps)


class _Changes:
    """How far each frame differs from the one before."""

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []
        self._before: np.ndarray | None = None

    def add(self, image: Image) -> None:
        height = max(1, round(THUMBNAIL * image.shape[0] / image.shape[1]))
        small = cv2.resize(image, (THUMBNAIL, height), interpolation=cv2.INTER_AREA)
        grey = small.astype(np.float32).mean(2)
        most, mean = np.inf, np.inf
        if self._before is not None and self._before.shape == grey.shape:
            apart = np.abs(grey - self._before)
            most, mean = float(apart.max()), float(apart.mean())
        self.found.append((most, mean))
        self._before = grey


def _clock(opened: video.Video) -> float | None:
    """Seconds since midnight of the first frame of a video with timecode."""
    if opened.timecode is None:
        return None
    try:
        rate = counting_rate(opened.timecode_counts or opened.fps)
        return float(Timecode.parse(opened.timecode).frame(rate) / rate)
    except TimecodeError:
        return None
