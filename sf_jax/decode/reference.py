"""Decoding as anybody would write it first: one token a pass, a mask over the whole vocabulary.

An automaton over the canonical tokens of an answer says which may come next; of these the one of
highest score is taken. Slow, and what the fast ways are held against.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sf_jax.decode.noise import Sampling, noise
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.state import State, feed, prefill
from sf_jax.model import text
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights
from sf_jax.sequence.batch import Batch


@dataclass
class Automaton:
    """One answer in the making.

    Attributes:
      program: in the host's memory.
      max_words: cap on the tokens of the words, 0 for none at all.
      said: tokens so far.
      words: how many of them are words; None while more may come.
    """

    program: SlotProgram
    max_words: int
    said: list[int] = field(default_factory=list)
    words: int | None = None
    _block: int = 0  # where the block begins in `said`
    _slot: int = 0
    _slot_start: int = 0

    def __post_init__(self) -> None:
        self._spelling = [self.program.spelling(i) for i in range(len(self.program.kind))]
        if not self.max_words:
            self.words = 0

    def allowed(self) -> list[int] | None:
        """The tokens that may come next; None for any that may stand in words; [] at the end."""
        if self.words is None:
            return None
        if self.words == len(self.said) and self._block > self.words:
            return [int(self.program.end_of_words)]  # words were cut; the blank line is due
        if self._slot == len(self._spelling):
            return []
        before = self.program.before(self._slot)
        place = len(self.said) - self._slot_start
        if place < len(before):
            return [before[place]]
        begun = self.said[self._slot_start + len(before) :]
        spelt = self._spelling[self._slot]
        return sorted({v[len(begun)] for v in spelt if v[: len(begun)] == begun})

    def take(self, token: int) -> None:
        """Goes on with a token that is allowed."""
        if self.words is None:
            self._take_word(token)
            return
        self.said.append(token)
        before = len(self.program.before(self._slot))
        begun = self.said[self._slot_start + before :] if len(self.said) > self._block else []
        if begun in self._spelling[self._slot]:
            self._slot, self._slot_start = self._slot + 1, len(self.said)

    def _take_word(self, token: int) -> None:
        blank = not self.program.block_ends_words
        self.said.append(token)
        if self.program.ends[token]:
            self.words = len(self.said) - 1
            self._block = self._slot_start = len(self.said) if blank else self.words
        elif len(self.said) == self.max_words:
            self.words = len(self.said)
            self._block = self._slot_start = self.words + 1

    def choices(self) -> list[int]:
        """The value of each finished slot."""
        at, found = self._block, []
        for slot in range(self._slot):
            at += len(self.program.before(slot))
            for number, value in enumerate(self._spelling[slot]):
                if self.said[at : at + len(value)] == value:
                    found.append(number)
                    at += len(value)
                    break
        return found


@partial(jax.jit, static_argnames="config")
def _one_token(
    weights: Weights, state: State, tokens: Any, lengths: Any, config: Config
) -> tuple[State, Any]:
    state, states = feed(weights, state, tokens[:, None], lengths, config)
    return state, text.logits(weights.text, states[:, 0], dtype=config.product_dtype)


@partial(jax.jit, static_argnames=("capacity", "config"))
def _begin(weights: Weights, batch: Batch, capacity: int, config: Config) -> tuple[State, Any]:
    state = prefill(weights, batch, capacity, config)
    return state, text.logits(weights.text, state.last, dtype=config.product_dtype)


@partial(jax.jit)
def _draw(scores: Any, ordinals: Any, sampling: Sampling) -> Any:
    every = jnp.arange(scores.shape[-1])
    return scores + noise(sampling, ordinals[:, None], every)[:, 0]


def token_by_token(
    weights: Weights,
    batch: Batch,
    program: SlotProgram,
    sampling: Sampling,
    config: Config,
    max_words: int,
) -> tuple[list[Automaton], np.ndarray]:
    """Answers of a batch.

    Args:
      program: in the host's memory.
      max_words: 0 for prompts that ask for numbers alone.

    Returns:
      The finished automata, and for each token said float [B, T] by how much it beats the best
      other that is allowed, as a share of the largest score in size; inf where only one is.
    """
    rows, length = batch.input_ids.shape
    made = [Automaton(program, max_words) for _ in range(rows)]
    longest = max_words + 1 + program.longest
    state, scores = _begin(weights, batch, length + longest + 1, config)
    free = np.where(program.banned & ~program.ends, -np.inf, 0.0)
    gaps = np.full((rows, longest + 1), np.inf)
    while True:
        ordinals = np.array([len(a.said) for a in made], np.int32)
        allowed = [a.allowed() for a in made]
        if not any(a is None or a for a in allowed):
            return made, gaps
        drawn = np.array(_draw(scores, ordinals, sampling))
        tokens, real = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        for row, ids in enumerate(allowed):
            if ids == []:
                continue
            if ids is None:
                drawn[row] += free
            else:
                masked = np.full_like(drawn[row], -np.inf)
                masked[ids] = drawn[row][ids]
                drawn[row] = masked
            tokens[row], real[row] = drawn[row].argmax(), 1
            gaps[row, ordinals[row]] = _gap(drawn[row])
            made[row].take(int(tokens[row]))
        state, scores = _one_token(weights, state, tokens, real, config)


def _gap(scores: np.ndarray) -> float:
    """How far the two best lie apart, as a share of the largest in size."""
    finite = scores[np.isfinite(scores)]
    if len(finite) < 2:
        return np.inf
    second, first = np.sort(finite)[-2:]
    return float((first - second) / np.abs(finite).max())
