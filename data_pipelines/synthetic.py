"""Rendered faces: images with exact coefficients, deterministic from a seed."""

import contextlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipelines import records
from data_pipelines.sampler import sample
from sf_jax.face.describe import describe
from sf_jax.media import locks
from sf_jax.media.child_processes import die_with
from sf_jax.media.errors import DataError
from sf_jax.render.draw import BACKGROUND, draw
from sf_jax.render.head import builtin
from sf_jax.render.rig import Rig
from sf_jax.render.scene import random_scene

SIDE = 96  # pixels
CELLS = 24  # a side of the coarse material map
SHARD = 2000  # images a file
TRAIN_IDENTITIES = 20_000
EVALUATION_OFFSET = 1_000_000  # of seeds and identities, never reached by training


def face_record(index: int, seed: int, split: str, rig: Rig | None = None) -> dict[str, Any]:
    """Record `index` of a split. People of the evaluation split are in no training image.

    One in sixteen images is not square.

    Raises:
      ValueError: there is no such split, or `index` would reach into the other split.
    """
    if split not in ("train", "evaluation"):
        raise ValueError(f"the split is 'train' or 'evaluation', not {split!r}")
    if not 0 <= index < EVALUATION_OFFSET:
        raise ValueError(f"record {index} of split {split}: expected 0 to {EVALUATION_OFFSET - 1}")
    rig = rig or builtin()
    number = _number(index, seed, split)
    g = np.random.default_rng([3, number])
    person = int(g.integers(TRAIN_IDENTITIES))
    person += EVALUATION_OFFSET if split == "evaluation" else 0
    scene = random_scene(number, person, len(rig.identity))
    height, width = SIDE, SIDE
    if g.random() < 0.0625:
        height, width = (64, 128) if g.random() < 0.5 else (128, 64)
    coefficients = sample(number)
    drawing = draw(rig, coefficients, scene, height, width)
    dense = height == width
    step = SIDE // CELLS
    parts = np.full((CELLS, CELLS), BACKGROUND, np.uint8)
    if dense:
        parts = drawing.material[step // 2 :: step, step // 2 :: step]
    return {
        "image": drawing.image,
        "coefficients": coefficients,
        "rationale": describe(coefficients, number).text,
        "landmarks": (drawing.landmarks / [width, height]).astype(np.float32),
        "parts": np.ascontiguousarray(parts),
        "dense": dense,
        "identity": person,
        "seed": number,
    }


def _write_shard(job: tuple[str, int, int, int, str]) -> int:
    path, start, stop, seed, split = job
    if Path(path).exists():
        with contextlib.suppress(records.RecordError):
            if records.count(path) >= stop - start:
                return stop - start
    return records.write(path, (face_record(i, seed, split) for i in range(start, stop)))


def _check_seed(path: str, start: int, seed: int, split: str) -> None:
    """Raises DataError where the first face of a file is not the one that a seed makes.

    A damaged file is rendered again, and so is one without faces.
    """
    wanted = _number(start, seed, split)
    found: object = wanted
    with contextlib.suppress(records.RecordError, StopIteration):
        found = next(records.read(path)).get("seed")
    if found != wanted:
        problem = f"holds other faces: the first is number {found}, --seed {seed} begins with "
        raise DataError(f"{problem}{wanted}; name another folder", path=path)


def _number(index: int, seed: int, split: str) -> int:
    """The number of a face, from which all of it is drawn."""
    return seed * 10_000_000 + index + (EVALUATION_OFFSET if split == "evaluation" else 0)


def check_unchanged(out: Path, count: int, split: str = "train") -> None:
    """Raises DataError where other than `count` faces are rendered already.

    Rendering would change them, and a run that has begun with them could not be resumed.
    """
    paths = sorted(out.glob(f"{split}-*.array_record"))
    found = sum(records.count(path) for path in paths)
    if paths and found != count:
        problem = f"the run began with {found:,} faces, {count:,} are asked for; give --images "
        raise DataError(f"{problem}{found}, or another --out", path=out)


def render(
    out: str | Path, count: int, *, split: str = "train", seed: int = 0, workers: int = 2
) -> None:
    """Renders `count` faces into files of 2,000; whole files are kept, so it resumes.

    The processes that render end with this one, and, on Linux, with the thread that calls it.

    Raises:
      BusyError: another process renders there.
      DataError: a file holds faces of another seed.
    """
    out = Path(out)
    jobs = [
        (str(out / f"{split}-{i // SHARD:05d}.array_record"), i, min(i + SHARD, count), seed, split)
        for i in range(0, count, SHARD)
    ]
    for path, start, *_ in jobs:
        if Path(path).exists():
            _check_seed(path, start, seed, split)
    # A fork would copy the locks of JAX's threads as they happen to be.
    with (
        locks.held(out) as lock,
        ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), die_with, (os.getpid(),)
        ) as pool,
        tqdm(total=count, desc=f"render {split}", unit="face") as bar,
    ):
        for written in pool.map(_write_shard, jobs):
            bar.update(written)
            lock.check()
