"""What both ways to fill slots share: how a block lies, and what is chosen in it."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.noise import Sampling, noise
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.words import Words

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


def narrowed(
    alive: Bool[Array, "*rows V"], real: Array, taken: Array, symbols: Array, passing: Array
) -> Bool[Array, "*rows V"]:
    """The values still possible once a symbol was taken at a step, where `real`."""
    return alive & (~real[..., None] | (passing & (symbols == taken[..., None])))


def noise_behind(before: Lead, program: SlotProgram, sampling: Sampling) -> Float[Array, "B X U"]:
    """For choosing the token behind each token of lead and block."""
    size = before.tokens.shape[1] + program.longest
    return noise(sampling, before.first[:, None] + jnp.arange(1, size + 1), program.symbols)


def scores_at_steps(
    drawn: Float[Array, "B T U"],
    choices: Int[Array, "B C"],
    laid: Layout,
    fed: Array,
    lengths: Array,
    program: SlotProgram,
) -> tuple[Float[Array, "B C S U"], Bool[Array, "B C S"]]:
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
