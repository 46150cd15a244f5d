"""Finding a face in an image, and the square in which it is read.

The finder gives a box. From the square around it the model's own tower reads the landmarks, which
give the square of `face.landmarks.framing_square`: centred on the face, turned as it is, brows to
chin over a fixed share of its side. Where that is far from the square in which they were read,
they are read once more in the new one, where they are more exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, UInt8

from sf_jax.convert.processor import FittedImage, ImageProcessor, ProcessorError
from sf_jax.face.landmarks import FRAMED, Square, framing_square
from sf_jax.media.crop import cut_square
from sf_jax.media.errors import DataError
from sf_jax.media.images import ImageError
from sf_jax.reader.action import Face

if TYPE_CHECKING:  # it brings jax, which a client does not need
    from sf_jax.reader.finder import Found

# Landmarks are read once more where the square moves by more than these: after one reading the
# coefficients of 160 renders differ by 0.040 from those in the true square, after two by 0.031.
FAR_SHIFT = 0.06  # of its centre, in sides
FAR_SCALE = 1.10  # of its side, as a factor
FAR_ROLL = np.radians(6)
ROUNDS = 2
# Beyond these no face was there to read: the finder's own square is kept.
LOST_SHIFT, LOST_SCALE = 1.0, 2.5

Picture = UInt8[np.ndarray, "H W 3"]
Find = Callable[[Picture], "list[Found]"]
ReadLandmarks = Callable[[Picture, Square], Float[np.ndarray, "70 2"]]
Which = Literal["largest"] | int  # a number counts faces from the left, from 1


class NoFaceError(DataError):
    """An image in which no face was found, or not the one that was asked for."""


@dataclass(frozen=True, eq=False)
class Framed:
    """What a model is to read of an image.

    Attributes:
      picture: as large as the model reads it; None where no face was found.
      face: what the picture was cut around; None where it is the whole image.
    """

    picture: FittedImage | None
    face: Face | None = None


class Framer:
    """Finds the faces of an image, and the square in which each is read.

    Args:
      find: the faces of an image; see `finder.Found`.
      landmarks: of the face that a square shows, in pixels of the image. None reads faces in the
        finder's squares.
      turned: whether squares are turned as the heads are.
      side: pixels of a face as the model reads it; None: about as many as it has in the image.
      source: identifies the files of another model that it is made of; empty if it is of none.
    """

    def __init__(
        self,
        find: Find,
        landmarks: ReadLandmarks | None = None,
        turned: bool = True,
        side: int | None = None,
        source: str = "",
    ):
        self.find, self.landmarks, self._turned, self.side = find, landmarks, turned, side
        self.source = source

    def faces(self, image: Picture) -> list[Face]:
        """All faces, from left to right."""
        found = in_order(self.find(image))
        return [self.face_of(image, one, i, len(found)) for i, one in enumerate(found, 1)]

    def face(self, image: Picture, which: Which = "largest") -> Face | None:
        """One face of an image; None if it is not there.

        Raises:
          ValueError: `which` names no face.
        """
        check_face(which)
        found = in_order(self.find(image))
        number = number_of(found, which)
        return (
            None if number is None else self.face_of(image, found[number - 1], number, len(found))
        )

    def face_of(self, image: Picture, found: "Found", number: int, count: int) -> Face:
        """A face that was found, with the square in which it is read."""
        first = first_square(found)
        square = self.settled(image, first) or self._own(first)
        return Face(square, found.score, number, count, (image.shape[1], image.shape[0]))

    def settled(self, image: Picture, first: Square) -> Square | None:
        """The square of the face that another square shows, by its landmarks; None where they
        cannot be read or are no face's."""
        if self.landmarks is None:
            return None
        square = first
        for _ in range(ROUNDS):
            found = self.landmarks(image, square)
            if not np.isfinite(found).all(1).any():
                return None
            before, square = square, framing_square(found, turned=self._turned)
            if _is_lost(first, square):
                return None
            if not is_far(before, square):
                break
        return square

    def _own(self, square: Square) -> Square:
        return square if self._turned else Square(square.x, square.y, square.side)

    def compile(self) -> None:
        """Compiles what it needs, so that the first image does not wait for it."""
        for height, width in ((48, 64), (64, 48)):  # a finder may have a program for each
            image = np.zeros((height, width, 3), np.uint8)
            self.find(image)
        self.settled(image, Square(24, 32, 64))


