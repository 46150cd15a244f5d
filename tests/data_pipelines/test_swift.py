"""MS-SWIFT lines and their pictures → records, or an error that names the line."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines import records
from data_pipelines.records import RecordError
from sf_jax import cli
from sf_jax.cli import data
from sf_jax.face import answers
from sf_jax.face.channels import EYE_PITCH
from sf_jax.media import small_files

LAYOUTS = ("flat", "nested", "keyframe")
FAULTS = (
    "not JSON", "no answer", "JawOpen is '1.7'", "0 images, expected 1", "2 images, expected 1",
    "absent.png",
)  # fmt: skip


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 40, 3)).astype(np.uint8)


def numbers(seed: int) -> np.ndarray:
    return np.random.default_rng([1, seed]).random(61).round(3).astype(np.float32)


def line(folder: Path, seed: int, layout: str) -> dict[str, Any]:
    """A training line; its picture is saved beside the file."""
    (folder / "pictures").mkdir(exist_ok=True)
    Image.fromarray(picture(seed)).save(folder / "pictures" / f"{seed}.png")
    block = answers.to_json(numbers(seed), layout, analysis=f"words {seed}")
    text = f"words {seed}\n\n{block}" if layout == "flat" else block
    return {
        "messages": [
            {"role": "user", "content": "<image>Read the face."},
            {"role": "assistant", "content": text},
        ],
        "images": [f"pictures/{seed}.png"],
    }


def write_lines(folder: Path, *lines: Any) -> Path:
    path = folder / "faces.jsonl"
    texts = [text if isinstance(text, str) else json.dumps(text) for text in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def run(path: Path, *options: str) -> Path:
    out = path.parent / "out"
    data.main(["import-swift", str(path), "--out", str(out), *options])
    return out / "faces.array_record"


def test_all_layouts_are_read(tmp_path: Path) -> None:
    lines = [line(tmp_path, i, layout) for i, layout in enumerate(LAYOUTS)]
    found = list(records.read(run(write_lines(tmp_path, *lines))))
    assert len(found) == len(LAYOUTS)
    for i, record in enumerate(found):
        np.testing.assert_array_equal(record["image"], picture(i))
        np.testing.assert_array_equal(record["coefficients"], numbers(i))
        assert record["rationale"] == ("" if LAYOUTS[i] == "keyframe" else f"words {i}")
        assert record["origin"] == f"faces.jsonl:{i + 1}"


def test_empty_lines_are_no_lines_but_are_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path, "", line(tmp_path, 0, "flat"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as Windows editors begin a file
    assert [record["origin"] for record in records.read(run(path))] == ["faces.jsonl:2"]


def test_eye_pitch_is_converted(tmp_path: Path) -> None:
    path = write_lines(tmp_path, line(tmp_path, 0, "keyframe"))
    (record,) = records.read(run(path, "--eye-pitch", "up"))
    np.testing.assert_array_equal(record["coefficients"][EYE_PITCH], -numbers(0)[EYE_PITCH])


def bad_lines(folder: Path) -> dict[str, Any]:
    """A line for each of FAULTS."""
    whole = line(folder, 1, "flat")
    question = whole["messages"][:1]
    value = {**json.loads(answers.to_json(numbers(1))), "JawOpen": 1.7}
    out_of_range = [*question, {"role": "assistant", "content": json.dumps(value)}]
    return {
        "not JSON": '{"messages": [',
        "no answer": {**whole, "messages": question},
        "JawOpen is '1.7'": {**whole, "messages": out_of_range},
        "0 images, expected 1": {**whole, "images": []},
        "2 images, expected 1": {**whole, "images": whole["images"] * 2},
        "absent.png": {**whole, "images": ["pictures/absent.png"]},
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_line_is_named_and_no_file_left(
    tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [line(tmp_path, seed, "flat") for seed in (0, 2)]
    path = write_lines(tmp_path, good[0], bad_lines(tmp_path)[fault], good[1])
    with pytest.raises(RecordError, match=rf"faces\.jsonl, line 2: .*{fault}"):
        run(path)
    assert not list((tmp_path / "out").iterdir())

    kept = list(records.read(run(path, "--skip-bad")))
    assert [record["origin"] for record in kept] == ["faces.jsonl:1", "faces.jsonl:3"]
    assert "faces.jsonl, line 2" in "".join(capsys.readouterr())


def test_lines_after_one_that_is_too_long_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_files, "lines", partial(small_files.lines, most_bytes=9000))
    good = [line(tmp_path, seed, "flat") for seed in (0, 2)]
    path = write_lines(tmp_path, good[0], good[0] | {"padding": "x" * 20_000}, good[1])
    with pytest.raises(RecordError, match=r"faces\.jsonl, line 2: longer than"):
        run(path)
    kept = list(records.read(run(path, "--skip-bad")))
    assert [record["origin"] for record in kept] == ["faces.jsonl:1", "faces.jsonl:3"]


def test_a_line_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path, line(tmp_path, 0, "flat"))
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")
    with pytest.raises(RecordError, match="line 2: not a text file in UTF-8"):
        run(path)


def test_a_file_without_usable_lines_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"faces\.jsonl: no line could be used"):
        run(write_lines(tmp_path, "{}"), "--skip-bad")
    assert not list((tmp_path / "out").iterdir())


def test_records_of_another_file_of_that_name_are_not_replaced(tmp_path: Path, capsys) -> None:
    first = run(write_lines(tmp_path, line(tmp_path, 0, "flat"))).read_bytes()
    path = write_lines(tmp_path, line(tmp_path, 1, "flat"))
    assert cli.main(["data", "import-swift", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "faces.array_record: exists already" in capsys.readouterr().err
    assert [file.read_bytes() for file in (tmp_path / "out").iterdir()] == [first]
