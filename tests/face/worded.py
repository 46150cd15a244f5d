"""Freely worded rationales with the coefficients they describe, written by hand: two files of 100.

Each file begins with the manner in which it came to be. After "== " are the coefficients: "Name .6"
is both sides, or a channel without sides; "Name .6/.2" is left/right; the others are 0.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sf_jax.face.channels import INDEX

FOLDER = Path(__file__).parent / "rationales"
HALVES = ("first_half", "second_half")


class Worded(NamedTuple):
    coefficients: np.ndarray  # float64 [61]
    text: str


def coefficients(line: str) -> np.ndarray:
    """Of a line such as "JawOpen .5; MouthSmile .6/.2; HeadYaw -.3"."""
    out = np.zeros(61)
    for part in filter(None, map(str.strip, line.split(";"))):
        name, value = part.split()
        left, _, right = value.partition("/")
        if name in INDEX:
            assert not right, part
            out[INDEX[name]] = float(left)
        else:
            out[INDEX[name + "Left"]] = float(left)
            out[INDEX[name + "Right"]] = float(right or left)
    return out


def half(name: str) -> list[Worded]:
    """The rationales of one file, in order."""
    _, *parts = re.split(r"^== ?", (FOLDER / f"{name}.txt").read_text(), flags=re.M)
    found = [part.partition("\n") for part in parts]
    return [Worded(coefficients(head), text.strip()) for head, _, text in found]
