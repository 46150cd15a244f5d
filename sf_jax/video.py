"""Video files, frame by frame with constant memory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

EXTENSIONS = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm"}


class VideoError(ValueError):
    """A video that cannot be read; the message names it."""


@dataclass(frozen=True)
class Video:
    """An opened video: its path, frame rate and number of frames as the file states it (or 0)."""

    path: str
    fps: float
    count: int

    def frames(self) -> Iterator[np.ndarray]:
        """Frames in order as uint8 [H, W, 3] RGB, one in memory at a time."""
        capture = cv2.VideoCapture(self.path)
        try:
            while True:
                found, frame = capture.read()
                if not found:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()


def open_video(path: str | os.PathLike, fps: float | None = None) -> Video:
    """Opens a video; `fps` overrides the file's rate.

    Raises:
      VideoError: missing, unreadable, without a frame, or without a rate where none is given.
    """
    name = os.fspath(path)
    if not Path(name).is_file():
        raise VideoError(f"{name}: no such file")
    capture = cv2.VideoCapture(name)
    try:
        if not capture.isOpened() or not capture.read()[0]:
            raise VideoError(f"{name}: damaged, or not a video that can be decoded")
        rate = fps or capture.get(cv2.CAP_PROP_FPS)
        if not rate or not np.isfinite(rate):
            raise VideoError(f"{name}: states no frame rate; give one with --fps")
        return Video(name, float(rate), max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))))
    finally:
        capture.release()
