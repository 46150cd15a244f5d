"""Batches: the same every time, resumable, the same for any number of processes, mirrored whole."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import grain.python as grain
import numpy as np
import pytest

from data_pipelines import loader, records
from data_pipelines.records import RecordError
from sf_jax.face.channels import INDEX, mirror
from sf_jax.media import hashes
from sf_jax.train.fingerprint import Fingerprint, changes


class Mirror(grain.RandomMapTransform):
    """Mirrors half of the records."""

    def random_map(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return loader.mirrored(record) if rng.random() < 0.5 else record


def record(number: int) -> dict[str, Any]:
    g = np.random.default_rng([8, number])
    return {
        "image": g.integers(0, 256, (16, 24, 3)).astype(np.uint8),
        "coefficients": g.random(61).astype(np.float32),
        "rationale": f"face {number}",
        "landmarks": g.random((70, 2)).astype(np.float32),
        "parts": g.integers(0, 9, (4, 4)).astype(np.uint8),
        "identity": number,
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 records in three files."""
    path = tmp_path_factory.mktemp("records")
    numbers = iter(range(23))
    for i, count in enumerate((9, 4, 10)):
        rows = [record(n) for n in itertools.islice(numbers, count)]
        records.write(path / f"train-{i}.array_record", rows)
    return path


def collate(rows: Any) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in ("identity", "image")}


def take(batches: Any, count: int) -> list[dict[str, np.ndarray]]:
    return list(itertools.islice(batches, count))


