"""Frames in order at the file's rate, and crops that hold still."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from sf_jax.media import crop
from sf_jax.media.video import VideoError, open_video
from sf_jax.reader import finder
from sf_jax.reader.finder import Cropper, crop_square, face_box
from sf_jax.render.draw import Drawing, draw
from sf_jax.render.head import builtin
from sf_jax.render.scene import plain_scene

FRAMES = 60


def write_video(path: Path, fps: float, frames: list[np.ndarray]) -> Path:
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def counting(number: int) -> np.ndarray:
    """A frame that tells its number by where a red bar stands on blue."""
    frame = np.full((48, 144, 3), (0, 0, 200), np.uint8)
    frame[:, 2 * number : 2 * number + 16] = 230, 0, 0
    return frame


def counted(frame: np.ndarray) -> float:
    """The number that a frame of `counting` tells."""
    red, blue = frame[..., 0].astype(int), frame[..., 2].astype(int)
    return (np.nonzero((red > blue).mean(axis=0) > 0.5)[0].mean() - 7.5) / 2


@pytest.mark.parametrize("name, fps", [("a.mp4", 24.0), ("a.avi", 30.0), ("a.mp4", 30000 / 1001)])
def test_sixty_frames_in_order_with_their_rate(tmp_path: Path, name: str, fps: float) -> None:
    path = write_video(tmp_path / name, fps, [counting(i) for i in range(FRAMES)])
    video = open_video(path)
    assert video.fps == pytest.approx(fps, abs=1e-3) and video.count == FRAMES
    found = list(video.timed_frames())
    assert len(found) == FRAMES
    for number, (seconds, frame) in enumerate(found):
        assert seconds == pytest.approx(number / fps, abs=1e-3)
        assert frame.shape == (48, 144, 3) and frame.dtype == np.uint8
        assert abs(counted(frame) - number) < 0.5
    assert len(list(video.frames())) == FRAMES


def test_a_given_rate_overrides_the_files(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 24.0, [counting(i) for i in range(5)])
    video = open_video(path, fps=48)
    assert video.fps == 48
    assert [seconds for seconds, _ in video.timed_frames()] == [i / 48 for i in range(5)]


@pytest.mark.parametrize("fps", [0.0, -5.0, float("nan"), 1e9])
def test_a_rate_that_is_none(tmp_path: Path, fps: float) -> None:
    path = write_video(tmp_path / "a.mp4", 24.0, [counting(0)])
    with pytest.raises(VideoError, match=r"a\.mp4: was given a frame rate"):
        open_video(path, fps=fps)


def test_memory_stays_constant(tmp_path: Path) -> None:
    frames = [np.full((240, 320, 3), i, np.uint8) for i in range(FRAMES)]
    video = open_video(write_video(tmp_path / "a.avi", 30, frames))
    tracemalloc.start()  # numpy reports the frames' memory to it
    try:
        for _ in video.frames():
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * frames[0].nbytes


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", 24.0, [counting(i) for i in range(9)]).read_bytes()
    for name, content in (("cut.mp4", whole[:300]), ("text.mp4", b"no " * 99)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoError, match=rf"{name}: damaged, or not a video"):
            open_video(tmp_path / name)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"empty\.mp4: the file is empty"):
        open_video(tmp_path / "empty.mp4")
    with pytest.raises(VideoError, match=r"none\.mp4: no such file"):
        open_video(tmp_path / "none.mp4")
    with pytest.raises(VideoError, match="not a file"):
        open_video(tmp_path)


def test_the_decoder_adds_no_lines_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_bytes(b"no " * 99)
    program = (
        "import sys\nfrom sf_jax.media.video import open_video\ntry: open_video(sys.argv[1])\n"
    )
    program += "except ValueError as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "text.mp4")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert done.stderr == "" and done.stdout.count("\n") == 1 and "damaged" in done.stdout


@pytest.fixture(scope="module")
def face() -> Drawing:
    return draw(builtin(), np.zeros(61), plain_scene(), 160, 160)


@pytest.fixture(scope="module")
def scene_with_a_face(face: Drawing) -> np.ndarray:
    """A rendered head in the right lower part of a 300 x 400 picture, its corner at (120, 220)."""
    picture = np.full((300, 400, 3), 187, np.uint8)
    picture[120:280, 220:380] = face.image
    return picture


def test_the_face_is_found_where_it_is(scene_with_a_face: np.ndarray) -> None:
    row, column, height, width = face_box(scene_with_a_face)
    assert abs(column + width / 2 - 300) < 12 and 170 < row + height / 2 < 225
    assert 70 < height < 160
    large = cv2.resize(scene_with_a_face, None, fx=4, fy=4)
    found = np.array(face_box(large)) / 4
    assert np.abs(found - (row, column, height, width)).max() < 15


@pytest.mark.parametrize("shape", [(1, 1), (10, 400), (3000, 8), (120, 90)])
def test_no_face_no_box(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 90, np.uint8)
    assert face_box(picture) is None
    seen, found = Cropper()(picture)
    assert seen is picture and not found


def test_the_crop_is_square_and_frames_the_face(
    face: Drawing, scene_with_a_face: np.ndarray
) -> None:
    seen, found = Cropper()(scene_with_a_face)
    side = seen.shape[0]
    assert found and seen.shape == (side, side, 3)
    # Positions of brows and chin in the crop: read through a picture of coordinates.
    box = face_box(scene_with_a_face)
    rows, columns = np.mgrid[0:300, 0:400].astype(np.uint16)
    place = crop_square(np.dstack([rows, columns, rows]), box)
    x, y = (face.landmarks + np.array([220, 120])).T
    assert place[0, 0, 0] < y.min() and place[-1, 0, 0] > y.max()
    assert place[0, 0, 1] < x.min() and place[0, -1, 1] > x.max()
    assert 0.5 < (y.max() - y.min()) / side < 0.8
    assert abs((x.max() + x.min()) / 2 - place[0, side // 2, 1].astype(int)) < 0.1 * side


@pytest.mark.parametrize(
    "box", [(0, 0, 40, 40), (280, 380, 60, 60), (-90, 20, 50, 50), (900, 900, 30, 30), (5, 5, 1, 1)]
)
def test_beyond_the_picture_the_edge_is_repeated(box: tuple[int, int, int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    seen = crop_square(picture, box)
    half = max(1, round(box[2] * crop.MARGIN / 2))
    padded = np.pad(picture, ((1000, 1000), (1000, 1000), (0, 0)), mode="edge")
    top = 1000 + box[0] + box[2] // 2 + round(crop.LOWER * box[2]) - half
    left = 1000 + box[1] + box[3] // 2 - half
    expected = padded[top : top + 2 * half, left : left + 2 * half]
    np.testing.assert_array_equal(seen, expected)


def test_in_a_video_the_box_is_searched_seldom_and_moves_smoothly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boxes = iter([None, (40, 40, 40, 40), (40, 60, 40, 40), None])
    searches, middles = [], []
    monkeypatch.setattr(finder, "face_box", lambda image: searches.append(1) or next(boxes))
    monkeypatch.setattr(finder, "crop_square", lambda image, box: middles.append(box[1]) or image)
    cropper = Cropper(every=5)
    found = [cropper(np.zeros((200, 200, 3), np.uint8))[1] for _ in range(13)]
    assert found == [False] + [True] * 12  # searched again at once; kept when lost
    assert len(searches) == 4
    assert middles[:5] == [40] * 5
    steps = np.diff(middles[4:])
    assert (steps >= 0).all() and 0 < steps.max() <= 7 and middles[-1] > 57
