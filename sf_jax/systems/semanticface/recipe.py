"""The recipe of the built-in model: its sizes, stages and data, and its tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import mixtures, synthetic
from data_pipelines.mixtures import Inputs
from data_pipelines.sampler import sample
from data_pipelines.sources import Mixture
from data_pipelines.views import Views, random_view
from sf_jax.convert.processor import ImageProcessor
from sf_jax.decode.schema import MODE, RATIONALE_FIRST, Schema
from sf_jax.face import channels
from sf_jax.model.config import Config, TextConfig, VisionConfig
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence import tokenizer as tokenizers
from sf_jax.sequence.tokenizer import (
    IMAGE,
    VISION_END,
    VISION_START,
    SentencePieceTokenizer,
    Tokenizer,
)
from sf_jax.systems.semanticface.sequences import SequenceConfig, vocabulary_texts
from sf_jax.train.draft_heads import DraftHeadsConfig
from sf_jax.train.losses.joint import JointConfig
from sf_jax.train.optimizer import OptimizerConfig

NO_INPUTS = Inputs()


@dataclass(frozen=True)
class Stage:
    """Attributes:
    batch: images, twins included.
    bad_steps: steps in a row that may have a gradient that is not finite.
    """

    batch: int
    optimizer: OptimizerConfig
    bad_steps: int = 10


@dataclass(frozen=True)
class Recipe:
    """Everything about a run.

    Attributes:
      images: rendered faces to learn from; a view of each is new whenever it is met.
      held_out: rendered faces that the warm-up measures itself on, of other people, skins, rigs and
        styles; evaluate_every: steps between two measurements.
      mixture: shares of their sources, by name; None has all that `inputs` allow.
      inputs: a user's rigs, skins, backgrounds and portraits.
      vision, text: sizes of the model; the vocabulary's is the tokenizer's.
      vocabulary: tokens; vocabulary_faces: faces whose descriptions the tokenizer is trained on.
      value_frequencies, value_scale: the embeddings of values start as waves of their number, so
        that values near each other start alike.
      rare: the logit at which the read-out of a blendshape starts.
      patches: of the largest image.
      views: how images are framed in training; a joint stage adds the mirrored twin of each.
      objective: of the reading and language stages; its read-out is the warm-up's too.
      draft_answers: the model's own answers from which draft heads are learnt.
      mesh: how the devices are shared out.
      product_dtype: of training; the model is exported in float32.
      order, estimate: of the exported model's answers, see `decode.schema.Schema`; decimals,
        channels: of their values, and which are read.
      accept_changed_data: see `train.loop.LoopConfig`.
    """

    images: int
    vision: VisionConfig
    text: TextConfig
    vocabulary: int
    vocabulary_faces: int
    value_frequencies: tuple[float, ...]
    value_scale: float
    rare: float
    patches: int
    warmup: Stage
    views: Views
    reading: Stage
    language: Stage
    objective: JointConfig
    sequences: SequenceConfig
    draft_answers: int
    draft_heads: DraftHeadsConfig
    mesh: dict[str, int]
    product_dtype: str
    order: str = RATIONALE_FIRST
    estimate: str = MODE
    decimals: int = 1
    channels: tuple[str, ...] = channels.NAMES
    held_out: int = 0
    evaluate_every: int = 0
    mixture: Mapping[str, float] | None = None
    inputs: Inputs = NO_INPUTS
    seed: int = 0
    accept_changed_data: bool = False

    def sources(self) -> Mixture:
        """Where faces come from.

        Raises:
          SourceError: a source of the mixture is unknown, or needs files that are not given.
        """
        weights = self.mixture or mixtures.default_weights(self.inputs)
        return mixtures.build(weights, self.inputs, seed=self.seed)

    def example_view(self) -> dict[str, Any]:
        """A view of some rendered face, for the shapes of batches."""
        record = synthetic.face_record(0, 0, "train")
        return random_view(record, self.views, np.random.default_rng(0))

    @property
    def schema(self) -> Schema:
        """Of training and of the exported model's answers."""
        schema = channel_schema(self.channels, decimals=self.decimals)
        return replace(schema, order=self.order, estimate=self.estimate)

    @property
    def processor(self) -> ImageProcessor:
        """Settings for images of half to all of the patches."""
        pixels = self.patches * self.vision.patch_size**2
        return ImageProcessor(pixels // 2, pixels)

    def config(self, tokenizer: Tokenizer, product_dtype: str = "float32") -> Config:
        """The model's configuration."""
        return Config(
            self.vision,
            replace(self.text, vocab_size=len(tokenizer)),
            image_token_id=tokenizer.symbol(IMAGE),
            vision_start_token_id=tokenizer.symbol(VISION_START),
            vision_end_token_id=tokenizer.symbol(VISION_END),
            product_dtype=product_dtype,
            unrolled=True,
        )


def make_tokenizer(recipe: Recipe, directory: Path, texts: Sequence[str] = ()) -> Tokenizer:
    """Trained on descriptions of sampled faces; saved in the run's directory.

    Args:
      texts: to train it on besides.
    """
    path = directory / "tokenizer.model"
    if not path.exists():
        faces = np.stack([sample(50_000_000 + i) for i in range(recipe.vocabulary_faces)])
        found = [*vocabulary_texts(faces), *texts]
        tokenizers.train(found, recipe.schema.symbols(), recipe.vocabulary).save(directory)
    return SentencePieceTokenizer.load(path)
