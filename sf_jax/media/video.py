"""Video files, frame by frame, with the times of their frames; memory does not grow with length.

PyAV (FFmpeg's libraries) reads them. It is given an opened file, never a name, and a list of the
containers it may recognise: a playlist, a name with a pattern in it or a list of other files is not
followed, and nothing is fetched from a network.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sf_jax.media import kinds
from sf_jax.media import video_container as container_of
from sf_jax.media.errors import DataError
from sf_jax.media.video_container import rational
from sf_jax.media.video_frames import (
    BT2020,
    HDR,
    Display,
    display_matrix,
    is_tilted,
    matrix_of,
    pixel_aspect_of,
    stretched,
)
from sf_jax.media.video_times import MAX_FPS, MIN_FPS, PresentationTimes

MAX_PIXELS = 100_000_000  # of a frame; 8K is a third of it
STREAMS = ("mpegts", "mpeg")  # which may begin and be joined anywhere
UNTIMED_FPS = 30.0  # of frames that have times, in a file that states no rate
LATE = 0.05  # seconds after the sound at which frames may begin without a note
THREADS = 4  # of the decoder; more hold more frames in memory

_ERRORS_IN_A_ROW = 1000  # after which a damaged file is given up


class VideoError(DataError):
    """A video that cannot be read; the message names it."""


class VideoDamaged(VideoError):
    """A video of which some frames could be read; raised after the last of them was given."""


@dataclass(frozen=True)
class Video:
    """An opened video.

    Attributes:
      path: the file.
      fps: frames a second: as given, or else as the container states. Of a variable rate it is the
        rate of the grid on which the frames are, or a mean.
      count: number of frames as the file states it, which need not be true; 0 where it does not.
      given: whether `fps` was given, so that frames are evenly spaced whatever the file states.
      timecode: of the first frame, as the file spells it (`01:00:00:00`, drop-frame with `;`);
        None where it has none.
      timecode_counts: frames that `timecode` counts to its second, where the file has that.
      notes: sentences on what is odd in the file. Reading frames adds to them.
    """

    path: str
    fps: float
    count: int
    given: bool = False
    timecode: str | None = None
    timecode_counts: int | None = None
    notes: list[str] = field(default_factory=list)

    def frames(self) -> Iterator[np.ndarray]:
        """Frames in order as uint8 [H, W, 3] RGB, upright, in square pixels, one at a time."""
        for _, frame in self.timed_frames():
            yield frame

    def timed_frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """As `frames`, each with its seconds from the first, which increase strictly.

        They are presentation time stamps of the container, or multiples of `1 / fps` where `fps`
        was given.

        Raises:
          VideoDamaged: after the last frame, where something in the file could not be decoded.
        """
        with _opened(self.path) as (container, stream):
            display = Display(pixel_aspect_of(rational(stream.sample_aspect_ratio))[0])
            decoder = _Decoder(self.path, container, stream)
            times = _presentation_times(container, stream, self.fps)
            timed: Iterable[tuple[float | Fraction, VideoFrame]]
            if self.given:
                timed = ((i / self.fps, frame) for i, (_, frame) in enumerate(decoder))
            else:
                timed = times(decoder)
            for seconds, frame in timed:
                try:
                    pixels = display(frame)
                except FFmpegError as error:
                    reason = f"its colours ({frame.format.name}) cannot be converted: {error}"
                    raise VideoError(reason, path=self.path) from error
                yield float(seconds), pixels
            self._note(times, decoder)
            if not decoder.whole:
                raise decoder.error(self.count)

    def _note(self, times: PresentationTimes, decoder: "_Decoder") -> None:
        found = []
        if times.mended:
            found.append(
                f"frames without a usable presentation time: {times.mended}; "
                "each was put between its neighbours"
            )
        if decoder.early:
            found.append(f"begins between key frames: {decoder.early} packets were skipped")
        for seconds in times.spliced:
            found.append(f"the clock restarts; its frames follow from {seconds:.3f} s")
        exact = decoder.container.format.name.startswith("mov")  # AVI counts pauses as frames
        if exact and self.count > decoder.seen and not decoder.failures:
            found.append(f"states {self.count} frames, of which {decoder.seen} were found")
        self.notes.extend(note for note in found if note not in self.notes)


class _Decoder:
    """Iterates over pairs of time stamp in seconds, or None, and frame; goes on after damage.

    Attributes:
      good: number of frames given.
      seen: number of frames given, hidden by an edit list, or damaged.
      failures: number of times that something could not be read or decoded.
      early: as many before the first frame of an MPEG stream, which may begin between key frames.
    """

    def __init__(self, path: str, container: InputContainer, stream: VideoStream):
        self.path, self.container, self.stream = path, container, stream
        self.good = self.seen = self.failures = self.early = 0
        self._first_failure, self._codec = "", stream.codec_context.name
        self._corrupt: set[int | None] = set()  # time stamps of packets that are cut off
        self._is_stream = container.format.name in STREAMS

    def __iter__(self) -> Iterator[tuple[Fraction | None, VideoFrame]]:
        for packet in self._packets():
            # In a stream it means a gap before the packet, as where two recordings were joined.
            if packet.is_corrupt and not self._is_stream:
                self._corrupt.add(packet.pts)
            self.seen += packet.is_discard
            try:
                frames = packet.decode()
            except EOFError:  # a decoder that is flushed twice
                return
            except (
                FFmpegError,
                ValueError,
            ) as error:  # the latter of a decoder that failed to open
                self._damaged(_reason(error))
                continue
            for frame in frames:
                self.seen += 1
                if frame.is_corrupt or frame.pts in self._corrupt:
                    self._corrupt.discard(frame.pts)
                    self._damaged("incomplete frame")
                    continue
                self.good += 1
                yield self._stamp(frame), frame

    def _stamp(self, frame: VideoFrame) -> Fraction | None:
        """The frame's time stamp in seconds.

        AVI has none but those of decoding, which are in the order of showing where a frame comes
        out of the decoder; what FFmpeg makes of them for each packet is wrong with B-frames.
        """
        stamp = frame.pts
        if self.container.format.name == "avi" and frame.dts is not None:
            stamp = frame.dts
        return None if stamp is None else stamp * _time_base(frame, self.stream)

    def _packets(self) -> Iterator[av.Packet]:
        """Packets of the stream, and after an error those that follow it."""
        failures = 0
        while failures < _ERRORS_IN_A_ROW:
            try:
                for packet in self.container.demux(self.stream):
                    failures = 0
                    yield packet
                return
            except FFmpegError as error:
                failures += 1
                self._damaged(_reason(error))

    def _damaged(self, problem: str) -> None:
        if self._is_stream and not self.good:
            self.early += 1
            return
        self.failures += 1
        self._first_failure = self._first_failure or f"{problem} after frame {self.good}"

    @property
    def whole(self) -> bool:
        """Whether nothing was found missing or damaged."""
        return self.good > 0 and not self.failures and not container_of.missing_bytes(self.path)

    def error(self, count: int) -> VideoError:
        """What was found missing or damaged, of so many frames as the file states."""
        parts = [f"no frame of its codec, {self._codec}, can be decoded"]
        if self.good:
            of_all = f" of {count}" if count > self.good else ""
            parts = [f"damaged: {self.good}{of_all} frames could be read"]
        cut = container_of.missing_bytes(self.path)
        if cut:
            parts.append(f"the file lacks its last {cut:,} bytes")
        if self.failures:
            more = f", and {self.failures - 1} more failures" if self.failures > 1 else ""
            parts.append(f"{self._first_failure}{more}")
        kind = VideoDamaged if self.good else VideoError
        return kind("; ".join(parts), path=self.path)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _time_base(frame: VideoFrame, stream: VideoStream) -> Fraction:
    return rational(frame.time_base) or rational(stream.time_base) or Fraction(1, 90000)


def _presentation_times(
    container: InputContainer, stream: VideoStream, fps: float
) -> PresentationTimes:
    rate = stated_rate(stream)
    return PresentationTimes(
        duration=1 / Fraction(fps),
        grid=rate if rate and rate.denominator in (1, 1001) else None,
        tick=rational(stream.time_base) or Fraction(0),
        restarts=container.format.name in STREAMS,
    )


def stated_rate(stream: VideoStream) -> Fraction | None:
    """Frames a second as the container has it, guessed from time stamps if need be; None if absurd.

    Of a variable rate it is the rate of which all frame times are multiples, if there is one.
    """
    for rate in (rational(stream.guessed_rate), rational(stream.average_rate)):
        if rate is not None and MIN_FPS <= rate <= MAX_FPS:
            return rate
    return None


@contextmanager
def _opened(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream, with a decoder.

    Raises:
      VideoError: see `open_video`.
    """
    try:
        with open(path, "rb") as file, _container(path, file) as container:
            yield container, _stream(path, container, file)
    except FFmpegError as error:
        raise VideoError(f"damaged: {_reason(error)}", path=path) from error
    except OSError as error:
        raise VideoError(f"{error.strerror or error}", path=path) from error


