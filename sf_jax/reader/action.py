"""What a reading gives: `FaceAction`, and the likelihood of an answer that was given."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int32

import sf_jax
from sf_jax.face import channels
from sf_jax.face.agreement import Agreement, agreement
from sf_jax.face.describe import Description
from sf_jax.face.landmarks import Square
from sf_jax.reader.reliability import Reliability

Values = Float32[np.ndarray, "61"]  # one a channel in canonical order; NaN where it is not read


@dataclass(frozen=True)
class Provenance:
    """What an answer was made with.

    Attributes:
      version: of sf_jax.
      weights, adapter: hashes of their files, "xxh128:" and the digits that `xxh128sum` prints;
        None where there is none, for a model made in memory, and where files without checksums
        have changed since they were loaded.
      settings: one hash of the other files of the model directory that an answer depends on, such
        as its finder, read-out and schema; no part of a result.
    """

    version: str = sf_jax.__version__
    weights: str | None = None
    adapter: str | None = None
    settings: str | None = field(default=None, compare=False, repr=False)

    def as_json(self) -> dict[str, str]:
        """The fields that are known, as results name them."""
        fields = {"version": self.version, "weights": self.weights, "adapter": self.adapter}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Face:
    """A face that was found in an image.

    Attributes:
      box: the square in which it was read, in pixels of the upright image.
      score: of the finder, from 0 to 1.
      number: its number among the faces of the image, from 1 in the order from left to right.
      count: how many faces were found.
      image: width and height of the image in these pixels: a large file is shrunk when it is read.
    """

    box: Square
    score: float
    number: int = 1
    count: int = 1
    image: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Uncorrected:
    """What a model generated of a face in a turned square, where the roll changed it.

    Attributes:
      rationale, text, answer: as in `FaceAction`, with the angles of the head in that square.
    """

    rationale: Description
    text: str
    answer: Values


@dataclass(frozen=True)
class FaceAction:
    """What one image shows.

    Channels that the model does not read are NaN in every array: not known, and not zero. Where no
    face was found all channels are, and the rationale is empty; see `found`.

    A face is read in a square that is turned as the head is. The roll of the square is part of the
    head's angles here, in all fields but `entropy`, `log_likelihood` and `probabilities`, which
    are of the values as generated.

    Attributes:
      coefficients: the mean of each slot's distribution.
      spread: its root mean square distance from the coefficient; entropy: its entropy, in nats;
        both calibrated where the model directory has a calibration, see `calibration.py`.
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
      face: the face that was read; None where the whole image was, or no face was found.
      uncorrected: what was generated, where a turned square changed the answer; else None.
      probabilities: of each value that a channel can have, in the order of `Model.values`, as
        generated, calibrated as `spread` is; None where no face was found, and in answers of the
        service.
      reliability: how well each channel was measured to be read; None where it is not known.
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
    face: Face | None = field(default=None, kw_only=True)
    uncorrected: Uncorrected | None = field(default=None, kw_only=True, repr=False)
    probabilities: Float32[np.ndarray, "61 V"] | None = field(
        default=None, kw_only=True, repr=False, compare=False
    )
    reliability: Reliability | None = field(default=None, kw_only=True, repr=False, compare=False)

    @property
    def found(self) -> bool:
        """Whether anything was read; False where no face was found, and every value is NaN."""
        return not bool(np.isnan(self.coefficients).all())

    def as_dict(self) -> dict[str, float]:
        """Channel name → coefficient of the channels that were read, in canonical order."""
        return named(self.coefficients, self.channels)

    @property
    def weak(self) -> tuple[str, ...]:
        """Channels that the model was measured to read badly; see `reliability.LEAST`."""
        return () if self.reliability is None else self.reliability.weak

    @property
    def agreement(self) -> Agreement | None:
        """How far the generated rationale agrees with the generated values; None where there is no
        rationale in the describer's language."""
        own = self.uncorrected or self
        return agreement(own.rationale, own.answer)


def no_face(
    read: Sequence[str] = channels.NAMES, provenance: Provenance | None = None
) -> FaceAction:
    """The answer to an image in which no face was found.

    Args:
      read: names of the channels that the model reads.
    """

    def unknown() -> Values:
        return np.full(len(channels.NAMES), np.nan, np.float32)

    return FaceAction(
        coefficients=unknown(),
        spread=unknown(),
        answer=unknown(),
        rationale=Description("", "", "", ""),
        text="",
        passes={"rationale": 0, "coefficients": 0},
        entropy=unknown(),
        log_likelihood=unknown(),
        rationale_ids=np.zeros(0, np.int32),
        channels=tuple(read),
        provenance=provenance,
    )


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
