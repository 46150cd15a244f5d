"""Next-token losses without the scores of all tokens at once.

At a vocabulary of 151,936 the float32 scores of a row of 2,048 tokens take 1.2 GB, their gradient
as much. Here a few tokens' scores exist at a time; for the gradient they are computed anew.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from sf_jax.kernels.sharded import HEADS, POSITIONS, ROWS, ambient_mesh
from sf_jax.model import text
from sf_jax.model.weights import TextWeights


def next_token_losses(
    weights: TextWeights,
    states: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    dtype: str = "float32",
    chunks: int = 1,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Negative log-likelihood of each token, and the log of the sum of its scores' exponentials.

    Args:
      states: final states; that of the token before predicts a token. The result
        of a row's first token means nothing.
      targets: the tokens.
      chunks: parts of a row that are taken one after another.

    Raises:
      ValueError: a row cannot be taken in so many equal parts.
    """
    length = targets.shape[1]
    following = jnp.roll(targets, -1, 1)
    tables = replace(weights, layers=None)
    of_rows = partial(_of_rows, dtype=dtype, chunks=chunks)
    mesh = ambient_mesh()
    if mesh is not None and mesh.size > mesh.shape.get(HEADS, 1):
        # Each device sums its own gradient of the tables over all parts, and it travels once.
        rows = tuple(axis for axis in ROWS if axis in mesh.shape)
        length //= mesh.shape.get(POSITIONS, 1)
        layout = P(rows, POSITIONS if POSITIONS in mesh.shape else None)
        split_vocabulary = mesh.shape.get(HEADS, 1) > 1  # the partitioner sees to that
        own = {axis for axis in mesh.axis_names if axis != HEADS or not split_vocabulary}
        of_rows = jax.shard_map(
            of_rows,
            mesh=mesh,
            in_specs=(P(), layout, layout),
            out_specs=layout,
            axis_names=own,
            check_vma=False,
        )
    if length % chunks:
        raise ValueError(f"{length} tokens of a row cannot be taken in {chunks} equal parts")
    losses, log_sums = of_rows(tables, states, following)
    return jnp.roll(losses, 1, 1), jnp.roll(log_sums, 1, 1)


def _of_rows(
    tables: TextWeights,
    states: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    dtype: str,
    chunks: int,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Losses of `targets`, at the positions whose states predict them, and the logs of the sums."""

    def of_part(_: None, part: tuple) -> tuple[None, tuple]:
        states, targets = part
        scores = text.logits(tables, states, dtype=dtype)
        log_sum = jax.nn.logsumexp(scores, -1)
        # Compared, not gathered: a vocabulary sharded over devices need not move.
        wanted = jnp.arange(scores.shape[-1]) == targets[..., None]
        return None, (log_sum - jnp.where(wanted, scores, 0.0).sum(-1), log_sum)

    if chunks == 1:
        return of_part(None, (states, targets))[1]

    def split(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(len(x), chunks, -1, *x.shape[2:]), 1, 0)

    again = jax.checkpoint(of_part, prevent_cse=False)
    _, found = jax.lax.scan(again, None, (split(states), split(targets)))
    losses, log_sums = (jnp.moveaxis(x, 0, 1).reshape(targets.shape) for x in found)
    return losses, log_sums
