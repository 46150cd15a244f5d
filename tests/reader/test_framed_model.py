"""A model directory that reads framed faces: the built-in model with a read-out of the table's
landmarks, which are always where a face tilted by `TILT` has them, and a finder of marks."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from sf_jax.convert import checksums
from sf_jax.convert.tensor_files import CheckpointError
from sf_jax.face.channels import INDEX
from sf_jax.face.describe import HEAD_ANGLES, head_level, read
from sf_jax.face.head_angles import HEAD, turn_image
from sf_jax.face.head_clauses import with_head
from sf_jax.face.landmarks import COUNT, framing_square
from sf_jax.media.images import read_image
from sf_jax.reader import finder, loading, readout
from sf_jax.reader.action import FaceAction
from sf_jax.reader.estimator import Model
from sf_jax.reader.framing import Framed, NoFaceError
from sf_jax.reader.output import exact_json, from_json
from sf_jax.reader.turning import in_square, on_grid
from sf_jax.serve.client import ServiceError, Session, ask, ask_all
from sf_jax.serve.service import Limits
from sf_jax.train.losses.readout import Readout, ReadoutConfig, initialise_readout
from tests.plain_model import find_marks, marked
from tests.reader.test_framing import face_landmarks
from tests.serve.test_service import on_loopback, same

TILT = 0.3
LOAD = finder.load
FACES = (30, 20, 90), (160, 40, 60)  # left, top and side, the surest first


def constant_readout(config: object, landmarks: np.ndarray) -> Readout:
    """Reads the same landmarks off every image, in its sides."""
    bias = np.concatenate([np.zeros((61, 2)), landmarks])
    made = initialise_readout(config.vision, ReadoutConfig(COUNT, 2), bias, 0)  # type: ignore[attr-defined]
    return replace(made, per_query=0 * made.per_query)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("framed") / "model"
    shutil.copytree(loading.BUILTIN, folder, ignore=lambda *_: [checksums.FILE])
    (folder / finder.FILE).write_bytes(b"")
    config = loading.hf.load(folder)[0]
    landmarks = face_landmarks(0.5, 0.5, 0.8, TILT)
    readout.save(folder / readout.FILE, constant_readout(config, landmarks))
    return folder


@pytest.fixture(scope="module")
def model(directory: Path) -> Iterator[Model]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder, "load", lambda path: find_marks)
        yield loading.load(directory)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Two faces in a photograph of noise, of no two parts alike."""
    generator = np.random.default_rng(5)
    small = generator.integers(0, 250, (20, 32, 3)).astype(np.uint8)
    pixels = np.array(Image.fromarray(small).resize((256, 160), Image.Resampling.BICUBIC))
    pixels[..., 2] = np.minimum(pixels[..., 2], 240)
    return marked(pixels, *FACES)


@pytest.fixture(scope="module")
def action(model: Model, image: np.ndarray) -> FaceAction:
    return model.predict(image)


def test_the_roll_of_the_square_is_put_back(
    model: Model, image: np.ndarray, action: FaceAction
) -> None:
    assert model.frames() and not model.frames(whole=True) and not model.framer.source
    face = action.face
    assert face is not None and (face.number, face.count, face.image) == (1, 2, (256, 160))
    # Landmarks that are tilted in every square turn it twice.
    assert face.box.roll == pytest.approx(2 * TILT, abs=0.01)
    cut = model.cut(image, face)
    assert cut.picture is not None and cut.picture.pixels.shape == (128, 128, 3)
    (raw,) = model.predict_batch([cut.picture])
    assert raw.face is None and raw.uncorrected is None
    np.testing.assert_array_equal(action.coefficients, turn_image(raw.coefficients, face.box.roll))
    assert np.abs(action.coefficients[HEAD] - raw.coefficients[HEAD]).max() > 0.3
    others = np.setdiff1d(np.arange(61), HEAD)
    for name in ("answer", "spread", "entropy", "log_likelihood"):
        np.testing.assert_array_equal(getattr(action, name)[others], getattr(raw, name)[others])
    own = action.uncorrected
    assert own is not None and (own.text, own.rationale) == (raw.text, raw.rationale)
    np.testing.assert_array_equal(own.answer, raw.answer)
    assert raw.agreement == action.agreement


def test_text_and_rationale_follow_the_head(model: Model, action: FaceAction) -> None:
    spelt = action.answer[HEAD]
    assert spelt == pytest.approx(np.round(spelt, 1), abs=1e-6)
    assert action.text.startswith(model.schema.format(action.answer))
    assert action.text.endswith(action.rationale.text)
    own = action.uncorrected
    assert own is not None
    stated, before = read(action.rationale.text).levels, read(own.rationale.text).levels
    changed = 0
    for name in HEAD_ANGLES:
        levels = [head_level(float(one.answer[INDEX[name]])) for one in (own, action)]
        if levels[0] != levels[1]:
            assert stated.get(name, 0) == levels[1]
            changed += 1
        else:
            assert stated.get(name, 0) == before.get(name, 0)
    assert changed
    rest = [{k: v for k, v in one.items() if k not in HEAD_ANGLES} for one in (stated, before)]
    assert rest[0] == rest[1]


