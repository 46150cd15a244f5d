"""How well each channel was measured to be read, from a file of the model directory.

`sf-jax card` writes `reliability.json` from what `sf-jax evaluate` found. It holds for the weights
that were measured alone, and is ignored beside others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from sf_jax.face.channels import NAMES
from sf_jax.media import small_files
from sf_jax.media.errors import DataError
from sf_jax.reader import measured

FILE = "reliability.json"
LEAST = 0.3  # a channel of a smaller r cannot be read


class ReliabilityError(DataError):
    """A file of reliability that cannot be read."""


class Channel(small_files.Settings):
    """What was measured of one channel: the mean of r over the sets, and over how many faces."""

    r: float | None
    faces: int


class Stored(measured.Measured):
    """The fields of the file."""

    read_out: str
    sets: dict[str, int]
    channels: dict[str, Channel]


@dataclass(frozen=True, eq=False)
class Reliability:
    """The measured reliability of each channel in canonical order.

    Attributes:
      correlation: Pearson's r of coefficient and label, the mean over the measured sets; NaN where
        a channel was not measured.
      faces: on how many faces.
    """

    correlation: Float32[np.ndarray, "61"]
    faces: Int32[np.ndarray, "61"]

    @property
    def weak(self) -> tuple[str, ...]:
        """Names of the channels that were measured and cannot be read."""
        return tuple(NAMES[i] for i in np.flatnonzero(self.correlation < LEAST))

    def as_json(self, read: tuple[str, ...] = NAMES) -> dict[str, float | None]:
        """Channel → r; None where it was not measured."""
        values = dict(zip(NAMES, self.correlation.tolist(), strict=True))
        return {n: None if np.isnan(values[n]) else round(values[n], 4) for n in read}


def load(folder: Path, weights: Callable[[], str | None] = lambda: None) -> Reliability | None:
    """The reliability of a model directory.

    Args:
      weights: gives the hash of the weights that were loaded, where it is known; it may take long,
        so it is asked for only where there is a file.

    Returns:
      None where the directory has no such file, or one of other weights.

    Raises:
      ReliabilityError: the file is damaged; names the field.
    """
    path = folder / FILE
    stored = measured.read(path, Stored, ReliabilityError, weights)
    if stored is None:
        return None
    correlation = np.full(len(NAMES), np.nan, np.float32)
    faces = np.zeros(len(NAMES), np.int32)
    for name, channel in stored.channels.items():
        if name not in NAMES:
            raise ReliabilityError(f"{name!r} is no channel", path=path, field="channels")
        correlation[NAMES.index(name)] = np.nan if channel.r is None else channel.r
        faces[NAMES.index(name)] = channel.faces
    return Reliability(correlation, faces)


def merged(
    by_set: Mapping[str, Mapping[str, Channel]], weights: str | None, read_out: str
) -> Stored:
    """The reliability over several sets, each of which counts the same.

    Args:
      by_set: of each set the channels that were measured on it, by name.
    """
    channels = {}
    for name in NAMES:
        found = [each[name] for each in by_set.values() if name in each]
        known = [one.r for one in found if one.faces and one.r is not None]
        r = float(np.mean(known)) if known else None
        channels[name] = Channel(r=r, faces=sum(one.faces for one in found))
    sets = {name: max(one.faces for one in each.values()) for name, each in by_set.items()}
    return Stored(weights=weights, read_out=read_out, sets=sets, channels=channels)