def _container(path: str, file: BinaryIO) -> InputContainer:
    start = file.read(64)
    file.seek(0)
    if not start:
        raise VideoError("the file is empty", path=path)
    list_kind = container_of.names_other_files(start)
    if list_kind:
        raise VideoError(
            f"{list_kind}, a list of other files, and no video itself; give those files", path=path
        )
    options = {
        "format_whitelist": ",".join((*kinds.VIDEOS, *kinds.ANIMATIONS)),
        "protocol_whitelist": "none",
        "max_pixels": str(MAX_PIXELS),
    }
    try:
        return container_of.opened(file, options)
    except (FFmpegError, ValueError, MemoryError) as error:
        raise VideoError(_unreadable(path), path=path) from error


def _unreadable(path: str) -> str:
    lacking = " (it has no index: was its recording cut off?)" * container_of.lacks_index(path)
    return f"damaged, or not a video that can be decoded{lacking}"


def _stream(path: str, container: InputContainer, file: BinaryIO) -> VideoStream:
    stream = container_of.main_stream(container)
    if stream is None:
        if len(container.streams):
            raise VideoError("holds no video stream", path=path)
        raise VideoError(_unreadable(path), path=path)
    if stream.codec_context is None:
        codec = container_of.undecodable(container, stream, file)
        raise VideoError(f"its codec, {codec}, cannot be decoded", path=path)
    width, height = stream.width, stream.height
    wide, high = stretched(width, height, pixel_aspect_of(rational(stream.sample_aspect_ratio))[0])
    if max(width * height, wide * high) > MAX_PIXELS:
        raise VideoError(
            f"frames of {width} x {height} pixels, at most {MAX_PIXELS:,} are read", path=path
        )
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    stream.thread_count = min(THREADS, os.cpu_count() or 1)
    codec = stream.codec_context.name  # asked before: a context that failed to open has no codec
    try:
        stream.codec_context.open(strict=False)
    except (FFmpegError, ValueError) as error:
        raise VideoError(
            f"its codec, {codec}, does not open: {_reason(error)}", path=path
        ) from error
    return stream


