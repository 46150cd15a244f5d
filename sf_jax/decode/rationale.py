"""The free text of an answer, several tokens a pass where a draft proposes them correctly.

It begins the answer, or follows the block; what precedes it is in the cache either way.
"""

from dataclasses import replace
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.arrays import HostOrDevice
from sf_jax.decode.drafts import Draft, draft_rationale
from sf_jax.decode.noise import Sampling, noise
from sf_jax.decode.state import State, feed_tokens
from sf_jax.model import text
from sf_jax.model.architecture import Architecture, ModelWeights


class Endings(Protocol):
    """Which tokens free text may not hold, and which end it; a slot program has both."""

    @property
    def banned(self) -> Bool[HostOrDevice, " A"]: ...
    @property
    def ends(self) -> Bool[HostOrDevice, " A"]: ...


@struct.dataclass
class Rationale:
    """The text before the block, or after it.

    Attributes:
      ids: [B, R], token ids, 0 after the end; length: [B].
      done: [B], whether it ended; truncated: [B], whether the cap ended it. The last token of a
        truncated rationale is not in the cache.
      passes: [B], model passes spent.
      log_probabilities: [B, R + 1], at temperature 1, of each token and of the token that ends the
        rationale; 0 after it, and 0 for an end that the cap forced.
    """

    ids: Int[Array, "B R"]
    length: Int[Array, " B"]
    done: Bool[Array, " B"]
    truncated: Bool[Array, " B"]
    passes: Int[Array, " B"]
    log_probabilities: Float[Array, "B R+1"]


def no_rationale(batch: int, cap: int) -> Rationale:
    """An empty rationale that is done."""
    zeros, false = jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool)
    ids, logs = jnp.zeros((batch, cap), jnp.int32), jnp.zeros((batch, cap + 1), jnp.float32)
    return Rationale(ids, zeros, ~false, false, zeros, logs)


def free_scores(
    weights: ModelWeights, states: Float[Array, "B T D"], program: Endings, config: Architecture
) -> Float[Array, "B T A"]:
    """Scores of the whole vocabulary, -inf for what can be in no rationale and end none."""
    scores = text.logits(weights.text, states, dtype=config.product_dtype)
    return scores + jnp.where(program.banned & ~program.ends, -jnp.inf, 0.0)


def log_likelihood(scores: Float[Array, "*rows A"], ids: Int[Array, "*rows"]) -> Array:
    """Log-probability of each token at temperature 1, [*rows]."""
    own = jnp.take_along_axis(scores, ids[..., None], -1)[..., 0]
    return own - jax.nn.logsumexp(scores, -1)


def _chosen(
    weights: ModelWeights,
    states: Float[Array, "B T D"],
    ordinals: Int[Array, "B T"],
    program: Endings,
    sampling: Sampling,
    config: Architecture,
) -> tuple[Int[Array, "B T"], Float[Array, "B T"]]:
    """The token to take after each state, those that end a rationale included, and its log."""
    scores = free_scores(weights, states, program, config)
    every = jnp.arange(scores.shape[-1])
    ids = jnp.argmax(scores + noise(sampling, ordinals, every), -1).astype(jnp.int32)
    return ids, log_likelihood(scores, ids)


def _accepted(drafted: Int[Array, "B G"], chosen: Int[Array, "B T"]) -> Int[Array, " B"]:
    """How many drafted tokens, from the first on, are the tokens that were to be taken."""
    return jnp.cumprod(drafted == chosen[:, : drafted.shape[1]], 1).sum(1)


def _placed(store: Array, new: Array, at: Int[Array, " B"], count: Int[Array, " B"]) -> Array:
    """`store` [B, R] with the first `count` of `new` [B, T] from index `at` on."""
    offset = jnp.arange(store.shape[1]) - at[:, None]
    values = jnp.take_along_axis(new, jnp.clip(offset, 0, new.shape[1] - 1), 1)
    return jnp.where((offset >= 0) & (offset < count[:, None]), values, store)


