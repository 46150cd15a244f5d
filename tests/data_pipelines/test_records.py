"""Record files: what goes in comes out, and what is broken is named."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from flax import serialization

from data_pipelines import records
from data_pipelines.records import RecordError


def record(seed: int) -> dict[str, Any]:
    g = np.random.default_rng(seed)
    return {
        "image": g.integers(0, 256, (20, 32, 3)).astype(np.uint8),
        "coefficients": g.random(61).astype(np.float32),
        "rationale": f"Brauen hoch, Mund zu — {seed}",
        "landmarks": g.random((5, 2)).astype(np.float32),
        "dense": bool(seed % 2),
        "identity": seed,
    }


ADDED = {"known": np.ones(61, bool), "source": "", "style": ""}  # to a record without them


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    expected = ADDED | expected
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert np.asarray(found[name]).dtype == np.asarray(value).dtype, name


def packed(**changes: Any) -> bytes:
    """A stored record with fields replaced, or left out where None is given."""
    stored = serialization.msgpack_restore(records.encode(record(0)))
    stored.update(changes)
    return serialization.msgpack_serialize({k: v for k, v in stored.items() if v is not None})


def write_raw(path: Path, *rows: bytes) -> Path:
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for row in rows:
        writer.write(row)
    writer.close()
    return path


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.array_record"
    assert records.write(path, (record(i) for i in range(5))) == 5
    assert records.count(path) == 5
    for i, found in enumerate(records.read(path)):
        assert_equal(found, record(i))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.array_record"]


def test_a_record_without_the_newer_fields_is_wholly_known(tmp_path: Path) -> None:
    old = {name: record(0)[name] for name in records.FIELDS}
    found = records.decode(records.encode(old))
    assert found["known"].all() and found["known"].dtype == bool
    assert found["landmarks"].shape == (70, 2) and np.isnan(found["landmarks"]).all()
    assert (found["source"], found["style"]) == ("", "")


def test_what_is_not_known_is_zero(tmp_path: Path) -> None:
    known = np.arange(61) % 2 == 0
    with pytest.raises(RecordError, match="'coefficients' is not 0 where 'known' is false"):
        records.decode(packed(known=known))
    zeroed = record(0)["coefficients"] * known
    found = records.decode(packed(known=known, coefficients=zeroed))
    np.testing.assert_array_equal(found["known"], known)


def test_images_that_need_not_be_exact_are_small(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(64), np.arange(96))[..., None] + np.array([0, 40, 90])
    image = record(0) | {"image": smooth.astype(np.uint8)}
    exact, small = records.encode(image), records.encode(image, exact=False)
    difference = records.decode(small)["image"].astype(int) - image["image"]
    assert 0 < np.abs(difference).max() < 12
    np.testing.assert_array_equal(records.decode(exact)["image"], image["image"])
    noise = record(0) | {"image": np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)}
    assert len(records.encode(noise, exact=False)) < 0.9 * len(records.encode(noise))


def test_files_are_listed_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        records.write(tmp_path / f"{name}.array_record", [record(0)])
    names = [Path(path).stem for path in records.files(tmp_path)]
    assert names == ["a", "b", "c"]


@pytest.mark.parametrize("name", records.FIELDS)
def test_a_missing_field_is_named(tmp_path: Path, name: str) -> None:
    path = write_raw(tmp_path / "a.array_record", packed(), packed(**{name: None}))
    rows = records.read(path)
    next(rows)
    with pytest.raises(RecordError, match=rf"a\.array_record, record 1: field '{name}' is missing"):
        next(rows)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", b"no picture"),
        ("image", b""),
        ("image", 5),
        ("coefficients", np.zeros(52, np.float32)),
        ("coefficients", np.full(61, np.nan, np.float32)),
        ("coefficients", "sixty-one"),
        ("known", np.ones(52, bool)),
        ("known", np.ones(61, np.float32)),
        ("landmarks", np.full((70, 2), np.inf, np.float32)),
        ("landmarks", np.zeros(140, np.float32)),
        ("landmarks", [[0.5, 0.5]]),
        ("source", 5),
        ("style", b"ink"),
    ],
)
def test_a_damaged_field_is_named(tmp_path: Path, field: str, value: Any) -> None:
    path = write_raw(tmp_path / "a.array_record", packed(**{field: value}))
    with pytest.raises(RecordError, match=rf"a\.array_record, record 0: field '{field}' is not"):
        list(records.read(path))


def test_a_record_of_another_kind_is_named(tmp_path: Path) -> None:
    for data in (
        b"\xc1rubbish",
        serialization.msgpack_serialize({}),
        records.encode(record(0))[:-9],
    ):
        path = write_raw(tmp_path / "a.array_record", data)
        with pytest.raises(RecordError, match=r"a\.array_record, record 0: "):
            list(records.read(path))


def test_a_truncated_or_foreign_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.array_record"
    records.write(path, [record(i) for i in range(40)])
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], b"", b"something else" * 9000):
        path.write_bytes(content)
        for use in (
            records.count,
            lambda p: list(records.read(p)),
            lambda p: records.files(p.parent),
        ):
            with pytest.raises(RecordError, match=r"a\.array_record: missing, truncated or"):
                use(path)


def test_damaged_bytes_never_pass_for_other_records(tmp_path: Path) -> None:
    path = tmp_path / "a.array_record"
    records.write(path, [record(i) for i in range(40)])
    damaged = bytearray(path.read_bytes())
    damaged[5000:5040] = bytes(40)
    path.write_bytes(damaged)
    with pytest.raises(RecordError, match=r"a\.array_record"):
        list(records.read(path))


def test_a_missing_file_or_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="b.array_record"):
        list(records.read(tmp_path / "b.array_record"))
    with pytest.raises(RecordError, match=r"holds no \*\.array_record file"):
        records.files(tmp_path)


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_nothing_half_written_is_left(tmp_path: Path, kind: type[BaseException]) -> None:
    def breaking() -> Iterator[dict[str, Any]]:
        yield record(0)
        raise kind("no more")

    path = tmp_path / "a.array_record"
    with pytest.raises(kind, match="no more"):
        records.write(path, breaking())
    assert not list(tmp_path.iterdir())

    records.write(path, [record(3)])
    with pytest.raises(kind):
        records.write(path, breaking())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.array_record"]
    assert_equal(next(records.read(path)), record(3))
