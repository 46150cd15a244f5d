"""Runs the scripts that compile for TPUs which need not be there."""

import base64
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from tests import compiling


def compiled(module: str, *arguments: str) -> Any:
    """What `python -m module` prints last, read as JSON; skips where there is no TPU compiler."""
    if find_spec("libtpu") is None:
        pytest.skip("needs libtpu: pip install -e .[dev,tpu]")
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=1500,
        env=compiling.environment(optimise=True),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def mosaic(text: str) -> bytes:
    """The kernels inside a lowered program."""
    return b"".join(
        base64.b64decode(body) for body in re.findall(r"\\22body\\22: \\22([^\\]*)", text)
    )
