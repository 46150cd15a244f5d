"""Sampling that does not depend on how an answer is computed.

A token is the one of highest score + temperature x Gumbel noise, which is a sample of the softmax
of score / temperature (the Gumbel-max trick). The noise is a function of the seed, of how many
tokens the answer holds before it, and of the token: drafted, sequential, batched and single
decoding draw the same one.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, UInt32

from sf_jax.decode.arrays import HostOrDevice


@struct.dataclass
class Sampling:
    """How each row is sampled: at temperature 0 not at all, see `Schema.estimate`."""

    temperature: Float[HostOrDevice, " B"]
    seed: UInt32[HostOrDevice, " B"]


def _gumbel(seed: Array, ordinal: Array, token: Array) -> Array:
    """The noise of one token at one ordinal."""
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
        over_ordinals = jax.vmap(over_tokens, (None, 0, None))
        gumbel = jax.vmap(over_ordinals, (0, 0, None))(sampling.seed, ordinals, tokens)
        return sampling.temperature[:, None, None] * gumbel

    zeros = jnp.zeros((*ordinals.shape, *tokens.shape), jnp.float32)
    return jax.lax.cond((sampling.temperature > 0).any(), drawn, lambda: zeros)
