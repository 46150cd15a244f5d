"""Mixtures of folders: shares held, every record met, the same on any number of processes."""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines import mixed_records, records
from data_pipelines.mixed_records import MixedRecords, MixtureError, parse_folders
from data_pipelines.records import RecordError
from sf_jax.sequence.batch import Capacity
from sf_jax.sequence.packing import PackedBatches
from sf_jax.train.fingerprint import changes
from sf_jax.train.prefetch import Prefetched

SIZES = {"faces": 40, "takes": 9, "drawings": 3}
WEIGHTS = {"faces": 5, "takes": 2.5, "drawings": 0.7}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, float]:
    """Three folders, the first of two files; record n of folder f has identity 100 f + n."""
    root = tmp_path_factory.mktemp("records")
    for f, (name, size) in enumerate(SIZES.items()):
        (root / name).mkdir()
        rows = [
            {
                "image": np.full((4, 4, 3), n, np.uint8),
                "coefficients": np.zeros(61, np.float32),
                "rationale": "",
                "identity": 100 * f + n,
            }
            for n in range(size)
        ]
        half = size // 2
        records.write(root / name / "a.array_record", rows[:half])
        records.write(root / name / "b.array_record", rows[half:])
    return {root / name: weight for name, weight in WEIGHTS.items()}


def test_shares_are_those_of_the_weights_over_any_ten_thousand_examples(
    folders: dict[Path, float],
) -> None:
    """Within 1 %, and in each of four rows and any stretch of 1,000 nearly so."""
    mixed = MixedRecords(folders, seed=4)
    found = np.array([mixed.which(n)[0] for n in range(500, 10_500)])
    wanted = np.array(list(WEIGHTS.values())) / sum(WEIGHTS.values())
    assert np.abs(np.bincount(found) / len(found) - wanted).max() < 0.01
    for row in range(4):
        part = found[row::4]
        assert np.abs(np.bincount(part) / len(part) - wanted).max() < 0.02
    for start in range(0, 9000, 1000):
        part = found[start : start + 1000]
        assert np.abs(np.bincount(part, minlength=3) / 1000 - wanted).max() < 0.04


def test_every_record_of_a_folder_is_met_equally_often(folders: dict[Path, float]) -> None:
    mixed = MixedRecords(folders, seed=1)
    met = Counter(mixed.which(n) for n in range(1000))  # a window
    for folder, size in enumerate(SIZES.values()):
        times = [met[folder, index] for index in range(size)]
        assert min(times) > 0 and max(times) - min(times) <= 1, folder


def test_a_number_gives_the_same_record_in_any_order(folders: dict[Path, float]) -> None:
    mixed, again = MixedRecords(folders, seed=2), MixedRecords(folders, seed=2)
    for number in (70, 3, 12_345):
        where, record = mixed(number)
        folder, index = mixed.which(number)
        assert record["identity"] == 100 * folder + index
        assert again(number)[0] == where and f"/{list(SIZES)[folder]}/" in where
        assert mixed.locations([number]) == where.replace("record ", "records [") + "]"
    other = MixedRecords(folders, seed=3)
    assert [mixed.which(n) for n in range(50)] != [other.which(n) for n in range(50)]


def test_a_fingerprint_names_the_folders_and_their_shares(folders: dict[Path, float]) -> None:
    saved = MixedRecords(folders).fingerprint(rows=4)
    assert list(saved.files)[:2] == ["faces/a.array_record", "faces/b.array_record"]
    doubled = {folder: 2 * weight for folder, weight in folders.items()}
    assert not changes(saved, MixedRecords(doubled).fingerprint(rows=4))
    faces = next(iter(folders))
    other = MixedRecords({**folders, faces: 1}).fingerprint(rows=4)
    assert "share of faces is" in changes(saved, other)


def take(batches: Any, count: int) -> list[Any]:
    return list(itertools.islice(batches, count))


class Text:
    """An example of a few tokens, for packing."""

    def __init__(self, number: int, identity: int):
        self.number, self.identity = number, identity
        self.size = 3 + identity % 5, 0
        self.where = str(number)


def packed(mixed: MixedRecords, rows: Sequence[int] | None) -> PackedBatches:
    return PackedBatches(
        lambda number: Text(number, int(mixed(number)[1]["identity"])),  # type: ignore[arg-type,return-value]
        Capacity(16),
        row_count=4,
        rows=rows,
        pool=6,
        build=lambda rows, _: [[one.identity for one in row] for row in rows],  # type: ignore[attr-defined,arg-type,return-value]
    )


def test_packed_rows_of_a_mixture_are_the_same_on_1_2_and_4_processes_and_resume(
    folders: dict[Path, float],
) -> None:
    mixed = MixedRecords(folders, seed=7)
    whole = packed(mixed, None)
    expected: list[Any] = take(whole, 4)
    state = json.loads(json.dumps(whole.get_state()))
    for count in (2, 4):
        parts = [list(range(p, 4, count)) for p in range(count)]
        found = [take(packed(mixed, part), 4) for part in parts]
        for step in range(4):
            rows = {
                row: made
                for part, batches in zip(parts, found, strict=True)
                for row, made in zip(part, batches[step], strict=True)
            }
            assert [rows[row] for row in range(4)] == expected[step]
    following: Any = next(whole)
    resumed = packed(mixed, [3, 1])
    resumed.set_state(state)
    assert next(resumed) == [following[3], following[1]]


def test_packed_rows_of_a_mixture_continue_exactly_after_any_batch(
    folders: dict[Path, float],
) -> None:
    mixed = MixedRecords(folders, seed=6)
    whole: list[Any] = take(packed(mixed, None), 9)
    for ahead in (1, 3):
        stopped = Prefetched(packed(mixed, None), list, ahead)
        for seen in range(6):
            resumed = packed(mixed, None)
            resumed.set_state(json.loads(json.dumps(stopped.get_state())))
            assert take(resumed, 2) == whole[seen : seen + 2], (ahead, seen)
            next(stopped)


def test_folders_are_read_from_a_text(tmp_path: Path) -> None:
    assert parse_folders("a/faces=3, takes") == {Path("a/faces"): 3, Path("takes"): 1}
    assert parse_folders("a=b=2") == {Path("a=b"): 2}
    for text, problem in (
        ("faces=0", "'faces=0' is no FOLDER=WEIGHT"),
        ("faces=x", "'faces=x' is no FOLDER=WEIGHT"),
        ("=2", "'=2' is no FOLDER=WEIGHT"),
        ("a=1,a=2", "a: is given twice"),
    ):
        with pytest.raises(MixtureError, match=problem):
            parse_folders(text)


def test_mixtures_that_cannot_be_made_are_refused(
    folders: dict[Path, float], tmp_path: Path
) -> None:
    faces = next(iter(folders))
    with pytest.raises(MixtureError, match="faces: weight -1, expected more than 0"):
        MixedRecords({faces: -1})
    with pytest.raises(MixtureError, match="no folder"):
        MixedRecords({})
    with pytest.raises(RecordError, match="holds no"):
        MixedRecords({faces: 1, tmp_path: 1})
    with pytest.raises(MixtureError, match="given twice"):
        MixedRecords({faces: 1, faces.parent / "." / ".." / faces.parent.name / "faces": 2})


def test_folders_of_the_same_name_have_longer_names() -> None:
    found = mixed_records._names(["/a/faces", "/b/faces", "/b/takes/"])
    assert found == ["a/faces", "b/faces", "b/takes"]
