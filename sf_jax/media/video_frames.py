"""A decoded video frame → uint8 RGB as a player shows it: upright, with square pixels."""

from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter
from jaxtyping import UInt8

from sf_jax.media.images import BACKGROUND

PIXEL_ASPECTS = (Fraction(1, 4), Fraction(4))  # width to height of a pixel; beyond it, a mistake

TILT = 0.05  # share of a display matrix that whole quarter turns leave at zero

# Matrices that can be converted, and what stands for another one; by their numbers in ITU-T H.273.
MATRICES = frozenset((0, 1, 2, 4, 5, 6, 7, 9))
BT601, BT2020, BT2020_CONSTANT_LUMINANCE = 5, 9, 10

# Transfer functions of high dynamic range, by their number in ITU-T H.273.
HDR = {ColorTrc.SMPTE2084.value: "PQ", ColorTrc.ARIB_STD_B67.value: "HLG"}

Pixels = UInt8[np.ndarray, "H W 3"]


class Display:
    """Turns the frames of one video into RGB.

    Colours follow the matrix and the range that the video is tagged with; an untagged one is read
    as BT.601 of limited range, as FFmpeg does. High dynamic range (PQ, HLG) is converted to BT.709,
    its reference white of 203 cd/m² becoming white. Transparent pixels are drawn on grey, as those
    of images are.

    Args:
      pixel_aspect: width to height of a pixel. The shorter side is stretched, so that no detail is
        lost.
    """

    def __init__(self, pixel_aspect: Fraction = Fraction(1)):
        self.pixel_aspect = pixel_aspect
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame

    def __call__(self, frame: VideoFrame) -> Pixels:
        """The frame as uint8 [H, W, 3].

        Raises:
          av.error.FFmpegError: its pixel format or colour space cannot be converted.
        """
        width, height = stretched(frame.width, frame.height, self.pixel_aspect)
        transparent = _has_alpha(frame)
        hdr = frame.color_trc in HDR
        converted = self._reformatter.reformat(
            frame,
            width,
            height,
            "rgba" if transparent else "rgb24",
            src_colorspace=matrix_of(frame),
            interpolation="BICUBIC",
            dst_color_trc=ColorTrc.BT709 if hdr else None,
            dst_color_primaries=ColorPrimaries.BT709 if hdr else None,
        )
        pixels = np.asarray(converted.to_ndarray(), np.uint8)
        if transparent:
            pixels = _on_grey(pixels)
        return np.ascontiguousarray(oriented(pixels, display_matrix(frame)))


def matrix_of(frame: VideoFrame) -> int:
    """The matrix by which to convert a frame: its own, or the nearest that is known."""
    if frame.colorspace in MATRICES:
        return frame.colorspace
    return BT2020 if frame.colorspace == BT2020_CONSTANT_LUMINANCE else BT601


def stretched(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Width and height of an image in square pixels."""
    if pixel_aspect > 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def _has_alpha(frame: VideoFrame) -> bool:
    pixel_format = frame.format
    return pixel_format.has_palette or any(part.is_alpha for part in pixel_format.components)


def _on_grey(pixels: np.ndarray) -> Pixels:
    opacity = pixels[..., 3:].astype(np.uint16)
    mixed = pixels[..., :3] * opacity + BACKGROUND * (255 - opacity)
    return ((mixed + 127) // 255).astype(np.uint8)


def display_matrix(frame: VideoFrame) -> np.ndarray:
    """The 2 x 2 part [[a, b], [c, d]] of the frame's display matrix; the identity without one.

    A pixel x to the right and y below is shown a·x + c·y to the right and b·x + d·y below.
    """
    try:
        content = bytes(frame.side_data["DISPLAYMATRIX"])  # type: ignore[typeddict-item]
    except KeyError:
        return np.eye(2)
    except ValueError:  # PyAV cannot list side data of a kind it does not know; no mirroring then
        angle = np.deg2rad(frame.rotation)
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.frombuffer(content, np.int32)[:9].reshape(3, 3)[:2, :2] / 65536


def oriented(pixels: Pixels, matrix: np.ndarray) -> Pixels:
    """Pixels flipped and transposed as the nearest of the eight orientations asks."""
    (a, b), (c, d) = matrix
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    if turned:
        pixels = pixels.transpose(1, 0, 2)
        a, d = c, b  # which way the shown columns and rows now run
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def is_tilted(matrix: np.ndarray) -> bool:
    """Whether a display matrix turns by other than whole quarters."""
    parts = np.abs(matrix)
    straight, crossed = parts[0, 0] + parts[1, 1], parts[0, 1] + parts[1, 0]
    return bool(min(straight, crossed) > TILT * max(straight, crossed))


def pixel_aspect_of(stated: Fraction | None) -> tuple[Fraction, str | None]:
    """The aspect ratio of a pixel to use, and a note where the stated one is absurd."""
    if not stated or stated <= 0:
        return Fraction(1), None
    least, most = PIXEL_ASPECTS
    if least <= stated <= most:
        return stated, None
    ratio = f"{stated.numerator}:{stated.denominator}"
    return Fraction(1), f"states pixels of aspect ratio {ratio}, which was ignored"
