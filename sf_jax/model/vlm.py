"""Vision and text joined: picture features take the places of image tokens."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sf_jax.model import text, vision
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights


def mrope_positions(
    input_ids: np.ndarray, grids: list[tuple[int, int]], config: Config
) -> np.ndarray:
    """M-RoPE positions int32 [3, T] (time, height, width) of one example's tokens.

    Text advances all three together. The tokens of a picture share one time and spread over rows
    and columns; text after it goes on from the largest position used.

    Args:
      input_ids: [T], with one run of image tokens a picture.
      grids: (height, width) of each picture in merged tokens.

    Raises:
      ValueError: the runs of image tokens do not fit the grids.
    """
    positions = np.zeros((3, len(input_ids)), np.int32)
    is_image = np.asarray(input_ids) == config.image_token_id
    at, following, remaining = 0, 0, list(grids)
    while at < len(input_ids):
        if not is_image[at]:
            positions[:, at] = following
            at, following = at + 1, following + 1
            continue
        if not remaining:
            raise ValueError("more runs of image tokens than pictures")
        height, width = remaining.pop(0)
        count = height * width
        if not is_image[at : at + count].all() or at + count > len(input_ids):
            raise ValueError(f"a picture of {height} x {width} tokens meets fewer image tokens")
        rows, columns = np.divmod(np.arange(count), width)
        positions[:, at : at + count] = following + np.stack([0 * rows, rows, columns])
        at, following = at + count, following + max(height, width)
    if remaining:
        raise ValueError(f"{len(remaining)} pictures have no image tokens")
    return positions


def place(
    features: Float[Array, "B M D"], at: Int[Array, "B M"], length: int
) -> Float[Array, "B T D"]:
    """Features at token places `at` of a row of `length` tokens, zero elsewhere.

    A place of `length` or more is dropped: padding features go there.
    """
    rows = jnp.arange(features.shape[0])[:, None]
    out = jnp.zeros((features.shape[0], length, features.shape[2]), features.dtype)
    return out.at[rows, at].set(features, mode="drop")


def embed(
    weights: Weights,
    input_ids: Int[Array, "B T"],
    features: Float[Array, "B M D"],
    deepstack: Float[Array, "levels B M D"],
    image_places: Int[Array, "B M"],
    config: Config,
) -> tuple[Float[Array, "B T D"], Float[Array, "levels B T D"]]:
    """Token embeddings with picture features put in, and DeepStack features at the same places."""
    length = input_ids.shape[1]
    words = weights.text.embed[input_ids]
    is_image = (input_ids == config.image_token_id)[..., None]
    words = jnp.where(is_image, place(features.astype(words.dtype), image_places, length), words)
    levels = [place(level.astype(words.dtype), image_places, length) for level in deepstack]
    return words, jnp.stack(levels) if levels else jnp.zeros((0, *words.shape), words.dtype)


def forward(
    weights: Weights,
    input_ids: Int[Array, "B T"],
    positions: Int[Array, "3 B T"],
    segments: Int[Array, "B T"],
    patches: vision.Patches,
    image_places: Int[Array, "B M"],
    config: Config,
) -> Float[Array, "B T D"]:
    """Final states of every token. `image_places` says where each merged feature goes."""
    dtype = config.product_dtype
    features, deepstack = vision.forward(weights.vision, patches, config.vision, dtype)
    embeddings, levels = embed(weights, input_ids, features, deepstack, image_places, config)
    states, _ = text.forward(
        weights.text,
        embeddings,
        positions,
        config.text,
        segments=segments,
        deepstack=levels,
        dtype=dtype,
    )
    return states
