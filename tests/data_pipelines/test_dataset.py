"""Datasets: the same files however they are made; resumed whole; every fault named by `verify`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines import dataset, manifest, records, verifying
from data_pipelines.checked_faces import CheckedFaces, checked
from data_pipelines.dataset import Plan
from data_pipelines.mixtures import Inputs, build
from data_pipelines.rendering import jobs, write_shard
from data_pipelines.sources import Framing, number_of
from sf_jax.face.channels import INDEX
from sf_jax.media.errors import DataError
from tests.data_pipelines.tiny_faces import TinyFaces

COUNTS = {"train": 23, "evaluation": 9}


def plan(out: Path, **counts: int) -> Plan:
    return Plan(out, counts or COUNTS, shard=5)


def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes files in this process: starting others costs seconds."""
    from data_pipelines import rendering

    monkeypatch.setattr(rendering, "in_processes", lambda make, items, workers: map(make, items))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 and 9 records in files of five."""
    folder = tmp_path_factory.mktemp("made") / "faces"
    with pytest.MonkeyPatch.context() as monkeypatch:
        here(monkeypatch)
        dataset.make(plan(folder), TinyFaces(), 1)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A dataset to damage."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for name, content in contents(made).items():
        (folder / name).write_bytes(content)
    return folder


def numbers(folder: Path, split: str) -> list[int]:
    return [
        record["seed"]
        for path in sorted(folder.glob(f"{split}-*.array_record"))
        for record in records.read(path)
    ]


@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_any_number_of_processes_makes_the_same_files(
    made: Path, tmp_path: Path, workers: int
) -> None:
    met: list[int] = []
    dataset.make(
        plan(tmp_path), TinyFaces(), workers, lambda one: met.append(one.summary.shard.records)
    )
    assert contents(tmp_path) == contents(made) and met == [5, 5, 5, 5, 3, 5, 4]
    for split, count in COUNTS.items():
        assert numbers(made, split) == [number_of(i, 0, split) for i in range(count)]


def test_what_was_stopped_is_continued_without_duplicates_or_holes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch)
    flag = tmp_path / "flag"
    flag.touch()
    stopping = TinyFaces(stops_at=12, failing=flag)
    out = tmp_path / "faces"
    with pytest.raises(KeyboardInterrupt):
        dataset.make(plan(out), stopping, 1)
    left = {path.name for path in out.iterdir()}
    files = {name for name in left if name.endswith("array_record")}
    assert files == {"train-00000.array_record", "train-00001.array_record"}
    flag.unlink()
    (out / "train-00001.array_record").write_bytes(b"damaged since")
    kept: list[bool] = []
    dataset.make(plan(out), stopping, 1, lambda one: kept.append(one.kept))
    assert kept == [True] + [False] * 6
    assert contents(out) == contents(made)


def test_a_dataset_grows_and_is_never_cut(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch)
    dataset.make(plan(tmp_path, train=12, evaluation=9), TinyFaces(), 1)
    dataset.make(plan(tmp_path), TinyFaces(), 1)
    assert contents(tmp_path) == contents(made)
    with pytest.raises(DataError, match="train-00003.*ask for as many as before"):
        dataset.make(plan(tmp_path, train=12, evaluation=9), TinyFaces(), 1)
    with pytest.raises(DataError, match=r"train-00004.*holds 3 records, 2 are asked for"):
        dataset.make(plan(tmp_path, train=22, evaluation=9), TinyFaces(), 1)
    with pytest.raises(DataError, match="train-00000.*holds other faces"):
        dataset.make(plan(tmp_path), TinyFaces(seed=1), 1)
    with pytest.raises(DataError, match="made with another people"):
        dataset.make(plan(tmp_path), TinyFaces(people=8), 1)
    assert contents(tmp_path) == contents(made)


def test_people_in_both_splits_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)
    with pytest.raises(DataError, match=r"1 people of split train are in evaluation too") as found:
        dataset.make(plan(tmp_path), TinyFaces(leak=True), 1)
    assert "identity 2 of style 'ink'" in str(found.value)
    assert "evaluation-00000.array_record, record 3" in str(found.value)
    assert not (tmp_path / manifest.NAME).exists()
    assert any("people of split train" in line for line in verifying.verify(tmp_path).problems)


def test_a_manifest_of_fewer_files_does_not_stay(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while more are made, nor once people are found in both splits."""
    here(monkeypatch)
    flag = tmp_path / "flag"
    flag.touch()
    with pytest.raises(KeyboardInterrupt):
        dataset.make(plan(copy, train=33, evaluation=9), TinyFaces(stops_at=28, failing=flag), 1)
    assert not (copy / manifest.NAME).exists()
    leaky = tmp_path / "leaky"
    dataset.make(plan(leaky, evaluation=9), TinyFaces(leak=True), 1)
    (leaky / manifest.NAME).rename(tmp_path / "older")
    with pytest.raises(DataError, match="share people"):
        dataset.make(plan(leaky), TinyFaces(leak=True), 1)
    assert not (leaky / manifest.NAME).exists()
    (tmp_path / "older").rename(leaky / manifest.NAME)  # all files are made, and it is there
    with pytest.raises(DataError, match="share people"):
        dataset.make(plan(leaky), TinyFaces(leak=True), 1)
    assert not (leaky / manifest.NAME).exists()


