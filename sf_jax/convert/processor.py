"""Images as Hugging Face's Qwen3-VL processor prepares them for a model.

The values equal those of its fast processor, which the released models name, bit for bit, and those
of its slow one to the last bit but one. Fast and slow differ in how they resize: see
`sf_jax.media.resize`. Where the fast processor runs on a GPU it resizes in floating point, as
nothing here does.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sf_jax.media import small_files
from sf_jax.media.errors import DataError
from sf_jax.media.resize import (
    LONGEST,
    ResizeError,
    coarse_bucket,
    resized,
    resized_fixed_point,
    smart_size,
)
from sf_jax.model import vision
from sf_jax.model.config import VisionConfig

FILE = "preprocessor_config.json"
WHOLE_FILE = "processor_config.json"
KINDS = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil")


class ProcessorError(DataError):
    """A processor's file, or an image, that is not what a Qwen3-VL model takes."""


@dataclass(frozen=True, eq=False)
class FittedImage:
    """An image as large as a model reads it.

    A type of its own, because resizing may not be repeated: a long image that was enlarged to the
    lower bound of the area may be outside the bounds again once its sides are rounded up, and a
    second resizing would give another image.

    Attributes:
      pixels: uint8 [rows, columns, 3], both multiples of patch_size × merge_size.
    """

    pixels: UInt8[np.ndarray, "rows columns 3"]


