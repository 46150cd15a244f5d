"""Generation of a whole answer in one compiled call: the rationale and the slots of a schema.

Whichever the schema puts first is generated first, and the other depends on it. Rows of a batch
advance each at its own pace: a row's cache holds its own answer without gaps, and rows that are
ready wait for the others. Nothing leaves the device before the answer is complete.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode import repeats as blocks
from sf_jax.decode.arrays import HostOrDevice
from sf_jax.decode.block import closing_after, layout, pending_after
from sf_jax.decode.drafted import fill_drafted, spare_capacity
from sf_jax.decode.drafts import Draft
from sf_jax.decode.noise import Sampling
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.rationale import Rationale, generate_rationale, no_rationale
from sf_jax.decode.repeats import Cursor
from sf_jax.decode.sequential import fill_slots
from sf_jax.decode.state import feed_tokens, prefill
from sf_jax.decode.tree import log_probabilities, node_scores
from sf_jax.model import text
from sf_jax.model.architecture import Architecture, ModelWeights
from sf_jax.sequence.batch import Batch


@dataclass(frozen=True)
class DraftPlan:
    """How wide to draft; the answer is the same with any plan.

    Attributes:
      rationale_width: tokens of a pass over the rationale: the last one generated, and drafted
        ones. 1 drafts nothing.
      block_widths: tokens of passes over a part of the block; the whole is always possible.
      growth: see `drafted.fill_drafted`.
      low_precision_passes: for a draft that knows nothing of the input; `Draft` says how many
        there are.
      sequential: slot by slot, a pass for each token that is not forced.
    """

    rationale_width: int = 1
    block_widths: tuple[int, ...] = ()
    growth: int = 4
    low_precision_passes: int = 0
    sequential: bool = False


SEQUENTIAL = DraftPlan(sequential=True)


@struct.dataclass
class Generated:
    """The answers of a batch; axis R is there where the block repeats, 0 after a row's last block.

    Attributes:
      rationale_ids: token ids of the rationale, 0 after its end; rationale_length: how many.
      truncated: whether the cap ended the rationale.
      rationale_log_probabilities: at temperature 1, of each token of the rationale and of the one
        that ends it; 0 after it, and 0 for an end that the cap forced.
      choices: which value each named slot takes.
      log_probabilities: of each slot's values at temperature 1, given all that precedes the slot;
        -inf where a slot has fewer values.
      rationale_passes, block_passes: model passes spent on each.
      block_positions: token positions computed in the latter.
        Where the values come first, the pass over what closes the block is the rationale's.
      repeats: how many blocks there are; None for a single one.
      stop_log_probabilities: of going on and of stopping after each block; None for a single one.
    """

    rationale_ids: Int[HostOrDevice, "B T"]
    rationale_length: Int[HostOrDevice, " B"]
    truncated: Bool[HostOrDevice, " B"]
    rationale_log_probabilities: Float[HostOrDevice, "B T+1"]
    choices: Int[HostOrDevice, "B *R C"]
    log_probabilities: Float[HostOrDevice, "B *R C V"]
    rationale_passes: Int[HostOrDevice, " B"]
    block_passes: Int[HostOrDevice, " B"]
    block_positions: Int[HostOrDevice, " B"]
    repeats: Int[HostOrDevice, " B"] | None = None
    stop_log_probabilities: Float[HostOrDevice, "B R 2"] | None = None


@struct.dataclass
class Filled:
    """One block of each row, the stop slot included where there is one; see `Generated`.

    Attributes:
      active: rows that have this block; the others' values mean nothing.
    """

    active: Bool[Array, " B"]
    choices: Int[Array, "B C"]
    log_probabilities: Float[Array, "B C V"]
    passes: Int[Array, " B"]
    positions: Int[Array, " B"]


@partial(jax.jit, static_argnames=("config", "plan", "max_rationale", "with_rationale", "most"))
def generate(
    weights: ModelWeights,
    batch: Batch,
    program: SlotProgram,
    draft: Draft,
    sampling: Sampling,
    config: Architecture,
    plan: DraftPlan,
    max_rationale: int,
    with_rationale: bool = True,
    prefix: text.Cache | None = None,
    low_precision: ModelWeights | None = None,
    most: int | None = None,
    features: Float[Array, "B R M D"] | None = None,
) -> Generated:
    """Answers of a batch of prompts.

    Args:
      batch: prompts padded on the left; without a rationale they end with the token that ends one.
      draft: of the answers; of a block that repeats, the first.
      max_rationale: cap on the tokens of the rationale.
      with_rationale: whether there is a rationale, before the slots or after them.
      prefix: what all prompts begin with, taken off `batch`.
      low_precision: weights like these in low precision, to draft with; None makes no such pass.
      most: blocks at most; None is the schema's bound. Needed where that has none.
      features: what each block is conditioned on, fed before its slots as inputs of the text
        model.
    """
    most = blocks.most_repeats(program, most)
    inserted = blocks.inserted_size(features, most)
    cursor, rationale = start(
        weights,
        batch,
        program,
        draft,
        sampling,
        config,
        plan,
        max_rationale,
        with_rationale,
        prefix,
        most,
        inserted,
    )

    def fill(cursor: Cursor, passes: Int[Array, ""] | int) -> tuple[Cursor, Filled]:
        if features is not None:
            cursor = blocks.conditioned(cursor, features[:, cursor.number])
        last = cursor.number == most - 1
        return fill_block(
            weights, cursor, program, sampling, config, plan, last, low_precision, passes
        )

    if program.repeat is None:
        cursor, filled = fill(cursor, draft.low_precision_passes)
        if program.values_first and with_rationale:
            rationale = following_rationale(
                weights, cursor, program, draft, sampling, config, plan, max_rationale
            )
        return _generated(rationale, filled)

    def step(carry: tuple[Cursor, Filled]) -> tuple[Cursor, Filled]:
        cursor, every = carry
        number = cursor.number
        passes = jnp.where(number == 0, draft.low_precision_passes, 0)
        cursor, filled = fill(cursor, passes)
        return cursor, jax.tree.map(lambda all, one: all.at[number].set(one), every, filled)

    shapes = jax.eval_shape(fill, cursor, jnp.int32(0))[1]
    every = jax.tree.map(lambda one: jnp.zeros((most, *one.shape), one.dtype), shapes)
    _, every = jax.lax.while_loop(
        lambda carry: (carry[0].number < most) & carry[0].active.any(), step, (cursor, every)
    )
    return _generated(rationale, every)


def start(
    weights: ModelWeights,
    batch: Batch,
    program: SlotProgram,
    draft: Draft,
    sampling: Sampling,
    config: Architecture,
    plan: DraftPlan,
    max_rationale: int,
    with_rationale: bool,
    prefix: text.Cache | None,
    most: int | None,
    inserted: int,
) -> tuple[Cursor, Rationale]:
    """Prompt and rationale, up to the first block; `most` blocks of `inserted` features follow.

    Where the values come first, the prompt alone.
    """
    with_rationale &= not program.values_first
    rows, length = batch.input_ids.shape
    before = length + (0 if prefix is None else prefix.segments.shape[1])
    state = prefill(weights, batch, before, config, prefix)
    rationale = no_rationale(rows, max_rationale)
    if with_rationale:
        # Passes over the rationale need no capacity for the block.
        state = state.widened(before + max_rationale + plan.rationale_width)
        state, rationale = generate_rationale(
            weights, state, program, draft, sampling, config, max_rationale, plan.rationale_width
        )
    pending = pending_after(rationale, program, with_rationale)
    size = pending.size + inserted
    longest = (max_rationale if with_rationale else 0) + blocks.held(program, most) * (
        size + program.longest
    )
    spare = max(plan.rationale_width, spare_capacity(program, plan.block_widths, size, rows))
    if program.branches is not None:
        spare = max(spare, program.branches.tokens.shape[-1])
    state = state.widened(before + longest + spare)
    return blocks.begin(state, pending, program, draft.choices), rationale


def following_rationale(
    weights: ModelWeights,
    cursor: Cursor,
    program: SlotProgram,
    draft: Draft,
    sampling: Sampling,
    config: Architecture,
    plan: DraftPlan,
    max_rationale: int,
) -> Rationale:
    """The rationale of an answer whose values come first.

    Args:
      cursor: as `fill_block` leaves it, before the last value.
    """
    state, width = cursor.state, plan.rationale_width
    tokens, length = closing_after(cursor.choices, program)
    held, size = state.cache.segments.shape[1], tokens.shape[1] + max_rationale + width
    state = state.widened(held + size)
    # Tokens of the answer, without what it is conditioned on.
    pending = cursor.pending
    ordinal = state.fed + length - pending.first + pending.ordinal - pending.inserted
    state, states = feed_tokens(weights, state, tokens, length, config)
    last = jnp.take_along_axis(states, (length - 1)[:, None, None], 1)[:, 0]
    _, rationale = generate_rationale(
        weights,
        replace(state, last=last),
        program,
        draft,
        sampling,
        config,
        max_rationale,
        width,
        ordinal,
    )
    return replace(rationale, passes=rationale.passes + 1)


def fill_block(
    weights: ModelWeights,
    cursor: Cursor,
    program: SlotProgram,
    sampling: Sampling,
    config: Architecture,
    plan: DraftPlan,
    last: Bool[Array, ""],
    low_precision: ModelWeights | None,
    passes: Int[Array, ""] | int,
) -> tuple[Cursor, Filled]:
    """The next block of every active row; `last`: none may follow it."""
    program = program.at_repeat(last)
    state, pending = cursor.state, cursor.pending
    active = None if program.repeat is None else cursor.active
    if plan.sequential:
        state, block = fill_slots(weights, state, pending, program, sampling, config, active)
    else:
        state, block = fill_drafted(
            weights,
            state,
            pending,
            program,
            program.allowed_drafts(cursor.choices),
            sampling,
            config,
            plan.block_widths,
            plan.growth,
            low_precision,
            passes,
            active,
        )
    scores = node_scores(weights, state, pending, block, program, config)
    extra = 0 if program.branches is None else len(program.branches.tokens)
    filled = Filled(
        cursor.active,
        block.choices,
        log_probabilities(scores, program),
        block.passes + (extra if active is None else jnp.where(active, extra, 0)),
        block.positions,
    )
    if program.repeat is not None:
        cursor = blocks.advanced(cursor, state, block.choices, program, config.text)
    elif program.values_first:
        # A draft that was rejected may be in the cache; the last value is fed with what follows.
        root = layout(block.choices, pending, program).root[:, -1]
        state = state.at(pending.first + root + 1)
        cursor = replace(cursor, state=state, choices=block.choices)
    return cursor, filled


def _generated(rationale: Rationale, filled: Filled) -> Generated:
    """What `generate` returns, of one block, or of blocks stacked along a first axis."""
    spoken = (rationale.ids, rationale.length, rationale.truncated, rationale.log_probabilities)
    if filled.active.ndim == 1:
        return Generated(
            *spoken,
            filled.choices,
            filled.log_probabilities,
            rationale.passes,
            filled.passes,
            filled.positions,
        )
    real = filled.active.swapaxes(0, 1)
    choices, logs = (x.swapaxes(0, 1) for x in (filled.choices, filled.log_probabilities))
    choices = jnp.where(real[..., None], choices, 0)
    logs = jnp.where(real[..., None, None], logs, 0)
    return Generated(
        *spoken,
        choices[..., :-1],
        logs[..., :-1, :],
        rationale.passes,
        filled.passes.sum(0),
        filled.positions.sum(0),
        real.sum(1),
        logs[..., -1, :2],
    )
