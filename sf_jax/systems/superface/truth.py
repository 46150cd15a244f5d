"""The true coefficients of records with faulty labels, for those who measure and never train.

Nothing in `sf_jax` and `data_pipelines` may import this module: what trains could then reach the
truth. Experiments read it to score what was trained, and to simulate judges.
"""

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from sf_jax.media import npz_files
from sf_jax.systems.superface.flawed import ARRAYS, FlawedError
from sf_jax.systems.superface.pairs import image_hash

ACTIVE = 0.3  # a true coefficient of so much is an action


@dataclass(frozen=True, eq=False)
class Truth:
    """What N images show.

    Attributes:
      images: their hashes, `pairs.image_hash`.
      coefficients: in canonical order, 0 where not `known`.
      dropped: the channels that the labels lack although they may be active.
      numbers: from which the images were drawn, for `data_pipelines.synthetic.numbered`; -1 where
        that is not known.
    """

    images: tuple[str, ...]
    coefficients: Float32[np.ndarray, "N 61"]
    known: Bool[np.ndarray, "N 61"]
    dropped: Bool[np.ndarray, "N 61"]
    numbers: Int64[np.ndarray, " N"]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {image: row for row, image in enumerate(self.images)}

    def row(self, image: str | UInt8[np.ndarray, "H W 3"]) -> int:
        """The row of an image, given by its hash or its pixels.

        Raises:
          KeyError: the image is not among them.
        """
        return self._rows[image if isinstance(image, str) else image_hash(image)]

    @property
    def missed(self) -> Bool[np.ndarray, "N 61"]:
        """Actions that the labels lack: a channel was dropped, and is active in truth."""
        return self.dropped & self.known & (self.coefficients >= ACTIVE)


def read(path: str | os.PathLike) -> Truth:
    """The truth of a file that `flawed` has written.

    Raises:
      FlawedError: the file is missing or damaged; names the array.
    """
    found = npz_files.read_arrays(path, ARRAYS, FlawedError)
    return Truth(
        images=tuple(found["image"].tolist()),
        coefficients=found["coefficients"].astype(np.float32),
        known=found["known"],
        dropped=found["dropped"],
        numbers=found["number"].astype(np.int64),
    )
