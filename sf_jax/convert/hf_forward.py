"""Logits from what a Hugging Face processor emits: token ids, flattened patches, grids, a mask."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from sf_jax.media.resize import bucket
from sf_jax.model import text, vision, vlm
from sf_jax.model.config import Config, VisionConfig
from sf_jax.model.weights import Weights


@struct.dataclass
class Inputs:
    """The arrays of one pass, padded to a bucket so that few shapes are ever compiled.

    Attributes:
      input_ids, segments: int32 [B, T]; segment 0 is padding.
      positions: int32 [3, B, T].
      patches: one picture a row, or None where there is none.
      places: int32 [1, N * M], the place of each merged feature in the B * T tokens, B * T where
        the feature is padding.
    """

    input_ids: Any
    segments: Any
    positions: Any
    patches: vision.Patches | None = None
    places: Any = None


def _grids(image_grid_thw: Any) -> list[tuple[int, int]]:
    """(height, width) of every picture in patches."""
    grids = np.asarray(image_grid_thw)
    if grids.ndim != 2 or grids.shape[1] != 3:
        raise ValueError(f"image_grid_thw has shape {grids.shape}, expected (pictures, 3)")
    if (grids[:, 0] != 1).any():
        raise ValueError("image_grid_thw holds a picture of several frames; only stills are read")
    return [(int(height), int(width)) for _, height, width in grids]


def _patches(pixel_values: Any, grids: list[tuple[int, int]], config: VisionConfig) -> Any:
    """Pictures as rows of patches; the numbers of rows and of patches are bucketed."""
    counts = [height * width for height, width in grids]
    pixels = np.asarray(pixel_values, np.float32)
    if pixels.shape != (sum(counts), config.patch_width):
        raise ValueError(
            f"pixel_values has shape {pixels.shape}, expected {(sum(counts), config.patch_width)}"
        )
    merged = config.spatial_merge_size**2
    length = bucket(max(counts) // merged) * merged
    rows = 1 << (len(counts) - 1).bit_length()
    parts = np.split(pixels, np.cumsum(counts)[:-1])
    fields: dict[str, np.ndarray] = {}
    for i, (grid, part) in enumerate(zip(grids, parts, strict=True)):
        row = vision.grid_positions(*grid, config)
        row |= {"pixels": part, "segments": np.ones(len(part), np.int32)}
        for name, values in row.items():
            shape = (rows, length, *values.shape[1:])
            fields.setdefault(name, np.zeros(shape, values.dtype))[i, : len(values)] = values
    return vision.Patches(**fields)


def _places(
    image_tokens: Int[np.ndarray, " tokens"], counts: list[int], width: int, end: int
) -> Int[np.ndarray, "1 NM"]:
    """Where the `width` features of each picture's row go; `end` for those of padding."""
    rows = 1 << (len(counts) - 1).bit_length()
    places = np.full((rows, width), end, np.int32)
    at = 0
    for i, count in enumerate(counts):
        places[i, :count] = image_tokens[at : at + count]
        at += count
    return places.reshape(1, -1)


def _positions(
    ids: np.ndarray, real: np.ndarray, grids: list[tuple[int, int]], config: Config
) -> Int[np.ndarray, "3 B T"]:
    """M-RoPE positions of each row's real tokens, zero at padding; rows take pictures in order."""
    positions = np.zeros((3, *ids.shape), np.int32)
    remaining = list(grids)
    for row, (row_ids, row_real) in enumerate(zip(ids, real, strict=True)):
        tokens = row_ids[row_real]
        wanted = int((tokens == config.image_token_id).sum())
        own: list[tuple[int, int]] = []
        while remaining and sum(math.prod(grid) for grid in own) < wanted:
            own.append(remaining.pop(0))
        try:
            positions[:, row, row_real] = vlm.mrope_positions(tokens, own, config)
        except ValueError as error:
            raise ValueError(f"row {row} of input_ids: {error}") from error
    if remaining:
        raise ValueError(f"{len(remaining)} pictures have no image tokens in input_ids")
    return positions


