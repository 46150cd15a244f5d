"""Preference training: answers that were judged against each other, in packed rows, on any mesh.

The loss compares log-probabilities of answers under the policy, which is trained, and under a
frozen reference, which is a companion of the task or was asked once: its log-probabilities then
come with the groups. Which tokens or slots of an answer count is in its example's loss weights, so
that a judgement of a part of an answer moves that part alone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from sf_jax.model.config import Config
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.forward import forward
from sf_jax.train import groups
from sf_jax.train.forward_weights import in_product_dtype, shared_tables
from sf_jax.train.groups import Group, GroupBatch, Room
from sf_jax.train.losses import preference
from sf_jax.train.losses.next_token import next_token_losses
from sf_jax.train.losses.supervised import SlotValues, slot_log_probabilities
from sf_jax.train.sft import RowsTask

REFERENCE = "reference"  # the companion


@struct.dataclass
class Predictions:
    """What a model gave the tokens of answers, or the values of their slots, or first tokens and
    then slots: E predictions a row.

    Attributes:
      log_probabilities: in nats: of a token over the vocabulary, of a slot's value over the values
        that the slot may take.
      weights: how much each counts; segments: the example it belongs to, from 1, 0 for none.
    """

    log_probabilities: Float[Array, "B E"]
    weights: Float[Array, "B E"]
    segments: Int[Array, "B E"]

    def summed(self, values: Float[Array, "B E"], count: int) -> Float[Array, "B X"]:
        """Weighted sums of values of predictions, over each of so many examples."""
        own = self.segments[..., None] == jnp.arange(1, count + 1)
        return jnp.where(own, (values * self.weights)[..., None], 0).sum(1)


def predict(
    weights: PyTree, batch: Batch, config: Config, values: SlotValues | None, chunks: int = 1
) -> Predictions:
    """The predictions of a model for packed rows.

    Args:
      values: that slots may take, where the batch has slots.
      chunks: parts of a row whose vocabulary scores are computed one after another.
    """
    dtype = config.product_dtype
    weights = shared_tables(in_product_dtype(weights, dtype))
    states, _ = forward(weights, batch, config)
    segments = jnp.asarray(batch.segments)
    found: list[tuple[Array, Array]] = []
    if batch.targets is not None:
        losses, _ = next_token_losses(weights.text, states, batch.targets, dtype, chunks)
        found.append((-losses, jnp.asarray(batch.loss_weights).at[:, 0].set(0.0)))
    if batch.slots is not None:
        assert values is not None and batch.numbers is not None
        assert batch.slot_weights is not None
        slots = jnp.asarray(batch.slots)
        logs = slot_log_probabilities(weights.text, states, slots, batch.numbers, values, dtype)
        found.append((logs, jnp.where(slots > 0, batch.slot_weights, 0.0)))
    logs, counted = (jnp.concatenate(each, 1) for each in zip(*found, strict=True))
    return Predictions(logs, counted, jnp.tile(segments, (1, len(found))))


@struct.dataclass
class Compared:
    """Policy and reference on the answers of a batch.

    Attributes:
      policy: its predictions; reference: those of the reference, where it is a companion.
      sums, reference_sums: log-probabilities of answers, in nats; lengths: what counts of each.
    """

    policy: Predictions
    reference: Predictions | None
    sums: Float[Array, "B K S"]
    reference_sums: Float[Array, "B K S"] | None
    lengths: Float[Array, "B K S"]

    @property
    def frozen(self) -> Float[Array, "B K S"]:
        """The log-probabilities of answers under the reference.

        Raises:
          ValueError: there is no reference.
        """
        if self.reference_sums is None:
            raise ValueError("the objective needs a reference: a companion, or with the groups")
        return self.reference_sums

    @property
    def pairs(self) -> tuple[Array, Array, Array, Array]:
        """The log-probabilities [B, K] of chosen and of rejected answers under the policy, and then
        under the reference, as losses of pairs take them."""
        sums, frozen = self.sums, self.frozen
        return sums[..., 0], sums[..., 1], frozen[..., 0], frozen[..., 1]


class Objective(Protocol):
    """A loss of groups.

    Attributes:
      answers: of a group.
      needs_reference: whether it reads a reference; needs_advantages, needs_old: whether groups
        have advantages, and batches the log-probabilities of the policy that sampled them.
    """

    @property
    def answers(self) -> int: ...
    @property
    def needs_reference(self) -> bool: ...
    @property
    def needs_advantages(self) -> bool: ...
    @property
    def needs_old(self) -> bool: ...

    def losses(self, found: Compared, batch: GroupBatch) -> Float[Array, "B K"]:
        """The loss of each group."""


@dataclass(frozen=True)
class _OfAnswers:
    """What objectives over judged answers share."""

    needs_reference: ClassVar[bool] = True
    needs_advantages: ClassVar[bool] = False
    needs_old: ClassVar[bool] = False
    answers: ClassVar[int] = 2


@dataclass(frozen=True)
class Dpo(_OfAnswers):
    """DPO; with label smoothing, cDPO. See `losses.preference.dpo`.

    Attributes:
      supervised: weight of the chosen answer's negative log-likelihood a token, which keeps it from
        becoming less likely together with the rejected one; where the judgement is in doubt, each
        answer counts by the probability that it is the better one.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    supervised: float = 0.0

    def losses(self, found: Compared, batch: GroupBatch) -> Float[Array, "B K"]:
        wrong = _smoothed(self.label_smoothing, batch)
        losses = preference.dpo(*found.pairs, beta=self.beta, label_smoothing=wrong)
        if self.supervised:
            by_token = found.sums / jnp.maximum(found.lengths, 1e-9)
            losses -= self.supervised * (1 - wrong) * by_token[..., 0]
            losses -= self.supervised * wrong * by_token[..., 1]
        return losses


