"""The slots of an answer: one by one, or all drafted at once and verified.

Drafting is lossless. A pass over a drafted block yields, at every slot, the value that the model
takes behind the drafts before it. From the first slot on these are the values it would take anyway,
up to and including the first that differs from its draft; that one is put right, those behind it
become the next drafts, and the next pass goes on from there. When nothing differs any more the block
is what slot by slot decoding gives.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.noise import Sampling, noise
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.state import State, feed
from sf_jax.decode.words import Words
from sf_jax.model import text
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights

LEAD = 2  # tokens that may have to be fed before a block


@struct.dataclass
class Block:
    """The slots of a block.

    Attributes:
      choices: int32 [B, C], which value stands in each slot.
      roots: float32 [B, C, U], scores of the program's symbols where each value begins.
      passes, positions: int32 [B], passes made and token positions computed in them.
    """

    choices: Any
    roots: Any
    passes: Any
    positions: Any


@struct.dataclass
class Lead:
    """What is fed before the block: a last word that was cut off and the blank line, as needed.

    Attributes:
      tokens: int32 [B, 2]; length: int32 [B].
      first: int32 [B], tokens of the answer before them.
    """

    tokens: Any
    length: Any
    first: Any


def lead(words: Words, program: SlotProgram, spoke: bool) -> Lead:
    """What separates words from block."""
    blank = words.cut | (spoke and not program.block_ends_words)
    last = jnp.take_along_axis(words.tokens, jnp.maximum(words.length - 1, 0)[:, None], 1)
    end = jnp.full_like(last, program.end_of_words)
    tokens = jnp.where(words.cut[:, None], jnp.concatenate([last, end], 1), end)
    length = words.cut.astype(jnp.int32) + blank
    return Lead(tokens, length, words.length - words.cut)


def _narrowed(
    alive: Bool[Array, "*rows V"], real: Array, taken: Array, symbols: Array, passing: Array
) -> Bool[Array, "*rows V"]:
    """The values still possible once a symbol was taken at a step, where `real`."""
    return alive & (~real[..., None] | (passing & (symbols == taken[..., None])))


def _noise_behind(before: Lead, program: SlotProgram, sampling: Sampling) -> Float[Array, "B X U"]:
    """For choosing the token behind each token of lead and block."""
    size = before.tokens.shape[1] + program.longest
    return noise(sampling, before.first[:, None] + jnp.arange(1, size + 1), program.symbols)


# ---------------------------------------------------------------------------------- slot by slot


def fill_slots(
    weights: Weights, state: State, before: Lead, program: SlotProgram, sampling: Sampling,
    config: Config,
) -> tuple[State, Block]:  # fmt: skip
    """The plain way: a pass for each token that is not forced; the reference of what follows."""
    batch = state.start.shape[0]
    width = max(before.tokens.shape[1], program.value_tokens.shape[-1])
    pending = jnp.pad(before.tokens, [(0, 0), (0, width - before.tokens.shape[1])])

    added = _noise_behind(before, program, sampling)
    rows = jnp.arange(batch)

    def choose(states: Array, fed: Array, kind: Array, node: Array) -> tuple[Array, Array]:
        scores = text.logits(weights.text, states, program.symbols, config.product_dtype)
        drawn = scores + added[rows, fed - before.first - 1]
        taken = jnp.argmax(jnp.where(program.allowed[kind, node], drawn, -jnp.inf), -1)
        return taken, scores

    def fill(carry: tuple, slot: tuple) -> tuple[tuple, tuple]:
        state, tokens, length, passes = carry
        forced, forced_length, kind = slot
        chunk, count = _joined(tokens, length, forced, forced_length)
        state, states = feed(weights, state, chunk, count, config)
        root, fed = _state_at(states, count - 1), state.fed
        taken, scores = choose(root, fed, kind, jnp.zeros(batch, jnp.int32))
        alive = jnp.broadcast_to(program.valid[kind], (batch, program.valid.shape[1]))
        real, symbols = program.step_real[kind], program.step_symbol[kind]
        alive = _narrowed(alive, real[:, 0].any()[None], taken, symbols[:, 0], real[:, 0])
        passes = passes + 1
        for step in range(1, real.shape[1]):
            goes_on = (alive & real[:, step]).any(1)
            node = program.step_node[kind, jnp.argmax(alive & real[:, step], 1), step]

            def look(alive: Array, node: Array = node, goes_on: Array = goes_on, step: int = step):  # type: ignore[no-untyped-def]
                path, long = program.path[kind, node], program.path_length[kind, node]
                _, states = feed(weights, state, path, long, config)
                taken, _ = choose(_state_at(states, long - 1), fed + long, kind, node)
                return _narrowed(alive, goes_on, taken, symbols[:, step], real[:, step])

            alive = jax.lax.cond(goes_on.any(), look, lambda alive: alive, alive)
            passes = passes + goes_on
        choice = jnp.argmax(alive, 1)
        value = program.value_tokens[kind, choice]
        value = jnp.pad(value, [(0, 0), (0, width - value.shape[1])])
        return (state, value, program.value_length[kind, choice], passes), (choice, scores)

    slots = program.forced, program.forced_length, program.kind
    carry = (state, pending, before.length, jnp.zeros(batch, jnp.int32))
    (state, _, _, passes), (choices, roots) = jax.lax.scan(fill, carry, slots)
    count = len(program.kind)
    positions = (
        count * (width + program.forced.shape[1]) + (passes - count) * program.path.shape[-1]
    )
    choices = choices.swapaxes(0, 1).astype(jnp.int32)
    return state, Block(choices, roots.swapaxes(0, 1), passes, positions)


def _joined(
    tokens: Int[Array, "B W"], length: Array, forced: Int[Array, " F"], forced_length: Array
) -> tuple[Int[Array, "B X"], Int[Array, " B"]]:
    """Tokens of each row, and forced ones behind them."""
    places = jnp.arange(tokens.shape[1] + forced.shape[0]) - length[:, None]
    own = jnp.pad(tokens, [(0, 0), (0, forced.shape[0])])
    return jnp.where(places < 0, own, forced[jnp.maximum(places, 0)]), length + forced_length


def _state_at(states: Float[Array, "B T D"], at: Int[Array, " B"]) -> Float[Array, "B D"]:
    return jnp.take_along_axis(states, at[:, None, None], 1)[:, 0]


# ------------------------------------------------------------------------- drafted and verified


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
class Layout:
    """Where the tokens of a block stand, lead included, for given choices.

    Attributes:
      tokens: int32 [B, X]; total: int32 [B], how many are real.
      root: int32 [B, C], the place of each slot's last forced token.
    """

    tokens: Any
    total: Any
    root: Any


def layout(choices: Int[Array, "B C"], before: Lead, program: SlotProgram) -> Layout:
    """The block as one row of tokens without gaps."""
    lengths = program.forced_length + program.value_length[program.kind, choices]
    ends = before.length[:, None] + jnp.cumsum(lengths, 1)
    starts = ends - lengths
    size = before.tokens.shape[1] + program.longest
    places = jnp.broadcast_to(jnp.arange(size), (len(choices), size))
    slot = (places[..., None] >= ends[:, None]).sum(-1).clip(0, choices.shape[1] - 1)
    offset = places - jnp.take_along_axis(starts, slot, 1)
    choice = jnp.take_along_axis(choices, slot, 1)
    in_value = offset - program.forced_length[slot]
    value = program.value_tokens[
        program.kind[slot], choice, in_value.clip(0, program.value_tokens.shape[-1] - 1)
    ]
    forced = program.forced[slot, offset.clip(0, program.forced.shape[1] - 1)]
    tokens = jnp.where(in_value >= 0, value, forced)
    led = jnp.pad(before.tokens, [(0, 0), (0, size - before.tokens.shape[1])])
    tokens = jnp.where(offset < 0, led, tokens)
    return Layout(tokens, ends[:, -1], starts + program.forced_length - 1)


def _repaired(
    choices: Int[Array, "B C"], taken: Int[Array, "B C S"], known: Bool[Array, "B C S"],
    program: SlotProgram,
) -> tuple[Int[Array, "B C"], Bool[Array, "B C"]]:  # fmt: skip
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
        alive = _narrowed(alive, real, taken[..., step], symbols, passing)
        on_path &= ~real | (taken[..., step] == draft_symbol[..., step])
    numbers = program.values[kind]
    draft = program.values[kind, choices]
    distance = jnp.where(alive, jnp.abs(numbers - draft[..., None]), jnp.inf)
    return jnp.argmin(distance, -1).astype(jnp.int32), alive.sum(-1) == 1


def _verified(
    choices: Int[Array, "B C"], repaired: Int[Array, "B C"], decided: Bool[Array, "B C"],
    done: Int[Array, " B"],
) -> tuple[Int[Array, " B"], Bool[Array, " B"]]:  # fmt: skip
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


def _verify(
    weights: Weights, progress: _Progress, before: Lead, program: SlotProgram, added: Array,
    config: Config, width: int, growth: int,
) -> _Progress:  # fmt: skip
    """One pass over the next `width` tokens of the draft."""
    block, done = progress.block, progress.done
    count = block.choices.shape[1]
    active = done < count
    laid = layout(block.choices, before, program)
    fed = progress.state.fed - before.first
    places = fed[:, None] + jnp.arange(width)
    known = places.clip(0, laid.tokens.shape[1] - 1)
    tokens = jnp.take_along_axis(laid.tokens, known, 1)
    lengths = jnp.where(active, jnp.clip(laid.total - fed, 0, width), 0)
    state, states = feed(weights, progress.state, tokens, lengths, config)
    scores = text.logits(weights.text, states, program.symbols, config.product_dtype)
    drawn = scores + jnp.take_along_axis(added, known[..., None], 1)
    at_steps, reached = scores_at_steps(drawn, block.choices, laid, fed, lengths, program)
    taken = jnp.argmax(at_steps, -1).astype(jnp.int32)
    repaired, decided = _repaired(block.choices, taken, reached, program)
    final, mended = _verified(block.choices, repaired, decided, done)
    slots = jnp.arange(count)
    repaired = jnp.where(slots < done[:, None], block.choices, repaired)

    # The first slot that is not final is looked at again from its last forced token on; a slot put
    # right is fed from its value on.
    slot = jnp.minimum(jnp.where(mended, final - 1, final), count - 1)[:, None]
    root = jnp.take_along_axis(laid.root, slot, 1)[:, 0]
    kept = jnp.minimum(fed + lengths, root + mended)
    kept = jnp.where(final >= count, fed + lengths, kept)
    new = (slots >= done[:, None]) & (slots < final[:, None])
    at_root = (laid.root - fed[:, None]).clip(0, width - 1)
    roots = jnp.where(
        new[..., None], jnp.take_along_axis(scores, at_root[..., None], 1), block.roots
    )
    block = Block(
        repaired, roots, block.passes + active, block.positions + jnp.where(active, width, 0)
    )
    want = growth * jnp.maximum(kept - fed, 1)
    return _Progress(state.at(before.first + kept), block, jnp.where(active, final, done), want)


def scores_at_steps(
    drawn: Float[Array, "B T U"], choices: Int[Array, "B C"], laid: Layout, fed: Array,
    lengths: Array, program: SlotProgram,
) -> tuple[Float[Array, "B C S U"], Bool[Array, "B C S"]]:  # fmt: skip
    """Scores of what is allowed at each step of each draft, and whether the pass reached it.

    Args:
      drawn: scores of the program's symbols behind the tokens from `fed` on, `lengths` of them.
    """
    kind = program.kind[None]
    node = program.step_node[kind, choices]
    depth = program.path_length[kind[..., None], node]
    at = laid.root[..., None] + depth - fed[:, None, None]
    known = program.step_real[kind, choices] & (at >= 0) & (at < lengths[:, None, None])
    rows = jnp.arange(len(choices))[:, None, None]
    scores = drawn[rows, at.clip(0, drawn.shape[1] - 1)]
    allowed = program.allowed[kind[..., None], node]
    return jnp.where(allowed, scores, -jnp.inf), known


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
    weights: Weights, state: State, before: Lead, program: SlotProgram, draft: Int[Array, "B C"],
    sampling: Sampling, config: Config, widths: tuple[int, ...], growth: int,
) -> tuple[State, Block]:  # fmt: skip
    """All slots drafted, verified and repaired until nothing changes; as `fill_slots` gives.

    Args:
      draft: a value for each slot to begin with.
      widths: tokens that a pass may look at, ascending; the whole block is always among them.
      growth: a pass looks at so many times the tokens that the last one found right, if these are
        fewer than all that remain. The first looks at all.
    """
    batch, count = draft.shape
    sizes = pass_widths(program, widths)
    size = sizes[-1]
    added = _noise_behind(before, program, sampling)
    zeros = jnp.zeros(batch, jnp.int32)
    roots = jnp.zeros((batch, count, program.symbols.shape[0]), jnp.float32)
    progress = _Progress(state, Block(draft, roots, zeros, zeros), zeros, zeros + size)

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
