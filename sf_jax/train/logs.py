"""What a run logs: lines of JSON by step, and TensorBoard's event files."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sf_jax.media import files, small_files


class Lines:
    """A file of JSON lines that each have a "step".

    A resumed run first removes the lines of steps that are to be repeated, so that the file has one
    history. Lines that cannot be read, as a crash may leave them, are removed too.
    """

    def __init__(self, path: str | os.PathLike, step: int):
        """Opens the file after its lines up to `step`, and makes it where there is none."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        history = [line for line, of in _lines(self.path) if of <= step]
        files.write_text(self.path, "".join(history))
        self._file = self.path.open("a")

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Adds a line, and hands it to the operating system at once."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _lines(path: Path) -> Iterator[tuple[str, int]]:
    """Whole lines and their steps; a process that was killed may have left half of one."""
    if not path.exists():
        return
    for line in path.read_text(errors="replace").splitlines(keepends=True):
        with suppress(ValueError, KeyError, TypeError):
            if line.endswith("\n"):
                yield line, int(small_files.parse_json(line)["step"])


class Scalars:
    """TensorBoard event files; a resumed run replaces those of later steps."""

    def __init__(self, directory: str | os.PathLike, step: int):
        from tensorboardX import SummaryWriter  # late: it takes a third of a second

        self._writer = SummaryWriter(str(directory), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
