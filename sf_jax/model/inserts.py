"""What a modality contributes to a sequence: features, and the positions that they take.

Encoders of images, sound or anything else give inserts; the text model knows no modality.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from sf_jax.model.weights import TextWeights


@struct.dataclass
class Insert:
    """Features that take the positions of placeholder tokens in a batch of sequences.

    Attributes:
      features: [B, M, D], in the text model's width; they replace the token embeddings.
      at: int32 [B, M], the sequence position of each feature; one of T or more is dropped, which is
        where padding goes.
      levels: [L, B, M, D], added at the same positions to the output of the first L layers
        (DeepStack); None for none.
    """

    features: Float[Array, "B M D"]
    at: Int[Array, "B M"]
    levels: Float[Array, "L B M D"] | None = None


def place(
    features: Float[Array, "B M D"], at: Int[Array, "B M"], length: int
) -> Float[Array, "B T D"]:
    """Features at positions `at` of sequences of `length` tokens, zero elsewhere.

    A position of `length` or more is dropped.
    """
    rows = jnp.arange(features.shape[0])[:, None]
    out = jnp.zeros((features.shape[0], length, features.shape[2]), features.dtype)
    return out.at[rows, at].set(features, mode="drop")


def embed(
    weights: TextWeights, input_ids: Int[Array, "B T"], inserts: Sequence[Insert] = ()
) -> tuple[Float[Array, "B T D"], Float[Array, "L B T D"] | None]:
    """Token embeddings with the inserts put in, and what the first L layers add to their output.

    Inserts of one sequence take different positions. Levels of several inserts are summed layer by
    layer, which keeps them apart; they are None where no insert has any.
    """
    length = input_ids.shape[1]
    embeddings = weights.embed[input_ids]
    levels: list[Array] = []
    for insert in inserts:
        features = place(insert.features.astype(embeddings.dtype), insert.at, length)
        taken = place(jnp.ones_like(insert.at, embeddings.dtype)[..., None], insert.at, length)
        embeddings = jnp.where(taken > 0, features, embeddings)
        for number, level in enumerate(() if insert.levels is None else insert.levels):
            placed = place(level.astype(embeddings.dtype), insert.at, length)
            if number < len(levels):
                levels[number] += placed
            else:
                levels.append(placed)
    return embeddings, jnp.stack(levels) if levels else None
