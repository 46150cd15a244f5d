"""TFDS datasets of record files hold what the files hold, images byte for byte."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")

from data_pipelines import records, records_builder
from data_pipelines.records import RecordError
from data_pipelines.rendering import jobs, write_shard
from sf_jax.media.errors import DataError
from tests.data_pipelines.tiny_faces import TinyFaces


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "faces"
    out.mkdir()
    for split, count in (("train", 5), ("evaluation", 2)):
        for job in jobs(out, count, split, 3):
            write_shard(TinyFaces(), job)
    return out


def test_records_come_back_as_they_are_stored(folder: Path, tmp_path: Path) -> None:
    imported = tmp_path / "imported"
    imported.mkdir()
    extra = {
        "image": np.zeros((8, 8, 3), np.uint8),
        "coefficients": np.zeros(61, np.float32),
        "rationale": "",
        "scores": np.float32([1, 2]),
    }
    records.write(imported / "take.array_record", [extra])
    builder = records_builder.build(tmp_path / "tfds", [folder, imported], "all")
    assert builder.info.splits["train"].num_examples == 6
    by_seed = {
        record["seed"]: record for path in records.files(folder) for record in records.read(path)
    }
    met = 0
    for split in ("train", "evaluation"):
        for found in builder.as_data_source(split=split):
            if found["identity"] == -1:
                assert found["more"] == b'{"scores": [1.0, 2.0]}' and not found["source"]
                continue
            met += 1
            number = int(found["more"].decode().rpartition('"seed": ')[2].rstrip("}"))
            stored = by_seed[number]
            for name in ("image", "coefficients", "known"):
                np.testing.assert_array_equal(found[name], stored[name])
            assert np.isnan(found["landmarks"]).all() and found["landmarks"].shape == (70, 2)
            assert found["rationale"].decode() == stored["rationale"]
            assert found["identity"] == stored["identity"]
    assert met == 7
    with pytest.raises(DataError, match="holds a dataset 'all' made of other records"):
        records_builder.build(tmp_path / "tfds", [folder], "all")


def test_a_dataset_of_as_many_other_records_is_not_taken_for_the_one_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    records_builder.build(tmp_path / "tfds", [folder])
    records_builder.build(tmp_path / "tfds", [folder])  # the same again
    path = records.files(folder)[0]
    changed = [{**each, "rationale": "Another."} for each in records.read(path)]
    records.write(path, changed)
    with pytest.raises(DataError, match="made of other records"):
        records_builder.build(tmp_path / "tfds", [folder])


def test_damaged_records_are_named(folder: Path, tmp_path: Path) -> None:
    wrong = {"image": b"none", "coefficients": np.zeros(61, np.float32), "rationale": ""}
    records.write_encoded(folder / "train-9.array_record", [records.packed(wrong)])
    with pytest.raises(RecordError, match=r"train-9.array_record, record 0: field 'image'"):
        records_builder.build(tmp_path / "tfds", [folder])