def test_an_answer_survives_the_wire(action: FaceAction, model: Model) -> None:
    for one in (action, model.no_face()):
        back = from_json(exact_json(one))
        assert back.face == one.face and back.found == one.found
        for name in ("coefficients", "spread", "answer", "entropy", "log_likelihood"):
            np.testing.assert_array_equal(getattr(back, name), getattr(one, name))
        assert (back.text, back.rationale, back.channels) == (one.text, one.rationale, one.channels)
        assert (back.uncorrected is None) == (one.uncorrected is None)
    back = from_json(exact_json(action))
    assert back.uncorrected is not None and action.uncorrected is not None
    np.testing.assert_array_equal(back.uncorrected.answer, action.uncorrected.answer)


def test_no_face_no_values(model: Model, image: np.ndarray) -> None:
    cup = np.full((40, 60, 3), 90, np.uint8)
    for found in (model.predict(cup), model.predict(image, face=3)):
        assert found.face is None and not found.found
        for name in ("coefficients", "spread", "answer", "entropy", "log_likelihood"):
            assert np.isnan(getattr(found, name)).all()
        assert found.text == "" and found.agreement is None
        assert found.channels == model.schema.names and found.provenance == model.provenance
    forced, whole = model.predict(cup, force=True), model.predict(cup, whole=True)
    assert forced.found and forced.face is None and same(forced, whole)
    assert model.predict_faces(cup) == []
    with pytest.raises(NoFaceError, match="no face found"):
        model.score(cup, whole.answer)
    with pytest.raises(ValueError, match="face is 0"):
        model.predict(image, face=0)
    with pytest.raises(ValueError, match="face=2 is for faces that are found"):
        model.predict(image, face=2, whole=True)
    for name, value in {"whole": False, "face": 2, "force": True}.items():
        with pytest.raises(ValueError, match=f"{name} is an option of one face"):
            model.predict_faces(image, **{name: value})


def test_faces_and_batches_are_read_as_if_alone(
    model: Model, image: np.ndarray, action: FaceAction
) -> None:
    cup = np.full((40, 60, 3), 90, np.uint8)
    first = model.predict(image, rationale=False)
    second = model.predict(image, face=2, rationale=False, temperature=0.6, seed=4)
    assert first.face == action.face and second.face is not None and second.face.number == 2
    found = model.predict_batch(
        [cup, image, Framed(None), model.framed(image, face=2)],
        rationale=False,
        temperature=[0.0, 0.0, 0.0, 0.6],
        seed=[1, 2, 3, 4],
    )
    assert [one.found for one in found] == [False, True, False, True]
    for one, alone in ((found[1], first), (found[3], second)):
        assert one.text == alone.text and one.face == alone.face
        np.testing.assert_allclose(one.coefficients, alone.coefficients, atol=1e-5, rtol=0)
    both = model.predict_faces(image, rationale=False)
    assert [one.face and one.face.number for one in both] == [1, 2]
    assert both[0].text == first.text
    assert model.predict(image, previous=action).text == action.text


def test_an_answer_is_scored_in_the_square_where_it_was_read(
    model: Model, image: np.ndarray, action: FaceAction
) -> None:
    """With the clauses and the angles of the generated answer, or as near as they can be spelt."""
    own, face = action.uncorrected, action.face
    assert own is not None and face is not None
    inside = model.cut(image, face).picture
    assert inside is not None
    back = on_grid(turn_image(action.answer, -face.box.roll), model.schema, np.arange(61))
    clauses = with_head(action.rationale, action.answer[HEAD], back[HEAD]).text
    found = model.score(image, action.answer, action.rationale.text)
    expected = model.score(inside.pixels, back, clauses, whole=True)
    assert found.total == pytest.approx(expected.total, abs=1e-3)
    assert found.total > model.score(image, action.answer, action.rationale.text, whole=True).total


def test_a_rationale_in_free_words_is_not_scored_as_an_empty_one(
    model: Model, image: np.ndarray, action: FaceAction
) -> None:
    words = "The mouth is open, and the head is tilted."
    with pytest.raises(ValueError, match="a rationale in free words is scored as generated there"):
        model.score(image, action.answer, words)
    upright = np.array(action.answer)
    upright[HEAD] = 0
    assert in_square(upright, words, 0.001)[1] == words
    assert in_square(upright, "", 0.4)[1] == "" and in_square(upright, None, 0.4)[1] is None


