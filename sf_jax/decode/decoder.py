"""Decoding by a schema: a model, its tokenizer and the program of its slots, with a few calls.

Knows prompts as batches and answers as numbers in slots; what the slots mean, and what a prompt
asks, is for callers to know.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Required, TypedDict, Unpack

import jax
import numpy as np
from jaxtyping import Float, Float32, Int32

from sf_jax.decode.degenerate import is_degenerate
from sf_jax.decode.drafts import Draft, DraftHeads
from sf_jax.decode.generate import SEQUENTIAL, Filled, Generated, generate
from sf_jax.decode.limits import MOST_TEMPERATURE, SEEDS
from sf_jax.decode.noise import Sampling
from sf_jax.decode.policy import DevicePolicy, policy_of
from sf_jax.decode.program import SlotProgram, compile_program
from sf_jax.decode.rationale import Rationale
from sf_jax.decode.schema import Schema
from sf_jax.decode.score import score
from sf_jax.decode.state import prompt_prefix
from sf_jax.decode.stream import stream
from sf_jax.model.architecture import Architecture, ModelWeights
from sf_jax.model.text import Cache
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.tokenizer import BLANK_LINE, Tokenizer

SHORTEST_PREFIX = 16  # tokens that prompts begin with, from which on they are kept between calls
PREFIX_STEP = 16  # lengths of prefixes are multiples of it, so that few programs are compiled
MOST_PREFIXES = 8
DECODINGS = ("drafted", "sequential")
RATIONALE_STEP = 32  # a given rationale is padded to a multiple of so many tokens


class Previous(NamedTuple):
    """An answer like the one to come, to draft from: of the frame before."""

    rationale_ids: Int32[np.ndarray, " T"]
    values: Float32[np.ndarray, " C"]


class Asked(TypedDict, total=False):
    """How an answer is to be made.

    Attributes:
      max_rationale: cap on the tokens of the rationale; required.
      rationale: whether there is one, as usual, where the schema puts it.
      temperature, seed: of each row, or one for all; 0 samples nothing.
      decoding: "drafted", or the plain and slower "sequential", which gives the same answer.
      previous: of each row, where there is an answer like the one to come.
    """

    max_rationale: Required[int]
    rationale: bool
    temperature: float | Sequence[float]
    seed: int | Sequence[int]
    decoding: str
    previous: Sequence[Previous | None] | None


@dataclass(frozen=True)
class Decoded:
    """One answer; axis R is there where the block repeats.

    Attributes:
      rationale: its text; rationale_ids: its tokens.
      rationale_log_probabilities: of each of these tokens and of the end, in nats.
      text: rationale and JSON, as generated.
      values: the generated value of each slot.
      mean, spread, entropy: of the distribution of each slot; entropy in nats.
      log_likelihood: of the generated values.
      probabilities: of each value that a slot can have, as in `SlotProgram.values`.
      passes: model passes spent, {"rationale": n, "coefficients": m}.
      degenerate: whether the rationale is no text, see `is_degenerate`; the values depend on it
        unless they come first.
    """

    rationale: str
    rationale_ids: Int32[np.ndarray, " T"]
    rationale_log_probabilities: Float32[np.ndarray, " T+1"]
    text: str
    values: Float32[np.ndarray, "*R C"]
    mean: Float32[np.ndarray, "*R C"]
    spread: Float32[np.ndarray, "*R C"]
    entropy: Float32[np.ndarray, "*R C"]
    log_likelihood: Float32[np.ndarray, "*R C"]
    probabilities: Float32[np.ndarray, "*R C V"]
    passes: dict[str, int]
    degenerate: bool


class Decoder:
    """A model that answers under a schema.

    Args:
      config: see `model.architecture.Architecture`.
      weights: in its tree; laid out as the policy says.
      draft_heads: propose tokens of the rationale, or None.
      policy: None chooses by the platform that jax runs on.
      free_form: whether rationales may have any form, or are plain sentences; see `is_degenerate`.

    Attributes:
      plan: how wide to draft; may be replaced at any time.
    """

    def __init__(
        self,
        config: Architecture,
        weights: ModelWeights,
        tokenizer: Tokenizer,
        schema: Schema,
        draft_heads: DraftHeads | None = None,
        policy: DevicePolicy | None = None,
        *,
        free_form: bool = True,
    ):
        if policy is None:
            policy = policy_of(jax.default_backend(), weights.text.layers, config.product_dtype)
        self.config, self.tokenizer, self.schema = config, tokenizer, schema
        self.draft_heads, self.policy = draft_heads, policy
        self.weights, self.plan = policy.laid_out(weights), policy.plan
        self._free_form = free_form
        self._prefixes: dict[tuple[int, ...], Cache] = {}
        self._keeping = threading.Lock()  # of prefixes, which may be asked for in several threads

    @cached_property
    def program(self) -> SlotProgram:
        """The slot program, in the host's memory."""
        return compile_program(self.schema, self.tokenizer, self.config.text.vocab_size)

    @cached_property
    def _on_device(self) -> tuple[SlotProgram, DraftHeads | None]:
        return jax.device_put((self.program, self.draft_heads))

    @cached_property
    def _low_precision(self) -> ModelWeights | None:
        return self.policy.for_drafts(self.weights)

    def prefix(self, ids: Sequence[int]) -> Cache | None:
        """The cache of tokens that prompts begin with, such as a system message.

        Args:
          ids: what precedes the inputs of other modalities.

        Returns:
          None where they are few; else of as many of them as are a multiple of `PREFIX_STEP`, kept
          for the next call.
        """
        if len(ids) < SHORTEST_PREFIX:
            return None
        key = tuple(ids[: len(ids) // PREFIX_STEP * PREFIX_STEP])
        found = self._prefixes.get(key)
        if found is None:
            found = prompt_prefix(self.weights, np.array(key, np.int32), self.config)
            with self._keeping:
                if key not in self._prefixes and len(self._prefixes) == MOST_PREFIXES:
                    del self._prefixes[next(iter(self._prefixes))]
                self._prefixes[key] = found
        return found

    def generate(
        self,
        prompt: Batch,
        prefix: Cache | None = None,
        *,
        most: int | None = None,
        features: Float[np.ndarray, "B R M D"] | None = None,
        **asked: Unpack["Asked"],
    ) -> Generated:
        """One compiled call, left running.

        Args:
          prompt: padded on the left.
          prefix: what all prompts begin with, left out of `prompt`.
          most, features: where the block repeats, see `decode.generate.generate`.
          asked: see `Asked`.

        Raises:
          ValueError: an argument is out of range.
        """
        return generate(*self._arguments(prompt, prefix, **asked), most, features)

    def stream(
        self,
        prompt: Batch,
        prefix: Cache | None = None,
        *,
        most: int | None = None,
        features: Iterable[Float[np.ndarray, "B M D"]] | None = None,
        **asked: Unpack["Asked"],
    ) -> Iterator[Rationale | Filled]:
        """The same, handed out as it is made: the rationale, then block by block.

        See `decode.stream.stream` about `most` and `features`.
        """
        made: Callable[..., Iterator[Rationale | Filled]] = stream
        return made(*self._arguments(prompt, prefix, **asked), most=most, features=features)

    def _arguments(
        self,
        prompt: Batch,
        prefix: Cache | None,
        *,
        max_rationale: int,
        rationale: bool = True,
        temperature: float | Sequence[float] = 0.0,
        seed: int | Sequence[int] = 0,
        decoding: str = "drafted",
        previous: Sequence[Previous | None] | None = None,
    ) -> tuple[Any, ...]:
        """What `generate` and `stream` take alike."""
        count = len(prompt.input_ids)
        sampling = check_asked(
            count,
            max_rationale=max_rationale,
            temperature=temperature,
            seed=seed,
            decoding=decoding,
        )
        program, heads = self._on_device
        plan = SEQUENTIAL if decoding == "sequential" else self.plan
        if heads is None and previous is None:
            plan = replace(plan, rationale_width=1)
        draft = self._draft(previous or [None] * count, max_rationale)
        return (
            self.weights,
            prompt,
            program,
            replace(draft, heads=heads),
            sampling,
            self.config,
            plan,
            max_rationale,
            rationale,
            prefix,
            None if plan.sequential else self._low_precision,
        )

    def _draft(self, previous: Sequence[Previous | None], cap: int) -> Draft:
        """Answers like those before; where there are none, the values nearest to 0."""
        program = self.program
        ids = np.zeros((len(previous), cap + 1), np.int32)
        values = np.zeros((len(previous), program.named), np.float32)
        for row, answer in enumerate(previous):
            if answer is not None:
                given = [*answer.rationale_ids.tolist(), int(program.ends.argmax())][: cap + 1]
                ids[row, : len(given)], values[row] = given, answer.values
        # The frame before is a better draft than passes in low precision make.
        passes = 0 if all(previous) else self.plan.low_precision_passes
        return Draft(ids, program.nearest(values), None, np.int32(passes))

    def score(
        self,
        prompt: Batch,
        prefix: Cache | None,
        values: Float32[np.ndarray, "*R C"],
        rationale: str | None,
    ) -> tuple[Float32[np.ndarray, " T"], Float32[np.ndarray, "*R C"]]:
        """Log-likelihoods of one answer to a prompt of one row, in nats.

        Args:
          values: taken as the nearest values of their slots.
          rationale: None where there is none.

        Returns:
          of the rationale's tokens and its end, and of each value.

        Raises:
          ValueError: the rationale holds text that no generated rationale can, or a value is not
            finite.
        """
        for row in np.atleast_2d(values):
            for name, value in zip(self.schema.names, row, strict=False):
                if not np.isfinite(value):
                    raise ValueError(f"{name} is {value}, expected a finite number")
        ids, free = self._given(rationale)
        padded = np.zeros((1, -(-max(len(ids), 1) // RATIONALE_STEP) * RATIONALE_STEP), np.int32)
        padded[0, : len(ids)] = ids
        scored = jax.device_get(
            score(
                self.weights,
                prompt,
                self._on_device[0],
                padded,
                np.array([len(ids)]),
                np.array([free]),
                self.program.nearest(np.asarray(values))[None],
                sampling_of(0.0, 0, 1),
                self.config,
                prefix,
            )
        )
        return scored.rationale[0, :free], scored.slots[0]

    def _given(self, rationale: str | None) -> tuple[list[int], int]:
        """The tokens of a rationale, its end included unless that begins the block, and how many
        tokens from the first on a model would choose freely."""
        program = self.program
        if rationale is None:
            return [], 0
        ids = self.tokenizer.encode(rationale)
        for token in ids:
            if program.banned[token] or program.ends[token]:
                text = self.tokenizer.decode([token])
                raise ValueError(f"the rationale holds {text!r}, which ends one or belongs to none")
        if program.values_first:
            ids.append(int(program.ends.argmax()))
            return ids, len(ids)
        ids += [] if program.block_ends_rationale else [int(program.rationale_end)]
        return ids, len(ids) + program.block_ends_rationale

    def decoded(self, generated: Generated, rationale: bool) -> Iterator[Decoded]:
        """The answers of a batch in the host's memory; `rationale` as it was asked for."""
        for row in range(len(generated.choices)):
            yield self._decoded_row(generated, row, rationale)

    def _decoded_row(self, generated: Generated, row: int, rationale: bool) -> Decoded:
        program = self.program
        own = slice(None) if generated.repeats is None else slice(int(generated.repeats[row]))
        choices, logs = generated.choices[row][own], generated.log_probabilities[row][own]
        grid = program.values[program.kind[: program.named]]
        probabilities = np.exp(logs)
        mean = (probabilities * grid).sum(-1)
        square = (probabilities * np.square(grid)).sum(-1)
        values = np.take_along_axis(np.broadcast_to(grid, logs.shape), choices[..., None], -1)
        likelihood = np.take_along_axis(logs, choices[..., None], -1)
        length = int(generated.rationale_length[row])
        ids = generated.rationale_ids[row, :length]
        text = self.tokenizer.decode(ids.tolist())
        truncated = bool(generated.truncated[row])
        spoken = values[..., 0]
        return Decoded(
            rationale=text,
            rationale_ids=ids,
            rationale_log_probabilities=generated.rationale_log_probabilities[row, : length + 1],
            text=self._whole_text(text, spoken, rationale, truncated),
            values=spoken,
            mean=np.clip(mean, self.schema.low, self.schema.high).astype(np.float32),
            spread=np.sqrt(np.maximum(square - mean**2, 0)),
            entropy=-(probabilities * np.where(probabilities > 0, logs, 0)).sum(-1),
            log_likelihood=likelihood[..., 0],
            probabilities=probabilities,
            passes={
                "rationale": int(generated.rationale_passes[row]),
                "coefficients": int(generated.block_passes[row]),
            },
            degenerate=is_degenerate(text, ids, truncated=truncated, free_form=self._free_form),
        )

    def sound(self, decoded: Decoded) -> Decoded:
        """An answer whose values come first, without its rationale where that is degenerate."""
        if not decoded.degenerate:
            return decoded
        return replace(
            decoded,
            rationale="",
            rationale_ids=decoded.rationale_ids[:0],
            rationale_log_probabilities=np.zeros(1, np.float32),
            text=self.schema.format(decoded.values),
            degenerate=False,
        )

    def _whole_text(self, rationale: str, values: np.ndarray, asked: bool, truncated: bool) -> str:
        """Rationale and JSON in the order in which they were generated."""
        block = self.schema.format(values)
        if self.schema.values_first:
            return block + BLANK_LINE + rationale if asked else block
        # A rationale that ran into the block on its own holds the blank line already.
        parted = asked and self.program.block_ends_rationale and not truncated
        return rationale + ("" if parted else BLANK_LINE) + block


def check_asked(
    rows: int,
    *,
    max_rationale: int = 1,
    temperature: float | Sequence[float] = 0.0,
    seed: int | Sequence[int] = 0,
    decoding: str = "drafted",
    previous: object = None,
) -> Sampling:
    """The sampling of what is asked for, as `Decoder.generate` takes it; `previous` can be any.

    Raises:
      ValueError: an argument is out of range.
    """
    if decoding not in DECODINGS:
        raise ValueError(f"decoding is {decoding!r}, expected one of {DECODINGS}")
    if max_rationale < 1:
        raise ValueError(f"max_rationale is {max_rationale}, expected 1 or more")
    return sampling_of(temperature, seed, rows)


def sampling_of(
    temperature: float | Sequence[float], seed: int | Sequence[int], rows: int
) -> Sampling:
    """Temperature and seed of each row: one of each for all, or one for each.

    Raises:
      ValueError: a temperature is not from 0 to `MOST_TEMPERATURE`, or a seed no whole number of 32
        bits.
    """
    temperatures = np.broadcast_to(np.asarray(temperature, np.float64), (rows,))
    if not ((temperatures >= 0) & (temperatures <= MOST_TEMPERATURE)).all():
        raise ValueError(f"temperature is {temperature}, expected 0 to {MOST_TEMPERATURE:g}")
    seeds = np.broadcast_to(np.asarray(seed), (rows,))
    if seeds.dtype.kind not in "iu" or not ((seeds >= 0) & (seeds < SEEDS)).all():
        raise ValueError(f"seed is {seed}, expected a whole number from 0 to {SEEDS - 1}")
    return Sampling(temperatures.astype(np.float32), seeds.astype(np.uint32))
