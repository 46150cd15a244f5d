"""`sf-jax convert`: round trips, merging, and what a verification finds."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from sf_jax import cli
from sf_jax.convert import checksums, hf, peft, tensor_files
from sf_jax.convert import directories as conversion
from sf_jax.model import lora
from sf_jax.model.declared import initialise


def run(*arguments: object) -> int:
    return cli.main(["convert", *map(str, arguments)])


def stored(directory: Path) -> dict[str, tuple[str, bytes]]:
    tensors = tensor_files.open_directory(directory)[1]
    return {name: (tensor.tag, tensor.array().tobytes()) for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_config) -> Path:
    """A checkpoint in bfloat16."""
    out = tmp_path_factory.mktemp("base") / "model"
    hf.save(out, tiny_config, initialise(tiny_config.declare(), 4), ml_dtypes.bfloat16)
    (out / "tokenizer.json").write_text("{}")
    return out


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, tiny_config) -> Path:
    generator = np.random.default_rng(1)

    def make(module, inputs, rank, outputs):
        return generator.normal(size=(inputs, rank)), generator.normal(size=(rank, outputs))

    out = tmp_path_factory.mktemp("adapter")
    chosen = lora.LoraConfig(("q_proj", "down_proj"), rank=2, alpha=1.0)
    peft.save(out, lora.build(chosen, tiny_config.declare(), make), tiny_config.declare())
    return out


@pytest.fixture
def reference(base, tmp_path) -> Path:
    """Our own float32 logits of two rows, the second one padded."""
    ids = np.arange(20, 40).reshape(2, 10)
    mask = np.ones_like(ids)
    mask[1, 7:] = 0
    logits = hf.forward(*hf.load(base), input_ids=ids, attention_mask=mask)
    np.savez(tmp_path / "reference.npz", input_ids=ids, attention_mask=mask, logits=logits)
    return tmp_path / "reference.npz"


def changed(reference: Path, **arrays: np.ndarray) -> None:
    with np.load(reference) as found:
        content = {name: found[name] for name in found.files}
    content |= arrays
    np.savez(reference, **{name: array for name, array in content.items() if array is not None})


def test_through_orbax_and_back(base, tmp_path, capsys) -> None:
    assert run("import", base, tmp_path / "in") == 0
    assert run("export", tmp_path / "in", tmp_path / "back") == 0
    assert stored(tmp_path / "back") == stored(base)
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "back" / name).read_bytes() == (base / name).read_bytes()
    count = sum(leaf.size for leaf in jax.tree.leaves(hf.load(base)[1]))
    assert f"{count:,} numbers in {tmp_path / 'back'}/" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".*"))


def test_types_on_the_way(base, tmp_path) -> None:
    run("import", base, tmp_path / "in", "--dtype", "float32")
    _, weights = conversion.load_imported(tmp_path / "in")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(weights)} == {"float32"}
    run("export", tmp_path / "in", tmp_path / "half", "--dtype", "float16")
    assert {tag for tag, _ in stored(tmp_path / "half").values()} == {"F16"}


def test_merged_equals_separate(base, adapter, tmp_path) -> None:
    assert run("merge", base, adapter, tmp_path / "merged", "--dtype", "float32") == 0
    ids = np.arange(20, 30)[None]
    apart = hf.forward(*hf.load(base, adapter), input_ids=ids)
    together = hf.forward(*hf.load(tmp_path / "merged"), input_ids=ids)
    alone = hf.forward(*hf.load(base), input_ids=ids)
    np.testing.assert_allclose(together, apart, atol=1e-5 * np.abs(apart).max())
    assert np.abs(alone - apart).max() > 0.1 * np.abs(apart).max()


def test_verify_agrees(base, reference, capsys) -> None:
    assert run("verify", base, "--reference", reference) == 0
    out = capsys.readouterr().out
    assert "row 0: 10 positions" in out and "row 1: 7 positions" in out and "\nagrees: " in out


def test_verify_says_where_they_part(base, reference, capsys) -> None:
    with np.load(reference) as found:
        logits = found["logits"].copy()
    logits[0, 4:] += 0.5 * np.abs(logits).max()
    logits[1, 8] = 1e9  # padding: it must not count
    changed(reference, logits=logits)
    assert run("verify", base, "--reference", reference) == 1
    out = capsys.readouterr().out
    assert "first differs from the reference at position 4 (id 24)" in out and "DIFFERS" in out
    assert out.count("first differs") == 1


def test_verify_with_an_adapter(base, adapter, reference) -> None:
    assert run("verify", base, "--reference", reference, "--adapter", adapter) == 1
    ids = np.arange(20, 30)[None]
    logits = hf.forward(*hf.load(base, adapter), input_ids=ids)
    changed(reference, input_ids=ids, logits=logits, attention_mask=None)
    assert run("verify", base, "--reference", reference, "--adapter", adapter) == 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"logits": None}, "array 'logits' is missing"),
        (
            {"logits": np.zeros((2, 9, 5))},
            "array 'logits' has shape (2, 9, 5), expected (2, 10, 'v",
        ),
        ({"logits": np.zeros((2, 10, 5))}, "array 'logits' has shape (2, 10, 5), expected (2, 10"),
        ({"input_ids": np.full((2, 10), 10**6)}, "input_ids holds ids outside"),
        ({"pixel_values": np.zeros((4, 8))}, "come together"),
        ({"attention_mask": np.zeros((2, 10))}, "'attention_mask' leaves a row without a token"),
        ({"input_ids": np.full((2, 10), "a")}, "array 'input_ids' is of type <U1"),
        ({"input_ids": np.zeros((0, 10), int)}, "array 'input_ids' is int64 [0, 10], expected"),
    ],
)
def test_bad_references_are_named(base, reference, capsys, arrays, message) -> None:
    changed(reference, **arrays)
    assert run("verify", base, "--reference", reference) == 2
    error = capsys.readouterr().err
    assert message in error and str(reference) in error and error.count("\n") == 1


def test_an_array_larger_than_its_archive_takes_no_memory(base, tmp_path, capsys) -> None:
    file = tmp_path / "reference.npz"
    np.savez(file, input_ids=np.ones((1, 3), int), logits=np.zeros((1, 3, 50), np.float32))
    file.write_bytes(file.read_bytes().replace(b"(1, 3, 50)", b"(9**9, 50)"))
    assert run("verify", base, "--reference", file) == 2
    assert "reference.npz: not a readable NPZ file" in capsys.readouterr().err
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**13},)}}\n".encode()
    content = np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("logits.npy", content)
    assert run("verify", base, "--reference", file) == 2
    assert "array 'logits' is to be float32 [10000000000000], the file" in capsys.readouterr().err


def test_nothing_is_overwritten_or_left_half_done(base, tmp_path, capsys) -> None:
    (tmp_path / "there").mkdir()
    assert run("import", base, tmp_path / "there") == 2
    assert "exists already" in capsys.readouterr().err
    assert run("import", tmp_path / "none", tmp_path / "out") == 2
    assert "none/config.json: no such file" in capsys.readouterr().err
    assert run("export", base, tmp_path / "out") == 2
    assert "stored.json: no such file" in capsys.readouterr().err
    assert run("verify", base, "--reference", tmp_path / "none", "--limit", "nan") == 2
    assert "'nan' is not a positive number" in capsys.readouterr().err
    (tmp_path / "text").write_text("no archive")
    assert run("verify", base, "--reference", tmp_path / "text") == 2
    assert "not a readable NPZ file" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text", "there"]


def test_a_damaged_import_is_refused(base, tmp_path, capsys) -> None:
    run("import", base, tmp_path / "in")
    content = json.loads((tmp_path / "in" / "config.json").read_text())
    content["text_config"]["intermediate_size"] += 8
    (tmp_path / "in" / "config.json").write_text(json.dumps(content))
    (tmp_path / "in" / checksums.FILE).unlink()  # as written before checksums were
    capsys.readouterr()
    assert run("export", tmp_path / "in", tmp_path / "out") == 2
    note, error = capsys.readouterr().err.splitlines()
    assert "has no sf_jax_checksums.json and cannot be verified" in note
    assert "stored.json: weight" in error and "expected (" in error


@pytest.fixture(scope="module")
def imported(base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "in"
    run("import", base, folder)
    (folder / checksums.FILE).unlink()  # as written before checksums were
    return folder


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda _: [], r"stored.json: found \[\], expected an object"),
        (lambda c: c.pop("tensors"), "stored.json, field 'tensors': is missing"),
        (lambda c: c.update(tensors=[]), "field 'tensors': found .*, expected an object"),
        (lambda c: c["tensors"].update(x="F8"), "field 'tensors.x': found .F8., expected 'F32'"),
        (lambda c: c["tensors"].update(x=None), "field 'tensors.x': found null"),
        (lambda c: c.update(weights=None), "field 'weights': found null, expected an object"),
        (lambda c: c["weights"].update(x=["float32", [2]]), "weight 'x' is none of the model's"),
        (lambda c: c["weights"].update(x=["int4", [2]]), r"field 'weights.x\[0\]': found .int4"),
        (lambda c: c["weights"].update(x=["float32", 2]), r"'weights.x\[1\]': found 2, expected a"),
        (lambda c: c["weights"].update(x=["float32", [2.0]]), r"'weights.x\[1\]\[0\]': found 2.0"),
        (lambda c: c["weights"].update(x=["float32"]), "field 'weights.x"),
        (lambda c: c["weights"].update(x=7), "field 'weights.x': found 7, expected a list"),
        (lambda c: c["weights"].popitem(), "weight '.*' is missing"),
    ],
)
def test_a_stored_json_of_other_types_is_refused(
    imported, tmp_path, capsys, change: Callable, problem: str
) -> None:
    file = imported / "stored.json"
    before = file.read_text()
    content = json.loads(before)
    replaced = change(content)
    file.write_text(json.dumps(replaced if replaced == [] else content))
    try:
        assert run("export", imported, tmp_path / "out") == 2
    finally:
        file.write_text(before)
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(problem, error), error
    assert not (tmp_path / "out").exists()
