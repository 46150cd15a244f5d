"""What is done to the finished picture: screentone, halftone, pencil, watercolour, pixels."""

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from sf_jax.render.drawn.style import Finish

Picture = UInt8[np.ndarray, "H W 3"]


def finished(image: Picture, finish: Finish) -> Picture:
    """The image after the style's technique, in its size."""
    apply = {
        "screentone": _screentone,
        "halftone": _halftone,
        "pencil": _pencil,
        "watercolour": _watercolour,
        "crayon": _crayon,
        "paper": _paper,
        "pixels": _pixels,
    }.get(finish.kind)
    if apply is not None:
        image = apply(image, finish)
    if finish.grey:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if finish.blur:
        image = cv2.GaussianBlur(image, (0, 0), finish.blur * min(image.shape[:2]) / 128)
    if not (finish.warmth or finish.grain):
        return image
    picture = image.astype(np.float32)
    if finish.warmth:
        picture *= (1 + 0.08 * finish.warmth, 1.0, 1 - 0.14 * finish.warmth)
    if finish.grain:
        picture += finish.grain * 25 * _noise(*image.shape[:2], finish.seed % 8)[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _noise(height: int, width: int, seed: int) -> Float[np.ndarray, "H W"]:
    """Paper: noise of several sizes, mean 0 and deviation about 1."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for size in (1, 2, 5):
        shape = (max(2, height // size), max(2, width // size))
        noise = random.normal(0, 1, shape).astype(np.float32)
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    return total / total.std()


@lru_cache(maxsize=64)
def _dots(height: int, width: int, cell: float, turn: float) -> Float[np.ndarray, "H W"]:
    """A screen of dots, 0 in their middles and 1 between them."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cos, sin = np.cos(turn), np.sin(turn)
    u, v = (x * cos + y * sin) / cell, (y * cos - x * sin) / cell
    return (0.5 - 0.25 * (np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v))).astype(np.float32)


def _cell(image: Picture, finish: Finish) -> float:
    return max(2.0, round(finish.cell * min(image.shape[:2]) * 2) / 2)


def _screentone(image: Picture, finish: Finish) -> Picture:
    """Black ink and white paper; middle tones become dots."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    screen = _dots(*image.shape[:2], _cell(image, finish), 0.785)
    toned = np.clip((grey - 0.85 * (1 - screen) - 0.02) * 5 + 0.5, 0, 1)
    middle = ((grey > 0.3) & (grey < 0.93)).astype(np.float32)
    amount = middle * (0.5 + 0.5 * finish.amount)
    out = grey + (toned - grey) * amount
    return np.repeat((out * 255).astype(np.uint8)[..., None], 3, 2)


def _halftone(image: Picture, finish: Finish) -> Picture:
    """Printed colour: dots darken the middle tones of each ink a little."""
    screen = _dots(*image.shape[:2], _cell(image, finish), 0.26)[..., None]
    picture = image.astype(np.float32) / 255
    dark = 1 - picture
    dots = np.clip((dark - 0.7 * screen) * 4 + 0.5, 0, 1)
    out = picture * (1 - 0.45 * finish.amount * dots * (dark < 0.75))
    return (np.clip(out + 0.06 * finish.amount, 0, 1) * 255).astype(np.uint8)


def _pencil(image: Picture, finish: Finish) -> Picture:
    """Graphite: grainy greys on paper, strokes in the shadows."""
    height, width = image.shape[:2]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    y, x = np.mgrid[:height, :width].astype(np.float32)
    strokes = 0.5 + 0.5 * np.sin((x + 0.8 * y) * 2 * np.pi / _cell(image, finish))
    grain = _noise(height, width, finish.seed % 8)
    tone = 1 - (1 - grey) * (0.92 + 0.3 * finish.amount * (strokes - 0.5) + 0.12 * grain)
    colour = image.astype(np.float32) / 255
    keep = 0.0 if finish.grey else 0.55
    out = keep * colour + (1 - keep) * tone[..., None]
    out = np.where(grey[..., None] < 0.3, 0.15 + 0.85 * tone[..., None], out)
    return (np.clip(out + 0.02 * grain[..., None], 0, 1) * 255).astype(np.uint8)


def _watercolour(image: Picture, finish: Finish) -> Picture:
    """Washes: bleeding colours, pigment at edges, paper."""
    height, width = image.shape[:2]
    sigma = (0.35 + 0.6 * finish.amount) * min(height, width) / 128
    grain = _noise(height, width, finish.seed % 8)
    wash = cv2.resize(grain[::6, ::6], (width, height), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(image, (0, 0), sigma).astype(np.float32)
    wide = cv2.GaussianBlur(image, (0, 0), 3 * sigma).astype(np.float32)
    pigment = soft + 0.6 * (soft - wide) + 5 * wash[..., None] + 3 * grain[..., None]
    out = 255 - (255 - pigment) * 0.85
    return np.clip(out, 0, 255).astype(np.uint8)


def _crayon(image: Picture, finish: Finish) -> Picture:
    """Wax: colour misses the hollows of the paper."""
    height, width = image.shape[:2]
    grain = _noise(height, width, finish.seed % 8)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    strokes = np.sin((x * 0.6 + y) * 2 * np.pi / _cell(image, finish))
    missed = np.clip(0.25 + 0.3 * grain + 0.25 * strokes, 0, 1) * (0.25 + 0.45 * finish.amount)
    picture = image.astype(np.float32)
    return (picture + (250 - picture) * missed[..., None]).astype(np.uint8)


def _paper(image: Picture, finish: Finish) -> Picture:
    """Cut paper: a fine grain, and each sheet's shadow along strong edges."""
    grain = _noise(*image.shape[:2], finish.seed % 8)
    picture = image.astype(np.float32)
    shifted = np.roll(picture, (1, 1), (0, 1))
    edge = np.abs(picture - shifted).max(2) > 40
    shadow = cv2.GaussianBlur(edge.astype(np.float32), (0, 0), 1.0)
    out = picture * (1 - 0.45 * finish.amount * shadow[..., None]) + 5 * grain[..., None]
    return np.clip(out, 0, 255).astype(np.uint8)


def _pixels(image: Picture, finish: Finish) -> Picture:
    """Pixel art: few large pixels, few colours."""
    height, width = image.shape[:2]
    cell = max(1.5, finish.cell * min(height, width))
    small = (max(8, round(width / cell)), max(8, round(height / cell)))
    picture = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    step = round(16 + 32 * finish.amount)
    picture = (picture // step * step + step // 2).clip(0, 255).astype(np.uint8)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
