"""Images as Hugging Face's Qwen3-VL processor prepares them for a model.

The values equal those of its fast processor, which the released models name, bit for bit, and those
of its slow one to the last bit but one. Fast and slow differ in how they resize: see
`sf_jax.media.resize`. Where the fast processor runs on a GPU it resizes in floating point, as
nothing here does.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from jaxtyping import UInt8
from pydantic import AfterValidator, Field

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
from sf_jax.media.small_files import Settings

if TYPE_CHECKING:
    from sf_jax.model.config import VisionConfig

FILE = "preprocessor_config.json"
WHOLE_FILE = "processor_config.json"
SECTION = "image_processor"  # of the second file, where newer savers put the settings
SIZES = ("patch_size", "merge_size", "temporal_patch_size")
KINDS = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil")


class ProcessorError(DataError):
    """A processor's file, or an image, that is not what a Qwen3-VL model takes."""


def _scale_of_bytes(value: float) -> float:
    if abs(value * 255 - 1) > 1e-9:
        raise ValueError(f"found {value}, expected 1/255")
    return value


Pixels = Annotated[int, Field(ge=1, le=2**31)]
Side = Annotated[int, Field(ge=1, le=1024)]
Halves = Annotated[list[Literal[0.5]], Field(min_length=3, max_length=3)]  # type: ignore[valid-type]


class Edges(Settings):
    """Bounds of the area in pixels, despite their names."""

    shortest_edge: Pixels | None = None
    longest_edge: Pixels | None = None


class Stored(Settings):
    """The settings as files hold them; null is as absent, as in transformers."""

    image_processor_type: Literal[KINDS]  # type: ignore[valid-type]
    image_mean: Halves
    image_std: Halves
    patch_size: Side
    merge_size: Side
    temporal_patch_size: Side
    size: Edges | None = None
    min_pixels: Pixels | None = None
    max_pixels: Pixels | None = None
    resample: Literal[3] | None = None  # Pillow's number for bicubic
    do_resize: Literal[True] | None = None
    do_rescale: Literal[True] | None = None
    do_normalize: Literal[True] | None = None
    rescale_factor: Annotated[float, AfterValidator(_scale_of_bytes)] | None = None


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
    """Settings of a checkpoint's `processor_config.json` or `preprocessor_config.json`.

    Attributes:
      min_pixels, max_pixels: bounds of an image's area once resized; a merged token covers
        (patch_size × merge_size)² pixels, so 1024 tokens are 1,048,576 pixels.
      patch_size: side of a patch in pixels.
      merge_size: patches a side that become one text token.
      temporal_patch_size: how often a still image is repeated.
      fast: resize as torchvision does, which AutoProcessor prefers whatever the stored name; else
        as Pillow.
      source: the file that the settings are from, named in errors.
    """

    min_pixels: int = 65_536
    max_pixels: int = 16_777_216
    patch_size: int = 16
    merge_size: int = 2
    temporal_patch_size: int = 2
    fast: bool = True
    source: Path | None = field(default=None, compare=False, repr=False)

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
        file, content, within = _stored(Path(directory))
        try:
            found = small_files.checked(Stored, content, ProcessorError, within)
            low, high = _bounds(found, within)
        except ProcessorError as error:
            error.at(path=file)
            raise
        high = high if max_pixels is None else min(high, max_pixels)
        sizes = {name: getattr(found, name) for name in SIZES}
        fast = not found.image_processor_type.endswith("Pil")
        return cls(min(low, high), high, **sizes, fast=fast, source=file)

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

    def check(self, config: "VisionConfig") -> None:
        """Raises ProcessorError unless patches are what the vision tower takes."""
        names = {
            "patch_size": config.patch_size,
            "merge_size": config.spatial_merge_size,
            "temporal_patch_size": config.temporal_patch_size,
        }
        whole = self.source is not None and self.source.name == WHOLE_FILE
        for name, expected in names.items():
            if getattr(self, name) != expected:
                raise ProcessorError(
                    f"{name} is {getattr(self, name)}, expected {expected} as in config.json",
                    path=self.source,
                    field=f"{SECTION}.{name}" if whole else name,
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

    @property
    def largest_square(self) -> int:
        """Side in pixels of the largest square image once resized."""
        return self.factor * (isqrt(self.max_pixels) // self.factor)

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
        from sf_jax.model import vision  # late: it brings jax, which fitting an image does without

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


def _stored(directory: Path) -> tuple[Path, Any, str]:
    """The file that holds the settings, these, and the field that they are in.

    As in transformers, `processor_config.json` comes first where it holds an image processor.
    """
    whole = directory / WHOLE_FILE
    if whole.exists():
        inside = small_files.read_json(whole, ProcessorError)
        if not isinstance(inside, dict):
            raise ProcessorError("expected an object of fields", path=whole)
        if inside.get(SECTION) is not None:
            return whole, inside[SECTION], SECTION
    return directory / FILE, small_files.read_json(directory / FILE, ProcessorError), ""


def _bounds(found: Stored, within: str) -> tuple[int, int]:
    """The bounds of the area: `min_pixels` and `max_pixels` where given, else those of `size`."""
    size = found.size or Edges()
    low = size.shortest_edge if found.min_pixels is None else found.min_pixels
    high = size.longest_edge if found.max_pixels is None else found.max_pixels
    prefix = f"{within}." if within else ""
    for name, value in (("size.shortest_edge", low), ("size.longest_edge", high)):
        if value is None:
            raise ProcessorError("is missing", field=prefix + name)
    assert low is not None
    assert high is not None
    if low > high:
        problem = f"min_pixels (or shortest_edge) is {low}, more than max_pixels, {high}"
        raise ProcessorError(problem, field=f"{prefix}size")
    return low, high
