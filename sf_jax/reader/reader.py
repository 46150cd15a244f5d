"""A model, and how one command asks it: the options of `sf-jax predict`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sf_jax.media import images
from sf_jax.reader.session import Frame, Session, SessionOptions, Values

if TYPE_CHECKING:  # jax takes a second to import, and options need none
    from sf_jax.reader.estimator import Model

PICTURE_FPS = 30  # of a session of one image, where no time exists

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PredictOptions:
    """The flags of `sf-jax predict`; see its help. Without `out` readings are printed."""

    out: Path | None = None
    recursive: bool = False
    skip_existing: bool = False
    crop: bool = False
    values: Literal["mean", "answer"] = "mean"
    smooth: bool = False
    neutral: Path | None = None
    fps: float | None = None
    drop_frame: bool = False
    source_column: bool = False
    rationale: bool = True
    previews: bool = True
    temperature: float = 0.0
    seed: int = 0
    max_rationale: int | None = None
    prompt: Messages | None = None


class Reader:
    """A model, and how the files of one command are to be read; the neutral image is read once."""

    def __init__(self, model: "Model", options: PredictOptions):
        self.model, self.options = model, options
        self.neutral: Values | None = None
        if options.neutral is not None:
            frame = self.read(images.read_image(options.neutral))
            self.neutral = frame.values

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that the model reads."""
        return self.model.schema.names

    def session(self, fps: float | None = None, messages: Messages | None = None) -> Session:
        """A new session.

        Args:
          fps: of a video; None for one image, where there is nothing to smooth.
          messages: the conversation to answer; None means the prompt of the options.
        """
        asked = self.options
        options = SessionOptions(
            crop=asked.crop,
            values=asked.values,
            smooth=asked.smooth and fps is not None,
            fps=fps or PICTURE_FPS,
        )
        return Session(
            self.model,
            options,
            self.neutral,
            rationale=asked.rationale,
            temperature=asked.temperature,
            seed=asked.seed,
            messages=messages or asked.prompt,
            max_rationale=asked.max_rationale,
        )

    def read(self, image: np.ndarray, messages: Messages | None = None) -> Frame:
        """One image on its own.

        Raises:
          ImageError: the image's shape is absurd.
        """
        return self.session(messages=messages).frame(image)
