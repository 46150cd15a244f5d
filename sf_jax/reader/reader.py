"""A model, and how one command asks it: the options of `sf-jax predict`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sf_jax.media import images
from sf_jax.reader.framing import Framed, NoFaceError, Which
from sf_jax.reader.session import Frame, Session, SessionOptions, Step, Values
from sf_jax.reader.tracking import Track

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
    whole: bool | None = None
    face: Which | Literal["all"] = "largest"
    force: bool = False
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
            self.neutral = self._read_neutral(options.neutral)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that the model reads."""
        return self.model.schema.names

    def _read_neutral(self, path: Path) -> Values:
        """The values of the neutral image: of its largest face, whichever the others are read for.

        Raises:
          NoFaceError: faces are read, and it has none.
        """
        options = replace(self._session_options(None), face="largest", force=False)
        frame = self._session(options, self.options.prompt).frame(images.read_image(path))
        if not frame.found:
            problem = "no face found, which the neutral image needs; --whole reads whole images"
            raise NoFaceError(problem, path=path)
        return frame.values

    def session(self, fps: float | None = None, messages: Messages | None = None) -> Session:
        """A new session.

        Args:
          fps: of a video; None for one image, where there is nothing to smooth.
          messages: the conversation to answer; None means the prompt of the options.
        """
        return self._session(self._session_options(fps), messages or self.options.prompt)

    def _session_options(self, fps: float | None) -> SessionOptions:
        """How a session reads. A number, or all faces, make any model read framed faces."""
        asked = self.options
        return SessionOptions(
            whole=not self.frames,
            face="largest" if asked.face == "all" else asked.face,
            force=asked.force,
            values=asked.values,
            smooth=asked.smooth and fps is not None,
            fps=fps or PICTURE_FPS,
        )

    def _session(self, options: SessionOptions, messages: Messages | None) -> Session:
        asked = self.options
        return Session(
            self.model,
            options,
            self.neutral,
            rationale=asked.rationale,
            temperature=asked.temperature,
            seed=asked.seed,
            messages=messages,
            max_rationale=asked.max_rationale,
        )

    def read(self, image: np.ndarray, messages: Messages | None = None) -> Frame:
        """One image on its own.

        Raises:
          ImageError: the image's shape is absurd.
        """
        return self.session(messages=messages).frame(image)

    @property
    def frames(self) -> bool:
        """Whether faces are found and framed."""
        return self.model.frames(self.options.whole, self.options.face)

    def read_faces(self, image: np.ndarray) -> list[Frame]:
        """All faces of one image, from left to right, each read on its own; without a face what
        `read` gives."""
        faces = self.model.framed_faces(image) if self.frames else []
        return [self._read_face(image, one) for one in faces] or [self.read(image)]

    def _read_face(self, image: np.ndarray, face: Framed) -> Frame:
        return self.session().read(Step(image, face, Track()))


def read_whole(reader: Reader, frame: Frame) -> bool:
    """Whether a face was searched for, and the image was read whole as none was found."""
    return reader.frames and frame.found and frame.action.face is None
