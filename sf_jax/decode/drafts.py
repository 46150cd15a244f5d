"""Guesses at what an answer will say, to be verified; wrong ones cost time and nothing else."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Int

ROWS = 8192  # of each table; two contexts that share a row share its guess
_FACTORS = (2654435761, 2246822519, 3266489917)  # odd and large, to spread contexts over the rows


@struct.dataclass
class Phrases:
    """What usually follows the last two and the last three tokens of words.

    Attributes:
      two, three: int32 [ROWS], by a hash of those tokens; 0 where nothing was seen.
    """

    two: Any
    three: Any


@struct.dataclass
class Draft:
    """A first guess at each row's answer.

    Attributes:
      words: int32 [B, R], words like those to come, as of the frame before; padded with 0.
      choices: int32 [B, C], values of the slots.
      phrases: or None.
    """

    words: Any
    choices: Any
    phrases: Phrases | None


def _row(tokens: list) -> Any:
    """A hash of tokens, of numpy or JAX arrays alike."""
    mixed: Any = 0
    for token, factor in zip(tokens, _FACTORS, strict=False):
        mixed = (mixed ^ token.astype("uint32")) * np.uint32(factor)
        mixed = mixed ^ (mixed >> np.uint32(15))
    return mixed % np.uint32(ROWS)


def learn_phrases(sequences: Sequence[Sequence[int]]) -> Phrases:
    """Tables from words as they were said, each with the token that ended it."""
    tables = []
    for context in (2, 3):
        counts: dict[int, Counter] = {}
        for said in sequences:
            padded = np.array([0] * context + list(said), np.uint32)
            before = [padded[i : len(padded) - context + i] for i in range(context)]
            for row, token in zip(_row(before).tolist(), said, strict=True):
                counts.setdefault(row, Counter())[token] += 1
        table = np.zeros(ROWS, np.int32)
        for row, found in counts.items():
            table[row] = found.most_common(1)[0][0]
        tables.append(table)
    return Phrases(*tables)


def save_phrases(path: str | os.PathLike, phrases: Phrases) -> None:
    """Writes a file that `load_phrases` reads, whole or not at all."""
    partial = Path(f"{os.fspath(path)}.partial.npz")
    np.savez_compressed(
        partial, two=phrases.two.astype(np.uint32), three=phrases.three.astype(np.uint32)
    )
    os.replace(partial, path)


def load_phrases(path: str | os.PathLike, vocabulary: int) -> Phrases:
    """Reads the tables.

    Raises:
      ValueError: not a file of tables, or they name tokens beyond the vocabulary.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = Phrases(*(arrays[name].astype(np.int32) for name in ("two", "three")))
    except Exception as error:  # zip, numpy and zlib raise kinds of their own
        raise ValueError(f"{path}: not a readable table of phrases: {error}") from error
    for table in (found.two, found.three):
        if table.shape != (ROWS,) or table.max() >= vocabulary or table.min() < 0:
            raise ValueError(f"{path}: the table does not fit a vocabulary of {vocabulary}")
    return found


def guess_words(
    draft: Draft, before: Int[Array, "B 3"], at: Int[Array, " B"], count: int
) -> Int[Array, "B count"]:
    """The tokens that may follow words, 0 where nothing is known.

    The draft's own words go first, from the place whose last two tokens are the same and that lies
    nearest to `at`; then the tables.

    Args:
      before: the last three tokens said, 0 before the beginning.
      at: how many were said.
    """
    length = draft.words.shape[1]
    like = jnp.pad(draft.words, [(0, 0), (2, count)])  # like[i + 2] is the i-th word
    same = (like[:, 1 : length + 1] == before[:, -1:]) & (like[:, :length] == before[:, -2:-1])
    same &= draft.words != 0
    places = jnp.arange(length)
    nearness = jnp.where(same, -jnp.abs(places - at[:, None]), -length - count)
    best = jnp.argmax(nearness, 1)
    copied = jnp.take_along_axis(like, best[:, None] + 2 + jnp.arange(count), 1)
    if draft.phrases is None or count == 0:
        return jnp.where(same.any(1, keepdims=True), copied, 0)
    last = [before[:, i] for i in range(3)]
    chained: list[Array] = []
    for _ in range(count):
        three = draft.phrases.three[_row(last)]
        chained.append(jnp.where(three == 0, draft.phrases.two[_row(last[1:])], three))
        last = [*last[1:], chained[-1]]
    return jnp.where(same.any(1, keepdims=True), copied, jnp.stack(chained, 1))
