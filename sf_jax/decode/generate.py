"""Generation of a whole answer in one compiled call: words, then the slots of a schema.

Rows of a batch advance together. A row whose words have ended is fed padding (segment 0, which
nobody sees) until the longest row has ended too; then every row fills the slots in step. Forced
tokens are fed as chunks together with the value before them and are never generated.
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
      choices: int32 [B, C], which allowed value was spoken in each slot.
      probabilities: float32 [B, C, A], over each slot's allowed values.
    """

    words: Any
    words_length: Any
    word_passes: Any
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
) -> tuple[_State, Int[Array, "B R"], Int[Array, " B"], Array]:  # fmt: skip
    """Free text up to the token that ends it, at most `max_words` tokens.

    Every row has been fed that ending token afterwards.
    """
    batch = state.position.shape[0]
    bias = jnp.where(program.banned, -jnp.inf, 0.0).at[program.end_of_words].set(0.0)

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        _, _, step, done, _ = carry
        return (step < max_words) & ~done.all()

    def say(carry: tuple) -> tuple:
        state, words, step, done, length = carry
        scores = text.logits(weights.text, state.last, dtype=config.product_dtype) + bias
        token = _choose(scores, temperature, state.key)
        ends = token == program.end_of_words
        token = jnp.where(done | ends, 0, token)
        done = done | ends
        fed = _feed(weights, state, token[:, None], (~done)[:, None].astype(jnp.int32), config)
        last = jnp.where(done[:, None], state.last, fed.last)
        words = jax.lax.dynamic_update_slice(words, token[:, None], (0, step))
        return replace(fed, last=last), words, step + 1, done, length + ~done

    words = jnp.zeros((batch, max_words), jnp.int32)
    nobody = jnp.zeros(batch, bool)
    carry = (state, words, jnp.int32(0), nobody, jnp.zeros(batch, jnp.int32))
    state, words, passes, _, length = jax.lax.while_loop(unfinished, say, carry)
    return state, words, length, passes


def _fill_slots(
    weights: Weights, state: _State, first: Int[Array, " B"], first_real: Int[Array, " B"],
    program: SlotProgram, config: Config, temperature: float,
) -> tuple[Int[Array, "B C"], Float[Array, "B C A"]]:  # fmt: skip
    """One pass a slot: the value before it and the forced tokens in, a distribution out."""

    def fill(carry: tuple, slot: tuple) -> tuple:
        state, token, real = carry
        forced, forced_real, allowed, allowed_real = slot
        rows = token.shape[0]
        tokens = jnp.concatenate([token[:, None], jnp.tile(forced, (rows, 1))], 1)
        reals = jnp.concatenate([real[:, None], jnp.tile(forced_real, (rows, 1))], 1)
        state = _feed(weights, state, tokens, reals, config)
        scores = text.logits(weights.text, state.last, allowed, config.product_dtype)
        scores = jnp.where(allowed_real, scores, -jnp.inf)
        choice = _choose(scores, temperature, state.key)
        carry = (state, allowed[choice], jnp.ones_like(real))
        return carry, (choice, jax.nn.softmax(scores, -1))

    slots = (program.forced, program.forced_real, program.allowed, program.allowed_real)
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
    capacity = length + spoken + slots * (forced + 1)
    state = _prefill(weights, rows, patches, capacity, key, config)
    said = jnp.zeros((batch, max_words), jnp.int32)
    said_length, passes = jnp.zeros(batch, jnp.int32), jnp.int32(0)
    first = jnp.full(batch, program.end_of_words)
    if words:
        state, said, said_length, passes = _say_words(
            weights, state, program, config, max_words, temperature
        )
    first_real = jnp.full(batch, int(words), jnp.int32)
    choices, probabilities = _fill_slots(
        weights, state, first, first_real, program, config, temperature
    )
    return Generated(said, said_length, passes, choices, probabilities)
