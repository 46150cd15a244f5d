"""The plain decoding: one token a pass, a mask over the whole vocabulary.

An automaton over the canonical tokens of an answer gives those that may come next; of these the one
of highest score is taken, or the median where the schema asks for it. Slow, and what the fast ways
are held against. What leaves the window of a block that repeats is removed from the cache on the
host, one key at a time.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sf_jax.decode.noise import Sampling, noise
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.repeats import held, most_repeats
from sf_jax.decode.schema import MEDIAN
from sf_jax.decode.state import State, feed, prefill
from sf_jax.model import text
from sf_jax.model.architecture import Architecture, ModelWeights
from sf_jax.sequence.batch import Batch


@dataclass
class Automaton:
    """One answer being generated.

    Attributes:
      program: in the host's memory.
      cap: on the tokens of the rationale, 0 for none at all.
      most: blocks at most, where the block repeats.
      ids: tokens so far.
      rationale_length: how many of them are the rationale; None while more may come.
      repeats: finished blocks.
    """

    program: SlotProgram
    cap: int
    most: int = 1
    ids: list[int] = field(default_factory=list)
    rationale_length: int | None = None
    repeats: int = 0
    _block: int = 0  # where the first block begins in `ids`
    _slot: int = 0
    _slot_start: int = 0

    def __post_init__(self) -> None:
        self._spelling = [self.program.spelling(i) for i in range(len(self.program.kind))]
        self._repeats = self.program.repeat is not None
        if not self.cap:
            self.rationale_length = 0

    def allowed(self) -> list[int] | None:
        """The tokens that may come next; None for any that a rationale may hold; [] at the end."""
        if self.program.values_first and self.ended:
            return self._allowed_after_values()
        if self.rationale_length is None and not self.program.values_first:
            return None
        if self.rationale_length == len(self.ids) and self._block > self.rationale_length:
            return [int(self.program.rationale_end)]  # truncated; the blank line is due
        if self.ended:
            return []
        before, at = self._before(), len(self.ids) - self._slot_start
        if at < len(before):
            return [before[at]]
        begun = self.ids[self._slot_start + len(before) :]
        spelt = self._values()
        return sorted({v[len(begun)] for v in spelt if v[: len(begun)] == begun})

    def _allowed_after_values(self) -> list[int] | None:
        """What closes the block, then the rationale; nothing where none is asked for."""
        closed, closing = len(self.ids) - self._slot_start, self.program.closing.tolist()
        if self.cap and closed < len(closing):
            return [closing[closed]]
        return None if self.rationale_length is None else []

    @property
    def ended(self) -> bool:
        """Whether no value follows any more."""
        if self._repeats:
            [_, stop] = self._spelling[-1]
            return self.repeats > 0 and self._slot == 0 and self.ids[-1:] == stop
        return self._slot == len(self._spelling)

    @property
    def first_forced(self) -> bool:
        """Whether the last token is the first that every block begins with."""
        if (self.rationale_length is None and not self.program.values_first) or self._slot:
            return False
        due = self._slot_start + len(self._before()) - len(self.program.before(0))
        return len(self.ids) - 1 == due

    @property
    def goes_on(self) -> bool:
        """Whether the last token is the one that begins another block."""
        finished = self.repeats and not self._slot and self._slot_start == len(self.ids)
        return bool(finished and not self.ended)

    @property
    def opened(self) -> int:
        """The tokens of the answer before what every block begins with, for the first block."""
        return self._block + len(self.program.opening)

    def _before(self) -> list[int]:
        """The forced tokens before the slot, from the value before on."""
        around = self.program.separator if self.repeats else self.program.opening
        return ([] if self._slot else around.tolist()) + self.program.before(self._slot)

    def _values(self) -> list[list[int]]:
        """The spellings of the values that the slot may take."""
        spelt = self._spelling[self._slot]
        if not self._repeats or self._slot < len(self._spelling) - 1:
            return spelt
        go_on, stop = spelt
        if self.repeats == self.most - 1:
            return [stop]
        assert self.program.repeat is not None
        return [go_on] if self.program.repeat.most is None else [go_on, stop]

    def take(self, token: int) -> None:
        """Goes on with a token that is allowed."""
        if self.program.values_first and self.ended:
            self._take_after_values(token)
            return
        if self.rationale_length is None and not self.program.values_first:
            self._take_free(token)
            return
        self.ids.append(token)
        before = len(self._before())
        begun = self.ids[self._slot_start + before :] if len(self.ids) > self._block else []
        if begun in self._spelling[self._slot]:
            self._slot, self._slot_start = self._slot + 1, len(self.ids)
            if self._repeats and self._slot == len(self._spelling):
                self._slot, self.repeats = 0, self.repeats + 1

    def ascending(self) -> list[int] | None:
        """The tokens of a value's choices in the order of their numbers, None if no value is due.

        For values of one token each.
        """
        if self.ended or self.allowed() is None:
            return None
        due = len(self.ids) - self._slot_start == len(self._before())
        return [token for (token,) in self._values()] if due else None

    def _take_after_values(self, token: int) -> None:
        self.ids.append(token)
        length = len(self.ids) - self._slot_start - len(self.program.closing)
        if length > 0 and (self.program.ends[token] or length == self.cap):
            self.rationale_length = length - bool(self.program.ends[token])

    def _take_free(self, token: int) -> None:
        blank = not self.program.block_ends_rationale
        self.ids.append(token)
        if self.program.ends[token]:
            self.rationale_length = len(self.ids) - 1
            self._block = self._slot_start = len(self.ids) if blank else self.rationale_length
        elif len(self.ids) == self.cap:
            self.rationale_length = len(self.ids)
            self._block = self._slot_start = self.rationale_length + 1


@partial(jax.jit, static_argnames="config")
def _fed(
    weights: ModelWeights,
    state: State,
    inputs: Float[Array, "B T D"],
    lengths: Int[Array, " B"],
    config: Architecture,
) -> tuple[State, Float[Array, "B V"]]:
    """The state with some more, and the scores after the first of it."""
    state, states = feed(weights, state, inputs, lengths, config)
    return state, text.logits(weights.text, states[:, 0], dtype=config.product_dtype)


@partial(jax.jit, static_argnames=("capacity", "config"))
def _begin(
    weights: ModelWeights, batch: Batch, capacity: int, config: Architecture
) -> tuple[State, Float[Array, "B V"]]:
    state = prefill(weights, batch, capacity, config)
    return state, text.logits(weights.text, state.last, dtype=config.product_dtype)


@jax.jit
def _draw(
    scores: Float[Array, "B V"], ordinals: Int[Array, " B"], sampling: Sampling
) -> Float[Array, "B V"]:
    every = jnp.arange(scores.shape[-1])
    return scores + noise(sampling, ordinals[:, None], every)[:, 0]


@dataclass
class _Window:
    """What leaves one row's cache, and when: `spans` are the blocks in it, `end` the last's end."""

    size: int
    spans: list[int] = field(default_factory=list)
    end: int = 0

    def leaves(self, opened: int, fed: int) -> int:
        """Called when a block is finished: how many tokens leave, from `opened` on."""
        self.spans.append(fed - (self.end if self.spans else opened))
        gone = self.spans.pop(0) if len(self.spans) > self.size else 0
        self.end = fed - gone
        return gone


def _without(state: State, row: int, at: int, count: int, config: Architecture) -> State:
    """The state without `count` positions of a row's cache from `at` on, key by key on the host."""
    half = config.text.head_dim // 2
    angles = count * config.text.rope_theta ** (-np.arange(half) / half)

    def keys(stored: Array) -> np.ndarray:
        first, second = np.split(np.array(stored, np.float64), 2, -1)
        cos, sin = np.cos(angles), np.sin(angles)
        turned = np.concatenate([first * cos + second * sin, second * cos - first * sin], -1)
        return moved(stored, turned.astype(stored.dtype))

    def moved(stored: Array, later: Any = None) -> np.ndarray:
        out = np.array(stored)
        later = out.copy() if later is None else later
        size = out.shape[-2]
        out[..., row, :, at : size - count, :] = later[..., row, :, at + count :, :]
        return out

    cache = state.cache
    k, v = jax.tree.map(keys, cache.k), jax.tree.map(moved, cache.v)
    length = cache.length - count * (jnp.arange(len(cache.length)) == row)
    return replace(state, cache=replace(cache, k=k, v=v, length=length))


