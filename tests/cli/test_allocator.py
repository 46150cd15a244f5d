"""Training keeps the memory that it frees."""

import os
import platform
import subprocess
import sys

import pytest

from sf_jax.cli.allocator import SETTINGS, TUNABLES

SHOW = f"import os; print(os.environ.get({TUNABLES!r}))"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not the GNU C library")
@pytest.mark.parametrize("given", [None, "glibc.malloc.arena_max=2"])
def test_a_process_starts_once_more_with_the_settings(given: str | None) -> None:
    """With its own arguments, and not where a user has settings of their own."""
    code = f"from sf_jax.cli import allocator; allocator.keep_freed_memory(); {SHOW}; import sys"
    environment = {name: value for name, value in os.environ.items() if name != TUNABLES}
    if given is not None:
        environment[TUNABLES] = given
    command = [sys.executable, "-X", "dev", "-c", f"{code}; print(sys.argv[1:])", "one two", "-x"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    settings, arguments = found.stdout.splitlines()
    assert settings == (given or SETTINGS)
    assert arguments == "['one two', '-x']"
