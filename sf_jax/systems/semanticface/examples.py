"""Examples for training, by number: face records as conversations."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sf_jax.convert.processor import ImageProcessor
from sf_jax.face import answers
from sf_jax.model.config import Config
from sf_jax.reader.question import Messages, prompt_ids
from sf_jax.sequence import images
from sf_jax.sequence.example import Example
from sf_jax.sequence.tokenizer import BLANK_LINE, CONTROL, IM_END, Tokenizer
from sf_jax.systems.semanticface.sequences import Sequences


@dataclass(frozen=True)
class FaceExamples:
    """The built-in model's examples; where another face is borrowed from, it is the next record's.

    Attributes:
      records: number → name of a record, and the record. Images must fit the patch grid.
    """

    records: Callable[[int], tuple[str, dict[str, Any]]]
    sequences: Sequences
    seed: int = 0

    def __call__(self, number: int) -> Example:
        """Raises ValueError, which names the record, where its image does not fit."""
        where, record = self.records(number)
        other = self.records(number + 1)[1]
        schema = self.sequences.schema
        numbers, foreign = (
            np.clip(one["coefficients"], schema.low, schema.high) for one in (record, other)
        )
        generator = np.random.default_rng([self.seed, number])
        try:
            known = record.get("known")
            example = self.sequences.example(record["image"], numbers, foreign, generator, known)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return replace(example, number=number, where=where)


@dataclass(frozen=True)
class ChatExamples:
    """Fine-tuning examples for models that are instructed: question, and the record's own answer.

    The answer is the record's rationale, a blank line and a flat JSON object, or one nested JSON
    object that holds both. Where a flat answer has no rationale, the blank line belongs to the
    question, as when the estimator asks for numbers alone.

    Attributes:
      records: number → name of a record, and the record.
      config: of the model.
      messages: the question, in the form of `chat_text`; None asks in our own words.
      layout: "flat" or "nested".
      decimals: of every value.
    """

    records: Callable[[int], tuple[str, dict[str, Any]]]
    config: Config
    tokenizer: Tokenizer
    processor: ImageProcessor
    messages: Messages | None = None
    layout: str = "flat"
    decimals: int = 1

    def __call__(self, number: int) -> Example:
        """Raises ValueError, which names the record, where it makes no conversation."""
        where, record = self.records(number)
        try:
            answer = self.tokenizer.encode(self._answer(record) + IM_END)
            image = self.processor.fit(record["image"]).pixels
            height, width = images.token_grid(image, self.config.vision)
            words = bool(record["rationale"]) or self.layout == "nested"
            prompt = prompt_ids(self.tokenizer, height * width, words, self.messages)
            inserts = images.image_inserts(prompt, [image], self.config)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return Example.of(prompt, inserts, answer, number=number, where=where)

    def _answer(self, record: dict[str, Any]) -> str:
        words = record["rationale"]
        for name in CONTROL:
            if name in words:
                raise ValueError(f"the rationale holds {name!r}")
        block = answers.to_json(record["coefficients"], self.layout, self.decimals, analysis=words)
        return words + BLANK_LINE + block if words and self.layout == "flat" else block
