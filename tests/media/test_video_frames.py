"""Frames as a player shows them: orientation, shape of pixels, colours, transparency."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

from sf_jax.media.images import BACKGROUND
from sf_jax.media.video import open_video
from sf_jax.media.video_frames import stretched
from tests.media.videos import counting, write_video

ONE = 65536
EIGHT = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)]
EIGHT += [(0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0), (0, -1, -1, 0)]


def texture(height: int = 20, width: int = 37) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def first_frame(path: Path) -> np.ndarray:
    return next(open_video(path).frames())


def shown(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Each pixel (x, y) at (a x + c y, b x + d y), the corner moved to zero."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    columns, rows = a * x + c * y, b * x + d * y
    columns, rows = columns - columns.min(), rows - rows.min()
    result = np.zeros((rows.max() + 1, columns.max() + 1, 3), np.uint8)
    result[rows, columns] = image
    return result


@pytest.mark.parametrize("matrix", EIGHT, ids=str)
def test_all_eight_orientations_of_an_odd_sized_video(tmp_path: Path, matrix: tuple) -> None:
    a, b, c, d = (ONE * part for part in matrix)
    path = write_video(
        tmp_path / "a.mov",
        30,
        [texture()],
        codec="png",
        pixels="rgb24",
        matrix=[a, b, 0, c, d, 0, 0, 0, 2**30],
    )
    np.testing.assert_array_equal(first_frame(path), shown(texture(), *matrix))


def test_a_tilted_video_is_shown_at_the_nearest_quarter(tmp_path: Path) -> None:
    turn = [ONE // 5, ONE, 0, -ONE, ONE // 5, 0, 0, 0, 2**30]
    image = texture()
    path = write_video(tmp_path / "a.mov", 30, [image], codec="png", pixels="rgb24", matrix=turn)
    assert open_video(path).notes == ["is turned by no whole quarter; shown at the nearest"]
    np.testing.assert_array_equal(first_frame(path), np.rot90(image, -1))


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(1, 2), Fraction(64, 45)], ids=str)
def test_pixels_are_made_square(tmp_path: Path, aspect: Fraction) -> None:
    image = cv2.resize(texture(6, 9), (90, 60), interpolation=cv2.INTER_CUBIC)
    turn = [0, ONE, 0, -ONE, 0, 0, 0, 0, 2**30]  # a quarter: the stretched side turns with it
    path = write_video(
        tmp_path / "a.mov",
        30,
        [image],
        codec="png",
        pixels="rgb24",
        matrix=turn,
        pixel_aspect=aspect,
    )
    width, height = stretched(90, 60, aspect)
    assert width / height == pytest.approx(1.5 * aspect, rel=0.01) and min(width / 90, height / 60)
    frame = np.rot90(first_frame(path))
    expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 2


def patches(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.repeat(np.repeat(np.array([colours], np.uint8), 32, 0), 32, 1)


COLOURS = ((230, 60, 50), (30, 200, 60), (40, 60, 220), (20, 20, 20), (235, 235, 235))


@pytest.mark.parametrize(
    ("pixels", "space", "full"),
    [
        ("yuv420p", None, False),
        ("yuv420p", Colorspace.ITU601, False),
        ("yuv420p", Colorspace.ITU709, False),
        ("yuv420p", Colorspace.ITU709, True),
        ("yuv420p10le", Colorspace.ITU709, False),
        ("yuv444p10le", Colorspace.BT2020, False),
    ],
)
def test_colours_follow_the_tags(tmp_path: Path, pixels: str, space, full: bool) -> None:
    """The frame is filled with the numbers of the colours, by the formulas of ITU-R BT.601, 709."""
    weights = {Colorspace.ITU709: (0.2126, 0.0722), Colorspace.BT2020: (0.2627, 0.0593)}
    red, blue = weights.get(space, (0.299, 0.114))
    image = patches(*COLOURS) / 255.0
    luma = image @ [red, 1 - red - blue, blue]
    chroma = [(image[..., 2] - luma) / (2 - 2 * blue), (image[..., 0] - luma) / (2 - 2 * red)]
    deep = 4 if "10" in pixels else 1
    low, span, chroma_span = (0, 255, 255) if full else (16, 219, 224)
    planes = [low + span * luma, *(128 + chroma_span * part for part in chroma)]
    frame = av.VideoFrame(160, 32, pixels)
    for plane, values in zip(frame.planes, planes, strict=True):
        numbers = np.rint(values * deep).astype(np.uint16 if deep == 4 else np.uint8)
        numbers = numbers[:: 32 // plane.height, :: 160 // plane.width]
        rows = np.zeros((plane.height, plane.line_size // numbers.itemsize), numbers.dtype)
        rows[:, : plane.width] = numbers
        plane.update(rows.tobytes())
    if space is not None:
        frame.colorspace = {Colorspace.ITU601: 5}.get(space, int(space))
        frame.color_range = 2 if full else 1
    path = _written(tmp_path, frame, pixels)
    found = first_frame(path)[16, 16::32]
    assert np.abs(found.astype(int) - np.array(COLOURS)).max() <= 4


def _written(folder: Path, frame: av.VideoFrame, pixels: str) -> Path:
    path = folder / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixels
        for name in ("colorspace", "color_range", "color_trc", "color_primaries"):
            setattr(stream.codec_context, name, getattr(frame, name))
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_an_unknown_matrix_is_reported(tmp_path: Path) -> None:
    image = cv2.resize(texture(6, 9), (90, 60), interpolation=cv2.INTER_CUBIC)
    untagged = first_frame(write_video(tmp_path / "a.mkv", 30, [image], codec="ffv1"))
    path = write_video(tmp_path / "b.mkv", 30, [image], codec="ffv1", tags={"colorspace": 14})
    assert open_video(path).notes == ["colour matrix 14 of H.273 is not known: read as BT.601"]
    np.testing.assert_array_equal(first_frame(path), untagged)


def test_ordinary_videos_give_the_pixels_that_opencv_gives(tmp_path: Path) -> None:
    image = cv2.resize(texture(15, 20), (160, 120), interpolation=cv2.INTER_CUBIC)
    for name in ("a.mp4", "a.avi", "a.mkv", "a.webm"):
        path = write_video(tmp_path / name, 30, [image, image[::-1]])
        capture = cv2.VideoCapture(str(path))
        for frame in open_video(path).frames():
            np.testing.assert_array_equal(frame, capture.read()[1][..., ::-1])


def test_transparent_pixels_are_grey(tmp_path: Path) -> None:
    image = np.dstack([counting(0), np.zeros((48, 144), np.uint8)])
    image[:, :72, 3] = 255
    path = write_video(tmp_path / "a.mov", 30, [image], codec="png", pixels="rgba")
    frame = first_frame(path)
    np.testing.assert_array_equal(frame[:, :72], counting(0)[:, :72])
    assert (frame[:, 72:] == BACKGROUND).all()


@pytest.mark.slow
def test_high_dynamic_range_is_converted_and_reported(tmp_path: Path) -> None:
    """Reference white, 203 cd/m² (ITU-R BT.2408), becomes white; unconverted it would be 146."""
    frame = av.VideoFrame(64, 64, "yuv420p10le")
    for plane, value in zip(frame.planes, (64 + round(876 * 0.5807), 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
    frame.colorspace, frame.color_range = Colorspace.BT2020, 1
    frame.color_trc, frame.color_primaries = ColorTrc.SMPTE2084, ColorPrimaries.BT2020
    path = _written(tmp_path, frame, "yuv420p10le")
    assert any("high dynamic range (PQ)" in note for note in open_video(path).notes)
    assert first_frame(path).min() > 240
