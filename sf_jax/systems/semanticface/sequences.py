"""Face records → token rows: prompt, words, and the coefficients as an answer to learn.

Three things keep the numbers tied to the image rather than to the rationale before them: some
examples have no words, some have the words of another face (then the words carry no loss), and some
values are replaced in the *input* by those of another face while the target stays.

Where the values come first, the words describe the values in the input, replaced and rounded as
they are: so the model learns text that agrees with the values that it has generated.

Channels that are not known have no slot loss, and values of another face in the input. Words before
the values then carry no loss, since they would pass over what the image may show; words after the
values do, since they describe what the input holds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from sf_jax.decode.program import SlotProgram, compile_program
from sf_jax.decode.schema import VALUES_FIRST, Schema
from sf_jax.face import channels
from sf_jax.face.describe import describe
from sf_jax.model.config import Config
from sf_jax.reader.question import NUMBERS_FIRST, NUMBERS_ONLY, WITH_RATIONALE, prompt_ids
from sf_jax.reader.schema import channel_indices
from sf_jax.sequence import images as image_inputs
from sf_jax.sequence.batch import Batch, Capacity
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.tokenizer import IM_END, Tokenizer

FIELDS = ("Expression", "Movements", "Emotion", "Symmetry")  # of a rationale


@dataclass(frozen=True)
class SequenceConfig:
    """Attributes:
    length: tokens a row.
    words: share of examples with words before or after the numbers; the rest give numbers only.
    foreign_words: share, among those with words first, that are given the words of another face.
    foreign_values: share of input values replaced by those of another face.
    words_weight: loss weight of a token of the rationale, beside 1 for a slot.
    gap: most positions by which skipped words move the keys of a reading row.
    slots: learn slots over their allowed values, from exact numbers; else as tokens of values that
      are rounded by chance.
    values_first: share of examples whose numbers come first, by a prompt of their own; None is all
      or none, as the schema says.
    foreign_learnt: whether words of another face carry loss, so that they are generated too.
    fields: those of `FIELDS` that a rationale has.
    recorded: words are those of the records, and none where a record has none; else new
      descriptions.
    """

    length: int = 232
    words: float = 0.7
    foreign_words: float = 0.5
    foreign_values: float = 0.3
    words_weight: float = 3.0
    gap: int = 120
    slots: bool = True
    values_first: float | None = None
    foreign_learnt: bool = False
    fields: tuple[str, ...] = FIELDS
    recorded: bool = False


@dataclass(frozen=True)
class _Answer:
    """What follows a prompt: tokens to read and to learn, with loss weights; where its block is."""

    shown: list[int]
    wanted: list[int]
    weights: list[float]
    block: int


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
        self.indices = channel_indices(schema)
        self.answer_length = int(self.forced_lengths.sum()) + len(schema.names)
        share = options.values_first
        self.values_first = float(schema.values_first) if share is None else share

    @cached_property
    def _around_words(self) -> tuple[list[int], int]:
        """The tokens between numbers that come first and words, and the one that ends the words."""
        program = compile_program(replace(self.schema, order=VALUES_FIRST), self.tokenizer)
        return program.closing.tolist(), int(program.ends.argmax())

    @property
    def length_without_words(self) -> int:
        """Tokens of a row without a rationale, of the largest image."""
        merged = self.patch_count // self.config.vision.spatial_merge_size**2
        return len(self._prompt(merged, False, self.values_first > 0)) + self.answer_length

    def _prompt(self, merged: int, words: bool, values_first: bool) -> list[int]:
        return prompt_ids(self.tokenizer, merged, words, values_first=values_first)

    def _slots(self, numbers: np.ndarray) -> list[int]:
        """Allowed-token index of each slot's value."""
        low = np.array(self.schema.low)
        return np.rint((numbers - low) * 10**self.schema.decimals).astype(int).tolist()

    def _block(self, choices: list[int], known: Bool[np.ndarray, " C"]) -> list[tuple[int, float]]:
        """Key tokens and values, each with its loss weight as a token."""
        found = []
        for slot, choice in enumerate(choices):
            found += [(token, 0.0) for token in self.program.before(slot)]
            weight = 0.0 if self.options.slots else float(known[slot])
            found.append((int(self.program.value_symbols[slot, choice]), weight))
        return found

    def _answer(
        self,
        shown: list[int],
        wanted: list[int],
        known: Bool[np.ndarray, " C"],
        words: list[int],
        words_weight: float,
        values_first: bool,
    ) -> _Answer:
        """Words and block in their order, for the choices shown in the input and those wanted."""
        read, learnt = (self._block(choices, known) for choices in (shown, wanted))
        before: list[tuple[int, float]] = []
        after: list[tuple[int, float]] = []
        if words and values_first:
            closing, end = self._around_words
            after = [(token, 0.0) for token in closing]
            after += [(token, words_weight) for token in (*words, end)]
        elif words:
            end = int(self.program.rationale_end)
            before = [(token, words_weight) for token in (*words, end)]
        return _Answer(
            [token for token, _ in (*before, *read, *after)],
            [token for token, _ in (*before, *learnt, *after)],
            [weight for _, weight in (*before, *learnt, *after)],
            len(before),
        )

    def _values(self, choices: list[int]) -> Float[np.ndarray, " C"]:
        """The numbers of values as they stand in an answer."""
        return np.array(self.schema.low) + np.array(choices) / 10.0**self.schema.decimals

    def example(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        numbers: Float[np.ndarray, " C"],
        foreign: Float[np.ndarray, " C"],
        generator: np.random.Generator,
        known: Bool[np.ndarray, " 61"] | None = None,
        text: str = "",
        foreign_text: str = "",
    ) -> Example:
        """One face as prompt, answer to read and answer to learn.

        Args:
          image: with sides that fit the patch grid.
          numbers: of all channels; foreign: those of some other face.
          known: which of the numbers are known; None is all.
          text, foreign_text: the recorded rationales of both faces, where these are learnt.
        """
        options = self.options
        known = np.ones(len(numbers), bool) if known is None else known
        of = self.indices
        merged = int(np.prod(image_inputs.token_grid(image, self.config.vision)))
        values_first = bool(self.values_first and generator.random() < self.values_first)
        spoken = generator.random() < options.words
        borrowed = not values_first and generator.random() < options.foreign_words
        wording = int(generator.integers(1 << 30))
        decimals = self.schema.decimals
        target = self._slots(round_randomly(numbers[of], decimals, generator))
        other = self._slots(round_randomly(foreign[of], decimals, generator))
        swapped = (generator.random(len(target)) < options.foreign_values) | ~known[of]
        shown = [b if swap else a for a, b, swap in zip(target, other, swapped, strict=True)]
        words: list[int] = []
        if spoken:
            if options.recorded:
                written = foreign_text if borrowed else text
            else:
                plain = foreign if borrowed else np.where(known, numbers, foreign)
                if values_first:
                    plain = plain.copy()
                    plain[of] = self._values(shown)
                written = describe(plain, wording).text
            words = self.tokenizer.encode(with_fields(written, options.fields))
        prompt = self._prompt(merged, bool(words), values_first)
        # The few descriptions that would not fit the row are left out, words and all.
        around = len(self._around_words[0]) + 1 if values_first else 1
        if len(prompt) + len(words) + around + self.answer_length > options.length:
            words, prompt = [], self._prompt(merged, False, values_first)
        learnt = values_first or bool(known.all() if not borrowed else options.foreign_learnt)
        weight = options.words_weight if learnt else 0.0
        answer = self._answer(shown, target, known[of], words, weight, values_first)
        inserts = image_inputs.image_inserts(prompt, [image], self.config)
        example = Example.of(prompt, inserts, answer.shown, answer.wanted, answer.weights)
        if not options.slots:
            return example
        start = len(prompt) + answer.block
        at = start + np.cumsum(self.forced_lengths + 1) - 2
        return self._with_slots(example, at, numbers[of], known[of])

    def _with_slots(
        self,
        example: Example,
        at: Int[np.ndarray, " C"],
        numbers: Float[np.ndarray, " C"],
        known: Bool[np.ndarray, " C"],
    ) -> Example:
        """The example with slots to predict from the states at these positions."""
        slots = np.zeros(len(example.tokens), np.int32)
        exact, weights = np.zeros((2, len(example.tokens)), np.float32)
        slots[at], exact[at], weights[at] = np.arange(1, len(at) + 1), numbers, known
        return replace(example, slots=slots, numbers=exact, slot_weights=weights)

    def batch(
        self,
        images: Sequence[UInt8[np.ndarray, "H W 3"]],
        coefficients: Float[np.ndarray, "B 61"],
        generator: np.random.Generator,
        known: Bool[np.ndarray, "B 61"] | None = None,
        texts: Sequence[str] | None = None,
    ) -> Batch:
        """A row an example, with slots. The sides of images fit the patch grid.

        Args:
          coefficients: of all channels, also where the schema has fewer.
          known: which of the coefficients are known; None is all.
          texts: recorded rationales; None: there are none.
        """
        numbers = np.clip(coefficients, np.array(channels.LOW), np.array(channels.HIGH))
        known = np.ones(numbers.shape, bool) if known is None else known
        texts = [""] * len(numbers) if texts is None else texts
        following = [(i + 1) % len(numbers) for i in range(len(numbers))]
        examples = [
            self.example(image, numbers[i], numbers[j], generator, known[i], texts[i], texts[j])
            for (i, image), j in zip(enumerate(images), following, strict=True)
        ]
        capacity = self._capacity(self.options.length, self.options.slots)
        return assemble([[example] for example in examples], capacity)

    def reading(
        self,
        images: Sequence[UInt8[np.ndarray, "H W 3"]],
        coefficients: Float[np.ndarray, "B C"],
        generator: np.random.Generator,
        known: Bool[np.ndarray, "B C"] | None = None,
    ) -> Batch:
        """Rows of the keys alone, with slots and without targets.

        Words and values are skipped, but positions are what they would be with them. All slots are
        read off the image at once, in a row less than half as long.

        Args:
          known: which of the coefficients are known; None is all.
        """
        options = self.options
        known = np.ones(np.shape(coefficients), bool) if known is None else known
        first = generator.random(len(images)) < self.values_first
        spoken = (generator.random(len(images)) < options.words) & ~first
        gaps = np.where(spoken, generator.integers(0, options.gap + 1, len(images)), 0)
        prompts = [
            self._prompt(int(np.prod(grid)), bool(words), bool(values))
            for grid, words, values in zip(self._grids(images), spoken, first, strict=True)
        ]
        ends = [[int(self.program.rationale_end)] * int(words) for words in spoken]
        examples = [
            self._keys(image, coefficients[i], [*prompts[i], *ends[i]], int(gaps[i]), known[i])
            for i, image in enumerate(images)
        ]
        keys = int(self.forced_lengths.sum())
        merged = self.patch_count // self.config.vision.spatial_merge_size**2
        kinds = ((True, False), (False, False), (True, True))
        longest = max(len(self._prompt(merged, *kind)) for kind in kinds)
        capacity = self._capacity(longest + 1 + keys, slots=True)
        made = assemble([[example] for example in examples], capacity)
        return replace(made, targets=None)

    def _grids(self, images: Sequence[UInt8[np.ndarray, "H W 3"]]) -> list[tuple[int, int]]:
        return [image_inputs.token_grid(image, self.config.vision) for image in images]

    def _keys(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        numbers: Float[np.ndarray, " C"],
        prompt: list[int],
        gap: int,
        known: Bool[np.ndarray, " C"],
    ) -> Example:
        """A prompt and all keys; `gap` positions are left out where words would be."""
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
        return self._with_slots(example, last_keys, numbers[self.indices], known[self.indices])

    def _capacity(self, length: int, slots: bool) -> Capacity:
        return image_inputs.capacity(self.config, length, self.patch_count, slots)


def with_fields(text: str, fields: Sequence[str]) -> str:
    """A rationale without the lines of fields that are not among `fields`, of `FIELDS`."""
    if len(fields) == len(FIELDS):
        return text
    left_out = "|".join(name for name in FIELDS if name not in fields)
    heading = re.compile(rf"\d\.\s*\**[^:*\n.]{{0,24}}?(?:{left_out})[^:*\n.]{{0,24}}\**\s*:")
    return "\n".join(line for line in text.split("\n") if not heading.match(line))


def mirrored_text(text: str) -> str:
    """A rationale of the mirrored image: left and right are exchanged."""
    sides = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return re.sub(r"\b(?:[Ll]eft|[Rr]ight)\b", lambda match: sides[match[0]], text)


def vocabulary_texts(coefficients: np.ndarray) -> list[str]:
    """Descriptions and prompts for training a tokenizer."""
    prompts = [text for text in _prompt_texts() for _ in range(len(coefficients) // 4 + 1)]
    return [describe(row, seed).text for seed, row in enumerate(coefficients)] + prompts


def _prompt_texts() -> list[str]:
    return [WITH_RATIONALE, NUMBERS_ONLY, NUMBERS_FIRST, "user", "assistant", IM_END]
