"""Load a model, show it a picture, read a face: the few calls most users need."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sf_jax.convert import hf
from sf_jax.decode.generate import Generated, generate
from sf_jax.decode.prompt import Rows, prompt_ids, rows
from sf_jax.decode.schema import Schema, SlotProgram, compile_program
from sf_jax.decode.tokenizer import BLANK_LINE, Tokenizer
from sf_jax.face import channels
from sf_jax.face.describe import Description
from sf_jax.images import read_image
from sf_jax.model import vision
from sf_jax.model.config import Config
from sf_jax.model.resize import fit
from sf_jax.model.weights import Weights, unstack_layers

BUILTIN = Path(__file__).parent / "builtin"
SCHEMA = Schema(
    channels.NAMES, tuple(map(float, channels.LOW)), tuple(map(float, channels.HIGH)), decimals=1
)
MAX_WORDS = 120  # tokens; twice a usual description


@dataclass(frozen=True)
class FaceAction:
    """What one picture shows.

    Attributes:
      coefficients: float32 [61], canonical order: the mean of each slot's distribution.
      spread: float32 [61], its standard deviation.
      answer: float32 [61], the values spoken. All three depend on the words, and on the slots
        before each slot.
      rationale: the words, in four fields.
      text: the answer as spoken, words and JSON.
      passes: model passes spent, {"rationale": n, "coefficients": m}.
    """

    coefficients: np.ndarray
    spread: np.ndarray
    answer: np.ndarray
    rationale: Description
    text: str
    passes: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, float]:
        """Channel name → coefficient, in canonical order."""
        return dict(zip(channels.NAMES, map(float, self.coefficients), strict=True))


class Model:
    """A vision-language model with its tokenizer and the slot program of the 61 channels."""

    def __init__(self, config: Config, weights: Weights, tokenizer: Tokenizer, max_pixels: int):
        self.config = config
        self.tokenizer = tokenizer
        self.max_pixels = max_pixels
        # Accelerators scan stacked layers; short passes on a CPU loop over separate arrays.
        on_cpu = jax.default_backend() == "cpu"
        self.weights = unstack_layers(weights) if on_cpu else weights

    @cached_property
    def program(self) -> SlotProgram:
        return jax.device_put(compile_program(SCHEMA, self.tokenizer))

    def predict(
        self, image: Any, *, words: bool = True, temperature: float = 0.0, seed: int = 0
    ) -> FaceAction:
        """Reads one face.

        Args:
          image: a path, a PIL image or uint8 [H, W, 3].
          words: speak the rationale first (slower, and what the coefficients then rest on).
          temperature: 0 is greedy; otherwise words and answer are sampled with `seed`.

        Raises:
          sf_jax.images.ImageError: the picture cannot be read.
        """
        return self.predict_batch([image], words=words, temperature=temperature, seed=seed)[0]

    def predict_batch(
        self,
        images: Sequence[Any],
        *,
        words: bool = True,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[FaceAction]:
        """Reads one face in each picture; sizes may differ."""
        if not images:
            return []
        prompt, patches = self.inputs([read_image(image) for image in images], words)
        generated = generate(
            self.weights, prompt, patches, self.program, jax.random.key(seed),
            self.config, MAX_WORDS, temperature, words,
        )  # fmt: skip
        return list(self._actions(jax.device_get(generated)))

    def inputs(self, images: list[np.ndarray], words: bool) -> tuple[Rows, vision.Patches]:
        """Fits pictures to the patch grid and builds left-padded prompts of one fixed length."""
        config = self.config.vision
        factor = config.patch_size * config.spatial_merge_size
        bounds = (factor, self.max_pixels // 2, self.max_pixels)
        fitted = [fit(image, *bounds) for image in images]
        patch_count = self.max_pixels // config.patch_size**2
        merged = patch_count // config.spatial_merge_size**2
        grids = [(image.shape[0] // factor, image.shape[1] // factor) for image in fitted]
        prompts = [prompt_ids(self.tokenizer, h * w, words) for h, w in grids]
        longest = len(prompt_ids(self.tokenizer, merged, words))
        empty: list[list[int]] = [[] for _ in prompts]
        prompt = rows(prompts, empty, empty, grids, self.config, longest, merged, left=True)
        return prompt, vision.collate(fitted, config, patch_count)

    def _actions(self, generated: Generated) -> Iterator[FaceAction]:
        program = jax.device_get(self.program)
        slots = np.arange(len(SCHEMA.names))
        for row in range(len(generated.choices)):
            probabilities = generated.probabilities[row]
            mean = (probabilities * program.values).sum(-1)
            square = (probabilities * np.square(program.values)).sum(-1)
            spoken = program.values[slots, generated.choices[row]]
            words = self.tokenizer.decode(
                generated.words[row, : generated.words_length[row]].tolist()
            )
            yield FaceAction(
                coefficients=np.clip(mean, channels.LOW, channels.HIGH).astype(np.float32),
                spread=np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32),
                answer=spoken,
                rationale=Description.parse(words),
                text=words + BLANK_LINE + SCHEMA.format(spoken),
                passes={
                    "rationale": int(generated.word_passes),
                    "coefficients": int(program.nodes.sum()),
                },
            )


def load(directory: str | os.PathLike | None = None) -> Model:
    """Loads a model directory, by default the built-in one.

    A directory holds `config.json`, `model.safetensors`, `tokenizer.model` and
    `preprocessor_config.json`.

    Raises:
      CheckpointError, TokenizerError: a file is missing or cannot be read.
    """
    folder = BUILTIN if directory is None else Path(directory)
    config, weights = hf.load(folder)
    file = folder / "preprocessor_config.json"
    try:
        max_pixels = int(json.loads(file.read_text())["max_pixels"])
    except (OSError, ValueError, KeyError) as error:
        raise hf.CheckpointError(f"{file}: no readable field 'max_pixels': {error}") from error
    return Model(config, weights, Tokenizer.load(folder / "tokenizer.model"), max_pixels)


def save(directory: str | os.PathLike, model_config: Config, weights: Weights,
         tokenizer: Tokenizer, max_pixels: int, dtype: Any = np.float32) -> None:  # fmt: skip
    """Writes a model directory that `load` reads."""
    folder = Path(directory)
    hf.save(folder, model_config, weights, dtype)
    tokenizer.save(folder / "tokenizer.model")
    partial = folder / "preprocessor_config.json.partial"
    content = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "max_pixels": max_pixels,
        "min_pixels": max_pixels // 2,
        "patch_size": model_config.vision.patch_size,
        "temporal_patch_size": model_config.vision.temporal_patch_size,
        "merge_size": model_config.vision.spatial_merge_size,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, folder / "preprocessor_config.json")