def open_video(path: str | os.PathLike, fps: float | None = None) -> Video:
    """Opens a video and decodes its first frame.

    Args:
      path: the file.
      fps: the rate at which its frames are evenly spaced, in place of the times in the file.

    Raises:
      VideoError: missing, unreadable, without a frame, of a codec that cannot be decoded (named),
        or a list of other files; or `fps` is no rate from `MIN_FPS` to `MAX_FPS`.
    """
    name = os.fsdecode(path)
    if not Path(name).is_file():
        raise VideoError(f"{'not a file' if Path(name).exists() else 'no such file'}", path=name)
    if fps is not None and not MIN_FPS <= fps <= MAX_FPS:  # false for NaN too
        raise VideoError(
            f"was given a frame rate of {fps:g}, expected {MIN_FPS:g} to {MAX_FPS:g}", path=name
        )
    with _opened(name) as (container, stream):
        decoder = _Decoder(name, container, stream)
        stamp, frame = next(iter(decoder), (None, None))
        if frame is None:
            raise decoder.error(0)
        rate = stated_rate(stream) if fps is None else Fraction(fps)
        if rate is None and stamp is None:
            raise VideoError(
                "states neither frame times nor a rate; give one with --fps", path=name
            )
        timecode = container_of.start_timecode(container, stream)
        notes = _notes(container, stream, frame, stamp)
        count = max(0, stream.frames)
    counted = None
    if timecode:
        with _opened(name) as (container, _), suppress(FFmpegError):  # of a damaged timecode track
            counted = container_of.timecode_counts(container)
    shown = float(rate or UNTIMED_FPS)
    return Video(name, shown, count, fps is not None, timecode, counted, notes)


def _notes(
    container: InputContainer, stream: VideoStream, frame: VideoFrame, stamp: Fraction | None
) -> list[str]:
    notes = []
    late = 0.0 if stamp is None else float(stamp) - (container.start_time or 0) / av.time_base
    if late > LATE and container.streams.audio:
        notes.append(f"frames begin {late:.3f} s after the sound; times count from the first frame")
    others = len(container_of.video_streams(container)) - 1
    if others:
        notes.append(f"has {others + 1} video streams, of which number {stream.index} was read")
    if frame.color_trc in HDR:
        notes.append(f"high dynamic range ({HDR[frame.color_trc]}) was converted to BT.709")
    if is_tilted(display_matrix(frame)):
        notes.append("is turned by no whole quarter; shown at the nearest")
    if frame.interlaced_frame:
        notes.append("is marked as interlaced: a frame may show two moments")
    if matrix_of(frame) != frame.colorspace:
        name = "BT.2020" if matrix_of(frame) == BT2020 else "BT.601"
        notes.append(f"colour matrix {frame.colorspace} of H.273 is not known: read as {name}")
    absurd = pixel_aspect_of(rational(stream.sample_aspect_ratio))[1]
    if absurd:
        notes.append(absurd)
    return notes
