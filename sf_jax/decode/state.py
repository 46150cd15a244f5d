"""The state of an answer being generated: the cache, and what every pass does with it."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.model import text
from sf_jax.model.architecture import Architecture, ModelWeights
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.forward import forward as read


@struct.dataclass
class State:
    """One answer in each row.

    Attributes:
      cache: the prompt, then the answer's tokens fed so far, without gaps.
      prompt: positions of the cache that the prompt takes.
      start: the position of an answer's first token.
      last: the final state of the prompt's last token.
    """

    cache: text.Cache
    prompt: Int[Array, ""]
    start: Int[Array, " B"]
    last: Float[Array, "B D"]

    @property
    def fed(self) -> Int[Array, " B"]:
        """Tokens of the answer in the cache."""
        return self.cache.length - self.prompt

    def at(self, fed: Int[Array, " B"]) -> "State":
        """The same with so many tokens of the answer in the cache; later ones are dropped."""
        return replace(self, cache=replace(self.cache, length=self.prompt + fed))

    def widened(self, capacity: int) -> "State":
        """The same with a cache of so many positions, the further ones free."""
        more = capacity - self.cache.segments.shape[1]

        def pad(store: Array) -> Array:
            return jnp.pad(store, [(0, 0)] * (store.ndim - 2) + [(0, more), (0, 0)])

        k, v = jax.tree.map(pad, (self.cache.k, self.cache.v))
        segments = jnp.pad(self.cache.segments, [(0, 0), (0, more)])
        return replace(self, cache=replace(self.cache, k=k, v=v, segments=segments))


def feed_tokens(
    weights: ModelWeights,
    state: State,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    config: Architecture,
) -> tuple[State, Float[Array, "B T D"]]:
    """Feeds the first `lengths` tokens of each row; their final states, garbage after them."""
    return feed(weights, state, weights.text.embed[tokens], lengths, config)


def feed(
    weights: ModelWeights,
    state: State,
    inputs: Float[Array, "B T D"],
    lengths: Int[Array, " B"],
    config: Architecture,
) -> tuple[State, Float[Array, "B T D"]]:
    """The same for inputs of the text model: embeddings of tokens, or features."""
    offsets = jnp.arange(inputs.shape[1])
    fed = state.fed
    segments = (offsets < lengths[:, None]).astype(jnp.int32)
    states, cache = forward(weights, state, inputs, fed[:, None] + offsets, segments, config)
    return replace(state, cache=cache).at(fed + lengths), states


def forward(
    weights: ModelWeights,
    state: State,
    inputs: Float[Array, "B T D"],
    ordinals: Int[Array, "B T"],
    segments: Int[Array, "B T"],
    config: Architecture,
    mask: Bool[Array, "B T S"] | None = None,
) -> tuple[Float[Array, "B T D"], text.Cache]:
    """One pass; `ordinals` are the indices of the inputs in the answer, as far as it is cached."""
    positions = jnp.broadcast_to(state.start[:, None] + ordinals, (3, *ordinals.shape))
    states, cache = text.forward(
        weights.text,
        inputs,
        positions,
        config.text,
        segments=segments,
        cache=state.cache,
        mask=mask,
        dtype=config.product_dtype,
    )
    assert cache is not None
    return states, cache


@partial(jax.jit, static_argnames="config")
def prompt_prefix(weights: ModelWeights, ids: Int[Array, " P"], config: Architecture) -> text.Cache:
    """The cache of text that many prompts begin with."""
    positions = jnp.arange(len(ids))[None]
    layout = weights.text.layout
    embeddings = weights.text.embed[ids[None]]
    _, cache = text.forward(
        weights.text,
        embeddings,
        jnp.broadcast_to(positions, (3, 1, len(ids))),
        config.text,
        segments=jnp.ones_like(positions),
        dtype=config.product_dtype,
        cache=text.empty_cache(config.text, 1, len(ids), embeddings.dtype, layout),
    )
    assert cache is not None
    return cache


def _begun(cache: text.Cache, prefix: text.Cache) -> text.Cache:
    """An empty cache with every row's first positions filled."""
    count = prefix.segments.shape[1]

    def fill(whole: Array, part: Array) -> Array:
        return whole.at[..., :count, :].set(part)

    return text.Cache(
        jax.tree.map(fill, cache.k, prefix.k),
        jax.tree.map(fill, cache.v, prefix.v),
        cache.length + count,
        cache.segments.at[:, :count].set(1),
    )


def prefill(
    weights: ModelWeights,
    batch: Batch,
    capacity: int,
    config: Architecture,
    prefix: text.Cache | None = None,
) -> State:
    """Runs the prompts, inserts included; rows are padded on the left.

    Args:
      capacity: positions of the cache.
      prefix: what all rows begin with and `batch` lacks, of one row, as `prompt_prefix` makes it.
    """
    rows, length = batch.input_ids.shape
    of_cache, layout = weights.text.embed.dtype, weights.text.layout
    # The prompt sees itself alone; positions for the answer come after it.
    held = length + (0 if prefix is None else prefix.segments.shape[1])
    cache = text.empty_cache(config.text, rows, held, of_cache, layout)
    if prefix is not None:
        cache = _begun(cache, prefix)
    states, grown = read(weights, batch, config, cache=cache)
    assert grown is not None
    state = State(grown, jnp.int32(held), batch.positions.max((0, 2)) + 1, states[:, -1])
    return state.widened(capacity)
