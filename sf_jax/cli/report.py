"""Errors become text here, a line each, and an exit code."""

import os
import sys
from collections.abc import Iterable

from sf_jax.media.errors import printable


def failed(failures: Iterable[Exception | str]) -> int:
    """Prints failures on standard error, a line each; 2 if there are any, else 0."""
    lines = [" ".join(_sentence(failure).split()) for failure in failures]
    for line in lines:
        print(f"sf-jax: error: {line}", file=sys.stderr)
    return 2 if lines else 0


def _sentence(failure: Exception | str) -> str:
    """What failed; of an operating system's error, the file first and no number."""
    if isinstance(failure, OSError) and failure.filename is not None and failure.strerror:
        return f"{printable(os.fsdecode(failure.filename))}: {failure.strerror}"
    return str(failure)
