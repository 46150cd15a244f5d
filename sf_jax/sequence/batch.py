"""What a model reads in one step: rows of tokens, and inputs of other modalities put into them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from sf_jax.model import axes

SLOT_FIELDS = ("slots", "numbers", "slot_weights")  # of `Batch` and of `Example`


@struct.dataclass
class Batch:
    """B rows of T tokens; a row holds one example, or several packed one after another.

    Every field declares its axes (`model.axes`), and so do the inputs of a modality.

    Attributes:
      input_ids: int32 [B, T], 0 at padding.
      positions: int32 [3, B, T], M-RoPE position ids (time, height, width), 0 at padding.
      segments: int32 [B, T], the number of a token's example within its row, from 1; 0 is padding.
      targets: int32 [B, T], the tokens to predict, those of `input_ids` unless the inputs were
        corrupted on purpose; None where none are predicted.
      loss_weights: float32 [B, T], weight of *predicting* the token at each position.
      inputs: by modality, what its encoder reads, such as `vision.Patches`; each has a field `at`,
        int32 [B, M], the position that each of its features takes, T for padding.
      slots: int32 [B, T], the slot that the state at each position predicts, from 1; 0 is none.
        None where slots are learnt as other tokens are.
      numbers: float32 [B, T], the number to predict there; slot_weights: float32 [B, T], its loss
        weight, 0 where it is not known.
    """

    input_ids: Int[Array, "B T"] = axes.array(axes.BATCH, axes.SEQUENCE)
    positions: Int[Array, "3 B T"] = axes.array("coordinate", axes.BATCH, axes.SEQUENCE)
    segments: Int[Array, "B T"] = axes.array(axes.BATCH, axes.SEQUENCE)
    targets: Int[Array, "B T"] | None = axes.array(axes.BATCH, axes.SEQUENCE)
    loss_weights: Float[Array, "B T"] = axes.array(axes.BATCH, axes.SEQUENCE, dtype=np.float32)
    inputs: dict[str, Any] = struct.field(default_factory=dict)
    slots: Int[Array, "B T"] | None = axes.array(axes.BATCH, axes.SEQUENCE, default=None)
    numbers: Float[Array, "B T"] | None = axes.array(
        axes.BATCH, axes.SEQUENCE, dtype=np.float32, default=None
    )
    slot_weights: Float[Array, "B T"] | None = axes.array(
        axes.BATCH, axes.SEQUENCE, dtype=np.float32, default=None
    )


@dataclass(frozen=True)
class Modality:
    """How much of one modality a row has room for.

    Attributes:
      inputs: the class of the arrays that its encoder reads. All but the batch's have an axis along
        which the contents of a row follow one another, right after the batch's.
      sizes: of every axis but the batch's, by name.
      unit: the axis by which contents are measured, such as "patch"; `segments` has it, and numbers
        the contents of a row from 1.
    """

    inputs: type
    sizes: Mapping[str, int]
    unit: str


@dataclass(frozen=True)
class Capacity:
    """What a row has room for.

    Attributes:
      length: tokens.
      modalities: how much of each.
      slots: whether batches have `SLOT_FIELDS`. The task decides it, not the examples of one batch:
        all batches of a run, on all processes, are of one structure.
    """

    length: int
    modalities: Mapping[str, Modality] = field(default_factory=dict)
    slots: bool = False

    @property
    def units(self) -> int:
        """Units of all modalities together, such as patches."""
        return sum(each.sizes[each.unit] for each in self.modalities.values())

    def sizes(self, rows: int) -> dict[str, int]:
        """Of the axes of a batch of so many rows."""
        return {axes.BATCH: rows, axes.SEQUENCE: self.length, "coordinate": 3}

    @property
    def slot_fields(self) -> tuple[str, ...]:
        return SLOT_FIELDS if self.slots else ()

    def abstract(self, rows: int) -> Batch:
        """A batch of so many rows as `jax.ShapeDtypeStruct`s."""
        inputs = {
            name: each.inputs(
                **axes.make(each.inputs, {axes.BATCH: rows, **each.sizes}, jax.ShapeDtypeStruct)
            )
            for name, each in self.modalities.items()
        }
        made = axes.make(Batch, self.sizes(rows), jax.ShapeDtypeStruct, self.slot_fields)
        return Batch(inputs=inputs, **made)
