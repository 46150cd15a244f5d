"""Which files of a folder are read, which are listed with a reason, and which are left alone."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sf_jax.media import images, kinds
from sf_jax.reader.inputs import Inputs, collect
from sf_jax.reader.results import RECORD


def image(path: Path, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (200, 100, 50)).save(path, kind)
    return path


def found(inputs: Inputs, folder: Path) -> list[str]:
    return [str(file.path.relative_to(folder)) for file in inputs.files]


def test_hidden_files_are_left_alone_in_a_folder_and_read_when_named(tmp_path: Path) -> None:
    for name in (".x.jpg", "._IMG_1.jpg", "IMG_1.jpg"):
        image(tmp_path / name)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "notes.txt"):
        (tmp_path / name).write_bytes(b"other")
    inputs = collect([tmp_path])
    assert found(inputs, tmp_path) == ["IMG_1.jpg"] and not inputs.failures
    assert inputs.notes == [f"{tmp_path}: 3 files of other kinds left out (.db, .ini, .txt)"]
    assert len(collect([tmp_path / "._IMG_1.jpg"]).files) == 1


@pytest.mark.parametrize(
    "name, words",
    [
        ("IMG_1.CR2", "camera's raw"),
        ("a.dng", "camera's raw"),
        ("a.JXL", "JPEG XL"),
        ("a.jp2", "JPEG 2000"),
        ("a.psd", "layered"),
        ("a.svg", "a drawing"),
        ("a.exr", "high dynamic range"),
        ("a.tga", "convert it"),
        ("a.ico", "convert it"),
    ],
)
def test_kinds_that_are_not_read_are_listed_with_a_reason(
    tmp_path: Path, name: str, words: str
) -> None:
    image(tmp_path / "face.jpg")
    (tmp_path / name).write_bytes(b"some other bytes")
    inputs = collect([tmp_path])
    assert found(inputs, tmp_path) == ["face.jpg"]
    (failure,) = inputs.failures
    assert name in str(failure) and words in str(failure)


def test_a_raw_file_is_not_read_by_its_thumbnail(tmp_path: Path) -> None:
    raw = image(tmp_path / "IMG_1.NEF", "TIFF")
    assert "camera's raw" in str(collect([raw]).failures[0])
    with pytest.raises(images.ImageError, match="camera's raw"):
        images.read_image(raw)


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    """As telephones and programs rename pictures without converting them."""
    image(tmp_path / "a.heic", "JPEG")
    image(tmp_path / "b.tga", "PNG")
    inputs = collect([tmp_path])
    assert found(inputs, tmp_path) == ["a.heic", "b.tga"] and not inputs.failures
    assert images.read_image(tmp_path / "a.heic").shape == (6, 8, 3)


def test_heic_is_read_where_its_library_is(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:, :32] = (220, 30, 30)
    Image.fromarray(pixels).save(tmp_path / "a.heic", quality=95)
    (tmp_path / "renamed.jpg").write_bytes((tmp_path / "a.heic").read_bytes())
    assert not collect([tmp_path]).failures
    for name in ("a.heic", "renamed.jpg"):
        read = images.read_image(tmp_path / name).astype(int)
        assert read.shape == (40, 64, 3) and np.abs(read - pixels)[:, 4:28].max() < 20
    (tmp_path / "a.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:100])
    with pytest.raises(images.ImageError, match="damaged or truncated HEIC"):
        images.read_image(tmp_path / "a.heic")


def test_heic_without_its_library_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "reads_heif", lambda: False)
    for name in ("a.heic", "renamed.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert "pip install 'sf_jax[heic]'" in str(collect([tmp_path / "a.heic"]).failures[0])
    with pytest.raises(images.ImageError, match=r"pip install 'sf_jax\[heic\]'"):
        images.read_image(tmp_path / "renamed.jpg")


def test_recursive_searches_folders_and_follows_no_link_to_one(tmp_path: Path) -> None:
    for name in ("b.jpg", "sub/a.jpg", "sub/deep/c.jpg", "d.jpg/e.jpg", ".git/f.jpg"):
        image(tmp_path / name)
    image(tmp_path / "@eaDir" / "b.jpg" / "SYNOPHOTO_THUMB.jpg")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    assert found(collect([tmp_path]), tmp_path) == ["b.jpg"]
    inputs = collect([tmp_path], recursive=True)
    assert found(inputs, tmp_path) == ["b.jpg", "d.jpg/e.jpg", "sub/a.jpg", "sub/deep/c.jpg"]
    assert [str(file.folder) for file in inputs.files] == [".", "d.jpg", "sub", "sub/deep"]
    assert any("loop: a link to a folder" in note for note in inputs.notes)


def test_a_file_named_twice_is_read_once_and_a_link_is_a_file_of_its_own(tmp_path: Path) -> None:
    first = image(tmp_path / "sub" / "a.jpg")
    (tmp_path / "link.jpg").symlink_to(first)
    (tmp_path / "other").symlink_to(tmp_path / "sub")
    spellings = [first, tmp_path / "sub" / ".." / "sub" / "a.jpg", tmp_path / "other" / "a.jpg"]
    inputs = collect([*spellings, tmp_path / "sub", tmp_path / "link.jpg"])
    assert found(inputs, tmp_path) == ["sub/a.jpg", "link.jpg"]


def test_what_cannot_be_opened_is_listed_and_costs_no_other(tmp_path: Path) -> None:
    image(tmp_path / "good" / "a.jpg")
    (tmp_path / "good" / "broken.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "empty").mkdir()
    missing, long = tmp_path / "none.jpg", tmp_path / ("x" * 300 + ".jpg")
    inputs = collect([missing, long, tmp_path / "empty", tmp_path / "good"])
    assert found(inputs, tmp_path) == ["good/a.jpg"]
    texts = [str(failure) for failure in inputs.failures]
    assert len(texts) == 4
    assert "none.jpg: no such file or folder" in texts[0] and "too long" in texts[1]
    assert "empty: holds no picture and no video; --recursive" in texts[2]
    assert "broken.jpg: a link to a file that is not there" in texts[3]


def test_a_pipe_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever kind its name claims: opening it would wait for a writer."""
    opened: list[Path] = []
    monkeypatch.setattr(images, "_open", lambda name, _: opened.append(name))
    for ending in ("tga", "nef", "heic", "svg", "png"):
        os.mkfifo(tmp_path / f"pipe.{ending}")
    assert len(collect([tmp_path]).files) == 5 and not opened
    with pytest.raises(images.ImageError, match=r"pipe\.tga.*not a file"):
        images.read_image(tmp_path / "pipe.tga")


