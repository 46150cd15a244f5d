"""Errors become text here, a line each, and an exit code."""

import sys
from collections.abc import Iterable


def failed(failures: Iterable[Exception | str]) -> int:
    """Prints failures on standard error, a line each; 2 if there are any, else 0."""
    lines = [" ".join(str(failure).split()) for failure in failures]
    for line in lines:
        print(f"sf-jax: error: {line}", file=sys.stderr)
    return 2 if lines else 0
