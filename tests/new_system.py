"""A system of another modality and schema, to show what a new one needs: tones in, frames out.

A tone of F frames goes in as F windows of samples. Out come objects of three numbers (loudness,
height and noise of a window), as many as the model finds frames, at most `FRAMES`.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from sf_jax.decode.program import compile_program
from sf_jax.decode.schema import Repeat, Schema
from sf_jax.model import axes, weights
from sf_jax.model.config import TextConfig
from sf_jax.model.declared import Declarer, Linear
from sf_jax.model.inserts import Insert
from sf_jax.model.linear import apply
from sf_jax.model.weights import TextWeights
from sf_jax.sequence import tokenizer
from sf_jax.sequence.batch import Batch, Capacity, Modality
from sf_jax.sequence.example import Example
from sf_jax.train.losses.supervised import supervised_loss
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.task import Task

FRAMES, WINDOW = 4, 16
SIZES = {"window": FRAMES, "sample": WINDOW}
SCHEMA = Schema(("loudness", "height", "noise"), (0.0,) * 3, (1.0,) * 3, repeat=Repeat(FRAMES))
TOKENIZER = tokenizer.train(["listen\n"] * 50, SCHEMA.symbols(), 400)
PROGRAM = compile_program(SCHEMA, TOKENIZER)
PROMPT, START = TOKENIZER.encode("listen\n"), TOKENIZER.encode("\n\n")
PLACEHOLDER = TOKENIZER.symbol(tokenizer.IMAGE)


@struct.dataclass
class Tones:
    """Windows of samples, and the sequence position of each."""

    samples: Float[Array, "B M W"] = axes.array(axes.BATCH, "window", "sample", dtype=np.float32)
    segments: Int[Array, "B M"] = axes.array(axes.BATCH, "window")
    at: Int[Array, "B M"] = axes.array(axes.BATCH, "window")


@struct.dataclass
class ToneWeights:
    listen: Linear
    text: TextWeights


@dataclass(frozen=True)
class ToneConfig:
    """An architecture: a linear over windows in place of a vision encoder."""

    text: TextConfig
    product_dtype: str = "float32"
    text_remat: str = "none"
    unrolled: bool = False

    def declare(self) -> ToneWeights:
        width = self.text.hidden_size
        listen = Declarer("tones").linear("listen", ("sample", "embed"), (WINDOW, width))
        return ToneWeights(listen, weights.declare(None, self.text).text)

    def encode(self, weights: ToneWeights, inputs: Any) -> tuple[Insert, ...]:
        tones = inputs["tones"]
        return (Insert(apply(weights.listen, tones.samples, self.product_dtype), tones.at),)


@dataclass(frozen=True, eq=False)
class ToneInsert:
    """One tone [F, W] in an example; a window takes one position, as a word does."""

    samples: np.ndarray
    start: int = 0
    modality = "tones"
    size = advance = property(lambda self: len(self.samples))
    positions = property(lambda self: np.tile(np.arange(self.size, dtype=np.int32), (3, 1)))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"samples": self.samples}


CONFIG = ToneConfig(TextConfig(len(TOKENIZER), 64, 96, 2, 4, 2, 16, (4, 2, 2), rope_theta=10_000.0))


def capacity(length: int = 48) -> Capacity:
    return Capacity(length, {"tones": Modality(Tones, SIZES, "window")})


def example(number: int, answered: bool = True) -> Example:
    """A tone of 1 to 4 frames, and the numbers that made it."""
    generator = np.random.default_rng(number)
    numbers = generator.integers(0, 11, (generator.integers(1, FRAMES + 1), 3)) / 10
    loudness, height, noise = (numbers[:, i, None] for i in range(3))
    samples = loudness * np.sin(np.arange(WINDOW) * (0.3 + height))
    samples += 0.3 * noise * generator.normal(size=samples.shape)
    prompt = [PLACEHOLDER] * len(numbers) + PROMPT + START
    answer = PROGRAM.answer(PROGRAM.nearest(numbers)) if answered else ()
    inserts = (ToneInsert(samples.astype(np.float32)),)
    return Example.of(prompt, inserts, answer, number=number)


class Listen(Task):
    rows = 16
    optimizer = OptimizerConfig(3e-3, 12, 2, kind="adamw")

    def declare(self) -> ToneWeights:
        return CONFIG.declare()

    def batch_shapes(self) -> Batch:
        return capacity().abstract(self.rows)

    def loss(self, weights: Any, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        return supervised_loss(weights, batch, CONFIG)
