"""A given answer: how likely it is, and whether decoding would have given it.

One pass over a single block and all before it; a pass for each further block where it repeats.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode import repeats as blocks
from sf_jax.decode.block import (
    Layout,
    Pending,
    embedded,
    followed,
    layout,
    noise_after,
    scores_at_steps,
)
from sf_jax.decode.estimate import median_margins
from sf_jax.decode.noise import Sampling, noise
from sf_jax.decode.program import GO_ON, STOP, SlotProgram
from sf_jax.decode.rationale import free_scores, log_likelihood
from sf_jax.decode.repeats import Cursor
from sf_jax.decode.schema import MEDIAN
from sf_jax.decode.state import feed, feed_tokens, prefill
from sf_jax.model import text
from sf_jax.model.architecture import Architecture, ModelWeights
from sf_jax.sequence.batch import Batch


@struct.dataclass
class Score:
    """Of each row's answer; axis R is there where the block repeats.

    A margin is by how much the token of the answer beats the best other token allowed there, as a
    share of the largest score in size; of a median, by how much probability it is that. Decoding
    gives the answer where none is negative. It is inf where nothing is to be chosen, and
    log-likelihoods are 0 there.

    Attributes:
      rationale: log-likelihood of each token and of the one that ends the rationale.
      slots: log-likelihood of each value.
      stops: log-likelihood of going on, or of stopping, after each block; None for a single block.
    """

    rationale: Float[Array, "B T"]
    rationale_margins: Float[Array, "B T"]
    slots: Float[Array, "B *R C"]
    slot_margins: Float[Array, "B *R C"]
    stops: Float[Array, "B R"] | None = None
    stop_margins: Float[Array, "B R"] | None = None

    @property
    def least_margin(self) -> Float[Array, " B"]:
        """The smallest margin of each row."""
        every = (self.rationale_margins, self.slot_margins, self.stop_margins)
        least = [x.min(tuple(range(1, x.ndim))) for x in every if x is not None]
        return jnp.stack(least).min(0)


@partial(jax.jit, static_argnames=("config", "most"))
def score(
    weights: ModelWeights,
    batch: Batch,
    program: SlotProgram,
    rationale: Int[Array, "B T"],
    length: Int[Array, " B"],
    free: Int[Array, " B"],
    choices: Int[Array, "B *R C"],
    sampling: Sampling,
    config: Architecture,
    prefix: text.Cache | None = None,
    repeats: Int[Array, " B"] | None = None,
    most: int | None = None,
    features: Float[Array, "B R M D"] | None = None,
) -> Score:
    """Scores answers after their prompts.

    Args:
      rationale: tokens before the block, the one that ends a rationale included where it precedes
        the block; or after it where the values come first, the end included.
      length: how many they are.
      free: how many tokens from the first on were chosen freely; the block's first token counts
        where it is what ends the rationale.
      choices: the value of each named slot.
      sampling: as in `generate`: margins are those of the noisy scores.
      repeats: blocks of each row, where the block repeats; None is all of them.
      most, features: as in `generate`.
    """
    count = 1 if program.repeat is None else choices.shape[1]
    inserted = blocks.inserted_size(features, count)
    around = rationale.shape[1] + len(program.opening)
    block = program.pending_size + inserted + program.longest
    own = batch.input_ids.shape[1] + (0 if prefix is None else prefix.segments.shape[1])
    capacity = own + around + len(program.closing) + blocks.held(program, count) * block
    state = prefill(weights, batch, capacity, config, prefix)
    zeros = jnp.zeros_like(length)
    before, room = (zeros, 0) if program.values_first else (length, around)
    pending = Pending(*followed(rationale, before, program.opening, room), zeros, zeros)
    cursor = blocks.begin(state, pending, program, jnp.zeros_like(choices[:, 0]))
    if program.repeat is None:
        given = _Given(choices[:, None], None, 1, features)
    else:
        counts = zeros + count if repeats is None else repeats
        bound = most or program.repeat.most or count
        given = _Given(choices, counts, blocks.most_repeats(program, bound), features)
    scorer = _Scorer(weights, program, sampling, config)
    cursor, first, tokens, states = scorer.block(cursor, given)
    if program.values_first:
        spoken = scorer.following_rationale(cursor, rationale, length, free)
        return Score(*spoken, first.logs, first.margins)
    predicting = jnp.concatenate([state.last[:, None], states[:, :-1]], 1)
    some = min(rationale.shape[1] + 1, tokens.shape[1])
    tokens = scorer.with_opening(tokens[:, :some], length)
    spoken = scorer.rationale(predicting[:, :some], tokens, free, zeros)
    if program.repeat is None:
        return Score(*spoken, first.logs, first.margins)

    def step(cursor: Cursor, _: None) -> tuple[Cursor, _BlockScore]:
        cursor, scored, _tokens, _states = scorer.block(cursor, given)
        return cursor, scored

    _, others = jax.lax.scan(step, cursor, None, length=count - 1)
    every = jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), first, others)
    logs, margins = every.logs.swapaxes(0, 1), every.margins.swapaxes(0, 1)
    slots = logs[..., :-1], margins[..., :-1]
    return Score(*spoken, *slots, logs[..., -1], margins[..., -1])


@struct.dataclass
class _Given:
    """What is scored: see `score`; `most` blocks were allowed."""

    choices: Int[Array, "B R C"]
    repeats: Int[Array, " B"] | None
    most: int = struct.field(pytree_node=False)
    features: Float[Array, "B R M D"] | None

    def values(self, number: Int[Array, ""], program: SlotProgram) -> Int[Array, "B C"]:
        """The value of each slot of a block, the stop slot included."""
        own = self.choices[:, number]
        if program.repeat is None or self.repeats is None:
            return own
        # Without a bound the stop slot is a choice of nobody's, the same for all rows.
        without_end = program.repeat.most is None
        ends = self.most if without_end else self.repeats
        stop = jnp.where(number == ends - 1, STOP, GO_ON)
        return jnp.concatenate([own, jnp.broadcast_to(stop, len(own))[:, None]], 1)


@struct.dataclass
class _BlockScore:
    """Log-likelihood and margin of each value of a block, the stop slot included."""

    logs: Float[Array, "B C"]
    margins: Float[Array, "B C"]


@dataclass(frozen=True)
class _Scorer:
    """What every pass of a score needs."""

    weights: ModelWeights
    program: SlotProgram
    sampling: Sampling
    config: Architecture

    def block(
        self, cursor: Cursor, given: _Given
    ) -> tuple[Cursor, _BlockScore, Int[Array, "B X"], Float[Array, "B X D"]]:
        """A pass over the next block: after it, its score, its tokens and their states."""
        number, program = cursor.number, self.program
        if given.features is not None:
            cursor = blocks.conditioned(cursor, given.features[:, number])
        values, pending = given.values(number, program), cursor.pending
        laid = layout(values, pending, program)
        indices = jnp.broadcast_to(jnp.arange(laid.tokens.shape[1]), laid.tokens.shape)
        inputs = embedded(self.weights, laid.tokens, indices, pending)
        lengths = jnp.where(cursor.active, laid.total, 0)
        state, states = feed(self.weights, cursor.state, inputs, lengths, self.config)
        scored = self._slots(states, values, laid, pending, number == given.most - 1)
        if given.repeats is None:
            return replace(cursor, state=state), scored, laid.tokens, states
        active = cursor.active[:, None]
        scored = _BlockScore(
            jnp.where(active, scored.logs, 0.0), jnp.where(active, scored.margins, jnp.inf)
        )
        after = blocks.advanced(cursor, state, values, program, self.config.text)
        after = replace(after, active=cursor.active & (number + 1 < given.repeats))
        return after, scored, laid.tokens, states

    def following_rationale(
        self,
        cursor: Cursor,
        tokens: Int[Array, "B T"],
        length: Int[Array, " B"],
        free: Int[Array, " B"],
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """A pass over the rationale after the block, and what `rationale` makes of it."""
        closing = jnp.asarray(self.program.closing)
        closing = jnp.broadcast_to(closing, (len(tokens), len(closing)))
        fed, count = cursor.state.fed, closing.shape[1]
        whole = jnp.concatenate([closing, tokens], 1)
        _, states = feed_tokens(self.weights, cursor.state, whole, length + count, self.config)
        ordinal = fed + count - cursor.pending.inserted
        return self.rationale(states[:, count - 1 : -1], tokens, free, ordinal)

    def with_opening(
        self, tokens: Int[Array, "B T"], length: Int[Array, " B"]
    ) -> Int[Array, "B T"]:
        """The tokens of a rationale and the first of the block, which may be what ends it.

        Features may have come before it.
        """
        program = self.program
        opening = program.opening[0] if len(program.opening) else program.forced[0, 0]
        return jnp.where(jnp.arange(tokens.shape[1]) == length[:, None], opening, tokens)

    def rationale(
        self,
        states: Float[Array, "B T D"],
        tokens: Int[Array, "B T"],
        free: Int[Array, " B"],
        ordinal: Int[Array, " B"],
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Log-likelihood and margin of the rationale's tokens, given the states before them;
        `ordinal` tokens of the answer come before."""
        indices = jnp.arange(tokens.shape[1])
        chosen: Bool[Array, "B T"] = indices < free[:, None]
        scores = free_scores(self.weights, states, self.program, self.config)
        ordinals = ordinal[:, None] + indices
        drawn = scores + noise(self.sampling, ordinals, jnp.arange(scores.shape[-1]))
        logs = log_likelihood(scores, tokens)
        margins = _margins(drawn, tokens)
        return jnp.where(chosen, logs, 0.0), jnp.where(chosen, margins, jnp.inf)

    def _slots(
        self,
        states: Float[Array, "B X D"],
        choices: Int[Array, "B C"],
        laid: Layout,
        pending: Pending,
        last: Bool[Array, ""],
    ) -> _BlockScore:
        """Of each value: the smallest margin among the tokens that make it up."""
        program, dtype = self.program.at_repeat(last), self.config.product_dtype
        scores = text.logits(self.weights.text, states, program.symbols, dtype)
        drawn = scores + noise_after(pending, program, self.sampling)
        kind, none = program.kind[None], jnp.zeros_like(laid.total)
        symbol, real = program.step_symbol[kind, choices], program.step_real[kind, choices]
        plain, _ = scores_at_steps(scores, choices, laid, none, laid.total, program)
        noised, _ = scores_at_steps(drawn, choices, laid, none, laid.total, program)
        logs = jnp.take_along_axis(jax.nn.log_softmax(plain, -1), symbol[..., None], -1)[..., 0]
        margins = jnp.where(real, _margins(noised, symbol), jnp.inf).min(-1)
        if program.estimate == MEDIAN:
            sampled = self.sampling.temperature[:, None] > 0
            margins = jnp.where(sampled, margins, median_margins(plain[:, :, 0], choices, program))
        return _BlockScore(jnp.where(real, logs, 0.0).sum(-1), margins)


def _margins(drawn: Float[Array, "*rows A"], at: Int[Array, "*rows"]) -> Float[Array, "*rows"]:
    """See `Score`; scores of tokens that are not allowed are -inf."""
    own = jnp.take_along_axis(drawn, at[..., None], -1)[..., 0]
    others = jnp.where(jnp.arange(drawn.shape[-1]) == at[..., None], -jnp.inf, drawn).max(-1)
    size = jnp.where(jnp.isfinite(drawn), jnp.abs(drawn), 0).max(-1)
    return (own - others) / size
