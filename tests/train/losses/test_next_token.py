"""Losses computed a part of a row at a time are those of whole rows, and take less memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.model import text
from sf_jax.model.weights import TextWeights, Weights
from sf_jax.train.losses.next_token import next_token_losses


def given(weights: Weights, rows: int = 2, length: int = 24) -> tuple:
    g = np.random.default_rng(0)
    states = g.normal(size=(rows, length, weights.text.embed.shape[1])).astype(np.float32)
    return jnp.asarray(states), jnp.asarray(g.integers(0, 200, (rows, length)))


def plain(weights: TextWeights, states: jax.Array, targets: jax.Array) -> tuple:
    """By the definition, all scores at once; without the first token."""
    scores = text.logits(weights, states)[:, :-1]
    log_sums = jax.nn.logsumexp(scores, -1)
    chosen = jnp.take_along_axis(scores, targets[:, 1:, None], -1)[..., 0]
    return log_sums - chosen, log_sums


@pytest.mark.parametrize("chunks", [1, 2, 8])
@pytest.mark.parametrize("tied", [True, False])
def test_values_and_gradients_are_those_of_whole_rows(tiny_weights, chunks, tied) -> None:
    states, targets = given(tiny_weights)
    weights = tiny_weights.text
    if not tied:
        weights = dataclasses.replace(weights, head=weights.embed.T * 1.1)

    def both(function, weights, states):  # type: ignore[no-untyped-def]
        losses, log_sums = function(weights, states)
        return (losses * jnp.arange(23) + 0.01 * log_sums**2).sum(), (losses, log_sums)

    def ours(weights, states):  # type: ignore[no-untyped-def]
        found = next_token_losses(weights, states, targets, chunks=chunks)
        return tuple(x[:, 1:] for x in found)

    def wanted(weights, states):  # type: ignore[no-untyped-def]
        return plain(weights, states, targets)

    found, reference = (
        jax.jit(jax.value_and_grad(lambda w, s, f=f: both(f, w, s), (0, 1), has_aux=True))(
            weights, states
        )
        for f in (ours, wanted)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(np.abs(b).max()))


def test_a_row_that_cannot_be_parted_is_refused(tiny_weights) -> None:
    states, targets = given(tiny_weights)
    with pytest.raises(ValueError, match="24 tokens of a row cannot be taken in 5 equal parts"):
        next_token_losses(tiny_weights.text, states, targets, chunks=5)


def test_at_a_large_vocabulary_a_part_of_the_scores_is_all_there_is() -> None:
    """Prints what the compiler allocates for the loss of one row of 2,048 tokens."""
    width, vocabulary, length = 64, 151_936, 2048
    weights = TextWeights(jnp.zeros((vocabulary, width), jnp.bfloat16), None, None)
    states = jax.ShapeDtypeStruct((1, length, width), jnp.bfloat16)
    targets = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def passing(chunks: int) -> int:
        def loss(weights: TextWeights, states: jax.Array, targets: jax.Array) -> jax.Array:
            return next_token_losses(weights, states, targets, "bfloat16", chunks)[0].sum()

        compiled = jax.jit(jax.grad(loss, (0, 1))).lower(weights, states, targets).compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)

    whole, parted = passing(1), passing(8)
    print(f"whole rows {whole / 1e6:,.0f} MB, eight parts {parted / 1e6:,.0f} MB")
    assert whole > length * vocabulary * 4
    assert parted < whole / 4
