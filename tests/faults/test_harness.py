"""The harness itself: each way to end badly is seen."""

import time
from pathlib import Path

import numpy as np
import pytest

from tests.faults.harness import Fault, Worker, check_all, problems

HERE = "tests.faults.test_harness"


def honest(name: str) -> str:
    return Path(name).read_text()


def refused(name: str) -> None:
    raise ValueError(f"{name}: not a number")


def broken(name: str) -> None:
    raise KeyError(name)


def hungry(name: str) -> int:
    return np.ones(160_000_000).size


def hanging(name: str) -> None:
    while True:
        time.sleep(0.1)


def careless(name: str) -> None:
    Path(name).write_text("mine")
    Path("b.json.partial").write_text("")


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.stop()


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (honest, []),
        (refused, []),
        (broken, ["traceback"]),
        (hungry, ["MB"]),
        (careless, ["inputs changed", "half-written"]),
        (hanging, ["it hung"]),
    ],
)
def test_bad_ends_are_found(function, found: list[str], worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("three")
    fault = Fault("", ("a.txt",), call=f"{HERE}:{function.__name__}", names=r"a\.txt")
    outcome = worker.run(fault, tmp_path, seconds=0.2 if function is hanging else 5)
    wrong = problems(fault, outcome)
    assert len(wrong) == len(found)
    assert all(text in line for text, line in zip(found, wrong, strict=True))


def test_an_error_must_name_the_file(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("three")
    fault = Fault("", ("a.txt",), call=f"{HERE}:refused", names=r"b\.txt")
    (wrong,) = problems(fault, worker.run(fault, tmp_path))
    assert "does not name" in wrong


def test_failures_name_the_seed() -> None:
    def kind(draw: np.random.Generator, folder: Path) -> Fault:
        (folder / "a.txt").write_text("three")
        return Fault("a key", ("a.txt",), call=f"{HERE}:broken")

    with pytest.raises(AssertionError, match="2 of 2 faults, seed 0"):
        check_all("harness", [kind], few=2)
