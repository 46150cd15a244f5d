"""What fails in one process of a run fails in all: none is left waiting for another."""

from pathlib import Path
from typing import Any

import jax
import pytest

from sf_jax.media import locks
from sf_jax.media.errors import DataError
from sf_jax.train import processes


@pytest.fixture
def exchanged(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What this process, number 1, exchanged with process 0, which has the texts of `theirs`."""
    found: list[dict[str, str]] = []

    def gathered(state: dict[str, str]) -> dict[str, Any]:
        found.append(state)
        return {"000000": ""} | state

    monkeypatch.setattr(processes, "gathered", gathered)
    return found


def test_a_lock_that_cannot_be_written_fails_in_all_processes(
    tmp_path: Path, exchanged, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        processes.acquire(tmp_path / "file" / locks.NAME)  # process 0
    (shared,) = exchanged
    assert "file" in shared["000000"]
    with locks.held(tmp_path / "run"), pytest.raises(locks.BusyError):
        processes.acquire(tmp_path / "run" / locks.NAME)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(processes, "gathered", lambda state: shared | state)
    with pytest.raises(DataError) as raised:
        processes.acquire(tmp_path / "file" / locks.NAME)
    assert str(raised.value) == shared["000000"]


def test_what_one_process_cannot_read_ends_all(exchanged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_index", lambda: 1)

    def unreadable() -> None:
        raise DataError("gone", path="data")

    with pytest.raises(DataError, match="data: gone"):
        processes.together(unreadable)
    assert exchanged == [{"000001": "data: gone"}]
    assert processes.together(lambda: 3) == 3
    monkeypatch.setattr(processes, "gathered", lambda state: {"000002": "there: gone"} | state)
    with pytest.raises(DataError, match="there: gone"):
        processes.together(lambda: 3)
