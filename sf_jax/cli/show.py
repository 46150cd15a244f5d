"""Opening a preview sheet with the viewer of the platform."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sf_jax.cli.arguments import UsageError
from sf_jax.media.errors import DataError

PATIENCE = 3  # seconds in which a viewer that cannot start says so


def viewer() -> str:
    """The command that opens a file as a double click would.

    Raises:
      UsageError: there is no display, or no such command.
    """
    if sys.platform == "darwin":
        return "open"
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UsageError(
            "--show needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; with --out "
            "instead, the preview sheet is written to a folder"
        )
    command = shutil.which("xdg-open")
    if command is None:
        raise UsageError("--show needs the command xdg-open (package xdg-utils)")
    return command


def opened(command: str, path: Path) -> None:
    """Opens a file and leaves the viewer running.

    Raises:
      DataError: the viewer ended at once with an error.
    """
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [command, os.fspath(path.resolve())],
        stdin=quiet,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,  # Ctrl-C in this terminal is not meant for it
    )
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        return
    if code:
        raise DataError(f"{Path(command).name} could not open it (exit code {code})", path=path)
