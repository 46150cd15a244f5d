"""Frames in order, with their times; and faces in them."""

import os
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from sf_jax.media import kinds
from sf_jax.media.video import VideoDamaged, VideoError, open_video
from sf_jax.media.video_container import Nameless
from sf_jax.reader.finder import face_box
from sf_jax.render.draw import Drawing, draw
from sf_jax.render.head import builtin
from sf_jax.render.scene import plain_scene
from tests.media.videos import counted, counting, write_video

FRAMES = 60


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


@pytest.mark.parametrize(
    ("name", "codec", "time_base"),
    [
        ("a.mp4", "libx264", Fraction(1, 16000)),
        ("a.mkv", "libx264", Fraction(1, 1000)),
        ("a.mov", "mpeg4", Fraction(1, 600)),
        ("a.webm", "libvpx", Fraction(1, 1000)),
        ("a.ts", "libx264", Fraction(1, 90000)),
        ("a.avi", "mpeg4", Fraction(1, 30)),
        ("a.gif", "gif", Fraction(1, 100)),
        ("a.apng", "apng", Fraction(1, 1000)),
    ],
)
def test_frame_times_are_those_of_the_container(
    tmp_path: Path, name: str, codec: str, time_base: Fraction
) -> None:
    """Thirty frames a second and then ten, in the order of showing, not in that of the packets."""
    times = [*(Fraction(i, 30) for i in range(20)), *(1 + Fraction(i, 10) for i in range(10))]
    pixels = {"gif": "rgb8", "apng": "rgb24"}.get(codec)
    path = write_video(
        tmp_path / name,
        30,
        [counting(i) for i in range(30)],
        times=[2 + time for time in times] if name not in ("a.gif", "a.apng", "a.avi") else times,
        codec=codec,
        time_base=time_base,
        pixels=pixels,
    )
    found = list(open_video(path).timed_frames())
    assert [round(counted(frame)) for _, frame in found] == list(range(30))
    np.testing.assert_allclose(
        [seconds for seconds, _ in found], np.array(times, float), atol=0.006
    )


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.nut", "mpeg4"),
        ("a.ivf", "libvpx"),
        ("a.y4m", "wrapped_avframe"),
        ("a.dv", "dvvideo"),
        ("a.m1v", "mpeg1video"),
        ("a.f4v", "libx264"),
    ],
)
def test_a_container_that_is_read_is_a_video_by_its_name(
    tmp_path: Path, name: str, codec: str
) -> None:
    size = (576, 720) if codec == "dvvideo" else (64, 160)
    path = write_video(tmp_path / name, 25, [np.zeros((*size, 3), np.uint8)] * 3, codec=codec)
    assert kinds.kind_of(path) == "video" and len(list(open_video(path).timed_frames())) == 3


def test_every_format_that_is_read_has_endings_of_its_own() -> None:
    formats = kinds.PICTURES | kinds.VIDEOS
    for kind, table in (("picture", kinds.PICTURES), ("video", kinds.VIDEOS)):
        for endings in table.values():
            found = {kinds.kind_of(Path(f"a.{ending}")) for ending in endings.split()}
            assert found == {kind}
    endings = " ".join(formats.values()).split()
    assert len(set(endings)) == len(endings)
    assert not {reason for ending in endings if (reason := kinds.reason(Path(f"a.{ending}")))}


def test_avi_with_b_frames_keeps_its_even_times(tmp_path: Path) -> None:
    frames = [counting(i) for i in range(40)]
    path = write_video(tmp_path / "a.avi", 30, frames, codec="libx264", options={"bf": "3"})
    found = list(open_video(path).timed_frames())
    np.testing.assert_allclose([seconds for seconds, _ in found], np.arange(40) / 30, atol=1e-6)
    assert [round(counted(frame)) for _, frame in found] == list(range(40))


