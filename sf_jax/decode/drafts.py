"""Drafts of an answer, to be verified; rejected ones cost time and nothing else."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int
from safetensors.numpy import save_file

from sf_jax.decode.arrays import HostOrDevice
from sf_jax.media import files, safetensors_files
from sf_jax.media.errors import DataError


@struct.dataclass
class DraftHeads:
    """What the model's state says of the tokens after the next one.

    After Medusa (Cai et al., 2024): head k proposes the token k + 1 positions after the one that
    the state itself yields. The heads share a hidden layer, and each adds how well its tokens
    follow the two before them, as drafted.

    Attributes:
      enter: and enter_bias: the hidden layer.
      leave: and leave_bias: to the scores of the tokens that heads can propose.
      after_one, after_two: how well a token follows the last and the last but one; the last row is
        for tokens that heads cannot propose.
      tokens: the W token ids.
    """

    enter: Float[HostOrDevice, "D H"]
    enter_bias: Float[HostOrDevice, " H"]
    leave: Float[HostOrDevice, "H K W"]
    leave_bias: Float[HostOrDevice, "K W"]
    after_one: Float[HostOrDevice, "W+1 W"]
    after_two: Float[HostOrDevice, "W+1 W"]
    tokens: Int[HostOrDevice, " W"]


@struct.dataclass
class Draft:
    """A first proposal for each row's answer; it changes the passes that an answer takes alone.

    Attributes:
      rationale_ids: a rationale like the one to come, as of the frame before; padded with 0.
      choices: values of the named slots, as numbered in the slot program; of a block that repeats,
        the first.
      heads: propose tokens of the rationale from the model's state; or None.
      low_precision_passes: passes in low precision that are to improve `choices` first.
    """

    rationale_ids: Int[HostOrDevice, "B R"]
    choices: Int[HostOrDevice, "B C"]
    heads: DraftHeads | None
    low_precision_passes: Int[HostOrDevice, ""] | int = 0


def head_scores(heads: DraftHeads, states: Float[Array, "*rows D"]) -> Float[Array, "*rows K W"]:
    """The heads' scores from states, before the preceding tokens count."""
    inner = jax.nn.silu(states.astype(jnp.float32) @ heads.enter + heads.enter_bias)
    return jnp.tensordot(inner, heads.leave, 1) + heads.leave_bias


def save_heads(path: str | os.PathLike, heads: DraftHeads) -> None:
    """Writes a file that `load_heads` reads, in half precision, complete or not at all."""
    arrays = {name: np.asarray(leaf) for name, leaf in vars(heads).items()}
    half = {
        name: leaf if name == "tokens" else leaf.astype(np.float16) for name, leaf in arrays.items()
    }
    with files.replacing(path) as file:
        save_file(half, file)


def load_heads(path: str | os.PathLike, width: int, vocabulary: int) -> DraftHeads:
    """Reads heads for a model of a width and a vocabulary.

    Raises:
      ValueError: the file holds no heads, or they do not fit.
    """
    names = DraftHeads.__dataclass_fields__
    arrays = safetensors_files.read_tensors(path)
    try:
        heads = DraftHeads(
            **{
                name: arrays[name].astype(np.int32 if name == "tokens" else np.float32)
                for name in names
            }
        )
    except KeyError as error:
        raise DataError(f"tensor {error} is missing", path=path) from error
    count, known = heads.leave_bias.shape if heads.leave_bias.ndim == 2 else (0, 0)
    inner = heads.enter_bias.size
    shapes = {
        "enter": (width, inner),
        "enter_bias": (inner,),
        "leave": (inner, count, known),
        "leave_bias": (count, known),
        "after_one": (known + 1, known),
        "after_two": (known + 1, known),
        "tokens": (known,),
    }
    for name in names:
        found = getattr(heads, name)
        if found.shape != shapes[name] or 0 in found.shape:
            raise ValueError(f"{path}: {name} has shape {found.shape}, expected {shapes[name]}")
        if not np.isfinite(found).all():
            raise ValueError(f"{path}: {name} holds numbers that are not finite")
    if heads.tokens.min() < 0 or heads.tokens.max() >= vocabulary:
        raise ValueError(f"{path}: tokens lie outside a vocabulary of {vocabulary}")
    return heads


def draft_rationale(
    draft: Draft,
    states: Float[Array, "B D"],
    before: Int[Array, "B 2"],
    at: Int[Array, " B"],
    count: int,
) -> Int[Array, "B count"]:
    """The tokens that may follow in a rationale, 0 where nothing is known.

    The draft's own tokens come first, from where its last two tokens are the same, and nearest to
    `at`; then the heads.

    Args:
      states: the state that yielded the last token.
      before: the last two tokens generated, 0 before the beginning.
      at: how many were generated.
    """
    length = draft.rationale_ids.shape[1]
    like = jnp.pad(draft.rationale_ids, [(0, 0), (2, count)])  # like[i + 2] is the draft's i-th
    same = (like[:, 1 : length + 1] == before[:, 1:]) & (like[:, :length] == before[:, :1])
    same &= draft.rationale_ids != 0
    nearness = jnp.where(same, -jnp.abs(jnp.arange(length) - at[:, None]), -length - count)
    best = jnp.argmax(nearness, 1)
    copied = jnp.take_along_axis(like, best[:, None] + 2 + jnp.arange(count), 1)
    proposed = jnp.zeros_like(copied)
    if draft.heads is not None and count:
        proposed = _proposed(draft.heads, states, before, count)
    return jnp.where(same.any(1, keepdims=True), copied, proposed)


def _proposed(
    heads: DraftHeads, states: Float[Array, "B D"], before: Int[Array, "B 2"], count: int
) -> Int[Array, "B count"]:
    """One token after the other, each by its head; 0 after the last head."""
    scores = head_scores(heads, states)
    known = before[..., None] == heads.tokens
    rows = jnp.where(known.any(-1), jnp.argmax(known, -1), len(heads.tokens))
    last_but_one, last = rows[:, 0], rows[:, 1]
    chain = []
    for head in range(min(count, scores.shape[1])):
        follows = heads.after_one[last] + heads.after_two[last_but_one]
        last_but_one, last = last, jnp.argmax(scores[:, head] + follows, -1)
        chain.append(heads.tokens[last])
    drafted = jnp.stack(chain, 1)
    return jnp.pad(drafted, [(0, 0), (0, count - drafted.shape[1])])
