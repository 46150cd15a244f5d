"""Examples, and the one builder that makes a batch of them.

An example is tokens, some of which stand for content of another modality. The builder puts examples
into rows: one alone, or several packed one after another. A single example is a pack of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from sf_jax.model import axes
from sf_jax.sequence.batch import Batch, Capacity, Modality


class ExampleInsert(Protocol):
    """Content of another modality in an example: the positions it takes, and its encoder's inputs.

    Attributes:
      modality: its key in `Batch.inputs`.
      start: index in the example's tokens of the first of M placeholder tokens.
      positions: int32 [3, M], their position ids, less the one that text would have at `start`.
      advance: by how much the position of the text that follows exceeds that one.
      size: how much of the modality's capacity the content takes, in its unit, such as patches.
    """

    @property
    def modality(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def positions(self) -> Int[np.ndarray, "3 M"]: ...
    @property
    def advance(self) -> int: ...
    @property
    def size(self) -> int: ...

    def arrays(self) -> dict[str, np.ndarray]:
        """The encoder's inputs of this content alone, by field, without a batch axis.

        The builder adds `segments` and `at`.
        """


@dataclass(frozen=True, eq=False)
class Example:
    """One conversation as tokens.

    Attributes:
      number: which example this is; it alone determines the rest.
      where: the file and record it was made from, for messages.
      tokens: int32 [T]; targets: int32 [T], the tokens to predict, those of `tokens` unless the
        inputs were corrupted on purpose.
      loss_weights: float32 [T], weight of predicting the token at each position; 0 over the prompt.
      inserts: in the order of their placeholder tokens.
      skipped: int32 [T], how many positions were left out before each token; None for none.
      slots, numbers, slot_weights: [T], see `Batch`; all None, or none.
    """

    number: int
    where: str
    tokens: Int[np.ndarray, " T"]
    targets: Int[np.ndarray, " T"]
    loss_weights: Float[np.ndarray, " T"]
    inserts: Sequence[ExampleInsert] = ()
    skipped: Int[np.ndarray, " T"] | None = None
    slots: Int[np.ndarray, " T"] | None = None
    numbers: Float[np.ndarray, " T"] | None = None
    slot_weights: Float[np.ndarray, " T"] | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.tokens) == len(self.targets) == len(self.loss_weights):
            raise ValueError(
                f"{self.where}: {len(self.tokens)} tokens, {len(self.targets)} targets and "
                f"{len(self.loss_weights)} loss weights, expected as many of each"
            )
        if self.loss_weights[0]:  # in a packed row another example stands before it
            raise ValueError(f"{self.where}: the first token follows nothing; its weight must be 0")

    @classmethod
    def of(
        cls,
        prompt: Sequence[int],
        inserts: Sequence[ExampleInsert] = (),
        answer: Sequence[int] = (),
        targets: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        *,
        number: int = 0,
        where: str = "example",
    ) -> "Example":
        """An example of a prompt, and of an answer where there is one.

        Args:
          targets: the answer to predict, by default `answer`.
          weights: of the answer's tokens, by default 1.
        """
        targets = answer if targets is None else targets
        weights = [1.0] * len(answer) if weights is None else weights
        return cls(
            number,
            where,
            np.array([*prompt, *answer], np.int32),
            np.array([*prompt, *targets], np.int32),
            np.array([0.0] * len(prompt) + [*weights], np.float32),
            inserts,
        )

    @property
    def size(self) -> tuple[int, int]:
        """Tokens, and units of all modalities together, such as patches."""
        return len(self.tokens), sum(insert.size for insert in self.inserts)

    @property
    def positions(self) -> Int[np.ndarray, "3 T"]:
        """M-RoPE position ids (time, height, width).

        Text advances all three together; an insert says its own, and where text goes on.
        """
        out = np.empty((3, len(self.tokens)), np.int32)
        end = following = 0
        for insert in self.inserts:
            text = insert.start - end
            out[:, end : insert.start] = following + np.arange(text)
            following += text
            end = insert.start + insert.positions.shape[1]
            out[:, insert.start : end] = following + insert.positions
            following += insert.advance
        out[:, end:] = following + np.arange(len(self.tokens) - end)
        return out if self.skipped is None else out + self.skipped


def assemble(
    rows: Sequence[Sequence[Example]], capacity: Capacity, *, left: bool = False, skip: int = 0
) -> Batch:
    """A batch of numpy arrays from the examples of each row.

    Each example has the positions that it has alone. Padding is zero.

    Args:
      left: pad on the left, so that all rows end at the same position.
      skip: leave out so many first tokens of each example, which a cache holds already.

    Raises:
      ValueError: a row has more tokens, or more of a modality, than there is room for; an example
        has slots, and batches of this capacity have none.
    """
    made = axes.make(Batch, capacity.sizes(len(rows)), np.zeros, capacity.slot_fields)
    placed: list[list[tuple[int, ExampleInsert]]] = []
    for row, examples in enumerate(rows):
        tokens = sum(len(example.tokens) - skip for example in examples)
        if tokens > capacity.length:
            raise ValueError(f"{tokens} tokens of a row exceed its length, {capacity.length}")
        end = capacity.length - tokens if left else 0
        placed.append([])
        for segment, example in enumerate(examples, 1):
            placed[-1] += [(end - skip + insert.start, insert) for insert in example.inserts]
            at = slice(end, end := end + len(example.tokens) - skip)
            made["input_ids"][row, at] = example.tokens[skip:]
            made["targets"][row, at] = example.targets[skip:]
            made["loss_weights"][row, at] = example.loss_weights[skip:]
            made["positions"][:, row, at] = example.positions[:, skip:]
            made["segments"][row, at] = segment
            if example.slots is None:
                continue
            if not capacity.slots:
                raise ValueError(
                    f"{example.where}: it has slots, batches of this capacity have none"
                )
            for name in capacity.slot_fields:
                made[name][row, at] = getattr(example, name)[skip:]
    inputs = {
        name: collate(
            [[(at, insert) for at, insert in row if insert.modality == name] for row in placed],
            modality,
            capacity.length,
        )
        for name, modality in capacity.modalities.items()
    }
    return Batch(inputs=inputs, **made)


def collate(
    rows: Sequence[Sequence[tuple[int, ExampleInsert]]], modality: Modality, length: int
) -> Any:
    """The inputs of one modality, of `modality.inputs`: a row's contents one after another.

    Args:
      rows: of each row, contents and the positions of their first features.
      length: of the rows of tokens; features of padding go there.

    Raises:
      ValueError: the contents of a row exceed its capacity.
    """
    sizes = {axes.BATCH: len(rows), **modality.sizes}
    made = axes.make(modality.inputs, sizes, np.zeros)
    made["at"][:] = length
    declared = axes.declared(modality.inputs)
    for row, contents in enumerate(rows):
        ends = dict.fromkeys(sizes, 0)
        for number, (start, insert) in enumerate(contents, 1):
            arrays = insert.arrays() | {
                "segments": np.full(insert.size, number, np.int32),
                "at": start + np.arange(insert.positions.shape[1], dtype=np.int32),
            }
            grown = dict(ends)
            for name, values in arrays.items():
                axis = declared[name].metadata["axes"][1]
                grown[axis] = ends[axis] + len(values)
                if grown[axis] > sizes[axis]:
                    raise ValueError(
                        f"{insert.modality}: {grown[axis]} along {axis!r} exceed {sizes[axis]}"
                    )
                made[name][row, ends[axis] : grown[axis]] = values
            ends = grown
    return modality.inputs(**made)
