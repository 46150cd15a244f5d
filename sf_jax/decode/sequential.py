"""The slots of an answer one by one, a pass for each token that is not forced.

The plain way, which drafting must equal. Forced tokens are fed as a chunk with the value before.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.block import Block, Lead, narrowed, noise_behind
from sf_jax.decode.noise import Sampling
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.state import State, feed
from sf_jax.model import text
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights


class _Slot:
    """One slot being filled: `kind` is its tree, `added` the noise of the whole block."""

    def __init__(
        self,
        weights: Weights,
        before: Lead,
        program: SlotProgram,
        added: Array,
        kind: Array,
        config: Config,
    ):
        self.weights, self.config = weights, config
        self.before, self.program, self.added, self.kind = before, program, added, kind
        self.real, self.symbols = program.step_real[kind], program.step_symbol[kind]

    def choose(
        self, states: Float[Array, "B D"], fed: Int[Array, " B"], node: Any
    ) -> tuple[Int[Array, " B"], Float[Array, "B U"]]:
        """The symbol taken at a node whose last token's state this is, and all scores there."""
        symbols, dtype = self.program.symbols, self.config.product_dtype
        scores = text.logits(self.weights.text, states, symbols, dtype)
        drawn = scores + self.added[jnp.arange(len(fed)), fed - self.before.first - 1]
        allowed = self.program.allowed[self.kind, node]
        return jnp.argmax(jnp.where(allowed, drawn, -jnp.inf), -1), scores

    def go_on(
        self, state: State, alive: Bool[Array, "B V"], step: int
    ) -> tuple[Bool[Array, "B V"], Bool[Array, " B"]]:
        """The values that remain after one more step, and which rows had one to take.

        The tokens from the root to the next node are fed, and forgotten again.
        """
        ahead = alive & self.real[:, step]
        open_rows = ahead.any(1)
        node = self.program.step_node[self.kind, jnp.argmax(ahead, 1), step]

        def look() -> Array:
            path = self.program.path[self.kind, node]
            length = self.program.path_length[self.kind, node]
            _, states = feed(self.weights, state, path, length, self.config)
            taken, _ = self.choose(_state_at(states, length - 1), state.fed + length, node)
            return narrowed(alive, open_rows, taken, self.symbols[:, step], self.real[:, step])

        return jax.lax.cond(open_rows.any(), look, lambda: alive), open_rows


def fill_slots(
    weights: Weights,
    state: State,
    before: Lead,
    program: SlotProgram,
    sampling: Sampling,
    config: Config,
) -> tuple[State, Block]:
    """Fills the slots in order."""
    batch, count = len(state.start), len(program.kind)
    width = max(before.tokens.shape[1], program.value_tokens.shape[-1])
    added = noise_behind(before, program, sampling)

    def fill(carry: tuple, slot: tuple) -> tuple[tuple, tuple]:
        state, tokens, length, passes = carry
        forced, forced_length, kind = slot
        filled = _Slot(weights, before, program, added, kind, config)
        chunk, fed = _joined(tokens, length, forced, forced_length)
        state, states = feed(weights, state, chunk, fed, config)
        taken, scores = filled.choose(_state_at(states, fed - 1), state.fed, 0)
        alive = jnp.broadcast_to(program.valid[kind], (batch, program.valid.shape[1]))
        every = jnp.ones(batch, bool)
        alive = narrowed(alive, every, taken, filled.symbols[:, 0], filled.real[:, 0])
        passes = passes + 1
        for step in range(1, filled.real.shape[1]):
            alive, looked = filled.go_on(state, alive, step)
            passes = passes + looked
        choice = jnp.argmax(alive, 1)
        value = _widened(program.value_tokens[kind, choice], width)
        return (state, value, program.value_length[kind, choice], passes), (choice, scores)

    slots = program.forced, program.forced_length, program.kind
    first = (state, _widened(before.tokens, width), before.length, jnp.zeros(batch, jnp.int32))
    (state, _, _, passes), (choices, roots) = jax.lax.scan(fill, first, slots)
    computed = count * (width + program.forced.shape[1])
    computed = computed + (passes - count) * program.path.shape[-1]
    choices = choices.swapaxes(0, 1).astype(jnp.int32)
    return state, Block(choices, roots.swapaxes(0, 1), passes, computed)


def _widened(tokens: Int[Array, "B T"], width: int) -> Int[Array, "B W"]:
    return jnp.pad(tokens, [(0, 0), (0, width - tokens.shape[1])])


def _joined(
    tokens: Int[Array, "B W"], length: Array, forced: Int[Array, " F"], forced_length: Array
) -> tuple[Int[Array, "B X"], Int[Array, " B"]]:
    """Tokens of each row, and forced ones behind them."""
    places = jnp.arange(tokens.shape[1] + forced.shape[0]) - length[:, None]
    own = jnp.pad(tokens, [(0, 0), (0, forced.shape[0])])
    return jnp.where(places < 0, own, forced[jnp.maximum(places, 0)]), length + forced_length


def _state_at(states: Float[Array, "B T D"], at: Int[Array, " B"]) -> Float[Array, "B D"]:
    return jnp.take_along_axis(states, at[:, None, None], 1)[:, 0]
