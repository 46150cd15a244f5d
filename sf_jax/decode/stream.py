"""An answer handed out in parts: first the rationale, then block by block.

Two compiled calls with the state on the device, one up to the rationale's end and one for a block,
whatever the number of blocks: neither memory nor programs grow with it. The answer is that of
`generate`. Where the values come first, their block is handed out before the rationale is begun.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode import repeats as blocks
from sf_jax.decode.drafts import Draft
from sf_jax.decode.generate import DraftPlan, Filled, fill_block, following_rationale, start
from sf_jax.decode.noise import Sampling
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.rationale import Rationale
from sf_jax.decode.repeats import Cursor
from sf_jax.model import text
from sf_jax.model.architecture import Architecture, ModelWeights
from sf_jax.sequence.batch import Batch

_start = jax.jit(
    start, static_argnames=("config", "plan", "max_rationale", "with_rationale", "most", "inserted")
)


_following = jax.jit(following_rationale, static_argnames=("config", "plan", "max_rationale"))


@partial(jax.jit, static_argnames=("config", "plan"), donate_argnames="cursor")
def _next(
    weights: ModelWeights,
    cursor: Cursor,
    program: SlotProgram,
    sampling: Sampling,
    config: Architecture,
    plan: DraftPlan,
    last: Bool[Array, ""],
    low_precision: ModelWeights | None,
    passes: Int[Array, ""],
    features: Float[Array, "B M D"] | None,
) -> tuple[Cursor, Filled]:
    if features is not None:
        cursor = blocks.conditioned(cursor, features)
    return fill_block(weights, cursor, program, sampling, config, plan, last, low_precision, passes)


def _counted(
    features: Iterable[Float[Array, "B M D"]] | None,
) -> tuple[int, Iterator[Float[Array, "B M D"]] | None]:
    """How many features there are before each block, and the features."""
    if features is None:
        return 0, None
    features = iter(features)
    first = next(features, None)
    if first is None:
        raise ValueError("no features to condition a block on")
    return first.shape[1], chain([first], features)


def stream(
    weights: ModelWeights,
    batch: Batch,
    program: SlotProgram,
    draft: Draft,
    sampling: Sampling,
    config: Architecture,
    plan: DraftPlan,
    max_rationale: int,
    with_rationale: bool = True,
    prefix: text.Cache | None = None,
    low_precision: ModelWeights | None = None,
    most: int | None = None,
    features: Iterable[Float[Array, "B M D"]] | None = None,
) -> Iterator[Rationale | Filled]:
    """Yields the rationale, empty where there is none, then each block; or the single block, then
    the rationale, where the values come first.

    Arguments are those of `generate`, but for two:

    Args:
      most: None is the schema's bound, and no bound where that has none: the caller stops.
      features: what each block is conditioned on; without a bound the answer ends with them.

    Raises:
      ValueError: with a bound, features end before the answer does.
    """
    repeat = program.repeat
    if repeat is None or repeat.most is not None or most is not None:
        most = blocks.most_repeats(program, most)
    inserted, features = _counted(features)
    cursor, rationale = _start(
        weights,
        batch,
        program,
        draft,
        sampling,
        config,
        plan,
        max_rationale,
        with_rationale,
        prefix,
        most,
        inserted,
    )
    if not program.values_first:
        yield rationale
    number, going = 0, True
    while going and (most is None or number < most):
        block_features = None if features is None else next(features, None)
        if features is not None and block_features is None:
            if most is not None:
                raise ValueError(f"features for {number} blocks, expected {most}")
            return
        last, passes = number + 1 == most, draft.low_precision_passes if number == 0 else 0
        cursor, filled = _next(
            weights,
            cursor,
            program,
            sampling,
            config,
            plan,
            jnp.bool_(last),
            low_precision,
            jnp.int32(passes),
            block_features,
        )
        yield filled
        number += 1
        # Without a bound no row ever stops, and the host need not wait to know it.
        going = repeat is not None and (repeat.most is None or bool(cursor.active.any()))
    if program.values_first:
        if with_rationale:
            rationale = _following(
                weights, cursor, program, draft, sampling, config, plan, max_rationale
            )
        yield rationale
