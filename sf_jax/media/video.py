"""Video files, frame by frame with constant memory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sf_jax.media.errors import DataError

EXTENSIONS = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm"}
MAX_FPS = 1000.0


class VideoError(DataError):
    """A video that cannot be read; the message names it."""


@dataclass(frozen=True)
class Video:
    """An opened video.

    Attributes:
      path: the file.
      fps: frames a second, as the file states or as given.
      count: number of frames as the file states it, which need not be true; 0 where it does not.
    """

    path: str
    fps: float
    count: int

    def frames(self) -> Iterator[np.ndarray]:
        """Frames in order as uint8 [H, W, 3] RGB, upright, one in memory at a time."""
        for _, frame in self.timed_frames():
            yield frame

    def timed_frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """As `frames`, each with its seconds from the first at the even rate `fps`."""
        capture = _capture(self.path)
        try:
            number = 0
            while True:
                found, frame = capture.read()
                if not found:
                    return
                yield number / self.fps, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                number += 1
        finally:
            capture.release()


def _capture(path: str) -> cv2.VideoCapture:
    """Opens a file without the lines that decoder and OpenCV print about a damaged one."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when a file is opened
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(path)
    finally:
        cv2.utils.logging.setLogLevel(before)


def open_video(path: str | os.PathLike, fps: float | None = None) -> Video:
    """Opens a video; `fps` overrides the file's rate.

    Raises:
      VideoError: missing, unreadable, without a frame, or without a usable rate.
    """
    name = os.fspath(path)
    if not Path(name).is_file():
        raise VideoError(f"{'not a file' if Path(name).exists() else 'no such file'}", path=name)
    capture = _capture(name)
    try:
        if not capture.isOpened() or not capture.read()[0]:
            raise VideoError("damaged, or not a video that can be decoded", path=name)
        rate = capture.get(cv2.CAP_PROP_FPS) if fps is None else fps
        if not 0 < rate <= MAX_FPS:  # false for NaN too
            whose = "states" if fps is None else "was given"
            raise VideoError(
                f"{whose} a frame rate of {rate:g}, expected 0 to {MAX_FPS:g}; give one with --fps",
                path=name,
            )
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)  # negative or vast where unknown
        return Video(name, float(rate), int(count) if 0 < count < 1e9 else 0)
    finally:
        capture.release()