def token_by_token(
    weights: ModelWeights,
    batch: Batch,
    program: SlotProgram,
    sampling: Sampling,
    config: Architecture,
    max_rationale: int,
    most: int | None = None,
    features: Float[Array, "B R M D"] | None = None,
) -> tuple[list[Automaton], np.ndarray]:
    """Answers of a batch.

    Args:
      program: in the host's memory.
      max_rationale: 0 for prompts that ask for numbers alone.
      most, features: as in `generate`.

    Returns:
      The finished automata, and for each token float [B, T] its margin, as `score.Score` has it.
    """
    rows, length = batch.input_ids.shape
    blocks = most_repeats(program, most)
    block = program.pending_size + program.longest
    around = len(program.opening) + len(program.closing)
    longest = max_rationale + 2 + around + blocks * block
    inserted = 0 if features is None else features.shape[2]
    capacity = longest - (blocks - held(program, blocks)) * block + held(program, blocks) * inserted
    state, scores = _begin(weights, batch, length + capacity, config)
    made = [Automaton(program, max_rationale, blocks) for _ in range(rows)]
    window = program.repeat.window if program.repeat is not None else None
    windows = [_Window(window or blocks) for _ in range(rows)]
    free = np.where(program.banned & ~program.ends, -np.inf, 0.0)
    gaps = np.full((rows, longest), np.inf)
    while True:
        allowed = [a.allowed() for a in made]
        if not any(a is None or a for a in allowed):
            return made, gaps
        ordinals = np.array([len(a.ids) for a in made], np.int32)
        drawn = np.array(_draw(scores, ordinals, sampling))
        tokens, real = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        for row, ids in enumerate(allowed):
            if ids == []:
                continue
            drawn[row] = drawn[row] + free if ids is None else _masked(drawn[row], ids)
            median = program.estimate == MEDIAN and not sampling.temperature[row]
            values = made[row].ascending() if median else None
            taken, gap = _likeliest(drawn[row]) if values is None else _median(drawn[row], values)
            tokens[row], real[row], gaps[row, ordinals[row]] = taken, 1, gap
            made[row].take(int(tokens[row]))
            if made[row].goes_on:
                fed, opened = int(state.fed[row]), made[row].opened
                gone = windows[row].leaves(opened, fed)
                if gone:
                    state = _without(state, row, int(state.prompt) + opened, gone, config)
        if features is not None:
            due = [a.first_forced and r for a, r in zip(made, real, strict=True)]
            now = np.array([min(a.repeats, blocks - 1) for a in made])
            inputs = np.asarray(features)[np.arange(rows), now]
            state, _ = _fed(weights, state, inputs, inserted * np.array(due, np.int32), config)
        state, scores = _fed(weights, state, weights.text.embed[tokens][:, None], real, config)


def _masked(scores: np.ndarray, ids: list[int]) -> np.ndarray:
    """Scores [V], -inf but for these ids."""
    out = np.full_like(scores, -np.inf)
    out[ids] = scores[ids]
    return out


def _likeliest(scores: np.ndarray) -> tuple[int, float]:
    """The token of highest score, and by how much it is higher than the second, as a share of the
    largest in size."""
    finite, best = scores[np.isfinite(scores)], int(scores.argmax())
    if len(finite) < 2:
        return best, np.inf
    second, first = np.sort(finite)[-2:]
    return best, float((first - second) / np.abs(finite).max())


def _median(scores: np.ndarray, values: list[int]) -> tuple[int, float]:
    """The token at which the probability of `values`, in order, reaches a half, and how far from a
    half it is before that token and after it, the less of both."""
    shares = np.exp(scores[values].astype(np.float64) - scores[values].max())
    up_to = np.append(0.0, shares.cumsum() / shares.sum())
    at = int((up_to[1:-1] < 0.5).sum())
    gap = min(0.5 - up_to[at], up_to[at + 1] - 0.5)
    return values[at], np.inf if len(values) < 2 else float(gap)