def test_the_manifest_and_the_card_count_what_is_there(made: Path) -> None:
    found = manifest.read(made)
    train = found.header.splits["train"]
    assert (train.records, train.files, train.people) == (23, 5, 11) and not found.problems
    first = found.shards[2]
    assert (first.file, first.first, first.records) == ("train-00000.array_record", 0, 5)
    assert (first.rationales, first.rejected, first.sources) == (4, 1, {"builtin": 3, "drawn": 2})
    card = (made / "README.md").read_text()
    assert "| train | 23 | 5 | 11 | 18 | 3 |" in card and "| drawn | 4 | 11 |" in card
    assert "size_categories: [n<1K]" in card


def test_a_card_of_the_users_own_stays(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)
    (copy / "README.md").write_text("mine")
    dataset.make(plan(copy), TinyFaces(), 1)
    assert (copy / "README.md").read_text() == "mine"


def test_the_estimate_is_near_the_size_and_full_disks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch)
    wanted = Plan(tmp_path / "new" / "faces", {"train": 600}, shard=300)
    found = dataset.estimate(wanted, TinyFaces())
    assert not wanted.out.exists() and found.free > 0
    full = dataset.Estimate(found.record, found.total, found.total)
    with pytest.raises(DataError, match=r"takes about 0.00 GB more, and 0.00 GB are free"):
        full.check(wanted.out)
    dataset.make(wanted, TinyFaces(), 1)
    size = sum(path.stat().st_size for path in wanted.out.glob("*.array_record"))
    assert abs(found.total / size - 1) < 0.1
    assert dataset.estimate(wanted, TinyFaces()).total == 0


def flip(name: str, at: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at] ^= 4
        (folder / name).write_bytes(content)

    return change


def cut(name: str, by: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-by])

    return change


