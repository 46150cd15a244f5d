"""What `sf-jax predict` wrote, for tests."""

import csv
from pathlib import Path

from sf_jax.reader.results import LOCK, RECORD
from tests.cli.test_cli import names
from tests.media.videos import counting, write_video


def clip(path: Path, count: int = 4) -> Path:
    return write_video(path, 24.0, [counting(i) for i in range(count)])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (RECORD, LOCK)
    }


def listed(folder: Path) -> list[str]:
    """Names of results but for the index beside a CSV, which is the same for all."""
    return [name for name in names(folder) if not name.endswith(".index.csv")]


def rows(path: Path) -> list[float]:
    with path.open(encoding="utf-8") as file:
        return [float(row["JawOpen"]) for row in csv.DictReader(file)]
