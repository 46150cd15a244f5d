"""Deliberate faults: seeded bad inputs, given as a user gives them, to a process that is watched.

A kind of fault is a function `kind(draw, folder) -> Fault` that writes its input files into the
empty `folder`. `check_all` draws faults from a list of kinds and asserts that each one ends, within
the limits, in a result or in an error of one line, with every input file as it was:

    KINDS = [truncated, flipped_bits]

    def test_a_few() -> None:
        check_all("checkpoints", KINDS, few=5)

    @pytest.mark.slow
    def test_many() -> None:
        check_all("checkpoints", KINDS)

The seed is printed and is part of every failure; `SF_JAX_FAULT_SEED` sets it.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests import compiling

SEED = int(os.environ.get("SF_JAX_FAULT_SEED", "0"))
SECONDS, MEGABYTES = 10, 1024  # that a fault may take beyond what an honest run takes
PATIENCE = 6  # seconds of the clock for one of a core: other processes share the machine
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Fault:
    """One bad input and how it is given.

    Attributes:
      name: what is wrong, for people.
      argv: the arguments of `sf-jax`, or of `call` (then any JSON values); relative paths are
        relative to the folder of the fault.
      call: `module:function` to call in place of the command line.
      codes: exit codes that are right; a function that raises ValueError or OSError counts as 2.
      names: a regular expression that the error must match where the exit code is 2: the file or
        the field.
      replaced: input files that the run may write to, such as a results file of before.
      check: is given the outcome; returns what is wrong with it, or "".
    """

    name: str
    argv: tuple = ()
    call: str = "sf_jax.cli:main"
    codes: tuple[int, ...] = (0, 2)
    names: str = ""
    replaced: tuple[str, ...] = ()
    check: Callable[["Outcome"], str] | None = None


Kind = Callable[[np.random.Generator, Path], Fault]


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
      code: the exit code; None where it was stopped from outside or died.
      stdout, stderr: what it printed; the error is the last line of stderr.
      traceback: of an exception that no user should see.
      seconds: processor time. megabytes: the peak of its memory beyond what it held before.
      folder: where it ran. before, after: relative path to a hash of the content.
    """

    code: int | None
    stdout: str
    stderr: str
    traceback: str
    seconds: float
    megabytes: float
    folder: Path
    before: dict[str, str] = field(repr=False)
    after: dict[str, str] = field(repr=False)


