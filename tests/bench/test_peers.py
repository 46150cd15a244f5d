"""`sf-jax bench peers`: MediaPipe's process, the figures, and the whole command with stand-ins."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import held_out, records
from sf_jax.bench import mediapipe, peers
from sf_jax.cli import loading
from sf_jax.cli.arguments import UsageError
from sf_jax.face.channels import INDEX, NAMES
from sf_jax.reader.action import Provenance
from tests.cli.test_cli import FakeModel, errors, run

# A library of this name that finds a face in bright images and scores their mean brightness.
STAND_IN = """
print("noise on stdout")
__version__ = "0.0"
class ImageFormat:
    SRGB = 0
class Image:
    def __init__(self, image_format, data):
        self.data = data
"""
TASKS = """
from types import SimpleNamespace as Made
class Category:
    def __init__(self, category_name, score):
        self.category_name, self.score = category_name, score
class Landmarker:
    create_from_options = classmethod(lambda cls, options: cls())
    __enter__ = lambda self: self
    __exit__ = lambda self, *error: None
    def detect(self, image):
        if image.data.mean() < 50:
            return Made(face_blendshapes=[])
        scores = [Category("_neutral", 1.0), Category("jawOpen", float(image.data.mean() / 255))]
        return Made(face_blendshapes=[scores])
    def detect_for_video(self, image, milliseconds):
        found = self.detect(image)
        found.face_blendshapes[0].append(Category("eyeBlinkLeft", milliseconds / 1000))
        return found
BaseOptions = Made
vision = Made(
    FaceLandmarkerOptions=Made,
    RunningMode={"IMAGE": 1, "VIDEO": 2},
    FaceLandmarker=Landmarker,
)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's file of a library that the interpreter finds; returns the file."""
    library = tmp_path / "library" / "mediapipe"
    (library / "tasks").mkdir(parents=True)
    (library / "__init__.py").write_text(STAND_IN)
    (library / "tasks" / "__init__.py").write_text("")
    (library / "tasks" / "python.py").write_text(TASKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "library"))
    (tmp_path / "face.task").write_bytes(b"weights")
    return tmp_path / "face.task"