def test_a_file_that_is_no_record_of_results_costs_no_image(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    (tmp_path / RECORD).write_text("[" * 9000)
    assert found(collect([tmp_path]), tmp_path) == ["a.jpg"]


def test_a_file_that_cannot_be_opened_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a .ts file nor a record of results; and none whose status cannot be had."""
    image(tmp_path / "a.jpg")
    (tmp_path / "b.ts").write_bytes(b"G" + bytes(187))
    (tmp_path / RECORD).write_text("[]")
    read, status = Path.open, os.lstat

    def denied(path: Path, *given: object, **named: object) -> object:
        if path.name in ("b.ts", RECORD):
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *given, **named)  # type: ignore[call-overload]

    def unknown(path: str, *given: object, **named: object) -> os.stat_result:
        if os.fspath(path).endswith("a.jpg"):
            raise PermissionError(13, "Permission denied", str(path))
        return status(path, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", denied)
    monkeypatch.setattr(os, "lstat", unknown)
    inputs = collect([tmp_path])
    assert found(inputs, tmp_path) == ["a.jpg", "b.ts"] and not inputs.failures


def test_typescript_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "index.ts").write_text("export const x = 1")
    (tmp_path / "tape.ts").write_bytes(b"G" + bytes(187))
    os.mkfifo(tmp_path / "pipe.ts")
    inputs = collect([tmp_path])
    assert found(inputs, tmp_path) == ["pipe.ts", "tape.ts"]
    assert [file.kind for file in inputs.files] == ["video", "video"]