@dataclass(frozen=True)
class Ipo(_OfAnswers):
    """IPO, see `losses.preference.ipo`."""

    beta: float = 0.1
    label_smoothing: float = 0.0

    def losses(self, found: Compared, batch: GroupBatch) -> Float[Array, "B K"]:
        return preference.ipo(
            *found.pairs,
            found.lengths[..., 0],
            found.lengths[..., 1],
            beta=self.beta,
            label_smoothing=_smoothed(self.label_smoothing, batch),
        )


@dataclass(frozen=True)
class Kto(_OfAnswers):
    """KTO of the chosen answer as desirable and the rejected one as undesirable; the third answer
    of a group is that of another prompt. See `losses.preference.kto`.

    Where the judgement is in doubt, the loss is that of either judgement by its probability: a tie
    moves neither answer, unless the weights of good and bad ones differ. The divergence is
    estimated from what is taken together: a microbatch, where there are several.
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    answers: ClassVar[int] = 3

    def losses(self, found: Compared, batch: GroupBatch) -> Float[Array, "B K"]:
        sums, frozen = found.sums, found.frozen
        there = batch.weights > 0
        divergence = preference.kto_divergence(sums[..., 2], frozen[..., 2], there)

        def judged(first: bool) -> Array:
            """The losses where the first answer is the good one, or the second."""
            losses = preference.kto(
                sums[..., :2],
                frozen[..., :2],
                jnp.array([first, not first]),
                divergence,
                beta=self.beta,
                desirable_weight=self.desirable_weight,
                undesirable_weight=self.undesirable_weight,
            )
            return losses.mean(-1)

        wrong = batch.label_smoothing
        return (1 - wrong) * judged(True) + wrong * judged(False)


@dataclass(frozen=True)
class Grpo:
    """GRPO, see `losses.preference.grpo`.

    Attributes:
      answers: sampled for each prompt.
      beta: weight of the divergence from the reference, which must be a companion; 0: no reference.
      needs_old: whether the policy has moved since it sampled the answers, as where batches are
        used more than once.
    """

    answers: int = 8
    clip: tuple[float, float] = (0.2, 0.2)
    beta: float = 0.0
    needs_old: bool = False
    needs_advantages: ClassVar[bool] = True

    @property
    def needs_reference(self) -> bool:
        return self.beta > 0

    def losses(self, found: Compared, batch: GroupBatch) -> Float[Array, "B K"]:
        logs, count = found.policy.log_probabilities, found.sums[0].size
        old = jax.lax.stop_gradient(logs) if batch.old is None else batch.old
        reference = None
        if self.beta:
            if found.reference is None:
                raise ValueError(
                    "the divergence from the reference is of single tokens: give it as a companion"
                )
            reference = found.reference.log_probabilities
        assert batch.advantages is not None
        by_answer = batch.advantages.reshape(len(logs), count)
        at = jnp.clip(found.policy.segments - 1, 0, count - 1)
        advantages = jnp.take_along_axis(by_answer, at, 1)
        losses = preference.grpo(logs, old, advantages, reference, clip=self.clip, beta=self.beta)
        summed = found.policy.summed(losses, count).reshape(found.sums.shape)
        return (summed / jnp.maximum(found.lengths, 1e-9)).mean(-1)


def _smoothed(label_smoothing: float, batch: GroupBatch) -> Float[Array, "B K"]:
    """The probability of a wrong judgement, from either cause and not from both."""
    own = batch.label_smoothing
    return own + label_smoothing - 2 * own * label_smoothing


@dataclass(frozen=True, eq=False)
class PreferenceTask(RowsTask):
    """One run over groups of answers.

    Attributes:
      group_count: the most groups of a row.
      objective: of groups.
      values: that slots may take, for a model whose values are one token each: then slots alone
        count; None: tokens do.
      companion: whether the reference is a companion, a frozen copy of the model; else its
        log-probabilities come with the groups.
    """

    group_count: int = 8
    objective: Objective = Dpo()
    values: SlotValues | None = None
    chunk_count: int = 1
    companion: bool = False

    @property
    def chunks(self) -> int:
        return self.chunk_count

    @property
    def learns_slots(self) -> bool:
        return self.values is not None

    @property
    def room(self) -> Room:
        """Of a row."""
        objective = self.objective
        present = {
            "reference": objective.needs_reference and not self.companion,
            "advantages": objective.needs_advantages,
            "old": objective.needs_old,
        }
        return Room(
            self.capacity(),
            self.group_count,
            objective.answers,
            tuple(name for name, there in present.items() if there),
            not self.learns_slots,
            self.config.image_token_id,
        )

    def batch_shapes(self) -> GroupBatch:
        return self.room.abstract(self.rows)

    def build(self, rows: Sequence[Sequence[Group]], _: object = None) -> GroupBatch:
        """A batch of the groups of each row; see `groups.build`."""
        return groups.build(rows, self.room)

    def companions(self) -> dict[str, Any]:
        return {REFERENCE: self.declare()} if self.companion else {}

    def predict(self, weights: PyTree, batch: GroupBatch) -> Predictions:
        """The predictions of a model for a batch."""
        return predict(weights, batch.rows, self.config, self.values, self.chunks)

    def summed(self, found: Predictions, batch: GroupBatch) -> Float[Array, "B K S"]:
        """The log-probability of each answer, in nats."""
        shape = (*batch.weights.shape, self.objective.answers)
        return found.summed(found.log_probabilities, shape[1] * shape[2]).reshape(shape)

    def compared(
        self, policy: Predictions, reference: Predictions | None, batch: GroupBatch
    ) -> Compared:
        """What the objective reads."""
        sums = self.summed(policy, batch)
        ones = jnp.ones_like(policy.log_probabilities)
        lengths = policy.summed(ones, sums[0].size).reshape(sums.shape)
        frozen = batch.reference if reference is None else self.summed(reference, batch)
        return Compared(policy, reference, sums, frozen, lengths)

    def loss(self, weights: PyTree, batch: GroupBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The weighted sum of the groups' losses; see `metrics`."""
        policy, reference = (weights, None) if not self.companion else weights
        asked = None
        if reference is not None:
            asked = jax.lax.stop_gradient(self.predict(reference[REFERENCE], batch))
        return self.loss_of(self.predict(policy, batch), asked, batch)

    def loss_of(
        self, policy: Predictions, reference: Predictions | None, batch: GroupBatch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The same, from the predictions of policy and reference.

        Metrics are sums over groups: "weight", what to divide by; where answers were judged,
        "margin", by how many nats the chosen answer was raised over the rejected one, and
        "agreement", the groups in which it was.
        """
        found = self.compared(policy, reference, batch)
        weights = batch.weights
        metrics = {"weight": weights.sum()}
        if found.reference_sums is not None and not self.objective.needs_advantages:
            margin = jax.lax.stop_gradient(preference.log_ratio_difference(*found.pairs))
            metrics["margin"] = (margin * weights).sum()
            # Neither raised nor lowered counts half, as before the first step.
            metrics["agreement"] = ((jnp.sign(margin) + 1) / 2 * weights).sum()
        return (self.objective.losses(found, batch) * weights).sum(), metrics

    @cached_property
    def asked(self) -> Callable[[PyTree, GroupBatch], tuple[Array, Array]]:
        """(weights of the whole model, batch) → log-probabilities of predictions, and of answers;
        compiled once a task."""

        @jax.jit
        def of_batch(weights: PyTree, batch: GroupBatch) -> tuple[Array, Array]:
            found = self.predict(weights, batch)
            return found.log_probabilities, self.summed(found, batch)

        return of_batch

    def count(self, batch: GroupBatch) -> dict[str, int]:  # type: ignore[override]
        """Groups, images and tokens."""
        return {"groups": int(np.count_nonzero(batch.weights)), **super().count(batch.rows)}


def answer_log_probabilities(
    task: PreferenceTask, weights: PyTree, given: Iterable[Group]
) -> Float[np.ndarray, "N S"]:
    """The log-probability of each answer of groups under a model, in nats, in the groups' order.

    Of a frozen reference it is asked once, and comes with the groups from then on.

    Args:
      weights: of the whole model.

    Raises:
      GroupError: a group cannot be trained on; names it.
    """
    room = task.room
    plain = Room(room.capacity, room.groups, room.answers, (), room.targets, room.image_token)

    def ask(batch: GroupBatch) -> np.ndarray:
        return jax.device_get(task.asked(weights, batch)[1])

    return groups.of_answers(given, plain, max(task.rows // task.accumulate, 1), ask)


def with_old(
    task: PreferenceTask, weights: PyTree, batches: Sequence[GroupBatch]
) -> list[GroupBatch]:
    """Batches with the log-probabilities of the policy that sampled their answers, which is not
    trained yet; for an objective that uses batches more than once.

    Args:
      weights: of the whole model.
    """
    bare = [replace(batch, old=None) for batch in batches]
    found = [jax.device_get(task.asked(weights, batch)[0]) for batch in bare]
    return [replace(batch, old=old) for batch, old in zip(batches, found, strict=True)]
