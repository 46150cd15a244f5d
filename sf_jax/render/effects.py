"""What a camera, a file or a print does to an image: exposure, blur, noise, grain, compression."""

from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

REFERENCE = 96  # pixels of the shorter side at which lengths are given
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SEPIA = np.array([1.07, 0.93, 0.72], np.float32)


@dataclass(frozen=True)
class Effects:
    """How a rendered picture becomes an image; the defaults change nothing.

    Attributes:
      gamma: exponent of brightness; gain, bias: contrast about the middle, brightness.
      tint: white balance [3]; saturation: 0 grey to 1 as rendered, and more.
      sepia: 0 to 1, brown instead of the colours; posterise: levels a channel, 0 for all.
      vignette: by how much the corners are darker, 0 to 1.
      blur: standard deviation in pixels at a shorter side of 96.
      motion: [2] x, y extent of motion blur, in the same pixels.
      scale: share of the sides at which the picture is stored before it is enlarged again.
      noise: standard deviation in [0, 1]; grain: share of it that is alike in the channels.
      jpeg: quality, None for no compression.
      noise_seed: of the noise.
    """

    gamma: float = 1.0
    gain: float = 1.0
    bias: float = 0.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    sepia: float = 0.0
    posterise: int = 0
    vignette: float = 0.0
    blur: float = 0.0
    motion: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    noise: float = 0.0
    grain: float = 0.0
    jpeg: int | None = None
    noise_seed: int = 0


@cache
def _noise_pool() -> np.ndarray:
    """Normal noise float32 [1024, 1024], cut at random: drawing new noise costs more than all."""
    return np.random.default_rng(0).standard_normal((1024, 1024), np.float32)


def _noise(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Normal noise, float32 [height, width]."""
    pool = _noise_pool()
    if height > len(pool) or width > len(pool):
        return generator.standard_normal((height, width), np.float32)
    top, left = generator.integers(0, [len(pool) - height + 1, len(pool) - width + 1])
    turned = pool[top : top + height, left : left + width]
    return turned[:: generator.choice([-1, 1]), :: generator.choice([-1, 1])]


def _motion_kernel(extent: tuple[float, float], scale: float) -> np.ndarray:
    """A line [k, k] along which the picture is averaged."""
    x, y = extent[0] * scale, extent[1] * scale
    half = int(np.ceil(max(abs(x), abs(y)) / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for share in np.linspace(-0.5, 0.5, 16 * half):
        column, row = half + share * x, half + share * y
        left, top = int(column), int(row)
        right, low = column - left, row - top
        weights = np.outer([1 - low, low], [1 - right, right])
        kernel[top : top + 2, left : left + 2] += weights
    return kernel / kernel.sum()


def _colours(picture: np.ndarray, effects: Effects) -> np.ndarray:
    """Exposure, white balance and saturation, then contrast."""
    if effects.gamma != 1.0:
        picture = np.power(np.maximum(picture, 0), np.float32(effects.gamma))
    tint = np.array(effects.tint, np.float32) * np.float32(effects.gain)
    picture = picture * tint + np.float32(0.5 - 0.5 * effects.gain + effects.bias)
    if effects.saturation != 1.0 or effects.sepia:
        grey = (picture @ _LUMA)[..., None]
        saturation = np.float32(effects.saturation * (1 - effects.sepia))
        picture = grey + saturation * (picture - grey)
        if effects.sepia:
            picture = picture * (1 + np.float32(effects.sepia) * (_SEPIA - 1))
    return picture


def _optics(picture: np.ndarray, effects: Effects) -> np.ndarray:
    """Vignette, blur, motion and low resolution."""
    height, width = picture.shape[:2]
    pixels = min(height, width) / REFERENCE
    if effects.vignette:
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in (height, width))
        picture = picture * (1 - np.float32(effects.vignette / 2) * (y[:, None] + x))[..., None]
    if effects.blur:
        picture = cv2.GaussianBlur(picture, (0, 0), effects.blur * pixels)
    if any(effects.motion):
        picture = cv2.filter2D(picture, -1, _motion_kernel(effects.motion, pixels))
    if effects.scale < 1.0:
        small = (max(1, round(width * effects.scale)), max(1, round(height * effects.scale)))
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    return picture.reshape(height, width, 3)


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """An image uint8 [H, W, 3] as it comes out of a JPEG file."""
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1])


def develop(picture: np.ndarray, effects: Effects) -> np.ndarray:
    """Converts a rendered picture to an image.

    Args:
      picture: float32 [H, W, 3], 0 black to 1 white; values above 1 are cut at 1.2.

    Returns:
      uint8 [H, W, 3].
    """
    if effects == Effects():
        return cv2.convertScaleAbs(picture, alpha=255)
    picture = _optics(_colours(np.clip(picture, 0, 1.2), effects), effects)
    generator = np.random.default_rng(effects.noise_seed)
    if effects.noise:
        height, width = picture.shape[:2]
        alike, own = effects.noise * effects.grain, effects.noise * (1 - effects.grain)
        common = np.float32(alike) * _noise(height, width, generator)[..., None]
        each = _noise(height, 3 * width, generator).reshape(height, width, 3)
        picture = picture + common + np.float32(own) * each
    if effects.posterise:
        steps = effects.posterise - 1
        picture = np.rint(np.clip(picture, 0, 1) * steps) / steps
    image = cv2.convertScaleAbs(np.maximum(picture, 0), alpha=255)
    return image if effects.jpeg is None else compressed(image, effects.jpeg)


def random_effects(g: np.random.Generator) -> Effects:
    """Effects of the photographs, screenshots and prints that people have."""
    spoilt = g.random()
    angle = g.uniform(0, np.pi)
    shake = g.uniform(1, 5) if g.random() < 0.06 else 0.0
    effects = Effects(
        gamma=float(np.exp(g.normal(0, 0.18))),
        gain=float(g.uniform(0.75, 1.25)),
        bias=float(g.normal(0, 0.05)),
        tint=tuple(g.uniform(0.9, 1.1, 3).tolist()),
        saturation=float(g.uniform(0.6, 1.4)),
        vignette=float(g.uniform(0.1, 0.7)) if g.random() < 0.15 else 0.0,
        blur=float(g.uniform(0.3, 1.1)) if g.random() < 0.3 else 0.0,
        motion=(float(shake * np.cos(angle)), float(shake * np.sin(angle))),
        scale=float(g.uniform(0.4, 0.8)) if g.random() < 0.12 else 1.0,
        noise=float(np.exp(g.uniform(np.log(0.004), np.log(0.05)))) if g.random() < 0.35 else 0.0,
        grain=float(g.random()),
        jpeg=int(g.integers(25, 96)) if g.random() < 0.65 else None,
        noise_seed=int(g.integers(1 << 31)),
    )
    if spoilt < 0.10:
        return replace(effects, saturation=0.0, sepia=float(g.uniform(0.4, 1) * (spoilt < 0.03)))
    if spoilt < 0.14:
        return replace(effects, gain=effects.gain * 1.4, bias=float(g.choice([-0.2, 0.25])))
    if spoilt < 0.16:
        return replace(effects, posterise=int(g.integers(6, 11)), noise=0.0)
    return effects