def _extended(
    rationale: Rationale,
    chosen: Int[Array, "B T"],
    logs: Float[Array, "B T"],
    accepted: Int[Array, " B"],
    ends: Bool[Array, " A"],
) -> Rationale:
    """With the first `accepted` + 1 tokens of `chosen`, up to one that ends it or the cap."""
    cap, width, at = rationale.ids.shape[1], chosen.shape[1], rationale.length
    count = jnp.minimum(accepted + 1, cap - at)
    ending = ends[chosen] & (jnp.arange(width) < count[:, None])
    ended = ending.any(1) & ~rationale.done
    count = jnp.where(ended, jnp.argmax(ending, 1), count)
    count = jnp.where(rationale.done, 0, count)
    ids = _placed(rationale.ids, chosen, at, count)
    log_probabilities = _placed(rationale.log_probabilities, logs, at, count + ended)
    length = at + count
    truncated = rationale.truncated | (~rationale.done & ~ended & (length == cap))
    done = rationale.done | ended | truncated
    return Rationale(ids, length, done, truncated, rationale.passes, log_probabilities)


def _last_two(rationale: Rationale) -> Int[Array, "B 2"]:
    """The last two tokens, 0 before the beginning."""
    at = rationale.length[:, None] + jnp.arange(-2, 0)
    found = jnp.take_along_axis(rationale.ids, jnp.maximum(at, 0), 1)
    return jnp.where(at >= 0, found, 0)


def generate_rationale(
    weights: ModelWeights,
    state: State,
    program: Endings,
    draft: Draft,
    sampling: Sampling,
    config: Architecture,
    cap: int,
    width: int,
    ordinal: Int[Array, " B"] | None = None,
) -> tuple[State, Rationale]:
    """Free text up to a token that ends it, at most `cap` tokens; that token is not fed.

    Args:
      state: whose `last` yields the first token.
      width: tokens a pass: the last one generated, and drafted ones.
      ordinal: tokens of the answer before the rationale; None is none.
    """
    batch, begin = state.start.shape[0], state.fed
    ordinal = jnp.zeros(batch, jnp.int32) if ordinal is None else ordinal
    choose = partial(_chosen, weights, program=program, sampling=sampling, config=config)

    def unfinished(carry: tuple[State, Rationale, Array]) -> Array:
        return ~carry[1].done.all()

    def step(carry: tuple[State, Rationale, Array]) -> tuple[State, Rationale, Array]:
        state, rationale, last = carry
        before, fed, done = _last_two(rationale), state.fed, rationale.done
        drafted = draft_rationale(draft, last, before, rationale.length, width - 1)
        tokens = jnp.concatenate([before[:, -1:], drafted], 1)
        state, states = feed_tokens(weights, state, tokens, jnp.where(done, 0, width), config)
        ordinals = (ordinal + rationale.length)[:, None] + jnp.arange(width)
        chosen, logs = choose(states, ordinals)
        accepted = _accepted(drafted, chosen)
        longer = _extended(rationale, chosen, logs, accepted, program.ends)
        # All generated so far is in the cache, but for a last token that nothing followed.
        ended = longer.done & ~longer.truncated
        held = begin + longer.length - ~ended
        state = state.at(jnp.where(done, fed, held))
        last = jnp.take_along_axis(states, accepted[:, None, None], 1)[:, 0]
        return state, replace(longer, passes=rationale.passes + ~done), last

    rationale = replace(no_rationale(batch, cap), done=jnp.zeros(batch, bool))
    first, logs = choose(state.last[:, None], ordinal[:, None])
    none = jnp.zeros(batch, jnp.int32)
    rationale = _extended(rationale, first, logs, none, program.ends)
    state, rationale, _ = jax.lax.while_loop(unfinished, step, (state, rationale, state.last))
    return state, rationale