def test_what_an_edit_list_hides_is_not_shown(tmp_path: Path) -> None:
    """Frames before time zero are cut away by an edit list; the next one is then the first."""
    frames = [counting(i) for i in range(20)]
    times = [Fraction(i - 10, 30) for i in range(20)]
    path = write_video(tmp_path / "a.mp4", 30, frames, times=times, codec="libx264")
    video = open_video(path)
    found = list(video.timed_frames())
    assert [round(counted(frame)) for _, frame in found] == list(range(10, 20))
    assert found[0][0] == 0 and not video.notes


def test_joined_recordings_go_on(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 30, [counting(i) for i in range(40)], codec="libx264")
    path.write_bytes(2 * path.read_bytes())
    video = open_video(path)
    seconds = [seconds for seconds, _ in video.timed_frames()]
    np.testing.assert_allclose(seconds, np.arange(80) / 30, atol=1e-6)
    assert any("the clock restarts" in note for note in video.notes)


def test_tags_that_are_no_utf8_are_no_reason_to_refuse(tmp_path: Path) -> None:
    tags = {"title": "Anna", "timecode": "01:00:00:0x"}
    path = write_video(tmp_path / "a.mkv", 30, [counting(0)], metadata=tags)
    content = path.read_bytes().replace(b"Anna", b"An\xe4\xff").replace(b":0x", b":0\xe4")
    path.write_bytes(content)
    video = open_video(path)
    assert video.timecode is not None and video.timecode.startswith("01:00:00:0")
    video.timecode.encode()
    assert len(list(video.frames())) == 1


def test_a_stream_that_begins_between_key_frames_is_read_from_the_next_one(tmp_path: Path) -> None:
    frames = [counting(i) for i in range(40)]
    path = write_video(tmp_path / "a.ts", 30, frames, codec="libx264", options={"g": "10"})
    packets = [(packet.pts, packet.pos) for packet in av.open(str(path)).demux(video=0)]
    content = path.read_bytes()
    path.write_bytes(content[packets[5][1] :])  # packets of 188 bytes; the sixth starts a frame
    video = open_video(path)
    numbers = [round(counted(frame)) for frame in video.frames()]
    assert numbers[-1] == 39 and numbers == sorted(numbers) and 28 <= len(numbers) < 40


def test_what_a_camera_appends_is_no_damage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30, [counting(i) for i in range(3)])
    path.write_bytes(path.read_bytes() + b"\x7f\xff\xff\xffSEFH" + bytes(50))
    assert len(list(open_video(path).frames())) == 3


