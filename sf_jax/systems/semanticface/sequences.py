"""Face records → token rows: prompt, words, and the coefficients as an answer to learn.

Three things keep the numbers tied to the picture rather than to what was said before them: some
examples have no words, some have the words of another face (then the words carry no loss), and some
values are replaced in the *input* by those of another face while the target stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sf_jax.decode.program import SlotProgram, compile_program
from sf_jax.decode.schema import Schema
from sf_jax.face.describe import describe
from sf_jax.model import vision
from sf_jax.model.config import Config
from sf_jax.sequence.rows import NUMBERS_ONLY, WITH_WORDS, Rows, prompt_ids, rows
from sf_jax.sequence.tokenizer import IM_END, Tokenizer


@dataclass(frozen=True)
class SequenceConfig:
    """Attributes:
    length: tokens a row.
    words: share of examples that speak before the numbers; the rest give numbers only.
    foreign_words: share, among those, that are given the words of another face.
    foreign_values: share of input values replaced by those of another face.
    words_weight: loss weight of a word token, beside 1 for a value.
    gap: most positions by which skipped words move the keys of a reading row.
    """

    length: int = 232
    words: float = 0.7
    foreign_words: float = 0.5
    foreign_values: float = 0.3
    words_weight: float = 0.3
    gap: int = 120


def round_randomly(
    numbers: np.ndarray, decimals: int, generator: np.random.Generator
) -> np.ndarray:
    """Rounds up or down by chance so that the expected value is the number itself.

    A distribution learnt from such labels has the unrounded number as its mean.
    """
    scale = 10.0**decimals
    return np.floor(numbers * scale + generator.random(numbers.shape)) / scale


class Sequences:
    """Turns pictures and coefficients into batches of rows."""

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
        ids = [*words, int(self.program.end_of_words)] if words else []
        weights = [words_weight] * len(ids)
        for slot, choice in enumerate(choices):
            forced = self.program.before(slot)
            ids += [*forced, int(self.program.value_symbols[slot, choice])]
            weights += [0.0] * len(forced) + [1.0]
        return ids, weights

    def example(
        self,
        numbers: np.ndarray,
        foreign: np.ndarray,
        grid: tuple[int, int],
        generator: np.random.Generator,
    ) -> tuple[list[int], list[int], list[int], list[float]]:
        """Prompt, input answer, target answer and weights of one face.

        `foreign` are the numbers of some other face.
        """
        options = self.options
        words: list[int] = []
        weight = options.words_weight
        if generator.random() < options.words:
            borrowed = generator.random() < options.foreign_words
            description = describe(
                foreign if borrowed else numbers, int(generator.integers(1 << 30))
            )
            words, weight = self.tokenizer.encode(description.text), 0.0 if borrowed else weight
        prompt = prompt_ids(self.tokenizer, grid[0] * grid[1], bool(words))
        # The few descriptions that would not fit the row are left out, words and all.
        if len(prompt) + len(words) + 1 + self.answer_length > options.length:
            words = []
            prompt = prompt_ids(self.tokenizer, grid[0] * grid[1], False)
        decimals = self.schema.decimals
        target = self._slots(round_randomly(numbers, decimals, generator))
        other = self._slots(round_randomly(foreign, decimals, generator))
        swapped = generator.random(len(target)) < options.foreign_values
        shown = [b if swap else a for a, b, swap in zip(target, other, swapped, strict=True)]
        target_ids, weights = self._answer(target, words, weight)
        return prompt, self._answer(shown, words, weight)[0], target_ids, weights

    def batch(
        self, images: Sequence[np.ndarray], coefficients: np.ndarray, generator: np.random.Generator
    ) -> dict:
        """Whole rows: {"patches", "rows", "targets", "slots"}.

        `slots` int32 [B, C] is the place before each value. Images are uint8 [H, W, 3] with sides
        that fit the patch grid; coefficients [B, C].
        """
        vision_config = self.config.vision
        grids = self._grids(images)
        low, high = np.array(self.schema.low), np.array(self.schema.high)
        numbers = np.clip(coefficients, low, high)
        examples = [
            self.example(numbers[i], numbers[(i + 1) % len(numbers)], grid, generator)
            for i, grid in enumerate(grids)
        ]
        prompts, shown, targets, weights = zip(*examples, strict=True)
        merged = self.patch_count // vision_config.spatial_merge_size**2
        shared = (weights, grids, self.config, self.options.length, merged)
        inputs: Rows = rows(prompts, shown, *shared)
        wanted: Rows = rows(prompts, targets, *shared)
        start = inputs.segments.sum(1) - self.answer_length
        before_value = np.cumsum(self.forced_lengths + 1) - 2
        return {
            "patches": vision.collate(list(images), vision_config, self.patch_count),
            "rows": inputs,
            "targets": wanted.input_ids,
            "slots": (start[:, None] + before_value).astype(np.int32),
        }

    def reading(self, images: Sequence[np.ndarray], generator: np.random.Generator) -> dict:
        """Rows of the keys alone: {"patches", "rows", "slots"}.

        Words and values are skipped, but positions are what they would be with them. All slots are
        read off the picture at once, in a row less than half as long.
        """
        grids, options = self._grids(images), self.options
        spoken = generator.random(len(images)) < options.words
        gaps = np.where(spoken, generator.integers(0, options.gap + 1, len(images)), 0)
        ends = int(self.program.end_of_words)
        prompts = [
            prompt_ids(self.tokenizer, h * w, bool(words)) + [ends] * bool(words)
            for (h, w), words in zip(grids, spoken, strict=True)
        ]
        keys = [i for slot in range(len(self.forced_lengths)) for i in self.program.before(slot)]
        merged = self.patch_count // self.config.vision.spatial_merge_size**2
        longest = max(len(prompt_ids(self.tokenizer, merged, words)) for words in (True, False))
        answers, weights = [keys] * len(images), [[0.0] * len(keys)] * len(images)
        length = longest + 1 + len(keys)
        made = rows(prompts, answers, weights, grids, self.config, length, merged)
        skipped = np.repeat(np.arange(len(self.forced_lengths)), self.forced_lengths)
        for row, (prompt, gap) in enumerate(zip(prompts, gaps, strict=True)):
            behind = slice(len(prompt), len(prompt) + len(keys))
            made.positions[:, row, behind] += skipped + gap
            made.positions[:, row, len(prompt) - 1] += gap
        start = np.array([len(prompt) for prompt in prompts])
        last_key = np.cumsum(self.forced_lengths) - 1
        return {
            "patches": vision.collate(list(images), self.config.vision, self.patch_count),
            "rows": made,
            "slots": (start[:, None] + last_key).astype(np.int32),
        }

    def _grids(self, images: Sequence[np.ndarray]) -> list[tuple[int, int]]:
        """Height and width of each picture in merged tokens."""
        factor = self.config.vision.patch_size * self.config.vision.spatial_merge_size
        return [(image.shape[0] // factor, image.shape[1] // factor) for image in images]


def vocabulary_texts(coefficients: np.ndarray) -> list[str]:
    """Descriptions and prompts for training a tokenizer."""
    prompts = [text for text in _prompt_texts() for _ in range(len(coefficients) // 4 + 1)]
    return [describe(row, seed).text for seed, row in enumerate(coefficients)] + prompts


def _prompt_texts() -> list[str]:
    return [WITH_WORDS, NUMBERS_ONLY, "user", "assistant", IM_END]
