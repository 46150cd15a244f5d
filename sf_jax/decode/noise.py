"""Sampling that does not depend on how an answer is computed.

A token is the one of highest score + temperature x Gumbel noise, which is a sample of the softmax
of score / temperature (the Gumbel-max trick). The noise is a function of the seed, of how many
tokens the answer holds before it, and of the token: drafted, sequential, batched and single
decoding draw the same one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int


@struct.dataclass
class Sampling:
    """For each row, temperature float32 [B] (0 takes the likeliest token) and seed uint32 [B]."""

    temperature: Any
    seed: Any


def _gumbel(seed: Array, ordinal: Array, token: Array) -> Array:
    """The noise of one token at one place."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), ordinal), token)
    return jax.random.gumbel(key)


def noise(
    sampling: Sampling, ordinals: Int[Array, "B T"], tokens: Int[Array, " A"]
) -> Float[Array, "B T A"]:
    """What is added to the scores of tokens before the highest is taken.

    Args:
      ordinals: how many tokens the answer holds before the one to take.
      tokens: which token each score belongs to.
    """

    def drawn() -> Array:
        over_tokens = jax.vmap(_gumbel, (None, None, 0))
        over_places = jax.vmap(over_tokens, (None, 0, None))
        gumbel = jax.vmap(over_places, (0, 0, None))(sampling.seed, ordinals, tokens)
        return sampling.temperature[:, None, None] * gumbel

    nothing = jnp.zeros((*ordinals.shape, *tokens.shape), jnp.float32)
    return jax.lax.cond((sampling.temperature > 0).any(), drawn, lambda: nothing)
