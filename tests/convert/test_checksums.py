"""A flipped bit, a cut or a missing file in what this project wrote is found before it is used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sf_jax import cli
from sf_jax.convert import checksums, hf, peft
from sf_jax.convert.tensor_files import CheckpointError
from sf_jax.media import hashes
from sf_jax.model import lora
from sf_jax.model.declared import initialise
from sf_jax.reader import calibration, loading, provenance, reliability


def run(*arguments: object) -> int:
    return cli.main(["convert", *map(str, arguments)])


@pytest.fixture(scope="module")
def imported(tmp_path_factory, tiny_config) -> Path:
    folder = tmp_path_factory.mktemp("checksums")
    hf.save(folder / "model", tiny_config, initialise(tiny_config.declare(), 4))
    (folder / "model" / "tokenizer.json").write_text("{}")
    assert run("import", folder / "model", folder / "in") == 0
    return folder / "in"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_every_file_of_an_import_is_verified(imported, tmp_path, capsys) -> None:
    names = [p.relative_to(imported) for p in imported.rglob("*") if p.is_file()]
    assert len(names) > 8
    for number, name in enumerate(names):
        damage = (flip, cut, Path.unlink)[number % 3] if name.name != checksums.FILE else flip
        if not (imported / name).stat().st_size:
            continue
        copy = tmp_path / "copy"
        shutil.copytree(imported, copy)
        damage(copy / name)
        assert run("export", copy, tmp_path / "out") == 2, name
        error = capsys.readouterr().err
        # A digit that flips in the checksums is a checksum that differs.
        assert "copy/" in error and error.count("\n") == 1, error
        assert name.name in error or name.name == checksums.FILE
        assert [path.name for path in tmp_path.iterdir()] == ["copy"]
        shutil.rmtree(copy)


def test_an_import_of_before_is_read_whole_before_it_is_restored(
    imported, tmp_path, capsys
) -> None:
    """Orbax reads many files at once, and prints a traceback for each that it then gives up."""
    for name, damage, problem in (
        ("weights/array_metadatas/process_0", cut, "array_metadatas/process_0: "),
        ("weights/manifest.ocdbt", Path.unlink, "it holds no arrays"),
        (None, Path.unlink, "the file that holds "),  # which array that is varies
    ):
        shutil.copytree(imported, tmp_path / "copy")
        (tmp_path / "copy" / checksums.FILE).unlink()
        data = [p for p in (tmp_path / "copy" / "weights").rglob("d/*") if p.is_file()]
        largest = max(data, key=lambda path: path.stat().st_size)
        damage(largest if name is None else tmp_path / "copy" / name)
        assert run("export", tmp_path / "copy", tmp_path / "out") == 2
        note, error = capsys.readouterr().err.splitlines()
        assert "cannot be verified" in note and f"copy/weights: not readable: {problem}" in error
        shutil.rmtree(tmp_path / "copy")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: [], "found \\[\\], expected an object"),
        (
            lambda content: content | {"files": {"config.json": 3}},
            "field 'files.config.json': found 3, expected text",
        ),
        (lambda content: content | {"algorithm": "md5"}, "field 'algorithm': found 'md5'"),
        (lambda content: content | {"files": {"../x": ""}}, "'../x' is no file of this directory"),
        (lambda content: content | {"files": {"/etc/x": ""}}, "'/etc/x' is no file of this"),
    ],
)
def test_checksums_that_are_none_are_refused(
    imported, tmp_path, change: Callable, problem: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(imported, copy)
    content = json.loads((copy / checksums.FILE).read_text())
    (copy / checksums.FILE).write_text(json.dumps(change(content)))
    with pytest.raises(CheckpointError, match=f"sf_jax_checksums.json.*{problem}"):
        checksums.verify(copy)


def test_what_is_exported_merged_and_trained_is_sealed(imported, tmp_path, tiny_config) -> None:
    assert run("export", imported, tmp_path / "model") == 0

    def make(module, inputs, rank, outputs):
        return np.ones((inputs, rank)), np.ones((rank, outputs))

    chosen = lora.LoraConfig(("q_proj",), rank=2, alpha=1.0)
    declared = tiny_config.declare()
    peft.save(tmp_path / "adapter", lora.build(chosen, declared, make), declared)
    assert run("merge", tmp_path / "model", tmp_path / "adapter", tmp_path / "merged") == 0
    for name in ("model", "adapter", "merged"):
        found = checksums.verify(tmp_path / name)
        assert found and any(file.endswith(".safetensors") for file in found)
    flip(tmp_path / "adapter" / peft.TENSOR_FILE)
    assert run("merge", tmp_path / "model", tmp_path / "adapter", tmp_path / "again") == 2
    flip(tmp_path / "model" / "model.safetensors")
    assert run("import", tmp_path / "model", tmp_path / "again") == 2
    hf.save(tmp_path / "model", *hf.load(tmp_path / "merged"))  # others write into a model's folder
    assert checksums.verify(tmp_path / "model") is None


def test_the_shipped_model_is_as_it_was_sealed() -> None:
    found = checksums.verify(loading.BUILTIN)
    assert found is not None
    notes = {checksums.FILE, "MODEL_CARD.md", reliability.FILE, calibration.FILE}  # on the weights
    assert found.keys() == {path.name for path in loading.BUILTIN.iterdir()} - notes
    weights = hashes.of_file(loading.BUILTIN / "model.safetensors")
    assert provenance.verified(loading.BUILTIN).weights == f"xxh128:{weights}"


def test_files_beside_the_weights_are_part_of_what_an_answer_is_made_with(
    tmp_path, tiny_config
) -> None:
    """With checksums and without; draft heads and notes are none."""
    hf.save(tmp_path, tiny_config, initialise(tiny_config.declare(), 4))
    met = [provenance.verified(tmp_path).settings]
    for name in ("finder.safetensors", "readout.safetensors", "schema.json", "reliability.json"):
        (tmp_path / name).write_text(name)
        met.append(provenance.verified(tmp_path).settings)
    assert len(set(met)) == 5
    (tmp_path / "draft_heads.safetensors").write_text("faster")
    (tmp_path / "MODEL_CARD.md").write_text("notes")
    checksums.seal(tmp_path)
    sealed = provenance.verified(tmp_path)
    assert sealed.settings == met[-1] and "settings" not in sealed.as_json()
    (tmp_path / "reliability.json").write_text("written later, beside the checksums")
    assert provenance.verified(tmp_path).settings not in met


def test_a_changed_model_is_not_loaded(tmp_path) -> None:
    shutil.copytree(loading.BUILTIN, tmp_path / "model")
    flip(tmp_path / "model" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: differs from its checksum"):
        loading.load(tmp_path / "model")


def test_shards_have_one_hash(tmp_path, tiny_config) -> None:
    weights = initialise(tiny_config.declare(), 4)
    hf.save(tmp_path, tiny_config, weights, max_shard_bytes=40_000)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    lines = "".join(f"{hashes.of_file(tmp_path / name)}  {name}\n" for name in files)
    (tmp_path / "lines").write_text(lines)
    whole = f"xxh128:{hashes.of_file(tmp_path / 'lines')}"
    assert provenance.verified(tmp_path).weights == whole
    checksums.seal(tmp_path)
    assert {*files, "config.json"} < checksums._read(tmp_path / checksums.FILE).keys()
    assert provenance.verified(tmp_path).weights == whole


def test_weights_without_checksums_are_hashed_when_they_are_named(
    tmp_path, tiny_config, monkeypatch
) -> None:
    hf.save(tmp_path, tiny_config, initialise(tiny_config.declare(), 4))
    (tmp_path / "adapter").mkdir()
    for name in (peft.CONFIG_FILE, peft.TENSOR_FILE):
        (tmp_path / "adapter" / name).write_text(name)
    read: list[str] = []
    monkeypatch.setattr(hashes, "of_file", lambda path: read.append(path.name) or "0")
    first, second = (provenance.verified(tmp_path, tmp_path / "adapter") for _ in "ab")
    assert "model.safetensors" not in read
    assert first.as_json()["weights"] == first.weights == "xxh128:0"
    assert read.count("model.safetensors") == 1
    assert first.adapter and first.version
    flip(tmp_path / "model.safetensors")  # what is there now is not what was loaded
    assert second.weights is None and "weights" not in second.as_json()
    assert first.weights == "xxh128:0"


def test_files_of_others_are_no_part_of_a_model(tmp_path) -> None:
    for part in ("model", "adapter"):
        folder = tmp_path / part
        folder.mkdir()
        own = {
            "model": ("config.json", "model.safetensors", "draft_heads.safetensors"),
            "adapter": (peft.CONFIG_FILE, peft.TENSOR_FILE),
        }[part]
        others = ("notes.txt", "trainer_state.json", "evaluation.json", "optimizer.safetensors")
        for name in (*own, *others):
            (folder / name).write_text(name)
        checksums.seal(folder)
        for name in others:
            (folder / name).write_text("other")
        found = checksums.verify(folder)
        assert found is not None and found.keys() == set(own)
