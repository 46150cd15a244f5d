"""Images without a face, for what finds faces: drawn backgrounds, and a user's photographs."""

import zlib
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from data_pipelines.held_out import Split
from data_pipelines.sources import SourceError
from sf_jax.media.images import read_image
from sf_jax.render.backdrops import procedural

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp")
PHOTOGRAPHS = 0.6  # share of them where there is a folder
CLUTTER = 0.4  # share of clutter among drawn ones
KEPT = 64  # decoded photographs a process keeps


@lru_cache(8)
def background_files(folder: Path, split: Split) -> list[Path]:
    """The image files in a folder and those below.

    Of a folder with the subfolders `train` and `test`, each is a split's; else one image in four,
    by its name, is for evaluation.

    Raises:
      SourceError: there is none for the split.
    """
    held_out = split == "evaluation"
    parts = folder / "train", folder / "test"
    if all(part.is_dir() for part in parts):
        kept = _images(parts[held_out])
    else:
        kept = [
            path
            for path in _images(folder)
            if (zlib.crc32(path.relative_to(folder).as_posix().encode()) % 4 == 0) == held_out
        ]
    if not kept:
        raise SourceError(f"no image file (*{', *'.join(SUFFIXES)}) of split {split}", path=folder)
    return kept


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


@lru_cache(KEPT)
def _photograph(path: Path) -> np.ndarray:
    image = read_image(path)
    shrink = 900 / max(image.shape[:2])
    if shrink < 1:
        image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return image


def background(
    number: int, split: Split, height: int, width: int, folder: Path | None = None
) -> np.ndarray:
    """An image uint8 [height, width, 3] without a face, the same for a number.

    Args:
      folder: of photographs without faces; part of the images are cut from these.

    Raises:
      SourceError: the folder has no image of the split.
      ImageError: an image cannot be read.
    """
    g = np.random.default_rng([9, number])
    if folder is None or g.random() >= PHOTOGRAPHS:
        return clutter(g, height, width) if g.random() < CLUTTER else procedural(g, height, width)
    files = background_files(folder, split)
    image = _photograph(files[int(g.integers(len(files)))])
    return _cut(image, height, width, g)


def _cut(image: np.ndarray, height: int, width: int, g: np.random.Generator) -> np.ndarray:
    """A part of an image at a chance size and position, mirrored at times."""
    most = min(image.shape[0] / height, image.shape[1] / width)
    scale = most * float(np.exp(g.uniform(np.log(0.35), 0)))
    tall, wide = max(1, int(height * scale)), max(1, int(width * scale))
    top = int(g.integers(image.shape[0] - tall + 1))
    left = int(g.integers(image.shape[1] - wide + 1))
    part = image[top : top + tall, left : left + wide]
    how = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    part = cv2.resize(part, (width, height), interpolation=how)
    return np.ascontiguousarray(part[:, ::-1]) if g.random() < 0.5 else part


def clutter(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Drawn clutter uint8 [height, width, 3]: shades, noise of several scales, shapes, stripes."""
    picture = _shade(g, height, width)
    for _ in range(int(g.integers(0, 4))):
        cells = int(2 ** g.uniform(1, 7))
        noise = g.normal(0, 1, (cells, max(2, cells * width // height), 3)).astype(np.float32)
        if g.random() < 0.6:
            noise[:] = noise.mean(-1, keepdims=True)
        smooth = cv2.INTER_CUBIC if g.random() < 0.7 else cv2.INTER_NEAREST
        picture += g.uniform(5, 40) * cv2.resize(noise, (width, height), interpolation=smooth)
    grey = picture.mean(-1, keepdims=True)
    picture = grey + np.float32(g.uniform(0, 1)) * (picture - grey)
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    for _ in range(int(g.integers(0, 25))):
        picture = _shape(picture, g, height, width)
    if g.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), float(np.exp(g.uniform(-1, 1.5))))
    return picture


def _shade(g: np.random.Generator, height: int, width: int) -> np.ndarray:
    spread = g.uniform(0, 90)
    colours = g.uniform(0, 255, 3) + g.normal(0, spread, (3, 3, 3))
    return cv2.resize(colours.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)


def _shape(picture: np.ndarray, g: np.random.Generator, height: int, width: int) -> np.ndarray:
    """The picture with one shape more: a rectangle, an ellipse, a polygon, lines or letters."""
    colour = g.uniform(0, 255, 3)
    colour = (colour.mean() + g.uniform(0, 1) * (colour - colour.mean())).tolist()
    x, y = (g.uniform(-0.1, 1.1, 2) * [width, height]).astype(int).tolist()
    w, h = (np.exp(g.uniform(-4, -0.5, 2)) * [width, height] + 2).astype(int).tolist()
    thickness = -1 if g.random() < 0.6 else int(g.integers(1, 6))
    kind = int(g.integers(5))
    drawn = picture.copy()
    if kind == 0:
        cv2.rectangle(drawn, (x, y), (x + w, y + h), colour, thickness)
    elif kind == 1:
        cv2.ellipse(drawn, (x, y), (w, h), float(g.uniform(0, 180)), 0, 360, colour, thickness)
    elif kind == 2:
        corners = [x, y] + g.normal(0, 1, (int(g.integers(3, 8)), 2)) * [w, h]
        cv2.fillPoly(drawn, [corners.astype(np.int32)], colour)
    elif kind == 3:
        step = int(g.integers(4, 30))
        for i in range(int(g.integers(2, 20))):
            at = (x + i * step, y) if w > h else (x, y + i * step)
            to = (at[0], at[1] + h) if w > h else (at[0] + w, at[1])
            cv2.line(drawn, at, to, colour, abs(thickness))
    else:
        text = "".join(chr(int(c)) for c in g.integers(33, 127, int(g.integers(1, 9))))
        size = float(g.uniform(0.4, 3) * height / 240)
        font = int(g.integers(8))
        cv2.putText(drawn, text, (x, y), font, size, colour, int(g.integers(1, 5)), cv2.LINE_AA)
    return cv2.addWeighted(picture, 0.3, drawn, 0.7, 0) if g.random() < 0.3 else drawn
