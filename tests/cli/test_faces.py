"""Faces that are found and framed, by files: which one, several, none, and whole images."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sf_jax.cli import loading
from sf_jax.face import livelink
from sf_jax.reader.action import Provenance
from tests.cli.test_cli import FakeModel, errors, run
from tests.cli.test_predict import listed
from tests.media.videos import write_video
from tests.plain_model import marked, marks_framer

LARGE, LEFT, RIGHT = (60, 20, 40), (10, 10, 20), (120, 10, 24)  # left, top and side of faces


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    fake = FakeModel(marks_framer())
    monkeypatch.setattr(loading, "load_model", lambda *_: fake)
    return fake


@pytest.fixture
def photo(tmp_path: Path) -> Callable[..., Path]:
    """Writes an image with faces below the test's folder."""

    def make(name: str, *faces: tuple[int, int, int], green: int = 100) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        pixels = np.full((80, 160, 3), (90, green, 40), np.uint8)
        Image.fromarray(marked(pixels, *faces)).save(path)
        return path

    return make


def content(path: Path) -> dict:
    return json.loads(path.read_text())


def index_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_largest_face_is_read_in_its_square(
    model: FakeModel, photo: Callable, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    assert run("predict", photo("a.png", LEFT, LARGE, RIGHT), "--out", out) == 0
    (seen,) = model.seen
    assert seen.shape == (50, 50, 3)  # the square of the landmarks over 0.8
    face = content(out / "a.json")["face"]
    assert face["box"] == {"x": 80.0, "y": 40.0, "side": 50.0, "roll": 0.0}
    assert (face["number"], face["count"], face["image"]) == (2, 3, [160, 80])
    assert face["score"] == pytest.approx(254 / 255)
    (row,) = index_of(out / "a.index.csv")
    assert (row["found"], row["face"]) == ("true", "2")


def test_one_face_by_its_number_or_the_whole_image(
    model: FakeModel, photo: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = photo("a.png", LEFT, LARGE, RIGHT)
    for number, side in ((1, 25), (2, 50), (3, 30)):
        assert run("predict", path, "--face", number) == 0
        assert model.seen[-1].shape == (side, side, 3)
    assert run("predict", path, "--whole") == 0
    assert model.seen[-1].shape == (80, 160, 3)
    capsys.readouterr()
    assert run("predict", path, "--face", 4) == 2
    assert "a.png: no face 4 found; --force reads" in errors(capsys)[0]
    for flags, problem in (
        (["--face", "none"], "'none' is none of largest, all and a number from 1"),
        (["--face", "0"], "'0' is none of"),
        (["--face", "2", "--whole"], "--face is for faces that are found"),
        (["--force", "--whole"], "--force is for faces that are found"),
        (["--crop", "--whole"], "give one of them"),
        (["--face", "all", "--show"], "--show opens one sheet"),
        (["--face", "all", "--fps", "30"], "--fps makes images the frames of a take"),
        (["--face", "all", "--drop-frame"], "--drop-frame makes images the frames of a take"),
    ):
        assert run("predict", path, *flags) == 2
        assert problem in errors(capsys)[-1]


def test_an_image_without_a_face(
    model: FakeModel, photo: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Exit code 2 and nulls for one image alone, a line in the list of several."""
    cup, out = photo("cup.png"), tmp_path / "o"
    assert run("predict", cup) == 2
    assert "cup.png: no face found; --force reads the whole image" in errors(capsys)[0]
    for _ in range(2):  # the second run skips it, and says the same
        assert run("predict", cup, "--out", out, "--skip-existing") == 2
        assert "cup.png: no face found" in errors(capsys)[0]
    assert not model.seen
    found = content(out / "cup.json")
    assert found["found"] is False and found["face"] is None
    assert set(found["coefficients"].values()) == set(found["spread"].values()) == {None}
    assert not (out / "cup.preview.png").exists()
    assert livelink.read(out / "cup.csv", keep_empty=True).empty_lines == [2]
    assert run("predict", cup, "--force", "--out", out) == 0
    assert content(out / "cup.json")["found"] is True and len(model.seen) == 1
    assert "the whole picture was read" in capsys.readouterr().err
    several = tmp_path / "several"
    assert run("predict", photo("a.png", LARGE), cup, "--out", several, "--no-preview") == 0
    assert "no face found in 1 of 2 images" in capsys.readouterr().out
    assert [row["answered"] for row in index_of(several / "pictures.index.csv")] == [
        "true",
        "false",
    ]


def test_models_of_whole_images_find_faces_when_asked(
    photo: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FakeModel(marks_framer(), framed=False)
    monkeypatch.setattr(loading, "load_model", lambda *_: whole)
    path = photo("a.png", LARGE)
    assert run("predict", path) == run("predict", path, "--crop") == 0
    assert [seen.shape[0] for seen in whole.seen] == [80, 50]


def test_all_faces_have_results_and_rows_of_their_own(
    model: FakeModel, photo: Callable, tmp_path: Path
) -> None:
    path, out = photo("a.png", LARGE, LEFT, RIGHT), tmp_path / "o"
    flags = ["--face", "all", "--out", out, "--skip-existing"]
    assert run("predict", path, *flags) == 0
    faces = [f"a.face-{number}" for number in (1, 2, 3)]
    assert listed(out) == sorted(
        ["a.csv", *(f"{face}{end}" for face in faces for end in (".json", ".preview.png"))]
    )
    assert [content(out / f"{face}.json")["face"]["number"] for face in faces] == [1, 2, 3]
    assert [row["face"] for row in index_of(out / "a.index.csv")] == ["1", "2", "3"]
    assert len(livelink.read(out / "a.csv").coefficients) == 3 == len(model.seen)
    assert run("predict", path, *flags) == 0 and len(model.seen) == 3  # nothing is read again
    photo("a.png", LARGE, green=120)
    assert run("predict", path, *flags) == 0
    assert listed(out) == ["a.csv", "a.face-1.json", "a.face-1.preview.png"]  # two are gone
    others = [photo("b.png"), photo("c.png", LEFT, LARGE)]
    table = tmp_path / "table"
    assert run("predict", *others, "--face", "all", "--out", table, "--no-preview") == 0
    assert [row["face"] for row in index_of(table / "pictures.index.csv")] == ["", "1", "2"]
    assert listed(table) == ["b.json", "c.face-1.json", "c.face-2.json", "pictures.csv"]


def test_all_faces_are_found_by_models_of_whole_images(
    photo: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """An image without a face is not read as if it were one; with --force alone it is."""
    whole = FakeModel(marks_framer(), framed=False)
    monkeypatch.setattr(loading, "load_model", lambda *_: whole)
    cup, out = photo("cup.png"), tmp_path / "o"
    for asked in ("all", "2"):
        assert run("predict", cup, "--face", asked, "--out", out, "--no-preview") == 2
        assert "cup.png: no face" in errors(capsys)[0] and not whole.seen
        assert content(out / "cup.json")["found"] is False
    several = ["predict", cup, photo("a.png", LEFT, LARGE), "--face", "all"]
    assert run(*several, "--out", tmp_path / "p", "--no-preview") == 0
    assert [seen.shape[0] for seen in whole.seen] == [25, 50]
    assert "3 faces of unrelated images" in capsys.readouterr().out
    assert run("predict", cup, "--face", "all", "--force") == 0
    assert whole.seen[-1].shape == (80, 160, 3)


def test_a_later_reading_leaves_no_result_that_contradicts_it(
    model: FakeModel, photo: Callable, tmp_path: Path
) -> None:
    cup, two, out = photo("cup.png"), photo("two.png", LARGE, LEFT), tmp_path / "o"
    assert run("predict", cup, "--out", out, "--force") == 0
    assert (out / "cup.preview.png").exists()
    assert run("predict", cup, "--out", out) == 2
    assert listed(out) == ["cup.csv", "cup.json"]
    assert run("predict", two, "--out", out) == 0
    assert run("predict", two, "--out", out, "--face", "all") == 0
    faces = [f"two.face-{n}{end}" for n in (1, 2) for end in (".json", ".preview.png")]
    assert listed(out) == ["cup.csv", "cup.json", "two.csv", *faces]
    (out / "two.face-1.json").write_text("mine")  # what was changed since stays
    assert run("predict", two, "--out", out) == 0
    one = ["two.csv", "two.face-1.json", "two.json", "two.preview.png"]
    assert listed(out) == ["cup.csv", "cup.json", *one]


def test_a_video_whose_face_is_gone_keeps_no_sheet(
    model: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """And is skipped as a complete one, unless sheets are asked for that were left out."""
    frames = [np.full((80, 160, 3), (90, 100, 40), np.uint8)] * 3
    video = write_video(tmp_path / "v.mkv", 25.0, frames, codec="ffv1", pixels="bgr0")
    flags = ["--out", tmp_path / "o", "--skip-existing"]
    assert run("predict", video, *flags, "--force") == 0 and len(model.seen) == 3
    assert "v.preview.png" in listed(tmp_path / "o")
    assert run("predict", video, *flags, "--no-preview") == 2
    assert listed(tmp_path / "o") == ["v.csv", "v.jsonl"]
    for flag in ("--no-preview", None, None):
        capsys.readouterr()
        skipped = run("predict", video, *flags, *filter(None, [flag])) == 0
        assert skipped == ("1 files skipped" in capsys.readouterr().out)
    assert skipped and listed(tmp_path / "o") == ["v.csv", "v.jsonl"]


def test_results_of_other_finders_are_read_again(
    photo: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = photo("a.png", LARGE), tmp_path / "o"
    seen = []
    for settings, source in (("1", ""), ("1", ""), ("2", ""), ("2", "3"), ("2", "3")):
        framer = marks_framer()
        framer.source = source
        fake = FakeModel(framer)
        fake.provenance = Provenance(weights="xxh128:0", settings=settings)
        monkeypatch.setattr(loading, "load_model", lambda *_, fake=fake: fake)
        assert run("predict", path, "--out", out, "--skip-existing") == 0
        seen.append(len(fake.seen))
    assert seen == [1, 0, 1, 1, 0]
    assert "settings" not in content(out / "a.json")["sf_jax"]


@pytest.mark.parametrize("edited", ["[]", '{"coefficients": []}', '{"coefficients": {"x": 1}}'])
def test_a_result_that_was_edited_is_read_again(
    model: FakeModel, photo: Callable, tmp_path: Path, edited: str
) -> None:
    path, out = photo("a.png", LARGE), tmp_path / "o"
    flags = ["--out", out, "--skip-existing"]
    assert run("predict", path, *flags) == 0
    (out / "a.json").write_text(edited)
    assert run("predict", path, *flags) == 0 and len(model.seen) == 2
    assert (out / "a.json").read_text() == edited and "a.png.json" in listed(out)


def test_results_of_faces_meet_no_other_file(
    model: FakeModel, photo: Callable, tmp_path: Path
) -> None:
    """Inputs whose names are those of results, in either order; and files of the user's own."""
    twice = photo("a.png", LARGE, LEFT), photo("a.face-2.png", LARGE)
    for number, order in enumerate((twice, twice[::-1])):
        out = tmp_path / f"o{number}"
        assert run("predict", *order, "--face", "all", "--out", out, "--no-preview") == 0
        sources = {content(path)["image"] for path in out.glob("*.json")}
        assert sources == set(map(str, twice)) and len([*out.glob("*.json")]) == 3
    out = tmp_path / "own"
    out.mkdir()
    (out / "a.face-7.json").write_text("mine")
    assert run("predict", twice[0], "--face", "all", "--out", out, "--no-preview") == 0
    assert (out / "a.face-7.json").read_text() == "mine"
    assert {"a.png.face-1.json", "a.png.face-2.json"} <= set(listed(out))


def test_a_video_keeps_to_one_person_and_reports_what_changes(
    model: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The largest face stays the one that is read when another one grows; then the image cuts to
    it, and then to none."""
    grey = np.full((80, 160, 3), (90, 100, 40), np.uint8)
    other = np.random.default_rng(0).integers(0, 200, (8, 16, 3)).astype(np.uint8)
    other = other.repeat(10, 0).repeat(10, 1)
    frames = [marked(grey, (10, 10, 24), (100, 10, 12))] * 2
    frames += [marked(grey, (12, 10, 24), (90, 10, 30))] * 18
    frames += [marked(other, (100, 20, 30))] * 2 + [np.full_like(grey, 200)]
    video = write_video(tmp_path / "v.mkv", 25.0, frames, codec="ffv1", pixels="bgr0")
    out = tmp_path / "o"
    assert run("predict", video, "--out", out, "--no-preview") == 0
    lines = [json.loads(line) for line in (out / "v.jsonl").read_text().splitlines()]
    boxes = [line["face"] and line["face"]["box"]["x"] for line in lines]
    assert boxes[:2] == [22, 22] and all(21 < x < 25 for x in boxes[:20])
    assert boxes[20:] == [115, 115, None]
    changes = [line["change"] for line in lines]
    assert changes == [None] * 20 + ["cut", None, "cut"]
    assert set(lines[-1]["coefficients"].values()) == {None}
    printed = capsys.readouterr().out
    assert "cut at frame 20 (0.80 s)" in printed
    assert "no face found in 1 of 23 frames, whose rows are empty" in printed
    assert livelink.read(out / "v.csv", keep_empty=True).empty_lines == [24]
    assert run("predict", video, "--out", out, "--face", "all") == 2
    assert "a video is read for one person" in errors(capsys)[0]


def test_requests_without_a_face_fail(
    model: FakeModel, photo: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    question = [{"role": "user", "content": "<image>?"}]
    lines = [
        json.dumps({"messages": question, "images": [str(path)]})
        for path in (photo("cup.png"), photo("a.png", LARGE))
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    files = ["--requests", tmp_path / "r.jsonl", "--results", tmp_path / "o.jsonl"]
    assert run("predict", *files, "--csv", tmp_path / "o.csv") == 2
    assert "r.jsonl, line 1: no face found" in errors(capsys)[0]
    first, second = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert first["response"] is None and first["error"] == "no face found"
    assert second["response"] and livelink.read(tmp_path / "o.csv", keep_empty=True)
    assert run("predict", *files, "--face", "all") == 2


def test_a_neutral_image_needs_a_face(
    model: FakeModel, photo: Callable, capsys: pytest.CaptureFixture
) -> None:
    assert run("predict", photo("a.png", LARGE), "--neutral", photo("cup.png")) == 2
    assert "cup.png: no face found, which the neutral image needs" in errors(capsys)[0]
    assert run("predict", photo("a.png", LARGE), "--force", "--neutral", photo("cup.png")) == 2


@pytest.mark.parametrize("framed", [True, False])
def test_a_neutral_image_is_of_one_person_whichever_face_is_read(
    photo: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framed: bool
) -> None:
    """It is framed as the others are, by a model of whole images too."""
    fake = FakeModel(marks_framer(), framed)
    monkeypatch.setattr(loading, "load_model", lambda *_: fake)
    neutral, several = photo("n.png", LARGE), photo("a.png", LEFT, LARGE, RIGHT)
    assert run("predict", several, "--face", 3, "--neutral", neutral) == 0
    assert [seen.shape[0] for seen in fake.seen] == [50, 30]
