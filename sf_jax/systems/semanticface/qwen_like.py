"""A tokenizer and random checkpoints in Qwen's layout: tests and benchmarks without downloads."""

import dataclasses
from pathlib import Path

import ml_dtypes
import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from data_pipelines.sampler import sample
from sf_jax.convert import hf
from sf_jax.convert.processor import FILE, ImageProcessor
from sf_jax.face.describe import describe
from sf_jax.media import files
from sf_jax.model.sizes import QWEN3_VL
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence.tokenizer import CONTROL, IMAGE, VISION_END, VISION_START, JsonTokenizer

PIECES = r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # single digits
MIN_PIXELS = 65_536


def make_tokenizer(folder: Path) -> None:
    """Writes a byte-level `tokenizer.json` of single digits, as Qwen's, trained on descriptions."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    faces = [np.clip(sample(i), -1, 1) for i in range(200)]
    texts = [
        f"{describe(face, i).text}\n\n{channel_schema().format(face)}"
        for i, face in enumerate(faces)
    ]
    made.train_from_iterator([*texts, *["words\n\nwords"] * 50], trainer)
    made.add_special_tokens(list(CONTROL))
    made.save(str(folder / "tokenizer.json"))


def make_checkpoint(folder: Path, size: str, max_pixels: int, seed: int = 0) -> None:
    """Writes a random bfloat16 checkpoint of a released shape, one tensor at a time.

    Args:
      folder: exists and is empty.
      size: a key of `model.sizes.QWEN3_VL`.
      max_pixels: of an image, to which the processor shrinks larger ones.
    """
    make_tokenizer(folder)
    tokenizer = JsonTokenizer.load(folder / "tokenizer.json")
    config = dataclasses.replace(
        QWEN3_VL[size],
        image_token_id=tokenizer.symbol(IMAGE),
        vision_start_token_id=tokenizer.symbol(VISION_START),
        vision_end_token_id=tokenizer.symbol(VISION_END),
    )
    hf.save_random(folder, config, seed, ml_dtypes.bfloat16)
    files.write_json(folder / FILE, ImageProcessor(MIN_PIXELS, max_pixels).as_dict())
