"""Prompts and whole training sequences as token rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import struct

from sf_jax.model.config import Config
from sf_jax.model.vlm import mrope_positions
from sf_jax.sequence.tokenizer import (
    BLANK_LINE,
    IM_END,
    IM_START,
    IMAGE,
    VISION_END,
    VISION_START,
    Tokenizer,
)

WITH_WORDS = "Read the face in words, then in numbers."
NUMBERS_ONLY = "Read the face in numbers."


@struct.dataclass
class Rows:
    """Token rows ready for the model.

    Attributes:
      input_ids: int32 [B, T]; positions: int32 [3, B, T]; segments: int32 [B, T], 0 is padding.
      image_places: int32 [B, M], where each merged feature goes; T for padding features.
      loss_weights: float32 [B, T], weight of *predicting* the token at each place.
    """

    input_ids: Any
    positions: Any
    segments: Any
    image_places: Any
    loss_weights: Any


def prompt_ids(tokenizer: Tokenizer, image_tokens: int, words: bool) -> list[int]:
    """The Qwen chat form of one picture and one instruction, up to where the answer starts."""
    instruction = WITH_WORDS if words else NUMBERS_ONLY
    text = (
        f"{IM_START}user\n{VISION_START}{IMAGE * image_tokens}{VISION_END}{instruction}{IM_END}\n"
        f"{IM_START}assistant\n"
    )
    # Without words the answer starts with the token that ends them, as if they had been said.
    return tokenizer.encode(text) + ([] if words else tokenizer.encode(BLANK_LINE))


def rows(
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    weights: Sequence[Sequence[float]],
    grids: Sequence[tuple[int, int]],
    config: Config,
    length: int,
    merged_count: int,
    left: bool = False,
    skip: int = 0,
) -> Rows:
    """Pads examples to one shape.

    Args:
      grids: (height, width) of each picture in merged tokens.
      left: pad on the left, so that all prompts end at the same place.
      skip: leave out so many first tokens of each prompt, which a cache holds already.

    Raises:
      ValueError: an example is longer than `length`.
    """
    batch = len(prompts)
    ids = np.zeros((batch, length), np.int32)
    positions = np.zeros((3, batch, length), np.int32)
    segments = np.zeros((batch, length), np.int32)
    places = np.full((batch, merged_count), length, np.int32)
    loss = np.zeros((batch, length), np.float32)
    for row, (prompt, answer, weight, grid) in enumerate(
        zip(prompts, answers, weights, grids, strict=True)
    ):
        tokens = np.array([*prompt, *answer], np.int32)
        places_of_all = mrope_positions(tokens, [grid], config)
        tokens = tokens[skip:]
        if len(tokens) > length:
            raise ValueError(f"an example of {len(tokens)} tokens exceeds rows of {length}")
        start = length - len(tokens) if left else 0
        at = slice(start, start + len(tokens))
        ids[row, at], segments[row, at] = tokens, 1
        positions[:, row, at] = places_of_all[:, skip:]
        image = np.flatnonzero(tokens == config.image_token_id) + start
        places[row, : len(image)] = image
        loss[row, start + len(prompt) - skip : at.stop] = weight
    return Rows(ids, positions, segments, places, loss)
