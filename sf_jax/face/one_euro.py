"""The One-Euro filter: less jitter in a still face, little lag in a moving one.

A first-order low-pass filter per channel whose cut-off rises with the channel's speed (Casiez,
Roussel and Vogel, CHI 2012): cut-off = `min_cutoff` + `beta` · |speed|, in hertz. Every output is a
weighted mean of the input and earlier inputs, so it stays within the range of the values that went
in.

Coefficients are [..., C] with speeds in units a second: a blink closes at about 8 a second and
jitter of 0.02 at 30 frames a second moves at well below 1.
"""

from collections.abc import Sequence

import numpy as np

from sf_jax.media.errors import DataError


class TimeOrderError(DataError):
    """Frames whose times run backwards, or of which only some have a time."""


class OneEuro:
    """A filter that is given one frame after another and keeps its state between them."""

    def __init__(
        self,
        fps: float,
        min_cutoff: float = 1.0,
        beta: float = 2.0,
        derivative_cutoff: float = 1.0,
    ) -> None:
        """Makes a filter.

        Args:
          fps: frames a second, used where a frame comes without its time.
          min_cutoff: cut-off at rest, in hertz; lower is smoother.
          beta: how fast the cut-off rises with the speed, in hertz per unit a second; higher lags
            less.
          derivative_cutoff: cut-off for the speed itself, in hertz.

        Raises:
          ValueError: a rate or cut-off is not positive, or `beta` is negative.
        """
        positive = {"fps": fps, "min_cutoff": min_cutoff, "derivative_cutoff": derivative_cutoff}
        for name, value in positive.items():
            if not 0 < value < np.inf:
                raise ValueError(f"{name} is {value!r}, expected a positive number")
        if not 0 <= beta < np.inf:
            raise ValueError(f"beta is {beta!r}, expected 0 or more")
        self.fps, self.min_cutoff = float(fps), float(min_cutoff)
        self.beta, self.derivative_cutoff = float(beta), float(derivative_cutoff)
        self.reset()

    def reset(self) -> None:
        """Forgets the frames seen: the next one passes through as it is."""
        self._raw: np.ndarray | None = None
        self._smooth: np.ndarray | None = None
        self._speed: np.ndarray | None = None
        self._seconds: float | None = None

    def __call__(self, frame: np.ndarray, seconds: float | None = None) -> np.ndarray:
        """The next frame, smoothed: `[..., C]` in and out, of the same dtype.

        `seconds` is the frame's time. A frame at the time of the last one changes nothing.

        Raises:
          TimeOrderError: time runs backwards, or some frames have a time and others not.
          ValueError: a value is not finite.
        """
        raw = np.asarray(frame, np.float64)
        if not np.isfinite(raw).all():
            raise ValueError("a frame to be smoothed holds a value that is not finite")
        dtype = np.result_type(frame, np.float32)
        if self._raw is None or self._smooth is None or self._speed is None:
            self._raw, self._smooth, self._speed = raw, raw, np.zeros_like(raw)
            self._seconds = seconds
            return raw.astype(dtype)
        step = self._step(seconds)
        if step > 0:
            speed = (raw - self._raw) / step
            self._speed = _towards(self._speed, speed, _weight(self.derivative_cutoff, step))
            cutoff = self.min_cutoff + self.beta * np.abs(self._speed)
            self._smooth = _towards(self._smooth, raw, _weight(cutoff, step))
            self._raw = raw
        return self._smooth.astype(dtype)

    def _step(self, seconds: float | None) -> float:
        if (seconds is None) != (self._seconds is None):
            raise TimeOrderError("give the time of every frame or of none")
        if seconds is None:
            return 1.0 / self.fps
        assert self._seconds is not None  # as the first check has it
        step = float(seconds) - self._seconds
        if not step >= 0:
            raise TimeOrderError(f"time runs backwards, from {self._seconds:g} s to {seconds:g} s")
        self._seconds = float(seconds)
        return step


def _weight(cutoff: float | np.ndarray, step: float) -> float | np.ndarray:
    """How far a low-pass filter of this cut-off goes towards its input in one step, in (0, 1)."""
    turn = 2.0 * np.pi * cutoff * step
    return turn / (turn + 1.0)


def _towards(value: np.ndarray, target: np.ndarray, weight: float | np.ndarray) -> np.ndarray:
    return value + weight * (target - value)


def smooth(
    coefficients: np.ndarray,
    fps: float,
    seconds: Sequence[float] | np.ndarray | None = None,
    min_cutoff: float = 1.0,
    beta: float = 2.0,
    derivative_cutoff: float = 1.0,
) -> np.ndarray:
    """Smooths `[N, C]` frames, `1 / fps` apart or at given times; same shape and dtype out."""
    frames = np.asarray(coefficients)
    if seconds is not None and len(seconds) != len(frames):
        raise ValueError(f"{len(seconds)} times for {len(frames)} frames")
    one_euro = OneEuro(fps, min_cutoff, beta, derivative_cutoff)
    times = [None] * len(frames) if seconds is None else seconds
    smoothed = [one_euro(frame, time) for frame, time in zip(frames, times, strict=True)]
    return np.stack(smoothed) if smoothed else frames
