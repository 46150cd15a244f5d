"""Grain loaders over face records: deterministic, resumable, split over processes."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, SupportsIndex

import grain.python as grain
import numpy as np

from data_pipelines import records
from sf_jax.face import landmarks
from sf_jax.face.channels import MIRROR, mirror
from sf_jax.media import hashes
from sf_jax.train.fingerprint import FileFingerprint, Fingerprint

SAMPLED, LEAST_SAMPLED = 256 << 20, 64 << 10  # bytes hashed of all files, and of each


class RecordSource:
    """The records of several files in order; an error names the file and the record in it."""

    def __init__(self, paths: list[str], decode: Callable[[bytes], Any] = records.decode):
        """`decode` makes a record of its bytes, such as `scenes.decode` of a scene's."""
        self.paths, self._decode = paths, decode
        self.ends = np.cumsum([records.count(path) for path in paths])
        self.source = grain.ArrayRecordDataSource(paths)

    def __len__(self) -> int:
        return len(self.source)

    def fingerprint(self, **order: float) -> Fingerprint:
        """What a resumed run compares its data with.

        Up to 256 MB of data are hashed whole. Of more, so much is hashed in all, in samples, an
        equal share of each file and at least 64 KB.

        Args:
          order: settings beside the files that the order of examples depends on.

        Raises:
          OSError: a file cannot be read.
        """
        small = sum(map(os.path.getsize, self.paths)) <= SAMPLED
        budget = SAMPLED if small else max(LEAST_SAMPLED, SAMPLED // len(self.paths))
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda path: hashes.of_samples(path, budget), self.paths))
        counts = np.diff(self.ends, prepend=0).tolist()
        files = {
            os.path.basename(path): FileFingerprint(os.path.getsize(path), records, digest)
            for path, records, digest in zip(self.paths, counts, found, strict=True)
        }
        return Fingerprint(files, order)

    def place(self, index: int) -> tuple[str, int]:
        """The file that a record is in, and its number there."""
        file = int(np.searchsorted(self.ends, index, side="right"))
        return self.paths[file], index - (int(self.ends[file - 1]) if file else 0)

    def __getitem__(self, index: SupportsIndex) -> Any:
        index = int(index)
        path, number = self.place(index)
        with records.located(path, number):
            return self._decode(self.source[index])


class ShuffledRecords:
    """Face records by number, without end: every epoch holds each of them once, in a new order."""

    def __init__(self, directory: str | os.PathLike, seed: int = 0):
        """Raises RecordError where there are no record files, or a damaged one."""
        self._source = RecordSource(records.files(directory))
        self._seed = seed
        self._order = grain.MapDataset.range(len(self._source)).seed(seed).shuffle().repeat()

    def __call__(self, number: int) -> tuple[str, dict[str, Any]]:
        """The file and record in it, and the record.

        Raises:
          RecordError: it is damaged.
        """
        index = int(self._order[number])
        return "{}, record {}".format(*self._source.place(index)), self._source[index]

    def fingerprint(self, **order: float) -> Fingerprint:
        """See `RecordSource.fingerprint`; the seed is added."""
        return self._source.fingerprint(seed=self._seed, **order)

    def locations(self, numbers: Iterable[int]) -> str:
        """Where the records of these numbers lie, in words."""
        by_file: dict[str, list[int]] = {}
        for number in numbers:
            file, record = self._source.place(int(self._order[number]))
            by_file.setdefault(file, []).append(record)
        return "; ".join(f"{file}, records {sorted(found)}" for file, found in by_file.items())


def mirrored(record: dict[str, Any]) -> dict[str, Any]:
    """The record of the mirrored image. The rationale is dropped: it names the other side."""
    out = {**record, "image": record["image"][:, ::-1], "rationale": ""}
    out["coefficients"] = mirror(record["coefficients"])
    if "known" in record:
        out["known"] = record["known"][MIRROR]
    if "parts" in record:
        out["parts"] = record["parts"][:, ::-1]
    if "landmarks" in record:
        flipped = record["landmarks"] * np.array([-1, 1], np.float32) + np.array([1, 0], np.float32)
        out["landmarks"] = flipped[landmarks.MIRROR]
    return out


def faces(
    directory: str | os.PathLike,
    batch_size: int,
    collate: Callable[[Sequence[dict[str, Any]]], Any],
    *,
    seed: int = 0,
    shuffle: bool = True,
    epochs: int | None = None,
    transform: grain.RandomMapTransform | None = None,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> tuple[grain.DatasetIterator, Fingerprint]:
    """An iterator over batches with `get_state` and `set_state`, and the fingerprint of the data.

    Args:
      batch_size: of the whole job; each process gets its share, and the shares of a step make the
        same global batch for any number of processes.
      collate: a list of records → a batch.
      epochs: passes over the data; None for ever.
      transform: record → record, at random; another time it is met, a record is another.

    Raises:
      RecordError: no record files, or a damaged one.
      ValueError: `batch_size` is no multiple of `process_count`.
    """
    if batch_size % process_count:
        raise ValueError(f"batch_size {batch_size} is no multiple of {process_count} processes")
    source = RecordSource(records.files(directory))
    fetched: Callable[[Sequence[Any]], Any] = collate
    if transform is None:
        # Batches of numbers, so that Grain's work is for a number and not for a record.
        data = grain.MapDataset.range(len(source)).seed(seed)
        fetched = lambda numbers: collate([source[number] for number in numbers])  # noqa: E731
    else:
        data = grain.MapDataset.source(source).seed(seed)
    if shuffle:
        data = data.shuffle()
    data = data.repeat(epochs)
    if transform is not None:
        data = data.random_map(transform)
    # Process p takes records p, p + n, …: a step's shares together are consecutive records.
    data = data[process_index::process_count]
    data = data.batch(batch_size // process_count, drop_remainder=True, batch_fn=fetched)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8)
    fingerprint = source.fingerprint(seed=seed, batch=batch_size)
    return iter(data.to_iter_dataset(options)), fingerprint
