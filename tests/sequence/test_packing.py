"""Packed rows: what unpacked ones would learn, on any number of processes, and resumable."""

import itertools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import records
from data_pipelines.records import RecordError
from data_pipelines.sampler import sample
from sf_jax.convert.processor import ImageProcessor
from sf_jax.decode.program import compile_program
from sf_jax.face import answers
from sf_jax.face.describe import describe
from sf_jax.model import text, vision
from sf_jax.model.config import Config
from sf_jax.model.vlm import mrope_positions
from sf_jax.model.weights import Weights
from sf_jax.reader.estimator import BUILTIN, SCHEMA
from sf_jax.sequence.packing import (
    ChatExamples,
    Example,
    FaceExamples,
    PackedBatches,
    ShuffledRecords,
    choose,
)
from sf_jax.sequence.tokenizer import IMAGE, VISION_END, VISION_START, Tokenizer
from sf_jax.systems.semanticface.sequences import SequenceConfig, Sequences
from sf_jax.train.losses import supervised as objective

LENGTH, PATCHES = 96, 72
SIZES = ((64, 96), (96, 64), (32, 64), (32, 32))
Source = Callable[[int], Example]


@pytest.fixture(scope="module")
def source(tiny_config: Config) -> Source:
    """Random tokens around up to two pictures of different sizes; some targets are others."""

    def make(number: int) -> Example:
        g = np.random.default_rng([7, number])
        pictures = [
            g.integers(0, 256, (*SIZES[g.integers(len(SIZES))], 3)).astype(np.uint8)
            for _ in range(g.integers(3))
        ]
        tokens = g.integers(10, 200, g.integers(2, 5)).tolist()
        for picture in pictures:
            count = picture.size // (3 * 32**2)
            tokens += [8, *[tiny_config.image_token_id] * count, 9]
        prompt = len(tokens)
        tokens += g.integers(10, 200, g.integers(8, 24)).tolist()
        targets = np.array(tokens, np.int32)
        swapped = g.integers(prompt, len(tokens), 3)
        targets[swapped] = g.integers(10, 200, 3)
        weights = np.where(np.arange(len(tokens)) < prompt, 0, g.random(len(tokens)))
        return Example(
            number,
            f"record {number}",
            np.array(tokens, np.int32),
            targets,
            weights.astype(np.float32),
            pictures,
        )

    return make


@pytest.fixture(scope="module")
def build(source: Source, tiny_config: Config) -> Callable[..., PackedBatches]:
    def make(row_count: int = 4, **options: Any) -> PackedBatches:
        chosen = {"length": LENGTH, "patch_count": PATCHES, "pool": 10, **options}
        given_source = chosen.pop("source", source)
        return PackedBatches(given_source, tiny_config, row_count=row_count, **chosen)

    return make


def take(batches: PackedBatches, count: int) -> list[tuple[dict[str, Any], list[list[int]]]]:
    return [(next(batches), batches.examples) for _ in range(count)]


