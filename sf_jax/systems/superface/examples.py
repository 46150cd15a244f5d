"""Judged pairs as groups of answers to learn from: one image, one prompt, two answers.

Of an answer only the slots of the judged region count. A model whose values are one token each
learns slots over their allowed values; the grammar forces all else, so that nothing else can count.
Any other learns the tokens of values over the vocabulary, as in supervised training, and of an
answer that was judged as a whole all tokens, with the one that ends it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import xxhash
from jaxtyping import Bool, Float, Float32, Int, UInt8

from sf_jax.convert.processor import FittedImage, ImageProcessor
from sf_jax.decode.program import SlotProgram, compile_program
from sf_jax.decode.schema import Schema
from sf_jax.face import regions
from sf_jax.face.channels import NAMES
from sf_jax.face.regions import Region
from sf_jax.media import hashes
from sf_jax.media.errors import DataError
from sf_jax.model.config import Config
from sf_jax.reader import loading
from sf_jax.reader.question import Messages, prompt_ids
from sf_jax.reader.schema import channel_indices
from sf_jax.sequence import images
from sf_jax.sequence.example import Example
from sf_jax.sequence.tokenizer import Tokenizer
from sf_jax.systems.superface.pairs import Judgement, Pair, Side
from sf_jax.train.groups import Group

MOST_BYTES = 2**28  # of images that are kept as the model reads them
NEAREST = 1e-4  # by which a coefficient may miss the value of its slot
Image = UInt8[np.ndarray, "H W 3"]


class ExampleError(DataError):
    """Pairs, judgements or answers that nothing can be learnt from."""


@dataclass(frozen=True)
class AnswerExamples:
    """Coefficients as the answer of a model to one image, without a rationale.

    Attributes:
      slots: whether slots are learnt over their allowed values, else tokens over the vocabulary.
      messages: the question to an instructed model; None asks our own.
    """

    config: Config
    tokenizer: Tokenizer
    processor: ImageProcessor
    schema: Schema
    slots: bool
    messages: Messages | None = None

    @classmethod
    def of(
        cls, directory: Path, config: Config, messages: Messages | None = None
    ) -> "AnswerExamples":
        """Those of the model in a directory.

        Raises:
          CheckpointError, TokenizerError, ProcessorError, SchemaFileError: a file is missing or
            cannot be read.
        """
        inputs, schema = loading.load_inputs(directory, config), loading.load_schema(directory)
        return cls(config, *inputs, schema, not loading.is_instructed(directory), messages)

    @cached_property
    def program(self) -> SlotProgram:
        """The grammar of answers."""
        return compile_program(self.schema, self.tokenizer, self.config.text.vocab_size)

    @cached_property
    def channels(self) -> Int[np.ndarray, " C"]:
        return channel_indices(self.schema)

    @cached_property
    def longest(self) -> int:
        """A bound from below on the tokens of an answer."""
        return int(self.program.forced_length.sum()) + self.program.named

    def __call__(
        self,
        image: FittedImage,
        coefficients: Float32[np.ndarray, "61"],
        region: Region,
        number: int = 0,
        where: str = "answer",
    ) -> Example:
        """The example of an answer.

        Args:
          image: as `processor.fit` gives it.
          region: whose slots count.

        Raises:
          ExampleError: a coefficient is none that the slot of its channel can take, or no slot is
            of the region; names the answer.
        """
        choices = self._choices(coefficients, where)
        counted = regions.channels(region)[self.channels]
        if not counted.any():
            raise ExampleError(f"{where}: the model reads no channel of the region {region!r}")
        merged = int(np.prod(images.token_grid(image.pixels, self.config.vision)))
        first = self.schema.values_first
        prompt = prompt_ids(self.tokenizer, merged, False, self.messages, first)
        inserts = images.image_inserts(prompt, [image.pixels], self.config)
        if self.slots:
            return self._of_slots(prompt, inserts, choices, coefficients, counted, number, where)
        return self._of_tokens(prompt, inserts, choices, counted, region == "whole", number, where)

    def _choices(self, coefficients: np.ndarray, where: str) -> Int[np.ndarray, " C"]:
        """The value of each slot."""
        wanted = np.asarray(coefficients)[self.channels]
        choices = self.program.nearest(wanted)
        kind = np.asarray(self.program.kind)[: self.program.named]
        values = np.asarray(self.program.values)[kind, choices]
        wrong = np.flatnonzero(~(np.abs(values - wanted) <= NEAREST))
        if len(wrong):
            name, slot = NAMES[self.channels[wrong[0]]], wrong[0]
            problem = f"{name} is {wanted[slot]:g}, and the nearest value of its slot "
            raise ExampleError(f"{where}: {problem}{values[slot]:g}")
        return choices

    def _of_slots(
        self,
        prompt: list[int],
        inserts: Sequence[images.ImageInsert],
        choices: Int[np.ndarray, " C"],
        coefficients: Float32[np.ndarray, "61"],
        counted: Bool[np.ndarray, " C"],
        number: int,
        where: str,
    ) -> Example:
        """Slots are predicted by the states before their values, which are one token each."""
        answer = self.program.answer(choices)
        example = Example.of(
            prompt, inserts, answer, weights=[0.0] * len(answer), number=number, where=where
        )
        at = len(prompt) + np.cumsum(np.asarray(self.program.forced_length) + 1) - 2
        slots = np.zeros(len(example.tokens), np.int32)
        numbers, weights = np.zeros((2, len(example.tokens)), np.float32)
        slots[at], numbers[at] = np.arange(1, len(at) + 1), coefficients[self.channels]
        weights[at] = counted
        return replace(example, slots=slots, numbers=numbers, slot_weights=weights)

    def _of_tokens(
        self,
        prompt: list[int],
        inserts: Sequence[images.ImageInsert],
        choices: Int[np.ndarray, " C"],
        counted: Bool[np.ndarray, " C"],
        whole: bool,
        number: int,
        where: str,
    ) -> Example:
        """Values of several tokens; of a whole answer, its keys and its end count too."""
        answer, weights = [], []
        program = self.program
        for slot, choice in enumerate(choices):
            keys, value = program.before(slot), program.spelling(slot)[choice]
            answer += keys + value
            weights += [float(whole)] * len(keys) + [float(whole or counted[slot])] * len(value)
        closing = np.asarray(program.closing).tolist()
        return Example.of(
            prompt,
            inserts,
            answer + closing,
            weights=weights + [float(whole)] * len(closing),
            number=number,
            where=where,
        )


@dataclass(frozen=True)
class Judged:
    """What all judgements of a pair together say.

    Attributes:
      chosen: the answer that more of them chose.
      label_smoothing: the share of them that chose the other one; a tie is half of either.
      weight: how many there are.
    """

    pair: Pair
    chosen: Side
    label_smoothing: float
    weight: float

    @property
    def where(self) -> str:
        """For messages."""
        return f"pair {self.pair.key}"

    @property
    def chosen_coefficients(self) -> Float32[np.ndarray, "61"]:
        return self.pair.side(self.chosen).coefficients

    @property
    def rejected_coefficients(self) -> Float32[np.ndarray, "61"]:
        return self.pair.side("second" if self.chosen == "first" else "first").coefficients


def judged(
    pairs: Iterable[Pair], judgements: Iterable[Judgement], ties: bool = True
) -> list[Judged]:
    """The pairs that were judged, in their order.

    Left out are judgements "unclear", hidden repeats, and pairs whose better answer is known: these
    measure annotators. A pair with as many judgements for either answer is a tie.

    Args:
      ties: whether ties count, and pull both answers together; else they are left out.

    Raises:
      ExampleError: a judgement is of a pair that is not among these.
    """
    known = {pair.key: pair for pair in pairs}
    votes: dict[str, Counter[str]] = {key: Counter() for key in known}
    for judgement in judgements:
        if judgement.pair not in known:
            raise ExampleError(
                f"the judgement of {judgement.annotator!r} at {judgement.at} is of pair "
                f"{judgement.pair}, which is not among the {len(known)} pairs"
            )
        if not (judgement.repeat or judgement.gold or judgement.choice == "unclear"):
            votes[judgement.pair][judgement.choice] += 1
    found = []
    for key, count in votes.items():
        tied = count["tie"] if ties else 0
        total = count["first"] + count["second"] + tied
        if not total or known[key].gold is not None:
            continue
        share = (count["first"] + tied / 2) / total
        if not ties and share == 0.5:
            continue
        chosen: Side = "first" if share >= 0.5 else "second"
        found.append(Judged(known[key], chosen, min(share, 1 - share), float(total)))
    return found


@dataclass(frozen=True, eq=False)
class PairGroups:
    """Number → group of a judged pair; all pairs in one order, then all in another, without end.

    Attributes:
      judged: what is learnt from.
      image: → the pixels of a pair's image, as the model is to read them.
      answers: makes examples of coefficients.
      unlike: whether groups have a third answer, that of a pair with another image, as KTO asks.
      reference: log-probability of each pair's answers under the reference, where it is known.
      seed: of the orders.

    Raises:
      ExampleError: there are no judged pairs; or all are of one image, and `unlike` is asked for.
    """

    judged: Sequence[Judged]
    image: Callable[[Pair], Image]
    answers: AnswerExamples
    unlike: bool = False
    reference: Float[np.ndarray, "N S"] | None = None
    seed: int = 0
    # Of these pairs alone: `replace` may give other images, pairs or another seed. Batches are made
    # in a thread.
    _fitted: dict[str, FittedImage] = field(default_factory=dict, init=False, repr=False)
    _order: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)
    _fitting: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.judged:
            raise ExampleError("no judged pairs to learn from")
        if self.unlike and len({one.pair.image for one in self.judged}) == 1:
            raise ExampleError("all judged pairs are of one image; KTO needs answers to others")

    def __len__(self) -> int:
        return len(self.judged)

    def __call__(self, number: int) -> Group:
        """The group of a number; raises ExampleError, which names the pair."""
        epoch, at = divmod(number, len(self))
        order = self._order.get(epoch)
        if order is None:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self))
            self._order.clear()
            self._order[epoch] = order
        return replace(self.group(int(order[at])), number=number)

    def group(self, index: int) -> Group:
        """The group of a judged pair."""
        one = self.judged[index]
        given = [one.chosen_coefficients, one.rejected_coefficients]
        if self.unlike:
            other = self.judged[self._unlike(index)]
            even = index % 2 == 0  # as many of those that were chosen as of the others
            given.append(other.chosen_coefficients if even else other.rejected_coefficients)
        image, region = self._image(one), one.pair.region
        answers = tuple(self.answers(image, each, region, index, one.where) for each in given)
        reference = None if self.reference is None else self.reference[index]
        return Group(index, one.where, answers, one.weight, one.label_smoothing, reference)

    def _unlike(self, index: int) -> int:
        """The next pair with another image."""
        own = self.judged[index].pair.image
        after = ((index + step) % len(self) for step in range(1, len(self)))
        return next(i for i in after if self.judged[i].pair.image != own)

    def _image(self, one: Judged) -> FittedImage:
        with self._fitting:
            found = self._fitted.pop(one.pair.image, None)  # to be the one used last
            if found is None:
                try:
                    found = self.answers.processor.fit(self.image(one.pair))
                except ValueError as error:
                    raise ExampleError(f"{one.where}: {error}") from error
                while sum(x.pixels.nbytes for x in self._fitted.values()) > MOST_BYTES:
                    del self._fitted[next(iter(self._fitted))]
            self._fitted[one.pair.image] = found
            return found

    def with_reference(self, found: Float[np.ndarray, "N S"]) -> "PairGroups":
        """The same pairs with the log-probabilities of their answers under the reference."""
        made = replace(self, reference=found)
        kept = ("_fitted", "_fitting", "_order")  # which the reference does not change
        vars(made).update({name: vars(self)[name] for name in kept}, measured=self.measured)
        return made

    @cached_property
    def measured(self) -> tuple[list[tuple[int, int]], str]:
        """The size of each group in tokens and patches, and one hash of all that a model is asked:
        pixels, tokens, and what of them counts. Makes every group once."""
        settings = json.dumps(self.answers.processor.as_dict(), sort_keys=True)
        found, sizes = xxhash.xxh3_128(settings.encode()), []
        for index, one in enumerate(self.judged):
            found.update(one.pair.key.encode())
            # An image's name says nothing of pixels: they come from whatever was given.
            found.update(hashes.of_arrays(self._image(one).pixels).encode())
            group = self.group(index)
            sizes.append(group.size)
            for answer in group.answers:
                arrays = (answer.tokens, answer.loss_weights, answer.slots, answer.slot_weights)
                present = [array for array in arrays if array is not None]
                found.update(hashes.of_arrays(*present).encode())
        return sizes, found.hexdigest()


def images_by_hash(given: Mapping[str, Image]) -> Callable[[Pair], Image]:
    """Pair → its image, of images that are in memory.

    Raises, when called:
      ExampleError: the image of a pair is not among them.
    """

    def image(pair: Pair) -> Image:
        if pair.image not in given:
            raise ExampleError(f"its image, {pair.image}, is not among those given")
        return given[pair.image]

    return image
