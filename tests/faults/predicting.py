"""`sf-jax predict` for faults: a model without weights, small sheets, one or two runs."""

import os
import resource
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from sf_jax import cli
from sf_jax.cli import loading
from sf_jax.reader.action import FaceAction
from sf_jax.render import preview
from tests.cli.test_cli import FakeModel
from tests.media.videos import counting, write_video

HERE = "tests.faults.predicting"
ONCE, TWICE, FULL = f"{HERE}:once", f"{HERE}:twice", f"{HERE}:full"


def small_sheet(seen: np.ndarray, _: FaceAction, path: Path, *found: object) -> None:
    Image.fromarray(seen).save(path, "PNG")


def _predict(argv: tuple[str, ...]) -> int:
    """The exit code of the command."""
    with (
        mock.patch.object(loading, "load_model", lambda *_: FakeModel()),
        mock.patch.object(preview, "preview", small_sheet),
    ):
        return cli.main(["predict", *argv])


def once(*argv: str) -> None:
    """Runs the command; leaves with its exit code."""
    raise SystemExit(_predict(argv))


def twice(*argv: str) -> None:
    """The same again, into the same folder; the second run must end as the first did."""
    first, second = _predict(argv), _predict(argv)
    assert first == second, f"exit code {first}, then {second}"
    raise SystemExit(second)


def full(limit: str, *argv: str) -> None:
    """With files of at most so many bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), before[1]))
    try:
        raise SystemExit(_predict(argv))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def image(draw: np.random.Generator, path: Path, kind: str = "PNG") -> Path:
    """A small image of noise; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8)).save(path, kind)
    return path


def clip(path: Path) -> Path:
    """A video of three frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, 24.0, [counting(i) for i in range(3)])


def pick(draw: np.random.Generator, options: list) -> str:
    """One of the options, as Python's own type."""
    return options[int(draw.integers(len(options)))]


def some(draw: np.random.Generator, options: list) -> list:
    """A few of the options, at least one."""
    chosen = draw.permutation(len(options))[: int(draw.integers(1, len(options) + 1))]
    return [options[i] for i in sorted(chosen)]


def rows(path: Path) -> int:
    """Rows of a CSV below its header; -1 where there is none."""
    return path.read_bytes().count(b"\n") - 1 if os.path.exists(path) else -1
