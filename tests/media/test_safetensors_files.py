"""Safetensors files whose header does not describe them are refused by the tensor's name."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sf_jax.media.errors import DataError
from sf_jax.media.safetensors_files import open_tensors, read_tensors

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 14205112\n"


class ModelError(DataError):
    pass


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def packed(header: object, data: bytes = b"\0" * 16) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


TWO = {"a": entry(), "b": entry(offsets=(8, 16))}
TWICE = b'{"a": %s, "a": %s}' % ((json.dumps(entry(offsets=(0, 16), shape=(4,))).encode(),) * 2)
DAMAGED = {
    "pointer": (LFS, "a Git LFS pointer"),
    "page": (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
    "zip": (b"PK\x03\x04" + b"\0" * 60, "a ZIP archive"),
    "empty": (b"", "an empty file"),
    "seven bytes": (b"\x02\0\0\0\0\0\0", "truncated, or of another kind"),
    "longer header": (struct.pack("<Q", 10**15) + b"{}", "to have 1000000000000000 bytes"),
    "largest header": (b"\xff" * 40, "truncated, or of another kind"),
    "no JSON": (packed(b"{nothing}"), "not JSON"),
    "list": (packed([]), "the header is no object"),
    "deep": (packed(b"[" * 5000 + b"]" * 5000), "nested more than 64 deep"),
    "twice": (packed(TWICE), "tensor 'a' is given twice"),
    "metadata": (packed(TWO | {"__metadata__": {"x": 1}}), "metadata is no object of texts"),
    "entry": (packed({"a": 3}), "tensor 'a'"),
    "no type": (packed({"a": {"shape": [4], "data_offsets": [0, 16]}}), "tensor 'a': dtype: is m"),
    "other type": (packed({"a": entry("F33")}), "tensor 'a' is of the unknown type 'F33'"),
    "number as type": (packed({"a": entry(5)}), "tensor 'a': dtype: found 5, expected text"),
    "negative shape": (packed({"a": entry(shape=[-2])}), r"tensor 'a': shape\[0\]: found -2"),
    "float shape": (packed({"a": entry(shape=[2.0])}), r"tensor 'a': shape\[0\]: found 2.0"),
    "huge shape": (packed({"a": entry(shape=[2**62] * 9)}), "tensor 'a' of type F32"),
    "many axes": (packed({"a": entry(shape=[1] * 99)}), "tensor 'a': shape"),
    "other size": (packed({"a": entry(shape=[3])}), r"tensor 'a' .* takes 12 bytes"),
    "backwards": (packed({"a": entry(offsets=[8, 0])}), "tensor 'a' .* its data_offsets"),
    "overlap": (packed(TWO | {"b": entry(offsets=(4, 12))}), "tensor 'b' overlaps"),
    "gap": (packed(TWO | {"b": entry(offsets=(12, 20))}), "tensor 'b' has a gap"),
    "outside": (packed(TWO, b"\0" * 15), r"ends within tensor 'b' of shape \(2,\)"),
    "rest": (packed(TWO, b"\0" * 17), "1 bytes after the last tensor"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    content, problem = DAMAGED[name]
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=f"m.safetensors.*{problem}") as found:
        open_tensors(tmp_path / "m.safetensors", ModelError)
    assert len(str(found.value)) < 400


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gone.safetensors: no such file"):
        open_tensors(tmp_path / "gone.safetensors", ModelError)
    with pytest.raises(ModelError, match="not a file"):
        open_tensors(tmp_path, ModelError)


def test_sound_files_are_read(tmp_path: Path) -> None:
    arrays = {
        "b": np.arange(6, dtype=np.float16).reshape(2, 3),
        "a": np.zeros((0, 4), np.float32),
        "whole": np.array(7, np.int64),
        "flags": np.array([True, False, True]),
    }
    save_file(arrays, tmp_path / "m.safetensors", {"heads": "4"})
    found = read_tensors(tmp_path / "m.safetensors")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    (tmp_path / "none.safetensors").write_bytes(packed({}, b""))
    assert read_tensors(tmp_path / "none.safetensors") == {}


def test_types_without_a_numpy_type_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(packed({"a": entry("F8_E4M3", [16], (0, 16))}))
    with pytest.raises(ModelError, match="m.safetensors: not readable as numpy arrays"):
        read_tensors(tmp_path / "m.safetensors", ModelError)
