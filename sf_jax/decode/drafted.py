"""The slots of an answer drafted all at once, verified and repaired.

Drafting is lossless. A pass over a drafted block yields, at every slot, the value that the model
takes behind the drafts before it. From the first slot on these are the values it would take in any
case, up to and including the first that differs from its draft. That one is put right, those behind
it become the next drafts, and the next pass goes on from there. When nothing differs any more the
block is what slot by slot decoding gives.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int

from sf_jax.decode.block import (
    LEAD,
    Block,
    Lead,
    layout,
    narrowed,
    noise_behind,
    scores_at_steps,
)
from sf_jax.decode.noise import Sampling
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.state import State, feed
from sf_jax.model import text
from sf_jax.model.config import Config
from sf_jax.model.weights import LOW, Weights


def pass_widths(program: SlotProgram, widths: tuple[int, ...]) -> tuple[int, ...]:
    """The widths of passes that are possible, ascending; the last takes lead and block whole."""
    size = LEAD + program.longest
    least = 2 + program.path.shape[-1]  # a root and the longest way to a node, and one to go on
    return (*sorted({max(width, least) for width in widths if width < size}), size)


def spare_places(program: SlotProgram, widths: tuple[int, ...], batch: int) -> int:
    """Places of a cache that passes may write to behind the block's end.

    A single row's pass is at most a step wider than what remains; of several rows one may be near
    its end while another asks for the widest pass.
    """
    sizes = pass_widths(program, widths)
    steps = [wide - narrow for narrow, wide in zip((0, *sizes), sizes, strict=False)]
    return max(steps) if batch == 1 else sizes[-1]


def fill_drafted(
    weights: Weights,
    state: State,
    before: Lead,
    program: SlotProgram,
    draft: Int[Array, "B C"],
    sampling: Sampling,
    config: Config,
    widths: tuple[int, ...],
    growth: int,
    rough: Weights | None = None,
    guesses: Any = 0,
) -> tuple[State, Block]:
    """All slots drafted, verified and repaired until nothing changes; as `fill_slots` gives.

    Args:
      draft: a value for each slot to begin with.
      widths: tokens that a pass may look at, ascending; the whole block is always among them.
      growth: a pass looks at so many times the tokens that the last one found right, if these are
        fewer than all that remain. The first looks at all.
      rough: weights like these in low precision, which make `guesses` passes over the whole block
        first. Such a pass is cheaper; what it takes for right is but a better draft.
    """
    batch, count = draft.shape
    sizes = pass_widths(program, widths)
    size = sizes[-1]
    added = noise_behind(before, program, sampling)
    zeros = jnp.zeros(batch, jnp.int32)
    roots = jnp.zeros((batch, count, program.symbols.shape[0]), jnp.float32)
    progress = _Progress(state, Block(draft, roots, zeros, zeros), zeros, zeros + size)
    if rough is not None:

        def guess(_: Any, progress: _Progress) -> _Progress:
            return _guess(rough, progress, before, program, added, config)

        progress = jax.lax.fori_loop(0, guesses, guess, progress)

    def chosen(progress: _Progress) -> Array:
        fed = progress.state.fed - before.first
        total = layout(progress.block.choices, before, program).total
        need = jnp.where(progress.done < count, jnp.minimum(progress.want, total - fed), 0).max()
        return jnp.where(need == 0, -1, (need > jnp.array(sizes[:-1], jnp.int32)).sum())

    def at_width(progress: _Progress, number: int) -> _Progress:
        def verify(progress: _Progress) -> _Progress:
            return _verify(weights, progress, before, program, added, config, sizes[number], growth)

        return jax.lax.while_loop(lambda p: chosen(p) == number, verify, progress)

    def round_of_widths(progress: _Progress) -> _Progress:
        for number in reversed(range(len(sizes))):
            progress = at_width(progress, number)
        return progress

    progress = jax.lax.while_loop(lambda p: chosen(p) >= 0, round_of_widths, progress)
    return progress.state, progress.block


@struct.dataclass
class _Progress:
    """Of a drafted block.

    Attributes:
      done: int32 [B], slots that are final; want: int32 [B], tokens the next pass should look at.
    """

    state: State
    block: Block
    done: Any
    want: Any


@struct.dataclass
class _Looked:
    """What a pass saw.

    Attributes:
      scores: float32 [B, T, U], of the program's symbols behind each token.
      root: int32 [B, C], as in `Layout`; fed, lengths: int32 [B], where the pass began in the
        block, and how many of its tokens are real.
      repaired, decided: see `_repaired`.
    """

    scores: Any
    root: Any
    fed: Any
    lengths: Any
    repaired: Any
    decided: Any


def _repaired(
    choices: Int[Array, "B C"],
    taken: Int[Array, "B C S"],
    known: Bool[Array, "B C S"],
    program: SlotProgram,
) -> tuple[Int[Array, "B C"], Bool[Array, "B C"]]:
    """What each slot should hold, given what was taken at the steps of its draft.

    Where the taken token leaves the draft's path, what follows it is not known: of the values that
    begin so, the one whose number lies nearest to the draft's is the next draft.

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
    done: Int[Array, " B"],
) -> tuple[Int[Array, " B"], Bool[Array, " B"]]:
    """How many slots are final, and whether the last of them differs from what was fed.

    Slots are final up to the first whose draft was wrong, that one included if nothing of it is
    left open: all that lies before it was fed as it stands.
    """
    slots = jnp.arange(choices.shape[1])
    right = (slots < done[:, None]) | (decided & (repaired == choices))
    count = jnp.cumprod(right, 1).sum(1)
    first = jnp.minimum(count, choices.shape[1] - 1)[:, None]
    mended = jnp.take_along_axis(decided, first, 1)[:, 0] & (count < choices.shape[1])
    return count + mended, mended


