"""Examples, and what the one builder makes of them."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from sf_jax.model.config import Config
from sf_jax.sequence import images
from sf_jax.sequence.batch import Capacity
from sf_jax.sequence.example import Example, assemble


def test_an_example_must_be_whole() -> None:
    ids = np.array([1, 2], np.int32)
    with pytest.raises(ValueError, match="a file, record 3: 2 tokens, 2 targets and 1 loss"):
        Example(3, "a file, record 3", ids, ids, np.zeros(1, np.float32), [])
    with pytest.raises(ValueError, match="record 3: the first token follows nothing"):
        Example(3, "record 3", ids, ids, np.ones(2, np.float32), [])


@pytest.fixture(scope="module")
def example(tiny_config: Config, pictures: list[np.ndarray]) -> Example:
    """A prompt with two pictures of 6 and 2 tokens, and an answer whose targets differ."""
    prompt = [1, 8, *[7] * 6, 9, 8, 7, 7, 9, 3]
    inserts = images.image_inserts(prompt, [pictures[0], pictures[2]], tiny_config)
    return Example.of(prompt, inserts, [11, 12, 13], [21, 22, 23], [0.5, 0.0, 1.0])


def test_an_answer_alone_is_learnt(example: Example) -> None:
    assert example.size == (17, 24 + 8)
    assert example.targets[-4:].tolist() == [3, 21, 22, 23]
    assert example.loss_weights.tolist() == [0.0] * 14 + [0.5, 0.0, 1.0]
    assert Example.of([1, 2], (), [3]).loss_weights.tolist() == [0.0, 0.0, 1.0]


def test_positions_of_a_worked_example(tiny_config: Config, pictures: list[np.ndarray]) -> None:
    tokens = [1, 8, 7, 7, 7, 7, 7, 7, 9, 11]
    inserts = images.image_inserts(tokens, pictures[:1], tiny_config)
    positions = Example.of(tokens, inserts).positions
    assert positions[0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 5, 6]
    assert positions[1].tolist() == [0, 1, 2, 2, 2, 3, 3, 3, 5, 6]
    assert positions[2].tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]


def test_skipped_positions_leave_a_gap() -> None:
    ids = np.array([5, 6, 7], np.int32)
    skipped = np.array([0, 4, 4], np.int32)
    example = Example(0, "example", ids, ids, np.zeros(3, np.float32), (), skipped)
    assert example.positions.tolist() == [[0, 5, 6]] * 3


def test_padding_on_the_left_moves_everything(tiny_config: Config, example: Example) -> None:
    capacity = images.capacity(tiny_config, 24, 40)
    right, left = (assemble([[example]], capacity, left=left) for left in (False, True))
    size = len(example.tokens)
    for name in ("input_ids", "segments", "targets", "loss_weights"):
        found = getattr(left, name)
        np.testing.assert_array_equal(found[:, -size:], getattr(right, name)[:, :size])
        assert not found[:, :-size].any()
    np.testing.assert_array_equal(left.positions[:, :, -size:], right.positions[:, :, :size])
    at, moved = right.inputs["vision"].at[0], left.inputs["vision"].at[0]
    assert at.tolist() == [2, 3, 4, 5, 6, 7, 10, 11, 24, 24]
    assert moved.tolist() == [9, 10, 11, 12, 13, 14, 17, 18, 24, 24]
    assert left.inputs["vision"].segments[0].tolist() == [1] * 24 + [2] * 8 + [0] * 8


def test_a_cached_prefix_is_left_out(tiny_config: Config, example: Example) -> None:
    whole = assemble([[example]], images.capacity(tiny_config, 17, 32))
    rest = assemble([[example]], images.capacity(tiny_config, 15, 32), skip=2)
    for name in ("input_ids", "segments", "targets", "loss_weights"):
        np.testing.assert_array_equal(getattr(rest, name), getattr(whole, name)[:, 2:])
    np.testing.assert_array_equal(rest.positions, whole.positions[:, :, 2:])
    np.testing.assert_array_equal(
        rest.inputs["vision"].at, np.asarray(whole.inputs["vision"].at) - 2
    )


def test_a_row_that_is_too_small_is_refused(tiny_config: Config, example: Example) -> None:
    with pytest.raises(ValueError, match="17 tokens of a row exceed its length, 16"):
        assemble([[example]], images.capacity(tiny_config, 16, 32))
    with pytest.raises(ValueError, match="vision: 32 along 'patch' exceed 24"):
        assemble([[example]], images.capacity(tiny_config, 17, 24))


def test_abstract_batches_have_the_shapes_of_real_ones(
    tiny_config: Config, example: Example
) -> None:
    capacity = images.capacity(tiny_config, 20, 40)
    made, abstract = assemble([[example]] * 3, capacity), capacity.abstract(3)
    assert jax.tree.structure(made) == jax.tree.structure(abstract)
    for array, shape in zip(jax.tree.leaves(made), jax.tree.leaves(abstract), strict=True):
        assert (array.shape, array.dtype) == (shape.shape, shape.dtype)


def test_text_alone_needs_no_modality(tiny_config: Config) -> None:
    capacity = images.capacity(replace(tiny_config, vision=None), 4, 0)
    batch = assemble([[Example.of([5, 6])], [Example.of([4])]], capacity)
    assert batch.inputs == {} and batch.input_ids.tolist() == [[5, 6, 0, 0], [4, 0, 0, 0]]


def test_slots_are_packed_beside_examples_without_any() -> None:
    plain = Example.of([5, 6], (), [7])
    slotted = replace(
        plain,
        slots=np.array([0, 1, 0], np.int32),
        numbers=np.array([0.0, 0.25, 0.0], np.float32),
        slot_weights=np.array([0.0, 1.0, 0.0], np.float32),
    )
    batch = assemble([[plain, slotted], [plain]], Capacity(8, slots=True))
    assert batch.slots is not None and batch.numbers is not None
    assert np.asarray(batch.slots).tolist() == [[0, 0, 0, 0, 1, 0, 0, 0], [0] * 8]
    assert np.asarray(batch.numbers)[0, 4] == 0.25 and np.count_nonzero(batch.slot_weights) == 1
    assert assemble([[plain]], Capacity(8)).slots is None
    with pytest.raises(ValueError, match="example: it has slots"):
        assemble([[slotted]], Capacity(8))


def test_batches_have_slots_whether_or_not_their_examples_have() -> None:
    """Processes of a run draw different examples, and must agree on the structure of a batch."""
    capacity = Capacity(8, slots=True)
    batch = assemble([[Example.of([5, 6], (), [7])]], capacity)
    assert jax.tree.structure(batch) == jax.tree.structure(capacity.abstract(1))
