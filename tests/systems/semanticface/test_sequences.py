"""Token rows: answers that can be read back, loss where something is to be learnt, nowhere else."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from data_pipelines.sampler import sample
from sf_jax.decode.schema import Schema
from sf_jax.face import answers
from sf_jax.face.agreement import agreement
from sf_jax.face.channels import HIGH, LOW, NAMES
from sf_jax.face.describe import Description, describe
from sf_jax.model.config import Config
from sf_jax.reader.question import NUMBERS_FIRST, NUMBERS_ONLY, WITH_RATIONALE
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence import tokenizer as tokenizers
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.tokenizer import IM_END, IMAGE, VISION_END, VISION_START, Tokenizer
from sf_jax.systems.semanticface.sequences import (
    SequenceConfig,
    Sequences,
    round_randomly,
    vocabulary_texts,
)

SCHEMA = Schema(NAMES, tuple(map(float, LOW)), tuple(map(float, HIGH)))
COUNT, LENGTH, PATCHES = 24, 420, 36
SIZES = ((96, 96), (64, 96), (96, 32))  # 9, 6 and 3 picture tokens


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    faces = np.stack([sample(10_000 + i) for i in range(300)])
    return tokenizers.train(vocabulary_texts(faces), SCHEMA.symbols(), 900)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.stack([sample(i) for i in range(COUNT)])


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    g = np.random.default_rng(4)
    sizes = [SIZES[i % 3] for i in range(COUNT)]
    return [g.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def config(tiny_config: Config, tokenizer: Tokenizer) -> Config:
    return replace(
        tiny_config,
        text=replace(tiny_config.text, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.symbol(IMAGE),
        vision_start_token_id=tokenizer.symbol(VISION_START),
        vision_end_token_id=tokenizer.symbol(VISION_END),
    )


@dataclass
class Example:
    """One row of a batch, cut up."""

    prompt: str
    words: list[int]  # without the token that ends them
    shown: answers.Answer
    wanted: answers.Answer
    before: np.ndarray  # loss weights of the prompt
    spoken: np.ndarray  # of the words and the token that ends them
    block: np.ndarray  # of the JSON
    after: np.ndarray  # of the padding


@pytest.fixture(scope="module")
def batch_of(config: Config, tokenizer: Tokenizer, faces: np.ndarray, images: list[np.ndarray]):
    def make(seed: int = 0, **options: Any) -> tuple[Batch, list[Example], Sequences]:
        chosen = SequenceConfig(**{"length": LENGTH, **options})
        sequences = Sequences(config, tokenizer, SCHEMA, chosen, PATCHES)
        batch = sequences.batch(images, faces, np.random.default_rng(seed))
        return batch, [cut(batch, i, sequences) for i in range(COUNT)], sequences

    return make


def cut(batch: Batch, row: int, sequences: Sequences) -> Example:
    rows, tokenizer = batch, sequences.tokenizer
    size = int(rows.segments[row].sum())
    assert rows.segments[row, :size].all()
    shown, wanted = rows.input_ids[row, :size].tolist(), batch.targets[row, :size].tolist()
    weights = rows.loss_weights[row]
    ends = int(sequences.program.rationale_end)
    assert wanted.count(ends) == 1  # a blank line within the words would end them
    end = wanted.index(ends) + 1
    assert shown[:end] == wanted[:end]
    assert size - end == sequences.answer_length
    opening = tokenizer.encode("<|im_start|>assistant\n")
    starts = [i for i in range(end) if wanted[i : i + len(opening)] == opening]
    start = starts[-1] + len(opening)
    words = wanted[start : end - 1]
    text = tokenizer.decode(words)

    def read(ids: list[int]) -> answers.Answer:
        return answers.parse(text + "\n\n" + tokenizer.decode(ids[end:]) + "}")

    # Without words the blank line is part of the prompt.
    prompt = start if words else end
    return Example(
        tokenizer.decode(wanted[:start]),
        words,
        read(shown),
        read(wanted),
        weights[:prompt],
        weights[prompt:end],
        weights[end:size],
        weights[size:],
    )


def test_targets_read_back_as_the_face(batch_of: Any, faces: np.ndarray) -> None:
    _, examples, _ = batch_of(foreign_words=0.0)
    for face, example in zip(faces, examples, strict=True):
        assert np.abs(example.wanted.coefficients - face).max() < 0.1 + 1e-5
        rationale = example.wanted.rationale
        assert bool(rationale) == bool(example.words)
        assert (WITH_RATIONALE if rationale else NUMBERS_ONLY) in example.prompt
    assert {bool(example.words) for example in examples} == {True, False}


def test_words_are_the_description(batch_of: Any, faces: np.ndarray) -> None:
    seen = []

    def remember(numbers: np.ndarray, seed: int) -> Any:
        seen.append(describe(numbers, seed))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sf_jax.systems.semanticface.sequences.describe", remember)
        _, examples, _ = batch_of(words=1.0, foreign_words=0.0)
    assert [e.wanted.rationale for e in examples] == [words.text for words in seen]


def test_loss_is_on_values_and_words_alone(batch_of: Any) -> None:
    batch, examples, sequences = batch_of(foreign_words=0.0, words_weight=0.3, slots=False)
    program = sequences.program
    for row, example in enumerate(examples):
        assert not example.before.any() and not example.after.any()
        np.testing.assert_allclose(example.spoken, 0.3)
        assert len(example.spoken) == (len(example.words) + 1 if example.words else 0)
        weighted = np.flatnonzero(batch.loss_weights[row] == 1)
        assert len(weighted) == len(NAMES) and set(example.block.tolist()) == {0.0, 1.0}
        for slot, token in enumerate(batch.targets[row, weighted]):
            assert token in program.value_symbols[slot][program.valid[program.kind[slot]]]


def test_foreign_words_carry_no_loss(batch_of: Any, faces: np.ndarray) -> None:
    seen = []

    def remember(numbers: np.ndarray, seed: int) -> Any:
        seen.append(numbers)
        return describe(numbers, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sf_jax.systems.semanticface.sequences.describe", remember)
        _, examples, _ = batch_of(words=1.0, foreign_words=1.0, slots=False)
    np.testing.assert_array_equal(seen, np.roll(faces, -1, 0))
    for face, example in zip(faces, examples, strict=True):
        assert example.words and not example.spoken.any()
        assert example.block.sum() == len(NAMES)
        assert np.abs(example.wanted.coefficients - face).max() < 0.1 + 1e-5


def test_foreign_values_are_shown_and_not_wanted(batch_of: Any, faces: np.ndarray) -> None:
    batch, examples, _ = batch_of(foreign_values=1.0)
    for face, other, example in zip(faces, np.roll(faces, -1, 0), examples, strict=True):
        assert np.abs(example.wanted.coefficients - face).max() < 0.1 + 1e-5
        assert np.abs(example.shown.coefficients - other).max() < 0.1 + 1e-5
    batch, _, _ = batch_of(foreign_values=0.0)
    np.testing.assert_array_equal(batch.input_ids, batch.targets)


def test_shares_are_kept(batch_of: Any) -> None:
    drawn = [example for seed in range(12) for example in batch_of(seed)[1]]
    spoken = [example for example in drawn if example.words]
    assert 0.6 < len(spoken) / len(drawn) < 0.8
    assert 0.4 < sum(not example.spoken.any() for example in spoken) / len(spoken) < 0.6


def test_words_that_do_not_fit_are_left_out_whole(batch_of: Any, config: Config) -> None:
    _, examples, sequences = batch_of(words=0.0)
    longest = max(len(example.before) for example in examples) + sequences.answer_length
    _, examples, _ = batch_of(words=1.0, length=longest)
    assert not any(example.words for example in examples)
    assert all(NUMBERS_ONLY in example.prompt for example in examples)


def test_images_take_the_positions_of_their_tokens(batch_of: Any, config: Config) -> None:
    batch, _, _ = batch_of()
    rows = batch
    for row in range(COUNT):
        height, width = SIZES[row % 3]
        at = rows.inputs["vision"].at[row]
        real = at[at < LENGTH]
        assert len(real) == height * width // 32**2
        assert (rows.input_ids[row, real] == config.image_token_id).all()
        assert batch.inputs["vision"].segments[row].sum() == 4 * len(real)


def test_a_generator_gives_the_same_batch(batch_of: Any) -> None:
    one, two, other = (batch_of(seed)[0].targets for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_slots_are_predicted_before_their_values_from_exact_numbers(
    batch_of: Any, faces: np.ndarray
) -> None:
    batch, _, _ = batch_of(words_weight=0.3)
    tokens, _, _ = batch_of(words_weight=0.3, slots=False)
    assert tokens.slots is None
    np.testing.assert_array_equal(batch.input_ids, tokens.input_ids)
    for row in range(COUNT):
        at = positions_of(batch, row)
        valued = np.flatnonzero(tokens.loss_weights[row] == 1)
        np.testing.assert_array_equal(at + 1, valued)
        np.testing.assert_array_equal(batch.slots[row, at], np.arange(1, len(NAMES) + 1))
        np.testing.assert_array_equal(batch.numbers[row, at], faces[row])
        assert batch.slot_weights[row].sum() == len(NAMES) == batch.slot_weights[row, at].sum()
        assert not batch.loss_weights[row, valued].any()  # each is learnt once


def positions_of(batch: Any, row: int) -> np.ndarray:
    """Where slots are predicted."""
    return np.flatnonzero(batch.slots[row])


def test_reading_rows_are_whole_rows_without_words_and_values(
    batch_of: Any, images: list[np.ndarray], faces: np.ndarray
) -> None:
    whole, _, sequences = batch_of(words=0.0)
    made = sequences.reading(images, faces, np.random.default_rng(0))
    assert made.targets is None
    for row in range(COUNT):
        rows, slots, before = made, positions_of(made, row), positions_of(whole, row)
        np.testing.assert_array_equal(made.numbers[row, slots], faces[row])
        size = int(rows.segments[row].sum())
        assert rows.segments[row, :size].all() and size == slots[-1] + 1
        # Each key has the token and the position that it has in a whole row.
        np.testing.assert_array_equal(rows.input_ids[row, slots], whole.input_ids[row, before])
        np.testing.assert_array_equal(
            rows.positions[:, row, slots], whole.positions[:, row, before]
        )
        text = sequences.tokenizer.decode(rows.input_ids[row, :size].tolist())
        assert NUMBERS_ONLY in text and not any(digit in text for digit in "0123456789")


def test_skipped_words_leave_a_gap(
    batch_of: Any, images: list[np.ndarray], faces: np.ndarray
) -> None:
    _, _, sequences = batch_of(words=1.0, gap=50)
    made = sequences.reading(images, faces, np.random.default_rng(0))
    gaps = set()
    for row in range(COUNT):
        ends = int(np.argmax(made.input_ids[row] == sequences.program.rationale_end))
        time = made.positions[0, row]
        gaps.add(int(time[ends] - time[ends - 1] - 1))
        assert time[ends + 1] == time[ends] + 1  # the keys go on where the words have ended
        assert (np.diff(time[positions_of(made, row)]) == 2).all()
    assert len(gaps) > 5 and min(gaps) >= 0 and max(gaps) <= 50


def test_random_rounding_is_unbiased() -> None:
    numbers = np.array([-1.0, -0.97, -0.03, 0.0, 0.02, 0.05, 0.449, 0.5, 0.999, 1.0])
    drawn = round_randomly(np.tile(numbers, (40_000, 1)), 1, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(0), numbers, atol=0.002)
    assert np.abs(drawn - numbers).max() < 0.1
    np.testing.assert_allclose(drawn * 10, np.rint(drawn * 10), atol=1e-9)
    assert (drawn[:, numbers == 1.0] == 1.0).all() and (drawn[:, numbers == -1.0] == -1.0).all()


def values_first_rows(
    config: Config, tokenizer: Tokenizer, faces: np.ndarray, images: list, **options: Any
) -> tuple[Batch, list[tuple[str, answers.Answer, answers.Answer]], Sequences]:
    """A batch, and of each row the prompt and the answers in the input and wanted."""
    known = options.pop("known", None)
    chosen = SequenceConfig(**{"length": LENGTH, "values_first": 1.0, **options})
    sequences = Sequences(config, tokenizer, SCHEMA, chosen, PATCHES)
    batch = sequences.batch(images, faces, np.random.default_rng(1), known)
    rows = []
    for row in range(COUNT):
        size = int(batch.segments[row].sum())
        texts = [tokenizer.decode(x[row, :size].tolist()) for x in (batch.input_ids, batch.targets)]
        begins = [text.index("assistant\n") + len("assistant\n") for text in texts]
        found = [text[at:].removesuffix(IM_END) for text, at in zip(texts, begins, strict=True)]
        found = [text if "}" in text else text + "}" for text in found]  # without words
        rows.append((texts[0][: begins[0]], answers.parse(found[0]), answers.parse(found[1])))
    return batch, rows, sequences


def test_values_that_come_first_are_described_as_they_are_shown(
    config: Config, tokenizer: Tokenizer, faces: np.ndarray, images: list
) -> None:
    batch, rows, _ = values_first_rows(config, tokenizer, faces, images, words=1.0)
    end = tokenizer.symbol(IM_END)
    for row, (prompt, shown, wanted) in enumerate(rows):
        assert NUMBERS_FIRST in prompt
        found = agreement(Description.parse(shown.rationale), shown.coefficients)
        assert found is not None and found.exact == found.mentions and not found.missing
        assert np.abs(wanted.coefficients - faces[row]).max() < 0.1 + 1e-5
        size = int(batch.segments[row].sum())
        assert batch.input_ids[row, size - 1] == end
        # Words and their end carry loss, what is between them and the values does not.
        spoken = [*tokenizer.encode(shown.rationale), end]
        np.testing.assert_array_equal(batch.input_ids[row, size - len(spoken) : size], spoken)
        assert (batch.loss_weights[row, size - len(spoken) : size] == 3).all()
        assert not batch.loss_weights[row, : size - len(spoken)].any()
    assert any((shown.coefficients != wanted.coefficients).any() for _, shown, wanted in rows)


def test_without_words_the_prompt_and_the_values_are_the_same(
    config: Config, tokenizer: Tokenizer, faces: np.ndarray, images: list
) -> None:
    batch, _, _ = values_first_rows(config, tokenizer, faces, images, words=1.0)
    mute, rows, _ = values_first_rows(config, tokenizer, faces, images, words=0.0)
    for row in range(COUNT):
        size = int(mute.segments[row].sum())
        assert size == positions_of(mute, row)[-1] + 2 and not rows[row][1].rationale
        np.testing.assert_array_equal(mute.input_ids[row, :size], batch.input_ids[row, :size])
        np.testing.assert_array_equal(positions_of(mute, row), positions_of(batch, row))


def test_both_orders_share_a_batch(
    batch_of: Any, config: Config, tokenizer: Tokenizer, faces: np.ndarray, images: list
) -> None:
    options = SequenceConfig(length=LENGTH, values_first=0.5)
    sequences = Sequences(config, tokenizer, SCHEMA, options, PATCHES)
    batch = sequences.batch(images, faces, np.random.default_rng(1))
    texts = [tokenizer.decode(row.tolist()) for row in batch.input_ids]
    first = sum(NUMBERS_FIRST in text for text in texts)
    assert 4 < first < COUNT - 4 and any(WITH_RATIONALE in text for text in texts)
    by_schema = Sequences(
        config, tokenizer, replace(SCHEMA, order="values_first"), SequenceConfig(), PATCHES
    )
    assert by_schema.values_first == 1.0
    reading = sequences.reading(images, faces, np.random.default_rng(1))
    prompts = [tokenizer.decode(row.tolist()) for row in reading.input_ids]
    assert 4 < sum(NUMBERS_FIRST in text for text in prompts) < COUNT - 4


def test_what_is_not_known_is_not_learnt(
    batch_of: Any, config: Config, tokenizer: Tokenizer, faces: np.ndarray, images: list
) -> None:
    known = np.random.default_rng(3).random((COUNT, 61)) < 0.7
    known[0] = True
    for share, words in ((0.0, 0.0), (1.0, 3.0)):  # words before the values are not learnt then
        options = SequenceConfig(
            length=LENGTH, values_first=share, words=1.0, foreign_words=0.0, foreign_values=0.0
        )
        sequences = Sequences(config, tokenizer, SCHEMA, options, PATCHES)
        batch = sequences.batch(images, faces, np.random.default_rng(1), known)
        reading = sequences.reading(images, faces, np.random.default_rng(1), known)
        for row in range(COUNT):
            at = positions_of(batch, row)
            np.testing.assert_array_equal(batch.slot_weights[row, at], known[row])
            np.testing.assert_array_equal(
                reading.slot_weights[row, positions_of(reading, row)], known[row]
            )
            # What is not known has another face's value in the input.
            spoken = sequences.program.values[sequences.program.kind]
            shown = [
                spoken[slot][list(sequences.program.value_symbols[slot]).index(token)]
                for slot, token in enumerate(batch.input_ids[row, at + 1])
            ]
            expected = np.where(known[row], faces[row], faces[(row + 1) % COUNT])
            assert np.abs(np.array(shown) - expected).max() < 0.1 + 1e-5
            learnt = batch.loss_weights[row].max()
            assert learnt == (3.0 if known[row].all() else words)


def test_words_of_another_face_are_learnt_where_asked_for(batch_of: Any) -> None:
    """What such an arm of an ablation learns to say describes some other face."""
    for learnt in (False, True):
        chosen = {"words": 1.0, "foreign_words": 1.0, "foreign_learnt": learnt}
        _, examples, _ = batch_of(**chosen)
        spoken = [example.spoken for example in examples if example.words]
        assert len(spoken) > COUNT // 2
        assert all((weights > 0).all() == learnt for weights in spoken)


def test_recorded_words_are_learnt_as_they_are(
    config: Config, tokenizer: Tokenizer, faces: np.ndarray, images: list
) -> None:
    options = SequenceConfig(length=LENGTH, words=1.0, foreign_words=0.0, recorded=True)
    sequences = Sequences(config, tokenizer, SCHEMA, options, PATCHES)
    texts = [f"1. Expression: smile {i}." if i % 2 else "" for i in range(COUNT)]
    generator = np.random.default_rng(1)
    batch = sequences.batch(images, faces, generator, texts=texts)
    found = [cut(batch, row, sequences) for row in range(COUNT)]
    assert [tokenizer.decode(each.words) for each in found] == texts
    assert all((each.spoken > 0).all() for each in found if each.words)


def test_slots_of_some_channels_of_all(
    config: Config, tokenizer: Tokenizer, faces: np.ndarray, images: list
) -> None:
    """Words speak of all channels, and slots are of those that the schema has."""
    chosen = (NAMES[25], NAMES[3], NAMES[52])
    schema = channel_schema(chosen)
    words = tokenizers.train(vocabulary_texts(faces), schema.symbols(), 900)
    options = SequenceConfig(length=LENGTH, words=1.0, foreign_words=0.0)
    sequences = Sequences(config, words, schema, options, PATCHES)
    assert sequences.length_without_words < LENGTH - 100
    for make in (sequences.batch, sequences.reading):
        batch = make(images, faces, np.random.default_rng(1))
        assert batch.slots is not None and batch.numbers is not None
        for row in range(COUNT):
            at = [int(np.flatnonzero(batch.slots[row] == slot)[0]) for slot in (1, 2, 3)]
            np.testing.assert_allclose(batch.numbers[row, at], faces[row, [25, 3, 52]], atol=1e-6)
    batch = sequences.batch(images, faces, np.random.default_rng(1))
    assert any("head" in words.decode(row.tolist()).lower() for row in batch.targets)