def fields(batch: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every array of a batch by its name, rows first."""
    leaves = jax.tree_util.tree_flatten_with_path(batch)[0]
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    return {n: a.swapaxes(0, 1) if n.endswith("positions") else a for n, a in named.items()}


def assert_same(found: list[tuple], expected: list[tuple]) -> None:
    assert len(found) == len(expected)
    for (batch, numbers), (other, other_numbers) in zip(found, expected, strict=True):
        assert numbers == other_numbers
        found_fields, expected_fields = fields(batch), fields(other)
        assert found_fields.keys() == expected_fields.keys() and len(found_fields) == 12
        for name, values in expected_fields.items():
            np.testing.assert_array_equal(found_fields[name], values, err_msg=name)


def sizes_of(example: Example) -> tuple[int, int]:
    return len(example.tokens), sum(p.size // (3 * 16**2) for p in example.pictures)


small_sizes = st.lists(
    st.tuples(st.integers(1, 14), st.sampled_from([0, 4, 8, 12, 20])), min_size=1, max_size=9
)


@given(small_sizes, st.integers(14, 40), st.integers(20, 48))
def test_the_choice_is_the_best_of_all(
    sizes: list[tuple[int, int]], length: int, patches: int
) -> None:
    best: Any = None
    for others in itertools.product((True, False), repeat=len(sizes) - 1):
        members = (True, *others)
        inside = [size for size, member in zip(sizes, members, strict=True) if member]
        tokens, seen = (sum(column) for column in zip(*inside, strict=True))
        if tokens <= length and seen <= patches:
            best = max(best, (tokens, seen, members)) if best else (tokens, seen, members)
    found = choose(sizes, length, patches)
    assert found == [i for i, member in enumerate(best[2]) if member]
    assert found[0] == 0


@pytest.fixture(scope="module")
def losses(tiny_config: Config, tiny_weights: Weights) -> Callable[..., dict[int, float]]:
    """A batch → the weighted sum of next-token losses of each example, by its number."""

    @jax.jit
    def every(batch: dict[str, Any]) -> jax.Array:
        features = vision.forward(tiny_weights.vision, batch["patches"], tiny_config.vision)
        seen = objective.states(tiny_weights, batch["rows"], *features, tiny_config)
        scores = text.logits(tiny_weights.text, seen[:, :-1])
        target = jnp.take_along_axis(scores, batch["targets"][:, 1:, None], -1)[..., 0]
        weight = batch["rows"].loss_weights[:, 1:]
        return (jax.nn.logsumexp(scores, -1) - target) * weight

    def sums(
        batch: dict[str, Any], numbers: list[list[int]], segments: np.ndarray | None = None
    ) -> dict[int, float]:
        found = np.asarray(every(batch), np.float64)
        of = (batch["rows"].segments if segments is None else segments)[:, 1:]
        return {
            number: float(found[row][of[row] == segment].sum())
            for row, inside in enumerate(numbers)
            for segment, number in enumerate(inside, 1)
        }

    return sums


def test_packed_examples_have_the_losses_of_unpacked_ones(
    build: Callable[..., PackedBatches], losses: Callable[..., dict[int, float]], source: Source
) -> None:
    packed: dict[int, float] = {}
    mixed = 0
    for batch, numbers in take(build(), 3):
        packed |= losses(batch, numbers)
        shapes = [{p.shape for n in row for p in source(n).pictures} for row in numbers]
        mixed += sum(len(shape) > 1 for shape in shapes)
    assert mixed > 6 and len(packed) > 24
    alone: dict[int, float] = {}
    for batch, numbers in take(build(pack=False), max(packed) // 4 + 1):
        assert all(len(row) == 1 for row in numbers)
        alone |= losses(batch, numbers)
    found = np.array([[packed[n], alone[n]] for n in packed])
    assert (found > 0.1).all()
    print(f"\npacked and unpacked losses: {np.abs(found[:, 0] / found[:, 1] - 1).max():.1e} apart")
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=1e-5)


def test_neighbours_would_be_seen_without_segments(
    build: Callable[..., PackedBatches], losses: Callable[..., dict[int, float]]
) -> None:
    ((batch, numbers),) = take(build(), 1)
    apart = losses(batch, numbers)
    segments = batch["rows"].segments
    for name in ("rows", "patches"):
        joined = replace(batch[name], segments=np.minimum(batch[name].segments, 1))
        together = losses({**batch, name: joined}, numbers, segments)
        assert sum(abs(together[n] / apart[n] - 1) > 1e-3 for n in apart) > len(apart) // 2


def test_a_row_holds_its_examples_one_after_another(
    build: Callable[..., PackedBatches], source: Source, tiny_config: Config
) -> None:
    ((batch, numbers),) = take(build(), 1)
    rows, patches = batch["rows"], batch["patches"]
    for row, inside in enumerate(numbers):
        examples = [source(n) for n in inside]
        size = sum(len(e.tokens) for e in examples)
        np.testing.assert_array_equal(
            rows.segments[row, :size],
            np.concatenate([[i] * len(e.tokens) for i, e in enumerate(examples, 1)]),
        )
        for name, values in (
            ("tokens", rows.input_ids),
            ("targets", batch["targets"]),
            ("loss_weights", rows.loss_weights),
        ):
            expected = np.concatenate([getattr(e, name) for e in examples])
            np.testing.assert_array_equal(values[row, :size], expected)
            assert not values[row, size:].any()
        pictures = [p for e in examples for p in e.pictures]
        alone = vision.collate(pictures, tiny_config.vision, 24)
        real = alone.segments.astype(bool)
        count = real.sum()
        np.testing.assert_array_equal(
            patches.segments[row, :count], np.repeat(np.arange(len(real)) + 1, real.sum(1))
        )
        assert not patches.segments[row, count:].any()
        for name in ("pixels", "rows", "columns", "position_ids", "position_weights"):
            found = getattr(patches, name)[row]
            np.testing.assert_array_equal(found[:count], getattr(alone, name)[real])
            assert not found[count:].any()
        positions = [
            mrope_positions(
                e.tokens, [(p.shape[0] // 32, p.shape[1] // 32) for p in e.pictures], tiny_config
            )
            for e in examples
        ]
        np.testing.assert_array_equal(rows.positions[:, row, :size], np.hstack(positions))
        image = np.flatnonzero(rows.input_ids[row] == tiny_config.image_token_id)
        np.testing.assert_array_equal(rows.image_places[row, : len(image)], image)
        assert len(image) * 4 == count and (rows.image_places[row, len(image) :] == LENGTH).all()


def test_two_processes_make_the_batches_of_one(build: Callable[..., PackedBatches]) -> None:
    whole = take(build(), 6)
    halves = [take(build(rows=rows), 6) for rows in ([0, 2], [3, 1])]
    for step, (batch, numbers) in enumerate(whole):
        for rows, half in zip(([0, 2], [3, 1]), halves, strict=True):
            assert half[step][1] == [numbers[row] for row in rows]
            found, expected = fields(half[step][0]), fields(batch)
            for name, values in expected.items():
                np.testing.assert_array_equal(found[name], values[rows], err_msg=name)


def test_a_saved_state_continues_on_any_split(build: Callable[..., PackedBatches]) -> None:
    whole = build()
    expected = take(whole, 9)
    halves = [build(rows=rows) for rows in ([0, 1], [2, 3])]
    for half in halves:
        take(half, 5)
    states = [json.loads(json.dumps(half.get_state())) for half in halves]
    state = {"row_count": 4, "streams": states[0]["streams"] | states[1]["streams"]}
    assert len(json.dumps(state)) < 600

    resumed = build()
    take(resumed, 2)  # and then goes elsewhere
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert_same(take(resumed, 4), expected[5:])
    assert resumed.get_state() == whole.get_state()

    rows = [2, 0, 3]
    split = build(rows=rows)
    split.set_state(state)
    for (batch, numbers), (other, other_numbers) in zip(take(split, 4), expected[5:], strict=True):
        assert numbers == [other_numbers[row] for row in rows]
        np.testing.assert_array_equal(batch["rows"].input_ids, other["rows"].input_ids[rows])


def test_the_first_state_is_the_beginning(build: Callable[..., PackedBatches]) -> None:
    batches = build()
    start = batches.get_state()
    expected = take(batches, 2)
    batches.set_state(start)
    assert_same(take(batches, 2), expected)


def test_a_state_of_other_rows_is_refused(build: Callable[..., PackedBatches]) -> None:
    with pytest.raises(ValueError, match="of 4 rows a global batch, here are 6"):
        build(6).set_state(build().get_state())
    with pytest.raises(ValueError, match=r"lacks the streams of rows \[2, 3\]"):
        build().set_state(build(rows=[0, 1]).get_state())


def test_rows_and_patches_must_make_sense(build: Callable[..., PackedBatches]) -> None:
    for rows in ([0, 0], [4], [-1]):
        with pytest.raises(ValueError, match="expected different ones below 4"):
            build(rows=rows)
    with pytest.raises(ValueError, match="70 patches do not make whole tokens"):
        build(patch_count=70)
    with pytest.raises(ValueError, match="pool is 0"):
        build(pool=0)


def test_every_example_is_drawn_once_and_none_starves(build: Callable[..., PackedBatches]) -> None:
    batches = build(3, rows=[2, 0])
    drawn: dict[int, list[int]] = {2: [], 0: []}
    waiting = {2: 2, 0: 0}  # the oldest example not yet in a row
    for _, numbers in take(batches, 200):
        for (row, seen), inside in zip(drawn.items(), numbers, strict=True):
            assert inside == sorted(inside) and inside[0] == waiting[row]
            seen += inside
            waiting[row] = next(n for n in itertools.count(waiting[row], 3) if n not in seen)
    streams = batches.get_state()["streams"]
    for row, seen in drawn.items():
        pending, following = streams[str(row)]["pending"], streams[str(row)]["next"]
        assert sorted(seen + pending) == list(range(row, following, 3))


def test_a_batch_is_made_while_the_one_before_is_used(
    build: Callable[..., PackedBatches], source: Source
) -> None:
    made = threading.Event()

    def watched(number: int) -> Example:
        if number >= 4 * 10:  # beyond what fills the pools for the first batch
            made.set()
        return source(number)

    next(build(source=watched))
    assert made.wait(30)


def test_an_error_is_raised_where_the_batch_is_wanted(
    build: Callable[..., PackedBatches], source: Source
) -> None:
    good = take(build(), 8)
    broken = True

    def breaking(number: int) -> Example:
        if broken and number == 83:
            raise RecordError("record 83: damaged")
        return source(number)

    batches = build(source=breaking)
    found = []
    with pytest.raises(RecordError, match="record 83"):
        while len(found) < 8:
            found += take(batches, 1)
    assert 0 < len(found) < 8
    state = batches.get_state()
    with pytest.raises(RecordError, match="record 83"):
        next(batches)
    assert batches.get_state() == state
    broken = False
    assert_same(found + take(batches, 8 - len(found)), good)


@pytest.mark.parametrize(
    ("tokens", "picture", "expected"),
    [
        (97, (32, 32), "record 5: an example of 97 tokens and 4 patches exceeds rows of 96 tokens"),
        (50, (320, 64), "record 5: an example of 50 tokens and 80 patches exceeds .* 72 patches"),
        (50, (32, 48), "record 5: a picture of 32 x 48 pixels, expected multiples of 32"),
        (50, (64, 64), "record 5: a picture of 2 x 2 tokens meets fewer image tokens"),
    ],
)
def test_an_example_that_cannot_be_used_is_named(
    build: Callable[..., PackedBatches],
    source: Source,
    tokens: int,
    picture: tuple[int, int],
    expected: str,
) -> None:
    def wrong(number: int) -> Example:
        if number != 5:
            return source(number)
        ids = np.array([8, 7, 9, *[10] * (tokens - 3)], np.int32)
        image = np.zeros((*picture, 3), np.uint8)
        return Example(5, "record 5", ids, ids, np.zeros(tokens, np.float32), [image])

    with pytest.raises(ValueError, match=expected):
        take(build(source=wrong), 12)


def test_an_example_must_be_whole() -> None:
    ids = np.array([1, 2], np.int32)
    with pytest.raises(ValueError, match="a file, record 3: 2 tokens, 2 targets and 1 loss"):
        Example(3, "a file, record 3", ids, ids, np.zeros(1, np.float32), [])
    with pytest.raises(ValueError, match="record 3: the first token follows nothing"):
        Example(3, "record 3", ids, ids, np.ones(2, np.float32), [])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(BUILTIN / "tokenizer.model")


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
    batches = PackedBatches(source, config, row_count=2, length=2048, patch_count=396)
    assert batches.waste == (0.0, 0.0)
    numbers = [row for _, inside in take(batches, 20) for row in inside]
    tokens, patches = batches.waste
    used = sum(sizes_of(source(n))[0] for row in numbers for n in row)
    assert tokens == pytest.approx(1 - used / (40 * 2048))
    mean = np.mean([len(row) for row in numbers])
    print(f"\nwaste: {tokens:.2%} of tokens, {patches:.2%} of patches; {mean:.1f} examples a row")
    assert tokens <= 0.05 and patches <= 0.05
    alone = PackedBatches(source, config, row_count=2, length=232, patch_count=36, pack=False)
    take(alone, 5)
    assert alone.waste[0] > 0.1 and alone.waste[1] < 0.05


def test_records_come_by_number_in_shuffled_epochs(tmp_path: Path) -> None:
    for name, part in (("a", range(4)), ("b", range(4, 11))):
        rows = ({**face(n)[1], "identity": n} for n in part)
        records.write(tmp_path / f"{name}.array_record", rows)
    order = ShuffledRecords(tmp_path, seed=2)
    found = [order(n) for n in range(33)]
    identities = [record["identity"] for _, record in found]
    epochs = [identities[i : i + 11] for i in (0, 11, 22)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    for where, record in found:
        n = record["identity"]
        place = f"a.array_record, record {n}" if n < 4 else f"b.array_record, record {n - 4}"
        assert where == str(tmp_path / place)
        np.testing.assert_array_equal(record["image"], face(n)[1]["image"])
    assert order.places(range(11, 22)) in (
        f"{tmp_path}/{one}.array_record, records {list(range(a))}; "
        f"{tmp_path}/{two}.array_record, records {list(range(b))}"
        for one, a, two, b in (("a", 4, "b", 7), ("b", 7, "a", 4))
    )
    again, other = ShuffledRecords(tmp_path, seed=2), ShuffledRecords(tmp_path, seed=3)
    assert [again(n)[1]["identity"] for n in (20, 3)] == [identities[20], identities[3]]
    assert [other(n)[1]["identity"] for n in range(11)] != epochs[0]


def test_a_face_example_is_what_sequences_make(sequences: Sequences) -> None:
    source = FaceExamples(face, sequences, seed=4)
    for number in range(8):
        example, again = source(number), source(number)
        for name in ("tokens", "targets", "loss_weights"):
            np.testing.assert_array_equal(getattr(example, name), getattr(again, name))
        assert (example.number, example.where) == (number, f"face {number}")
        generator = np.random.default_rng([4, number])
        height, width = example.pictures[0].shape[:2]
        prompt, shown, wanted, weights = sequences.example(
            face(number)[1]["coefficients"],
            face(number + 1)[1]["coefficients"],
            (height // 32, width // 32),
            generator,
        )
        np.testing.assert_array_equal(example.tokens, prompt + shown)
        np.testing.assert_array_equal(example.targets, prompt + wanted)
        np.testing.assert_allclose(example.loss_weights, [0.0] * len(prompt) + weights)
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
    tokenizer: Tokenizer, words: bool, messages: list[dict[str, Any]] | None
) -> None:
    def record(number: int) -> tuple[str, dict[str, Any]]:
        where, found = face(number)
        return where, found if words else {**found, "rationale": ""}

    example = ChatExamples(record, tokenizer, PROCESSOR, messages)(3)
    np.testing.assert_array_equal(example.tokens, example.targets)
    assert example.pictures[0].shape == (64, 128, 3)
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


def test_a_nested_answer_holds_its_words(tokenizer: Tokenizer) -> None:
    example = ChatExamples(face, tokenizer, PROCESSOR, layout="nested", decimals=3)(1)
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
    tokenizer: Tokenizer, change: dict[str, Any], expected: str
) -> None:
    def record(number: int) -> tuple[str, dict[str, Any]]:
        where, found = face(number)
        return where, {**found, **change}

    with pytest.raises(ValueError, match=f"face 1: .*{re.escape(expected)}"):
        ChatExamples(record, tokenizer, PROCESSOR)(1)
