"""Rigs of other makers that tests use where they are beside the checkout, in ../shared/rigs."""

from functools import cache
from pathlib import Path

import pytest

from sf_jax.render import rigs
from sf_jax.render.rig import Rig

FOLDER = Path(__file__).parents[2] / "../shared/rigs"


def needed(name: str) -> Path:
    """A file or folder in ../shared/rigs; a test without it is skipped."""
    if not (FOLDER / name).exists():
        pytest.skip(f"{name} is not here: {FOLDER / name} is missing")
    return FOLDER / name


@cache
def shared(name: str) -> Rig:
    """The rig of a file in ../shared/rigs; a test without it is skipped."""
    return rigs.load(needed(name))


def ict_facekit() -> Rig:
    """ICT-FaceKit's light face model; a test without it is skipped."""
    return shared("ict_facekit.npz")
