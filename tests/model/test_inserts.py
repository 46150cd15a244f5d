"""Inserts: features at their positions, levels layer by layer, whatever made them."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.model.inserts import Insert, embed

WEIGHTS: Any = SimpleNamespace(embed=jnp.arange(20.0).reshape(10, 2))
IDS = jnp.array([[1, 2, 3, 4], [5, 6, 7, 8]])


def insert(at: list[list[int]], levels: int, seed: int) -> Insert:
    g = np.random.default_rng(seed)
    count = len(at[0])
    made = g.normal(size=(levels, 2, count, 2)) if levels else None
    features = jnp.asarray(g.normal(size=(2, count, 2)), jnp.float32)
    return Insert(features, jnp.array(at), None if made is None else jnp.asarray(made))


def test_features_take_their_positions_and_padding_is_dropped() -> None:
    given = insert([[1, 2, 4], [3, 4, 9]], levels=0, seed=0)
    found, levels = embed(WEIGHTS, IDS, [given])
    expected = np.array(WEIGHTS.embed[IDS])
    expected[0, 1], expected[0, 2], expected[1, 3] = (
        given.features[row, i] for row, i in ((0, 0), (0, 1), (1, 0))
    )
    np.testing.assert_array_equal(found, expected)
    assert levels is None


def test_two_modalities_keep_apart_and_the_longer_stack_of_levels_counts() -> None:
    one = insert([[0, 4], [1, 2]], levels=1, seed=1)
    other = insert([[2], [0]], levels=3, seed=2)
    found, levels = embed(WEIGHTS, IDS, [one, other])
    swapped, again = embed(WEIGHTS, IDS, [other, one])
    np.testing.assert_array_equal(found, swapped)
    np.testing.assert_array_equal(levels, again)
    assert levels is not None and levels.shape == (3, 2, 4, 2)
    assert one.levels is not None and other.levels is not None
    np.testing.assert_allclose(levels[0, 0, 0], one.levels[0, 0, 0])
    np.testing.assert_allclose(levels[:, 1, 0], other.levels[:, 1, 0])
    assert not levels[1:, 0, :2].any() and not levels[:, :, 3].any()


def test_without_inserts_tokens_are_looked_up_alone() -> None:
    found, levels = embed(WEIGHTS, IDS)
    np.testing.assert_array_equal(found, WEIGHTS.embed[IDS])
    assert levels is None


@pytest.mark.parametrize("dropped", [False, True])
def test_gradients_reach_features_and_pass_the_table_by(dropped: bool) -> None:
    given = insert([[1], [4 if dropped else 2]], levels=0, seed=3)

    def total(table: jax.Array, features: jax.Array) -> jax.Array:
        weights: Any = SimpleNamespace(embed=table)
        return embed(weights, IDS, [given.replace(features=features)])[0].sum()

    of_table, of_features = jax.grad(total, (0, 1))(WEIGHTS.embed, given.features)
    assert not of_table[2].any() and of_table[7].any() == dropped
    assert of_features[0].all() and of_features[1].any() == (not dropped)