def assert_same(found: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        for name in b:
            np.testing.assert_array_equal(a[name], b[name])


def build(directory: Path, size: int = 4, **options: Any) -> Any:
    return loader.faces(directory, size, collate, **options)[0]


def test_a_seed_gives_the_same_batches(directory: Path) -> None:
    options = {"transform": Mirror(), "seed": 3}
    first = take(build(directory, **options), 12)
    assert_same(take(build(directory, threads=1, **options), 12), first)
    other = take(build(directory, transform=Mirror(), seed=4), 12)
    assert any((a["identity"] != b["identity"]).any() for a, b in zip(first, other, strict=True))


def test_an_epoch_holds_every_record_once(directory: Path) -> None:
    batches = list(build(directory, 1, epochs=1))
    assert sorted(int(batch["identity"][0]) for batch in batches) == list(range(23))
    plain = [int(batch["identity"][0]) for batch in build(directory, 1, epochs=1, shuffle=False)]
    assert plain == list(range(23))


def test_each_epoch_is_shuffled_and_mirrored_anew(directory: Path) -> None:
    batches = take(build(directory, 1, transform=Mirror()), 46)
    order = [int(batch["identity"][0]) for batch in batches]
    assert sorted(order[:23]) == sorted(order[23:]) == list(range(23))
    assert order[:23] != order[23:]
    flipped = np.zeros((2, 23), bool)
    for i, batch in enumerate(batches):
        n = int(batch["identity"][0])
        flipped[i // 23, n] = (batch["image"][0] != record(n)["image"]).any()
    assert 6 < flipped[0].sum() < 18 and (flipped[0] != flipped[1]).any()


@pytest.mark.parametrize("seen", [0, 1, 7])
def test_resuming_continues_exactly(directory: Path, seen: int) -> None:
    options = {"transform": Mirror(), "seed": 1}
    whole = take(build(directory, **options), 14)
    stopped = build(directory, **options)
    take(stopped, seen)
    state = stopped.get_state()
    take(stopped, 3)  # work after the checkpoint is lost
    resumed = build(directory, **options)
    resumed.set_state(state)
    assert_same(take(resumed, 14 - seen), whole[seen:])


def test_shares_of_two_processes_make_the_batch_of_one(directory: Path) -> None:
    options = {"transform": Mirror(), "seed": 2}
    whole = take(build(directory, 8, **options), 9)
    shares = [
        take(build(directory, 8, process_index=p, process_count=2, **options), 9) for p in (0, 1)
    ]
    for batch, left, right in zip(whole, *shares, strict=True):
        for name, expected in batch.items():
            both = np.stack([left[name], right[name]], 1).reshape(expected.shape)
            np.testing.assert_array_equal(both, expected)


def test_a_batch_that_cannot_be_shared_is_refused(directory: Path) -> None:
    with pytest.raises(ValueError, match="batch_size 9 is no multiple of 2 processes"):
        build(directory, 9, process_count=2)


def test_mirroring_flips_picture_landmarks_and_coefficients() -> None:
    plain = record(5)
    out = loader.mirrored(plain)
    np.testing.assert_array_equal(out["image"][:, 0], plain["image"][:, -1])
    np.testing.assert_array_equal(out["parts"], plain["parts"][:, ::-1])
    x, y = plain["landmarks"].T
    for left, right in ((36, 45), (8, 8), (68, 69)):
        np.testing.assert_allclose(out["landmarks"][left], [1 - x[right], y[right]], atol=1e-6)
    left, right = INDEX["MouthSmileLeft"], INDEX["MouthSmileRight"]
    assert out["coefficients"][left] == plain["coefficients"][right]
    np.testing.assert_array_equal(out["coefficients"], mirror(plain["coefficients"]))
    assert out["rationale"] == "" and plain["rationale"] == "face 5"

    again = loader.mirrored(out)
    for name in ("image", "parts", "coefficients"):
        np.testing.assert_array_equal(again[name], plain[name])
    np.testing.assert_allclose(again["landmarks"], plain["landmarks"], atol=1e-6)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    records.write(tmp_path / "a.array_record", [record(0)])
    wrong = {**record(1), "coefficients": np.zeros(52, np.float32)}
    records.write(tmp_path / "b.array_record", [record(2), wrong])
    with pytest.raises(RecordError, match=r"b\.array_record, record 1: field 'coefficients'"):
        list(build(tmp_path, 1, epochs=1))


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no"):
        build(tmp_path)


def test_records_come_by_number_in_shuffled_epochs(tmp_path: Path) -> None:
    for name, part in (("a", range(4)), ("b", range(4, 11))):
        rows = (record(n) for n in part)
        records.write(tmp_path / f"{name}.array_record", rows)
    order = loader.ShuffledRecords(tmp_path, seed=2)
    found = [order(n) for n in range(33)]
    identities = [one["identity"] for _, one in found]
    epochs = [identities[i : i + 11] for i in (0, 11, 22)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    for where, one in found:
        n = one["identity"]
        place = f"a.array_record, record {n}" if n < 4 else f"b.array_record, record {n - 4}"
        assert where == str(tmp_path / place)
        np.testing.assert_array_equal(one["image"], record(n)["image"])
    assert order.locations(range(11, 22)) in (
        f"{tmp_path}/{one}.array_record, records {list(range(a))}; "
        f"{tmp_path}/{two}.array_record, records {list(range(b))}"
        for one, a, two, b in (("a", 4, "b", 7), ("b", 7, "a", 4))
    )
    again, other = (
        loader.ShuffledRecords(tmp_path, seed=2),
        loader.ShuffledRecords(tmp_path, seed=3),
    )
    assert [again(n)[1]["identity"] for n in (20, 3)] == [identities[20], identities[3]]
    assert [other(n)[1]["identity"] for n in range(11)] != epochs[0]


def fingerprint(directory: Path, **order: float) -> Fingerprint:
    return loader.ShuffledRecords(directory, seed=2).fingerprint(**order)


def test_a_fingerprint_is_of_content_and_order_not_of_the_folder(
    directory: Path, tmp_path: Path
) -> None:
    whole = fingerprint(directory, rows=4)
    assert [file.records for file in whole.files.values()] == [9, 4, 10]
    assert whole.order == {"seed": 2, "rows": 4}
    shutil.copytree(directory, tmp_path / "moved")
    assert fingerprint(tmp_path / "moved", rows=4) == whole
    path = tmp_path / "moved" / "train-1.array_record"
    records.write(path, [record(9), record(10), record(11) | {"identity": 4}, record(12)])
    assert changes(whole, fingerprint(tmp_path / "moved", rows=4)).startswith("train-1.array_rec")
    path.rename(path.with_name("train-9.array_record"))
    found = changes(whole, fingerprint(tmp_path / "moved", rows=5))
    assert found == (
        "train-1.array_record is missing; train-9.array_record is new; rows is 5, was 4"
    )
    batches = loader.faces(directory, 4, collate, seed=1)
    assert batches[1].order == {"seed": 1, "batch": 4}


def test_small_data_is_hashed_whole_whatever_the_share_of_a_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [path.stat().st_size for path in sorted(directory.iterdir())]
    budgets: list[int] = []
    monkeypatch.setattr(loader, "LEAST_SAMPLED", 10)
    monkeypatch.setattr(hashes, "of_samples", lambda path, budget: budgets.append(budget) or "0")
    for sampled, expected in ((sum(sizes), sum(sizes)), (sum(sizes) - 1, (sum(sizes) - 1) // 3)):
        monkeypatch.setattr(loader, "SAMPLED", sampled)
        fingerprint(directory)
        assert budgets == [expected] * 3 and expected >= 10
        budgets.clear()


def test_large_data_is_hashed_in_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "SAMPLE", 10)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)))
    found = {hashes.of_samples(path, 50)}
    for at in (0, 9, 60, 69, 120, 249, 10, 59, 200):  # samples begin at 0, 60, 120, 180 and 240
        content = bytearray(range(250))
        content[at] ^= 1
        path.write_bytes(content)
        sampled = at % 60 < 10
        assert (hashes.of_samples(path, 50) not in found) == sampled, at
        assert hashes.of_samples(path, 250) == hashes.of_file(path)
