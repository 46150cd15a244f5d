"""The free words of an answer, several tokens a pass where a draft guesses them rightly."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from sf_jax.decode.drafts import Draft, guess_words
from sf_jax.decode.noise import Sampling, noise
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.state import State, feed
from sf_jax.model import text
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights


@struct.dataclass
class Words:
    """What was said before the block.

    Attributes:
      tokens: int32 [B, R], 0 behind their end; length: int32 [B].
      done: bool [B], whether they ended; cut: bool [B], whether the cap ended them. The last token
        of words that were cut is not in the cache.
      passes: int32 [B].
    """

    tokens: Any
    length: Any
    done: Any
    cut: Any
    passes: Any


def no_words(batch: int, most: int) -> Words:
    """Nothing said, and nothing to be said."""
    zeros, nobody = jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool)
    return Words(jnp.zeros((batch, most), jnp.int32), zeros, ~nobody, nobody, zeros)


def _taken(
    weights: Weights,
    states: Float[Array, "B T D"],
    ordinals: Int[Array, "B T"],
    program: SlotProgram,
    sampling: Sampling,
    config: Config,
) -> Int[Array, "B T"]:
    """The token to take behind each state; those that end words among them."""
    scores = text.logits(weights.text, states, dtype=config.product_dtype)
    scores += jnp.where(program.banned & ~program.ends, -jnp.inf, 0.0)
    every = jnp.arange(scores.shape[-1])
    return jnp.argmax(scores + noise(sampling, ordinals, every), -1).astype(jnp.int32)


def _accepted(guesses: Int[Array, "B G"], taken: Int[Array, "B T"]) -> Int[Array, " B"]:
    """How many guesses, from the first on, are the tokens that were to be taken."""
    return jnp.cumprod(guesses == taken[:, : guesses.shape[1]], 1).sum(1)


def _add(words: Words, taken: Int[Array, "B T"], right: Int[Array, " B"], ends: Array) -> Words:
    """Words with the first `right` + 1 tokens of `taken`, up to one that ends them or the cap."""
    most, width = words.tokens.shape[1], taken.shape[1]
    count = jnp.minimum(right + 1, most - words.length)
    ending = ends[taken] & (jnp.arange(width) < count[:, None])
    ended = ending.any(1) & ~words.done
    count = jnp.where(ended, jnp.argmax(ending, 1), count)
    count = jnp.where(words.done, 0, count)
    offset = jnp.arange(most) - words.length[:, None]
    new = jnp.take_along_axis(taken, jnp.clip(offset, 0, width - 1), 1)
    tokens = jnp.where((offset >= 0) & (offset < count[:, None]), new, words.tokens)
    length = words.length + count
    cut = words.cut | (~words.done & ~ended & (length == most))
    return Words(tokens, length, words.done | ended | cut, cut, words.passes)


def _before(words: Words) -> Int[Array, "B 2"]:
    """The last two tokens, 0 before the beginning."""
    at = words.length[:, None] + jnp.arange(-2, 0)
    found = jnp.take_along_axis(words.tokens, jnp.maximum(at, 0), 1)
    return jnp.where(at >= 0, found, 0)


def say_words(
    weights: Weights,
    state: State,
    program: SlotProgram,
    draft: Draft,
    sampling: Sampling,
    config: Config,
    most: int,
    width: int,
) -> tuple[State, Words]:
    """Free text up to a token that ends it, at most `most` tokens; that token is not fed.

    Args:
      width: tokens a pass: the last one said, and guesses.
    """
    batch = state.start.shape[0]
    choose = partial(_taken, weights, program=program, sampling=sampling, config=config)

    def unfinished(carry: tuple[State, Words, Array]) -> Array:
        return ~carry[1].done.all()

    def say(carry: tuple[State, Words, Array]) -> tuple[State, Words, Array]:
        state, words, last = carry
        before, fed = _before(words), state.fed
        guesses = guess_words(draft, last, before, words.length, width - 1)
        tokens = jnp.concatenate([before[:, -1:], guesses], 1)
        state, states = feed(weights, state, tokens, jnp.where(words.done, 0, width), config)
        taken = choose(states, words.length[:, None] + jnp.arange(width))
        right = _accepted(guesses, taken)
        more = _add(words, taken, right, program.ends)
        # All said so far is in the cache, but for a last token that nothing came behind.
        ended = more.done & ~more.cut
        state = state.at(jnp.where(words.done, fed, jnp.where(ended, more.length, more.length - 1)))
        last = jnp.take_along_axis(states, right[:, None, None], 1)[:, 0]
        return state, replace(more, passes=words.passes + ~words.done), last

    words = replace(no_words(batch, most), done=jnp.zeros(batch, bool))
    first = choose(state.last[:, None], jnp.zeros((batch, 1), jnp.int32))
    words = _add(words, first, jnp.zeros(batch, jnp.int32), program.ends)
    state, words, _ = jax.lax.while_loop(unfinished, say, (state, words, state.last))
    return state, words
