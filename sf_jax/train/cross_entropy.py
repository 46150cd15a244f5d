"""Next-token losses without the scores of all tokens at once.

At a vocabulary of 151,936 the float32 scores of a row of 2,048 tokens take 1.2 GB, their gradient
as much. Here a few tokens' scores exist at a time; for the gradient they are computed anew.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sf_jax.model import text
from sf_jax.model.weights import TextWeights


def next_token_losses(
    weights: TextWeights,
    states: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    dtype: str = "float32",
    chunks: int = 1,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """How unlikely each token was, and the log of the sum of its scores' exponentials.

    Args:
      states: final states; that of the token before predicts a token. What a row's first token
        gets means nothing.
      targets: the tokens.
      chunks: parts of a row that are taken one after another.

    Raises:
      ValueError: a row cannot be taken in so many equal parts.
    """
    batch, length = targets.shape
    if length % chunks:
        raise ValueError(f"rows of {length} tokens cannot be taken in {chunks} equal parts")
    following = jnp.roll(targets, -1, 1)

    def of_part(_: None, part: tuple) -> tuple[None, tuple]:
        states, targets = part
        scores = text.logits(weights, states, dtype=dtype)
        log_sum = jax.nn.logsumexp(scores, -1)
        # Compared, not gathered: a vocabulary that lies on several devices stays where it is.
        wanted = jnp.arange(scores.shape[-1]) == targets[..., None]
        return None, (log_sum - jnp.where(wanted, scores, 0.0).sum(-1), log_sum)

    if chunks == 1:
        _, found = of_part(None, (states, following))
        return tuple(jnp.roll(x, 1, 1) for x in found)  # type: ignore[return-value]

    def split(x: Any) -> Any:
        # Part i takes places i, i + chunks, …: devices that share places have their share of each.
        return jnp.moveaxis(x.reshape(batch, -1, chunks, *x.shape[2:]), 2, 0)

    again = jax.checkpoint(of_part, prevent_cse=False)
    _, found = jax.lax.scan(again, None, (split(states), split(following)))
    joined = (jnp.moveaxis(x, 0, 2).reshape(batch, length) for x in found)
    return tuple(jnp.roll(x, 1, 1) for x in joined)  # type: ignore[return-value]
