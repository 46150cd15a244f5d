"""Face records → token rows: prompt, words, and the coefficients as an answer to learn.

Three things keep the numbers tied to the image rather than to the rationale before them: some
examples have no words, some have the words of another face (then the words carry no loss), and some
values are replaced in the *input* by those of another face while the target stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, UInt8

from sf_jax.decode.program import SlotProgram, compile_program
from sf_jax.decode.schema import Schema
from sf_jax.face.describe import describe
from sf_jax.model.config import Config
from sf_jax.reader.question import NUMBERS_ONLY, WITH_RATIONALE, prompt_ids
from sf_jax.sequence import images as image_inputs
from sf_jax.sequence.batch import Batch, Capacity
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.tokenizer import IM_END, Tokenizer


@dataclass(frozen=True)
class SequenceConfig:
    """Attributes:
    length: tokens a row.
    words: share of examples that speak before the numbers; the rest give numbers only.
    foreign_words: share, among those, that are given the words of another face.
    foreign_values: share of input values replaced by those of another face.
    words_weight: loss weight of a token of the rationale, beside 1 for a slot.
    gap: most positions by which skipped words move the keys of a reading row.
    slots: learn slots over their allowed values, from exact numbers; else as tokens of values that
      are rounded by chance.
    """

    length: int = 232
    words: float = 0.7
    foreign_words: float = 0.5
    foreign_values: float = 0.3
    words_weight: float = 3.0
    gap: int = 120
    slots: bool = True


def round_randomly(
    numbers: np.ndarray, decimals: int, generator: np.random.Generator
) -> np.ndarray:
    """Rounds up or down by chance so that the expected value is the number itself.

    A distribution learnt from such labels has the unrounded number as its mean.
    """
    scale = 10.0**decimals
    return np.floor(numbers * scale + generator.random(numbers.shape)) / scale


class Sequences:
    """Turns images and coefficients into batches."""

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer,
        schema: Schema,
        options: SequenceConfig,
        patch_count: int,
    ):
        self.config, self.tokenizer, self.schema = config, tokenizer, schema
        self.options, self.patch_count = options, patch_count
        self.program: SlotProgram = compile_program(schema, tokenizer)
        self.forced_lengths = self.program.forced_length
        self.answer_length = int(self.forced_lengths.sum()) + len(schema.names)

    def _slots(self, numbers: np.ndarray) -> list[int]:
        """Allowed-token index of each slot's value."""
        low = np.array(self.schema.low)
        return np.rint((numbers - low) * 10**self.schema.decimals).astype(int).tolist()

    def _answer(
        self, choices: list[int], words: list[int], words_weight: float
    ) -> tuple[list[int], list[float]]:
        """Token ids and loss weights of words, key tokens and values."""
        ids = [*words, int(self.program.rationale_end)] if words else []
        weights = [words_weight] * len(ids)
        for slot, choice in enumerate(choices):
            forced = self.program.before(slot)
            ids += [*forced, int(self.program.value_symbols[slot, choice])]
            weights += [0.0] * len(forced) + [0.0 if self.options.slots else 1.0]
        return ids, weights

    def example(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        numbers: Float[np.ndarray, " C"],
        foreign: Float[np.ndarray, " C"],
        generator: np.random.Generator,
    ) -> Example:
        """One face as prompt, answer to read and answer to learn.

        Args:
          image: with sides that fit the patch grid.
          foreign: the numbers of some other face.
        """
        options = self.options
        height, width = image_inputs.token_grid(image, self.config.vision)
        words: list[int] = []
        weight = options.words_weight
        if generator.random() < options.words:
            borrowed = generator.random() < options.foreign_words
            description = describe(
                foreign if borrowed else numbers, int(generator.integers(1 << 30))
            )
            words, weight = self.tokenizer.encode(description.text), 0.0 if borrowed else weight
        prompt = prompt_ids(self.tokenizer, height * width, bool(words))
        # The few descriptions that would not fit the row are left out, words and all.
        if len(prompt) + len(words) + 1 + self.answer_length > options.length:
            words = []
            prompt = prompt_ids(self.tokenizer, height * width, False)
        decimals = self.schema.decimals
        target = self._slots(round_randomly(numbers, decimals, generator))
        other = self._slots(round_randomly(foreign, decimals, generator))
        swapped = generator.random(len(target)) < options.foreign_values
        shown = [b if swap else a for a, b, swap in zip(target, other, swapped, strict=True)]
        target_ids, weights = self._answer(target, words, weight)
        inserts = image_inputs.image_inserts(prompt, [image], self.config)
        answer, _ = self._answer(shown, words, weight)
        example = Example.of(prompt, inserts, answer, target_ids, weights)
        if not options.slots:
            return example
        start = len(example.tokens) - self.answer_length
        return self._with_slots(example, start + np.cumsum(self.forced_lengths + 1) - 2, numbers)

    def _with_slots(
        self, example: Example, at: Int[np.ndarray, " C"], numbers: Float[np.ndarray, " C"]
    ) -> Example:
        """The example with slots to predict from the states at these positions."""
        slots = np.zeros(len(example.tokens), np.int32)
        exact, weights = np.zeros((2, len(example.tokens)), np.float32)
        slots[at], exact[at], weights[at] = np.arange(1, len(at) + 1), numbers, 1.0
        return replace(example, slots=slots, numbers=exact, slot_weights=weights)

    def batch(
        self,
        images: Sequence[UInt8[np.ndarray, "H W 3"]],
        coefficients: Float[np.ndarray, "B C"],
        generator: np.random.Generator,
    ) -> Batch:
        """A row an example, with slots. The sides of images fit the patch grid."""
        low, high = np.array(self.schema.low), np.array(self.schema.high)
        numbers = np.clip(coefficients, low, high)
        examples = [
            self.example(image, numbers[i], numbers[(i + 1) % len(numbers)], generator)
            for i, image in enumerate(images)
        ]
        capacity = self._capacity(self.options.length, self.options.slots)
        return assemble([[example] for example in examples], capacity)

    def reading(
        self,
        images: Sequence[UInt8[np.ndarray, "H W 3"]],
        coefficients: Float[np.ndarray, "B C"],
        generator: np.random.Generator,
    ) -> Batch:
        """Rows of the keys alone, with slots and without targets.

        Words and values are skipped, but positions are what they would be with them. All slots are
        read off the image at once, in a row less than half as long.
        """
        options = self.options
        spoken = generator.random(len(images)) < options.words
        gaps = np.where(spoken, generator.integers(0, options.gap + 1, len(images)), 0)
        examples = [
            self._keys(image, numbers, bool(words), int(gap))
            for image, numbers, words, gap in zip(images, coefficients, spoken, gaps, strict=True)
        ]
        keys = int(self.forced_lengths.sum())
        merged = self.patch_count // self.config.vision.spatial_merge_size**2
        longest = max(len(prompt_ids(self.tokenizer, merged, words)) for words in (True, False))
        capacity = self._capacity(longest + 1 + keys, slots=True)
        made = assemble([[example] for example in examples], capacity)
        return replace(made, targets=None)

    def _keys(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        numbers: Float[np.ndarray, " C"],
        words: bool,
        gap: int,
    ) -> Example:
        """A prompt and all keys; `gap` positions are left out where words would be."""
        height, width = image_inputs.token_grid(image, self.config.vision)
        prompt = prompt_ids(self.tokenizer, height * width, words)
        prompt += [int(self.program.rationale_end)] * words
        slots = range(len(self.forced_lengths))
        keys = [token for slot in slots for token in self.program.before(slot)]
        example = Example.of(
            prompt,
            image_inputs.image_inserts(prompt, [image], self.config),
            keys,
            weights=[0.0] * len(keys),
        )
        values = np.repeat(np.arange(len(self.forced_lengths)), self.forced_lengths)
        skipped = np.concatenate([np.zeros(len(prompt) - 1, np.int32), [gap], values + gap])
        example = replace(example, skipped=skipped.astype(np.int32))
        last_keys = len(prompt) + np.cumsum(self.forced_lengths) - 1
        return self._with_slots(example, last_keys, numbers)

    def _capacity(self, length: int, slots: bool) -> Capacity:
        return image_inputs.capacity(self.config, length, self.patch_count, slots)


def vocabulary_texts(coefficients: np.ndarray) -> list[str]:
    """Descriptions and prompts for training a tokenizer."""
    prompts = [text for text in _prompt_texts() for _ in range(len(coefficients) // 4 + 1)]
    return [describe(row, seed).text for seed, row in enumerate(coefficients)] + prompts


def _prompt_texts() -> list[str]:
    return [WITH_RATIONALE, NUMBERS_ONLY, "user", "assistant", IM_END]