@dataclass(frozen=True)
class ImageProcessor:
    """Settings of a checkpoint's `preprocessor_config.json`.

    Attributes:
      min_pixels, max_pixels: bounds of an image's area once resized; a merged token covers
        (patch_size × merge_size)² pixels, so 1024 tokens are 1,048,576 pixels.
      patch_size: side of a patch in pixels.
      merge_size: patches a side that become one text token.
      temporal_patch_size: how often a still image is repeated.
      fast: resize as torchvision does, which AutoProcessor prefers whatever the stored name; else
        as Pillow.
    """

    min_pixels: int = 65_536
    max_pixels: int = 16_777_216
    patch_size: int = 16
    merge_size: int = 2
    temporal_patch_size: int = 2
    fast: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ProcessorError(
                f"min_pixels is {self.min_pixels} and max_pixels {self.max_pixels}, expected "
                "0 < min_pixels <= max_pixels"
            )

    @classmethod
    def load(cls, directory: str | os.PathLike, max_pixels: int | None = None) -> "ImageProcessor":
        """Reads a checkpoint's settings.

        Args:
          max_pixels: a further bound, used where the checkpoint's own is larger; the released
            SemanticFace runs at 1024 tokens an image, 1024 × 32 × 32 pixels.

        Raises:
          ProcessorError: the file is missing, or a field is not what Qwen3-VL has; names both.
        """
        file, whole = Path(directory) / FILE, Path(directory) / WHOLE_FILE
        inside = whole.is_file() and not file.is_file()
        file = whole if inside else file
        content = small_files.read_json(file, ProcessorError)
        if inside and isinstance(content, dict):  # where newer savers put it
            content = content.get("image_processor")
        if not isinstance(content, dict):
            raise ProcessorError("expected a JSON object", path=file)
        _check_fixed(file, content)
        low, high = _bounds(file, content)
        if low > high:
            raise ProcessorError(f"min_pixels is {low}, more than max_pixels, {high}", path=file)
        high = high if max_pixels is None else min(high, max_pixels)
        sizes = {
            name: _whole(file, content, name)
            for name in ("patch_size", "merge_size", "temporal_patch_size")
        }
        fast = not content["image_processor_type"].endswith("Pil")
        return cls(min(low, high), high, **sizes, fast=fast)

    def as_dict(self) -> dict[str, Any]:
        """The content of `preprocessor_config.json`."""
        return {
            "image_processor_type": f"Qwen2VLImageProcessor{'Fast' if self.fast else 'Pil'}",
            "processor_class": "Qwen3VLProcessor",
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            "patch_size": self.patch_size,
            "temporal_patch_size": self.temporal_patch_size,
            "merge_size": self.merge_size,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }

    def check(self, config: VisionConfig, directory: str | os.PathLike) -> None:
        """Raises ProcessorError unless patches are what the vision tower takes."""
        names = {
            "patch_size": config.patch_size,
            "merge_size": config.spatial_merge_size,
            "temporal_patch_size": config.temporal_patch_size,
        }
        for name, expected in names.items():
            if getattr(self, name) != expected:
                raise ProcessorError(
                    f"{name} is {getattr(self, name)}, expected {expected} as in config.json",
                    path=Path(directory) / FILE,
                    field=name,
                )

    @property
    def factor(self) -> int:
        """Side in pixels of what becomes one image token."""
        return self.patch_size * self.merge_size

    @property
    def max_tokens(self) -> int:
        """Image tokens that `max_pixels` allow; a long image may have more, see `smart_size`."""
        return self.max_pixels // self.factor**2

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns in pixels of an image once resized."""
        return smart_size(height, width, self.factor, self.min_pixels, self.max_pixels)

    def tokens(self, image: FittedImage) -> int:
        """Image tokens of an image."""
        return image.pixels.shape[0] * image.pixels.shape[1] // self.factor**2

    @cached_property
    def longest(self) -> tuple[int, int]:
        """Rows and columns in pixels of the image with the most tokens that an image can have.

        Where the two bounds of the area are close, as the built-in model's are, images of more than
        about 10 times the shorter side have more than `max_tokens`.
        """
        # Of each shape a small image, which is enlarged, and a large one, which is shrunk.
        shapes = product((1, 1000), range(4, 4 * LONGEST + 1))
        sizes = [self.size(4 * scale, quarters * scale) for scale, quarters in shapes]
        return max(sizes, key=lambda size: size[0] * size[1])

    def padded(self, tokens: int) -> int:
        """To how many image tokens an image of so many is padded: one of at most seven numbers."""
        if tokens <= self.max_tokens:
            return coarse_bucket(tokens, self.max_tokens)
        rows, columns = self.longest
        return max(tokens, rows * columns // self.factor**2)

    def __call__(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Resizes, normalises and cuts images.

        Args:
          images: uint8 [H, W, 3] RGB, sizes may differ.

        Returns:
          pixel_values, float32 [P, patch_width], the patches of all images one after another, in
          merge-block order and within a patch by channel, time, row, column, from -1 to 1; and
          image_grid_thw, int64 [N, 3], the grid of each image in patches: time, rows, columns.

        Raises:
          ProcessorError: no image, or one of another type or absurd shape, named by its number.
        """
        if not images:
            raise ProcessorError("no image was given")
        patches, grids = [], []
        for number, image in enumerate(images, 1):
            try:
                fitted = self.fit(image).pixels
            except ProcessorError as error:
                raise ProcessorError(f"image {number}: {error}") from error
            sizes = self.patch_size, self.merge_size, self.temporal_patch_size
            patches.append(vision.patchify(fitted, *sizes))
            height, width = fitted.shape[:2]
            grids.append((1, height // self.patch_size, width // self.patch_size))
        return np.concatenate(patches), np.array(grids, np.int64)

    def fit(self, image: np.ndarray | FittedImage) -> FittedImage:
        """Resizes uint8 [H, W, 3]; an image that is fitted already stays as it is.

        Raises:
          ProcessorError: an image of another type or absurd shape.
        """
        if isinstance(image, FittedImage):
            return image
        found = f"{getattr(image, 'dtype', type(image).__name__)} {list(np.shape(image))}"
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
            raise ProcessorError(f"{found}, expected uint8 [height, width, 3]")
        if image.shape[2] != 3:
            raise ProcessorError(f"{found}, expected three channels, RGB")
        try:
            resize = resized_fixed_point if self.fast else resized
            return FittedImage(resize(image, *self.size(*image.shape[:2])))
        except ResizeError as error:
            raise ProcessorError(str(error)) from error


def _check_fixed(file: Path, content: dict[str, Any]) -> None:
    """What every Qwen3-VL checkpoint has, and the code above assumes."""
    kind = content.get("image_processor_type")
    if kind not in KINDS:
        raise ProcessorError(
            f"image_processor_type is {kind!r}, expected one of {', '.join(KINDS)}", path=file
        )
    for name in ("image_mean", "image_std"):
        if content.get(name) != [0.5, 0.5, 0.5]:
            raise ProcessorError(
                f"{name} is {content.get(name)}, expected [0.5, 0.5, 0.5]", path=file
            )
    if content.get("resample", 3) != 3:  # Pillow's number for bicubic
        raise ProcessorError(f"resample is {content['resample']}, expected 3, bicubic", path=file)
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if content.get(name) is False:
            raise ProcessorError(f"{name} is false, expected true", path=file)


def _bounds(file: Path, content: dict[str, Any]) -> tuple[int, int]:
    """The bounds of the area: `min_pixels` and `max_pixels` where given, else those of `size`."""
    size = content.get("size") if isinstance(content.get("size"), dict) else {}
    found = dict(size or {})
    for name, alias in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        if content.get(name) is not None:
            found[alias] = content[name]
    return _whole(file, found, "shortest_edge"), _whole(file, found, "longest_edge")


def _whole(file: Path, content: dict[str, Any], name: str) -> int:
    value = content.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ProcessorError(f"{name} is {value!r}, expected a positive whole number", path=file)
    return value