def image(level: int, height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_the_process_answers_image_by_image(stand_in: Path) -> None:
    """Whatever the library prints, and whatever the size of the image."""
    with mediapipe.MediaPipe(sys.executable, stand_in) as peer:
        assert peer.version == "0.0"
        found = peer(image(102))
        assert found.scores is not None and found.scores.shape == (61,)
        assert found.scores[INDEX["JawOpen"]] == pytest.approx(0.4)
        assert found.scores.sum() == pytest.approx(0.4) and found.milliseconds >= 0
        assert peer(image(0, 300, 5)).scores is None
        assert peer(image(255)).scores[INDEX["JawOpen"]] == 1.0
    with mediapipe.MediaPipe(sys.executable, stand_in, "video") as peer:
        times = [peer(image(255)).scores[INDEX["EyeBlinkLeft"]] for _ in range(3)]
    assert times == pytest.approx([0, 0.033, 0.067], abs=1e-6)


def test_a_python_without_the_library_is_named(tmp_path: Path) -> None:
    task = tmp_path / "face.task"
    task.write_bytes(b"")
    with pytest.raises(UsageError, match="No module named 'mediapipe'"):
        mediapipe.MediaPipe(sys.executable, task)
    with pytest.raises(UsageError, match="nowhere: No such file"):
        mediapipe.MediaPipe("nowhere", task)
    with pytest.raises(UsageError, match="no such file"):
        mediapipe.MediaPipe(sys.executable, tmp_path / "none.task")


def test_all_channels_but_the_tongue_are_had() -> None:
    assert len(mediapipe.HAS) == 51 and INDEX["TongueOut"] not in mediapipe.HAS


def test_offsets_are_of_faces_at_rest() -> None:
    labels = np.zeros((40, 61))
    labels[20:, 0] = 0.8
    scores = labels + 0.3
    known, found = np.ones(labels.shape, bool), np.ones(40, bool)
    known[:, 2] = False
    known[: 40 - peers.LEAST + 1, 3] = False  # one too few
    scores[:3], found[:3] = 0, False  # missed: no answer at rest
    offset = peers.offsets(scores, labels, known, found)
    assert offset[[0, 1]] == pytest.approx(0.3) and not offset[[2, 3, 60]].any()
    assert peers.corrected(scores, offset)[[0, 30], 0] == pytest.approx([0, 0.8])


def test_jitter_is_the_mean_second_difference() -> None:
    values = np.zeros((5, 61))
    values[:, 0] = [0, 1, 0, 1, 0]  # second differences of 2
    values[:, 1] = [0, 1, 2, 3, 4]
    assert peers.jitter(values, [0, 1]) == pytest.approx(1.0)
    g = np.random.default_rng(0)
    still = g.integers(0, 256, (16, 16, 3), np.uint8)
    frames = peers.reencoded(still, 5)
    assert frames[0].shape == still.shape and any((a != frames[0]).any() for a in frames)
    assert all((a == b).all() for a, b in zip(frames, peers.reencoded(still, 5), strict=True))


def test_a_canvas_is_the_size_of_a_camera_image() -> None:
    for shape in ((100, 100), (50, 300), (900, 20)):
        out = peers.on_canvas(image(7, *shape))
        assert out.shape == (480, 640, 3) and (out == 7).all()


def faces(folder: Path, known: bool = True) -> Path:
    """Records whose brightness is JawOpen, three too dark to be found."""
    folder.mkdir(parents=True)
    rows = []
    for i in range(12):
        label = np.zeros(61, np.float32)
        label[INDEX["JawOpen"]] = 0.3 + 0.05 * i if i >= 3 else 0
        level = int(255 * label[INDEX["JawOpen"]])
        row = {"image": image(level, 32, 32), "coefficients": label, "rationale": "", "identity": i}
        unknown = {"coefficients": 0 * label, "known": np.zeros(61, bool)}
        rows.append(row if known else row | unknown)
    records.write(folder / "a.array_record", rows)
    return folder


class Constant(FakeModel):
    """Answers the same to every image."""

    def predict_batch(self, images, **called):
        return [self.predict(np.zeros((4, 4, 3), np.uint8)) for _ in images]


@pytest.fixture
def constant(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Constant(framed=False)
    model.provenance = Provenance()
    monkeypatch.setattr(loading, "load_model", lambda *_: model)


def test_all_figures_come_of_one_run(
    stand_in: Path, tmp_path: Path, constant: None, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "peers.json"
    given = ["--mediapipe-python", sys.executable, "--task", stand_in, "--out", out]
    asked = [faces(tmp_path / "dark"), "--repeats", 2, "--stills", 0]
    assert run("bench", "peers", *given, *asked) == 0
    found = json.loads(out.read_text())
    rows = found["sets"]["dark"]
    assert set(rows) == {"zeros", "median", peers.OURS, peers.THEIRS, peers.CORRECTED}
    peer = rows[peers.THEIRS]
    assert peer["found"] == 9 and rows["zeros"]["found"] is None
    # One of 51 channels varies in the labels, and its score is the label but for rounding.
    assert peer["r_51"] == pytest.approx(1 / 51, abs=1e-4)
    assert peer["r_52"] == pytest.approx(1 / 52, abs=1e-4)
    assert peer["mae_52"] == pytest.approx(0, abs=1e-3)
    assert set(found["milliseconds"]) == {"coefficients", "with rationale", peers.THEIRS}
    printed = capsys.readouterr().out
    assert "dark: 12 faces" in printed and "(1.00 x)" in printed
    assert run("bench", "peers", *given, *asked) == 2  # nothing is overwritten
    assert "exists already" in errors(capsys)[0]


def test_portraits_are_compared_with_the_scores_of_their_list(
    tmp_path: Path, constant: None
) -> None:
    marks = [[0.5, 0.5]] * 68
    lines = [
        {"image": f"person_{i}.png", "landmarks68": marks, "mediapipe": {"jawOpen": i / 10}}
        for i in range(3)
    ]
    (tmp_path / peers.LIST).write_text("\n".join(map(json.dumps, lines)))
    scores = peers.portrait_scores(tmp_path)
    assert scores["person_2"][NAMES.index("JawOpen")] == pytest.approx(0.2)
    (tmp_path / peers.LIST).write_text('{"image": "a.png", "mediapipe": {"jawOpen": "wide"}}')
    with pytest.raises(peers.SourceError, match="line 1"):
        peers.portrait_scores(tmp_path)


def test_sets_of_one_name_and_sets_without_labels_are_refused_at_once(
    stand_in: Path, tmp_path: Path, constant: None, capsys: pytest.CaptureFixture
) -> None:
    given = ["bench", "peers", "--mediapipe-python", "nowhere", "--task", stand_in]
    first, second = faces(tmp_path / "a" / "dark"), faces(tmp_path / "b" / "dark")
    assert run(*given, first, second) == 2
    assert "b/dark: a set of this name is given already" in errors(capsys)[0]
    assert run(*given, first, faces(tmp_path / "c", known=False)) == 2
    assert "c: no blendshape is known" in errors(capsys)[0]


def test_figures_that_are_no_numbers_cost_no_file(
    stand_in: Path, tmp_path: Path, constant: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "milliseconds", lambda *_: {peers.THEIRS: float("nan")})
    out = tmp_path / "peers.json"
    given = ["--mediapipe-python", sys.executable, "--task", stand_in, "--out", out]
    assert run("bench", "peers", *given, faces(tmp_path / "dark"), "--stills", 0) == 0
    assert json.loads(out.read_text())["milliseconds"] == {peers.THEIRS: None}


def test_portraits_for_tests_alone_are_compared(tmp_path: Path) -> None:
    """The bench's own `model` opens the jaw by the green, as the scores of the list have it."""
    listed = [*sorted(held_out.TEST_PORTRAITS)[:3], "of-nobody"]
    lines = []
    for number, name in enumerate(listed):
        Image.fromarray(image(60 + 40 * number)).save(tmp_path / f"{name}.png")
        scores = {"jawOpen": number / 10 if name in held_out.TEST_PORTRAITS else 0.9}
        marks = [[0.5, 0.5]] * 68
        lines.append({"image": f"{name}.png", "landmarks68": marks, "mediapipe": scores})
    (tmp_path / peers.LIST).write_text("\n".join(map(json.dumps, lines)))
    found = peers.portraits(Bright(framed=False), tmp_path, 2)
    assert found["portraits"] == found["found"] == 3
    assert found["JawOpen"] == pytest.approx(1) and found["MouthLeft"] == 0
    text = "\n".join(peers._portrait_lines(found))
    assert "over 3 (ours found 3)" in text and "JawOpen" in text
    (tmp_path / peers.LIST).write_text(json.dumps(lines[-1]))
    with pytest.raises(peers.SourceError, match="fewer than two portraits for tests"):
        peers.portraits(Bright(framed=False), tmp_path, 2)


class Bright(FakeModel):
    """Answers several images at once."""

    def predict_batch(self, images, **called):
        return [self.predict(one.picture.pixels) for one in images]
