"""The sliding window of a block that repeats: older repeats leave the cache.

An object attends to prompt, rationale and the objects in its window, at the positions that they
would have if nothing else had ever been there: what leaves moves later keys down, in the cache and
in their rotary positions alike. So distances stay within those of one window however long an answer
is (compare the attention sinks of Xiao et al., 2024).
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sf_jax.decode.state import State
from sf_jax.model import text
from sf_jax.model.config import TextConfig


def evicted(
    state: State, start: Int[Array, " B"], count: Int[Array, " B"], config: TextConfig
) -> State:
    """Without `count` tokens of each row's answer, from index `start` of the answer on."""
    cache = state.cache
    first = state.prompt + start

    def down(store: Float[Array, "B K S H"]) -> Array:
        return _moved_down(store, first, count)

    def keys(store: Float[Array, "B K S H"]) -> Array:
        moved = text.rotated(down(store), -count, config)
        return _from_index(store, moved, first)

    def values(store: Float[Array, "B K S H"]) -> Array:
        return _from_index(store, down(store), first)

    if not isinstance(cache.k, tuple):
        keys, values = jax.vmap(keys), jax.vmap(values)
    k, v = jax.tree.map(keys, cache.k), jax.tree.map(values, cache.v)
    return replace(state, cache=replace(cache, k=k, v=v, length=cache.length - count))


def _moved_down(
    store: Float[Array, "B K S H"], first: Int[Array, " B"], count: Int[Array, " B"]
) -> Float[Array, "B K S H"]:
    """Every position holds what is `count` positions after it; zero beyond the end."""
    size = store.shape[2]
    longer = jnp.pad(store, [(0, 0), (0, 0), (0, size), (0, 0)])
    take = jax.vmap(lambda s, by: jax.lax.dynamic_slice_in_dim(s, by, size, 1))
    return take(longer, count)


def _from_index(store: Array, moved: Array, first: Int[Array, " B"]) -> Array:
    """`moved` from each row's index on, `store` before it; both [B, K, S, H]."""
    indices = jnp.arange(store.shape[2])
    return jnp.where((indices >= first[:, None])[:, None, :, None], moved, store)
