"""The distribution of every slot of a finished block, branches not taken included."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.block import Block, Pending, layout
from sf_jax.decode.program import Branches, SlotProgram
from sf_jax.decode.state import State, forward
from sf_jax.model import text
from sf_jax.model.architecture import Architecture, ModelWeights


def steps(
    scores: Float[Array, "B C N U"], program: SlotProgram, temperature: Any = 1.0
) -> Float[Array, "B C V S"]:
    """Log-probability of each step that each value takes, 0 where it takes no more."""
    kind = program.kind
    logs = jnp.where(program.allowed[kind], scores / temperature, -jnp.inf)
    logs = jax.nn.log_softmax(logs, -1)
    slots = jnp.arange(len(kind))[:, None, None]
    found = logs[:, slots, program.step_node[kind], program.step_symbol[kind]]
    return jnp.where(program.step_real[kind], found, 0.0)


def log_probabilities(
    scores: Float[Array, "B C N U"], program: SlotProgram
) -> Float[Array, "B C V"]:
    """Of each value of each slot; -inf beyond a slot's values."""
    return jnp.where(program.valid[program.kind], steps(scores, program).sum(-1), -jnp.inf)


def node_scores(
    weights: ModelWeights,
    state: State,
    pending: Pending,
    block: Block,
    program: SlotProgram,
    config: Architecture,
) -> Float[Array, "B C N U"]:
    """Scores of the program's symbols at every node of every slot, given the slots before it.

    Values of one token have their root alone, whose scores are known already. For others all
    branches are evaluated in one pass, or in a few where values have many digits: each token
    attends to the answer up to its slot, and to the tokens between itself and its slot's root.
    """
    if program.branches is None:
        return block.root_scores[:, :, None]
    roots = layout(block.choices, pending, program).root + pending.first[:, None]

    def evaluate(_: None, branches: Branches) -> tuple[None, Array]:
        return None, _branch_scores(weights, state, roots, branches, program, config)

    passes = replace(program.branches, node_at=None)  # type: ignore[arg-type]
    _, found = jax.lax.scan(evaluate, None, passes)  # [G, B, E, U]
    flat = found.swapaxes(0, 1).reshape(found.shape[1], -1, found.shape[-1])
    scores = flat[:, program.branches.node_at]
    if program.repeat is not None:  # nothing may be forced before the stop slot, to be fed again
        scores = scores.at[:, -1, 0].set(block.root_scores[:, -1])
    return scores


def _branch_scores(
    weights: ModelWeights,
    state: State,
    roots: Int[Array, "B C"],
    branches: Branches,
    program: SlotProgram,
    config: Architecture,
) -> Float[Array, "B E U"]:
    """One pass over branches, written after the answer; `roots` are indices in the answer."""
    _rows, count = roots.shape
    slot = jnp.minimum(branches.slot, count - 1)
    ordinals = roots[:, slot] + branches.depth
    tokens = jnp.broadcast_to(branches.tokens, ordinals.shape)
    segments = jnp.broadcast_to((branches.slot < count).astype(jnp.int32), ordinals.shape)
    mask = _mask(state, roots[:, slot], branches)
    states, _ = forward(
        weights, state, weights.text.embed[tokens], ordinals, segments, config, mask
    )
    return text.logits(weights.text, states, program.symbols, config.product_dtype)


def _mask(state: State, roots: Int[Array, "B E"], branches: Branches) -> Bool[Array, "B E S"]:
    """Which positions of the cache each token of the branches attends to."""
    positions = jnp.arange(state.cache.segments.shape[1])
    answer = positions < (state.prompt + roots)[..., None]
    own = state.cache.length[:, None, None] + branches.ancestors
    own = jnp.where(branches.ancestors >= 0, own, -1)
    return answer | (positions == own[..., None]).any(-2)
