"""A modality of another kind goes through builder, packing, sharding and micro-batches as it is."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest
from flax import struct
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from sf_jax.model import axes
from sf_jax.sequence.batch import Batch, Capacity, Modality
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.packing import PackedBatches, example_size
from sf_jax.train import mesh as meshes
from sf_jax.train.step import _summed
from tests.train.test_mesh import mesh_of

SAMPLES = 4  # that make a feature


@struct.dataclass
class Sound:
    """Samples of a batch; four of them make a feature."""

    samples: Float[Array, "B S"] = axes.array("batch", "sample", dtype=np.float32)
    segments: Int[Array, "B S"] = axes.array("batch", "sample")
    at: Int[Array, "B M"] = axes.array("batch", "feature")


@dataclass(frozen=True, eq=False)
class Tone:
    """A tone in an example: one position in time a feature, and text goes on after the last."""

    start: int
    samples: np.ndarray
    modality = "sound"

    @property
    def size(self) -> int:
        return len(self.samples)

    @property
    def advance(self) -> int:
        return self.size // SAMPLES

    @property
    def positions(self) -> np.ndarray:
        return np.tile(np.arange(self.advance, dtype=np.int32), (3, 1))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"samples": self.samples}


def tone(number: int) -> Example:
    count = 1 + number % 3
    samples = np.full(SAMPLES * count, number + 1, np.float32)
    return Example.of([1, *[2] * count], [Tone(1, samples)], [5, 6], number=number)


CAPACITY = Capacity(16, {"sound": Modality(Sound, {"sample": 32, "feature": 8}, "sample")})


def test_it_is_packed_row_by_row() -> None:
    batches = PackedBatches(tone, CAPACITY, row_count=2, pool=4)
    batch = next(batches)
    sound, numbers = batch.inputs["sound"], batches.examples
    assert [len(row) for row in numbers] == [3, 3]
    for row, inside in enumerate(numbers):
        lengths = [len(tone(n).inserts[0].arrays()["samples"]) for n in inside]
        used = sum(lengths)
        np.testing.assert_array_equal(
            sound.segments[row, :used], np.repeat(np.arange(len(inside)) + 1, lengths)
        )
        np.testing.assert_array_equal(
            sound.samples[row, :used], np.repeat(np.array(inside) + 1, lengths)
        )
        placed = sound.at[row, : used // SAMPLES]
        assert (np.asarray(batch.input_ids)[row, placed] == 2).all()
        assert (sound.at[row, used // SAMPLES :] == CAPACITY.length).all()
    assert tone(2).positions.tolist() == [[0, 1, 2, 3, 4, 5]] * 3
    tokens, samples = batches.waste
    assert 0 < tokens < 0.2 and 0 < samples < 0.5


def test_its_capacity_is_held() -> None:
    long = Example.of([2], [Tone(0, np.zeros(40, np.float32))], number=3, where="file, record 3")
    with pytest.raises(ValueError, match="file, record 3: .* 40 units exceeds .* 32 units"):
        example_size(long, CAPACITY)


def test_it_is_shared_and_taken_in_parts_by_its_declared_axes() -> None:
    batch = assemble([[tone(n)] for n in range(4)], CAPACITY)
    shardings = meshes.batch_shardings(CAPACITY.abstract(4), mesh_of(fsdp=2, sequence=2))
    sound = shardings.inputs["sound"]
    assert sound.samples.spec == P(("data", "fsdp")) == sound.segments.spec
    assert sound.at.spec == P(("data", "fsdp"), "sequence")
    assert shardings.positions.spec == P(None, ("data", "fsdp"), "sequence")

    def seen(part: Batch) -> dict[str, Array]:
        assert part.positions.shape == (3, 2, 16) and part.input_ids.shape == (2, 16)
        weight = part.inputs["sound"].samples.sum(1) * part.positions.max((0, 2))
        return {"sum": weight.sum()}

    whole = jax.tree.map(np.asarray, batch)
    expected = whole.inputs["sound"].samples.sum(1) * whole.positions.max((0, 2))
    found = jax.jit(lambda batch: _summed(seen, batch, 2))(batch)
    np.testing.assert_allclose(found["sum"], expected.sum())
