"""Small videos for tests, written by PyAV."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CODECS = {".avi": "mjpeg", ".webm": "libvpx", ".mov": "libx264", ".mkv": "libx264"}
TIME_BASES = {".mkv": Fraction(1, 1000), ".webm": Fraction(1, 1000)}


@contextmanager
def scheduled_as_before() -> Iterator[None]:
    """The encoder of AV1 gives the thread that calls it a real-time schedule, where it may.

    All processes that the thread starts from then on would inherit it, and no longer share a core.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


@scheduled_as_before()
def write_video(
    path: Path,
    fps: float | Fraction,
    frames: Sequence[np.ndarray],
    *,
    times: Sequence[float | Fraction] | None = None,
    codec: str | None = None,
    pixels: str | None = None,
    time_base: Fraction | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    pixel_aspect: Fraction | None = None,
    matrix: Sequence[int] | None = None,
    tags: Mapping[str, int] | None = None,
) -> Path:
    """Writes frames, uint8 [H, W, 3 or 4].

    Args:
      fps: the rate that is stated. times: seconds of each frame, in place of multiples of 1 / fps.
      codec, pixels, time_base, options: of the encoder; else as usual for the file's kind.
      metadata: tags of the container, such as `timecode`.
      matrix: the nine numbers of the display matrix. tags: colorspace, color_range, color_trc and
        color_primaries.
    """
    rate = Fraction(fps).limit_denominator(1001)
    codec = codec or CODECS.get(path.suffix, "mpeg4")
    pixels = pixels or ("yuvj420p" if codec == "mjpeg" else "yuv420p")
    clock = time_base or TIME_BASES.get(path.suffix) or 1 / rate
    with av.open(str(path), "w", container_options=dict(container_options or {})) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.time_base = clock
        for name, value in (tags or {}).items():
            setattr(context, name, value)
        if pixel_aspect:
            context.sample_aspect_ratio = pixel_aspect
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, "rgb24" if image.shape[2] == 3 else "rgba")
            frame = frame.reformat(format=pixels)
            for name, value in (tags or {}).items():
                setattr(frame, name, value)
            seconds = number / rate if times is None else Fraction(times[number])
            frame.pts, frame.time_base = round(seconds / clock), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def counting(number: int) -> np.ndarray:
    """A frame that shows its number by the position of a red bar on blue."""
    frame = np.full((48, 144, 3), (0, 0, 200), np.uint8)
    frame[:, 2 * number : 2 * number + 16] = 230, 0, 0
    return frame


def counted(frame: np.ndarray) -> float:
    """The number that a frame of `counting` shows."""
    red, blue = frame[..., 0].astype(int), frame[..., 2].astype(int)
    return (np.nonzero((red > blue).mean(axis=0) > 0.5)[0].mean() - 7.5) / 2
