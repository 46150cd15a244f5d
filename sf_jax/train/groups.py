"""Groups of answers to one prompt that a loss compares, and the batches they are packed into.

A group is the chosen and the rejected answer of a judged pair; for KTO, a third answer that belongs
to another prompt; for GRPO, any number of sampled answers. All answers of a group share a row, as
examples packed one after another: answer s of group k is the row's segment k · S + s + 1, and the
loss weights of its example mark the tokens, or slots, that count.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from sf_jax.media.errors import DataError
from sf_jax.model import axes
from sf_jax.sequence.batch import Batch, Capacity
from sf_jax.sequence.example import Example, assemble

GROUP, ANSWER, PREDICTION = "group", "answer", "prediction"  # axes


class GroupError(DataError):
    """A group of answers that cannot be trained on; the text names it."""


@dataclass(frozen=True, eq=False)
class Group:
    """Answers to one prompt that belong together.

    Attributes:
      number: which group this is; it alone determines the rest.
      where: the pair or image it was made from, for messages.
      answers: S examples of the same prompt and inserts; the chosen one first, then the rejected.
      weight: of the group's loss.
      label_smoothing: the probability that its judgement is the wrong way round; 0.5 for a tie.
      reference: log-probability of each answer under the frozen reference, where it is known.
      advantages: of each answer, for GRPO.
    """

    number: int
    where: str
    answers: tuple[Example, ...]
    weight: float = 1.0
    label_smoothing: float = 0.0
    reference: Float[np.ndarray, " S"] | None = None
    advantages: Float[np.ndarray, " S"] | None = None

    def __post_init__(self) -> None:
        for name in ("reference", "advantages"):
            found = getattr(self, name)
            if found is None:
                continue
            if np.shape(found) != (len(self.answers),) or not np.isfinite(found).all():
                problem = f"{self.where}: {name} is {found}, expected {len(self.answers)} numbers"
                raise GroupError(problem)

    @property
    def size(self) -> tuple[int, int]:
        """Tokens, and units of all modalities together, such as patches."""
        tokens, units = zip(*(answer.size for answer in self.answers), strict=True)
        return sum(tokens), sum(units)


@struct.dataclass
class GroupBatch:
    """B rows of up to K groups of S answers.

    Attributes:
      rows: the answers' tokens, packed; see the module about `segments`.
      weights: of the losses of groups, 0 where there is none.
      label_smoothing: see `Group`.
      reference: log-probabilities of answers under the reference; advantages: of answers.
      old: log-probability of each prediction under the policy that sampled the answers, in the
        order of `preference.Predictions`.
    """

    rows: Batch
    weights: Float[Array, "B K"] = axes.array(axes.BATCH, GROUP, dtype=np.float32)
    label_smoothing: Float[Array, "B K"] = axes.array(axes.BATCH, GROUP, dtype=np.float32)
    reference: Float[Array, "B K S"] | None = axes.array(
        axes.BATCH, GROUP, ANSWER, dtype=np.float32, default=None
    )
    advantages: Float[Array, "B K S"] | None = axes.array(
        axes.BATCH, GROUP, ANSWER, dtype=np.float32, default=None
    )
    old: Float[Array, "B E"] | None = axes.array(
        axes.BATCH, PREDICTION, dtype=np.float32, default=None
    )


@dataclass(frozen=True)
class Room:
    """What a row has room for.

    Attributes:
      capacity: tokens and other modalities; groups: K, the most groups; answers: S, of each.
      optional: which of the optional arrays batches have: "reference", "advantages", "old".
      targets: whether tokens are predicted, beside slots.
      image_token: the token that stands for a part of an image; None: there are none.
    """

    capacity: Capacity
    groups: int
    answers: int
    optional: tuple[str, ...] = ()
    targets: bool = True
    image_token: int | None = None

    def sizes(self, rows: int) -> dict[str, int]:
        """Of the axes of a batch of so many rows."""
        predictions = self.capacity.length * (self.targets + self.capacity.slots)
        return {
            axes.BATCH: rows,
            GROUP: self.groups,
            ANSWER: self.answers,
            PREDICTION: predictions,
        }

    def without_targets(self, batch: Batch) -> Batch:
        """The rows as batches have them: without targets where only slots are learnt."""
        return batch if self.targets else replace(batch, targets=None)

    def abstract(self, rows: int) -> GroupBatch:
        """A batch of so many rows as `jax.ShapeDtypeStruct`s."""
        make = partial(axes.make, GroupBatch, self.sizes(rows), jax.ShapeDtypeStruct)
        batch = self.without_targets(self.capacity.abstract(rows))
        return GroupBatch(batch, **make(self.optional))

    def size(self, group: Group, capacity: Capacity | None = None) -> tuple[int, int]:
        """Tokens of a group, and units of other modalities, such as patches.

        Raises:
          GroupError: the group does not fit a row, none of an answer's tokens counts, or an image
            is incomplete; nothing is ever cut off to make it fit. Names the group.
        """
        if len(group.answers) != self.answers:
            count = f"{len(group.answers)} answers, and the objective needs {self.answers}"
            raise GroupError(f"{group.where}: it has {count}")
        for answer in group.answers:
            check_answer(answer, self.image_token)
        tokens, units = group.size
        row = self.capacity
        if tokens > row.length:
            raise GroupError(
                f"{group.where}: its answers take {tokens} tokens together, and a row has room for "
                f"{row.length}; nothing is cut off, so make rows longer or images smaller"
            )
        if units > row.units:
            raise GroupError(
                f"{group.where}: its images take {units} patches together, and a row has room for "
                f"{row.units}; make rows larger or images smaller"
            )
        return tokens, units


def check_answer(example: Example, image_token: int | None) -> None:
    """Refuses what other trainers were found to train on without an error.

    Raises:
      GroupError: an image's tokens were cut off, or have no image and grid; or nothing counts.
    """
    length, found = len(example.tokens), 0
    for insert in example.inserts:
        count = insert.positions.shape[1]
        found += count
        if insert.start + count > length:
            raise GroupError(
                f"{example.where}: {insert.start + count - length} of the {count} tokens of an "
                f"image are cut off, since the text ends after {length} tokens"
            )
    shown = 0 if image_token is None else int((example.tokens == image_token).sum())
    if image_token is not None and shown != found:
        raise GroupError(
            f"{example.where}: {shown} image tokens for images of {found}: an image or its grid is "
            "missing"
        )
    counted = example.loss_weights.any()
    if example.slots is not None:
        assert example.slot_weights is not None
        counted |= example.slot_weights[example.slots > 0].any()
    if not counted:
        raise GroupError(f"{example.where}: no token or slot of the answer counts")


def build(rows: Sequence[Sequence[Group]], room: Room) -> GroupBatch:
    """A batch of numpy arrays from the groups of each row.

    Raises:
      GroupError: a row has more groups than there is room for, or a group lacks a value that
        batches have.
    """
    made = axes.make(GroupBatch, room.sizes(len(rows)), np.zeros, room.optional)
    for row, groups in enumerate(rows):
        if len(groups) > room.groups:
            raise GroupError(f"{len(groups)} groups in a row, which has room for {room.groups}")
        for k, group in enumerate(groups):
            made["weights"][row, k] = group.weight
            made["label_smoothing"][row, k] = group.label_smoothing
            for name in set(room.optional) - {"old"}:
                found = getattr(group, name)
                if found is None:
                    raise GroupError(f"{group.where}: it has no {name}")
                made[name][row, k] = found
    examples = [[answer for group in groups for answer in group.answers] for groups in rows]
    return GroupBatch(room.without_targets(assemble(examples, room.capacity)), **made)


def in_rows(given: Iterable[Group], room: Room) -> Iterator[list[Group]]:
    """Rows of all groups in their order; a row ends where the next group does not fit it.

    Raises:
      GroupError: a group does not fit a row of its own.
    """
    limits = room.capacity.length, room.capacity.units
    row: list[Group] = []
    used = (0, 0)
    for group in given:
        size = room.size(group)
        total = (used[0] + size[0], used[1] + size[1])
        if row and (len(row) == room.groups or total[0] > limits[0] or total[1] > limits[1]):
            yield row
            row, total = [], size
        row.append(group)
        used = total
    if row:
        yield row


def of_answers(
    given: Iterable[Group],
    room: Room,
    rows: int,
    ask: Callable[[GroupBatch], Float[np.ndarray, "B K S"]],
) -> Float[np.ndarray, "N S"]:
    """A number for each answer of groups, in the groups' order.

    Args:
      rows: of a batch, the last of which may be empty.
      ask: of a batch.

    Raises:
      GroupError: a group does not fit a row; names it.
    """
    found: list[np.ndarray] = []
    held = in_rows(given, room)
    while part := list(islice(held, rows)):
        numbers = ask(build([*part, *[[]] * (rows - len(part))], room))
        found += [numbers[row, : len(own)] for row, own in enumerate(part)]
    return np.concatenate([*found, np.zeros((0, room.answers))]).astype(np.float32)
