"""One face over the frames of a video or a camera: what is kept from one frame to the next.

A session holds the framing of the face, the smoothing filter, the person's neutral face and the
previous answer, from which the next one is drafted. `sf-jax predict` reads a video through one, and
the service keeps one for each client that names it.
"""

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import UInt8

from sf_jax.face import channels
from sf_jax.face.describe import Description, redescribed
from sf_jax.face.one_euro import OneEuro
from sf_jax.media.video_times import MAX_FPS, MIN_FPS
from sf_jax.reader.action import FaceAction, Values
from sf_jax.reader.finder import Cropper

if TYPE_CHECKING:  # it brings jax, which a client does not need
    from sf_jax.reader.estimator import Model

SEARCH_EVERY = 5  # frames between searches for the face

Picture = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class SessionOptions:
    """How the frames of a session are read.

    Attributes:
      crop: find the face and read a square around it.
      values: the values handed out: "mean" of each slot's distribution, or the spoken "answer".
      smooth: pass the values through a One-Euro filter.
      fps: frames a second, for the filter, where frames come without their time.

    Raises:
      ValueError: `values` or `fps` is none of these.
    """

    crop: bool = False
    values: Literal["mean", "answer"] = "mean"
    smooth: bool = False
    fps: float = 30.0

    def __post_init__(self) -> None:
        if self.values not in ("mean", "answer"):
            raise ValueError(f"values is {self.values!r}, expected 'mean' or 'answer'")
        if not MIN_FPS <= self.fps <= MAX_FPS:
            expected = f"{MIN_FPS:g} to {MAX_FPS:g}"
            raise ValueError(f"fps is {self.fps!r}, expected {expected}")


@dataclass(frozen=True)
class Frame:
    """What one frame shows.

    Attributes:
      seen: the image as the model read it, cropped where `crop` was asked for.
      action: the model's answer, as `Model.predict` gives it.
      values: of each channel as the options ask: relative to the neutral face, smoothed, and within
        the channel's range.
      rationale: of these values. Where a neutral face was subtracted, the model's own describes
        other values: it is written anew by the describer, or empty, see `redescribed`.
      corrected: whether a neutral face was subtracted.
      found: whether a face was found; True where none was searched for.
      number: how many frames of the session came before it.
    """

    seen: Picture
    action: FaceAction
    values: Values
    rationale: Description
    corrected: bool
    found: bool
    number: int

    @property
    def shown(self) -> FaceAction:
        """What a sheet shows: the answer, or where it was corrected the values and rationale."""
        if not self.corrected:
            return self.action
        return replace(
            self.action, coefficients=self.values, answer=self.values, rationale=self.rationale
        )


@dataclass(frozen=True)
class Framed:
    """An image that waits for the model's answer.

    Attributes:
      image: what is to be read, cropped where `crop` was asked for.
      found: whether a face was found; True where none was searched for.
      cropper: follows the face in the next frames, once this one is answered.
    """

    image: Picture
    found: bool
    cropper: Cropper


class Session:
    """The state between the frames of one face.

    Args:
      model: answers a frame; only `frame` needs it.
      neutral: this person's values at rest, which are subtracted; see `remove_neutral`.
      asked: further arguments of `Model.predict`, the same for every frame.
    """

    def __init__(
        self,
        model: "Model | None" = None,
        options: SessionOptions | None = None,
        neutral: Values | None = None,
        **asked: Any,
    ):
        self.options = options or SessionOptions()
        self.neutral = neutral
        self.previous: FaceAction | None = None
        self.number = 0
        self._model, self._asked = model, asked
        self._cropper = Cropper(every=SEARCH_EVERY)
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
        if self._model is None:
            raise ValueError("this session has no model; use `framed` and `answered`")
        framed = self.framed(image)
        action = self._model.predict(framed.image, previous=self.previous, **self._asked)
        return self.answered(framed, action, seconds)

    def framed(self, image: Picture) -> Framed:
        """The first half of `frame`: the image to be read. Changes nothing, so that a frame may be
        given up while a thread still works on it."""
        cropper = copy(self._cropper)
        seen, found = cropper(image) if self.options.crop else (image, True)
        return Framed(seen, found, cropper)

    def answered(self, framed: Framed, action: FaceAction, seconds: float | None = None) -> Frame:
        """The second half of `frame`: takes the model's answer to what `framed` gave."""
        values = self.values_of(action)
        if self.neutral is not None:
            values = remove_neutral(values, self.neutral)
        if self._filter is not None:
            read = [channels.INDEX[name] for name in action.channels]
            values = np.array(values)
            values[read] = self._filter(values[read], seconds)
        values = np.clip(values, channels.LOW, channels.HIGH)
        rationale = action.rationale
        if self.neutral is not None:
            rationale = redescribed(rationale, values)
        corrected = self.neutral is not None
        frame = Frame(framed.image, action, values, rationale, corrected, framed.found, self.number)
        self.previous, self.number, self._cropper = action, self.number + 1, framed.cropper
        return frame

    def values_of(self, action: FaceAction) -> Values:
        """The values of an answer that the options ask for, before neutral and smoothing."""
        return action.answer if self.options.values == "answer" else action.coefficients

    def set_neutral(self, action: FaceAction) -> None:
        """Takes an answer as the person's face at rest, from the next `answered` on."""
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
