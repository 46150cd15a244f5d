"""Rendered faces whose rationale was compared with their coefficients before it is stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_pipelines import records
from data_pipelines.held_out import Split
from data_pipelines.shards import REJECTED
from data_pipelines.sources import Mixture
from sf_jax.face import checking


@dataclass(frozen=True)
class CheckedFaces:
    """Makes the records of a mixture, byte for byte, but for rationales that are refused.

    A record is rendered and described (`Mixture.record`), then its rationale is checked. One that
    contradicts its coefficients is left out, and the record's field `rejected` has the reason.
    """

    mixture: Mixture

    @property
    def seed(self) -> int:
        return self.mixture.seed

    def check(self, split: Split) -> None:
        """See `Mixture.check`."""
        self.mixture.check(split)

    def packed(self, index: int, split: Split) -> bytes:
        """Record `index` of a split as it is stored, with a JPEG image."""
        return records.encode(checked(self.mixture.record(index, split)), exact=False)

    def settings(self) -> Mapping[str, Any]:
        """See `Mixture.settings`; records that were not checked have others."""
        return self.mixture.settings() | {"checked": True}


def checked(record: dict[str, Any]) -> dict[str, Any]:
    """A record with its rationale, or without it where that contradicts the coefficients."""
    if not record["rationale"]:
        return record
    found = checking.check(record["rationale"], record["coefficients"], record.get("known"))
    if not found:
        return record
    return record | {"rationale": "", REJECTED: "; ".join(one.text for one in found)}
