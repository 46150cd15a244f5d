"""Several folders of face records as one, by weight: example number → record, without state.

Numbers are shared out by weight, and the examples of each 1,000 numbers are shuffled, so that every
row of a batch, and every process, meets all folders in these shares. A folder is gone through epoch
by epoch, each in a new order: a small folder with a large weight is repeated, none is cut. Since a
number alone decides, a position in the data is a few numbers, and the same for any number of
processes (`sequence/packing.py`).
"""

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grain.python as grain
from grain import experimental

from data_pipelines import records
from data_pipelines.loader import RecordSource
from data_pipelines.shares import share_of
from sf_jax.media.errors import DataError
from sf_jax.train.fingerprint import Fingerprint

WINDOW = 1000  # numbers that are shuffled together


class MixtureError(DataError):
    """Folders or weights that make no mixture."""


class MixedRecords:
    """Face records of several folders by number, without end; see `loader.ShuffledRecords`.

    Attributes:
      names: of the folders, in their order, each of its own: `faces`, `takes`, …
    """

    def __init__(self, weights: Mapping[Path, float], seed: int = 0):
        """Folders with their shares, whose sum may be any.

        Raises:
          RecordError: a folder has no record files, or a damaged one.
          MixtureError: no folder, or a weight that is not above 0; names the folder.
        """
        if not weights:
            raise MixtureError("no folder of records is given")
        for folder, weight in weights.items():
            if not 0 < weight < math.inf:
                raise MixtureError(f"weight {weight:g}, expected more than 0", path=folder)
        self.names = _names([os.fspath(folder) for folder in weights])
        self._sources = [RecordSource(records.files(folder)) for folder in weights]
        self._shares = dict(zip(self.names, weights.values(), strict=True))
        self._seed = seed
        self._order = _order([len(source) for source in self._sources], weights.values(), seed)

    def which(self, number: int) -> tuple[int, int]:
        """The folder that an example is of, and the number of its record within the folder."""
        folder, index = self._order[number]
        return folder, index

    def __call__(self, number: int) -> tuple[str, dict[str, Any]]:
        """The file and record in it, and the record.

        Raises:
          RecordError: it is damaged.
        """
        folder, index = self.which(number)
        source = self._sources[folder]
        return "{}, record {}".format(*source.place(index)), source[index]

    def fingerprint(self, **order: float) -> Fingerprint:
        """See `RecordSource.fingerprint`; files are named `FOLDER/FILE`, weights are added."""
        files = {
            f"{name}/{file}": found
            for name, source in zip(self.names, self._sources, strict=True)
            for file, found in source.fingerprint().files.items()
        }
        total = sum(self._shares.values())
        shares = {f"share of {name}": weight / total for name, weight in self._shares.items()}
        return Fingerprint(files, {"seed": self._seed, **shares, **order})

    def locations(self, numbers: Iterable[int]) -> str:
        """Files and records of these numbers, as text."""
        by_file: dict[str, list[int]] = {}
        for number in numbers:
            folder, index = self.which(number)
            file, record = self._sources[folder].place(index)
            by_file.setdefault(file, []).append(record)
        return "; ".join(f"{file}, records {sorted(found)}" for file, found in by_file.items())


def parse_folders(text: str) -> dict[Path, float]:
    """Folders with weights, of a text such as `faces=3,takes=1`; without `=`, the weight is 1.

    Raises:
      MixtureError: a weight is no number above 0, or a folder is given twice.
    """
    found: dict[Path, float] = {}
    for part in text.split(","):
        folder, equals, weight = part.strip().rpartition("=")
        if not equals:
            folder, weight = weight, "1"
        number = share_of(weight)
        if not folder or number is None:
            raise MixtureError(f"{part.strip()!r} is no FOLDER=WEIGHT with a weight above 0")
        if Path(folder) in found:
            raise MixtureError("is given twice", path=folder)
        found[Path(folder)] = number
    return found


def _names(folders: list[str]) -> list[str]:
    """The last parts of paths, or more of them where these are the same."""
    parts = [os.path.normpath(os.path.abspath(folder)).split(os.sep) for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    raise MixtureError("is given twice", path=folders[0])


def _order(
    counts: Iterable[int], weights: Iterable[float], seed: int
) -> "grain.MapDataset[tuple[int, int]]":
    """Example number → (folder, record of it)."""
    each = [
        grain.MapDataset.range(count)
        .seed(seed + place)
        .shuffle()
        .repeat()
        .map(lambda index, place=place: (place, int(index)))
        for place, count in enumerate(counts)
    ]
    mixed = grain.MapDataset.mix(each, list(weights))
    return experimental.WindowShuffleMapDataset(mixed, window_size=WINDOW, seed=seed)
