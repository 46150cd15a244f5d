"""Blocks that repeat, one after the other: what a block leaves to the next."""

from dataclasses import replace

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.block import Pending, layout
from sf_jax.decode.program import GO_ON, SlotProgram
from sf_jax.decode.state import State
from sf_jax.decode.window import evicted
from sf_jax.model.config import TextConfig


@struct.dataclass
class Cursor:
    """Where each row is in an answer: before a block, or after it where the values come first.

    Attributes:
      state: the cache and what every pass does with it.
      pending: what precedes the next block.
      active: rows that have another block.
      number: blocks before the next.
      choices: of the block before, the draft of the next; or the draft of the first.
      kept: tokens of the answer that never leave the cache: the rationale and what opens the array.
      spans: tokens and features of the blocks in the window, oldest first, 0 where there is none;
        of no length without a window.
    """

    state: State
    pending: Pending
    active: Bool[Array, " B"]
    number: Int[Array, ""]
    choices: Int[Array, "B C"]
    kept: Int[Array, " B"]
    spans: Int[Array, "B W"]


def begin(state: State, pending: Pending, program: SlotProgram, draft: Int[Array, "B C"]) -> Cursor:
    """Before the first block; `draft` are values of its named slots, more are not read."""
    batch = len(draft)
    window = program.repeat.window if program.repeat is not None else None
    if program.repeat is not None:
        draft = jnp.pad(draft[:, : program.named], [(0, 0), (0, 1)], constant_values=GO_ON)
    return Cursor(
        state,
        pending,
        jnp.ones(batch, bool),
        jnp.int32(0),
        draft,
        pending.first + pending.length,
        jnp.zeros((batch, window or 0), jnp.int32),
    )


def most_repeats(program: SlotProgram, asked: int | None = None) -> int:
    """How many blocks there are at most; 1 for a block that does not repeat.

    Raises:
      ValueError: too many are asked for, or nobody says how many.
    """
    if program.repeat is None:
        return 1
    bound = program.repeat.most
    most = bound if asked is None else asked
    if most is None or most < 1 or (bound is not None and most > bound):
        raise ValueError(f"most is {asked}, expected 1 to {bound or 'any number'}")
    return most


def inserted_size(features: Float[Array, "B R M D"] | None, most: int) -> int:
    """How many features are fed before each block.

    Raises:
      ValueError: there are features for fewer blocks than `most`.
    """
    if features is None:
        return 0
    if features.shape[1] < most:
        raise ValueError(f"features for {features.shape[1]} blocks, expected {most}")
    return features.shape[2]


def conditioned(cursor: Cursor, features: Float[Array, "B M D"]) -> Cursor:
    """With features that are fed before the slots of the next block."""
    return replace(cursor, pending=replace(cursor.pending, features=features))


def held(program: SlotProgram, most: int | None) -> int:
    """The most blocks that the cache holds, of so many; None is any number."""
    window = program.repeat.window if program.repeat is not None else None
    if window is None:
        assert most is not None  # a schema has a bound or a window
        return most
    return window + 1 if most is None else min(most, window + 1)


def advanced(
    cursor: Cursor,
    state: State,
    choices: Int[Array, "B C"],
    program: SlotProgram,
    config: TextConfig,
) -> Cursor:
    """After a block with these values, the stop slot's included.

    The cache is left with everything up to the stop slot's root. The token chosen there and the
    separator are pending, and belong to the next block.
    """
    pending, active = cursor.pending, cursor.active
    fed = layout(choices, pending, program).root[:, -1] + 1
    state = state.at(jnp.where(active, pending.first + fed, state.fed))
    spans, oldest = cursor.spans, jnp.zeros_like(fed)
    if spans.shape[1]:
        own = pending.first + fed - jnp.where(cursor.number == 0, cursor.kept, pending.first)
        oldest = jnp.where(active, spans[:, 0], 0)
        spans = jnp.concatenate([spans[:, 1:], own[:, None]], 1)
        state = evicted(state, cursor.kept, oldest, config)
    go_on = program.value_tokens[program.kind[-1], GO_ON, :1]
    between = jnp.concatenate([go_on, program.separator]).astype(jnp.int32)
    between = jnp.pad(between, (0, program.pending_size - len(between)))
    following = Pending(
        jnp.broadcast_to(between, (len(choices), len(between))),
        jnp.full_like(pending.length, 1 + len(program.separator)),
        state.fed,
        pending.ordinal + fed - pending.inserted,
    )
    return replace(
        cursor,
        state=state,
        pending=following,
        active=active & (choices[:, -1] == GO_ON),
        number=cursor.number + 1,
        choices=choices,
        spans=spans,
    )
