"""A model without weights and image files, for tests of `sf-jax predict`."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sf_jax.cli import loading
from sf_jax.reader.action import FaceAction
from sf_jax.render import preview
from tests.cli.test_cli import FakeModel


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """A model without weights; the sheets are small images."""
    fake = FakeModel()
    monkeypatch.setattr(loading, "load_model", lambda *_: fake)
    monkeypatch.setattr(preview, "preview", small_sheet)
    return fake


def small_sheet(seen: np.ndarray, _: FaceAction, path: Path, *found: object) -> None:
    Image.fromarray(seen).save(path, "PNG")


@pytest.fixture
def image(tmp_path: Path) -> Callable[..., Path]:
    """Makes a file below the test's folder; the jaw opens by the green of an image."""

    def make(name: str | bytes, green: int = 150) -> Path:
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 16), (200, green, 30)).save(path, "PNG")
        return path

    return make
