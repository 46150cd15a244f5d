"""A maker of small records that costs no rendering; processes import it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import records
from data_pipelines.held_out import Split
from data_pipelines.sources import OFFSET, number_of


@dataclass(frozen=True)
class TinyFaces:
    """Attributes:
    leak: whether one person of train is in the evaluation split too.
    stops_at: a number at which making records fails, while the file `failing` exists.
    """

    seed: int = 0
    people: int = 7
    leak: bool = False
    stops_at: int = -1
    failing: Path | None = None

    def check(self, split: Split) -> None:
        """Needs no file."""

    def packed(self, index: int, split: Split) -> bytes:
        number = number_of(index, self.seed, split)
        if number == self.stops_at and self.failing is not None and self.failing.exists():
            raise KeyboardInterrupt
        g = np.random.default_rng(number)
        person = int(g.integers(self.people)) + (OFFSET if split == "evaluation" else 0)
        if self.leak and split == "evaluation" and index == 3:
            person = 2
        return records.encode(
            {
                "image": g.integers(0, 256, (12, 16, 3)).astype(np.uint8),
                "coefficients": g.random(61).astype(np.float32),
                "known": np.ones(61, bool),
                "rationale": "" if index % 5 == 0 else f"face {number}",
                "source": ("builtin", "drawn")[index % 2],
                "style": "ink",
                "identity": person,
                "seed": number,
                **({"rejected": "JawOpen"} if index % 10 == 0 else {}),
            },
            exact=False,
        )

    def settings(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "people": self.people}
