"""One pass over a given answer: how likely it is, and whether decoding would have given it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.block import Lead, layout, scores_at_steps
from sf_jax.decode.noise import Sampling, noise
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.state import feed, prefill
from sf_jax.model import text
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights
from sf_jax.sequence.batch import Batch


@struct.dataclass
class Score:
    """Of each row's answer.

    A margin is by how much the token that stands there beats the best other token that might, as
    a share of the largest score in size; decoding gives the answer where none is negative. It is
    inf where nothing is to be chosen.

    Attributes:
      words: float32 [B, R], log-likelihood of each word token and of the token that ends words, 0
        behind; word_margins: float32 [B, R].
      slots: float32 [B, C], log-likelihood of each value; slot_margins: float32 [B, C].
    """

    words: Any
    word_margins: Any
    slots: Any
    slot_margins: Any

    @property
    def least_margin(self) -> Float[Array, " B"]:
        """The smallest margin of each row."""
        return jnp.minimum(self.word_margins.min(1), self.slot_margins.min(1))


def _margins(drawn: Float[Array, "*rows A"], at: Int[Array, "*rows"]) -> Float[Array, "*rows"]:
    """See `Score`; scores of tokens that may not stand there are -inf."""
    own = jnp.take_along_axis(drawn, at[..., None], -1)[..., 0]
    others = jnp.where(jnp.arange(drawn.shape[-1]) == at[..., None], -jnp.inf, drawn).max(-1)
    size = jnp.where(jnp.isfinite(drawn), jnp.abs(drawn), 0).max(-1)
    return (own - others) / size


@partial(jax.jit, static_argnames=("config",))
def score(
    weights: Weights,
    batch: Batch,
    program: SlotProgram,
    words: Int[Array, "B R"],
    length: Int[Array, " B"],
    free: Int[Array, " B"],
    choices: Int[Array, "B C"],
    sampling: Sampling,
    config: Config,
    prefix: text.Cache | None = None,
) -> Score:
    """Scores answers in one pass after the prompts.

    Args:
      words: tokens before the block, the one that ends words included where it stands before it.
      length: how many they are.
      free: how many tokens from the first on were chosen freely; the block's first token counts
        where it is what ends the words.
      choices: the value of each slot.
      sampling: as in `generate`: margins are those of the noisy scores.
    """
    before = Lead(words, length, jnp.zeros_like(length))
    laid = layout(choices, before, program)
    size = laid.tokens.shape[1]
    own = 0 if prefix is None else prefix.segments.shape[1]
    capacity = own + batch.input_ids.shape[1] + size
    state = prefill(weights, batch, capacity, config, prefix)
    _, states = feed(weights, state, laid.tokens, laid.total, config)
    predicting = jnp.concatenate([state.last[:, None], states[:, :-1]], 1)
    some = min(words.shape[1] + 1, size)
    log_words, word_margins = _words(
        weights, predicting[:, :some], laid.tokens[:, :some], free, program, sampling, config
    )
    scores = text.logits(weights.text, states, program.symbols, config.product_dtype)
    ordinals = jnp.broadcast_to(jnp.arange(1, size + 1), states.shape[:2])
    drawn = scores + noise(sampling, ordinals, program.symbols)
    log_slots, slot_margins = _slots(scores, drawn, choices, laid, program)
    return Score(log_words, word_margins, log_slots, slot_margins)


def _words(
    weights: Weights,
    states: Float[Array, "B R D"],
    tokens: Int[Array, "B R"],
    free: Int[Array, " B"],
    program: SlotProgram,
    sampling: Sampling,
    config: Config,
) -> tuple[Float[Array, "B R"], Float[Array, "B R"]]:
    places = jnp.arange(tokens.shape[1])
    chosen: Bool[Array, "B R"] = places < free[:, None]
    scores = text.logits(weights.text, states, dtype=config.product_dtype)
    scores += jnp.where(program.banned & ~program.ends, -jnp.inf, 0.0)
    ordinals = jnp.broadcast_to(places, tokens.shape)
    drawn = scores + noise(sampling, ordinals, jnp.arange(scores.shape[-1]))
    logs = jnp.take_along_axis(jax.nn.log_softmax(scores, -1), tokens[..., None], -1)[..., 0]
    return jnp.where(chosen, logs, 0.0), jnp.where(chosen, _margins(drawn, tokens), jnp.inf)


def _slots(
    scores: Float[Array, "B T U"],
    drawn: Float[Array, "B T U"],
    choices: Int[Array, "B C"],
    laid: Any,
    program: SlotProgram,
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Log-likelihood of each value, and the smallest margin among the tokens that make it up."""
    kind = program.kind[None]
    symbol, real = program.step_symbol[kind, choices], program.step_real[kind, choices]
    nothing = jnp.zeros_like(laid.total)
    plain, _ = scores_at_steps(scores, choices, laid, nothing, laid.total, program)
    noised, _ = scores_at_steps(drawn, choices, laid, nothing, laid.total, program)
    logs = jnp.take_along_axis(jax.nn.log_softmax(plain, -1), symbol[..., None], -1)[..., 0]
    margins = jnp.where(real, _margins(noised, symbol), jnp.inf)
    return jnp.where(real, logs, 0.0).sum(-1), margins.min(-1)
