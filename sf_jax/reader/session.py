"""One face over the frames of a video or a camera: what is kept from one frame to the next.

A session holds the place of the face, the smoothing filter, the person's neutral face and the
previous answer, from which the next one is drafted. `sf-jax predict` reads a video through one, and
the service keeps one for each client that names it.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import UInt8

from sf_jax.convert.processor import FittedImage
from sf_jax.face import channels
from sf_jax.face.describe import Description, redescribed
from sf_jax.face.landmarks import Square
from sf_jax.face.one_euro import OneEuro
from sf_jax.media.video_times import MAX_FPS, MIN_FPS
from sf_jax.reader.action import FaceAction, Values
from sf_jax.reader.framing import Framed, Which, check_face
from sf_jax.reader.tracking import Change, Track, followed

if TYPE_CHECKING:  # it brings jax, which a client does not need
    from sf_jax.reader.estimator import Model

Picture = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class SessionOptions:
    """How the frames of a session are read.

    Attributes:
      whole, face, force: as for `Model.predict`. The session keeps to the face that it began with,
        as long as it is there.
      values: the values handed out: "mean" of each slot's distribution, or the spoken "answer".
      smooth: pass the values through a One-Euro filter.
      fps: frames a second, for the filter, where frames come without their time.

    Raises:
      ValueError: `values`, `face` or `fps` is none of these.
    """

    whole: bool | None = None
    face: Which = "largest"
    force: bool = False
    values: Literal["mean", "answer"] = "mean"
    smooth: bool = False
    fps: float = 30.0

    def __post_init__(self) -> None:
        if self.values not in ("mean", "answer"):
            raise ValueError(f"values is {self.values!r}, expected 'mean' or 'answer'")
        check_face(self.face)
        if not MIN_FPS <= self.fps <= MAX_FPS:
            expected = f"{MIN_FPS:g} to {MAX_FPS:g}"
            raise ValueError(f"fps is {self.fps!r}, expected {expected}")


@dataclass(frozen=True)
class Frame:
    """What one frame shows.

    Attributes:
      seen: what was read: the square of a face as large as the model reads it, or the whole image.
      action: the model's answer, as `Model.predict` gives it.
      values: of each channel as the options ask: relative to the neutral face, smoothed, and within
        the channel's range. NaN where no face was found.
      rationale: of these values. Where a neutral face was subtracted, the model's own describes
        other values: it is written anew by the describer, or empty, see `redescribed`.
      corrected: whether a neutral face was subtracted.
      number: how many frames of the session came before it.
      change: what has changed with this frame: "cut", or "another face" than that of before.
      image: the frame itself.
    """

    seen: Picture
    action: FaceAction
    values: Values
    rationale: Description
    corrected: bool
    number: int
    change: Change | None = None
    image: Picture | None = None

    @property
    def found(self) -> bool:
        """Whether a face was found; True where none was searched for."""
        return self.action.found

    @property
    def box(self) -> Square | None:
        """The square of `image` that was read; None where the whole image was."""
        return None if self.action.face is None else self.action.face.box

    @property
    def shown(self) -> FaceAction:
        """What a sheet shows: the answer, or where it was corrected the values and rationale."""
        if not self.corrected:
            return self.action
        return replace(
            self.action,
            coefficients=self.values,
            answer=self.values,
            rationale=self.rationale,
            uncorrected=None,
        )


@dataclass(frozen=True, eq=False)
class Step:
    """A frame that is to be read, and where its face is.

    Attributes:
      image: the frame; framed: what is read of it.
      track: follows the face in the next frames, once this one is answered.
      change: as in `Frame`.
    """

    image: Picture
    framed: Framed
    track: Track
    change: Change | None = None


class Session:
    """The state between the frames of one face.

    Args:
      model: finds the face, and answers a frame.
      neutral: this person's values at rest, which are subtracted; see `remove_neutral`.
      asked: further arguments of `Model.predict`, the same for every frame.
    """

    def __init__(
        self,
        model: "Model",
        options: SessionOptions | None = None,
        neutral: Values | None = None,
        **asked: Any,
    ):
        self.options = options or SessionOptions()
        self.neutral = neutral
        self.previous: FaceAction | None = None
        self.number = 0
        self._model, self._asked = model, asked
        self._track = Track()
        self._filter = OneEuro(self.options.fps) if self.options.smooth else None

    def frame(self, image: Picture, seconds: float | None = None) -> Frame:
        """Reads the next frame.

        Args:
          image: uint8 [H, W, 3].
          seconds: the frame's time, for the smoothing; given for every frame or for none.

        Raises:
          sf_jax.media.images.ImageError: the image's shape is absurd.
          ValueError: time runs backwards, or some frames have a time and others not.
        """
        return self.read(self.framed(image), seconds)

    def read(self, step: Step, seconds: float | None = None) -> Frame:
        """Reads what `framed` gave."""
        previous = None if self.previous is None else [self.previous]
        (action,) = self._model.predict_batch([step.framed], previous=previous, **self._asked)
        return self.answered(step, action, seconds)

    @property
    def frames(self) -> bool:
        """Whether a face is found and framed; else whole images are read."""
        return self._model.frames(self.options.whole, self.options.face)

    def framed(self, image: Picture | FittedImage) -> Step:
        """The first half of `frame`: what is to be read. Changes nothing, so that a frame may be
        given up while a thread still works on it.

        Args:
          image: may be fitted already where whole images are read.
        """
        if isinstance(image, FittedImage):
            return Step(image.pixels, Framed(image), self._track)
        if not self.frames:
            return Step(image, self._model.framed(image, whole=True), self._track)
        options = self.options
        track, change = followed(self._model.framer, image, self._track, options.face)
        if track.face is not None:
            seen = self._model.cut(image, track.face)
        elif options.force:
            seen = self._model.framed(image, whole=True)
        else:
            seen = Framed(None)
        return Step(image, seen, track, change)

    def answered(self, step: Step, action: FaceAction, seconds: float | None = None) -> Frame:
        """The second half of `frame`: takes the model's answer to what `framed` gave."""
        values, rationale = self.values_of(action), action.rationale
        if self._filter is not None and (step.change or not action.found):
            self._filter.reset()  # values before and after are not comparable
        if action.found:
            values = self._as_asked(action, values, seconds)
            if self.neutral is not None:
                rationale = redescribed(rationale, values)
        seen = step.image
        if step.framed.face is not None and step.framed.picture is not None:
            seen = step.framed.picture.pixels
        frame = Frame(
            seen,
            action,
            values,
            rationale,
            self.neutral is not None and action.found,
            self.number,
            step.change,
            step.image,
        )
        self.previous = action if action.found else self.previous
        self.number, self._track = self.number + 1, step.track
        return frame

    def _as_asked(self, action: FaceAction, values: Values, seconds: float | None) -> Values:
        """Relative to the neutral face, smoothed, and within the channels' ranges."""
        if self.neutral is not None:
            values = remove_neutral(values, self.neutral)
        if self._filter is not None:
            read = [channels.INDEX[name] for name in action.channels]
            values = np.array(values)
            values[read] = self._filter(values[read], seconds)
        return np.clip(values, channels.LOW, channels.HIGH)

    def values_of(self, action: FaceAction) -> Values:
        """The values of an answer that the options ask for, before neutral and smoothing."""
        return action.answer if self.options.values == "answer" else action.coefficients

    def set_neutral(self, action: FaceAction) -> None:
        """Takes an answer as the person's face at rest, from the next `answered` on.

        Raises:
          ValueError: no face was found.
        """
        if not action.found:
            raise ValueError("no face was found that could be the neutral one")
        self.neutral = self.values_of(action)
        if self._filter is not None:
            self._filter.reset()  # values before and after are not comparable


def remove_neutral(values: Values, neutral: Values) -> Values:
    """Values relative to a person's neutral face.

    (v - n) / (1 - n) for blendshapes, limited to [0, 1], so that full action stays 1; v - n for
    angles, limited to their range.
    """
    out = np.array(values, np.float32)
    rest = np.clip(neutral[channels.BLENDSHAPES], 0, 0.95)
    out[channels.BLENDSHAPES] = (out[channels.BLENDSHAPES] - rest) / (1 - rest)
    out[channels.ANGLES] -= neutral[channels.ANGLES]
    return np.clip(out, channels.LOW, channels.HIGH)
