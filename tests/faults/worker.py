"""Runs faults in one process, as `harness` asks on standard input; answers in JSON lines."""

import contextlib
import importlib
import io
import json
import os
import sys
import time
import traceback
from pathlib import Path

import jax

from sf_jax.media.errors import DataError
from tests.faults.harness import memory

REFUSALS = (DataError, ValueError, OSError)


def processor_seconds() -> float:
    return sum(os.times()[:4])


def run(call: str, argv: list) -> tuple[int, str]:
    """(exit code, traceback) of the command line or of a function of the project."""
    module, name = call.split(":")
    try:
        function = getattr(importlib.import_module(module), name)
        if call == "sf_jax.cli:main":
            return int(function(argv) or 0), ""
        try:
            print(repr(function(*argv)))
        except REFUSALS as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 2, ""
    except SystemExit as error:
        return (error.code if isinstance(error.code, int) else 2), ""
    except BaseException:
        return 1, traceback.format_exc()
    return 0, ""


def measured(task: dict) -> dict:
    printed, errors = io.StringIO(), io.StringIO()
    os.chdir(task["folder"])
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts anew
    memory_before, seconds_before = memory(os.getpid(), "VmRSS"), processor_seconds()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        code, trace = run(task["call"], task["argv"])
    os.chdir("/")
    return {
        "code": code,
        "traceback": trace,
        "stdout": printed.getvalue(),
        "stderr": errors.getvalue(),
        "seconds": processor_seconds() - seconds_before,
        "megabytes": memory(os.getpid(), "VmHWM") - memory_before,
    }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    jax.devices()
    print(json.dumps({"ready": time.time()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(measured(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
