"""Blocks that repeat: lossless, whatever the way to decode them, and however many there are."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sf_jax.decode.generate import SEQUENTIAL, DraftPlan, Generated
from sf_jax.decode.schema import Repeat, Schema
from sf_jax.sequence import tokenizer
from sf_jax.systems.semanticface.qwen_like import make_tokenizer
from tests.decode.lossless import (
    SMALL,
    Tiny,
    answer_ids,
    count_ties,
    sampling,
)

CAP = 5  # tokens of the rationale
PLAN = DraftPlan(rationale_width=2)
NARROW = DraftPlan(rationale_width=2, block_widths=(10,), growth=1, low_precision_passes=1)
KEYFRAMES = Schema(
    ("time", "a", "b"),
    (0.0, -0.1, 0.0),
    (0.3, 0.1, 1.0),
    paragraphs=True,
    repeat=Repeat(most=5),
)
FRAMES = Schema(("a", "b", "c"), (0.0, -0.3, 0.0), (0.5, 0.3, 1.0), repeat=Repeat(window=8))


def shown(count: int) -> list[np.ndarray]:
    """Images of 32 x 64 pixels."""
    generator = np.random.default_rng(5)
    return list(generator.integers(0, 256, (count, 32, 64, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: Any) -> tokenizer.JsonTokenizer:
    folder: Path = tmp_path_factory.mktemp("digits")
    make_tokenizer(folder)
    return tokenizer.JsonTokenizer.load(folder / "tokenizer.json")


def made_for(schema: Schema) -> tokenizer.Tokenizer:
    """A tokenizer with a symbol for each text of the schema."""
    texts = ["some words here\n\n", "and other words there\n\n"] * 50
    return tokenizer.train(texts, schema.symbols(), 400)


def toy(words: tokenizer.Tokenizer, schema: Schema, seed: int) -> Tiny:
    return dataclasses.replace(Tiny.make(SMALL, words, schema, seed, scale=3.0), patches=8)


@pytest.fixture(scope="module")
def keyframes(digits: tokenizer.JsonTokenizer) -> Tiny:
    """Up to five blocks of values of several tokens, after a rationale."""
    return toy(digits, KEYFRAMES, 3)


@pytest.fixture(scope="module")
def windowed(digits: tokenizer.JsonTokenizer) -> Tiny:
    """The same in a window of two."""
    bounded = Repeat(most=5, window=2)
    return toy(digits, dataclasses.replace(KEYFRAMES, repeat=bounded), 4)


@pytest.fixture(scope="module")
def frames() -> Tiny:
    """Blocks without end of values of one token, in a window of eight."""
    return toy(made_for(FRAMES), FRAMES, 6)


def ids_of(tiny: Tiny, made: Generated, spoke: bool = True) -> list[list[int]]:
    return [answer_ids(tiny.program, made, row, spoke) for row in range(len(made.choices))]


def check_lossless(
    tiny: Tiny, count: int, temperature: float, plans: tuple[DraftPlan, ...], **repeated: Any
) -> tuple[Generated, int]:
    """Every plan's answers beside the reference's, and their score; the last and all ties."""
    images, drawn, ties = shown(count), sampling(count, temperature), 0
    reference, gaps = tiny.reference(images, drawn, max_words=CAP, **repeated)
    for plan in plans:
        made = tiny.answer(images, drawn, plan, max_words=CAP, **repeated)
        ties += count_ties(ids_of(tiny, made), reference, gaps)
        check_score(tiny, images, made, drawn, **repeated)
    return made, ties


def check_score(
    tiny: Tiny, images: list[np.ndarray], made: Generated, drawn: Any, **repeated: Any
) -> None:
    """Scoring certifies the answers, with the log-probabilities that generation reports."""
    scored = tiny.certificate(images, made, drawn, **repeated)
    assert (scored.least_margin > -1e-5).all()
    real = np.arange(made.choices.shape[1]) < made.repeats[:, None]
    taken = np.take_along_axis(made.log_probabilities, made.choices[..., None], -1)[..., 0]
    np.testing.assert_allclose(scored.slots, np.where(real[..., None], taken, 0), atol=2e-5)
    last = np.arange(made.choices.shape[1]) == made.repeats[:, None] - 1
    stops = np.where(last, made.stop_log_probabilities[..., 1], made.stop_log_probabilities[..., 0])
    np.testing.assert_allclose(scored.stops, np.where(real, stops, 0), atol=2e-5)
    spoken = made.rationale_log_probabilities
    np.testing.assert_allclose(scored.rationale[:, : spoken.shape[1]], spoken, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_bounded_block_is_lossless(keyframes: Tiny, temperature: float) -> None:
    made, _ = check_lossless(keyframes, 12, temperature, (SEQUENTIAL, PLAN))
    assert len(set(made.repeats.tolist())) > 1  # the model itself ends the array
    assert (made.block_passes < made.repeats * len(keyframes.program.kind)).any()