def _look(
    weights: Weights,
    progress: _Progress,
    before: Lead,
    program: SlotProgram,
    added: Array,
    config: Config,
    width: int,
) -> tuple[State, _Looked]:
    """One pass over the next `width` tokens of the draft."""
    block = progress.block
    laid = layout(block.choices, before, program)
    fed = progress.state.fed - before.first
    places = (fed[:, None] + jnp.arange(width)).clip(0, laid.tokens.shape[1] - 1)
    tokens = jnp.take_along_axis(laid.tokens, places, 1)
    active = progress.done < block.choices.shape[1]
    lengths = jnp.where(active, jnp.clip(laid.total - fed, 0, width), 0)
    state, states = feed(weights, progress.state, tokens, lengths, config)
    scores = text.logits(weights.text, states, program.symbols, config.product_dtype)
    drawn = scores + jnp.take_along_axis(added, places[..., None], 1)
    at_steps, reached = scores_at_steps(drawn, block.choices, laid, fed, lengths, program)
    taken = jnp.argmax(at_steps, -1).astype(jnp.int32)
    repaired, decided = _repaired(block.choices, taken, reached, program)
    return state, _Looked(scores, laid.root, fed, lengths, repaired, decided)


def _guess(
    rough: Weights,
    progress: _Progress,
    before: Lead,
    program: SlotProgram,
    added: Array,
    config: Config,
) -> _Progress:
    """A better draft by a pass in low precision, of which nothing else is kept."""
    low = replace(config, product_dtype=LOW)
    width = added.shape[1]
    state, looked = _look(rough, progress, before, program, added, low, width)
    block = progress.block
    block = Block(looked.repaired, block.roots, block.passes + 1, block.positions + width)
    return replace(progress, state=state.at(progress.state.fed), block=block)


def _verify(
    weights: Weights,
    progress: _Progress,
    before: Lead,
    program: SlotProgram,
    added: Array,
    config: Config,
    width: int,
    growth: int,
) -> _Progress:
    """One pass: what it finds right is final, and the first that is wrong is put right."""
    block, done = progress.block, progress.done
    state, looked = _look(weights, progress, before, program, added, config, width)
    fed, lengths, count = looked.fed, looked.lengths, block.choices.shape[1]
    final, mended = _verified(block.choices, looked.repaired, looked.decided, done)
    slots = jnp.arange(count)
    repaired = jnp.where(slots < done[:, None], block.choices, looked.repaired)

    # The first slot that is not final is looked at again from its last forced token on; a slot put
    # right is fed from its value on.
    slot = jnp.minimum(jnp.where(mended, final - 1, final), count - 1)[:, None]
    root = jnp.take_along_axis(looked.root, slot, 1)[:, 0]
    kept = jnp.minimum(fed + lengths, root + mended)
    kept = jnp.where(final >= count, fed + lengths, kept)
    new = (slots >= done[:, None]) & (slots < final[:, None])
    at_root = (looked.root - fed[:, None]).clip(0, width - 1)
    roots = jnp.where(
        new[..., None], jnp.take_along_axis(looked.scores, at_root[..., None], 1), block.roots
    )
    active = done < count
    block = Block(
        repaired, roots, block.passes + active, block.positions + jnp.where(active, width, 0)
    )
    want = growth * jnp.maximum(kept - fed, 1)
    return _Progress(state.at(before.first + kept), block, jnp.where(active, final, done), want)