def prepare(
    config: Config,
    input_ids: Any,
    pixel_values: Any = None,
    image_grid_thw: Any = None,
    attention_mask: Any = None,
) -> Inputs:
    """Checks the arrays, computes positions and pads to buckets, all on the host.

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
    grids, merged = [], []
    if pixel_values is not None:
        grids = _grids(image_grid_thw)
        side = config.vision.spatial_merge_size
        merged = [(height // side, width // side) for height, width in grids]
    positions = _positions(ids, real, merged, config)
    padding = [(0, 0), (0, bucket(ids.shape[1]) - ids.shape[1])]
    ids, real = np.pad(ids.astype(np.int32), padding), np.pad(real, padding)
    inputs = Inputs(ids, real.astype(np.int32), np.pad(positions, [(0, 0), *padding]))
    if not grids:
        return inputs
    patches = _patches(pixel_values, grids, config.vision)
    per_row = patches.pixels.shape[1] // config.vision.spatial_merge_size**2
    tokens = np.flatnonzero((ids == config.image_token_id) & real)
    places = _places(tokens, [math.prod(grid) for grid in merged], per_row, ids.size)
    return replace(inputs, patches=patches, places=places)


def _embed(weights: Weights, inputs: Inputs, config: Config) -> tuple[Any, Any]:
    """Embeddings [B, T, D] with the pictures in them, and DeepStack levels or None."""
    batch, length = inputs.input_ids.shape
    embeddings = weights.text.embed[inputs.input_ids]
    if inputs.patches is None:
        return embeddings, None
    # A row may hold several pictures, so features are placed in all rows laid end to end.
    features, deepstack = vision.forward(
        weights.vision, inputs.patches, config.vision, config.product_dtype
    )
    flat, flat_levels = vlm.embed(
        weights,
        inputs.input_ids.reshape(1, -1),
        features.reshape(1, -1, features.shape[-1]),
        deepstack.reshape(deepstack.shape[0], 1, -1, deepstack.shape[-1]),
        inputs.places,
        config,
    )
    levels = flat_levels.reshape(-1, batch, length, flat_levels.shape[-1])
    return flat.reshape(batch, length, -1), levels


@partial(jax.jit, static_argnames="config")
def compiled(weights: Weights, inputs: Inputs, config: Config) -> Float[Array, "B T V"]:
    """The pass over padded arrays; one compilation a bucket."""
    dtype = config.product_dtype
    embeddings, levels = _embed(weights, inputs, config)
    states, _ = text.forward(
        weights.text,
        embeddings,
        inputs.positions,
        config.text,
        segments=inputs.segments,
        deepstack=levels,
        dtype=dtype,
    )
    return text.logits(weights.text, states, dtype=dtype)


@partial(jax.jit, static_argnames=("config", "count"))
def _continued(
    weights: Weights, inputs: Inputs, config: Config, count: int
) -> Int[Array, "B count"]:
    dtype = config.product_dtype
    embeddings, levels = _embed(weights, inputs, config)
    batch, length = inputs.input_ids.shape
    layout = weights.text.layout
    cache: Any = text.empty_cache(config.text, batch, length + count, embeddings.dtype, layout)
    states, cache = text.forward(
        weights.text,
        embeddings,
        inputs.positions,
        config.text,
        segments=inputs.segments,
        cache=cache,
        deepstack=levels,
        dtype=dtype,
    )
    last = length - 1 - jnp.argmax(inputs.segments[:, ::-1], -1)
    state = jnp.take_along_axis(states, last[:, None, None], 1)[:, 0]
    position = inputs.positions.max((0, 2)) + 1

    def step(carry: tuple, _: None) -> tuple:
        state, cache, position = carry
        token = jnp.argmax(text.logits(weights.text, state, dtype=dtype), -1)
        states, cache = text.forward(
            weights.text,
            weights.text.embed[token][:, None],
            jnp.broadcast_to(position[:, None], (3, batch, 1)),
            config.text,
            segments=jnp.ones((batch, 1), jnp.int32),
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
    image_grid_thw: Int[np.ndarray, "pictures 3"] | None = None,
    attention_mask: Int[np.ndarray, "B T"] | None = None,
    *,
    max_new_tokens: int,
) -> Int[np.ndarray, "B max_new_tokens"]:
    """The likeliest next token, over and over, without any grammar; arguments as `forward`.

    It never stops early: cut an answer at its end token. `sf_jax.load` gives the constrained path.
    """
    inputs = prepare(config, input_ids, pixel_values, image_grid_thw, attention_mask)
    return np.asarray(_continued(weights, inputs, config, max_new_tokens))


def forward(
    config: Config,
    weights: Weights,
    input_ids: Int[np.ndarray, "B T"],
    pixel_values: Float[np.ndarray, "P patch_width"] | None = None,
    image_grid_thw: Int[np.ndarray, "pictures 3"] | None = None,
    attention_mask: Int[np.ndarray, "B T"] | None = None,
) -> Float[np.ndarray, "B T V"]:
    """Scores of the next token after each token, float32.

    Args:
      input_ids: with one run of image tokens a picture.
      pixel_values: the patches of all pictures, one picture after the other, rows in order.
      image_grid_thw: frames (1), height and width of each picture in patches.
      attention_mask: 0 marks padding, before or behind a row's tokens; scores there mean nothing.

    Raises:
      ValueError: the arrays do not fit each other or the model.
    """
    inputs = prepare(config, input_ids, pixel_values, image_grid_thw, attention_mask)
    scores = compiled(weights, inputs, config)
    return np.asarray(scores)[:, : np.shape(input_ids)[1]]
