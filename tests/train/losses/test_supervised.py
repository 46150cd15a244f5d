"""The supervised objective: slots over their values, other tokens over the vocabulary."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.model.config import Config
from sf_jax.model.weights import Weights
from sf_jax.sequence import images
from sf_jax.sequence.example import Example, assemble
from sf_jax.train.losses.supervised import (
    SlotValues,
    SupervisedConfig,
    slot_losses,
    supervised_loss,
)

VALUES = SlotValues(
    ids=np.array([3, 4, 5, 6, 7]), numbers=np.array([-0.5, 0.0, 0.5, 1.0, 1.5], np.float32),
    allowed=np.array([[True] * 4 + [False], [False] + [True] * 4]), step=0.5,
)  # fmt: skip


def scores_as_states(scores):
    """A text model whose head gives `scores` [B, C, U] for the values, and its states."""
    width = scores.shape[-1]
    head = np.zeros((width, 10), np.float32)
    head[np.arange(width), VALUES.ids] = 1.0
    weights = types.SimpleNamespace(head=jnp.asarray(head), embed=None)
    return weights, jnp.asarray(scores, jnp.float32)


def test_a_number_between_two_values_is_shared_between_them() -> None:
    numbers = jnp.array([[0.4, 1.0]])  # 0.2 · 0.0 + 0.8 · 0.5, and 1.0 itself
    shares = np.array([[[0, 0.2, 0.8, 0, 0.9], [0.9, 0, 0, 1, 0]]])  # 0.9 where it is not allowed
    weights, seen = scores_as_states(np.log(shares + 1e-12))
    slots = jnp.array([[1, 2]])
    entropy, squares, mean = slot_losses(weights, seen, slots, numbers, VALUES, "float32")
    least = -(0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    np.testing.assert_allclose(entropy, [[least, 0.0]], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(squares, 0.0, atol=1e-9)
    np.testing.assert_allclose(mean, numbers, rtol=1e-5)
    worse, _, _ = slot_losses(weights, seen, slots, jnp.array([[0.3, 1.0]]), VALUES, "float32")
    assert worse.sum() > entropy.sum()


def test_numbers_beyond_a_slots_range_count_as_its_end() -> None:
    weights, seen = scores_as_states(np.zeros((1, 2, 5)))
    slots = jnp.array([[1, 2]])
    far, end = (
        np.array(slot_losses(weights, seen, slots, jnp.array([x]), VALUES, "float32")[:2])
        for x in ([-3.0, 9.0], [-0.5, 1.5])
    )
    assert (far == end).all() and np.isfinite(far).all()


def conversation(config: Config, pictures: list[np.ndarray], number: int) -> Example:
    """An image, a rationale and two slots of which one may be unknown."""
    g = np.random.default_rng(number)
    prompt = [1, 8] + [7] * 6 + [9]
    answer = g.integers(20, 200, 9).tolist()
    weights = [0.5] * 4 + [0.0] * 5
    inserts = images.image_inserts(prompt, [pictures[number % 2]], config)
    example = Example.of(prompt, inserts, answer, weights=weights, number=number)
    slots, (numbers, known) = np.zeros(18, np.int32), np.zeros((2, 18), np.float32)
    slots[[14, 16]], numbers[[14, 16]], known[[14, 16]] = (
        [1, 2],
        g.uniform(0, 1, 2),
        [1, number % 3],
    )
    made: dict[str, Any] = {"slots": slots, "numbers": numbers, "slot_weights": known}
    return Example(**{**example.__dict__, **made})


def found(config: Config, weights: Weights, rows: list[list[Example]]) -> dict[str, float]:
    batch = assemble(rows, images.capacity(config, 40, 64, slots=True))
    options = SupervisedConfig(z_loss=1e-3, chunks=2)
    total, metrics = supervised_loss(weights, batch, config, VALUES, options)
    return {name: float(value) for name, value in {"loss": total, **metrics}.items()}


def test_packed_rows_and_microbatches_sum_to_the_same(
    tiny_config: Config, tiny_weights: Weights, pictures: list[np.ndarray]
) -> None:
    examples = [conversation(tiny_config, pictures, number) for number in range(4)]
    one, other, *apart = examples
    packed = found(tiny_config, tiny_weights, [[one, other], apart])
    alone = [found(tiny_config, tiny_weights, [[example]]) for example in examples]
    assert packed["slots"] > 0 and packed["next_token"] > 0
    for name, value in packed.items():
        assert value == pytest.approx(sum(each[name] for each in alone), rel=2e-5), name
    assert packed["weight"] == 4 * 4 * 0.5 + 4 + (0 + 1 + 2 + 0)
    total = packed["next_token"] + packed["z_loss"] + packed["slots"] + 8 * packed["squares"]
    assert packed["loss"] == pytest.approx(total, rel=1e-6)


def test_a_slot_that_is_not_known_has_no_gradient(
    tiny_config: Config, tiny_weights: Weights, pictures: list[np.ndarray]
) -> None:
    example = conversation(tiny_config, pictures, 3)  # its second slot is not known
    batch = assemble([[example]], images.capacity(tiny_config, 40, 64, slots=True))
    changed = batch.replace(numbers=np.where(batch.slots == 2, 0.9, batch.numbers))

    def loss(batch: Any) -> Any:
        return jax.grad(lambda w: supervised_loss(w, batch, tiny_config, VALUES)[0])(tiny_weights)

    jax.tree.map(np.testing.assert_array_equal, loss(batch), loss(changed))


def test_slots_without_their_values_are_refused(
    tiny_config: Config, tiny_weights: Weights, pictures: list[np.ndarray]
) -> None:
    batch = assemble(
        [[conversation(tiny_config, pictures, 1)]], images.capacity(tiny_config, 40, 64, slots=True)
    )
    with pytest.raises(ValueError, match="give the values that they may take"):
        supervised_loss(tiny_weights, batch, tiny_config)
