"""A reward model: a score of an answer, learnt from judgements, on the model that answers.

A small head reads the states of those tokens of an answer that count, each of which has attended to
the image and to all of the answer up to there; the score is the head's mean over them. So a score
of a part of an answer is that of its tokens, and nothing has to be rendered to know it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PyTree

from sf_jax.model.architecture import ModelWeights
from sf_jax.model.config import Config
from sf_jax.model.declared import Declarer, Linear
from sf_jax.model.linear import linear
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.forward import forward
from sf_jax.train import groups
from sf_jax.train.forward_weights import in_product_dtype
from sf_jax.train.groups import Group, GroupBatch, Room
from sf_jax.train.losses.preference import bradley_terry
from sf_jax.train.sft import RowsTask

PREFIX = "reward"  # of the names of the head's weights


@struct.dataclass
class RewardHead:
    """A perceptron of one hidden layer, D → H → 1."""

    hidden: Linear
    out: Linear


@struct.dataclass
class RewardWeights:
    """The model whose states are read, and the head."""

    model: ModelWeights
    head: RewardHead


def declare_head(width: int, hidden: int) -> RewardHead:
    """The head's weights, declared. The last are zeros: every score is 0 before training."""
    declare = Declarer(PREFIX)
    zeros = declare.weight("out.weight", (hidden, 1), ("readout", "output"), init="zeros")
    return RewardHead(
        declare.linear("hidden", ("embed", "readout"), (width, hidden)), Linear(zeros)
    )


def scores(weights: RewardWeights, batch: Batch, config: Config, count: int) -> Float[Array, "B X"]:
    """The score of each of so many examples of a row.

    Args:
      batch: loss weights mark tokens that count; slot weights mark the states before values that
        do, whose tokens follow.
    """
    dtype = config.product_dtype
    model = in_product_dtype(weights.model, dtype)
    states, _ = forward(model, batch, config)
    hidden = linear(states, weights.head.hidden.weight, weights.head.hidden.bias, dtype)
    values = linear(jax.nn.gelu(hidden), weights.head.out.weight, None, dtype)[..., 0]
    counted = jnp.asarray(batch.loss_weights)
    if batch.slots is not None:
        assert batch.slot_weights is not None
        slots = jnp.where(batch.slots > 0, batch.slot_weights, 0.0)
        counted += jnp.roll(slots, 1, 1)  # a value's token follows the state that predicts it
    own = jnp.where(
        jnp.asarray(batch.segments)[..., None] == jnp.arange(1, count + 1), counted[..., None], 0
    )
    total = (own * values.astype(own.dtype)[..., None]).sum(1)
    return total / jnp.maximum(own.sum(1), 1e-9)


@dataclass(frozen=True, eq=False)
class RewardTask(RowsTask):
    """Learns scores from judged pairs by the model of Bradley and Terry.

    Attributes:
      group_count: the most pairs of a row; answers: of a group, 1 to score answers alone.
      slots: whether values are one token each, and examples have slots.
      hidden: width of the head's hidden layer.
      label_smoothing: see `losses.preference.bradley_terry`; of every pair beside its own.
    """

    group_count: int = 8
    answers: int = 2
    slots: bool = True
    hidden: int = 128
    label_smoothing: float = 0.0

    @property
    def learns_slots(self) -> bool:
        return self.slots

    @property
    def at_once(self) -> int:
        """Rows that training takes at once."""
        return max(self.rows // self.accumulate, 1)

    @property
    def room(self) -> Room:
        """Of a row."""
        return Room(
            self.capacity(),
            self.group_count,
            self.answers,
            targets=False,
            image_token=self.config.image_token_id,
        )

    def declare(self) -> RewardWeights:
        return RewardWeights(
            self.config.declare(), declare_head(self.config.text.hidden_size, self.hidden)
        )

    def batch_shapes(self) -> GroupBatch:
        return self.room.abstract(self.rows)

    def build(self, rows: Sequence[Sequence[Group]], _: object = None) -> GroupBatch:
        """A batch of the groups of each row; see `groups.build`."""
        return groups.build(rows, self.room)

    def scores(self, weights: PyTree, batch: GroupBatch) -> Float[Array, "B K S"]:
        """The score of each answer."""
        count = self.group_count * self.answers
        found = scores(weights, batch.rows, self.config, count)
        return found.reshape(len(found), self.group_count, self.answers)

    def loss(self, weights: PyTree, batch: GroupBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The weighted sum of pairs' losses; metrics are sums: "weight", "margin" of the scores,
        and "agreement", the pairs whose chosen answer has the higher score."""
        found = self.scores(weights, batch)
        margin = found[..., 0] - found[..., 1]
        own, all_alike = batch.label_smoothing, self.label_smoothing
        losses = bradley_terry(margin, own + all_alike - 2 * own * all_alike)
        weight = batch.weights
        metrics = {
            "weight": weight.sum(),
            "margin": (margin * weight).sum(),
            "agreement": ((jnp.sign(margin) + 1) / 2 * weight).sum(),
        }
        return (losses * weight).sum(), metrics

    @cached_property
    def asked(self) -> Callable[[PyTree, GroupBatch], Array]:
        """(weights, batch) → scores of answers, compiled once a task."""
        return jax.jit(self.scores)

    def count(self, batch: GroupBatch) -> dict[str, int]:  # type: ignore[override]
        """Groups, images and tokens."""
        return {"groups": int(np.count_nonzero(batch.weights)), **super().count(batch.rows)}


def answer_scores(
    task: RewardTask, weights: RewardWeights, given: Iterable[Group], rows: int | None = None
) -> Float[np.ndarray, "N S"]:
    """The score of each answer of groups, in the groups' order.

    Args:
      rows: of a batch, by default those that training takes at once; each number of them is
        compiled by itself, and rows without groups take as long as others.

    Raises:
      GroupError: a group does not fit the task's rows; names it.
    """
    ask = lambda batch: jax.device_get(task.asked(weights, batch))  # noqa: E731
    return groups.of_answers(given, task.room, task.at_once if rows is None else rows, ask)
