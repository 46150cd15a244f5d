"""Files and folders appear complete or not at all."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from sf_jax.media import files
from sf_jax.media.errors import DataError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    with files.stream(tmp_path / "out.csv") as file:
        file.write("a\r\nb\n")
        assert names(tmp_path) == [f".out.csv.{os.getpid()}.partial"]
    assert (tmp_path / "out.csv").read_bytes() == b"a\r\nb\n"
    assert names(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path: Path, failure: type[BaseException]) -> None:
    files.write_text(tmp_path / "out.txt", "before")
    with pytest.raises(failure), files.stream(tmp_path / "out.txt") as file:
        file.write("half")
        raise failure
    assert names(tmp_path) == ["out.txt"]
    assert (tmp_path / "out.txt").read_text() == "before"


def test_a_file_may_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    """Also where a library makes a private file in its place, as safetensors does."""
    with files.replacing(tmp_path / "a") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600))
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_lines_of_an_interrupted_stream_are_kept_on_request(tmp_path: Path) -> None:
    with pytest.raises(ValueError), files.stream(tmp_path / "out.jsonl", keep=True) as file:
        file.write("one\n")
        raise ValueError
    assert names(tmp_path) == ["out.partial.jsonl"]
    assert (tmp_path / "out.partial.jsonl").read_text() == "one\n"
    with files.stream(tmp_path / "out.jsonl", keep=True) as file:
        file.write("two\n")
    assert names(tmp_path) == ["out.jsonl", "out.partial.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "two\n"
    assert (tmp_path / "out.partial.jsonl").read_text() == "one\n"


def test_temporary_names_meet_no_file(tmp_path: Path) -> None:
    """A file that has the name already stays; a long name leaves room for what is added."""
    mine = tmp_path / f".out.txt.{os.getpid()}.partial"
    mine.write_text("mine")
    (tmp_path / "out.partial.txt").write_text("mine too")
    files.write_text(tmp_path / "out.txt", "new")
    with files.stream(tmp_path / "out.txt", keep=True) as file:
        file.write("newer")
    assert mine.read_text() == "mine" and (tmp_path / "out.partial.txt").read_text() == "mine too"
    assert (tmp_path / "out.txt").read_text() == "newer"
    for name in ("é" * 125 + ".json", "x" * 255):
        files.write_text(tmp_path / name, "long")
        with files.stream(tmp_path / name, keep=True) as file:
            file.write("longer")
        assert (tmp_path / name).read_text() == "longer"
    assert len(names(tmp_path)) == 5


def test_what_takes_a_temporary_name_afterwards_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.replace

    def replace(temporary: Path, target: Path) -> None:
        rename(temporary, target)
        temporary.write_text("another's")

    monkeypatch.setattr(Path, "replace", replace)
    files.write_text(tmp_path / "out.txt", "new")
    with files.folder(tmp_path / "made"):
        pass
    assert [path.read_text() for path in tmp_path.glob(".*.partial")] == ["another's"] * 2


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError) as found:
        files.write_text(tmp_path / "missing" / "out.txt", "")
    assert str(tmp_path / "missing" / "out.txt") in str(found.value)
    assert "partial" not in str(found.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as found:
        files.write_text(tmp_path / "folder", "")
    assert str(tmp_path / "folder") in str(found.value) and "partial" not in str(found.value)
    assert names(tmp_path) == ["folder"]


def test_json_holds_finite_numbers_only(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"a": [1]}, indent=None)
    assert (tmp_path / "a.json").read_bytes() == b'{"a": [1]}\n'
    with pytest.raises(DataError, match=r"b\.json: Out of range float values"):
        files.write_json(tmp_path / "b.json", float("nan"))
    assert names(tmp_path) == ["a.json"]


def test_a_folder_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with pytest.raises(ValueError), files.folder(out) as inside:
        (inside / "a").write_text("half")
        raise ValueError
    assert names(tmp_path / "new") == []
    with files.folder(out) as inside:
        (inside / "a").write_text("all")
        assert not out.exists()
    assert names(tmp_path / "new") == ["out"] and names(out) == ["a"]
    with pytest.raises(DataError, match="out: exists already"), files.folder(out):
        pass
    assert (out / "a").read_text() == "all"


def test_errors_hold_their_location() -> None:
    error = DataError("expected 61 numbers", field="coefficients")
    assert str(error) == "field 'coefficients': expected 61 numbers"
    assert error.at(path=Path("faces.jsonl"), line=3) is error
    assert str(error) == "faces.jsonl, line 3, field 'coefficients': expected 61 numbers"
    assert str(error.at(path="other", line=4)) == str(error), "the first location is the closest"
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.line == 3 and again.path == "faces.jsonl"
    assert str(DataError("no words", path="a", record=0)) == "a, record 0: no words"
    assert str(DataError("image 1 is missing", field="image")) == "image 1 is missing"
    assert str(DataError("image 1 is missing", field="ima")) == "field 'ima': image 1 is missing"
    other = type("OtherError", (DataError,), {}).of(error, path="later")
    assert str(other) == str(error) and other.line == 3
    assert str(DataError.of(OSError("no space"), path="a")) == "a: no space"
    with pytest.raises(TypeError):
        error.at(row=1)


def test_what_is_no_number_is_null_however_deep(tmp_path: Path) -> None:
    content = {"a": [1.5, float("nan"), (float("inf"), np.float64("nan"))], "b": {"c": -np.inf}}
    with pytest.raises(DataError, match="JSON"):
        files.write_json(tmp_path / "a.json", content)
    files.write_json(tmp_path / "a.json", files.finite(content | {"d": [True, None, "nan", 3]}))
    found = json.loads((tmp_path / "a.json").read_text())
    assert found == {"a": [1.5, None, [None, None]], "b": {"c": None}, "d": [True, None, "nan", 3]}
