"""Generation of a whole answer in one compiled call: words, then the slots of a schema.

Rows of a batch advance together. A row whose words have ended is fed padding (segment 0, which
nobody sees) until the longest row has ended too; then every row fills the slots in step. Forced
tokens are fed as chunks together with the value before them and are never generated. Where the
values of a slot part at several places, one pass looks at each, taken or not, so that every value's
probability is known.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.prompt import Rows
from sf_jax.decode.schema import SlotProgram
from sf_jax.model import text, vision, vlm
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights


@struct.dataclass
class Generated:
    """What a batch said.

    Attributes:
      words: int32 [B, R], the tokens of the words, 0 behind their end.
      words_length: int32 [B]; word_passes: int32 [], model passes spent on the longest row.
      cut: bool [B], whether the cap ended the words.
      choices: int32 [B, C], which value was spoken in each slot.
      probabilities: float32 [B, C, V], of each slot's values.
    """

    words: Any
    words_length: Any
    word_passes: Any
    cut: Any
    choices: Any
    probabilities: Any


@struct.dataclass
class _State:
    """Loop state: cache, next position of each row [B], last final state [B, D], random key."""

    cache: Any
    position: Any
    last: Any
    key: Any


def _choose(scores: Float[Array, "B A"], temperature: float, key: Array) -> Int[Array, " B"]:
    """Greedy at temperature 0, else a sample."""
    if temperature == 0:
        return jnp.argmax(scores, -1)
    return jax.random.categorical(key, scores / temperature)


def _steps(
    scores: Float[Array, "B N A"], slot: SlotProgram, temperature: float
) -> Float[Array, "B V S"]:
    """Log-probability of each step that each value takes, 0 where it takes no more."""
    logs = jax.nn.log_softmax(scores / temperature, -1)
    return jnp.where(slot.step_real, logs[:, slot.step_node, slot.step_branch], 0.0)


def _choose_value(
    scores: Float[Array, "B N A"], slot: SlotProgram, temperature: float, key: Array
) -> Int[Array, " B"]:
    """A value of a slot, token by token: the likeliest at each step, or sampled."""
    if temperature > 0:
        total = _steps(scores, slot, temperature).sum(-1)
        return jax.random.categorical(key, jnp.where(slot.valid, total, -jnp.inf))
    steps = _steps(scores, slot, 1.0)
    alive = jnp.broadcast_to(slot.valid, steps.shape[:-1])
    for step in range(steps.shape[-1]):
        real, branch = slot.step_real[:, step], slot.step_branch[:, step]
        best = jnp.argmax(jnp.where(alive & real, steps[..., step], -jnp.inf), -1)
        alive &= ~real | (branch == branch[best][:, None])
    return jnp.argmax(alive, -1)


def _feed(
    weights: Weights, state: _State, tokens: Int[Array, "B T"], real: Int[Array, "B T"],
    config: Config,
) -> _State:  # fmt: skip
    """Feeds a chunk whose last token is real in every row that still matters."""
    steps = jnp.cumsum(real, axis=1)
    positions = state.position[:, None] + steps - real
    states, cache = text.forward(
        weights.text, weights.text.embed[tokens], jnp.broadcast_to(positions, (3, *tokens.shape)),
        config.text, segments=real, cache=state.cache, dtype=config.product_dtype,
    )  # fmt: skip
    key = jax.random.split(state.key)[0]
    return _State(cache, state.position + steps[:, -1], states[:, -1], key)


def _prefill(
    weights: Weights, rows: Rows, patches: vision.Patches, capacity: int, key: Array, config: Config
) -> _State:
    """Runs picture and prompt; rows are padded on the left."""
    dtype = config.product_dtype
    features, levels = vision.forward(weights.vision, patches, config.vision, dtype)
    embeddings, levels = vlm.embed(
        weights, rows.input_ids, features, levels, rows.image_places, config
    )
    stacked = not isinstance(weights.text.layers, tuple)
    batch = rows.input_ids.shape[0]
    empty = text.empty_cache(config.text, batch, capacity, embeddings.dtype, stacked)
    states, cache = text.forward(
        weights.text, embeddings, rows.positions, config.text,
        segments=rows.segments, cache=empty, deepstack=levels, dtype=dtype,
    )  # fmt: skip
    return _State(cache, rows.positions.max((0, 2)) + 1, states[:, -1], key)


def _say_words(
    weights: Weights, state: _State, program: SlotProgram, config: Config,
    max_words: int, temperature: float,
) -> tuple[_State, Int[Array, "B R"], Int[Array, " B"], Bool[Array, " B"], Array]:  # fmt: skip
    """Free text up to a token that ends it, at most `max_words` tokens; that token is not fed.

    Returns:
      The state, the words, their lengths, whether the cap ended them, and the passes made.
    """
    batch = state.position.shape[0]
    bias = jnp.where(program.banned & ~program.ends, -jnp.inf, 0.0)

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        _, _, step, done, _ = carry
        return (step < max_words) & ~done.all()

    def say(carry: tuple) -> tuple:
        state, words, step, done, length = carry
        scores = text.logits(weights.text, state.last, dtype=config.product_dtype) + bias
        token = _choose(scores, temperature, state.key)
        done = done | program.ends[token]
        token = jnp.where(done, 0, token)
        fed = _feed(weights, state, token[:, None], (~done)[:, None].astype(jnp.int32), config)
        last = jnp.where(done[:, None], state.last, fed.last)
        words = jax.lax.dynamic_update_slice(words, token[:, None], (0, step))
        return replace(fed, last=last), words, step + 1, done, length + ~done

    words = jnp.zeros((batch, max_words), jnp.int32)
    nobody = jnp.zeros(batch, bool)
    carry = (state, words, jnp.int32(0), nobody, jnp.zeros(batch, jnp.int32))
    state, words, passes, done, length = jax.lax.while_loop(unfinished, say, carry)
    return state, words, length, ~done, passes


def _node_scores(
    weights: Weights, state: _State, slot: SlotProgram, config: Config
) -> tuple[_State, Float[Array, "B N A"]]:
    """Scores of the tokens allowed at each node of a slot, from the state at its root.

    The path to a node is fed behind the root, and the next one over it: a cache forgets what lies
    beyond its length.
    """
    rows = state.position.shape[0]

    def scores_at(last: Array, node: Any) -> Float[Array, "B A"]:
        scores = text.logits(weights.text, last, slot.allowed[node], config.product_dtype)
        return jnp.where(slot.allowed_real[node], scores, -jnp.inf)

    def look(node: Any, carry: tuple) -> tuple:
        state, scores = carry
        path, real = (jnp.tile(x[node], (rows, 1)) for x in (slot.path, slot.path_real))
        fed = _feed(weights, state, path, real, config)
        scores = scores.at[:, node].set(scores_at(fed.last, node))
        cache = replace(fed.cache, length=state.cache.length, segments=state.cache.segments)
        return replace(state, cache=cache), scores

    nodes, width = slot.allowed.shape
    unused = jnp.full((rows, nodes, width), 0.0)
    scores = unused.at[:, 0].set(scores_at(state.last, 0))
    if nodes == 1:
        return state, scores
    return jax.lax.fori_loop(1, slot.nodes, look, (state, scores))


def _fill_slots(
    weights: Weights, state: _State, first: Int[Array, "B W"], first_real: Int[Array, "B W"],
    program: SlotProgram, config: Config, temperature: float,
) -> tuple[Int[Array, "B C"], Float[Array, "B C V"]]:  # fmt: skip
    """A pass a node of each slot; the first takes the value before it and the forced tokens in."""

    def fill(carry: tuple, slot: SlotProgram) -> tuple:
        state, value, real = carry
        rows = value.shape[0]
        tokens = jnp.concatenate([value, jnp.tile(slot.forced, (rows, 1))], 1)
        reals = jnp.concatenate([real, jnp.tile(slot.forced_real, (rows, 1))], 1)
        state = _feed(weights, state, tokens, reals, config)
        state, scores = _node_scores(weights, state, slot, config)
        choice = _choose_value(scores, slot, temperature, state.key)
        logs = _steps(scores, slot, 1.0).sum(-1)
        carry = (state, slot.value_tokens[choice], slot.value_real[choice])
        return carry, (choice, jnp.where(slot.valid, jnp.exp(logs), 0.0))

    # What belongs to no slot is left out of the scan.
    slots = replace(program, banned=None, ends=None, end_of_words=None, closing=None)
    choices: Array
    probabilities: Array
    _, (choices, probabilities) = jax.lax.scan(fill, (state, first, first_real), slots)
    return choices.swapaxes(0, 1), probabilities.swapaxes(0, 1)


@partial(jax.jit, static_argnames=("config", "max_words", "temperature", "words"))
def generate(
    weights: Weights,
    rows: Rows,
    patches: vision.Patches,
    program: SlotProgram,
    key: Array,
    config: Config,
    max_words: int,
    temperature: float = 0.0,
    words: bool = True,
) -> Generated:
    """Answers of a batch of pictures.

    Args:
      rows: prompts padded on the left; without words they end with the token that ends words.
      max_words: cap on the tokens of the words.
      temperature: 0 takes the likeliest token everywhere; the distributions returned are always
        those at temperature 1.
      words: whether to speak before the slots.
    """
    batch, length = rows.input_ids.shape
    spoken = max_words if words else 0
    slots, forced = program.forced.shape
    width, look = program.value_tokens.shape[-1], program.path.shape[-1]
    capacity = length + spoken + slots * (forced + width) + look
    state = _prefill(weights, rows, patches, capacity, key, config)
    said = jnp.zeros((batch, max_words), jnp.int32)
    said_length, passes = jnp.zeros(batch, jnp.int32), jnp.int32(0)
    cut = jnp.zeros(batch, bool)
    if words:
        state, said, said_length, cut, passes = _say_words(
            weights, state, program, config, max_words, temperature
        )
    blank_line = cut | (words and not program.block_ends_words)
    before = [(0, 0), (width - 1, 0)]
    first = jnp.pad(jnp.full((batch, 1), program.end_of_words), before)
    first_real = jnp.pad(blank_line.astype(jnp.int32)[:, None], before)
    choices, probabilities = _fill_slots(
        weights, state, first, first_real, program, config, temperature
    )
    return Generated(said, said_length, passes, cut, choices, probabilities)
