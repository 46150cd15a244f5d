"""Images in examples: the positions that they take, and the patches that their encoder reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int, UInt8

from sf_jax.model import vision
from sf_jax.model.config import Config, VisionConfig
from sf_jax.sequence.batch import Capacity, Modality
from sf_jax.sequence.example import collate

VISION = "vision"  # the modality


@dataclass(frozen=True, eq=False)
class ImageInsert:
    """One image in an example; see `ExampleInsert`.

    Attributes:
      start: index of its first placeholder token.
      grid: height and width in patches.
      patches: → float32 [P, patch_width], in the order of `vision.patchify`; called whenever a
        batch is made.
    """

    start: int
    grid: tuple[int, int]
    patches: Callable[[], Float[np.ndarray, "P patch_width"]]
    config: VisionConfig
    modality = VISION

    @property
    def merged(self) -> tuple[int, int]:
        """Height and width in merged tokens."""
        side = self.config.spatial_merge_size
        return self.grid[0] // side, self.grid[1] // side

    @property
    def size(self) -> int:
        """Patches."""
        return self.grid[0] * self.grid[1]

    @property
    def positions(self) -> Int[np.ndarray, "3 M"]:
        """One time, rows and columns."""
        return position_ids(*self.merged)

    @property
    def advance(self) -> int:
        """Text goes on from the largest position used."""
        return max(self.merged)

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields of `vision.Patches`."""
        return {"pixels": self.patches(), **vision.grid_positions(*self.grid, self.config)}


def position_ids(height: int, width: int) -> Int[np.ndarray, "3 M"]:
    """M-RoPE position ids of an image of so many merged tokens, from 0: time, rows, columns."""
    rows, columns = np.divmod(np.arange(height * width, dtype=np.int32), width)
    return np.stack([0 * rows, rows, columns])


def token_grid(image: UInt8[np.ndarray, "H W 3"], config: VisionConfig) -> tuple[int, int]:
    """Height and width of an image in merged tokens.

    Raises:
      ValueError: its sides do not fit the patch grid.
    """
    side = config.patch_size * config.spatial_merge_size
    height, width = image.shape[:2]
    if height % side or width % side:
        raise ValueError(f"an image of {height} x {width} pixels, expected multiples of {side}")
    return height // side, width // side


def image_inserts(
    tokens: Sequence[int] | Int[np.ndarray, " T"],
    images: Sequence[UInt8[np.ndarray, "H W 3"]],
    config: Config,
) -> tuple[ImageInsert, ...]:
    """Images in the order of their runs of image tokens.

    Raises:
      ValueError: the runs do not fit the images, or the sides of an image the patch grid.
    """
    c = config.vision
    grids = [token_grid(image, c) for image in images]
    starts = placeholder_starts(tokens, grids, config.image_token_id)
    cut = partial(
        vision.patchify,
        patch_size=c.patch_size,
        merge_size=c.spatial_merge_size,
        temporal_patch_size=c.temporal_patch_size,
    )
    merge = c.spatial_merge_size
    return tuple(
        ImageInsert(start, (height * merge, width * merge), partial(cut, image), c)
        for start, (height, width), image in zip(starts, grids, images, strict=True)
    )


def placeholder_starts(
    tokens: Sequence[int] | Int[np.ndarray, " T"],
    grids: Sequence[tuple[int, int]],
    image_token_id: int,
) -> list[int]:
    """Where the image tokens of each image begin; images may adjoin.

    Args:
      grids: height and width of each image in merged tokens.

    Raises:
      ValueError: the image tokens do not fit the grids.
    """
    found = np.flatnonzero(np.asarray(tokens) == image_token_id)
    starts, end = [], 0
    for number, (height, width) in enumerate(grids):
        if end == len(found):
            raise ValueError(f"{len(grids) - number} images have no image tokens")
        count = height * width
        run = found[end : end + count]
        if len(run) < count or run[-1] - run[0] >= count:
            raise ValueError(f"an image of {height} x {width} tokens meets fewer image tokens")
        starts.append(int(run[0]))
        end += count
    if end < len(found):
        raise ValueError("more runs of image tokens than images")
    return starts


def capacity(config: Config, length: int, patches: int, slots: bool = False) -> Capacity:
    """Rows of so many tokens and so many patches; of tokens alone where a model has no tower.

    Args:
      slots: whether batches have the fields of slots.

    Raises:
      ValueError: the patches do not make whole tokens.
    """
    if config.vision is None:
        return Capacity(length, slots=slots)
    c = config.vision
    merged, rest = divmod(patches, c.spatial_merge_size**2)
    if rest:
        raise ValueError(f"{patches} patches do not make whole tokens")
    sizes = {"patch": patches, "feature": merged, "patch_width": c.patch_width, "corner": 4}
    return Capacity(length, {VISION: Modality(vision.Patches, sizes, "patch")}, slots)


def patches_of(
    images: Sequence[UInt8[np.ndarray, "H W 3"]], config: Config, patches: int
) -> vision.Patches:
    """The patches of one image a row, padded to so many, for a tower without a text model."""
    rows = []
    for image in images:
        height, width = token_grid(image, config.vision)
        placeholders = np.full(height * width, config.image_token_id)
        rows.append([(0, insert) for insert in image_inserts(placeholders, [image], config)])
    room = capacity(config, patches, patches)
    return collate(rows, room.modalities[VISION], room.length)
