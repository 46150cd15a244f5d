"""From a found face to the square in which it is read."""

from dataclasses import replace

import numpy as np
import pytest

from sf_jax.convert.processor import ImageProcessor
from sf_jax.face.landmarks import FRAMED, Square, framing_square
from sf_jax.reader.action import Face
from sf_jax.reader.finder import Found
from sf_jax.reader.framing import (
    FAR_SHIFT,
    Framer,
    Framing,
    distance,
    first_square,
    is_far,
)

IMAGE = np.zeros((300, 400, 3), np.uint8)


def face_landmarks(x: float, y: float, height: float, roll: float = 0.0) -> np.ndarray:
    """Landmarks of an upright face, turned about its middle: brows at the top, the chin below."""
    generator = np.random.default_rng(0)
    points = generator.uniform(-0.4, 0.4, (70, 2))
    points[36:42], points[42:48] = (-0.2, -0.3), (0.2, -0.3)  # the eyes
    points[0], points[16], points[8], points[19] = (-0.4, 0), (0.4, 0), (0, 0.5), (0, -0.5)
    cos, sin = np.cos(roll), np.sin(roll)
    return np.array([x, y]) + height * points @ np.array([[cos, sin], [-sin, cos]]).T


class Reads:
    """Landmarks that are exact in the right square and drawn towards its middle elsewhere."""

    def __init__(self, *truth: float, error: float = 0.3) -> None:
        self.truth, self.error = face_landmarks(*truth), error
        self.squares: list[Square] = []

    def __call__(self, image: np.ndarray, square: Square) -> np.ndarray:
        self.squares.append(square)
        goal = framing_square(self.truth)
        shift, _, roll = distance(square, goal)
        off = self.error * shift * square.side
        cos, sin = np.cos(0.2 * roll), np.sin(0.2 * roll)
        about = self.truth.mean(0)
        return about + off + (self.truth - about) @ np.array([[cos, -sin], [sin, cos]])


def test_the_finders_box_gives_the_first_square() -> None:
    square = first_square(Found(Square(50, 60, 80, 0.1), 0.9))
    assert square == Square(50, 60, 80 / FRAMED, 0.1)


def test_a_face_is_read_in_the_square_of_its_landmarks() -> None:
    reads = Reads(200, 150, 80, 0.4)
    found = Found(Square(210, 140, 90), 0.9)
    face = Framer(lambda image: [found], reads).face(IMAGE)
    assert face is not None and (face.score, face.image) == (0.9, (400, 300))
    goal = framing_square(reads.truth)
    assert goal.roll == pytest.approx(0.4) and goal.side == pytest.approx(100)
    assert distance(face.box, goal) < (0.03, 1.03, 0.03)
    assert len(reads.squares) == 2  # the first was far from it
    assert is_far(reads.squares[0], face.box) and distance(reads.squares[1], face.box)[0] < 0.1
    near = Reads(200, 150, 80)
    box = replace(framing_square(near.truth), side=80.0)
    assert Framer(lambda image: [Found(box, 0.9)], near).face(IMAGE) is not None
    assert len(near.squares) == 1
    upright = Framer(lambda image: [found], Reads(200, 150, 80, 0.4), turned=False).face(IMAGE)
    assert upright is not None and upright.box.roll == 0


@pytest.mark.parametrize("wrong", [(2000, 150, 80), (200, 150, 900), (200, 150, np.nan)])
def test_landmarks_of_no_face_leave_the_finders_square(wrong: tuple) -> None:
    box = Square(200, 150, 80, 0.2)
    framer = Framer(lambda image: [Found(box, 0.9)], lambda image, square: face_landmarks(*wrong))
    face = framer.face(IMAGE)
    assert face is not None and face.box == Square(200, 150, 100, 0.2)
    assert framer.settled(IMAGE, box) is None


def test_faces_are_counted_from_the_left() -> None:
    boxes = [Square(300, 50, 40), Square(100, 60, 80), Square(200, 70, 60)]
    framer = Framer(lambda image: [Found(box, 0.5 + box.x / 1000) for box in boxes])
    faces = framer.faces(IMAGE)
    assert [face.box.x for face in faces] == [100, 200, 300]
    assert [(face.number, face.count) for face in faces] == [(1, 3), (2, 3), (3, 3)]
    assert framer.face(IMAGE) == faces[0] and framer.face(IMAGE, 3) == faces[2]
    assert framer.face(IMAGE, 4) is None
    assert Framer(lambda image: []).face(IMAGE) is None
    for which in (0, -1, True, "all", 1.0):
        with pytest.raises(ValueError, match="expected 'largest' or a number from 1"):
            framer.face(IMAGE, which)  # type: ignore[arg-type]


def test_how_far_squares_are_apart() -> None:
    one = Square(10, 10, 100, 3.0)
    assert distance(one, Square(13, 14, 50, -3.0)) == pytest.approx((0.05, 2.0, 2 * np.pi - 6))
    assert not is_far(one, one) and is_far(one, replace(one, x=11 + 100 * FAR_SHIFT))


def test_a_framed_face_is_as_large_as_the_model_reads_it() -> None:
    processor = ImageProcessor(64 * 64, 96 * 96)
    assert processor.largest_square == 96 == processor.size(10**4, 10**4)[0]
    face = Face(Square(200, 150, 40), 0.9, 1, 1, (400, 300))
    for side, size in ((None, 64), (96, 96)):
        framer = Framer(lambda image: [], side=side)
        picture = Framing(processor, lambda made=framer: made).cut(IMAGE, face).picture
        assert picture is not None and picture.pixels.shape == (size, size, 3)