def test_codecs_are_decoded_or_named(tmp_path: Path) -> None:
    frames = [counting(i) for i in range(3)]
    before = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None
    for codec in ("libsvtav1", "libx265", "prores_ks", "libvpx-vp9"):
        pixels = "yuv422p10le" if codec == "prores_ks" else None
        quiet = {"x265-params": "log-level=none"} if codec == "libx265" else None
        path = tmp_path / ("a.mov" if codec == "prores_ks" else "a.mkv")
        images = [cv2.resize(frame, (144, 64)) for frame in frames]
        write_video(path, 30, images, codec=codec, pixels=pixels, options=quiet)
        assert len(list(open_video(path).frames())) == 3
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == before
    content = write_video(tmp_path / "a.mp4", 30, frames, codec="libx264").read_bytes()
    for tag, name in ((b"evc1", "evc"), (b"zzzz", r"unknown \(zzzz\)"), (b"encv", "encrypted")):
        (tmp_path / "b.mp4").write_bytes(content.replace(b"avc1", tag))
        with pytest.raises(VideoError, match=rf"b\.mp4: its codec, {name}.*cannot be decoded"):
            open_video(tmp_path / "b.mp4")
    content = write_video(tmp_path / "a.mkv", 30, frames).read_bytes()
    (tmp_path / "b.mkv").write_bytes(content.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/AVC"))
    with pytest.raises(VideoError, match=r"its codec, unknown \(V_MPEG9/ISO/AVC\), cannot"):
        open_video(tmp_path / "b.mkv")
    content = write_video(tmp_path / "a.avi", 30, frames).read_bytes()
    (tmp_path / "b.avi").write_bytes(content.replace(b"MJPG", b"QQQQ"))
    with pytest.raises(VideoError, match=r"its codec, unknown \(QQQQ\), cannot"):
        open_video(tmp_path / "b.avi")


LISTS = {
    "ffconcat version 1.0\nfile a.mp4\n": "an ffconcat script",
    "#EXTM3U\n#EXTINF:1,\na.mp4\n": "an M3U playlist",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n": "a session description",
    '<?xml version="1.0"?>\n<MPD><BaseURL>a.mp4</BaseURL></MPD>': "a DASH manifest",
    '<ASX version="3.0"><entry><ref href="a.mp4"/></entry></ASX>': "a playlist",
    "[Reference]\nRef1=a.mp4\n": "a playlist",
    "concat:a.mp4|a.mp4": "a text that names a file",
}


@pytest.mark.parametrize("text", LISTS)
def test_lists_of_other_files_are_not_followed(tmp_path: Path, text: str) -> None:
    write_video(tmp_path / "a.mp4", 30, [counting(0)])
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(VideoError, match=rf"list\.mp4: {LISTS[text]}"):
        open_video(tmp_path / "list.mp4")


def test_only_containers_of_frames_are_recognised(tmp_path: Path) -> None:
    """An image is read as an image; a session description may open sockets."""
    path = tmp_path / "a.mp4"
    cv2.imwrite(str(tmp_path / "a.png"), counting(0))
    (tmp_path / "a.png").rename(path)
    with pytest.raises(VideoError, match="damaged, or not a video"):
        open_video(path)
    path.write_text("\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n")
    with pytest.raises(VideoError, match="damaged, or not a video"):
        open_video(path)


def test_positions_that_no_file_has_are_no_exceptions(tmp_path: Path) -> None:
    """PyAV prints a traceback of some exceptions that are raised while it seeks."""
    with write_video(tmp_path / "a.mp4", 30, [counting(0)]).open("rb") as file:
        nameless = Nameless(file)
        assert nameless.seek(5) == 5
        assert all(nameless.seek(far) < 0 for far in (-1, 2**63 - 1, 2**80))


def test_names_are_names_and_no_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        cv2.imwrite(f"a{i:03}.png", counting(i))
    for name in ("a%03d.png", "a*.png", "concat:a.mp4", "http://localhost/a.mp4", "-"):
        with pytest.raises(VideoError, match="no such file"):
            open_video(name)
    write_video(tmp_path / "b.mp4", 30, [counting(i) for i in range(5)])
    for name in ("a%03d.png", "a*.png", "concat:a.mp4", b"\xff.mp4"):
        path = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
        os.replace("b.mp4", path)
        assert len(list(open_video(os.fsdecode(path)).frames())) == 5
        os.replace(path, "b.mp4")


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mov"])
def test_a_video_cut_short_gives_its_frames_and_then_an_error(tmp_path: Path, name: str) -> None:
    frames = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8) for i in range(20)]
    first = {"movflags": "faststart"} if name == "a.mov" else {}  # the index comes first
    path = write_video(tmp_path / name, 30, frames, codec="mjpeg", container_options=first)
    whole = list(open_video(path).timed_frames())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    found = []
    with pytest.raises(
        VideoDamaged, match=rf"{name}: damaged: \d+ .*frames could be read; the file"
    ):
        for pair in open_video(path).timed_frames():
            found.append(pair)
    assert 8 < len(found) < 20
    for (seconds, frame), (expected, other) in zip(found, whole, strict=False):
        assert seconds == expected
        np.testing.assert_array_equal(frame, other)


def test_a_sound_alone_or_no_index(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 48000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match=r"a\.mp4: holds no video stream"):
        open_video(path)
    content = write_video(path, 30, [counting(i) for i in range(20)]).read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(VideoError, match=r"a\.mp4: damaged.* no index"):
        open_video(path)


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
    assert np.abs(found - (row, column, height, width)).max() < 25


@pytest.mark.parametrize("shape", [(1, 1), (10, 400), (3000, 8), (120, 90)])
def test_no_face_no_box(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 90, np.uint8)
    assert face_box(picture) is None
