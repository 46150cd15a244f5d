"""Packed rows: what unpacked ones would learn, on any number of processes, and resumable."""

import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_jax.model import text
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights
from sf_jax.sequence import images
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.example import Example
from sf_jax.sequence.forward import forward
from sf_jax.sequence.packing import PackedBatches, choose

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
        inserts = images.image_inserts(tokens, pictures, tiny_config)
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
            inserts,
        )

    return make


@pytest.fixture(scope="module")
def build(source: Source, tiny_config: Config) -> Callable[..., PackedBatches]:
    def make(row_count: int = 4, **options: Any) -> PackedBatches:
        chosen = {"source": source, "pool": 10, **options}
        capacity = images.capacity(tiny_config, LENGTH, PATCHES)
        return PackedBatches(chosen.pop("source"), capacity, row_count=row_count, **chosen)

    return make


def take(batches: PackedBatches, count: int) -> list[tuple[Batch, list[list[int]]]]:
    return [(next(batches), batches.examples) for _ in range(count)]


def fields(batch: Batch) -> dict[str, np.ndarray]:
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
    return len(example.tokens), sum(insert.size for insert in example.inserts)


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
    def every(batch: Batch) -> jax.Array:
        seen, _ = forward(tiny_weights, batch, tiny_config)
        scores = text.logits(tiny_weights.text, seen[:, :-1])
        assert batch.targets is not None
        target = jnp.take_along_axis(scores, batch.targets[:, 1:, None], -1)[..., 0]
        weight = batch.loss_weights[:, 1:]
        return (jax.nn.logsumexp(scores, -1) - target) * weight

    def sums(
        batch: Batch, numbers: list[list[int]], segments: np.ndarray | None = None
    ) -> dict[int, float]:
        found = np.asarray(every(batch), np.float64)
        of = (np.asarray(batch.segments) if segments is None else segments)[:, 1:]
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
        shapes = [{i.grid for n in row for i in source(n).inserts} for row in numbers]
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
    patches = batch.inputs["vision"]
    joined_patches = replace(patches, segments=np.minimum(patches.segments, 1))
    for joined in (
        replace(batch, segments=np.minimum(batch.segments, 1)),
        replace(batch, inputs={"vision": joined_patches}),
    ):
        together = losses(joined, numbers, np.asarray(batch.segments))
        assert sum(abs(together[n] / apart[n] - 1) > 1e-3 for n in apart) > len(apart) // 2


def test_a_row_holds_its_examples_one_after_another(
    build: Callable[..., PackedBatches], source: Source, tiny_config: Config
) -> None:
    ((batch, numbers),) = take(build(), 1)
    patches = batch.inputs["vision"]
    for row, inside in enumerate(numbers):
        examples = [source(n) for n in inside]
        size = sum(len(e.tokens) for e in examples)
        np.testing.assert_array_equal(
            batch.segments[row, :size],
            np.concatenate([[i] * len(e.tokens) for i, e in enumerate(examples, 1)]),
        )
        for name, values in (
            ("tokens", batch.input_ids),
            ("targets", batch.targets),
            ("loss_weights", batch.loss_weights),
        ):
            expected = np.concatenate([getattr(e, name) for e in examples])
            np.testing.assert_array_equal(values[row, :size], expected)
            assert not values[row, size:].any()
        alone = [insert.arrays() for e in examples for insert in e.inserts]
        counts = [len(arrays["pixels"]) for arrays in alone]
        count = sum(counts)
        np.testing.assert_array_equal(
            patches.segments[row, :count], np.repeat(np.arange(len(counts)) + 1, counts)
        )
        assert not patches.segments[row, count:].any()
        for name in ("pixels", "rows", "columns", "position_ids", "position_weights"):
            found = getattr(patches, name)[row]
            if alone:
                expected = np.concatenate([arrays[name] for arrays in alone])
                np.testing.assert_array_equal(found[:count], expected)
            assert not found[count:].any()
        positions = np.hstack([e.positions for e in examples])
        np.testing.assert_array_equal(batch.positions[:, row, :size], positions)
        image = np.flatnonzero(batch.input_ids[row] == tiny_config.image_token_id)
        np.testing.assert_array_equal(patches.at[row, : len(image)], image)
        assert len(image) * 4 == count and (patches.at[row, len(image) :] == LENGTH).all()


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
        np.testing.assert_array_equal(batch.input_ids, np.asarray(other.input_ids)[rows])


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


def test_rows_and_pool_must_make_sense(build: Callable[..., PackedBatches]) -> None:
    for rows in ([0, 0], [4], [-1]):
        with pytest.raises(ValueError, match="expected different ones below 4"):
            build(rows=rows)
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
            raise LookupError("record 83: damaged")
        return source(number)

    batches = build(source=breaking)
    found = []
    with pytest.raises(LookupError, match="record 83"):
        while len(found) < 8:
            found += take(batches, 1)
    assert 0 < len(found) < 8
    state = batches.get_state()
    with pytest.raises(LookupError, match="record 83"):
        next(batches)
    assert batches.get_state() == state
    broken = False
    assert_same(found + take(batches, 8 - len(found)), good)


@pytest.mark.parametrize(
    ("tokens", "picture", "expected"),
    [
        (97, (32, 32), "record 5: an example of 97 tokens and 4 units exceeds rows of 96 tokens"),
        (50, (320, 64), "record 5: an example of 50 tokens and 80 units exceeds .* 72 units"),
    ],
)
def test_an_example_that_cannot_be_used_is_named(
    build: Callable[..., PackedBatches],
    source: Source,
    tiny_config: Config,
    tokens: int,
    picture: tuple[int, int],
    expected: str,
) -> None:
    def wrong(number: int) -> Example:
        if number != 5:
            return source(number)
        image = np.zeros((*picture, 3), np.uint8)
        ids = [8, *[7] * (image.size // (3 * 32**2)), 9]
        ids += [10] * (tokens - len(ids))
        inserts = images.image_inserts(ids, [image], tiny_config)
        return Example.of(ids, inserts, number=5, where="record 5")

    with pytest.raises(ValueError, match=expected):
        take(build(source=wrong), 12)
