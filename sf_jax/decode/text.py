"""Free text alone, without slots: what a language model answers, up to where its turn ends."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import jax
import numpy as np
from flax import struct
from jaxtyping import Bool

from sf_jax.decode.arrays import HostOrDevice
from sf_jax.decode.decoder import PREFIX_STEP, sampling_of
from sf_jax.decode.drafts import Draft
from sf_jax.decode.noise import Sampling
from sf_jax.decode.policy import policy_of
from sf_jax.decode.rationale import Rationale, generate_rationale
from sf_jax.decode.state import prefill, prompt_prefix
from sf_jax.model.architecture import Architecture, ModelWeights
from sf_jax.model.text import Cache
from sf_jax.sequence.batch import Batch, Capacity
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.tokenizer import IM_END, Tokenizer

PROMPT_STEP = 64  # prompts are padded to a multiple of so many tokens, each a program of its own


@struct.dataclass
class TurnEnd:
    """The end of a turn ends the text; other control tokens may not be in it."""

    banned: Bool[HostOrDevice, " A"]
    ends: Bool[HostOrDevice, " A"]


def turn_end(tokenizer: Tokenizer, vocabulary: int) -> TurnEnd:
    """Of a tokenizer with Qwen's chat form; `vocabulary` counts the rows of the embedding."""
    banned, ends = np.ones(vocabulary, bool), np.zeros(vocabulary, bool)
    banned[: len(tokenizer)] = False
    banned[tokenizer.reserved()] = True
    ends[tokenizer.symbol(IM_END)] = True
    return TurnEnd(banned, ends)


@partial(jax.jit, static_argnames=("config", "cap"))
def generate_text(
    weights: ModelWeights,
    prompt: Batch,
    end: TurnEnd,
    draft: Draft,
    sampling: Sampling,
    config: Architecture,
    cap: int,
    prefix: Cache | None = None,
) -> Rationale:
    """Text after prompts that are padded on the left, at most `cap` tokens a row.

    Args:
      draft: see `drafts.Draft`; without choices.
      prefix: what all prompts begin with, taken off `prompt`.
    """
    held = prompt.input_ids.shape[1] + (0 if prefix is None else prefix.segments.shape[1])
    state = prefill(weights, prompt, held, config, prefix).widened(held + cap + 1)
    return generate_rationale(weights, state, end, draft, sampling, config, cap, 1)[1]


class Writer:
    """A language model that continues prompts, a batch at a time.

    Args:
      rows: of a batch; fewer prompts are padded to as many, so that one program serves.
      cap: on the tokens of a text.
    """

    def __init__(
        self,
        config: Architecture,
        weights: ModelWeights,
        tokenizer: Tokenizer,
        *,
        rows: int,
        cap: int,
    ):
        policy = policy_of(jax.default_backend(), weights.text.layers, config.product_dtype)
        self.config, self.weights = config, policy.laid_out(weights)
        self.tokenizer, self.rows, self.cap = tokenizer, rows, cap
        self._end = jax.device_put(turn_end(tokenizer, config.text.vocab_size))
        self._prefix: tuple[list[int], Cache | None] = ([], None)

    def begin_with(self, text: str) -> None:
        """Keeps the cache of a text that prompts begin with, such as a system message."""
        ids = self.tokenizer.encode(text)
        ids = ids[: len(ids) // PREFIX_STEP * PREFIX_STEP]
        made = prompt_prefix(self.weights, np.array(ids, np.int32), self.config) if ids else None
        self._prefix = (ids, made)

    def write(self, prompts: Sequence[str]) -> list[tuple[str, bool]]:
        """The likeliest texts after up to `rows` prompts, and whether each ended within the cap."""
        ids = [self.tokenizer.encode(prompt) for prompt in prompts]
        known, prefix = self._prefix
        if any(row[: len(known)] != known or len(row) == len(known) for row in ids):
            known, prefix = [], None
        ids += [ids[-1]] * (self.rows - len(ids))
        longest = max(len(row) - len(known) for row in ids)
        capacity = Capacity(-(-longest // PROMPT_STEP) * PROMPT_STEP)
        examples = [[Example.of(row)] for row in ids]
        made = generate_text(
            self.weights,
            assemble(examples, capacity, left=True, skip=len(known)),
            self._end,
            Draft(np.zeros((self.rows, self.cap), np.int32), np.zeros((self.rows, 0), int), None),
            sampling_of(0.0, 0, self.rows),
            self.config,
            self.cap,
            prefix,
        )
        found = cast(Any, jax.device_get(made))
        return [
            (self.tokenizer.decode(found.ids[row, : found.length[row]].tolist()), not cut)
            for row, cut in enumerate(found.truncated[: len(prompts)])
        ]
