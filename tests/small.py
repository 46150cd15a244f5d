"""Small models: one of two layers for tests of its files, and directories of random weights."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from sf_jax.convert.processor import ImageProcessor
from sf_jax.decode.schema import Schema
from sf_jax.face.describe import describe
from sf_jax.model.config import Config, TextConfig, VisionConfig
from sf_jax.model.declared import initialise
from sf_jax.reader import loading
from sf_jax.sequence import tokenizer


def small_config() -> Config:
    """Qwen3-VL of 24 channels, patches of 4 pixels and a vocabulary of 50 tokens."""
    vision = VisionConfig(
        depth=2,
        hidden_size=32,
        intermediate_size=40,
        num_heads=2,
        out_hidden_size=24,
        num_position_embeddings=25,
        deepstack_visual_indexes=(0,),
        patch_size=4,
    )
    text = TextConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        mrope_section=(4, 2, 2),
    )
    return Config(vision, text, 7, 8, 9)


def write_random_model(folder: Path, shape: Config, schema: Schema) -> Path:
    """Writes a model directory of random weights, with a tokenizer trained on descriptions."""
    faces = np.random.default_rng(0).random((60, 61), np.float32)
    texts = [describe(face, seed).text for seed, face in enumerate(faces)]
    prompts = ["user", "assistant", tokenizer.IM_END] * 30
    words = tokenizer.train([*texts, *prompts], schema.symbols(), 900)
    symbols = (tokenizer.IMAGE, tokenizer.VISION_START, tokenizer.VISION_END)
    text = dataclasses.replace(shape.text, vocab_size=len(words))
    config = Config(shape.vision, text, *map(words.symbol, symbols))
    weights = jax.tree.map(lambda x: x * 2 if x.ndim > 1 else x, initialise(config.declare(), 3))
    loading.save(folder, config, weights, words, ImageProcessor(4096, 9216), schema=schema)
    return folder
