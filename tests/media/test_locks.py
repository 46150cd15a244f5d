"""Two writers of one folder: the second is refused, and a dead one never blocks the next."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_pipelines import rendering, synthetic
from sf_jax import cli
from sf_jax.media import files, locks
from sf_jax.media.locks import BusyError, Lease, held
from sf_jax.train import processes

HOLD = """
import sys, time
from sf_jax.media import locks
with locks.held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen:
    """Another process that holds the lock of `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process  # type: ignore[misc]
    process.kill()
    process.wait()


def test_the_second_is_refused_until_the_first_is_killed(holder, tmp_path: Path) -> None:
    with (
        pytest.raises(BusyError, match=f"run: process {holder.pid} on .* since 2.* writes here"),
        held(tmp_path / "run"),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / locks.NAME).exists()  # as a crash leaves it
    with held(tmp_path / "run"):
        pass
    assert not list((tmp_path / "run").iterdir())


def test_a_folder_in_use_is_waited_for(tmp_path: Path) -> None:
    ended: list[str] = []

    def second() -> None:
        with locks.waited(tmp_path):
            ended.append("second")

    with ThreadPoolExecutor(1) as pool:
        with held(tmp_path):
            waiting = pool.submit(second)
            time.sleep(0.1)
            ended.append("first")
        waiting.result(timeout=60)
    assert ended == ["first", "second"]


def test_a_link_to_the_folder_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with held(tmp_path / "run"), pytest.raises(BusyError), held(tmp_path / "link"):
        pass


def test_a_lock_removed_between_two_calls_is_taken_anew(tmp_path, monkeypatch) -> None:
    path, real, calls = tmp_path / locks.NAME, fcntl.flock, []

    def flock(file, how) -> None:
        if not calls:
            path.unlink()
        calls.append(how)
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with held(tmp_path):
        assert len(calls) == 2 and f"process {os.getpid()} " in path.read_text()


def test_a_file_system_without_locks_gets_a_lease(tmp_path: Path, monkeypatch) -> None:
    def flock(*_) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = locks.acquire(tmp_path / "new" / locks.NAME)
    assert isinstance(lock, Lease)
    lock.release()
    assert not list((tmp_path / "new").iterdir())


def test_a_lease_that_is_renewed_is_respected(tmp_path: Path) -> None:
    first = Lease(tmp_path / "lease", renewal=0.05)
    with pytest.raises(BusyError, match=f"process {os.getpid()} on"):
        Lease(tmp_path / "lease", renewal=0.05)
    first.check()
    first.release()
    assert not (tmp_path / "lease").exists()


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_holder_must_stop(tmp_path) -> None:
    first = Lease(tmp_path / "lease", renewal=0.3)  # renewed too late for the second's expiry
    second = Lease(tmp_path / "lease", renewal=0.01, expiry=0.05)
    until = time.monotonic() + 20
    while not first._lost and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(BusyError, match="was taken over by process"):
        first.check()
    first.release()
    second.check()
    assert (tmp_path / "lease").exists()
    second.release()


def test_of_leases_begun_at_once_one_is_had(tmp_path: Path, monkeypatch) -> None:
    together, write, had = threading.Barrier(3), Lease._write, []

    def wait_and_write(lease: Lease) -> None:
        if not lease._beats:
            together.wait(20)  # all have found none
        write(lease)

    monkeypatch.setattr(Lease, "_write", wait_and_write)

    def begin(_: int) -> None:
        with contextlib.suppress(BusyError):
            had.append(Lease(tmp_path / "lease", renewal=2.0))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(begin, range(3)))
    (lease,) = had
    lease.check()
    lease.release()
    assert not list(tmp_path.iterdir())


def test_what_was_taken_over_is_not_renamed_and_its_holder_hears_of_it(
    tmp_path: Path, monkeypatch
) -> None:
    class TakenOver:
        def check(self) -> None:
            raise BusyError("was taken over by process 7")

        def release(self) -> None:
            pass

    asked = []
    monkeypatch.setattr(locks, "acquire", lambda path: asked.append(path) or TakenOver())
    with pytest.raises(BusyError, match="process 7"), held("gs://bucket/run"):
        pass
    with pytest.raises(BusyError), processes.held("gs://bucket/run"):
        pass
    assert asked == [f"gs://bucket/run/{locks.NAME}"] * 2
    with pytest.raises(BusyError), files.folder(tmp_path / "out") as inside:
        (inside / "a").touch()
    assert not list(tmp_path.iterdir())
    (tmp_path / "faces").mkdir()
    monkeypatch.setattr(rendering, "SHARD", 1)
    monkeypatch.setattr(rendering, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    with pytest.raises(BusyError):
        synthetic.render(tmp_path / "faces", 40)
    assert len(list((tmp_path / "faces").iterdir())) < 20


def test_a_folder_is_made_by_one(tmp_path: Path) -> None:
    with files.folder(tmp_path / "out") as inside:
        (inside / "a").touch()
        with pytest.raises(BusyError), files.folder(tmp_path / "out"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_commands_that_write_for_long_refuse_a_folder_in_use(tmp_path: Path, capsys) -> None:
    convert = ["convert", "merge", str(tmp_path / "none"), str(tmp_path / "none")]
    with held(tmp_path / "faces"), held(tmp_path, ".model.lock"):
        with pytest.raises(BusyError):
            synthetic.render(tmp_path / "faces", 1)
        for command in (
            ["data", "render", "--out", str(tmp_path / "faces"), "--count", "1"],
            ["data", "build", "--out", str(tmp_path / "faces"), "--train", "1"],
            [*convert, str(tmp_path / "model")],
            ["train", "sft", "builtin", "--tiny", "--out", str(tmp_path / "faces")],
            ["train", "builtin_model", "--tiny", "--out", str(tmp_path / "faces")],
        ):
            assert cli.main(command) == 2
            error = capsys.readouterr().err
            assert f"process {os.getpid()} on" in error and error.count("\n") == 1, command
    assert [path.name for path in tmp_path.rglob("*")] == ["faces"]
