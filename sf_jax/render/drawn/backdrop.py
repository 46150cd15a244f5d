"""What is drawn around the figure."""

import cv2
import numpy as np
from jaxtyping import UInt8

from sf_jax.render.drawn.canvas import Canvas, mix
from sf_jax.render.drawn.curves import ellipse
from sf_jax.render.drawn.style import Style
from sf_jax.render.shading import BACKGROUND


def paste(canvas: Canvas, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """Fills the canvas with a picture, stretched to its size."""
    height, width = canvas.pixels.shape[:2]
    layers = np.dstack([picture, np.full(picture.shape[:2], BACKGROUND, np.uint8)])
    cv2.resize(layers, (width, height), dst=canvas.pixels, interpolation=cv2.INTER_LINEAR)


def draw(canvas: Canvas, style: Style) -> None:
    """Fills the canvas with the style's own backdrop."""
    random = np.random.default_rng([7, style.seed])
    ground, second = style.palette.ground, style.palette.second
    height, width = (n / canvas.samples for n in canvas.pixels.shape[:2])
    canvas.paper(ground)
    if style.backdrop == "gradient":
        paste(canvas, np.array([[ground], [second]], np.uint8))
    elif style.backdrop == "burst":
        middle = np.array([width, height]) * random.uniform(0.3, 0.7, 2)
        count = int(random.integers(10, 26))
        angle = np.linspace(0, 2 * np.pi, 2 * count + 1) + random.uniform(0, 1)
        far = 2 * (width + height)
        for a, b in zip(angle[::2], angle[1::2], strict=False):
            ends = middle + far * np.array([[np.cos(a), np.sin(a)], [np.cos(b), np.sin(b)]])
            canvas.fill(np.concatenate([[middle], ends]), second, BACKGROUND)
    elif style.backdrop == "stripes":
        wide = random.uniform(0.05, 0.2) * width
        lean = random.uniform(-1, 1) * height
        for x in np.arange(-2 * width, 3 * width, 2 * wide):
            stripe = [[x, 0], [x + wide, 0], [x + wide + lean, height], [x + lean, height]]
            canvas.fill(np.array(stripe), second, BACKGROUND)
    elif style.backdrop == "dots":
        gap = random.uniform(0.08, 0.25) * width
        for i, y in enumerate(np.arange(0, height + gap, gap)):
            for x in np.arange((i % 2) * gap / 2, width + gap, gap):
                canvas.fill(ellipse(x, y, 0.28 * gap, 0.28 * gap, count=12), second, BACKGROUND)
    elif style.backdrop in ("shapes", "scribble"):
        _shapes(canvas, style, random, height, width)


def _shapes(
    canvas: Canvas, style: Style, random: np.random.Generator, height: float, width: float
) -> None:
    """A room or a street of boxes and blobs, or loose lines."""
    ground, second = style.palette.ground, style.palette.second
    for _ in range(int(random.integers(3, 9))):
        x, y = random.uniform(-0.1, 1, 2) * (width, height)
        w, h = random.uniform(0.1, 0.5, 2) * (width, height)
        colour = mix(ground, second, random.uniform(0.3, 1.4))
        tinted = np.clip(np.array(colour) + random.integers(-25, 25, 3), 0, 255).tolist()
        box = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
        if style.backdrop == "scribble":
            canvas.line(box + random.normal(0, 0.1, (4, 2)) * w, 1.0, style.palette.ink, BACKGROUND)
        elif random.random() < 0.6:
            canvas.fill(box, tuple(tinted), BACKGROUND)
        else:
            canvas.fill(ellipse(x, y, w / 2, h / 2), tuple(tinted), BACKGROUND)
