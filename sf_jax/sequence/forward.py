"""One pass of a model over a batch, other modalities included."""

from collections.abc import Sequence

from jaxtyping import Array, Float

from sf_jax.model import text
from sf_jax.model.architecture import Architecture, ModelWeights
from sf_jax.model.inserts import Insert, embed
from sf_jax.sequence.batch import Batch


def forward(
    weights: ModelWeights,
    batch: Batch,
    config: Architecture,
    *,
    inserts: Sequence[Insert] | None = None,
    cache: text.Cache | None = None,
) -> tuple[Float[Array, "B T D"], text.Cache | None]:
    """Final normalised states of every token, and the grown cache.

    Args:
      inserts: what `config.encode` makes of the batch's inputs, where it is known already.
      cache: tokens before the batch's.
    """
    if inserts is None:
        inserts = config.encode(weights, batch.inputs)
    embeddings, levels = embed(weights.text, batch.input_ids, inserts)
    return text.forward(
        weights.text,
        embeddings,
        batch.positions,
        config.text,
        segments=batch.segments,
        cache=cache,
        levels=levels,
        dtype=config.product_dtype,
        remat=config.text_remat,
        unrolled=config.unrolled,
    )
