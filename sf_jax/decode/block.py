"""What both ways to fill slots share: the layout of a block, and what is chosen in it."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.noise import Sampling, noise
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.rationale import Rationale
from sf_jax.model.architecture import ModelWeights


@struct.dataclass
class Block:
    """The slots of a block.

    Attributes:
      choices: which value each slot takes.
      root_scores: scores of the program's symbols where each value begins.
      passes, positions: model passes spent, and token positions computed in them.
    """

    choices: Int[Array, "B C"]
    root_scores: Float[Array, "B C U"]
    passes: Int[Array, " B"]
    positions: Int[Array, " B"]


@struct.dataclass
class Pending:
    """What precedes a block and is not in the cache yet; it is fed with the block.

    Before the first block: the last token of a truncated rationale, the blank line and what opens
    the block, as needed. Before a repeat: the token that goes on, and the separator.

    Attributes:
      tokens: token ids; length: how many.
      first: tokens and features of the answer in the cache.
      ordinal: tokens of the answer before these, whether they are still in the cache or not.
      features: what the block is conditioned on, fed after the tokens as inputs of the text model;
        or None.
    """

    tokens: Int[Array, "B Q"]
    length: Int[Array, " B"]
    first: Int[Array, " B"]
    ordinal: Int[Array, " B"]
    features: Float[Array, "B M D"] | None = None

    @property
    def inserted(self) -> int:
        """How many features there are."""
        return 0 if self.features is None else self.features.shape[1]

    @property
    def size(self) -> int:
        """Tokens and features at most."""
        return self.tokens.shape[1] + self.inserted


def pending_after(rationale: Rationale, program: SlotProgram, asked: bool) -> Pending:
    """What separates a rationale from the first block; `asked`: whether there was to be one."""
    truncated, ids, ends = rationale.truncated, rationale.ids, program.rationale_end
    blank = truncated | (asked and not program.block_ends_rationale)
    last = jnp.take_along_axis(ids, jnp.maximum(rationale.length - 1, 0)[:, None], 1)
    end = jnp.full_like(last, ends)
    tokens = jnp.where(truncated[:, None], jnp.concatenate([last, end], 1), end)
    length = truncated.astype(jnp.int32) + blank
    first = rationale.length - truncated
    tokens, length = followed(tokens, length, program.opening, program.pending_size)
    return Pending(tokens, length, first, first)


def followed(
    tokens: Int[Array, "B T"], length: Int[Array, " B"], more: Int[Array, " F"], size: int
) -> tuple[Int[Array, "B size"], Int[Array, " B"]]:
    """The first `length` tokens of each row with `more` after them, in rows of a size."""
    indices = jnp.arange(size) - length[:, None]
    own = jnp.pad(tokens, [(0, 0), (0, max(size - tokens.shape[1], 0))])[:, :size]
    if not len(more):
        return own, length
    last = len(more) - 1
    return jnp.where(indices < 0, own, more[indices.clip(0, last)]), length + len(more)


def closing_after(
    choices: Int[Array, "B C"], program: SlotProgram
) -> tuple[Int[Array, "B X"], Int[Array, " B"]]:
    """The tokens from a block's last value up to the rationale that follows it, and how many."""
    kind, last = program.kind[-1], choices[:, -1]
    value, length = program.value_tokens[kind, last], program.value_length[kind, last]
    size = program.value_tokens.shape[-1] + len(program.closing)
    return followed(value, length, program.closing, size)


@struct.dataclass
class Layout:
    """Where the tokens of a block are for given choices, what is pending included.

    Attributes:
      tokens: one row without gaps, of which `total` are real.
      root: the index of each slot's last forced token.
    """

    tokens: Int[Array, "B X"]
    total: Int[Array, " B"]
    root: Int[Array, "B C"]


def layout(choices: Int[Array, "B C"], pending: Pending, program: SlotProgram) -> Layout:
    """The block as one row of tokens without gaps; 0 where features are fed."""
    lengths = program.forced_length + program.value_length[program.kind, choices]
    ends = (pending.length + pending.inserted)[:, None] + jnp.cumsum(lengths, 1)
    starts = ends - lengths
    size = pending.size + program.longest
    indices = jnp.broadcast_to(jnp.arange(size), (len(choices), size))
    slot = (indices[..., None] >= ends[:, None]).sum(-1).clip(0, choices.shape[1] - 1)
    offset = indices - jnp.take_along_axis(starts, slot, 1)
    choice = jnp.take_along_axis(choices, slot, 1)
    in_value = offset - program.forced_length[slot]
    value = program.value_tokens[
        program.kind[slot], choice, in_value.clip(0, program.value_tokens.shape[-1] - 1)
    ]
    forced = program.forced[slot, offset.clip(0, program.forced.shape[1] - 1)]
    tokens = jnp.where(in_value >= 0, value, forced)
    before = jnp.pad(pending.tokens, [(0, 0), (0, size - pending.tokens.shape[1])])
    tokens = jnp.where(offset < 0, before, tokens)
    return Layout(tokens, ends[:, -1], starts + program.forced_length - 1)


def embedded(
    weights: ModelWeights, tokens: Int[Array, "B T"], indices: Int[Array, "B T"], pending: Pending
) -> Float[Array, "B T D"]:
    """What the text model reads at indices of a layout: embeddings of tokens, or features."""
    embeddings = weights.text.embed[tokens]
    if pending.features is None:
        return embeddings
    at = (indices - pending.length[:, None])[..., None]
    features = jnp.take_along_axis(pending.features, at.clip(0, pending.inserted - 1), 1)
    inside = (at >= 0) & (at < pending.inserted)
    return jnp.where(inside, features.astype(embeddings.dtype), embeddings)


def narrowed(
    alive: Bool[Array, "*rows V"],
    real: Bool[Array, "*rows"],
    taken: Int[Array, "*rows"],
    symbols: Int[Array, "*rows V"],
    passing: Bool[Array, "*rows V"],
) -> Bool[Array, "*rows V"]:
    """The values still possible once a symbol was taken at a step, where `real`."""
    return alive & (~real[..., None] | (passing & (symbols == taken[..., None])))


def noise_after(
    pending: Pending, program: SlotProgram, sampling: Sampling
) -> Float[Array, "B X U"]:
    """For choosing the token after each index of a layout from the first forced token on."""
    ordinals = jnp.arange(1, pending.size + program.longest + 1) - pending.inserted
    return noise(sampling, pending.ordinal[:, None] + ordinals, program.symbols)


def scores_at_steps(
    drawn: Float[Array, "B T U"],
    choices: Int[Array, "B C"],
    laid: Layout,
    fed: Int[Array, " B"],
    lengths: Int[Array, " B"],
    program: SlotProgram,
) -> tuple[Float[Array, "B C S U"], Bool[Array, "B C S"]]:
    """Scores of what is allowed at each step of each draft, and whether the pass reached it.

    Args:
      drawn: scores of the program's symbols after the tokens from `fed` on, `lengths` of them.
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