def without_line(number: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = (folder / manifest.NAME).read_text().splitlines(keepends=True)
        del lines[number - 1]
        (folder / manifest.NAME).write_text("".join(lines))

    return change


def without_file(folder: Path) -> None:
    (folder / "train-00002.array_record").unlink()


def exchanged(folder: Path) -> None:
    one, other = (folder / f"train-0000{n}.array_record" for n in (0, 1))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def one_more(folder: Path) -> None:
    path = folder / "train-00000.array_record"
    (folder / "train-00009.array_record").write_bytes(path.read_bytes())


SHARD = "train-00001.array_record"


def test_records_without_a_file_of_the_manifest_are_not_read(copy: Path) -> None:
    (copy / SHARD).unlink()
    with pytest.raises(
        records.RecordError, match=rf"{SHARD}: no such file, but {manifest.NAME} lists it"
    ):
        records.files(copy)


@pytest.mark.parametrize(
    "damage, named",
    [
        (cut(SHARD, 1000), [SHARD, "truncated"]),
        (without_line(5), [f"{SHARD}: no line of {manifest.NAME} lists it"]),
        (without_line(5), ["lines are missing: 7 before the last, which was written after 8"]),
        (without_line(5), ["lists 4 files of split train, its header counts 5"]),
        (without_line(9), ["the last line, with the hash, is missing"]),
        (without_line(1), ["line 1", "splits"]),
        (without_file, ["train-00002.array_record: no such file"]),
        (exchanged, [SHARD, "content differs"]),
        (one_more, ["train-00009.array_record", "no line"]),
        (cut(manifest.NAME, 70), [manifest.NAME, "the last line, with the hash, is missing"]),
    ],
    ids=lambda value: value.__qualname__.split(".")[0] if callable(value) else value[0][:12],
)
def test_what_is_damaged_is_named(
    copy: Path, damage: Callable[[Path], None], named: list[str]
) -> None:
    damage(copy)
    problems = verifying.verify(copy).problems
    assert any(all(part in problem for part in named) for problem in problems), problems


def test_every_flipped_byte_is_found_and_its_file_named(copy: Path) -> None:
    whole = (copy / SHARD).read_bytes()
    records_named = 0
    for at in [*range(0, len(whole), 797), len(whole) - 1]:
        flip(SHARD, at)(copy)
        problems = verifying.verify(copy).problems
        assert problems and all(problem.startswith(SHARD) for problem in problems), at
        records_named += any(", record " in problem for problem in problems)
        (copy / SHARD).write_bytes(whole)
    assert not verifying.verify(copy).problems and records_named


def test_every_flipped_byte_of_the_manifest_is_found(copy: Path) -> None:
    whole = (copy / manifest.NAME).read_bytes()
    for at in range(0, len(whole) - 1, 41):
        flip(manifest.NAME, at)(copy)
        assert manifest_problems(copy), at
    (copy / manifest.NAME).write_bytes(whole)
    assert not manifest_problems(copy)


def manifest_problems(folder: Path) -> list[str]:
    try:
        return list(manifest.read(folder).problems)
    except DataError as error:
        return [str(error)]


def test_a_sound_dataset_has_no_problem(made: Path) -> None:
    for images in (False, True):
        found = verifying.verify(made, images=images)
        assert not found.problems and found.sealed
        assert (found.files, found.records, found.people) == (7, 32, 19)


def test_images_that_cannot_be_decoded_are_found_where_asked(copy: Path) -> None:
    rows = [record | {"identity": 1} for record in records.read(copy / SHARD)]
    stored = [records.encode(row) for row in rows]
    stored[3] = records.packed({**rows[3], "image": b"none"})
    records.write_encoded(copy / SHARD, stored)
    (copy / manifest.NAME).unlink()
    assert not verifying.verify(copy).problems
    (problem,) = verifying.verify(copy, images=True).problems
    assert problem == f"{SHARD}, record 3: field 'image' is not a readable image"


def test_without_a_manifest_records_that_are_there_twice_are_found(copy: Path) -> None:
    (copy / manifest.NAME).unlink()
    assert not verifying.verify(copy).problems
    one_more(copy)
    (problem,) = verifying.verify(copy).problems
    assert problem == (
        "train-00009.array_record repeats numbers of train-00000.array_record, from 0 on"
    )


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match=str(folder)):
            verifying.verify(folder)


def test_a_rationale_that_contradicts_is_left_out() -> None:
    from sf_jax.face.describe import describe

    coefficients = np.zeros(61, np.float32)
    coefficients[INDEX["JawOpen"]] = 0.8
    text = describe(coefficients).text
    record: dict[str, Any] = {"rationale": text, "coefficients": coefficients}
    assert checked(record) is record
    found = checked(record | {"coefficients": np.zeros(61, np.float32)})
    assert found["rationale"] == "" and "JawOpen" in found["rejected"]
    assert checked(found) is found


def test_the_pipeline_makes_the_records_of_a_rendered_mixture(tmp_path: Path) -> None:
    mixture = build({"drawn": 1}, Inputs(), seed=3, framing=Framing(48))
    for folder, maker in (("plain", mixture), ("checked", CheckedFaces(mixture))):
        (job,) = jobs(tmp_path / folder, 3, "train")
        (tmp_path / folder).mkdir()
        write_shard(maker, job)
    assert contents(tmp_path / "plain") == contents(tmp_path / "checked")


def test_records_that_were_not_checked_do_not_pass_for_checked_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`data render` and `data pipeline` in one folder, in either order."""
    from data_pipelines import rendering

    here(monkeypatch)
    mixture = build({"drawn": 1}, Inputs(), framing=Framing(48))
    one: Any = {"train": 1}
    rendering.render(tmp_path / "plain", 1, mixture, workers=1)
    dataset.make(Plan(tmp_path / "checked", one), CheckedFaces(mixture), 1)
    before = [contents(tmp_path / name) for name in ("plain", "checked")]
    with pytest.raises(DataError, match="made with another checked; name another folder"):
        dataset.make(Plan(tmp_path / "plain", one), CheckedFaces(mixture), 1)
    with pytest.raises(DataError, match="made with another checked; name another folder"):
        rendering.render(tmp_path / "checked", 1, mixture, workers=1)
    assert [contents(tmp_path / name) for name in ("plain", "checked")] == before
