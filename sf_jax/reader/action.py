"""What a reading gives: `FaceAction`, and the likelihood of an answer that was given."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int32

import sf_jax
from sf_jax.face import channels
from sf_jax.face.agreement import Agreement, agreement
from sf_jax.face.describe import Description

Values = Float32[np.ndarray, "61"]  # one a channel in canonical order; NaN where it is not read


@dataclass(frozen=True)
class Provenance:
    """What an answer was made with.

    Attributes:
      version: of sf_jax.
      weights, adapter: hashes of their files, "xxh128:" and the digits that `xxh128sum` prints;
        None where there is none, for a model made in memory, and where files without checksums
        have changed since they were loaded.
    """

    version: str = sf_jax.__version__
    weights: str | None = None
    adapter: str | None = None

    def as_json(self) -> dict[str, str]:
        """The fields that are known."""
        fields = {"version": self.version, "weights": self.weights, "adapter": self.adapter}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class FaceAction:
    """What one image shows.

    Channels that the model does not read are NaN in every array: not known, and not zero.

    Attributes:
      coefficients: the mean of each slot's distribution.
      spread: its standard deviation; entropy: its entropy, in nats.
      answer: the generated values; log_likelihood: of each of them. All these depend on the
        rationale, and on the slots before each slot.
      rationale: the description, in four fields.
      text: the answer as generated, rationale and JSON.
      passes: model passes spent, {"rationale": n, "coefficients": m}, besides the one over image
        and prompt.
      rationale_ids: the rationale as tokens.
      rationale_log_probabilities: of each of these tokens and of the end, in nats; empty where the
        service that answered knows none.
      channels: canonical names of those that the model reads, in canonical order.
      provenance: version and hash of the weights; None where the service that answered names none.
    """

    coefficients: Values
    spread: Values
    answer: Values
    rationale: Description
    text: str
    passes: dict[str, int] = field(default_factory=dict)
    entropy: Values = field(kw_only=True, repr=False)
    log_likelihood: Values = field(kw_only=True, repr=False)
    rationale_ids: Int32[np.ndarray, " T"] = field(kw_only=True, repr=False)
    rationale_log_probabilities: Float32[np.ndarray, " T+1"] = field(
        default_factory=lambda: np.zeros(0, np.float32), kw_only=True, repr=False
    )

    channels: tuple[str, ...] = field(default=channels.NAMES, kw_only=True, repr=False)
    provenance: Provenance | None = field(default=None, kw_only=True, repr=False)

    def as_dict(self) -> dict[str, float]:
        """Channel name → coefficient of the channels that were read, in canonical order."""
        return named(self.coefficients, self.channels)

    @property
    def agreement(self) -> Agreement | None:
        """How far the generated rationale agrees with the generated values; None where there is no
        rationale in the describer's language."""
        return agreement(self.rationale, self.answer)


def named(values: Values, read: Sequence[str]) -> dict[str, float]:
    """Channel name → value of the channels that were read, in canonical order."""
    return {name: float(values[i]) for i, name in enumerate(channels.NAMES) if name in read}


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood, in nats, of an answer that was given.

    Attributes:
      rationale: of the rationale and its end; 0 without one.
      coefficients: of each value, given the rationale and the values before it; NaN for channels
        that the model does not read.
    """

    rationale: float
    coefficients: Values

    @property
    def total(self) -> float:
        """Of rationale and coefficients together."""
        return self.rationale + float(np.nansum(self.coefficients))
