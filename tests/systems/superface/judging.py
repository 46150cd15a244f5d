"""Judged pairs of made-up answers, and the models that learn from them in tests."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sf_jax.convert.processor import ImageProcessor
from sf_jax.face.channels import HIGH, LOW
from sf_jax.face.regions import Region
from sf_jax.model.config import Config
from sf_jax.reader.loading import BUILTIN
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence import tokenizer as tokenizers
from sf_jax.sequence.tokenizer import IMAGE, VISION_END, VISION_START, Tokenizer
from sf_jax.systems.semanticface.qwen_like import make_tokenizer
from sf_jax.systems.superface.examples import AnswerExamples, PairGroups, images_by_hash, judged
from sf_jax.systems.superface.pairs import Candidate, Choice, Judgement, Pair, image_hash

AT = "2026-11-30T10:50:34Z"
PROCESSOR = ImageProcessor(4096, 9216)  # 64 x 64 pixels stay as they are


def drawn(seed: int) -> np.ndarray:
    """Coefficients in tenths, many of them not 0."""
    g = np.random.default_rng(seed)
    values = np.rint(10 * g.uniform(LOW, HIGH, 61)) / 10 * (g.random(61) < 0.7)
    return (values + 0.0).astype(np.float32)


def pair(
    number: int, region: Region = "upper", image: int | None = None
) -> tuple[Pair, np.ndarray]:
    """A pair of answers to an image of noise, of its own or of another number."""
    g = np.random.default_rng(number if image is None else image)
    pixels = g.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    answers = [Candidate(drawn(2 * number + i), f"drawn {i}") for i in range(2)]
    rig, weights = "a" * 32, "b" * 32
    return Pair(image_hash(pixels), region, *answers, 2.0, rig, weights), pixels


def judgement(of: Pair, choice: Choice, **changed: object) -> Judgement:
    plain = Judgement(of.key, "Ada", choice, 2.0, "first", False, False, AT)
    return dataclasses.replace(plain, **changed)  # type: ignore[arg-type]


def groups(
    answers: AnswerExamples,
    count: int,
    region: Callable[[int], Region] = lambda number: ("upper", "lower", "whole")[number % 3],
    **options: object,
) -> PairGroups:
    """Pairs of which the first answer was chosen, with two pairs an image."""
    made = [pair(number, region(number), number // 2) for number in range(count)]
    found = judged([one for one, _ in made], [judgement(one, "first") for one, _ in made])
    pictures = images_by_hash({one.image: pixels for one, pixels in made})
    return PairGroups(found, pictures, answers, **options)  # type: ignore[arg-type]


def answers_of(config: Config, tokenizer: Tokenizer, slots: bool) -> AnswerExamples:
    """Answers of all channels, by a model of these shapes and this tokenizer."""
    config = dataclasses.replace(
        config,
        text=dataclasses.replace(config.text, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.symbol(IMAGE),
        vision_start_token_id=tokenizer.symbol(VISION_START),
        vision_end_token_id=tokenizer.symbol(VISION_END),
    )
    schema = channel_schema(paragraphs=not slots)
    return AnswerExamples(config, tokenizer, PROCESSOR, schema, slots)


def symbols() -> Tokenizer:
    """The built-in model's, in which a value is one token."""
    return tokenizers.load(BUILTIN)


def digits(folder: Path) -> Tokenizer:
    """One of single digits, as Qwen's."""
    make_tokenizer(folder)
    return tokenizers.load(folder)
