"""Generation of a whole answer in one compiled call: words, then the slots of a schema.

Rows of a batch go on each at its own pace: a row's cache holds its own answer without gaps, and
rows that are ready wait for the others. Nothing leaves the device before the answer is whole.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from flax import struct

from sf_jax.decode.block import LEAD, lead
from sf_jax.decode.drafted import fill_drafted, spare_places
from sf_jax.decode.drafts import Draft
from sf_jax.decode.noise import Sampling
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.sequential import fill_slots
from sf_jax.decode.state import prefill
from sf_jax.decode.tree import log_probabilities, node_scores
from sf_jax.decode.words import no_words, say_words
from sf_jax.model import text
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights
from sf_jax.sequence.batch import Batch


@dataclass(frozen=True)
class Plan:
    """How wide to draft; the answer is the same with any plan.

    Attributes:
      words: tokens a pass over words: the last one said, and guesses. 1 guesses nothing.
      block: widths, in tokens, of passes over a part of the block; the whole is always possible.
      growth: see `drafted.fill_drafted`.
      guesses: passes in low precision for a draft that knows nothing of the picture; `Draft` says
        how many there are.
      sequential: slot by slot, a pass for each token that is not forced.
    """

    words: int = 1
    block: tuple[int, ...] = ()
    growth: int = 4
    guesses: int = 0
    sequential: bool = False


SEQUENTIAL = Plan(sequential=True)


@struct.dataclass
class Generated:
    """What a batch said.

    Attributes:
      words: int32 [B, R], the tokens of the words, 0 behind their end.
      words_length: int32 [B].
      cut: bool [B], whether the cap ended the words.
      choices: int32 [B, C], which value was spoken in each slot.
      log_probabilities: float32 [B, C, V], of each slot's values at temperature 1, given the words
        and the slots before it; -inf where a slot has fewer values.
      word_passes, block_passes: int32 [B], model passes spent on the words, on the block.
      block_positions: int32 [B], token positions computed in the latter.
    """

    words: Any
    words_length: Any
    cut: Any
    choices: Any
    log_probabilities: Any
    word_passes: Any
    block_passes: Any
    block_positions: Any


@partial(jax.jit, static_argnames=("config", "plan", "max_words", "words"))
def generate(
    weights: Weights,
    batch: Batch,
    program: SlotProgram,
    draft: Draft,
    sampling: Sampling,
    config: Config,
    plan: Plan,
    max_words: int,
    words: bool = True,
    prefix: text.Cache | None = None,
    rough: Weights | None = None,
) -> Generated:
    """Answers of a batch of prompts.

    Args:
      batch: prompts padded on the left; without words they end with the token that ends words.
      draft: what the answers are guessed to be.
      max_words: cap on the tokens of the words.
      words: whether to speak before the slots.
      prefix: what all prompts begin with, taken off `batch`.
      rough: weights like these in low precision, to guess with; None makes no such pass.
    """
    rows, length = batch.input_ids.shape
    before = 0 if prefix is None else prefix.segments.shape[1]
    longest = (max_words if words else 0) + LEAD + program.longest
    spare = max(plan.words, spare_places(program, plan.block, rows))
    if program.branches is not None:
        spare = max(spare, program.branches.tokens.shape[-1])
    state = prefill(weights, batch, before + length, config, prefix)
    said = no_words(rows, max_words)
    if words:
        # Passes over words see no places that only the block will fill.
        state = state.widened(before + length + max_words + plan.words)
        state, said = say_words(
            weights, state, program, draft, sampling, config, max_words, plan.words
        )
    state = state.widened(before + length + longest + spare)
    start = lead(said, program, words)
    if plan.sequential:
        state, block = fill_slots(weights, state, start, program, sampling, config)
    else:
        state, block = fill_drafted(
            weights,
            state,
            start,
            program,
            draft.choices,
            sampling,
            config,
            plan.block,
            plan.growth,
            rough,
            draft.guesses,
        )
    scores = node_scores(weights, state, start, block, program, config)
    looked = 0 if program.branches is None else len(program.branches.tokens)
    return Generated(
        said.tokens,
        said.length,
        said.cut,
        block.choices,
        log_probabilities(scores, program),
        said.passes,
        block.passes + looked,
        block.positions,
    )
