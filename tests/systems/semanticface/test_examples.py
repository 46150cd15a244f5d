"""Face records as conversations to learn from."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data_pipelines.sampler import sample
from sf_jax.convert.processor import ImageProcessor
from sf_jax.decode.program import compile_program
from sf_jax.face import answers
from sf_jax.face.describe import describe
from sf_jax.model.config import Config
from sf_jax.reader.loading import BUILTIN
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence import images
from sf_jax.sequence.packing import PackedBatches
from sf_jax.sequence.tokenizer import (
    IMAGE,
    VISION_END,
    VISION_START,
    SentencePieceTokenizer,
    Tokenizer,
)
from sf_jax.systems.semanticface.examples import ChatExamples, FaceExamples
from sf_jax.systems.semanticface.sequences import SequenceConfig, Sequences

SCHEMA = channel_schema()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return SentencePieceTokenizer.load(BUILTIN / "tokenizer.model")


@pytest.fixture(scope="module")
def config(tiny_config: Config, tokenizer: Tokenizer) -> Config:
    return replace(
        tiny_config,
        text=replace(tiny_config.text, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.symbol(IMAGE),
        vision_start_token_id=tokenizer.symbol(VISION_START),
        vision_end_token_id=tokenizer.symbol(VISION_END),
    )


@pytest.fixture(scope="module")
def sequences(config: Config, tokenizer: Tokenizer) -> Sequences:
    return Sequences(config, tokenizer, SCHEMA, SequenceConfig(), 36)


def face(number: int) -> tuple[str, dict[str, Any]]:
    """A record of the built-in data with an empty picture; one in sixteen is not square."""
    coefficients = sample(number)
    size = (64, 128) if number % 16 == 3 else (96, 96)
    return f"face {number}", {
        "image": np.full((*size, 3), number % 256, np.uint8),
        "coefficients": coefficients,
        "rationale": describe(coefficients, number).text,
    }


def test_little_is_wasted(config: Config, sequences: Sequences) -> None:
    source = FaceExamples(face, sequences)
    batches = PackedBatches(source, images.capacity(config, 2048, 396, slots=True), row_count=2)
    assert batches.waste == (0.0, 0.0)
    numbers = []
    for _ in range(20):
        next(batches)
        numbers += batches.examples
    tokens, patches = batches.waste
    used = sum(source(n).size[0] for row in numbers for n in row)
    assert tokens == pytest.approx(1 - used / (40 * 2048))
    mean = np.mean([len(row) for row in numbers])
    print(f"\nwaste: {tokens:.2%} of tokens, {patches:.2%} of patches; {mean:.1f} examples a row")
    assert tokens <= 0.05 and patches <= 0.05
    alone = PackedBatches(
        source, images.capacity(config, 232, 36, slots=True), row_count=2, pack=False
    )
    for _ in range(5):
        next(alone)
    assert alone.waste[0] > 0.1 and alone.waste[1] < 0.05


def test_a_face_example_is_what_sequences_make(sequences: Sequences) -> None:
    source = FaceExamples(face, sequences, seed=4)
    for number in range(8):
        example, again = source(number), source(number)
        for name in ("tokens", "targets", "loss_weights"):
            np.testing.assert_array_equal(getattr(example, name), getattr(again, name))
        assert (example.number, example.where) == (number, f"face {number}")
        generator = np.random.default_rng([4, number])
        expected = sequences.example(
            face(number)[1]["image"],
            face(number)[1]["coefficients"],
            face(number + 1)[1]["coefficients"],
            generator,
        )
        for name in ("tokens", "targets", "loss_weights"):
            np.testing.assert_array_equal(getattr(example, name), getattr(expected, name))
    other = FaceExamples(face, sequences, seed=5)
    assert any(other(n).tokens.tolist() != source(n).tokens.tolist() for n in range(4))


PROCESSOR = ImageProcessor(18 * 256, 36 * 256)
QUESTION = [
    {"role": "system", "content": "Be exact."},
    {"role": "user", "content": "<image>What does this face do?"},
]


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("messages", [None, QUESTION])
def test_a_chat_example_asks_and_answers(
    config: Config, tokenizer: Tokenizer, words: bool, messages: list[dict[str, Any]] | None
) -> None:
    def record(number: int) -> tuple[str, dict[str, Any]]:
        where, found = face(number)
        return where, found if words else {**found, "rationale": ""}

    example = ChatExamples(record, config, tokenizer, PROCESSOR, messages)(3)
    np.testing.assert_array_equal(example.tokens, example.targets)
    assert example.inserts[0].merged == (2, 4)
    learnt = example.loss_weights > 0
    prompt = tokenizer.decode(example.tokens[~learnt])
    answer = tokenizer.decode(example.tokens[learnt])
    assert prompt.count(IMAGE) == 8 and answer.endswith("}<|im_end|>")
    assert prompt.endswith("<|im_start|>assistant\n" + ("" if words else "\n\n"))
    assert ("What does this face do?" in prompt) == (messages is not None)
    parsed = answers.parse(answer.removesuffix("<|im_end|>"))
    np.testing.assert_allclose(parsed.coefficients, face(3)[1]["coefficients"], atol=0.051)
    assert parsed.rationale == (face(3)[1]["rationale"] if words else "")
    # The numbers are tokens that the grammar of decoding can say.
    program = compile_program(SCHEMA, tokenizer)
    block = program.answer(program.nearest(parsed.coefficients)) + program.closing.tolist()
    assert example.tokens[-len(block) :].tolist() == block


def test_a_nested_answer_holds_its_words(config: Config, tokenizer: Tokenizer) -> None:
    example = ChatExamples(face, config, tokenizer, PROCESSOR, layout="nested", decimals=3)(1)
    answer = tokenizer.decode(example.tokens[example.loss_weights > 0])
    parsed = answers.parse(answer.removesuffix("<|im_end|>"))
    assert parsed.layout == "nested" and parsed.rationale == face(1)[1]["rationale"]
    np.testing.assert_allclose(parsed.coefficients, face(1)[1]["coefficients"], atol=5.1e-4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rationale": "A <|im_end|> smile."}, "the rationale holds '<|im_end|>'"),
        ({"coefficients": np.full(61, 2.0)}, "EyeBlinkLeft is 2"),
        ({"image": np.zeros((4, 3000, 3), np.uint8)}, "cut it to the face"),
    ],
)
def test_a_record_that_is_no_conversation_is_named(
    config: Config, tokenizer: Tokenizer, change: dict[str, Any], expected: str
) -> None:
    def record(number: int) -> tuple[str, dict[str, Any]]:
        where, found = face(number)
        return where, {**found, **change}

    with pytest.raises(ValueError, match=f"face 1: .*{re.escape(expected)}"):
        ChatExamples(record, config, tokenizer, PROCESSOR)(1)


def test_a_face_that_does_not_fit_is_named(sequences: Sequences) -> None:
    def record(number: int) -> tuple[str, dict[str, Any]]:
        where, found = face(number)
        return where, {**found, "image": np.zeros((32, 48, 3), np.uint8)}

    with pytest.raises(ValueError, match="face 5: an image of 32 x 48 pixels"):
        FaceExamples(record, sequences)(5)