def hashes(folder: Path) -> dict[str, str]:
    """A hash of every file below a folder; of a link, its target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class Worker:
    """A process that runs one fault after another, and can be stopped in the middle of one."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None

    def _started(self) -> subprocess.Popen:
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.worker"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=compiling.environment() | {"PYTHONPATH": str(ROOT)},
            )
            self._wait(time.monotonic() + 300)
        return self.process

    def _wait(self, until: float, limit_mb: float = float("inf")) -> str:
        """The next line that the process prints; "" where it died or had to be stopped."""
        lines: list[str] = []
        process = self.process
        assert process is not None
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        base = memory(process.pid, "VmRSS")
        while process.poll() is None and time.monotonic() < until:
            line = process.stdout.readline()
            if line:
                lines.append(line)
                if line.endswith("\n"):
                    return "".join(lines)
            if memory(process.pid, "VmRSS") - base > limit_mb:
                break
            time.sleep(0.005)
        self.stop()
        return ""

    def run(
        self,
        fault: Fault,
        folder: Path,
        seconds: float = SECONDS,
        megabytes: float = MEGABYTES,
    ) -> Outcome:
        """Runs a fault whose files are in `folder`, for at most the given processor time."""
        process = self._started()
        assert process.stdin is not None
        before = hashes(folder)
        task = {"call": fault.call, "argv": list(fault.argv), "folder": str(folder)}
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        line = self._wait(time.monotonic() + PATIENCE * seconds, 2 * megabytes)
        found = json.loads(line) if line else {"code": None, "seconds": 0.0, "megabytes": 0.0}
        texts = {name: found.get(name, "") for name in ("stdout", "stderr", "traceback")}
        return Outcome(
            code=found["code"],
            seconds=found["seconds"],
            megabytes=found["megabytes"],
            folder=folder,
            before=before,
            after=hashes(folder),
            **texts,
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def memory(pid: int, name: str) -> float:
    """VmRSS or VmHWM of a process in megabytes; 0 where it is gone or the system has no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def problems(fault: Fault, outcome: Outcome, honest: Outcome | None = None) -> list[str]:
    """What is wrong with how a fault ended."""
    seconds = SECONDS + (honest.seconds if honest else 0)
    megabytes = MEGABYTES + (honest.megabytes if honest else 0)
    lost = [
        name
        for name, content in outcome.before.items()
        if name not in fault.replaced and outcome.after.get(name) != content
    ]
    left = [name for name in set(outcome.after) - set(outcome.before) if ".partial" in name]
    wrong = []
    if outcome.traceback:
        wrong.append(f"traceback: {outcome.traceback}")
    elif outcome.code is None:
        wrong.append("it hung, took too much memory, or died")
    elif outcome.code not in fault.codes:
        wrong.append(f"exit code {outcome.code}: {outcome.stderr[-500:]}")
    if "Traceback (most" in outcome.stderr:
        wrong.append(f"a traceback is printed: {outcome.stderr[-1500:]}")
    if outcome.code == 2 and not re.search(fault.names, outcome.stderr):
        wrong.append(f"the error does not name {fault.names!r}: {outcome.stderr[-500:]}")
    if outcome.code == 2 and not outcome.stderr.strip():
        wrong.append("refused without a word")
    if outcome.seconds > seconds:
        wrong.append(f"took {outcome.seconds:.0f} s of a core")
    if outcome.megabytes > megabytes:
        wrong.append(f"took {outcome.megabytes:.0f} MB")
    if lost:
        wrong.append(f"inputs changed or gone: {lost}")
    if left:
        wrong.append(f"half-written files: {left}")
    if fault.check and outcome.code is not None and (more := fault.check(outcome)):
        wrong.append(more)
    return wrong


def check_all(
    point: str,
    kinds: Sequence[Kind],
    count: int = 60,
    few: int | None = None,
    honest: Kind | None = None,
) -> None:
    """Runs faults, and asserts that all of them end well.

    Args:
      point: a name, part of the seed.
      kinds: taken in turn, so that `count` faults hold each of them.
      few: runs only so many of the faults, drawn from all.
      honest: makes a sound input; it must end with exit code 0, warms the process up, and what it
        takes in a second run is what the limits are counted from.
    """
    print(f"{point}: SF_JAX_FAULT_SEED={SEED}")
    numbers = np.arange(max(count, len(kinds)))
    point_seed = int.from_bytes(hashlib.sha256(point.encode()).digest()[:4], "little")
    if few is not None:
        numbers = np.random.default_rng([SEED, point_seed]).permutation(numbers)[:few]
    worker, failures, base = Worker(), [], None
    try:
        if honest:
            for _ in range(2):
                _, base, _ = _run(worker, honest, np.random.default_rng(0), seconds=300)
                assert base.code == 0, f"a sound input fails: {base.traceback or base.stderr}"
        for number in numbers:
            kind = kinds[number % len(kinds)]
            draw = np.random.default_rng([SEED, point_seed, number])
            allowed = SECONDS + (base.seconds if base else 0)
            fault, _, wrong = _run(worker, kind, draw, allowed, base)
            if wrong:
                failures.append(f"{number}, {kind.__name__}, {fault.name}: " + "; ".join(wrong))
    finally:
        worker.stop()
    summary = f"{len(failures)} of {len(numbers)} faults, seed {SEED}"
    assert not failures, "\n".join([summary, *failures])


def _run(
    worker: Worker,
    kind: Kind,
    draw: np.random.Generator,
    seconds: float,
    honest: Outcome | None = None,
) -> tuple[Fault, Outcome, list[str]]:
    """A fault, its outcome and what is wrong with that, found while its folder still exists."""
    with tempfile.TemporaryDirectory(prefix="sf_jax-fault-") as made:
        folder = Path(made)
        fault = kind(draw, folder)
        outcome = worker.run(fault, folder, seconds)
        return fault, outcome, problems(fault, outcome, honest)
