"""A stand-in for a model: reads 61 channels in tenths, and answers by the pixels and the seed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from data_pipelines.sampler import sample
from sf_jax.convert.processor import FittedImage
from sf_jax.face.channels import HIGH, LOW
from sf_jax.reader.action import FaceAction, Provenance, no_face


def _grid() -> np.ndarray:
    out = np.full((61, 21), np.nan, np.float32)
    for i in range(61):
        values = np.arange(round(10 * LOW[i]), round(10 * HIGH[i]) + 1) / 10
        out[i, : len(values)] = values
    return out


GRID = _grid()


class Answering:
    """Has what `candidates.Answers` and `asking` need of a model."""

    values = GRID
    provenance = Provenance(weights="xxh128:" + "d" * 32)

    def __init__(self, shift: int = 0) -> None:
        self.asked: list[dict[str, Any]] = []
        self.shift = shift

    def frames(self, whole: bool | None = None) -> bool:
        return whole is False

    def fitted(self, image: np.ndarray) -> FittedImage:
        return FittedImage(image)

    def predict_batch(self, images: Sequence[FittedImage], **asked: Any) -> list[FaceAction]:
        self.asked.append(asked)
        seeds = asked.get("seed", [0] * len(images))
        warmth = asked.get("temperature", 0.0)
        found = []
        for picture, seed in zip(images, seeds, strict=True):
            own = int(picture.pixels.sum()) % 1000 + self.shift
            values = sample(own)
            if warmth:
                g = np.random.default_rng([own, seed])
                values = np.where(g.random(61) < 0.5 * warmth, sample(own + seed + 1), values)
            answer = np.round(values, 1).astype(np.float32)
            found.append(replace(no_face(), coefficients=values.astype(np.float32), answer=answer))
        return found
