"""Small folders of pairs with images of noise, for tests that read, judge or train on them."""

from pathlib import Path

import numpy as np

from sf_jax.face.channels import INDEX
from sf_jax.face.regions import PARTS, Region
from sf_jax.systems.superface import folder
from sf_jax.systems.superface.pairs import Candidate, Pair, image_hash, render_name

RIG, WEIGHTS = "a" * 32, "b" * 32
SIZE = 16
HEADER = folder.Header(model="tiny", rig="made up", size=SIZE)


def candidate(region: Region, origin: str = "means", **values: float) -> Candidate:
    coefficients = np.zeros(61, np.float32)
    for name, value in values.items():
        coefficients[INDEX[name]] = value
    pose = (0.1, 0.0, -0.2)
    return Candidate(coefficients, origin, render_name(coefficients, RIG, pose, SIZE, region))


def pair(number: int = 0, region: Region | None = None) -> tuple[Pair, np.ndarray]:
    """A pair and its image; pairs of other numbers are others."""
    image = np.random.default_rng(number).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    region = region or PARTS[number % 2]
    made = Pair(
        image=image_hash(image),
        region=region,
        first=candidate(region, JawOpen=0.3, BrowInnerUp=0.1),
        second=candidate(region, "sampled, temperature 0.7", JawOpen=0.7, BrowInnerUp=0.9),
        difference=1.5,
        rig=RIG,
        weights=WEIGHTS,
        pose=(0.1, 0.0, -0.2),
        gold="first" if number % 5 == 4 else None,
    )
    return made, image


def fill(path: Path, count: int, start: int = 0) -> folder.PairFolder:
    """Adds `count` pairs to a folder and reads it."""
    with folder.filling(path, HEADER) as adding:
        for number in range(start, start + count):
            one, image = pair(number)
            renders = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
            adding.add(one, image, *renders)
    return folder.read(path)
