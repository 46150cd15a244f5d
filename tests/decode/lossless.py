"""How answers are held against the reference: equal, or different from a tie of two tokens on.

The reference takes one token a pass under a mask over the whole vocabulary. Rounding differs with
the shape of a pass, so where an answer differs from it, the two best tokens must have been equal to
within TIE of the largest score; such answers are counted.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from sf_jax.decode.drafts import Draft
from sf_jax.decode.generate import DraftPlan, Generated, generate
from sf_jax.decode.noise import Sampling
from sf_jax.decode.program import SlotProgram, compile_program
from sf_jax.decode.reference import Automaton, token_by_token
from sf_jax.decode.schema import Schema
from sf_jax.decode.score import Score, score
from sf_jax.decode.state import feed_tokens, prefill
from sf_jax.model.config import Config, TextConfig, VisionConfig
from sf_jax.model.declared import initialise
from sf_jax.model.weights import Weights, draft_weights, unstack_layers
from sf_jax.reader.question import prompt_ids
from sf_jax.sequence import images
from sf_jax.sequence import tokenizer as tokenizers
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.example import Example, assemble

SMALL = Config(
    VisionConfig(
        depth=2, hidden_size=64, intermediate_size=96, num_heads=4, out_hidden_size=48,
        num_position_embeddings=49, deepstack_visual_indexes=(0,),
    ),
    TextConfig(
        vocab_size=200, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, mrope_section=(4, 2, 2),
    ),
    7, 8, 9,
)  # fmt: skip
TIE = 1e-5
MAX_WORDS = 12
PATCHES = 36
PLAN = DraftPlan(rationale_width=3, block_widths=(16, 40), low_precision_passes=1)


class NotEqualError(AssertionError):
    """An answer that differs from the reference where no tie was."""


def answer_ids(
    program: SlotProgram, generated: Generated, row: int, with_rationale: bool
) -> list[int]:
    """The tokens of an answer, rationale and blocks in their order."""
    if program.values_first:
        return _values_first_ids(program, generated, row, with_rationale)
    ids = generated.rationale_ids[row, : generated.rationale_length[row]].tolist()
    if generated.truncated[row] or (with_rationale and not program.block_ends_rationale):
        ids.append(int(program.rationale_end))
    choices = generated.choices[row]
    if generated.repeats is not None:
        choices = choices[: generated.repeats[row]]
    return ids + program.answer(choices)


def _values_first_ids(
    program: SlotProgram, generated: Generated, row: int, with_rationale: bool
) -> list[int]:
    ids = program.answer(generated.choices[row])
    if not with_rationale:
        return ids
    ids += program.closing.tolist()
    ids += generated.rationale_ids[row, : generated.rationale_length[row]].tolist()
    return ids + [int(program.ends.argmax())] * (not generated.truncated[row])


def count_ties(
    answers: list[list[int]], reference: list[Automaton], gaps: np.ndarray, tie: float = TIE
) -> int:
    """How many answers differ from the reference from a tie on.

    Raises:
      NotEqualError: one differs where there was none.
    """
    ties = 0
    for row, (ids, made) in enumerate(zip(answers, reference, strict=True)):
        if ids == made.ids:
            continue
        pairs = zip(ids, made.ids, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(made.ids)))
        if at >= len(made.ids) or not gaps[row, at] <= tie:
            raise NotEqualError(f"row {row} differs at {at}, where the gap is {gaps[row, at]}")
        ties += 1
    return ties


@dataclass(frozen=True)
class Tiny:
    """A small random model with the program of a schema."""

    config: Config
    weights: Weights
    tokenizer: tokenizers.Tokenizer
    program: SlotProgram
    patches: int = PATCHES  # that pictures are padded to
    low_precision: Weights | None = None  # None is these weights in low precision

    @classmethod
    def make(
        cls,
        config: Config,
        tokenizer: tokenizers.Tokenizer,
        schema: Schema,
        seed: int,
        scale: float = 2.0,
        stacked: bool = False,
    ) -> "Tiny":
        """Weights large enough that answers differ from slot to slot and picture to picture."""
        names = tokenizers.IMAGE, tokenizers.VISION_START, tokenizers.VISION_END
        ids = [tokenizer.symbol(name) for name in names]
        language = dataclasses.replace(config.text, vocab_size=len(tokenizer) + 40)
        config = dataclasses.replace(
            config,
            text=language,
            image_token_id=ids[0],
            vision_start_token_id=ids[1],
            vision_end_token_id=ids[2],
        )
        weights = jax.tree.map(
            lambda x: x * scale if x.ndim > 1 else x, initialise(config.declare(), seed)
        )
        program = compile_program(schema, tokenizer, language.vocab_size)
        return cls(config, weights if stacked else unstack_layers(weights), tokenizer, program)

    def inputs(self, pictures: list[np.ndarray], with_rationale: bool) -> Batch:
        return prompts_about(
            pictures,
            self.config,
            self.tokenizer,
            self.patches,
            with_rationale,
            self.program.values_first,
        )

    def answer(
        self,
        pictures: list[np.ndarray],
        sampling: Sampling,
        plan: DraftPlan = PLAN,
        with_rationale: bool = True,
        draft: Draft | None = None,
        max_words: int = MAX_WORDS,
        **repeated: Any,
    ) -> Generated:
        batch = self.inputs(pictures, with_rationale)
        at_rest = np.zeros((len(pictures), self.program.named), np.float32)
        draft = draft or Draft(
            np.zeros((len(pictures), 2), np.int32), self.program.nearest(at_rest), None
        )
        draft = draft.replace(low_precision_passes=np.int32(plan.low_precision_passes))
        return jax.device_get(
            generate(
                self.weights,
                batch,
                self.program,
                draft,
                sampling,
                self.config,
                plan,
                max_words,
                with_rationale,
                low_precision=self.drafting(plan),
                **repeated,
            )
        )

    def drafting(self, plan: DraftPlan) -> Weights | None:
        """The weights of low-precision passes."""
        return (
            (self.low_precision or draft_weights(self.weights))
            if plan.low_precision_passes
            else None
        )

    def reference(
        self,
        pictures: list[np.ndarray],
        sampling: Sampling,
        with_rationale: bool = True,
        max_words: int = MAX_WORDS,
        **repeated: Any,
    ) -> tuple[list[Automaton], np.ndarray]:
        batch = self.inputs(pictures, with_rationale)
        return token_by_token(
            self.weights,
            batch,
            self.program,
            sampling,
            self.config,
            max_words if with_rationale else 0,
            **repeated,
        )

    def rationale_states(
        self, pictures: list[np.ndarray], made: Generated
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """For each picture, the states that yielded its rationale, and their tokens."""
        batch = self.inputs(pictures, True)
        state = prefill(self.weights, batch, batch.input_ids.shape[1] + MAX_WORDS, self.config)
        whole = np.full(len(pictures), MAX_WORDS)
        _, following = feed_tokens(self.weights, state, made.rationale_ids, whole, self.config)
        states = np.concatenate([state.last[:, None], following], 1)
        return (
            [row[:count] for row, count in zip(states, made.rationale_length, strict=True)],
            [
                row[:count]
                for row, count in zip(made.rationale_ids, made.rationale_length, strict=True)
            ],
        )

    def certificate(
        self,
        pictures: list[np.ndarray],
        made: Generated,
        sampling: Sampling,
        with_rationale: bool = True,
        **repeated: Any,
    ) -> Score:
        """The score of answers as they were generated."""
        batch = self.inputs(pictures, with_rationale)
        return jax.device_get(
            score(
                self.weights,
                batch,
                self.program,
                *scored_rationale(self.program, made, with_rationale),
                made.choices,
                sampling,
                self.config,
                repeats=made.repeats,
                **repeated,
            )
        )


def prompts_about(
    pictures: list[np.ndarray],
    config: Config,
    tokenizer: tokenizers.Tokenizer,
    patches: int,
    with_rationale: bool,
    values_first: bool = False,
) -> Batch:
    """Prompts padded on the left."""

    def asked(tokens: int) -> list[int]:
        return prompt_ids(tokenizer, tokens, with_rationale, values_first=values_first)

    rows = []
    for picture in pictures:
        height, width = images.token_grid(picture, config.vision)
        ids = asked(height * width)
        rows.append([Example.of(ids, images.image_inserts(ids, [picture], config))])
    longest = len(asked(patches // 4))
    return assemble(rows, images.capacity(config, longest, patches), left=True)


def scored_rationale(
    program: SlotProgram, made: Generated, with_rationale: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `score` wants of the rationales of answers: tokens, how many, and how many were free."""
    ids = np.pad(made.rationale_ids, [(0, 0), (0, 1)])
    if program.values_first:
        ids[np.arange(len(ids)), made.rationale_length] = program.ends.argmax()
        length = np.where(with_rationale, made.rationale_length + ~made.truncated, 0)
        return ids, length, length.astype(np.int32)
    blank = made.truncated | (with_rationale and not program.block_ends_rationale)
    ids[np.arange(len(ids)), made.rationale_length] = np.where(blank, program.rationale_end, 0)
    free = np.where(made.truncated, made.rationale_length, made.rationale_length + 1)
    return ids, made.rationale_length + blank, np.where(with_rationale, free, 0).astype(np.int32)


def sampling(count: int, temperature: float = 0.0, first_seed: int = 0) -> Sampling:
    """A seed for each row."""
    seeds = np.arange(first_seed, first_seed + count, dtype=np.uint32)
    return Sampling(np.full(count, temperature, np.float32), seeds)
