"""Logits from what a Hugging Face processor emits: token ids, flattened patches, grids, a mask."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from sf_jax.media.resize import bucket
from sf_jax.model import text
from sf_jax.model.config import Config, VisionConfig
from sf_jax.model.weights import Weights
from sf_jax.sequence import images
from sf_jax.sequence.batch import Batch, Capacity
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.forward import forward as read


def _grids(image_grid_thw: ArrayLike) -> list[tuple[int, int]]:
    """(height, width) of every image in patches."""
    grids = np.asarray(image_grid_thw)
    if grids.ndim != 2 or grids.shape[1] != 3:
        raise ValueError(f"image_grid_thw has shape {grids.shape}, expected (images, 3)")
    if (grids[:, 0] != 1).any():
        raise ValueError("image_grid_thw holds an image of several frames; only stills are read")
    return [(int(height), int(width)) for _, height, width in grids]


def _patches(
    pixel_values: ArrayLike, grids: list[tuple[int, int]], config: VisionConfig
) -> list[Float[np.ndarray, "P patch_width"]]:
    """The patches of each image."""
    counts = [height * width for height, width in grids]
    pixels = np.asarray(pixel_values, np.float32)
    if pixels.shape != (sum(counts), config.patch_width):
        raise ValueError(
            f"pixel_values has shape {pixels.shape}, expected {(sum(counts), config.patch_width)}"
        )
    return np.split(pixels, np.cumsum(counts)[:-1])


def _examples(
    ids: Int[np.ndarray, "B T"],
    real: Bool[np.ndarray, "B T"],
    grids: list[tuple[int, int]],
    patches: list[Float[np.ndarray, "P patch_width"]],
    config: Config,
) -> list[list[Example]]:
    """Each row's real tokens as an example, if there are any; rows take images in order."""
    remaining = list(zip(grids, patches, strict=True))
    side = config.vision.spatial_merge_size if grids else 1
    rows: list[list[Example]] = []
    for row, (row_ids, row_real) in enumerate(zip(ids, real, strict=True)):
        tokens = row_ids[row_real]
        wanted = int((tokens == config.image_token_id).sum())
        own: list[tuple[tuple[int, int], np.ndarray]] = []
        while remaining and sum(math.prod(grid) for grid, _ in own) < wanted * side**2:
            own.append(remaining.pop(0))
        merged = [(height // side, width // side) for (height, width), _ in own]
        try:
            starts = images.placeholder_starts(tokens, merged, config.image_token_id)
        except ValueError as error:
            raise ValueError(f"row {row} of input_ids: {error}") from error
        inserts = [
            images.ImageInsert(start, grid, partial(np.asarray, pixels), config.vision)
            for start, (grid, pixels) in zip(starts, own, strict=True)
        ]
        rows.append([Example.of(tokens, inserts)] if len(tokens) else [])
    if remaining:
        raise ValueError(f"{len(remaining)} images have no image tokens in input_ids")
    return rows


def prepare(
    config: Config,
    input_ids: ArrayLike,
    pixel_values: ArrayLike | None = None,
    image_grid_thw: ArrayLike | None = None,
    attention_mask: ArrayLike | None = None,
) -> tuple[Batch, Bool[np.ndarray, "B T"]]:
    """Checks the arrays and makes a batch of them, padded to buckets, all on the host.

    Real tokens of a row follow one another from its beginning.

    Returns:
      The batch, and which of `input_ids` are real.

    Raises:
      ValueError: shapes, token ids, grids and image tokens do not fit each other or the model.
    """
    ids = np.asarray(input_ids)
    real = np.ones(ids.shape, bool) if attention_mask is None else np.asarray(attention_mask) != 0
    if ids.ndim != 2 or real.shape != ids.shape:
        raise ValueError(
            f"input_ids has shape {ids.shape} and attention_mask {real.shape}; expected one [B, T]"
        )
    if not ((ids >= 0) & (ids < config.text.vocab_size)).all():
        raise ValueError(f"input_ids holds ids outside 0..{config.text.vocab_size - 1}")
    if (pixel_values is None) != (image_grid_thw is None):
        raise ValueError("pixel_values and image_grid_thw come together")
    if pixel_values is not None and config.vision is None:
        raise ValueError("this model reads text alone, yet pixel_values were given")
    grids: list[tuple[int, int]] = []
    patches: list[np.ndarray] = []
    if pixel_values is not None and image_grid_thw is not None:
        grids = _grids(image_grid_thw)
        patches = _patches(pixel_values, grids, config.vision)
    rows = _examples(ids, real, grids, patches, config)
    capacity = Capacity(bucket(ids.shape[1]))
    if grids:
        merged = config.vision.spatial_merge_size**2
        most = max(sum(example.size[1] for example in row) for row in rows)
        capacity = images.capacity(config, capacity.length, bucket(most // merged) * merged)
    return assemble(rows, capacity), real


@partial(jax.jit, static_argnames="config")
def compiled(weights: Weights, batch: Batch, config: Config) -> Float[Array, "B T V"]:
    """The pass over padded arrays; one compilation a bucket."""
    states, _ = read(weights, batch, config)
    return text.logits(weights.text, states, dtype=config.product_dtype)


@partial(jax.jit, static_argnames=("config", "count"))
def _continued(weights: Weights, batch: Batch, config: Config, count: int) -> Int[Array, "B count"]:
    dtype = config.product_dtype
    rows, length = batch.input_ids.shape
    of_cache, layout = weights.text.embed.dtype, weights.text.layout
    cache: text.Cache | None = text.empty_cache(config.text, rows, length + count, of_cache, layout)
    states, cache = read(weights, batch, config, cache=cache)
    last = length - 1 - jnp.argmax(batch.segments[:, ::-1], -1)
    state = jnp.take_along_axis(states, last[:, None, None], 1)[:, 0]
    position = batch.positions.max((0, 2)) + 1

    def step(carry: tuple, _: None) -> tuple:
        state, cache, position = carry
        token = jnp.argmax(text.logits(weights.text, state, dtype=dtype), -1)
        states, cache = text.forward(
            weights.text,
            weights.text.embed[token][:, None],
            jnp.broadcast_to(position[:, None], (3, rows, 1)),
            config.text,
            segments=jnp.ones((rows, 1), jnp.int32),
            cache=cache,
            dtype=dtype,
        )
        return (states[:, 0], cache, position + 1), token

    tokens: Array
    _, tokens = jax.lax.scan(step, (state, cache, position), None, count)
    return tokens.swapaxes(0, 1)


def generate(
    config: Config,
    weights: Weights,
    input_ids: Int[np.ndarray, "B T"],
    pixel_values: Float[np.ndarray, "P patch_width"] | None = None,
    image_grid_thw: Int[np.ndarray, "images 3"] | None = None,
    attention_mask: Int[np.ndarray, "B T"] | None = None,
    *,
    max_new_tokens: int,
) -> Int[np.ndarray, "B max_new_tokens"]:
    """The likeliest next token, over and over, without any grammar; arguments as `forward`.

    It never stops early: cut an answer at its end token. `sf_jax.load` gives the constrained path.
    """
    batch, _ = prepare(config, input_ids, pixel_values, image_grid_thw, attention_mask)
    return np.asarray(_continued(weights, batch, config, max_new_tokens))


def forward(
    config: Config,
    weights: Weights,
    input_ids: Int[np.ndarray, "B T"],
    pixel_values: Float[np.ndarray, "P patch_width"] | None = None,
    image_grid_thw: Int[np.ndarray, "images 3"] | None = None,
    attention_mask: Int[np.ndarray, "B T"] | None = None,
) -> Float[np.ndarray, "B T V"]:
    """Scores of the next token after each token, float32.

    Args:
      input_ids: with one run of image tokens an image.
      pixel_values: the patches of all images, one image after the other, rows in order.
      image_grid_thw: frames (1), height and width of each image in patches.
      attention_mask: 0 marks padding, before or after a row's tokens; scores there are 0.

    Raises:
      ValueError: the arrays do not fit each other or the model.
    """
    batch, real = prepare(config, input_ids, pixel_values, image_grid_thw, attention_mask)
    found = np.asarray(compiled(weights, batch, config))
    if real.all():
        return found[:, : real.shape[1]]
    scores = np.zeros((*real.shape, found.shape[-1]), found.dtype)
    scores[real] = found[np.asarray(batch.segments) > 0]
    return scores