def test_the_service_frames_as_predict_does(
    model: Model, image: np.ndarray, action: FaceAction
) -> None:
    cup = np.full((40, 60, 3), 90, np.uint8)
    with on_loopback(model, Limits(), batch=1) as url:
        found = ask(url, image)
        assert same(found, action) and found.face == action.face
        assert same(ask(url, image, face=2), model.predict(image, face=2))
        assert same(ask(url, image, whole=True), model.predict(image, whole=True))
        nothing = ask(url, cup)
        assert not nothing.found and np.isnan(nothing.coefficients).all()
        assert same(ask(url, cup, force=True), model.predict(cup, whole=True))
        both = ask_all(url, image)
        assert [one.face and one.face.number for one in both] == [1, 2]
        assert both[0].text == action.text and ask_all(url, cup) == []
        with pytest.raises(ServiceError, match="ask_all reads all"):
            ask("http://nobody.invalid", image, face="all")
        with pytest.raises(ServiceError, match="422, force: is for one face"):
            ask_all(url, image, force=True)
        for name, options in (("face", {"face": 2}), ("force", {"force": True})):
            with pytest.raises(ServiceError, match=f"422, {name}: is for faces that are found"):
                ask(url, image, whole=True, **options)
        with pytest.raises(ServiceError, match="422, a session is of one face"):
            Session(url, face="all").frame(image)
        with Session(url, face=2) as session:
            frames = [session.frame(image), session.frame(cup), session.frame(image)]
        assert [frame.found for frame in frames] == [True, False, True]
        assert [frame.change for frame in frames] == [None, "cut", None]
        assert frames[0].action.face is not None and frames[0].action.face.number == 2


@pytest.mark.parametrize("kind", ["exif", "alpha", "grey", "tiny", "long", "huge", "edge", "full"])
def test_images_of_every_kind_are_framed(model: Model, tmp_path: Path, kind: str) -> None:
    """In an image file, the blue of a face is kept exactly."""
    path = tmp_path / "a.png"
    plain = np.full((120, 200, 3), 60, np.uint8)
    face = (120, 20, 60)
    shown: Image.Image = Image.fromarray(marked(plain, face))
    expected = (150.0, 50.0)
    if kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter, clockwise
        shown.save(path, exif=exif)
        expected = (120 - 50.0, 150.0)
    elif kind == "alpha":
        shown.putalpha(255)
        shown.save(path)
    elif kind == "grey":
        grey = np.full((120, 200), 60, np.uint8)
        grey[20:80, 120:180] = 255
        Image.fromarray(grey).save(path)
    elif kind == "tiny":
        Image.fromarray(marked(plain[:8, :8], (2, 1, 6))).save(path)
        expected = (5.0, 4.0)
    elif kind == "long":
        wide = np.full((8, 40_000, 3), 60, np.uint8)
        Image.fromarray(marked(wide, (35_000, 1, 6))).save(path)
        expected = (35_003.0, 4.0)
    elif kind == "huge":
        Image.fromarray(marked(np.full((4200, 5000, 3), 60, np.uint8), (1000, 800, 2000))).save(
            path
        )
        expected = (1000.0, 900.0)  # read at half its size
    elif kind == "edge":
        Image.fromarray(marked(plain, (150, -0, 50))).save(path)
        expected = (175.0, 25.0)
    else:
        Image.fromarray(marked(plain[:, :120], (0, 0, 120))).save(path)
        expected = (60.0, 60.0)
    action = model.predict(path, rationale=False)
    assert action.face is not None and action.found
    shape = read_image(path).shape
    assert action.face.image == (shape[1], shape[0])
    first = framing_square(face_landmarks(0.5, 0.5, 0.8)).side * action.face.box.side
    assert (action.face.box.x, action.face.box.y) == pytest.approx(expected, abs=0.2 * first)


def test_what_makes_a_directory_framed(directory: Path, tmp_path: Path) -> None:
    assert loading.load().frames() and not loading.load().framer.source
    folder = tmp_path / "model"
    shutil.copytree(directory, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder, "load", LOAD)  # the file is empty
        with pytest.raises(CheckpointError, match=r"finder\.safetensors"):
            loading.load(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder, "load", lambda path: find_marks)
        own = loading.hf.load(folder)[0]
        narrow = replace(own, vision=replace(own.vision, out_hidden_size=64))
        wrong = constant_readout(narrow, np.zeros((COUNT, 2)))
        readout.save(folder / readout.FILE, wrong)
        with pytest.raises(CheckpointError, match=r"readout\.safetensors.*width 64, expected"):
            loading.load(folder)
        (folder / readout.FILE).unlink()
        unframed = loading.load(folder)
        assert str(loading.load().provenance.weights) in unframed.framer.source
        assert not unframed.frames() and unframed.frames(face=2) and unframed.frames(whole=False)


def test_one_program_serves_all_sizes(model: Model, image: np.ndarray) -> None:
    met: list[str] = []

    def listener(event: str, duration: float, **_: object) -> None:
        if "backend_compile" in event:
            met.append(event)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        for height, width in ((64, 64), (90, 160), (300, 77)):
            shown = marked(np.zeros((height, width, 3), np.uint8), (5, 5, 40))
            assert model.framed(shown).face is not None
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert not met
