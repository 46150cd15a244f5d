"""Runs that are killed, stopped, starved of disk or fed nonsense, as processes of their own.

SF_JAX_KILLS=10 kills a run as often; a few times by default.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import compiling

KILLS = int(os.environ.get("SF_JAX_KILLS", "3"))
STEPS = 24


def start(directory: Path, *options: str, devices: int = 1) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.train.tiny_run",
            str(directory),
            "--steps",
            str(STEPS),
            *options,
        ],
        env=compiling.environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*running: subprocess.Popen, code: int = 0) -> tuple[list[Any], str]:
    """What each process found, and what the first printed."""
    ended = [process.communicate(timeout=600) for process in running]
    for process, (_, printed) in zip(running, ended, strict=True):
        assert process.returncode == code, printed[-3000:]
    last = [(out.splitlines() or [""])[-1] for out, _ in ended]  # Gloo says something there too
    return [json.loads(line) if line.startswith("{") else None for line in last], ended[0][1]


def lines(directory: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def losses(directory: Path) -> list[float]:
    found = lines(directory, "metrics.jsonl")
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    return [line["loss"] for line in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run that nothing disturbed."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    (found,), _ = finish(start(directory))
    return directory, found


def saving(directory: Path) -> bool:
    """Whether a checkpoint is being written, or lacks its checksums."""
    folder = directory / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    steps = [name for name in names if name.isdigit()]
    return any("tmp" in name for name in names) or any(
        not (folder / name / "checksums").exists() for name in steps
    )


def test_killed_at_random_moments_the_weights_end_up_bit_identical(whole) -> None:
    reference, wanted = whole
    directory = reference.parent / "killed"
    random.seed(5)
    during = 0
    for number in range(KILLS):
        known = len(lines(directory, "examples-0.jsonl")) if number else 0
        process = start(directory, "--pause", "0.1", "--save-every", "2")
        log = directory / "examples-0.jsonl"
        while process.poll() is None and (not log.exists() or len(lines_so_far(log)) < known):
            time.sleep(0.01)
        if number % 2:
            until = time.monotonic() + 20
            while not saving(directory) and time.monotonic() < until and process.poll() is None:
                time.sleep(0.002)
            during += saving(directory)
        else:
            time.sleep(random.uniform(0, 2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (found,), _ = finish(start(directory))
    assert found == wanted
    assert during >= KILLS // 2 - 1
    # One history: every example once, in the order of the run that nothing disturbed.
    assert lines(directory, "examples-0.jsonl") == lines(reference, "examples-0.jsonl")
    assert losses(directory) == losses(reference)
    for row in range(8):
        seen = [n for line in lines(directory, "examples-0.jsonl") for n in line["examples"][row]]
        assert len(set(seen)) == len(seen) and {n % 8 for n in seen} == {row}


def lines_so_far(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_asked_to_stop_two_processes_agree_and_one_goes_on_from_what_they_saved(whole) -> None:
    reference, _ = whole
    directory = reference.parent / "stopped"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = [
        start(
            directory, "--mesh", "fsdp=2,tensor=2", "--save-every", "1000", "--pause", "0.1",
            "--coordinator", address, "--processes", "2", "--process", str(number), devices=2,
        )
        for number in range(2)
    ]  # fmt: skip
    log = directory / "examples-1.jsonl"
    while not log.exists() or len(lines_so_far(log)) < 3:
        time.sleep(0.05)
        assert both[0].poll() is None
    both[1].send_signal(signal.SIGTERM)  # one of them alone
    _, printed = finish(*both, code=143)
    assert "which is saved" in printed
    done = [lines(directory, f"examples-{number}.jsonl")[-1]["step"] for number in range(2)]
    assert done[0] == done[1] < STEPS
    finish(start(directory))
    assert losses(directory) == pytest.approx(losses(reference), rel=1e-5)


def test_a_full_disk_ends_the_run_and_leaves_the_last_good_checkpoint(whole) -> None:
    reference, wanted = whole
    directory = reference.parent / "full"
    process = start(directory, "--pause", "0.1")
    while not (directory / "checkpoints" / "3" / "checksums").exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    finish(process, code=143)
    kept = sorted(path.name for path in (directory / "checkpoints").iterdir())
    _, printed = finish(start(directory, "--file-size", "100000"), code=2)
    last = printed.splitlines()[-1]  # after what Orbax prints
    assert last.startswith("checkpoint 6 could not be saved") and last.endswith("is whole")
    assert kept[-1] in {path.name for path in (directory / "checkpoints").iterdir()}
    (found,), _ = finish(start(directory))
    assert found == wanted


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_examples(whole) -> None:
    reference, _ = whole
    directory = reference.parent / "nan"
    numbers = lines(reference, "examples-0.jsonl")[6]["examples"]
    _, printed = finish(start(directory, "--nan-at", str(numbers[2][0])), code=2)
    assert "step 7: loss or gradient is not finite (1 in a row); its batch was made of" in printed
    assert f"{numbers}, which are those numbered {[n for row in numbers for n in row]}" in printed
    assert (directory / "checkpoints" / "6" / "checksums").exists()
