"""The benchmark of the loader: both sides hold the same records; ratios are of the best."""

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.rendering import jobs, write_shard
from sf_jax.bench import loader
from sf_jax.cli.arguments import UsageError
from tests.data_pipelines.tiny_faces import TinyFaces


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for job in jobs(tmp_path, 12, "train", 6):
        write_shard(TinyFaces(), job)
    return tmp_path


def test_both_decoders_give_the_fields_that_are_compared(folder: Path) -> None:
    same = loader.Dataset(folder, loader.records.decode)
    own = loader.Dataset(folder, loader.by_pillow)
    assert len(same) == len(own) == 12
    for index in (0, 7, 11):
        for name in loader.FIELDS:
            one, other = (np.asarray(data[index][name], float) for data in (same, own))
            assert one.shape == other.shape and np.abs(one - other).max() <= 2, name
    batch = next(loader.ours(folder, 4))
    assert {name: x.shape for name, x in batch.items()} == {
        "image": (4, 12, 16, 3),
        "coefficients": (4, 61),
        "known": (4, 61),
    }


def test_the_ratio_is_to_the_best_number_of_workers() -> None:
    rates = {"sf_jax": [90.0, 110, 100], "torch-0": [50.0, 50, 50], "torch-1": [80.0, 70, 900]}
    text = loader.table({"same": rates})
    assert "| same | sf_jax | 100 | 90 to 110 |" in text
    assert "same decoder: 1.25 x the DataLoader's best (torch-1)" in text


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    with pytest.raises((UsageError, ValueError), match="holds no"):
        loader.main(["--records", str(tmp_path)])
