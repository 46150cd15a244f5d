"""A model without weights, for tests of what is around one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sf_jax.convert.processor import FittedImage
from sf_jax.face.landmarks import Square
from sf_jax.reader.action import FaceAction, no_face
from sf_jax.reader.finder import Found
from sf_jax.reader.framing import Framed, Framer, Framing
from sf_jax.reader.schema import channel_schema

MARK = 250  # blue of a face, in images of no other blue above it


class AsItIs:
    """A processor that resizes nothing."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def fit(self, image: np.ndarray | FittedImage) -> FittedImage:
        return image if isinstance(image, FittedImage) else FittedImage(image)


class PlainModel(Framing):
    """Answers by its `predict`, one image at a time; reads whole images unless it has a framer."""

    schema = channel_schema()
    predict: Callable[..., FaceAction]  # of a subclass: (pixels, previous=…) → its answer

    def __init__(self, framer: Framer | None = None, framed: bool = True) -> None:
        make = None if framer is None else lambda: framer
        super().__init__(AsItIs(), make, framed)  # type: ignore[arg-type]

    def predict_batch(
        self,
        images: Sequence[Framed],
        previous: list[FaceAction | None] | None = None,
        **called: Any,
    ) -> list[FaceAction]:
        if images[0].picture is None:
            return [self.no_face()]
        before = previous[0] if previous else None
        action = self.predict(images[0].picture.pixels, previous=before, **called)
        return [replace(action, face=images[0].face)]

    def no_face(self) -> FaceAction:
        return no_face(self.schema.names)


def find_marks(image: np.ndarray) -> list[Found]:
    """Finds rectangles whose blue is `MARK` and above: the higher, the surer."""
    found = []
    for blue in sorted(set(image[..., 2][image[..., 2] >= MARK].tolist()), reverse=True):
        rows, columns = np.nonzero(image[..., 2] == blue)
        side = float(max(np.ptp(rows), np.ptp(columns)) + 1)
        centre = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
        found.append(Found(Square(*centre, side), blue / 255))
    return found


def marks_framer() -> Framer:
    """Reads faces in the finder's squares, upright."""
    return Framer(find_marks, turned=False)


def marked(image: np.ndarray, *squares: tuple[int, int, int]) -> np.ndarray:
    """An image with faces: the left column, top row and side of each, the surest first."""
    out = np.array(image)
    for number, (left, top, side) in enumerate(squares):
        out[top : top + side, left : left + side, 2] = 255 - number
    return out
