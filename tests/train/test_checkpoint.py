"""Checkpoints that cannot be trusted are passed over, and reported."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sf_jax.media.locks import BusyError
from sf_jax.train import checkpoint, step
from sf_jax.train import mesh as meshes
from sf_jax.train.checkpoint import CHECKSUMS, CORRUPT, INCOMPLETE, CheckpointError, Checkpoints

RULE = optax.adamw(1e-2)


def state_of(number: int) -> step.TrainState:
    """A state whose numbers tell which step it is of."""
    mesh = meshes.make({"fsdp": -1})
    weights = {"a": jnp.full((64, 32), float(number)), "b": jnp.arange(8.0) + number}
    state = step.create(weights, RULE, mesh, frozen=jnp.ones(4))
    return dataclasses.replace(state, step=jnp.int32(number))


def saved(directory: Path, steps: tuple[int, ...] = (2, 4, 6)) -> None:
    checkpoints = Checkpoints(directory)
    for number in steps:
        checkpoints.save(state_of(number), {"at": number})
    checkpoints.close()


def restored(directory: Path) -> tuple[int, list[str]]:
    """Which step is restored, with its own numbers; and what was reported."""
    reported: list[str] = []
    checkpoints = Checkpoints(directory, report=reported.append)
    found = checkpoints.restore(state_of(0))
    assert found is not None
    state, data = found
    number = int(state.step)
    wanted = state_of(number)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(wanted))
    assert data == {"at": number}
    checkpoints.save(state_of(number + 1), {"at": number + 1})  # a run goes on after it
    checkpoints.close()
    assert checkpoints.latest() == number + 1
    return number, reported


def largest(folder: Path) -> Path:
    """The file with the weights."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_checksums(path: Path) -> None:
    shutil.rmtree(next(p for p in path.parents if (p / CHECKSUMS).exists()) / CHECKSUMS)


def test_the_newest_is_restored(tmp_path: Path) -> None:
    saved(tmp_path)
    assert restored(tmp_path) == (6, [])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [(flip, "differs from its checksum"), (truncate, "differs from its checksum"),
     (Path.unlink, "is missing"), (remove_checksums, "was not finished")],
)  # fmt: skip
def test_a_damaged_newest_checkpoint_falls_back_and_says_so(tmp_path, damage, problem) -> None:
    saved(tmp_path)
    damage(largest(tmp_path / "6"))
    number, (reported,) = restored(tmp_path)
    assert number == 4 and "checkpoint 6" in reported and problem in reported
    name = INCOMPLETE if damage is remove_checksums else CORRUPT
    assert (tmp_path / f"{name}-6").is_dir()  # renamed, not deleted


def test_every_file_of_a_checkpoint_is_watched(tmp_path: Path) -> None:
    saved(tmp_path / "whole", (2, 4))
    files = [path for path in (tmp_path / "whole" / "4").rglob("*") if path.is_file()]
    for number, path in enumerate(files):
        if CHECKSUMS in path.parts or not path.stat().st_size:
            continue
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", copy)
        flip(copy / path.relative_to(tmp_path / "whole"))
        checkpoints = Checkpoints(copy, report=lambda line: None)
        found = checkpoints.restore(state_of(0))
        assert found is not None and int(found[0].step) == 2, path
        checkpoints.close()


def test_where_none_is_sound_it_says_so(tmp_path: Path) -> None:
    saved(tmp_path, (2, 4))
    flip(largest(tmp_path / "2"))
    flip(largest(tmp_path / "4"))
    checkpoints = Checkpoints(tmp_path, report=lambda line: None)
    for _ in range(2):  # a second start must not begin anew in silence either
        with pytest.raises(CheckpointError, match=f"{CORRUPT}-2, {CORRUPT}-4 failed"):
            checkpoints.restore(state_of(0))
    checkpoints.close()


def test_a_run_killed_in_its_first_save_begins_anew(tmp_path: Path) -> None:
    saved(tmp_path, (2,))
    remove_checksums(largest(tmp_path / "2"))
    reported: list[str] = []
    checkpoints = Checkpoints(tmp_path, report=reported.append)
    assert checkpoints.restore(state_of(0)) is None
    assert "was not finished" in reported[0] and (tmp_path / f"{INCOMPLETE}-2").is_dir()
    checkpoints.close()


def test_storage_that_cannot_be_read_quarantines_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, (2, 4))

    def fail(path: Any) -> str:
        raise OSError("503 backend error")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_digest", fail)
        checkpoints = Checkpoints(tmp_path, report=lambda line: None)
        with pytest.raises(CheckpointError, match="4 could not be read: 503"):
            checkpoints.restore(state_of(0))
        checkpoints.close()
    assert restored(tmp_path) == (4, [])


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, (2,))
    other = jax.tree.map(lambda x: x[..., :1] if x.ndim else x, state_of(0))
    checkpoints = Checkpoints(tmp_path, report=lambda line: None)
    with pytest.raises(CheckpointError, match="2 is of another model, recipe or adapter"):
        checkpoints.restore(other)
    checkpoints.close()


def test_a_fresh_directory_has_nothing_to_restore(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None and checkpoints.restore(state_of(0)) is None
    checkpoints.close()


def test_a_state_is_restored_in_another_precision(tmp_path: Path) -> None:
    saved(tmp_path, (2,))
    narrow = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, state_of(0)
    )
    checkpoints = Checkpoints(tmp_path)
    found = checkpoints.restore(narrow)
    checkpoints.close()
    assert found is not None and found[0].weights["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found[0].weights["a"].astype(np.float32), np.full((64, 32), 2.0))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, (1, 2, 3, 4, 5))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == list("345")


def test_two_runs_in_one_directory_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "checkpoints", (2,))
    first = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(BusyError, match="process .* writes here"):
        Checkpoints(tmp_path / "checkpoints")
    first.save(state_of(3), {"at": 3})
    first.close()
    assert restored(tmp_path / "checkpoints") == (3, [])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_a_run_whose_lease_was_taken_over_saves_no_more(tmp_path: Path, monkeypatch) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")

    def taken() -> None:
        raise BusyError("was taken over by process 1")

    monkeypatch.setattr(checkpoints._lock, "check", taken)
    with pytest.raises(BusyError, match="taken over by process 1"):
        checkpoints.save(state_of(3), {"at": 3})
    assert checkpoints.latest() is None
    checkpoints.close()
