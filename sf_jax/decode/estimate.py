"""Which value a slot takes of its distribution where nothing is sampled: see `Schema.estimate`.

The median of a distribution over numbers errs least in absolute terms. Where a channel is usually
at rest, the likeliest value is often 0 although most of the probability is above it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.program import SlotProgram
from sf_jax.decode.schema import MEDIAN


def taken(
    drawn: Float[Array, "*rows U"],
    kind: Int[Array, "*kinds"],
    program: SlotProgram,
    sampled: Bool[Array, " B"],
) -> Int[Array, "*rows"]:
    """The symbol that is taken at a step of a slot.

    Args:
      drawn: scores of the program's symbols with noise; -inf where one is not allowed.
      kind: of each slot; its axes are the last of `rows`, whose first is that of `sampled`.
      sampled: the rows whose temperature is not 0; in others there is no noise.
    """
    best = jnp.argmax(drawn, -1).astype(jnp.int32)
    if program.estimate != MEDIAN:
        return best
    up_to, symbols = _up_to(drawn, kind, program)
    index = (up_to < 0.5).sum(-1, keepdims=True).clip(0, symbols.shape[-1] - 1)
    median = jnp.take_along_axis(symbols, index, -1)[..., 0]
    return jnp.where(sampled.reshape(-1, *[1] * (best.ndim - 1)), best, median)


def median_margins(
    scores: Float[Array, "B C U"], choices: Int[Array, "B C"], program: SlotProgram
) -> Float[Array, "B C"]:
    """By how much probability each value is the median of its slot; negative where it is not."""
    up_to, _ = _up_to(scores, program.kind, program)
    before = jnp.pad(up_to[..., :-1], [(0, 0), (0, 0), (1, 0)])
    low, high = (jnp.take_along_axis(x, choices[..., None], -1)[..., 0] for x in (before, up_to))
    return jnp.minimum(0.5 - low, high - 0.5)


def _up_to(
    scores: Float[Array, "*rows U"], kind: Int[Array, "*kinds"], program: SlotProgram
) -> tuple[Float[Array, "*rows V"], Int[Array, "*rows V"]]:
    """The probability of each value and all below it, and the values' symbols."""
    symbols = program.step_symbol[kind, :, 0]
    symbols = jnp.broadcast_to(symbols, (*scores.shape[:-1], symbols.shape[-1]))
    values = jnp.take_along_axis(scores, symbols, -1)
    values = jnp.where(program.valid[kind], values, -jnp.inf)
    return jnp.cumsum(jax.nn.softmax(values, -1), -1), symbols
