"""The slots of a block drafted all at once, verified and repaired.

Drafting is lossless. A pass over a drafted block yields, at every slot, the value that the model
takes after the drafts before it. From the first slot on these are the values it would take in any
case, up to and including the first that differs from its draft. That draft is rejected, its slot
repaired, the slots after it become the next drafts, and the next pass resumes from there. When
nothing differs any more the block is what slot by slot decoding gives.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.block import (
    Block,
    Pending,
    embedded,
    layout,
    narrowed,
    noise_after,
    scores_at_steps,
)
from sf_jax.decode.estimate import taken
from sf_jax.decode.noise import Sampling
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.state import State, feed
from sf_jax.model import text
from sf_jax.model.architecture import Architecture, ModelWeights
from sf_jax.model.weights import LOW


def pass_widths(program: SlotProgram, widths: tuple[int, ...], pending: int) -> tuple[int, ...]:
    """The widths of passes that are possible, ascending; the last takes pending and block whole."""
    size = pending + program.longest
    least = 2 + program.path.shape[-1]  # a root and the longest way to a node, and one to go on
    return (*sorted({max(width, least) for width in widths if width < size}), size)


def spare_capacity(program: SlotProgram, widths: tuple[int, ...], pending: int, batch: int) -> int:
    """Positions of a cache that passes may write to after the block's end.

    A single row's pass is at most a step wider than what remains; of several rows one may be near
    its end while another asks for the widest pass.
    """
    sizes = pass_widths(program, widths, pending)
    steps = [wide - narrow for narrow, wide in zip((0, *sizes), sizes, strict=False)]
    return max(steps) if batch == 1 else sizes[-1]


def fill_drafted(
    weights: ModelWeights,
    state: State,
    pending: Pending,
    program: SlotProgram,
    draft: Int[Array, "B C"],
    sampling: Sampling,
    config: Architecture,
    widths: tuple[int, ...],
    growth: int,
    low_precision: ModelWeights | None = None,
    passes: Int[Array, ""] | int = 0,
    active: Bool[Array, " B"] | None = None,
) -> tuple[State, Block]:
    """All slots drafted, verified and repaired until nothing changes; as `fill_slots` gives.

    Args:
      draft: a value for each slot to begin with.
      widths: tokens of a pass, ascending; the whole block is always among them.
      growth: a pass is so many times as wide as the last one's accepted tokens, if these are
        fewer than all that remain. The first pass takes all.
      low_precision: weights like these in low precision, which make `passes` passes over the whole
        block first. Such a pass is cheaper; what it accepts is but a better draft.
      active: rows whose block is to be filled; None is all.
    """
    batch, count = draft.shape
    sizes = pass_widths(program, widths, pending.size)
    size = sizes[-1]
    added, sampled = noise_after(pending, program, sampling), sampling.temperature > 0
    zeros = jnp.zeros(batch, jnp.int32)
    roots = jnp.zeros((batch, count, program.symbols.shape[0]), jnp.float32)
    final = zeros if active is None else jnp.where(active, 0, count)
    drafted = _DraftState(state, Block(draft, roots, zeros, zeros), final, zeros + size)
    if low_precision is not None:

        def improve(_: Any, drafted: _DraftState) -> _DraftState:
            return _improve(low_precision, drafted, pending, program, added, sampled, config)

        drafted = jax.lax.fori_loop(0, passes, improve, drafted)

    def chosen_width(drafted: _DraftState) -> Array:
        fed = drafted.state.fed - pending.first
        total = layout(drafted.block.choices, pending, program).total
        wanted = jnp.minimum(drafted.budget, total - fed)
        need = jnp.where(drafted.final < count, wanted, 0).max()
        return jnp.where(need == 0, -1, (need > jnp.array(sizes[:-1], jnp.int32)).sum())

    def at_width(drafted: _DraftState, number: int) -> _DraftState:
        def verify(drafted: _DraftState) -> _DraftState:
            width = sizes[number]
            return _verify(
                weights, drafted, pending, program, added, sampled, config, width, growth
            )

        return jax.lax.while_loop(lambda d: chosen_width(d) == number, verify, drafted)

    def each_width(drafted: _DraftState) -> _DraftState:
        for number in reversed(range(len(sizes))):
            drafted = at_width(drafted, number)
        return drafted

    drafted = jax.lax.while_loop(lambda d: chosen_width(d) >= 0, each_width, drafted)
    return drafted.state, drafted.block


@struct.dataclass
class _DraftState:
    """A block being drafted: how many of its slots are final, and the next pass's tokens at most.

    The cache holds tokens of final slots, and of those before the first rejected one, alone.
    """

    state: State
    block: Block
    final: Int[Array, " B"]
    budget: Int[Array, " B"]


@struct.dataclass
class _Pass:
    """What a pass over a draft yields.

    Attributes:
      scores: of the program's symbols after each token.
      root: as in `Layout`; fed, lengths: the index of the pass's first token, and how many of its
        tokens are real.
      repaired, decided: see `_repaired`.
    """

    scores: Float[Array, "B T U"]
    root: Int[Array, "B C"]
    fed: Int[Array, " B"]
    lengths: Int[Array, " B"]
    repaired: Int[Array, "B C"]
    decided: Bool[Array, "B C"]


def _repaired(
    choices: Int[Array, "B C"],
    taken: Int[Array, "B C S"],
    known: Bool[Array, "B C S"],
    program: SlotProgram,
) -> tuple[Int[Array, "B C"], Bool[Array, "B C"]]:
    """The value of each slot, given what was taken at the steps of its draft.

    Where the taken token leaves the draft's path, what follows it is not known: of the values that
    begin so, the one whose number is nearest to the draft's is the next draft.

    Returns:
      The values, and whether what was taken leaves no other.
    """
    kind = program.kind
    draft_symbol = program.step_symbol[kind[None], choices]
    alive = jnp.broadcast_to(program.valid[kind], (*choices.shape, program.valid.shape[1]))
    on_path = jnp.ones(choices.shape, bool)
    for step in range(taken.shape[-1]):
        real = known[..., step] & on_path
        symbols = program.step_symbol[kind, :, step]
        passing = program.step_real[kind, :, step]
        alive = narrowed(alive, real, taken[..., step], symbols, passing)
        on_path &= ~real | (taken[..., step] == draft_symbol[..., step])
    numbers = program.values[kind]
    draft = program.values[kind, choices]
    distance = jnp.where(alive, jnp.abs(numbers - draft[..., None]), jnp.inf)
    return jnp.argmin(distance, -1).astype(jnp.int32), alive.sum(-1) == 1


def _verified(
    choices: Int[Array, "B C"],
    repaired: Int[Array, "B C"],
    decided: Bool[Array, "B C"],
    final: Int[Array, " B"],
) -> tuple[Int[Array, " B"], Bool[Array, " B"]]:
    """How many slots are final, and whether the last of them was repaired.

    Slots are final up to the first whose draft was rejected, that one included if its value is
    fully determined: all before it was fed as it is.
    """
    slots = jnp.arange(choices.shape[1])
    accepted = (slots < final[:, None]) | (decided & (repaired == choices))
    count = jnp.cumprod(accepted, 1).sum(1)
    first = jnp.minimum(count, choices.shape[1] - 1)[:, None]
    determined = jnp.take_along_axis(decided, first, 1)[:, 0] & (count < choices.shape[1])
    return count + determined, determined


def _draft_pass(
    weights: ModelWeights,
    drafted: _DraftState,
    pending: Pending,
    program: SlotProgram,
    added: Float[Array, "B X U"],
    sampled: Bool[Array, " B"],
    config: Architecture,
    width: int,
) -> tuple[State, _Pass]:
    """One pass over the next `width` tokens of the draft."""
    choices = drafted.block.choices
    laid = layout(choices, pending, program)
    fed = drafted.state.fed - pending.first
    indices = (fed[:, None] + jnp.arange(width)).clip(0, laid.tokens.shape[1] - 1)
    tokens = jnp.take_along_axis(laid.tokens, indices, 1)
    active = drafted.final < choices.shape[1]
    lengths = jnp.where(active, jnp.clip(laid.total - fed, 0, width), 0)
    inputs = embedded(weights, tokens, indices, pending)
    state, states = feed(weights, drafted.state, inputs, lengths, config)
    scores = text.logits(weights.text, states, program.symbols, config.product_dtype)
    drawn = scores + jnp.take_along_axis(added, indices[..., None], 1)
    at_steps, reached = scores_at_steps(drawn, choices, laid, fed, lengths, program)
    at_step = taken(at_steps, program.kind[:, None], program, sampled)
    repaired, decided = _repaired(choices, at_step, reached, program)
    return state, _Pass(scores, laid.root, fed, lengths, repaired, decided)


def _improve(
    low_precision: ModelWeights,
    drafted: _DraftState,
    pending: Pending,
    program: SlotProgram,
    added: Float[Array, "B X U"],
    sampled: Bool[Array, " B"],
    config: Architecture,
) -> _DraftState:
    """A better draft by a pass in low precision, of which nothing else is used."""
    low, width = replace(config, product_dtype=LOW), added.shape[1]
    state, made = _draft_pass(low_precision, drafted, pending, program, added, sampled, low, width)
    block = drafted.block
    block = Block(made.repaired, block.root_scores, block.passes + 1, block.positions + width)
    return replace(drafted, state=state.at(drafted.state.fed), block=block)


def _verify(
    weights: ModelWeights,
    drafted: _DraftState,
    pending: Pending,
    program: SlotProgram,
    added: Float[Array, "B X U"],
    sampled: Bool[Array, " B"],
    config: Architecture,
    width: int,
    growth: int,
) -> _DraftState:
    """One pass: what it accepts is final, and the first rejected slot is repaired."""
    block, before = drafted.block, drafted.final
    state, made = _draft_pass(weights, drafted, pending, program, added, sampled, config, width)
    fed, lengths, count = made.fed, made.lengths, block.choices.shape[1]
    final, determined = _verified(block.choices, made.repaired, made.decided, before)
    slots = jnp.arange(count)
    choices = jnp.where(slots < before[:, None], block.choices, made.repaired)

    # The first slot that is not final is verified again from its last forced token on; a repaired
    # slot is fed from its value on.
    slot = jnp.minimum(jnp.where(determined, final - 1, final), count - 1)[:, None]
    root = jnp.take_along_axis(made.root, slot, 1)[:, 0]
    valid = jnp.minimum(fed + lengths, root + determined)
    valid = jnp.where(final >= count, fed + lengths, valid)
    new = (slots >= before[:, None]) & (slots < final[:, None])
    at_root = (made.root - fed[:, None]).clip(0, width - 1)
    roots = jnp.take_along_axis(made.scores, at_root[..., None], 1)
    roots = jnp.where(new[..., None], roots, block.root_scores)
    active = before < count
    positions = block.positions + jnp.where(active, width, 0)
    block = Block(choices, roots, block.passes + active, positions)
    budget = growth * jnp.maximum(valid - fed, 1)
    final = jnp.where(active, final, before)
    return _DraftState(state.at(pending.first + valid), block, final, budget)
