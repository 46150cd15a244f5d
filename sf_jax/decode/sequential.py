"""The slots of a block one by one, a pass for each token that is not forced.

The plain way, which drafting must equal. Forced tokens are fed as a chunk with the value before.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.block import Block, Pending, embedded, followed, narrowed, noise_after
from sf_jax.decode.estimate import taken
from sf_jax.decode.noise import Sampling
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.state import State, feed, feed_tokens
from sf_jax.model import text
from sf_jax.model.architecture import Architecture, ModelWeights


@dataclass(frozen=True)
class _Slot:
    """One slot being filled: `kind` is its tree, `added` the noise of the whole block, `sampled`
    the rows that have any."""

    weights: ModelWeights
    pending: Pending
    program: SlotProgram
    added: Float[Array, "B X U"]
    sampled: Bool[Array, " B"]
    kind: Int[Array, ""]
    config: Architecture

    @property
    def real(self) -> Bool[Array, "V S"]:
        return self.program.step_real[self.kind]

    @property
    def symbols(self) -> Int[Array, "V S"]:
        return self.program.step_symbol[self.kind]

    def choose(
        self, states: Float[Array, "B D"], fed: Int[Array, " B"], node: Any
    ) -> tuple[Int[Array, " B"], Float[Array, "B U"]]:
        """The symbol taken at a node whose last token's state this is, and all scores there."""
        symbols, dtype = self.program.symbols, self.config.product_dtype
        scores = text.logits(self.weights.text, states, symbols, dtype)
        drawn = scores + self.added[jnp.arange(len(fed)), fed - self.pending.first - 1]
        allowed = self.program.allowed[self.kind, node]
        drawn = jnp.where(allowed, drawn, -jnp.inf)
        return taken(drawn, self.kind, self.program, self.sampled), scores

    def next_step(
        self, state: State, alive: Bool[Array, "B V"], step: int
    ) -> tuple[Bool[Array, "B V"], Bool[Array, " B"]]:
        """The values that remain after one more step, and which rows had one to take.

        The tokens from the root to the next node are fed, and dropped again.
        """
        ahead = alive & self.real[:, step]
        open_rows = ahead.any(1)
        node = self.program.step_node[self.kind, jnp.argmax(ahead, 1), step]

        def evaluate() -> Array:
            path = self.program.path[self.kind, node]
            length = self.program.path_length[self.kind, node]
            _, states = feed_tokens(self.weights, state, path, length, self.config)
            symbol, _ = self.choose(_state_at(states, length - 1), state.fed + length, node)
            return narrowed(alive, open_rows, symbol, self.symbols[:, step], self.real[:, step])

        return jax.lax.cond(open_rows.any(), evaluate, lambda: alive), open_rows


def fill_slots(
    weights: ModelWeights,
    state: State,
    pending: Pending,
    program: SlotProgram,
    sampling: Sampling,
    config: Architecture,
    active: Bool[Array, " B"] | None = None,
) -> tuple[State, Block]:
    """Fills the slots in order; `active` rows alone, None is all."""
    batch, count = len(state.start), len(program.kind)
    active = jnp.ones(batch, bool) if active is None else active
    added, sampled = noise_after(pending, program, sampling), sampling.temperature > 0
    tokens, length, conditioned = pending.tokens, pending.length, pending.features is not None
    if conditioned:
        state = _feed_pending(weights, state, pending, active, config)
        length = jnp.zeros_like(length)
    width = max(tokens.shape[1], program.value_tokens.shape[-1])
    chunk_width = width + program.forced.shape[1]

    def fill(carry: tuple, slot: tuple) -> tuple[tuple, tuple]:
        state, tokens, length, passes = carry
        forced, forced_length, kind = slot
        filled = _Slot(weights, pending, program, added, sampled, kind, config)
        chunk, _ = followed(tokens, length, forced, chunk_width)
        fed = jnp.where(active, length + forced_length, 0)
        state, states = feed_tokens(weights, state, chunk, fed, config)
        symbol, scores = filled.choose(_state_at(states, fed - 1), state.fed, 0)
        alive = jnp.broadcast_to(program.valid[kind], (batch, program.valid.shape[1]))
        every = jnp.ones(batch, bool)
        alive = narrowed(alive, every, symbol, filled.symbols[:, 0], filled.real[:, 0])
        passes = passes + active
        for step in range(1, filled.real.shape[1]):
            alive, stepped = filled.next_step(state, alive, step)
            passes = passes + (active & stepped)
        choice = jnp.argmax(alive, 1)
        value = _widened(program.value_tokens[kind, choice], width)
        return (state, value, program.value_length[kind, choice], passes), (choice, scores)

    slots = program.forced, program.forced_length, program.kind
    first = (state, _widened(tokens, width), length, jnp.zeros(batch, jnp.int32))
    (state, _, _, passes), (choices, roots) = jax.lax.scan(fill, first, slots)
    chunks = jnp.where(active, count, 0)
    computed = chunks * chunk_width + (passes - chunks) * program.path.shape[-1]
    if conditioned:
        passes, computed = passes + active, computed + jnp.where(active, pending.size, 0)
    choices = choices.swapaxes(0, 1).astype(jnp.int32)
    return state, Block(choices, roots.swapaxes(0, 1), passes, computed)


def _feed_pending(
    weights: ModelWeights,
    state: State,
    pending: Pending,
    active: Bool[Array, " B"],
    config: Architecture,
) -> State:
    """A pass of its own over what precedes the block."""
    indices = jnp.broadcast_to(jnp.arange(pending.size), (len(active), pending.size))
    tokens = jnp.pad(pending.tokens, [(0, 0), (0, pending.inserted)])
    inputs = embedded(weights, tokens, indices, pending)
    lengths = jnp.where(active, pending.length + pending.inserted, 0)
    return feed(weights, state, inputs, lengths, config)[0]


def _widened(tokens: Int[Array, "B T"], width: int) -> Int[Array, "B W"]:
    return jnp.pad(tokens, [(0, 0), (0, width - tokens.shape[1])])


def _state_at(states: Float[Array, "B T D"], at: Int[Array, " B"]) -> Float[Array, "B D"]:
    return jnp.take_along_axis(states, at[:, None, None], 1)[:, 0]