class Framing:
    """What a model reads of an image: the whole of it, or the square of a face.

    Attributes:
      processor: makes images as large as the model reads them.
    """

    def __init__(
        self,
        processor: ImageProcessor,
        framer: Callable[[], Framer] | None = None,
        framed: bool = False,
    ):
        """
        Args:
          framer: makes what finds the faces, once it is needed; None can only read whole images.
          framed: whether faces are found and framed where a call does not say.
        """
        self.processor, self._make_framer = processor, framer
        self._by_default = framed and framer is not None

    @cached_property
    def framer(self) -> Framer:
        """Finds the faces that are read.

        Raises:
          ValueError: the model has nothing to find a face with.
        """
        if self._make_framer is None:
            raise ValueError("this model has no finder; it reads whole images")
        return self._make_framer()

    def frames(self, whole: bool | None = None, face: Which | Literal["all"] = "largest") -> bool:
        """Whether a face is found and framed where this is asked for; see `Model.predict`.

        Raises:
          ValueError: it is asked for, and the model has nothing to find a face with; or a face is
            asked for of an image that is read whole.
        """
        if whole and face != "largest":
            raise ValueError(f"face={face!r} is for faces that are found; whole reads whole images")
        asked = whole is False or (whole is None and face != "largest")
        if asked and self._make_framer is None:
            raise ValueError("this model has no finder; it reads whole images")
        return asked or (self._by_default and whole is None)

    def framed(
        self,
        image: Picture,
        *,
        whole: bool | None = None,
        face: Which = "largest",
        force: bool = False,
    ) -> Framed:
        """What `Model.predict` reads of uint8 [H, W, 3].

        Raises:
          sf_jax.media.images.ImageError: the image is too long for its width.
        """
        found = None
        if self.frames(whole, face):
            found = self.framer.face(image, face)
            if found is None and not force:
                return Framed(None)
        return Framed(self.fitted(image)) if found is None else self.cut(image, found)

    def framed_faces(self, image: Picture) -> list[Framed]:
        """The faces of uint8 [H, W, 3], from left to right."""
        return [self.cut(image, face) for face in self.framer.faces(image)]

    def cut(self, image: Picture, face: Face) -> Framed:
        """The square of a face, as large as the model reads it."""
        box = face.box
        pixels = self.framer.side or max(1, round(box.side))
        size = self.processor.size(pixels, pixels)[0]
        picture = cut_square(image, box.x, box.y, box.side, box.roll, size)
        return Framed(FittedImage(picture), face)

    def fitted(self, image: Picture | FittedImage) -> FittedImage:
        """A whole image, as large as the model reads it.

        Raises:
          sf_jax.media.images.ImageError: the image is too long for its width.
        """
        try:
            return self.processor.fit(image)
        except ProcessorError as error:
            raise ImageError(str(error)) from error


def first_square(found: "Found") -> Square:
    """The square in which the landmarks of a face are read first."""
    box = found.box
    return Square(box.x, box.y, max(1.0, box.side / FRAMED), box.roll)


def is_far(before: Square, after: Square) -> bool:
    """Whether landmarks that were read in one square are to be read again in another."""
    shift, scale, roll = distance(before, after)
    return shift > FAR_SHIFT or scale > FAR_SCALE or roll > FAR_ROLL


def distance(one: Square, other: Square) -> tuple[float, float, float]:
    """How far squares are apart: the shift in sides of the first, the factor between the sides,
    at least 1, and the angle in radians."""
    shift = float(np.hypot(one.x - other.x, one.y - other.y)) / one.side
    scale = max(one.side, other.side) / max(1e-9, min(one.side, other.side))
    roll = abs((one.roll - other.roll + np.pi) % (2 * np.pi) - np.pi)
    return shift, scale, float(roll)


def _is_lost(first: Square, target: Square) -> bool:
    """Whether landmarks are no face of the square that the finder gave, or no numbers at all."""
    shift, scale, roll = distance(first, target)
    return not (shift <= LOST_SHIFT and scale <= LOST_SCALE and np.isfinite(roll))


def in_order(found: "list[Found]") -> "list[Found]":
    """From left to right."""
    return sorted(found, key=lambda one: (one.box.x, one.box.y))


def number_of(found: "list[Found]", which: Which) -> int | None:
    """The number, from 1, of the face asked for among faces in order; None if it is not there."""
    if which != "largest":
        return which if 1 <= which <= len(found) else None
    sides = [one.box.side for one in found]
    return sides.index(max(sides)) + 1 if sides else None


def check_face(face: Which) -> None:
    """Raises ValueError unless this names a face: "largest", or a number from 1."""
    if face != "largest" and (isinstance(face, bool) or not isinstance(face, int) or face < 1):
        raise ValueError(f"face is {face!r}, expected 'largest' or a number from 1")
