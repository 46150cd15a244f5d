"""Guesses at what an answer will say, to be verified; wrong ones cost time and nothing else."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int
from safetensors.numpy import load_file, save_file

from sf_jax.media import files


@struct.dataclass
class DraftHeads:
    """What the model's state says of the words behind the next one.

    After Medusa (Cai et al., 2024): head k guesses the token k + 1 places behind the one that the
    state itself yields. The heads share a hidden layer, and each adds how well its tokens follow
    the two before them, as guessed.

    Attributes:
      enter: [D, H] and enter_bias: [H], the hidden layer.
      leave: [H, K, W] and leave_bias: [K, W], to the scores of the tokens that heads can guess.
      after_one, after_two: [W + 1, W], how well a token follows the last and the last but one; the
        last row is for tokens that heads cannot guess.
      tokens: int32 [W], the token ids.
    """

    enter: Any
    enter_bias: Any
    leave: Any
    leave_bias: Any
    after_one: Any
    after_two: Any
    tokens: Any


@struct.dataclass
class Draft:
    """A first guess at each row's answer.

    Attributes:
      words: int32 [B, R], words like those to come, as of the frame before; padded with 0.
      choices: int32 [B, C], values of the slots.
      heads: guess at words from the model's state; or None.
      guesses: int32 [], passes in low precision that are to better `choices` first.
    """

    words: Any
    choices: Any
    heads: DraftHeads | None
    guesses: Any = 0


def head_scores(heads: DraftHeads, states: Float[Array, "*rows D"]) -> Float[Array, "*rows K W"]:
    """What the heads make of states, before it counts what tokens follow."""
    inner = jax.nn.silu(states.astype(jnp.float32) @ heads.enter + heads.enter_bias)
    return jnp.tensordot(inner, heads.leave, 1) + heads.leave_bias


def save_heads(path: str | os.PathLike, heads: DraftHeads) -> None:
    """Writes a file that `load_heads` reads, in half precision, complete or not at all."""
    arrays = {name: np.asarray(leaf) for name, leaf in vars(heads).items()}
    half = {
        name: leaf if name == "tokens" else leaf.astype(np.float16) for name, leaf in arrays.items()
    }
    with files.replacing(path) as file:
        save_file(half, file)


def load_heads(path: str | os.PathLike, width: int, vocabulary: int) -> DraftHeads:
    """Reads heads for a model of a width and a vocabulary.

    Raises:
      ValueError: the file holds no heads, or they do not fit.
    """
    names = DraftHeads.__dataclass_fields__
    try:
        arrays = load_file(path)
        heads = DraftHeads(
            **{
                name: arrays[name].astype(np.int32 if name == "tokens" else np.float32)
                for name in names
            }
        )
    except Exception as error:  # safetensors raises a kind of its own
        raise ValueError(f"{path}: not readable as draft heads: {error!r}") from error
    count, words = heads.leave_bias.shape if heads.leave_bias.ndim == 2 else (0, 0)
    inner = heads.enter_bias.size
    shapes = {
        "enter": (width, inner),
        "enter_bias": (inner,),
        "leave": (inner, count, words),
        "leave_bias": (count, words),
        "after_one": (words + 1, words),
        "after_two": (words + 1, words),
        "tokens": (words,),
    }
    for name in names:
        found = getattr(heads, name)
        if found.shape != shapes[name] or 0 in found.shape:
            raise ValueError(f"{path}: {name} has shape {found.shape}, expected {shapes[name]}")
        if not np.isfinite(found).all():
            raise ValueError(f"{path}: {name} holds numbers that are not finite")
    if heads.tokens.min() < 0 or heads.tokens.max() >= vocabulary:
        raise ValueError(f"{path}: tokens lie outside a vocabulary of {vocabulary}")
    return heads


def guess_words(
    draft: Draft,
    states: Float[Array, "B D"],
    before: Int[Array, "B 2"],
    at: Int[Array, " B"],
    count: int,
) -> Int[Array, "B count"]:
    """The tokens that may follow words, 0 where nothing is known.

    The draft's own words go first, from the place whose last two tokens are the same and that lies
    nearest to `at`; then the heads.

    Args:
      states: the state that yielded the last token.
      before: the last two tokens said, 0 before the beginning.
      at: how many were said.
    """
    length = draft.words.shape[1]
    like = jnp.pad(draft.words, [(0, 0), (2, count)])  # like[i + 2] is the i-th word
    same = (like[:, 1 : length + 1] == before[:, 1:]) & (like[:, :length] == before[:, :1])
    same &= draft.words != 0
    places = jnp.arange(length)
    nearness = jnp.where(same, -jnp.abs(places - at[:, None]), -length - count)
    best = jnp.argmax(nearness, 1)
    copied = jnp.take_along_axis(like, best[:, None] + 2 + jnp.arange(count), 1)
    foreseen = jnp.zeros_like(copied)
    if draft.heads is not None and count:
        foreseen = _foreseen(draft.heads, states, before, count)
    return jnp.where(same.any(1, keepdims=True), copied, foreseen)


def _foreseen(
    heads: DraftHeads, states: Float[Array, "B D"], before: Int[Array, "B 2"], count: int
) -> Int[Array, "B count"]:
    """One guess after the other, each by its head; 0 behind the last head."""
    scores = head_scores(heads, states)
    known = before[..., None] == heads.tokens
    rows = jnp.where(known.any(-1), jnp.argmax(known, -1), len(heads.tokens))
    last_but_one, last = rows[:, 0], rows[:, 1]
    chain = []
    for head in range(min(count, scores.shape[1])):
        follows = heads.after_one[last] + heads.after_two[last_but_one]
        last_but_one, last = last, jnp.argmax(scores[:, head] + follows, -1)
        chain.append(heads.tokens[last])
    guessed = jnp.stack(chain, 1)
    return jnp.pad(guessed, [(0, 0), (0, count - guessed.shape[1])])
