"""Small files: bounded, typed and finite, and what was found in place of one is named."""

import json
import os
from pathlib import Path

import pytest
from pydantic import Field

from sf_jax.media import small_files
from sf_jax.media.errors import DataError
from sf_jax.media.small_files import Settings, checked, parse_json, read_json


class ModelError(DataError):
    pass


class Inner(Settings):
    size: int


class Outer(Settings):
    rate: float
    flag: bool = False
    parts: list[Inner] = Field(default_factory=list)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html></html>", "an HTML page"),
        (b"<HTML>", "an HTML page"),
        (b"PK\x03\x04....", "a ZIP archive"),
        (b"[" * 100_000, "nested more than 64 deep"),
        (b"[" * 100_000 + b"]" * 100_000, "nested more than 64 deep"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "nested more than 64 deep"),
        (b'{"a": NaN}', "field 'a': found NaN or infinity"),
        (b'[1.5, {"b": {"c": [[-Infinity]]}}]', r"field '\[1\].b.c\[0\]\[0\]': found NaN or"),
        (b'{"a": {"b": 1e999}}', "field 'a.b': found NaN or infinity"),
        (b"NaN", "found NaN or infinity"),
        (b"9" * 5000, "not JSON: .*"),
        (b'{"a": 1, "a": 2}', "field 'a': given twice"),
        (b'{"a": 1', "not JSON: .*"),
        (b'{"a": "\xff"}', "not a text file in UTF-8"),
        (b'{"a": 1}\0', "not JSON"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_no_json_is_refused_with_its_file(tmp_path, content: bytes, problem: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=f"config.json.*{problem}") as found:
        read_json(tmp_path / "config.json", ModelError)
    assert len(str(found.value)) < 300


def test_of_many_fields_the_doubled_one_is_found_in_one_pass() -> None:
    """Comparing each with each would take half an hour."""
    names = [*range(300_000), 299_999]
    with pytest.raises(ModelError, match="'299999': given twice"):
        parse_json("{" + ",".join(f'"{name}":0' for name in names) + "}", ModelError)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opened, it would wait for a writer
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, problem in (
        ("pipe", "no file"),
        (".", "a folder"),
        ("none", "no such file"),
        ("loop", "cannot be read"),
        ("a" * 300, "cannot be read"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(ModelError, match=problem):
            read_json(tmp_path / name, ModelError)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"a": "x" * 1000}))
    assert read_json(file, most_bytes=2000)["a"] == "x" * 1000
    with pytest.raises(DataError, match="a.json: larger than 1000 bytes"):
        read_json(file, most_bytes=1000)
    with file.open("wb") as opened:
        opened.truncate(10**12)  # sparse
    with pytest.raises(DataError, match="larger than 4 MiB"):
        read_json(file)


def test_what_is_json_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": [1, -2.5e3, true, null, "\xc3\xa4"]}\n')
    assert read_json(file) == {"a": [1, -2500.0, True, None, "ä"]}
    assert parse_json('{"a":' * 60 + "1" + "}" * 60)
    assert small_files.too_deep({"a": [(1,)]}, 2)
    assert not small_files.too_deep({"a": [(1,)]}, 3)


def test_lines_are_counted_and_bounded(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf\n{"a": 1}\r\n \n{"b": 2}')
    assert [(n, parse_json(line)) for n, line in small_files.lines(file)] == [
        (2, {"a": 1}),
        (4, {"b": 2}),
    ]
    with pytest.raises(ModelError, match="a.jsonl, line 2: longer than 5 bytes"):
        list(small_files.lines(file, ModelError, 5))
    left: list[str] = []
    for long in (b"x" * 6, b"x" * 7, b"x" * 12, b"x" * 500):
        file.write_bytes(b"[1]\n" + long + b"\n[2]\n" + long)
        found = small_files.lines(file, ModelError, 5, lambda error: left.append(str(error)))
        assert [(n, parse_json(line)) for n, line in found] == [(1, [1]), (3, [2])]
        assert [f"line {n}: longer" in text for n, text in zip((2, 4), left[-2:], strict=True)]
        assert len(left) % 2 == 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "field 'rate': is missing"),
        ([], r"found \[\], expected an object"),
        ({"rate": "1"}, "field 'rate': found \"1\", expected a number"),
        ({"rate": True}, "field 'rate': found true, expected a number"),
        ({"rate": None}, "field 'rate': found null, expected a number"),
        ({"rate": float("inf")}, "field 'rate': found Infinity, expected a finite number"),
        ({"rate": 1, "flag": 1}, "field 'flag': found 1, expected true or false"),
        ({"rate": 1, "parts": {}}, "field 'parts': found {}, expected a list"),
        ({"rate": 1, "parts": [{"size": 1}, {"size": 2.0}]}, r"'parts\[1\].size': found 2.0, exp"),
        ({"rate": "y" * 500}, "field 'rate': found \"y{50,60}…, expected a number"),
    ],
    ids=repr,
)
def test_types_are_exact_and_the_field_is_named(content: object, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        checked(Outer, content, ModelError)


def test_fields_that_are_sound_are_taken() -> None:
    found = checked(Outer, {"rate": 2, "parts": [{"size": 10**12}], "other": "left alone"})
    assert (found.rate, found.flag, found.parts[0].size) == (2.0, False, 10**12)
    with pytest.raises(DataError, match="field 'a.b.size'"):
        checked(Inner, {}, within="a.b")
